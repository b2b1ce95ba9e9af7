//! The rows of the relay's contract, over real sockets, with async-tungstenite's clients.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod support;

use std::net::TcpStream;
use std::time::{Duration, Instant};

use async_tungstenite::tungstenite::Message;
use async_tungstenite::tungstenite::protocol::frame::Frame;
use async_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};
use futures_lite::FutureExt;
use futures_lite::future::zip;
use rustix::process::Signal;
use support::{Client, Relay, eventually, pattern, run};

#[test]
fn clients_with_the_same_code_exchange_messages_in_order() {
    let relay = Relay::start(&[]);
    run(async {
        let (mut a, mut b) = relay.pair("x").await;
        for length in [0, 1, 125, 126, 65535, 65536, 65537, 1 << 20] {
            let message = pattern(length, 1);
            a.send(message.clone()).await;
            assert!(b.receive().await == message, "from A to B, {length} bytes");
            b.send(message.clone()).await;
            assert!(a.receive().await == message, "from B to A, {length} bytes");
        }
        for number in 0..1000_u32 {
            a.send(number.to_be_bytes()).await;
            b.send(number.to_le_bytes()).await;
        }
        for number in 0..1000_u32 {
            assert_eq!(b.receive().await, number.to_be_bytes());
            assert_eq!(a.receive().await, number.to_le_bytes());
        }
    });
}

#[test]
fn path_is_ignored_and_different_codes_are_different_pairs() {
    let relay = Relay::start(&[]);
    run(async {
        let mut a = relay.try_connect("/?pair=x%20y").await.unwrap();
        let mut other = relay.connect("x").await;
        let mut b = relay.try_connect("/some/path?token=1&pair=x+y&pair=z").await.unwrap();
        assert_eq!(relay.pairs(), 2);
        a.send("to b").await;
        assert_eq!(b.receive().await, b"to b");
        let mut peer = relay.connect("x").await;
        peer.send("to other").await;
        assert_eq!(other.receive().await, b"to other");
    });
}

#[test]
fn full_pair_is_refused_with_409_and_stays_undisturbed() {
    let relay = Relay::start(&["--probe-timeout", "0"]);
    run(async {
        let (mut a, mut b) = relay.pair("x").await;
        for _ in 0..10 {
            assert_eq!(relay.rejection("/?pair=x").await, (409, "pair is full\n".into()));
        }
        a.send("still here").await;
        assert_eq!(b.receive().await, b"still here");
    });
}

#[test]
fn exactly_two_of_twenty_simultaneous_clients_are_admitted() {
    let relay = Relay::start(&["--probe-timeout", "0"]);
    run(async {
        let attempts: Vec<_> = (0..20).map(|_| relay.try_connect("/?pair=rush")).collect();
        let mut admitted = Vec::new();
        let executor = smol::LocalExecutor::new();
        executor
            .run(async {
                let tasks: Vec<_> = attempts.into_iter().map(|attempt| executor.spawn(attempt)).collect();
                for task in tasks {
                    admitted.extend(task.await.ok());
                }
            })
            .await;
        assert_eq!(admitted.len(), 2);
    });
}

#[test]
fn missing_or_invalid_pair_code_is_refused_with_400() {
    let relay = Relay::start(&[]);
    let long = format!("/?pair={}", "x".repeat(257));
    run(async {
        for target in ["/", "/?pair=", "/?pairs=x", "/?pair=%FF", "/?pair=%C3%28", "/?pair=&pair=x", &long] {
            assert_eq!(relay.rejection(target).await, (400, "missing or invalid pair code\n".into()), "{target}");
        }
        let longest = format!("/?pair={}", "%C3%A9".repeat(256));
        relay.try_connect(&longest).await.unwrap();
    });
}

#[test]
fn text_is_dropped_and_binary_around_it_is_forwarded() {
    let relay = Relay::start(&[]);
    run(async {
        let (mut a, mut b) = relay.pair("x").await;
        a.send("one").await;
        a.send_message(Message::text("not for the other side")).await;
        a.send_message(Message::text("é".repeat(100_000))).await;
        a.send("two").await;
        assert_eq!(b.receive().await, b"one");
        assert_eq!(b.receive().await, b"two");
    });
}

#[test]
fn pings_are_answered_by_the_relay_and_never_forwarded() {
    let relay = Relay::start(&[]);
    run(async {
        let (mut a, mut b) = relay.pair("x").await;
        for number in 0..10_u8 {
            a.send_message(Message::Ping(vec![number; 125].into())).await;
        }
        a.send_message(Message::Pong(b"unasked".to_vec().into())).await;
        a.send("after").await;
        for number in 0..10_u8 {
            assert_eq!(a.next().await, Message::Pong(vec![number; 125].into()));
        }
        assert_eq!(b.receive().await, b"after");
    });
}

#[test]
fn fragments_arrive_as_one_message() {
    let relay = Relay::start(&[]);
    run(async {
        let (mut a, mut b) = relay.pair("x").await;
        let fragment =
            |data: &[u8], kind, last| Message::Frame(Frame::message(data.to_vec(), OpCode::Data(kind), last));
        a.send_message(fragment(b"one ", Data::Binary, false)).await;
        a.send_message(Message::Ping(vec![].into())).await;
        a.send_message(fragment(b"", Data::Continue, false)).await;
        a.send_message(fragment(b"two", Data::Continue, true)).await;
        assert_eq!(b.receive().await, b"one two");
        assert_eq!(a.next().await, Message::Pong(vec![].into()));
    });
}

#[test]
fn close_code_is_echoed_and_the_peer_gets_all_messages_then_1000() {
    let relay = Relay::start(&[]);
    run(async {
        for a_leaves in [true, false] {
            let (a, b) = relay.pair("x").await;
            let (mut leaver, mut stayer) = if a_leaves { (a, b) } else { (b, a) };
            let large = pattern(3 << 20, 2);
            let leaving = async {
                for number in 0..100_u8 {
                    leaver.send([number]).await;
                }
                leaver.send(large.clone()).await;
                assert_eq!(leaver.close(4321, "done").await, (4321, String::new()));
            };
            let staying = async {
                for number in 0..100_u8 {
                    assert_eq!(stayer.receive().await, [number]);
                }
                assert!(stayer.receive().await == large);
                assert_eq!(stayer.closed().await, (1000, "peer disconnected".into()));
            };
            zip(leaving, staying).await;
        }
    });
}

#[test]
fn end_of_stream_closes_the_peer_with_1000() {
    let relay = Relay::start(&[]);
    run(async {
        let (mut a, mut b) = relay.pair("x").await;
        a.send("last").await;
        a.hang_up();
        assert_eq!(b.receive().await, b"last");
        assert_eq!(b.closed().await, (1000, "peer disconnected".into()));
    });
}

#[test]
fn reset_closes_the_peer_with_1011() {
    let relay = Relay::start(&[]);
    run(async {
        for a_is_lost in [true, false] {
            let (a, b) = relay.pair("x").await;
            let (mut lost, mut stayer) = if a_is_lost { (a, b) } else { (b, a) };
            lost.send("last").await;
            assert_eq!(stayer.receive().await, b"last");
            lost.reset();
            assert_eq!(stayer.closed().await, (1011, "peer connection lost".into()));
        }
    });
}

#[test]
fn pair_code_is_free_as_soon_as_one_client_leaves() {
    let relay = Relay::start(&[]);
    run(async {
        let (a, mut b) = relay.pair("x").await;
        a.close(1000, "").await;
        // B has not read its close frame yet, but the next two clients are a new pair.
        let (mut c, mut d) = relay.pair("x").await;
        c.send("new").await;
        assert_eq!(d.receive().await, b"new");
        assert_eq!(b.closed().await, (1000, "peer disconnected".into()));
        d.send("unharmed").await;
        assert_eq!(c.receive().await, b"unharmed");
    });
}

#[test]
fn messages_before_pairing_are_held_for_the_peer() {
    let relay = Relay::start(&[]);
    run(async {
        let mut a = relay.connect("x").await;
        for number in 0..1000_u32 {
            a.send(number.to_be_bytes()).await;
        }
        // The pong shows that the relay has read all messages.
        a.send_message(Message::Ping(vec![1].into())).await;
        assert_eq!(a.next().await, Message::Pong(vec![1].into()));
        let mut b = relay.connect("x").await;
        for number in 0..1000_u32 {
            assert_eq!(b.receive().await, number.to_be_bytes());
        }
    });
}

#[test]
fn waiting_client_that_leaves_frees_its_code_and_discards_its_messages() {
    let relay = Relay::start(&[]);
    run(async {
        let mut a = relay.connect("x").await;
        a.send("never delivered").await;
        a.close(1000, "").await;
        let mut b = relay.connect("x").await;
        assert_eq!(relay.pairs(), 1);
        b.send("fresh").await;
        let mut c = relay.connect("x").await;
        assert_eq!(c.receive().await, b"fresh");
        // The same with the end of the stream instead of a close frame.
        relay.connect("y").await.hang_up();
        eventually("the pair code is free", || relay.pairs() == 1);
    });
}

#[test]
fn waiting_client_expires_with_1001_but_a_pair_does_not() {
    let relay = Relay::start(&["--pair-ttl", "5s"]);
    run(async {
        let (mut a, mut b) = relay.pair("pair").await;
        let mut alone = relay.connect("alone").await;
        let mut second = relay.connect("second").await;
        assert_eq!(alone.closed().await, (1001, "pair expired".into()));
        assert_eq!(second.closed().await, (1001, "pair expired".into()));
        // The next client with the code has a deadline of its own.
        let mut successor = relay.connect("alone").await;
        assert_eq!(successor.closed().await, (1001, "pair expired".into()));
        a.send("still joined").await;
        assert_eq!(b.receive().await, b"still joined");
        assert_eq!(relay.pairs(), 1);
    });
}

#[test]
fn signal_delivers_received_messages_and_closes_with_1001() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut relay = Relay::start(&[]);
        run(async {
            let (mut a, mut b) = relay.pair("pair").await;
            let mut alone = relay.connect("alone").await;
            a.send("in flight").await;
            a.send_message(Message::Ping(vec![].into())).await;
            assert_eq!(a.next().await, Message::Pong(vec![].into()), "the relay has read the message");
            relay.signal(signal);
            assert_eq!(b.receive().await, b"in flight");
            for client in [&mut a, &mut b, &mut alone] {
                assert_eq!(client.closed().await, (1001, "relay stopping".into()));
            }
        });
        assert_eq!(relay.wait().code(), Some(0));
    }
}

#[test]
fn draining_relay_lets_pairs_finish_and_accepts_no_connection() {
    let mut relay = Relay::start(&["--drain-timeout", "1h"]);
    run(async {
        let (mut a, mut b) = relay.pair("x").await;
        let mut alone = relay.connect("y").await;
        relay.signal(Signal::TERM);
        assert_eq!(alone.closed().await, (1001, "relay stopping".into()));
        // Each worker closes its listener by itself.
        eventually("the relay does not listen any more", || TcpStream::connect(relay.address).is_err());
        a.send("still here").await;
        assert_eq!(b.receive().await, b"still here");
        assert_eq!(a.close(4000, "").await, (4000, String::new()));
        assert_eq!(b.closed().await, (1000, "peer disconnected".into()));
    });
    assert_eq!(relay.wait().code(), Some(0), "it exits after the last pair, not an hour later");
}

#[test]
fn drain_timeout_closes_pairs_and_does_not_wait_for_a_stalled_reader() {
    let mut relay = Relay::start(&["--drain-timeout", "1s"]);
    run(async {
        let (mut a, mut b) = relay.pair("x").await;
        let (mut sender, _stalled) = relay.pair("y").await;
        fill(&mut sender).await;
        let begin = Instant::now();
        relay.signal(Signal::TERM);
        for client in [&mut a, &mut b] {
            assert_eq!(client.closed().await, (1001, "relay stopping".into()));
        }
        // The ends are spread over the last tenth of the timeout.
        assert!(begin.elapsed() >= Duration::from_millis(900));
        assert_eq!(relay.wait().code(), Some(0));
        // The exit takes about three seconds. The stalled reader's own deadlines would allow more than a minute.
        assert!(begin.elapsed() < Duration::from_secs(30), "{:?}", begin.elapsed());
    });
}

/// Sends to a peer that does not read, until all buffers are full.
async fn fill(sender: &mut Client) {
    let send = async {
        loop {
            sender.send(vec![0; 1 << 20]).await;
        }
    };
    let timeout = async {
        smol::Timer::after(Duration::from_millis(500)).await;
    };
    send.or(timeout).await;
}

#[test]
fn second_signal_exits_at_once_with_128_plus_its_number() {
    for (first, second) in [(Signal::TERM, Signal::TERM), (Signal::INT, Signal::TERM), (Signal::TERM, Signal::INT)] {
        // A graceful stop would wait for the stalled pair, and exit with 0.
        let mut relay = Relay::start(&["--drain-timeout", "10m"]);
        run(async {
            let (mut sender, _stalled) = relay.pair("y").await;
            fill(&mut sender).await;
            let alone = relay.connect("x").await;
            relay.signal(first);
            // The close frame shows that the first signal was handled. (Two pending signals may be merged into one.)
            alone.socket.get_ref().peek(&mut [0]).await.unwrap();
            relay.signal(second);
            assert_eq!(relay.wait().code(), Some(128 + second.as_raw()), "{first:?}, then {second:?}");
        });
    }
}

#[test]
fn message_over_the_limit_is_closed_with_1009() {
    let relay = Relay::start(&["--max-message", "1000"]);
    run(async {
        let (mut a, mut b) = relay.pair("x").await;
        a.send(vec![1; 1000]).await;
        a.send(vec![2; 1001]).await;
        assert_eq!(b.receive().await, vec![1; 1000]);
        assert_eq!(a.closed().await, (1009, "message too big".into()));
        assert_eq!(b.closed().await, (1011, "peer connection lost".into()));
    });
}

#[test]
fn full_speed_in_both_directions_does_not_deadlock() {
    let relay = Relay::start(&[]);
    run(async {
        let (a, b) = relay.pair("x").await;
        let (mut a_sends, mut a_receives) = a.socket.split();
        let (mut b_sends, mut b_receives) = b.socket.split();
        let message = pattern(1 << 20, 3);
        let send = |_| Message::binary(message.clone());
        // Each client sends far more than all buffers hold.
        let sent = zip(
            async {
                for i in 0..64 {
                    a_sends.send(send(i)).await.unwrap();
                }
            },
            async {
                for i in 0..64 {
                    b_sends.send(send(i)).await.unwrap();
                }
            },
        );
        let received = async {
            for _ in 0..64 {
                for stream in [&mut a_receives, &mut b_receives] {
                    let received = loop {
                        let message = futures_lite::StreamExt::next(stream).await.unwrap().unwrap();
                        if !message.is_ping() {
                            break message;
                        }
                    };
                    assert!(received.into_data() == message);
                }
            }
        };
        zip(sent, received).await;
    });
}

#[test]
fn stalled_reader_slows_only_its_own_sender() {
    let relay = Relay::start(&[]);
    run(async {
        let (mut fast, mut stalled) = relay.pair("stalled").await;
        let (mut a, mut b) = relay.pair("other").await;
        let message = pattern(1 << 20, 4);
        let flood = async {
            for _ in 0..32 {
                fast.send(message.clone()).await;
            }
        };
        let others = async {
            for number in 0..1000_u32 {
                a.send(number.to_be_bytes()).await;
                assert_eq!(b.receive().await, number.to_be_bytes());
            }
            // The stalled reader starts to read only now, and no message is missing.
            for _ in 0..32 {
                assert!(stalled.receive().await == message);
            }
        };
        zip(flood, others).await;
    });
}
