//! Clients that break the protocol, stop halfway or vanish, as raw bytes over real sockets.
//!
//! A library would not produce most of these bytes. The answers are compared byte by byte.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod support;

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

use async_tungstenite::tungstenite::Message;
use support::raw::{expect, expect_end, frame, open, reset, server_close, server_frame};
use support::{NO_PINGS, Relay, eventually, pattern, run};

/// The longest time that the relay may take to notice a departure.
const NOTICED: Duration = Duration::from_secs(10);

const PEER_LEFT: (u16, &str) = (1000, "peer disconnected");
const PEER_LOST: (u16, &str) = (1011, "peer connection lost");

/// Asserts how a pair ends when one client, in raw bytes, sends a message and then `bytes`.
///
/// The client gets `answer` and the end of the stream. The peer gets the message and then `peer_close`.
fn assert_end(relay: &Relay, bytes: &[u8], answer: &[u8], peer_close: (u16, &str)) {
    run(async {
        let mut raw = relay.socket();
        open(&mut raw, "/?pair=x", b"");
        let mut peer = relay.connect("x").await;
        raw.write_all(&[&frame(0x82, b"before"), bytes].concat()).unwrap();
        assert_eq!(peer.receive().await, b"before");
        expect(&mut raw, answer);
        expect_end(&mut raw);
        assert_eq!(peer.closed().await, (peer_close.0, peer_close.1.to_owned()), "{bytes:x?}");
    });
}

#[test]
fn violation_is_answered_with_its_code_and_closes_the_peer_with_1011() {
    let relay = Relay::start(NO_PINGS);
    let text = |payload: &[u8]| frame(0x81, payload);
    let cases: [(&[u8], u16, &str); 15] = [
        (&frame(0xC2, b"x"), 1002, "reserved bit set"),
        (&frame(0xA9, b""), 1002, "reserved bit set"),
        (&frame(0x83, b"x"), 1002, "reserved opcode"),
        (&frame(0x8F, b""), 1002, "reserved opcode"),
        (&server_frame(0x82, b"unmasked"), 1002, "unmasked frame"),
        (&frame(0x09, b"x"), 1002, "fragmented control frame"),
        (&frame(0x89, &[0; 126]), 1002, "control frame over 125 bytes"),
        (&frame(0x80, b"x"), 1002, "nothing to continue"),
        (&[frame(0x02, b"x"), frame(0x82, b"y")].concat(), 1002, "continuation expected"),
        (&[0x82, 0xFE, 0, 5, 0, 0, 0, 0], 1002, "length not minimal"),
        (&[0x82, 0xFF, 0x80, 0, 0, 0, 0, 0, 0, 0], 1002, "length over 63 bits"),
        (&frame(0x88, b"\x03"), 1002, "truncated status code"),
        (&frame(0x88, &1006_u16.to_be_bytes()), 1002, "invalid status code"),
        (&text(b"\xC3\x28"), 1007, "invalid UTF-8"),
        (&frame(0x88, b"\x03\xE8\xFF"), 1007, "invalid UTF-8"),
    ];
    for (bytes, code, reason) in cases {
        assert_end(&relay, bytes, &server_close(code, reason), PEER_LOST);
    }
}

#[test]
fn bytes_after_a_violation_or_a_close_frame_are_discarded() {
    let relay = Relay::start(NO_PINGS);
    let late = [frame(0x82, b"late"), frame(0x89, b"late"), vec![0xFF; 10_000]].concat();
    assert_end(&relay, &[frame(0x83, b""), late.clone()].concat(), &server_close(1002, "reserved opcode"), PEER_LOST);
    assert_end(&relay, &[frame(0x88, b"\x0F\xA0bye"), late].concat(), &server_frame(0x88, b"\x0F\xA0"), PEER_LEFT);
}

#[test]
fn close_frame_without_a_code_is_answered_without_one() {
    let relay = Relay::start(NO_PINGS);
    assert_end(&relay, &frame(0x88, b""), &[0x88, 0], PEER_LEFT);
}

#[test]
fn half_closed_client_still_gets_the_answer_to_its_last_frame() {
    let relay = Relay::start(NO_PINGS);
    for (bytes, answer) in [
        (frame(0x88, &[0x0F, 0xA0]), server_close(4000, "")),
        (vec![0xC2, 0x80], server_close(1002, "reserved bit set")),
    ] {
        for _ in 0..20 {
            let mut socket = relay.socket();
            open(&mut socket, "/?pair=x", b"");
            socket.write_all(&bytes).unwrap();
            socket.shutdown(Shutdown::Write).unwrap();
            expect(&mut socket, &answer);
            expect_end(&mut socket);
        }
    }
}

#[test]
fn pings_before_a_close_frame_are_answered_and_unsolicited_pongs_ignored() {
    let relay = Relay::start(NO_PINGS);
    let bytes = [frame(0x89, b"one"), frame(0x8A, b"unasked"), frame(0x89, b""), frame(0x88, b"")].concat();
    let answer = [server_frame(0x8A, b"one"), server_frame(0x8A, b""), vec![0x88, 0]].concat();
    assert_end(&relay, &bytes, &answer, PEER_LEFT);
}

#[test]
fn end_of_stream_within_a_message_closes_the_peer_with_1011() {
    let relay = Relay::start(NO_PINGS);
    for part in
        [&frame(0x82, b"cut off")[..9], &frame(0x02, b"more to come"), &[0x82], &frame(0x82, &[7; 70_000])[..60_000]]
    {
        run(async {
            let mut raw = relay.socket();
            open(&mut raw, "/?pair=x", b"");
            let mut peer = relay.connect("x").await;
            raw.write_all(&[&frame(0x82, b"whole"), part].concat()).unwrap();
            raw.shutdown(Shutdown::Write).unwrap();
            assert_eq!(peer.receive().await, b"whole");
            assert_eq!(peer.closed().await, (PEER_LOST.0, PEER_LOST.1.to_owned()));
            expect_end(&mut raw);
        });
    }
}

#[test]
fn frames_in_the_packet_of_the_opening_handshake_are_processed() {
    let relay = Relay::start(NO_PINGS);
    let mut a = relay.socket();
    open(&mut a, "/?pair=x", &[frame(0x82, b"eager"), frame(0x89, b"ping")].concat());
    expect(&mut a, &server_frame(0x8A, b"ping"));
    let mut b = relay.socket();
    open(&mut b, "/?pair=x", &frame(0x82, b"me too"));
    expect(&mut b, &server_frame(0x82, b"eager"));
    expect(&mut a, &server_frame(0x82, b"me too"));
    // So is a close frame.
    let mut c = relay.socket();
    open(&mut c, "/?pair=y", &frame(0x88, b""));
    expect(&mut c, &[0x88, 0]);
    expect_end(&mut c);
    drop(b);
    expect(&mut a, &server_close(1000, "peer disconnected"));
}

#[test]
fn frame_that_arrives_byte_by_byte_is_forwarded_whole() {
    let relay = Relay::start(NO_PINGS);
    let (mut a, mut b) = (relay.socket(), relay.socket());
    open(&mut a, "/?pair=x", b"");
    open(&mut b, "/?pair=x", b"");
    for byte in frame(0x82, b"slowly") {
        a.write_all(&[byte]).unwrap();
    }
    expect(&mut b, &server_frame(0x82, b"slowly"));
}

#[test]
fn frame_too_large_for_a_buffer_is_forwarded_while_it_arrives() {
    let relay = Relay::start(NO_PINGS);
    let (mut a, mut b) = (relay.socket(), relay.socket());
    open(&mut a, "/?pair=x", b"");
    open(&mut b, "/?pair=x", b"");
    let whole = frame(0x82, &vec![7; 1 << 20]);
    a.write_all(&whole[..1014]).unwrap();
    // The relay has 1000 bytes of payload, and forwards them as one or more fragments.
    let mut received = 0;
    while received < 1000 {
        let mut header = [0; 2];
        Read::read_exact(&mut b, &mut header).unwrap();
        assert_eq!(header[0], if received == 0 { 0x02 } else { 0x00 });
        let length = match header[1] {
            126 => {
                let mut length = [0; 2];
                Read::read_exact(&mut b, &mut length).unwrap();
                u16::from_be_bytes(length).into()
            }
            short => usize::from(short),
        };
        expect(&mut b, &vec![7; length]);
        received += length;
    }
    // The sender is lost in the middle. A close frame may follow any fragment.
    a.shutdown(Shutdown::Write).unwrap();
    expect(&mut b, &server_close(1011, "peer connection lost"));
}

#[test]
fn unanswered_close_frame_does_not_hold_the_connection() {
    let relay = Relay::start(NO_PINGS);
    let (mut a, mut b) = (relay.socket(), relay.socket());
    open(&mut a, "/?pair=x", b"");
    open(&mut b, "/?pair=x", b"");
    a.write_all(&frame(0x88, b"")).unwrap();
    expect(&mut b, &server_close(1000, "peer disconnected"));
    // B keeps sending. The relay reads and drops it until the closing handshake times out.
    let message = frame(0x82, &[7; 1000]);
    while b.write_all(&message).is_ok() {}
    relay.assert_empty();
}

#[test]
fn client_that_vanishes_before_its_first_frame_frees_its_seat() {
    let relay = Relay::start(NO_PINGS);
    for with_reset in [true, false] {
        let mut a = relay.socket();
        open(&mut a, "/?pair=x", b"");
        assert_eq!(relay.pairs(), 1);
        if with_reset {
            reset(&a);
        }
        drop(a);
        eventually("the seat is free", || relay.pairs() == 0);
    }
    // The same without waiting for the response.
    for _ in 0..20 {
        let mut hasty = relay.socket();
        hasty.write_all(support::raw::upgrade("/?pair=x", "").as_bytes()).unwrap();
        reset(&hasty);
    }
    eventually("the seats are free", || relay.pairs() == 0);
}

#[test]
fn last_frames_of_a_client_that_leaves_with_unread_data_are_delivered() {
    let relay = Relay::start(NO_PINGS);
    run(async {
        for _ in 0..20 {
            let mut raw = relay.socket();
            open(&mut raw, "/?pair=x", b"");
            let mut peer = relay.connect("x").await;
            peer.send(vec![7; 100_000]).await;
            // The client leaves with data unread, so the kernel sends a reset behind the close frame.
            raw.write_all(&[frame(0x82, b"last"), frame(0x88, b"")].concat()).unwrap();
            drop(raw);
            assert_eq!(peer.receive().await, b"last");
            assert_eq!(peer.closed().await, (PEER_LEFT.0, PEER_LEFT.1.to_owned()));
        }
    });
}

#[test]
fn stream_before_pairing_slows_the_sender_and_is_never_dropped() {
    let relay = Relay::start(NO_PINGS);
    run(async {
        let mut a = relay.socket();
        open(&mut a, "/?pair=x", b"");
        let message = frame(0x82, &pattern(100_000, 5));
        let sent = fill(&mut a, &message);
        let held = relay.memory("VmHWM");
        assert!(held < 8 * 1024, "{held} KiB in the relay, of {sent} bytes sent");
        // The peer connects and gets every message.
        let mut b = relay.connect("x").await;
        a.set_write_timeout(Some(support::PATIENCE)).unwrap();
        for _ in 0..sent / message.len() {
            assert!(b.receive().await == pattern(100_000, 5));
        }
        a.write_all(&message[sent % message.len()..]).unwrap();
        assert!(b.receive().await == pattern(100_000, 5));
    });
}

#[test]
fn ping_flood_from_a_client_that_does_not_read_costs_no_memory() {
    let relay = Relay::start(NO_PINGS);
    let mut a = relay.socket();
    open(&mut a, "/?pair=x", b"");
    let pings = frame(0x89, &[7; 125]).repeat(1000);
    a.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
    for _ in 0..500 {
        if a.write_all(&pings).is_err() {
            break;
        }
    }
    let memory = relay.memory("VmHWM");
    assert!(memory < 8 * 1024, "{memory} KiB");
}

/// Writes until all buffers on the way are full, and returns the number of bytes written.
fn fill(socket: &mut TcpStream, message: &[u8]) -> usize {
    socket.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
    let mut sent = 0;
    loop {
        match socket.write(&message[sent % message.len()..]) {
            Ok(count) => sent += count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return sent,
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn departure_is_noticed_while_reading_is_paused() {
    let relay = Relay::start(NO_PINGS);
    for with_reset in [true, false] {
        if !with_reset && cfg!(feature = "portable") {
            return; // it is noticed when the bytes before it are read: the next test
        }
        let mut alone = relay.socket();
        open(&mut alone, "/?pair=x", b"");
        let message = frame(0x82, &pattern(100_000, 6));
        if with_reset {
            fill(&mut alone, &message);
        } else {
            // More than the relay holds, but no more than its kernel takes: the end of the stream is queued there.
            alone.write_all(&message.repeat(3)).unwrap();
        }
        assert_eq!(relay.pairs(), 1);
        if with_reset {
            reset(&alone);
        }
        drop(alone);
        let gone = Instant::now();
        eventually("the pair code is free", || relay.pairs() == 0);
        assert!(gone.elapsed() < NOTICED, "it took {:?}", gone.elapsed());
    }
}

/// The portable runtime sees no end behind unread bytes. The code is free after the time to live.
#[test]
fn departure_behind_unread_bytes_frees_the_code_in_time() {
    let relay = Relay::start(&["--pair-ttl", "2s", "--ping-interval", "0"]);
    let mut alone = relay.socket();
    open(&mut alone, "/?pair=x", b"");
    alone.write_all(&frame(0x82, &pattern(100_000, 6)).repeat(3)).unwrap();
    assert_eq!(relay.pairs(), 1);
    drop(alone);
    eventually("the pair code is free", || relay.pairs() == 0);
}

#[test]
fn departure_behind_a_slow_reader_frees_the_code_and_loses_nothing() {
    let relay = Relay::start(NO_PINGS);
    let message = pattern(100_000, 7);
    for with_reset in [true, false] {
        run(async {
            let mut sender = relay.socket();
            open(&mut sender, "/?pair=x", b"");
            let mut reader = relay.connect("x").await;
            let sent = fill(&mut sender, &frame(0x82, &message));
            if with_reset {
                reset(&sender);
                drop(sender);
                let gone = Instant::now();
                eventually("the pair code is free", || relay.pairs() == 0);
                assert!(gone.elapsed() < NOTICED, "it took {:?}", gone.elapsed());
            } else {
                // The end of the stream is queued in the sender's kernel, behind data that the relay does not take yet.
                drop(sender);
            }
            // The reader goes on. A reset discards the data that was still in the sender's kernel.
            let whole = sent / frame(0x82, &message).len();
            let mut received = 0;
            let close_code = loop {
                match reader.next().await {
                    Message::Binary(received_message) => {
                        assert!(received_message == message);
                        received += 1;
                    }
                    Message::Close(Some(close)) => break u16::from(close.code),
                    Message::Ping(_) => {}
                    other => panic!("{other:?}"),
                }
            };
            assert!(received > 0 && received <= whole);
            assert!(with_reset || received == whole, "{received} of {whole} messages");
            // The stream ends within a message in either case, unless its last message happened to be complete.
            assert_eq!(
                close_code,
                if with_reset || !sent.is_multiple_of(frame(0x82, &message).len()) { 1011 } else { 1000 }
            );
        });
    }
}

#[test]
fn slow_reader_that_sends_gets_everything_after_its_peer_has_left() {
    let relay = Relay::start(NO_PINGS);
    let mut sender = relay.socket();
    open(&mut sender, "/?pair=x", b"");
    // A small receive buffer, as on a slow line, keeps the data in the relay's kernel.
    let reader = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    reader.set_recv_buffer_size(16 * 1024).unwrap();
    reader.connect(&relay.address.into()).unwrap();
    let mut reader = TcpStream::from(reader);
    reader.set_read_timeout(Some(support::PATIENCE)).unwrap();
    open(&mut reader, "/?pair=x", b"");

    let message = pattern(100_000, 8);
    for _ in 0..10 {
        sender.write_all(&frame(0x82, &message)).unwrap();
    }
    sender.write_all(&frame(0x88, b"")).unwrap();
    expect(&mut sender, &[0x88, 0]);
    drop(sender);

    // The reader reads slowly and sends, for longer than a closing handshake may take. If the relay had closed its
    // socket, the kernel would answer these messages with a reset, and all data in flight would be lost.
    let start = Instant::now();
    let mut received = Vec::new();
    while start.elapsed() < Duration::from_secs(7) {
        let mut some = [0; 2048];
        let count = reader.read(&mut some).unwrap();
        received.extend(&some[..count]);
        reader.write_all(&frame(0x82, b"got it")).unwrap();
        std::thread::park_timeout(Duration::from_millis(100)); // the slow line
    }
    let close = server_close(1000, "peer disconnected");
    let expected = 10 * (10 + message.len()) + close.len();
    while !received.ends_with(&close) {
        let mut some = [0; 65536];
        let count = reader.read(&mut some).unwrap();
        assert_ne!(count, 0, "only {} of {expected} bytes have arrived", received.len());
        received.extend(&some[..count]);
    }
    // (A large message may arrive in fragments, each with a header.)
    assert!((10 * message.len()..expected + 1000).contains(&received.len()));
}
