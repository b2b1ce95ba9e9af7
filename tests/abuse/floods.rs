//! A single client that sends a million frames, or bytes that are no WebSocket frames or HTTP.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::num::NonZeroU64;
use std::thread;
use std::time::Duration;

use arc_relay::Config;
use socket2::{Domain, Socket, Type};

use crate::aftermath::{A_PAIR, unharmed};
use crate::frames::{Frames, pair, parse_close};
use crate::support::raw::{expect, expect_end, frame, open, server_close, server_frame};
use crate::support::{NO_PINGS, PATIENCE, Relay, eventually, pattern};

const MILLION: usize = 1_000_000;

/// The number of small frames to compare at once.
const CHUNK: usize = 1 << 18;

const PEER_LOST: (u16, &str) = (1011, "peer connection lost");

/// A client with a small receive buffer, so that unread data stays with the relay.
fn small_reader(relay: &Relay) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.connect(&relay.address.into()).unwrap();
    let socket = TcpStream::from(socket);
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.set_write_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// Writes these bytes repeatedly until all buffers on the way are full, and returns the number written.
fn write_until_stuck(mut socket: &TcpStream, bytes: &[u8]) -> usize {
    socket.set_write_timeout(Some(Duration::from_secs(1))).unwrap();
    let (mut written, mut stuck) = (0, 0);
    while stuck < 4 {
        match socket.write(&bytes[written % bytes.len()..]) {
            Ok(count) => (written, stuck) = (written + count, 0),
            Err(error) if error.kind() == ErrorKind::WouldBlock => stuck += 1,
            Err(error) => panic!("{error}"),
        }
        assert!(written < 1 << 30, "the relay never stops reading");
    }
    socket.set_write_timeout(Some(PATIENCE)).unwrap();
    written
}

#[test]
fn newest_of_a_million_pings_is_answered_to_a_client_that_did_not_read() {
    let relay = Relay::start(NO_PINGS);
    unharmed(&relay, A_PAIR, |relay| {
        let mut flooder = small_reader(relay);
        open(&mut flooder, "/?pair=x", b"");
        let mut peer = relay.socket();
        open(&mut peer, "/?pair=x", b"");
        let payload = |number: usize| [&number.to_be_bytes()[..], &[7; 24]].concat();
        let pings: Vec<_> = (0..MILLION).flat_map(|number| frame(0x89, &payload(number))).collect();
        // The relay reads all of them, though the client reads none of the answers.
        flooder.write_all(&pings).unwrap();
        flooder.write_all(&frame(0x82, b"behind them")).unwrap();
        expect(&mut peer, &server_frame(0x82, b"behind them"));
        peer.write_all(&frame(0x82, b"for the flooder")).unwrap();

        let (mut answers, mut newest, mut messages) = (0, None, 0);
        let mut frames = Frames::of(&flooder);
        while newest != Some(MILLION - 1) || messages == 0 {
            match frames.next() {
                (0x8A, data) => {
                    let number = usize::from_be_bytes(data[..8].try_into().unwrap());
                    assert_eq!(data, payload(number));
                    assert!(newest < Some(number), "{number} behind {newest:?}");
                    newest = Some(number);
                    answers += 1;
                }
                (0x82, message) => {
                    assert_eq!(message, b"for the flooder");
                    messages += 1;
                }
                other => panic!("{other:?}"),
            }
        }
        assert!((1..MILLION / 2).contains(&answers), "{answers} answers");
        // Now it is a client like any other.
        (&flooder).write_all(&frame(0x89, b"one more")).unwrap();
        assert_eq!(frames.next(), (0x8A, b"one more".to_vec()));
    });
}

#[test]
fn million_empty_messages_are_forwarded_to_a_peer_that_reads() {
    const EACH: usize = 10_000;
    let relay = Relay::start(NO_PINGS);
    unharmed(&relay, A_PAIR, |relay| {
        let (mut from, mut to) = pair(relay, "x");
        let empty = frame(0x82, b"").repeat(EACH);
        thread::scope(|scope| {
            scope.spawn(|| {
                for number in 0..MILLION / EACH {
                    from.write_all(&empty).unwrap();
                    from.write_all(&frame(0x82, &number.to_be_bytes())).unwrap();
                }
            });
            // A number behind every ten thousand messages shows where one is missing.
            for number in 0..MILLION / EACH {
                let expected = [[0x82, 0].repeat(EACH), server_frame(0x82, &number.to_be_bytes())].concat();
                expect(&mut to, &expected);
            }
        });
    });
}

#[test]
fn flood_of_empty_messages_is_held_until_the_peer_reads() {
    let relay = Relay::start(NO_PINGS);
    unharmed(&relay, A_PAIR, |relay| {
        let mut to = small_reader(relay);
        open(&mut to, "/?pair=x", b"");
        let mut from = relay.socket();
        open(&mut from, "/?pair=x", b"");
        let empty = frame(0x82, b"");
        let sent = write_until_stuck(&from, &empty.repeat(MILLION));
        assert!(sent > MILLION * empty.len(), "{sent} bytes");
        thread::scope(|scope| {
            scope.spawn(|| {
                let cut_off = sent.next_multiple_of(empty.len()) - sent;
                from.write_all(&empty[empty.len() - cut_off..]).unwrap();
                from.write_all(&frame(0x82, b"the last")).unwrap();
            });
            let mut rest = sent.div_ceil(empty.len());
            while rest > 0 {
                let count = rest.min(CHUNK);
                expect(&mut to, &[0x82, 0].repeat(count));
                rest -= count;
            }
            expect(&mut to, &server_frame(0x82, b"the last"));
        });
    });
}

#[test]
fn message_in_a_million_fragments_of_one_byte_arrives_whole() {
    let relay = Relay::start(NO_PINGS);
    unharmed(&relay, A_PAIR, |relay| {
        let (mut from, to) = pair(relay, "x");
        let message = pattern(MILLION, 2);
        let mut fragments = Vec::with_capacity(7 * MILLION);
        for (nth, byte) in message.iter().enumerate() {
            let fin = if nth + 1 == MILLION { 0x80 } else { 0 };
            fragments.extend(frame(fin | if nth == 0 { 2 } else { 0 }, &[*byte]));
        }
        thread::scope(|scope| {
            scope.spawn(|| from.write_all(&fragments).unwrap());
            let (opcode, received) = Frames::of(&to).message();
            assert!(opcode == 2 && received == message);
        });
    });
}

#[test]
fn million_text_messages_are_dropped() {
    let relay = Relay::start(NO_PINGS);
    unharmed(&relay, A_PAIR, |relay| {
        let (mut from, mut to) = pair(relay, "x");
        from.write_all(&frame(0x81, "dröpped".as_bytes()).repeat(MILLION)).unwrap();
        from.write_all(&frame(0x82, b"not dropped")).unwrap();
        expect(&mut to, &server_frame(0x82, b"not dropped"));
    });
}

#[test]
fn million_dropped_text_messages_are_counted() {
    let config = Config { host: String::from("127.0.0.1"), port: 0, ..Config::default() };
    let relay = arc_relay::Relay::start(config).unwrap();
    let mut client = TcpStream::connect(relay.local_addr()).unwrap();
    open(&mut client, "/?pair=x", b"");
    client.write_all(&frame(0x81, b"text").repeat(MILLION)).unwrap();
    client.write_all(&frame(0x89, b"")).unwrap();
    expect(&mut client, &[0x8A, 0]);
    assert_eq!(relay.counters().messages.dropped, MILLION as u64);
    smol::block_on(relay.stop());
}

/// The measure is the strangers' traffic during the round trips, not the time.
///
/// An unfair rate limit lets each round trip wait for a portion of every stranger.
#[test]
fn waiting_clients_that_use_up_the_total_rate_do_not_starve_a_pair() {
    const STRANGERS: usize = 200;
    const ROUND_TRIPS: usize = 20;
    let max_rate = NonZeroU64::new(1 << 20);
    let config =
        Config { host: String::from("127.0.0.1"), port: 0, max_rate, ping_interval: None, ..Config::default() };
    let relay = arc_relay::Relay::start(config).unwrap();
    let connect = |target: &str| {
        let mut socket = TcpStream::connect(relay.local_addr()).unwrap();
        open(&mut socket, target, b"");
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket
    };
    let text = frame(0x81, &[b'x'; 1000]);
    let (mut a, mut b) = (connect("/?pair=x"), connect("/?pair=x"));
    let strangers: Vec<_> = (0..STRANGERS).map(|stranger| connect(&format!("/?pair=stranger{stranger}"))).collect();
    for mut stranger in &strangers {
        // As much as the kernel takes, which is more than the rate allows during this test.
        stranger.set_nonblocking(true).unwrap();
        while stranger.write(&text.repeat(100)).is_ok_and(|count| count == 100 * text.len()) {}
    }
    let dropped = || relay.counters().messages.dropped as usize * text.len();
    eventually("the rate is used up", || dropped() > 1 << 18);
    let before = dropped();
    for number in 0..ROUND_TRIPS {
        a.write_all(&frame(0x82, &number.to_be_bytes())).unwrap();
        expect(&mut b, &server_frame(0x82, &number.to_be_bytes()));
        b.write_all(&frame(0x82, &number.to_be_bytes())).unwrap();
        expect(&mut a, &server_frame(0x82, &number.to_be_bytes()));
    }
    let meanwhile = dropped() - before;
    assert!(meanwhile < 4 << 20, "{ROUND_TRIPS} round trips have waited for {meanwhile} bytes");
    smol::block_on(relay.stop());
}

#[test]
fn invalid_utf8_in_the_last_of_many_fragments_is_closed_with_1007() {
    let relay = Relay::start(NO_PINGS);
    unharmed(&relay, A_PAIR, |relay| {
        let (mut from, to) = pair(relay, "x");
        // Fragments may end within a character. The last fragment does not continue the character begun before it.
        let euro = "€".as_bytes();
        let good = [frame(0x00, &euro[1..]), frame(0x00, &euro[..1])].concat().repeat(100_000);
        let text = [frame(0x01, &euro[..1]), good, frame(0x80, b"(")].concat();
        from.write_all(&text).unwrap();
        assert_eq!(Frames::of(&from).closed(), (1007, String::from("invalid UTF-8")));
        assert_eq!(Frames::of(&to).closed(), (PEER_LOST.0, PEER_LOST.1.to_owned()));
    });
}

#[test]
fn endless_flood_behind_a_close_frame_is_ignored_and_ended() {
    let relay = Relay::start(NO_PINGS);
    unharmed(&relay, A_PAIR, |relay| {
        let (mut from, to) = pair(relay, "x");
        from.write_all(&frame(0x88, &1000_u16.to_be_bytes())).unwrap();
        let flood = [frame(0x82, b"late"), frame(0x89, b"late"), frame(0x00, b""), vec![0xFF; 9]].concat();
        let flood = flood.repeat(1000);
        // The relay ends the connection after a while.
        let error = loop {
            if let Err(error) = from.write_all(&flood) {
                break error;
            }
        };
        assert!(matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe), "{error}");
        assert_eq!(Frames::of(&to).closed(), (1000, String::from("peer disconnected")));
    });
}

#[test]
fn garbage_behind_the_opening_handshake_is_closed_with_1002() {
    let relay = Relay::start(NO_PINGS);
    unharmed(&relay, A_PAIR, |relay| {
        let mut violations = 0;
        for seed in 0..200 {
            let (mut from, to) = pair(relay, "x");
            let garbage = pattern(2000, 1000 + seed);
            from.write_all(&garbage).unwrap();
            // The first two bytes of most garbage are a violation. The rest may be a part of a long frame, or a whole
            // frame with more garbage behind it.
            let (reserved, opcode, masked) = (garbage[0] & 0x70 != 0, garbage[0] & 0x0F, garbage[1] & 0x80 != 0);
            if reserved || !masked || matches!(opcode, 0 | 3..=7 | 11..) {
                violations += 1;
                assert_eq!(Frames::of(&from).closed().0, 1002, "seed {seed}");
                assert_eq!(Frames::of(&to).closed(), (PEER_LOST.0, PEER_LOST.1.to_owned()), "seed {seed}");
            } else {
                from.shutdown(Shutdown::Write).unwrap();
                let mut frames = Frames::of(&to);
                let (code, _) = loop {
                    if let (0x88, payload) = frames.next() {
                        break parse_close(&payload);
                    }
                };
                assert!([1000, 1011].contains(&code), "seed {seed}: {code}");
            }
            drop((from, to));
            eventually("the pair code is free", || relay.pairs() == 0);
        }
        assert!(violations > 150, "{violations}");
    });
}

#[test]
fn garbage_before_the_opening_handshake_is_refused_at_once() {
    // The beginning of a real ClientHello: record, handshake, version, and random bytes.
    let client_hello = [&b"\x16\x03\x01\x02\x00\x01\x00\x01\xFC\x03\x03"[..], &pattern(506, 3)].concat();
    let garbage = [
        client_hello,
        b"SSH-2.0-OpenSSH_9.6\r\n".to_vec(),
        b"\x05\x01\x00".to_vec(),
        vec![0; 1000],
        vec![b'A'; 1 << 20],
        [&b"GET /?pair="[..], &[b'A'; 1 << 20]].concat(),
        [&b"GET / HTTP/1.1\r\n"[..], &b"a: b\r\n".repeat(10_000)].concat(),
        frame(0x82, b"a frame"),
    ];
    let relay = Relay::start(NO_PINGS);
    unharmed(&relay, A_PAIR, |relay| {
        for bytes in &garbage {
            let mut socket = relay.socket();
            // The relay may close the connection before all bytes are written.
            let _ = socket.write_all(bytes);
            let mut response = Vec::new();
            let _ = socket.read_to_end(&mut response);
            // An answer shows that the client was refused at once. The handshake timeout sends none.
            let start = String::from_utf8_lossy(&response[..response.len().min(13)]).into_owned();
            let expected = ["HTTP/1.1 400 ", "HTTP/1.1 414 ", "HTTP/1.1 431 "];
            assert!(expected.contains(&&*start), "{start:?} to {:x?}", &bytes[..bytes.len().min(20)]);
        }
        // HTTP/2 is closed without an answer, because an HTTP/2 client could not read one.
        expect_end(&mut {
            let mut socket = relay.socket();
            socket.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
            socket
        });
        // Random bytes are never admitted, and the connection ends.
        for seed in 0..200 {
            let mut socket = relay.socket();
            let _ = socket.write_all(&pattern(2000, 2000 + seed));
            let _ = socket.shutdown(Shutdown::Write);
            let mut response = Vec::new();
            let _ = socket.read_to_end(&mut response);
            assert!(response.is_empty() || response.starts_with(b"HTTP/1.1 400 "), "seed {seed}: {response:x?}");
        }
    });
}

#[test]
fn thousand_violations_leave_nothing_behind() {
    let length_of = |length: u64| [&[0x82, 0xFF][..], &length.to_be_bytes(), &[1, 2, 3, 4]].concat();
    let violations = [
        (frame(0xC2, b"x"), "reserved bit set"),
        (frame(0xA2, b"x"), "reserved bit set"),
        (frame(0x92, b"x"), "reserved bit set"),
        (server_frame(0x82, b"x"), "unmasked frame"),
        (frame(0x89, &[0; 126]), "control frame over 125 bytes"),
        (frame(0x88, &[0; 70_000]), "control frame over 125 bytes"),
        (frame(0x09, b"x"), "fragmented control frame"),
        (frame(0x08, b""), "fragmented control frame"),
        (length_of(1 << 63), "length over 63 bits"),
        (length_of(u64::MAX), "length over 63 bits"),
    ];
    let relay = Relay::start(NO_PINGS);
    unharmed(&relay, A_PAIR, |relay| {
        for _ in 0..100 {
            for (bytes, reason) in &violations {
                let (mut from, mut to) = pair(relay, "x");
                from.write_all(bytes).unwrap();
                expect(&mut to, &server_close(PEER_LOST.0, PEER_LOST.1));
                expect(&mut from, &server_close(1002, reason));
                drop(to);
                expect_end(&mut from);
                drop(from);
            }
        }
    });
}

#[test]
fn frame_header_with_the_greatest_length_allocates_nothing() {
    let relay = Relay::start(NO_PINGS);
    unharmed(&relay, A_PAIR, |relay| {
        let (mut from, to) = pair(relay, "x");
        let header = [&[0x82, 0xFF][..], &(u64::MAX >> 1).to_be_bytes(), &[0; 4]].concat();
        from.write_all(&[header, vec![7; 1000]].concat()).unwrap();
        let mut frames = Frames::of(&to);
        let mut received = 0;
        while received < 1000 {
            let (first, payload) = frames.next();
            assert_eq!(first, if received == 0 { 2 } else { 0 });
            received += payload.len();
        }
        from.shutdown(Shutdown::Write).unwrap();
        assert_eq!(frames.closed(), (PEER_LOST.0, PEER_LOST.1.to_owned()));
    });
}
