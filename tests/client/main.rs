//! The client of the library against a relay, and against a line that cuts, stalls and is slow.

#![cfg(feature = "client")]
#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod line;
#[path = "../support/mod.rs"]
mod support;

use std::cell::Cell;
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use arc_relay::client::meeting::{Meeting, SUBPROTOCOL};
use arc_relay::client::{Closed, Connection, Event, Options, Secret};
use async_tungstenite::tungstenite::handshake::server::{Request, Response};
use async_tungstenite::tungstenite::http::HeaderValue;
use async_tungstenite::tungstenite::{Message as WebSocketMessage, WebSocket, accept_hdr};
use futures_lite::FutureExt;
use futures_lite::future::{poll_once, yield_now, zip};
use proptest::prelude::*;

use line::Line;
use support::{NO_PINGS, Relay, eventually, pattern, run, scratch};

fn options(relay: &Relay, secret: Option<&Secret>) -> Options {
    options_at(&relay.url("/"), secret)
}

fn options_at(url: &str, secret: Option<&Secret>) -> Options {
    match secret {
        Some(secret) => Options::encrypted(url, secret).unwrap(),
        None => Options::new(url, "in the clear").unwrap(),
    }
}

fn open(options: Options) -> Connection {
    Connection::open(options).unwrap()
}

/// The next message. Other events may come before it.
async fn message(connection: &Connection) -> Vec<u8> {
    loop {
        if let Event::Message(message) = connection.next().await.unwrap() {
            return message;
        }
    }
}

/// The next event of this kind. Others may come before it.
async fn until(connection: &Connection, holds: impl Fn(&Event) -> bool) -> Event {
    loop {
        let event = connection.next().await.unwrap();
        if holds(&event) {
            return event;
        }
    }
}

fn is_reconnecting(event: &Event) -> bool {
    matches!(event, Event::Reconnecting { .. })
}

/// What closes the connection for good.
async fn closed(connection: &Connection) -> Closed {
    loop {
        if let Err(closed) = connection.next().await {
            return closed;
        }
    }
}

/// The next event, unless none comes for a while.
async fn until_silence(connection: &Connection) -> Option<Event> {
    let event = async { Some(connection.next().await.unwrap()) };
    let silence = async {
        smol::Timer::after(Duration::from_millis(500)).await;
        None
    };
    event.or(silence).await
}

const BOTH: [Option<[u8; 32]>; 2] = [None, Some([7; 32])];

#[test]
fn messages_of_all_lengths_arrive_in_order_both_ways() {
    let relay = Relay::start(NO_PINGS);
    for secret in BOTH.map(|bytes| bytes.map(Secret::from_bytes)) {
        let (one, other) = (open(options(&relay, secret.as_ref())), open(options(&relay, secret.as_ref())));
        let lengths = [0, 1, 125, 126, 65_517, 65_518, 65_519, 65_536, 131_036, 131_037, 1_000_000, 0];
        let talk = async |from: &Connection, to: &Connection, seed: u64| {
            let sent = async {
                for length in lengths {
                    from.send(pattern(length, seed)).await.unwrap();
                }
            };
            let received = async {
                for length in lengths {
                    assert!(message(to).await == pattern(length, seed), "{length} bytes are not what was sent");
                }
            };
            zip(sent, received).await;
        };
        run(async {
            zip(talk(&one, &other, 1), talk(&other, &one, 2)).await;
            one.close().await;
            assert_eq!(closed(&one).await.code, 1000);
            assert_eq!(one.send("late").await.unwrap_err().to_string(), "closed with 1000 closed by this program");
            let unpaired = until(&other, |event| matches!(event, Event::Unpaired { .. })).await;
            assert_eq!(unpaired, Event::Unpaired { orderly: secret.is_some() });
            other.close().await;
        });
        relay.assert_empty();
    }
}

#[test]
fn events_tell_how_far_the_connection_is() {
    let relay = Relay::start(NO_PINGS);
    let secret = Secret::random();
    run(async {
        let one = open(options(&relay, Some(&secret)));
        assert_eq!(one.next().await, Ok(Event::Waiting));
        let sent = one.send("before the peer is there");
        let mut sent = Box::pin(sent);
        assert_eq!(poll_once(&mut sent).await, None);
        let other = open(options(&relay, Some(&secret)));
        assert_eq!(other.next().await, Ok(Event::Paired));
        assert_eq!(one.next().await, Ok(Event::Paired));
        sent.await.unwrap();
        assert_eq!(other.next().await, Ok(Event::Message(b"before the peer is there".to_vec())));
        drop(other);
        assert_eq!(one.next().await, Ok(Event::Unpaired { orderly: false }));
        assert!(is_reconnecting(&one.next().await.unwrap()));
        // It comes again by itself.
        assert_eq!(one.next().await, Ok(Event::Waiting));
        one.close().await;
    });
    relay.assert_empty();
}

#[test]
fn connection_without_a_peer_closes_at_once() {
    let relay = Relay::start(NO_PINGS);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let deaf = format!("ws://{}", listener.local_addr().unwrap());
    run(async {
        for url in [&*relay.url("/"), &*deaf, "ws://127.0.0.1:1"] {
            let alone = open(options_at(url, None));
            let send = async { alone.send("to nobody's ear").await.unwrap_err() };
            let close = async {
                for _ in 0..1000 {
                    yield_now().await;
                }
                alone.close().await;
            };
            let begin = Instant::now();
            let (error, ()) = zip(send, close).await;
            assert_eq!(error.code, 1000);
            assert!(begin.elapsed() < Duration::from_secs(5), "{url}");
        }
    });
    relay.assert_empty();
}

#[test]
fn attempts_of_no_use_end_the_connection() {
    let tokens = scratch("client-tokens");
    fs::write(&tokens, "blue").unwrap();
    let flags = ["--access-token-file", tokens.to_str().unwrap(), "--max-message", "1MiB"];
    let relay = Relay::start(&[NO_PINGS, &flags].concat());
    let with_token = || options(&relay, None).token("blue").unwrap();
    run(async {
        let refused = closed(&open(options(&relay, None))).await;
        assert_eq!(refused.to_string(), "closed with 4401 access token required");
        let refused = closed(&open(options(&relay, None).token("red").unwrap())).await;
        assert_eq!(refused.code, 4401);

        // A message that the relay refuses, and one that the peer does.
        let (one, other) = (open(with_token()), open(with_token().max_message(1000)));
        until(&one, |event| *event == Event::Paired).await;
        let (_, refused) = zip(one.send(vec![0; 1001]), closed(&other)).await;
        assert_eq!(refused.to_string(), "closed with 1009 a message is too long");
        let other = open(with_token());
        until(&other, |event| *event == Event::Paired).await;
        let (_, refused) = zip(one.send(vec![0; 2 << 20]), closed(&one)).await;
        assert_eq!(refused.to_string(), "closed with 1009 message too big");
    });
}

#[test]
fn encrypted_message_beyond_the_limit_ends_the_connection() {
    let relay = Relay::start(NO_PINGS);
    let secret = Secret::random();
    run(async {
        let one = open(options(&relay, Some(&secret)));
        let other = open(options(&relay, Some(&secret)).max_message(100_000));
        one.send(vec![1; 100_000]).await.unwrap();
        assert_eq!(message(&other).await.len(), 100_000);
        let (_, refused) = zip(one.send(vec![1; 100_001]), closed(&other)).await;
        assert_eq!(refused.to_string(), "closed with 1009 a message is too long");
    });
}

#[test]
fn third_client_comes_again_while_both_seats_are_taken() {
    let relay = Relay::start(NO_PINGS);
    run(async {
        let [one, other] = [(); 2].map(|()| open(options(&relay, None)));
        until(&one, |event| *event == Event::Paired).await;
        until(&other, |event| *event == Event::Paired).await;
        let third = open(options(&relay, None));
        let Event::Reconnecting { code, reason, pause } = third.next().await.unwrap() else {
            panic!("it was admitted")
        };
        assert_eq!((code, &*reason), (4409, "pair is full"));
        assert!((500..=1500).contains(&pause.as_millis()), "{pause:?}");
        other.close().await;
        until(&third, |event| *event == Event::Paired).await;
        third.send("here").await.unwrap();
        assert_eq!(message(&one).await, b"here");
    });
}

/// As a program calls it when the device has another network.
#[test]
fn program_can_ask_for_a_new_attempt() {
    let relay = Relay::start(NO_PINGS);
    let line = Line::to(relay.address);
    run(async {
        let one = open(options_at(&line.url(), None));
        let other = open(options(&relay, None));
        one.send("x").await.unwrap();
        one.reconnect();
        let asked = |event: &Event| matches!(event, Event::Reconnecting { code: 4002, reason, .. } if reason == "the program asked for it");
        until(&one, asked).await;
        until(&one, |event| *event == Event::Paired).await;
        one.send("y").await.unwrap();
        assert_eq!((message(&other).await, message(&other).await), (b"x".to_vec(), b"y".to_vec()));

        // An attempt on a dead line is given up at once, and only once.
        line.stall();
        one.reconnect();
        until(&one, is_reconnecting).await;
        smol::Timer::after(Duration::from_millis(700)).await;
        let begin = Instant::now();
        one.reconnect();
        let event = until(&one, is_reconnecting).await;
        assert!(asked(&event) && begin.elapsed() < Duration::from_secs(5), "{event:?}");
        one.reconnect();
        assert_eq!(until_silence(&one).await, None);
        line.flow();
        one.send("z").await.unwrap();
        assert_eq!(message(&other).await, b"z");
    });
}

/// The last part was begun, so the peer may have the message.
#[test]
fn message_that_may_have_arrived_does_not_go_again() {
    let relay = Relay::start(NO_PINGS);
    let line = Line::to(relay.address);
    run(async {
        let one = open(options_at(&line.url(), None));
        let other = open(options(&relay, None));
        one.send("x").await.unwrap();
        assert_eq!(message(&other).await, b"x");
        line.stall();
        // More than all buffers between the two hold.
        let mut sent = Box::pin(one.send(vec![0; 48 << 20]));
        assert_eq!(
            (&mut sent)
                .or(async {
                    smol::Timer::after(Duration::from_millis(500)).await;
                    Ok(())
                })
                .await,
            Ok(())
        );
        assert_eq!(poll_once(&mut sent).await, None, "the line holds it up");
        one.reconnect();
        until(&one, is_reconnecting).await;
        assert_eq!(poll_once(&mut sent).await, Some(Ok(())));
        line.flow();
        one.send("y").await.unwrap();
        assert!(message(&other).await == b"y", "it went again");
    });
}

/// A program that starts again need not wait until the relay has noticed the end of the old process.
#[test]
fn side_takes_its_own_earlier_place() {
    let relay = Relay::start(NO_PINGS);
    run(async {
        let phone = || open(options(&relay, None).side("phone"));
        let before = phone();
        assert_eq!(before.next().await, Ok(Event::Waiting));
        let again = phone();
        assert_eq!(again.next().await, Ok(Event::Waiting));
        assert_eq!(closed(&before).await.to_string(), "closed with 4001 replaced");
        let peer = open(options(&relay, None).side("desk"));
        assert_eq!(peer.next().await, Ok(Event::Paired));
    });
}

#[test]
fn silent_relay_is_given_up_and_a_new_attempt_succeeds() {
    let relay = Relay::start(NO_PINGS);
    let line = Line::to(relay.address);
    let [short, long] = [300, 600].map(Duration::from_millis);
    run(async {
        let one = open(options_at(&line.url(), None).heartbeat(short).patience(long).side("one"));
        let other = open(options(&relay, None));
        one.send("x").await.unwrap();
        assert_eq!(message(&other).await, b"x");
        // In silence the relay answers, so nothing happens.
        smol::Timer::after(4 * long).await;
        line.stall();
        let begin = Instant::now();
        let event = until(&one, is_reconnecting).await;
        assert!(
            matches!(event, Event::Reconnecting { code: 1006, ref reason, .. } if reason == "the relay does not answer")
        );
        assert!(begin.elapsed() >= short, "{:?}", begin.elapsed());
        line.flow();
        one.send("y").await.unwrap();
        assert_eq!(message(&other).await, b"y");
    });
}

/// A message takes longer than a heartbeat on the line, and then in the queue.
#[test]
fn slow_line_and_slow_program_are_not_taken_for_dead() {
    let relay = Relay::start(NO_PINGS);
    let line = Line::to(relay.address);
    line.limit(400_000);
    let [short, long] = [200, 400].map(Duration::from_millis);
    let slow = options_at(&line.url(), None).heartbeat(short).patience(long).max_queue(1000);
    run(async {
        let (one, other) = (open(slow), open(options(&relay, None)));
        let (there, back) = (pattern(1 << 20, 1), pattern(1 << 20, 2));
        let sent = zip(one.send(there.clone()), other.send(back.clone()));
        let received = zip(message(&other), message(&one));
        let (sent, received) = zip(sent, received).await;
        assert_eq!(sent, (Ok(()), Ok(())));
        assert!(received == (there, back), "not what was sent");

        // The queue is full, and the message behind it is held.
        for _ in 0..5 {
            other.send(vec![1; 1000]).await.unwrap();
        }
        smol::Timer::after(4 * (short + long)).await;
        for _ in 0..5 {
            assert_eq!(one.next().await, Ok(Event::Message(vec![1; 1000])));
        }
        assert_eq!(poll_once(one.next()).await, None);
    });
}

/// A peer that is not read from holds up its sender. Nothing collects what was sent.
#[test]
fn program_that_takes_nothing_slows_the_peer() {
    let relay = Relay::start(NO_PINGS);
    run(async {
        let one = open(options(&relay, None));
        let other = open(options(&relay, None).max_queue(100_000));
        let chunk = pattern(100_000, 3);
        let mut sent = 0;
        loop {
            let send = async { Some(one.send(chunk.clone()).await) };
            let timeout = async {
                smol::Timer::after(Duration::from_secs(2)).await;
                None
            };
            match send.or(timeout).await {
                Some(result) => result.unwrap(),
                None => break,
            }
            sent += chunk.len();
            assert!(sent < 200 << 20, "{sent} bytes, and nothing was taken");
        }
        for _ in 0..sent / chunk.len() {
            assert!(message(&other).await == chunk, "not what was sent");
        }
    });
}

#[test]
fn draining_is_told_and_the_pair_meets_at_the_next_relay() {
    let mut relay = Relay::start(&[NO_PINGS, &["--drain-timeout", "500ms"]].concat());
    let line = Line::to(relay.address);
    let secret = Secret::random();
    run(async {
        let [one, other] = [(); 2].map(|()| open(options_at(&line.url(), Some(&secret))));
        one.send("x").await.unwrap();
        assert_eq!(message(&other).await, b"x");
        relay.signal(rustix::process::Signal::TERM);
        until(&one, |event| matches!(event, Event::Draining { .. })).await;
        until(&one, |event| matches!(event, Event::Unpaired { orderly: false })).await;
        relay.wait();
        let next = Relay::start(NO_PINGS);
        line.lead_to(next.address);
        other.send("y").await.unwrap();
        assert_eq!(message(&one).await, b"y");
        zip(one.close(), other.close()).await;
    });
}

#[test]
fn relays_without_the_subprotocol_and_other_servers_are_told() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("ws://{}", listener.local_addr().unwrap());
    let server = thread::spawn(move || {
        // A proxy without a relay behind it, and then a server of WebSockets that is no relay.
        let (mut socket, _) = listener.accept().unwrap();
        let _ = socket.read(&mut [0; 4096]).unwrap();
        socket.write_all(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 8\r\n\r\nno relay").unwrap();
        let (mut socket, _) = listener.accept().unwrap();
        let _ = socket.read(&mut [0; 4096]).unwrap();
        let busy = b"HTTP/1.1 503 Busy\r\nRetry-After: 2\r\nContent-Length: 0\r\n\r\n";
        socket.write_all(busy).unwrap();
        let (socket, _) = listener.accept().unwrap();
        let mut socket = async_tungstenite::tungstenite::accept(socket).unwrap();
        while socket.read().is_ok() {}
    });
    run(async {
        let connection = open(options_at(&url, None));
        let event = connection.next().await.unwrap();
        assert!(
            matches!(event, Event::Reconnecting { code: 4502, ref reason, .. } if reason == "no relay"),
            "{event:?}"
        );
        let event = connection.next().await.unwrap();
        let Event::Reconnecting { code: 4503, pause, .. } = event else { panic!("{event:?}") };
        assert!((2000..=3000).contains(&pause.as_millis()), "{pause:?}");
        assert_eq!(closed(&connection).await.to_string(), "closed with 4400 the relay does not speak arc-relay.v1");
    });
    server.join().unwrap();
}

/// A WebSocket of a relay that does what a test wants, and has a peer at once.
#[allow(clippy::result_large_err, reason = "the library names the type of the error")]
fn met(listener: &TcpListener) -> WebSocket<TcpStream> {
    let (stream, _) = listener.accept().unwrap();
    let choose = |_: &Request, mut response: Response| {
        response.headers_mut().insert("Sec-WebSocket-Protocol", HeaderValue::from_static(SUBPROTOCOL));
        Ok(response)
    };
    let mut socket = accept_hdr(stream, choose).unwrap();
    socket.send(WebSocketMessage::text(r#"{"type":"paired"}"#)).unwrap();
    socket
}

/// The relay's close frame is answered, and the end of its stream has not come.
#[test]
fn message_behind_a_close_frame_waits_for_the_next_meeting() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("ws://{}", listener.local_addr().unwrap());
    let (told, answered) = async_channel::bounded(1);
    let server = thread::spawn(move || {
        let mut first = met(&listener);
        assert_eq!(first.read().unwrap().into_data(), "a");
        first.close(None).unwrap();
        assert!(first.read().unwrap().is_close());
        told.send_blocking(()).unwrap();
        let mut second = met(&listener);
        assert_eq!(second.read().unwrap().into_data(), "b");
        assert_eq!(second.read().unwrap().into_data(), "c");
    });
    run(async {
        let connection = open(options_at(&url, None));
        connection.send("a").await.unwrap();
        answered.recv().await.unwrap();
        connection.send("b").await.unwrap();
        connection.send("c").await.unwrap();
        connection.close().await;
    });
    server.join().unwrap();
}

#[test]
fn meeting_that_a_wrong_record_ends_is_told_as_ended() {
    for is_behind_farewell in [false, true] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("ws://{}", listener.local_addr().unwrap());
        let secret = Secret::random();
        let mut meeting = Meeting::new(Some(secret.clone()), 100);
        let server = thread::spawn(move || {
            let mut socket = met(&listener);
            meeting.take_text(r#"{"type":"waiting"}"#);
            meeting.take_text(r#"{"type":"paired"}"#);
            let greeting = socket.read().unwrap().into_data();
            let (_, answer) = meeting.take_binary(greeting.to_vec()).unwrap();
            let farewell = is_behind_farewell.then(|| meeting.session().farewell().unwrap());
            for record in answer.into_iter().chain(farewell).chain([vec![0; 100]]) {
                socket.send(WebSocketMessage::binary(record)).unwrap();
            }
            while socket.read().is_ok() {}
        });
        run(async {
            let connection = open(options_at(&url, Some(&secret)));
            assert_eq!(connection.next().await, Ok(Event::Paired));
            assert_eq!(connection.next().await, Ok(Event::Unpaired { orderly: is_behind_farewell }));
            let event = connection.next().await.unwrap();
            assert!(matches!(event, Event::Reconnecting { code: 4002, .. }), "{event:?}");
        });
        server.join().unwrap();
    }
}

/// What the relay says, and what encryption adds, is no message of the peer.
#[test]
fn longest_message_bounds_those_of_the_peer_alone() {
    let relay = Relay::start(NO_PINGS);
    for secret in BOTH.map(|bytes| bytes.map(Secret::from_bytes)) {
        for longest in [0, 1, 100] {
            run(async {
                let one = open(options(&relay, secret.as_ref()));
                let other = open(options(&relay, secret.as_ref()).max_message(longest));
                one.send(vec![1; longest]).await.unwrap();
                assert_eq!(message(&other).await.len(), longest);
                let (_, refused) = zip(one.send(vec![1; longest + 1]), closed(&other)).await;
                assert_eq!(refused.to_string(), "closed with 1009 a message is too long");
            });
            eventually("the relay is empty", || relay.pairs() == 0);
        }
    }
}

/// A program that gives up waiting may have sent its message by other means, or too often.
#[test]
fn message_whose_sender_gave_up_before_there_was_a_peer_is_not_sent() {
    let relay = Relay::start(NO_PINGS);
    run(async {
        let one = open(options(&relay, None));
        assert_eq!(one.next().await, Ok(Event::Waiting));
        for _ in 0..3 {
            assert_eq!(poll_once(one.send("given up")).await, None);
        }
        let other = open(options(&relay, None));
        one.send("meant").await.unwrap();
        assert_eq!(message(&other).await, b"meant");
    });
}

/// A queue for one message, and a program that never takes any event.
#[test]
fn program_that_only_sends_meets_each_next_peer() {
    let relay = Relay::start(NO_PINGS);
    run(async {
        for most in [0, 1] {
            let one = open(options(&relay, None).max_queue(most));
            for nth in 0..3 {
                let other = open(options(&relay, None));
                // Before that, the message could go into the last meeting, and be lost.
                until(&other, |event| *event == Event::Paired).await;
                if nth == 0 {
                    other.send("a").await.unwrap(); // fills the queue
                }
                one.send(vec![nth]).await.unwrap();
                assert_eq!(message(&other).await, [nth]);
                other.close().await;
            }
            assert_eq!(message(&one).await, b"a");
            one.close().await;
        }
    });
    relay.assert_empty();
}

#[test]
fn extreme_times_are_no_reason_to_fail() {
    let relay = Relay::start(NO_PINGS);
    run(async {
        for (heartbeat, patience) in
            [(Duration::ZERO, Duration::from_secs(20)), (Duration::MAX, Duration::MAX), (Duration::ZERO, Duration::MAX)]
        {
            let one = open(options(&relay, None).heartbeat(heartbeat).patience(patience));
            let other = open(options(&relay, None));
            one.send("x").await.unwrap();
            assert_eq!(message(&other).await, b"x");
            assert_eq!(until_silence(&other).await, None);
            one.close().await;
            other.close().await;
        }
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]

    /// A line that is cut at any byte: what arrives is in order, and never twice.
    #[test]
    fn cuts_lose_what_is_under_way_at_most(
        lengths in prop::collection::vec(prop_oneof![0..100usize, 60_000..200_000usize], 20..40),
        // Each cut at the beginning of a meeting doubles the pause that follows.
        cuts in prop::collection::vec(1_000..400_000u64, 1..4),
        is_encrypted: bool,
    ) {
        let relay = Relay::start(NO_PINGS);
        let line = Line::to(relay.address);
        let secret = is_encrypted.then(Secret::random);
        line.cut_after(&cuts);
        run(async {
            let from = open(options_at(&line.url(), secret.as_ref()));
            let to = open(options(&relay, secret.as_ref()));
            let is_closed = Cell::new(false);
            let sent = async {
                for (nth, &length) in lengths.iter().enumerate() {
                    let number = (nth as u32).to_be_bytes().to_vec();
                    from.send([number, pattern(length, nth as u64)].concat()).await.unwrap();
                }
                from.close().await;
                is_closed.set(true);
            };
            let received = async {
                let (mut numbers, mut meetings, mut is_paired) = (Vec::new(), 0, false);
                // The last message may be lost, too. The client comes again without a peer, so the relay tells no end.
                loop {
                    match until_silence(&to).await {
                        None if is_closed.get() && !is_paired => break,
                        Some(Event::Message(message)) => {
                            let nth = u32::from_be_bytes(message[..4].try_into().unwrap()) as usize;
                            assert!(message[4..] == pattern(lengths[nth], nth as u64), "not what was sent");
                            numbers.push(nth);
                        }
                        Some(Event::Paired) => (meetings, is_paired) = (meetings + 1, true),
                        Some(Event::Unpaired { .. }) => is_paired = false,
                        _ => {}
                    }
                }
                (numbers, meetings)
            };
            let ((), (numbers, meetings)) = zip(sent, received).await;
            assert!(numbers.is_sorted_by(|a, b| a < b), "out of order or twice: {numbers:?}");
            // Kernel buffers hold several messages when a line is cut.
            assert!(meetings <= cuts.len() + 1, "{meetings} meetings for {} cuts", cuts.len());
            if line.cuts() == 0 {
                assert_eq!(numbers.len(), lengths.len());
            }
        });
        eventually("the relay is empty", || relay.pairs() == 0);
    }
}
