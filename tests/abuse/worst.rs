//! As much memory as strangers can make a relay take, by all means together. `docs/limits.md` has the formula.

use std::io::{ErrorKind, Write};
use std::net::TcpStream;
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use crate::frames::{Frames, pair};
use crate::support::raw::{frame, upgrade};
use crate::support::{Relay, eventually, pattern};

/// What the relay takes at most, in KiB, as the documentation says.
const BASE: usize = 8 * 1024;
const EACH_CONNECTION: usize = 600;
const EACH_CONNECTION_IN_SHORT_MEMORY: usize = 40;
const EACH_HANDSHAKE: usize = 32;

/// What the crowd sends, over and over.
const MESSAGE: usize = 60_000;
const MESSAGES: usize = 4;

/// A client of the crowd, and how many of its messages were accepted as a whole.
struct Client(TcpStream, usize);

/// How often in a row nothing of anybody is accepted before all are believed to be stuck: for some seconds of everybody's.
const STUCK: usize = 150;

/// Both sides of so many pairs send and do not read, and ask for answers, too, until nothing of anybody has been accepted
/// for a while. Peers are side by side.
fn crowd(relay: &Relay, pairs: usize) -> Vec<Client> {
    let pairs: Vec<_> = (0..pairs).map(|code| pair(relay, &code.to_string())).collect();
    let message = frame(0x82, &vec![7; MESSAGE]);
    let bytes = [message.repeat(MESSAGES), frame(0x89, &[7; 125])].concat();
    let mut sockets: Vec<_> = pairs.into_iter().flat_map(|(a, b)| [(a, 0), (b, 0)]).collect();
    sockets.iter().for_each(|(socket, _)| socket.set_nonblocking(true).unwrap());
    let mut stuck = 0;
    while stuck < STUCK {
        stuck += 1;
        for (socket, sent) in &mut sockets {
            match socket.write(&bytes[*sent % bytes.len()..]) {
                Ok(count) => (*sent, stuck) = (*sent + count, 0),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => panic!("{error}"),
            }
        }
        // Behind a read that takes all there is, the relay reads on while the batch before waits.
        thread::sleep(Duration::from_millis(20));
    }
    let whole = |sent: usize| MESSAGES * (sent / bytes.len()) + MESSAGES.min(sent % bytes.len() / message.len());
    sockets.into_iter().map(|(socket, sent)| Client(socket, whole(sent))).collect()
}

/// What was resident at most, is, and the test drives it there.
fn assert_peak(relay: &Relay, worst: usize, least: usize) {
    eventually("it is driven there", || relay.memory("VmHWM") >= least);
    let peak = relay.memory("VmHWM");
    println!("{peak} KiB of {worst}");
    assert!(peak <= worst, "{peak} KiB, but {worst} at most");
}

/// One after the other: what they measure is how much there is of everything.
static TURN: Mutex<()> = Mutex::new(());

#[test]
fn memory_is_what_the_formula_says_at_most() {
    const CONNECTIONS: usize = 60;
    const HANDSHAKES: usize = 100;
    let _turn = TURN.lock();
    let limits = [CONNECTIONS, HANDSHAKES].map(|limit| limit.to_string());
    let relay = Relay::start(&["--max-connections", &limits[0], "--max-handshakes", &limits[1]]);
    let head = upgrade("/?pair=late", &format!("{}Cookie: {}\r\n", "A: b\r\n".repeat(80), "c".repeat(14_000)));
    let worst = BASE + CONNECTIONS * EACH_CONNECTION + HANDSHAKES * EACH_HANDSHAKE;
    // What is read at once is up to the system: on a busy machine some hold one buffer where they could hold two.
    for _ in 0..5 {
        let clients = crowd(&relay, CONNECTIONS / 2);
        // And the front door is full of requests that are nearly finished.
        let late: Vec<_> = (0..2 * HANDSHAKES)
            .map(|_| {
                let mut socket = relay.socket();
                socket.write_all(&head.as_bytes()[..head.len() - 2]).unwrap();
                socket
            })
            .collect();
        thread::sleep(Duration::from_millis(500));
        assert_peak(&relay, worst, worst / 2);
        drop((late, clients));
        relay.assert_empty();
        if relay.memory("VmHWM") > worst / 4 * 3 {
            return;
        }
    }
    println!("it was not driven any further");
}

/// Who stalls has all the memory that there is for large buffers, and everybody else goes on without it.
#[test]
fn memory_for_buffers_has_a_bound_and_those_that_have_none_go_on() {
    const CONNECTIONS: usize = 200;
    const BUFFERS: usize = 4 * 1024;
    let _turn = TURN.lock();
    let relay = Relay::start(&["--max-buffer-memory", "4MiB"]);
    let clients = crowd(&relay, CONNECTIONS / 2);
    unharmed_stream(&relay);
    assert_peak(&relay, BASE + BUFFERS + CONNECTIONS * EACH_CONNECTION_IN_SHORT_MEMORY, BUFFERS + CONNECTIONS * 12);

    // Nothing that was taken from them is lost, and when they have read it there is memory again.
    thread::scope(|scope| {
        for pair in clients.chunks(2) {
            for (Client(socket, _), Client(_, messages)) in [(&pair[0], &pair[1]), (&pair[1], &pair[0])] {
                scope.spawn(move || {
                    socket.set_nonblocking(false).unwrap();
                    let (mut frames, mut received) = (Frames::of(socket), 0);
                    while received < messages * MESSAGE {
                        // In fragments, and between them the answers to pings, and pings.
                        let (first, payload) = frames.next();
                        assert!(first == 0x89 || payload.iter().all(|&byte| byte == 7));
                        received += if first & 0x08 == 0 { payload.len() } else { 0 };
                    }
                });
            }
        }
    });
    drop(clients);
    relay.assert_empty();
    unharmed_stream(&relay);
}

/// A message of many buffers goes each way, while its sender is not kept waiting for anybody else's.
fn unharmed_stream(relay: &Relay) {
    let (a, b) = pair(relay, "others");
    let message = pattern(2 << 20, 3);
    let sent = frame(0x82, &message);
    thread::scope(|scope| {
        for (mut from, to) in [(&a, &b), (&b, &a)] {
            let (sent, message) = (&sent, &message);
            scope.spawn(move || from.write_all(sent).unwrap());
            scope.spawn(move || assert!(Frames::of(to).message().1 == *message));
        }
    });
}
