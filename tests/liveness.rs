//! Liveness: keep-alive pings, the write timeout, and takeovers by third clients.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod support;

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use futures_lite::FutureExt;
use rustix::process::Signal;
use smol::Timer;
use support::raw::{expect, expect_end, frame, head, open, server_close, server_frame, upgrade};
use support::{Client, PATIENCE, Relay, eventually, run};

const LOST: (u16, &str) = (1011, "peer connection lost");
const TIMEOUT: (u16, &str) = (1011, "ping timeout");

/// Connects a raw client, which answers no ping by itself.
fn enter(relay: &Relay, target: &str) -> TcpStream {
    let mut socket = relay.socket();
    open(&mut socket, target, b"");
    socket
}

/// Connects both clients of a pair.
fn pair(relay: &Relay) -> (TcpStream, TcpStream) {
    (enter(relay, "/?pair=x"), enter(relay, "/?pair=x"))
}

/// Answers a ping with its application data, after its header was read.
fn pong(socket: &mut TcpStream, length: u8) {
    let mut data = vec![0; length.into()];
    socket.read_exact(&mut data).unwrap();
    socket.write_all(&frame(0x8A, &data)).unwrap();
}

/// Answers empty pings for this long, and returns their number.
fn answer_pings(socket: &mut TcpStream, time: Duration) -> usize {
    let (end, mut pings) = (Instant::now() + time, 0);
    while let left @ 1.. = end.saturating_duration_since(Instant::now()).as_millis() {
        socket.set_read_timeout(Some(Duration::from_millis(left as u64))).unwrap();
        let mut ping = [0; 2];
        match socket.read_exact(&mut ping) {
            Ok(()) => assert_eq!(ping, [0x89, 0], "an empty ping"),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => break,
            Err(error) => panic!("{error}"),
        }
        pings += 1;
        socket.write_all(&frame(0x8A, b"")).unwrap();
    }
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    pings
}

/// The status of the answer to a third client.
fn status_of_third(relay: &Relay) -> String {
    let response = relay.http(&upgrade("/?pair=x", ""));
    response.split(' ').nth(1).unwrap().to_owned()
}

#[test]
fn quiet_client_is_pinged_and_stays_if_it_answers() {
    let relay = Relay::start(&["--ping-interval", "200ms", "--ping-timeout", "10s"]);
    let (mut a, mut b) = pair(&relay);
    let (begin, mut pings) = (Instant::now(), 0);
    while pings < 5 {
        pings += answer_pings(&mut a, Duration::from_millis(500));
        assert!(begin.elapsed() < PATIENCE, "only {pings} pings");
    }
    let most = begin.elapsed().as_millis() / 200 + 1;
    assert!(pings as u128 <= most, "{pings} pings, where there should be {most} at most");
    a.write_all(&frame(0x82, b"still there")).unwrap();
    // B has answered nothing yet, and has got only one ping.
    expect(&mut b, &[0x89, 0]);
    expect(&mut b, &server_frame(0x82, b"still there"));
}

#[test]
fn client_that_answers_no_ping_is_closed_and_its_peer_gets_1011() {
    let relay = Relay::start(&["--ping-interval", "2s", "--ping-timeout", "6s"]);
    let begin = Instant::now();
    let (mut silent, mut peer) = pair(&relay);
    loop {
        let mut byte = [0];
        peer.set_read_timeout(Some(PATIENCE)).unwrap();
        peer.read_exact(&mut byte).unwrap();
        if byte == [0x88] {
            break;
        }
        let mut rest = [0];
        peer.read_exact(&mut rest).unwrap();
        peer.write_all(&frame(0x8A, b"")).unwrap();
    }
    assert!(begin.elapsed() >= Duration::from_secs(2), "the client was given up before it was pinged");
    expect(&mut peer, &server_close(LOST.0, LOST.1)[1..]);
    peer.write_all(&frame(0x88, &1000_u16.to_be_bytes())).unwrap();
    expect(&mut silent, &[0x89, 0]);
    expect(&mut silent, &server_close(TIMEOUT.0, TIMEOUT.1));
    expect_end(&mut silent);
    assert_eq!(relay.pairs(), 0);
}

#[test]
fn waiting_client_that_answers_no_ping_loses_its_seat() {
    let relay = Relay::start(&["--ping-interval", "100ms", "--ping-timeout", "100ms"]);
    let mut silent = enter(&relay, "/?pair=x");
    expect(&mut silent, &[0x89, 0]);
    expect(&mut silent, &server_close(TIMEOUT.0, TIMEOUT.1));
    assert_eq!(relay.pairs(), 0);
}

#[test]
fn ping_interval_of_zero_disables_pings() {
    let relay = Relay::start(&["--ping-interval", "0", "--ping-timeout", "100ms"]);
    let (mut a, _b) = pair(&relay);
    assert_eq!(answer_pings(&mut a, Duration::from_secs(1)), 0);
    assert_eq!(relay.pairs(), 1);
}

/// Writes until all buffers on the way are full, and returns the number of whole messages written.
///
/// A part of one more message may be written.
fn fill(socket: &mut TcpStream, message: &[u8]) -> usize {
    const STUCK: usize = 5;
    socket.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
    let (mut sent, mut stuck) = (0, 0);
    while stuck < STUCK {
        match socket.write(&message[sent % message.len()..]) {
            Ok(count) => (sent, stuck) = (sent + count, 0),
            Err(error) if error.kind() == ErrorKind::WouldBlock => stuck += 1,
            Err(_given_up) => break,
        }
    }
    sent / message.len()
}

#[test]
fn ping_timeout_does_not_close_a_blocked_sender_or_a_slow_reader() {
    let relay = Relay::start(&["--ping-interval", "2s", "--ping-timeout", "2s"]);
    let (mut sender, mut slow) = pair(&relay);
    let message = frame(0x82, &[7; 60_000]);
    let sent = fill(&mut sender, &message);
    assert!(sent > 0);
    thread::sleep(Duration::from_secs(6)); // neither client answers a ping
    assert_eq!(relay.pairs(), 1);
    let mut payload = 0;
    while payload < sent * 60_000 {
        let mut head = [0; 2];
        slow.read_exact(&mut head).unwrap();
        match head {
            [0x89, length] => pong(&mut slow, length),
            [0x82, 126] => {
                let mut length = [0; 2];
                slow.read_exact(&mut length).unwrap();
                let mut bytes = vec![0; u16::from_be_bytes(length).into()];
                slow.read_exact(&mut bytes).unwrap();
                assert!(bytes.iter().all(|&byte| byte == 7));
                payload += bytes.len();
            }
            other => panic!("unexpected: {other:x?}"),
        }
    }
}

#[test]
fn client_that_accepts_no_data_is_closed_after_the_write_timeout() {
    let relay = Relay::start(&["--write-timeout", "2s"]);
    let (mut sender, _stalled) = pair(&relay);
    let begin = Instant::now();
    let (message, mut sent) = (frame(0x82, &[7; 60_000]), 0);
    sender.set_write_timeout(Some(Duration::from_millis(100))).unwrap();
    while sender.set_nonblocking(true).and_then(|()| sender.peek(&mut [0])).is_err() {
        sender.set_nonblocking(false).unwrap();
        sent += sender.write(&message[sent % message.len()..]).unwrap_or(0);
        assert!(begin.elapsed() < PATIENCE, "the sender never gets a close frame");
    }
    sender.set_nonblocking(false).unwrap();
    expect(&mut sender, &server_close(LOST.0, LOST.1));
    assert!(begin.elapsed() >= Duration::from_secs(2), "{:?}", begin.elapsed());
    assert_eq!(relay.pairs(), 0);
}

/// A silent program's kernel, like a proxy, acknowledges the probe, so the ping timeout applies.
#[test]
fn third_client_takes_the_seat_of_a_program_silent_for_the_ping_timeout() {
    let relay = Relay::start(&["--probe-timeout", "30s", "--ping-timeout", "5s"]);
    let (mut dead, mut peer) = pair(&relay);
    let waited = thread::scope(|scope| {
        let peer = scope.spawn(|| {
            expect(&mut peer, &[0x89, 0]);
            peer.write_all(&frame(0x8A, b"")).unwrap();
            expect(&mut peer, &server_close(LOST.0, LOST.1));
        });
        let begin = Instant::now();
        let mut third = enter(&relay, "/?pair=x");
        let waited = begin.elapsed();
        peer.join().unwrap();
        let mut fourth = enter(&relay, "/?pair=x");
        third.write_all(&frame(0x82, b"a new pair")).unwrap();
        expect(&mut fourth, &server_frame(0x82, b"a new pair"));
        waited
    });
    assert!(waited >= Duration::from_secs(5), "{waited:?}");
    expect(&mut dead, &[0x89, 0]);
    expect(&mut dead, &server_close(TIMEOUT.0, TIMEOUT.1));
}

/// No data in flight excuses the reader's silence: its pongs show that it has taken the messages.
#[test]
fn third_client_takes_the_seat_of_a_reader_that_died_after_a_stream() {
    const MESSAGE: usize = 50_000;
    let relay = Relay::start(&[]);
    let (mut sender, mut reader) = pair(&relay);
    thread::scope(|scope| {
        let mut answers = sender.try_clone().unwrap();
        scope.spawn(move || {
            let mut ping = [0; 2];
            while answers.read_exact(&mut ping).is_ok() && ping == [0x89, 0] {
                answers.write_all(&frame(0x8A, b"")).unwrap();
            }
        });
        let reads = scope.spawn(|| {
            let (mut received, mut pings) = (0, 0);
            loop {
                let mut head = [0; 2];
                reader.read_exact(&mut head).unwrap();
                match head {
                    [0x89, length] => {
                        pings += 1;
                        pong(&mut reader, length);
                    }
                    [0x82, 0] => return (received, pings),
                    [0x82, 126] => {
                        let mut rest = [0; 2 + MESSAGE];
                        reader.read_exact(&mut rest).unwrap();
                        received += 1;
                    }
                    other => panic!("unexpected: {other:x?}"),
                }
            }
        });
        let (begin, mut sent) = (Instant::now(), 0);
        while begin.elapsed() < Duration::from_secs(4) {
            sender.write_all(&frame(0x82, &[7; MESSAGE])).unwrap();
            sent += 1;
            thread::sleep(Duration::from_millis(10));
        }
        // Each connection has its turn within four beats, and then a ping follows the last message: only bytes that no pong has
        // settled extend the ping timeout.
        thread::sleep(Duration::from_secs(4));
        sender.write_all(&frame(0x82, b"")).unwrap();
        let (received, pings) = reads.join().unwrap();
        assert!(received == sent && pings > 0, "{received} of {sent} messages, {pings} pings");
        // From here on, the reader is silent.
        let died = Instant::now();
        loop {
            let mut third = relay.socket();
            third.write_all(upgrade("/?pair=x", "").as_bytes()).unwrap();
            if head(&mut third).starts_with("HTTP/1.1 101 ") {
                break;
            }
            // The ping timeout is 20 s. A slow client would need minutes for the 20 MB of the stream.
            assert!(died.elapsed() < Duration::from_secs(30), "the dead reader still has its seat");
            thread::sleep(Duration::from_millis(200));
        }
        println!("the third client was admitted after {:?}", died.elapsed());
    });
}

#[test]
fn third_client_takes_a_seat_at_max_connections() {
    let relay = Relay::start(&["--probe-timeout", "30s", "--ping-timeout", "1s", "--max-connections", "2"]);
    let _dead = pair(&relay);
    let third = enter(&relay, "/?pair=x");
    assert_eq!(relay.pairs(), 1);
    drop(third);
}

#[test]
fn pair_is_not_probed_when_max_waiting_leaves_no_seat_for_the_third_client() {
    let relay = Relay::start(&["--probe-timeout", "30s", "--ping-timeout", "1s", "--max-waiting", "1"]);
    let (mut dead, _dead) = pair(&relay);
    let alone = enter(&relay, "/?pair=alone");
    assert_eq!(status_of_third(&relay), "409", "the third client would have to wait, and may not");
    dead.set_nonblocking(true).unwrap();
    assert_eq!(dead.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock, "the pair was not probed");
    drop(alone);
    eventually("the waiting client's seat is free", || relay.pairs() == 1);
    drop(enter(&relay, "/?pair=x"));
}

/// The third client could have waited when it came, but not at the end of its probe.
#[test]
fn pair_keeps_its_seats_when_max_waiting_is_reached_during_the_probe() {
    let relay = Relay::start(&["--probe-timeout", "1s", "--max-waiting", "1"]);
    let (mut dead, _dead) = pair(&relay);
    let mut third = relay.socket();
    third.write_all(upgrade("/?pair=x", "").as_bytes()).unwrap();
    expect(&mut dead, &[0x89, 0]);
    let alone = enter(&relay, "/?pair=alone");
    assert!(head(&mut third).starts_with("HTTP/1.1 409 "));
    assert_eq!(relay.pairs(), 2);
    drop(alone);
}

#[test]
fn probing_third_client_gets_503_when_the_relay_stops() {
    let mut relay = Relay::start(&["--probe-timeout", "1m"]);
    let (mut dead, _dead) = pair(&relay);
    let mut third = relay.socket();
    third.write_all(upgrade("/?pair=x", "").as_bytes()).unwrap();
    expect(&mut dead, &[0x89, 0]);
    relay.signal(Signal::TERM);
    let mut answer = String::new();
    third.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.ends_with("relay stopping\n"), "{answer}");
    assert_eq!(relay.wait().code(), Some(0));
}

/// Neither the handshake timeout nor a lack of handshake slots ends a third client's wait.
#[test]
fn probing_third_client_is_exempt_from_handshake_limits() {
    let times = ["--probe-timeout", "30s", "--ping-timeout", "8s", "--handshake-timeout", "3s"];
    let relay = Relay::start(&[&times[..], &["--max-handshakes", "4"]].concat());
    let dead = [enter(&relay, "/?pair=x"), enter(&relay, "/?pair=x")];
    let mut third = relay.socket();
    third.write_all(upgrade("/?pair=x", "").as_bytes()).unwrap();
    eventually("the pair is probed", || dead.iter().all(|side| side.peek(&mut [0; 2]).is_ok_and(|count| count == 2)));
    let crowd: Vec<_> = (0..20).map(|_| relay.socket()).collect();
    expect(&mut third, b"HTTP/1.1 101 ");
    drop((dead, crowd));
}

#[test]
fn live_pair_keeps_its_seats_and_is_probed_once_a_second_at_most() {
    let relay = Relay::start(&["--probe-timeout", "1m"]);
    let (mut a, mut b) = pair(&relay);
    for _ in 0..3 {
        let answers = [&mut a, &mut b].map(|side| {
            let mut side = side.try_clone().unwrap();
            thread::spawn(move || {
                expect(&mut side, &[0x89, 0]);
                // Any byte is a sign of life.
                side.write_all(&frame(0x82, b"here")[..3]).unwrap();
                side.write_all(&frame(0x82, b"here")[3..]).unwrap();
            })
        });
        assert_eq!(status_of_third(&relay), "409", "the rejection follows as soon as both have answered");
        let answered = Instant::now();
        answers.into_iter().for_each(|answer| answer.join().unwrap());
        // A flood of third clients causes no flood of pings.
        let mut thirds = 0;
        while answered.elapsed() < Duration::from_millis(300) {
            assert_eq!(status_of_third(&relay), "409");
            thirds += 1;
        }
        assert!(thirds > 2, "there was no flood");
        expect(&mut a, &server_frame(0x82, b"here"));
        expect(&mut b, &server_frame(0x82, b"here"));
        thread::sleep(Duration::from_millis(1100));
    }
}

/// The ping timeout begins when the ping is written, not when a third client comes.
///
/// So a busy relay does not shorten it.
#[test]
fn silent_program_keeps_its_seat_within_the_ping_timeout() {
    let relay = Relay::start(&["--probe-timeout", "200ms", "--ping-timeout", "1m"]);
    let (mut a, mut b) = pair(&relay);
    for _ in 0..3 {
        assert_eq!(status_of_third(&relay), "409", "nothing shows that they are gone");
    }
    expect(&mut a, &[0x89, 0]);
    a.write_all(&frame(0x82, b"busy until now")).unwrap();
    // Three third clients have caused a single ping.
    expect(&mut b, &[&[0x89, 0][..], &server_frame(0x82, b"busy until now")].concat());
}

#[test]
fn pair_is_probed_for_one_third_client_at_a_time() {
    let relay = Relay::start(&["--probe-timeout", "1m"]);
    let (mut dead, other) = pair(&relay);
    thread::scope(|scope| {
        let third = scope.spawn(|| enter(&relay, "/?pair=x"));
        expect(&mut dead, &[0x89, 0]);
        let begin = Instant::now();
        assert_eq!(status_of_third(&relay), "409");
        assert!(begin.elapsed() < Duration::from_secs(30), "it waited for the probe of another third client");
        drop((dead, other)); // which ends the probe
        third.join().unwrap();
    });
}

#[test]
fn probe_timeout_of_zero_refuses_third_clients_without_a_probe() {
    let relay = Relay::start(&["--probe-timeout", "0"]);
    let (mut a, mut b) = pair(&relay);
    assert_eq!(status_of_third(&relay), "409");
    for client in [&mut a, &mut b] {
        client.set_nonblocking(true).unwrap();
        assert_eq!(client.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock, "the pair was probed");
    }
}

#[test]
fn slow_reader_in_a_stream_keeps_its_seat() {
    let relay = Relay::start(&["--probe-timeout", "200ms"]);
    let (mut sender, mut slow) = pair(&relay);
    fill(&mut sender, &frame(0x82, &[7; 60_000]));
    assert_eq!(status_of_third(&relay), "409", "neither client can answer in time");
    let mut head = [0; 4];
    slow.read_exact(&mut head).unwrap();
    assert_eq!(head[..2], [0x82, 126]);
}

/// Receives only pings, which the library answers.
async fn idle<T>(client: &mut Client) -> T {
    loop {
        let message = client.next().await;
        assert!(message.is_ping(), "{message:?}");
    }
}

#[test]
fn library_clients_answer_pings_and_keep_their_seats() {
    let relay = Relay::start(&["--ping-interval", "100ms", "--ping-timeout", "20s", "--probe-timeout", "20s"]);
    run(async {
        let (mut a, mut b) = relay.pair("x").await;
        let third = async {
            Timer::after(Duration::from_millis(500)).await;
            relay.rejection("/?pair=x").await
        };
        assert_eq!(idle(&mut a).or(idle(&mut b)).or(third).await, (409, "pair is full\n".into()));
    });
}

/// `TCP_USER_TIMEOUT` alone misses this client.
///
/// Data from a client does not show that it reads. But each segment from it restarts Linux's timer of window probes.
#[test]
fn client_that_sends_but_never_reads_is_closed_after_the_write_timeout() {
    let relay = Relay::start(&["--write-timeout", "2s"]);
    let (mut sender, mut stalled) = pair(&relay);
    let begin = Instant::now();
    sender.set_write_timeout(Some(Duration::from_millis(100))).unwrap();
    thread::scope(|scope| {
        scope.spawn(move || {
            while stalled.write_all(&frame(0x82, b"!")).is_ok() && begin.elapsed() < PATIENCE {
                thread::sleep(Duration::from_millis(20));
            }
        });
        let mut reader = sender.try_clone().unwrap();
        let told = scope.spawn(move || {
            let mut byte = [0];
            while reader.read_exact(&mut byte).is_ok() && byte != [0x88] {}
        });
        // Small messages, so that the window closes when no data is unacknowledged.
        let message = frame(0x82, &[7; 4000]);
        let mut left = &message[..];
        while !told.is_finished() && begin.elapsed() < PATIENCE {
            match sender.write(left) {
                Ok(count) if count < left.len() => left = &left[count..],
                Ok(_) => left = &message,
                Err(_) => {}
            }
            thread::sleep(Duration::from_micros(300));
        }
        assert!(begin.elapsed() < PATIENCE, "the peer never gets a close frame");
    });
}

/// Without pings there are no marks. Data sent long ago must still not count as in flight for ever.
#[test]
fn without_pings_sent_data_counts_as_taken_after_a_while() {
    let relay = Relay::start(&["--ping-interval", "0", "--ping-timeout", "2s", "--probe-timeout", "30s"]);
    let (mut sender, mut silent) = pair(&relay);
    sender.write_all(&frame(0x82, &[7; 60_000])).unwrap();
    silent.read_exact(&mut [0; 60_004]).unwrap();
    // The slowest client that the relay assumes has taken the data after four seconds.
    thread::sleep(Duration::from_secs(8));
    let third = enter(&relay, "/?pair=x");
    drop((sender, silent, third));
}
