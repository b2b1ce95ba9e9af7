//! The relay's host: signals, closed outputs, stops and restarts.

use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::ops::Range;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::aftermath::{A_PAIR, round_trip, unharmed};
use crate::frames::{Frames, pair};
use crate::support::raw::{expect, frame, open, server_frame, upgrade};
use crate::support::runner::words;
use crate::support::{PATIENCE, Relay, arc_relay, eventually, pattern};

/// The longest graceful stop on a slow machine.
///
/// The README promises two seconds, and the simulation holds the relay to three. A stalled reader's own deadlines would
/// allow more than a minute.
const STOP: Duration = Duration::from_secs(30);

const STOPPING: (u16, &str) = (1001, "relay stopping");

/// An address with a port that was free a moment ago.
fn free_port() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// The arguments of a relay with this address.
fn start_on(address: SocketAddr) -> [String; 5] {
    ["start", "--host", "127.0.0.1", "--port", &address.port().to_string()].map(String::from)
}

/// Starts a relay with redirected outputs, which cannot print its address.
fn start_redirected(redirection: &str) -> (Child, SocketAddr) {
    let address = free_port();
    let relay = Command::new("sh")
        .args(["-c", &format!("exec \"$@\" {redirection}"), "sh"])
        .args(words(env!("CARGO_BIN_EXE_arc-relay")))
        .args(start_on(address))
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    eventually("the relay listens", || TcpStream::connect(address).is_ok());
    (relay, address)
}

/// Connects a pair to this address, and sends a message each way.
fn connect_pair(address: SocketAddr) -> (TcpStream, TcpStream) {
    let [mut a, mut b] = [0, 1].map(|_| {
        let mut socket = TcpStream::connect(address).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        open(&mut socket, "/?pair=x", b"");
        socket
    });
    round_trip(&mut a, &mut b);
    (a, b)
}

#[test]
fn closed_or_full_outputs_are_harmless() {
    for redirection in [">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-", ">/dev/full 2>/dev/full"] {
        let (mut relay, address) = start_redirected(redirection);
        drop(connect_pair(address));
        drop(connect_pair(address));
        kill_process(Pid::from_child(&relay), Signal::TERM).unwrap();
        assert_eq!(relay.wait().unwrap().code(), Some(0), "{redirection}");
    }
}

#[test]
fn outputs_into_broken_pipes_are_harmless() {
    let address = free_port();
    let mut relay = arc_relay()
        .args(start_on(address))
        .stdout(std::io::pipe().unwrap().1)
        .stderr(std::io::pipe().unwrap().1)
        .spawn()
        .unwrap();
    eventually("the relay listens", || TcpStream::connect(address).is_ok());
    drop(connect_pair(address));
    kill_process(Pid::from_child(&relay), Signal::TERM).unwrap();
    assert_eq!(relay.wait().unwrap().code(), Some(0));
}

#[test]
fn sigpipe_has_no_effect() {
    let relay = Relay::start(&[]);
    unharmed(&relay, A_PAIR, |relay| {
        let (mut a, mut b) = pair(relay, "x");
        for _ in 0..100 {
            relay.signal(Signal::PIPE);
            round_trip(&mut a, &mut b);
        }
    });
}

/// The stop is longer than the ping timeout, but does not count as silence of the clients.
#[test]
fn stopped_relay_continues_where_it_was() {
    let relay = Relay::start(&["--ping-interval", "1500ms", "--ping-timeout", "1500ms"]);
    unharmed(&relay, A_PAIR, |relay| {
        let (mut a, mut b) = pair(relay, "x");
        let (mut leaver, stayer) = pair(relay, "y");
        round_trip(&mut a, &mut b);
        relay.signal(Signal::STOP);
        // The kernel goes on: it accepts data, connections and ends of streams.
        a.write_all(&frame(0x82, b"meanwhile")).unwrap();
        b.write_all(&frame(0x82, &pattern(100_000, 1))).unwrap();
        leaver.write_all(&frame(0x82, b"last words")).unwrap();
        drop(leaver);
        let mut late = relay.socket();
        late.write_all(b"GET /health HTTP/1.1\r\nHost: late\r\nConnection: close\r\n\r\n").unwrap();
        thread::sleep(Duration::from_secs(4));
        relay.signal(Signal::CONT);
        expect(&mut b, &server_frame(0x82, b"meanwhile"));
        // (The message may arrive in fragments.)
        assert!(Frames::of(&a).message().1 == pattern(100_000, 1));
        let mut frames = Frames::of(&stayer);
        assert_eq!(frames.next(), (0x82, b"last words".to_vec()));
        assert_eq!(frames.closed(), (1000, String::from("peer disconnected")));
        expect(&mut late, b"HTTP/1.1 200 OK\r\n");
        round_trip(&mut a, &mut b);
    });
}

/// A stop of the relay makes no pong or request late that arrives meanwhile.
///
/// The stop is longer than the timeouts. It begins while third clients probe pairs, and other clients have sent a part
/// of their requests.
#[test]
fn answers_that_arrive_while_the_relay_is_stopped_are_in_time() {
    const PAIRS: usize = 8;
    let relay = Relay::start(&["--probe-timeout", "2s", "--handshake-timeout", "3s"]);
    unharmed(&relay, A_PAIR, |relay| {
        for _ in 0..2 {
            let mut pairs: Vec<_> = (0..PAIRS).map(|code| pair(relay, &code.to_string())).collect();
            let probe = |code: usize| {
                let mut third = relay.socket();
                third.write_all(upgrade(&format!("/?pair={code}"), "").as_bytes()).unwrap();
                third
            };
            let mut thirds: Vec<_> = (0..PAIRS).map(probe).collect();
            let mut late: Vec<_> = (0..PAIRS).map(|_| relay.socket()).collect();
            let requests: Vec<_> = (0..PAIRS).map(|code| upgrade(&format!("/?pair=late{code}"), "")).collect();
            let send = |late: &mut [TcpStream], part: Range<usize>| {
                for (socket, request) in late.iter_mut().zip(&requests) {
                    socket.write_all(&request.as_bytes()[part.start..part.end.min(request.len())]).unwrap();
                }
            };
            send(&mut late, 0..30);
            for side in pairs.iter_mut().flat_map(|(a, b)| [a, b]) {
                expect(side, &server_frame(0x89, b""));
            }
            relay.signal(Signal::STOP);
            for side in pairs.iter_mut().flat_map(|(a, b)| [a, b]) {
                side.write_all(&frame(0x8A, b"")).unwrap();
            }
            send(&mut late, 30..usize::MAX);
            thread::sleep(Duration::from_millis(3500));
            relay.signal(Signal::CONT);
            thirds.iter_mut().for_each(|third| expect(third, b"HTTP/1.1 409 "));
            late.iter_mut().for_each(|socket| expect(socket, b"HTTP/1.1 101 "));
            pairs.iter_mut().for_each(|(a, b)| round_trip(a, b));
            drop((pairs, thirds, late));
            // A client that has just sent something keeps its seat from the next one for a moment.
            eventually("all have left", || relay.pairs() == 0);
        }
    });
}

#[test]
fn restarted_relay_gets_its_port_at_once() {
    let address = free_port();
    let start = || {
        let mut command = arc_relay();
        command.args(start_on(address));
        Relay::spawn(command)
    };
    let mut held = Vec::new();
    for signal in [Signal::TERM, Signal::KILL, Signal::INT, Signal::TERM] {
        let mut relay = start();
        let (mut a, mut b) = pair(&relay, "x");
        round_trip(&mut a, &mut b);
        // The relay closes a connection of this pair first, so the kernel keeps it for a minute (TIME_WAIT).
        let (mut closer, other) = pair(&relay, "y");
        closer.write_all(&frame(0x88, b"")).unwrap();
        expect(&mut closer, &[0x88, 0]);
        drop((closer, other));
        relay.signal(signal);
        if signal == Signal::KILL {
            relay.wait();
        } else {
            for socket in [&a, &b] {
                assert_eq!(Frames::of(socket).closed(), (STOPPING.0, STOPPING.1.to_owned()));
            }
            assert_eq!(relay.wait().code(), Some(0));
        }
        // These clients still hold their sockets while the next relay starts.
        held.push((a, b));
    }
    let relay = start();
    unharmed(&relay, A_PAIR, |relay| drop(pair(relay, "x")));
}

/// Connects a pair, and sends to a reader that does not read until all buffers are full.
fn stall(relay: &Relay) -> (TcpStream, TcpStream) {
    let (mut a, b) = pair(relay, "x");
    a.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
    let message = frame(0x82, &pattern(1 << 20, 1));
    while a.write_all(&message).is_ok() {}
    (a, b)
}

#[test]
fn stalled_reader_does_not_delay_a_graceful_stop() {
    let mut relay = Relay::start(&[]);
    let stalled = stall(&relay);
    let start = Instant::now();
    relay.signal(Signal::TERM);
    assert_eq!(relay.wait().code(), Some(0));
    assert!(start.elapsed() < STOP, "it took {:?}", start.elapsed());
    drop(stalled);
}

#[test]
fn stalled_reader_that_reads_on_is_closed_with_1001() {
    let mut relay = Relay::start(&[]);
    let (sender, reader) = stall(&relay);
    relay.signal(Signal::TERM);
    // The reader gets the data received for it: whole messages, and the beginning of a last one.
    let mut frames = Frames::of(&reader);
    let close = loop {
        let (first, payload) = frames.next();
        if first == 0x88 {
            break payload;
        }
    };
    assert_eq!(close, [&1001_u16.to_be_bytes()[..], b"relay stopping"].concat());
    assert_eq!(Frames::of(&sender).closed(), (STOPPING.0, STOPPING.1.to_owned()));
    drop((sender, reader));
    assert_eq!(relay.wait().code(), Some(0));
}
