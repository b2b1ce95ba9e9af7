//! Scenes: scripted scenarios on the simulated network, played step by step.
//!
//! Some keep what seeds have found, because a seed means something else after a change. Others show what the clients'
//! own checks cannot detect.

use std::num::{NonZeroU64, NonZeroUsize};
use std::time::Duration;

use super::actor::{Actor, JOIN, PING, PONG, message, pong, take_frame};
use super::executor::Random;
use super::network::Cable;
use super::proxy::Pace;
use super::stage::Stage;
use crate::buffers::pool::LARGEST;
use crate::runtime::clock::Clock;
use crate::runtime::transport::Transport;
use crate::server::config::Config;

/// A reset ends the client's connection at once, and not only after an unanswered ping.
#[test]
fn a_reset_ends_the_connection_at_once() {
    for seed in 0..20 {
        let mut stage = Stage::new(Random::new(seed), Config::default());
        let mut pair = [0, 1].map(|number| Actor::enter(&mut stage, number, 10_000));
        pair[0].send(&message(b"the last"));
        stage.pass(Duration::from_secs(3)); // the network may stall
        pair[0].0.reset();
        stage.pass(Duration::from_secs(3));
        assert!(stage.cables[0].is_closed_by_relay(), "seed {seed}");
        assert_eq!(pair[1].receive_close(&mut stage).1, 1011, "seed {seed}");
        drop(pair);
        stage.stop();
        stage.check_empty();
    }
}

/// A slow reader that still sends gets everything after its peer has left.
///
/// The closing timeout begins when the close frame is sent, and not when it is queued.
#[test]
fn a_slow_reader_has_time_to_get_everything() {
    for seed in 0..20 {
        let mut stage = Stage::new(Random::new(seed), Config { ping_interval: None, ..Config::default() });
        let mut reader = Actor::enter(&mut stage, 0, 100_000);
        let mut sender = Actor::enter(&mut stage, 1, 1_000_000);
        for _ in 0..9 {
            sender.send(&message(&[7; 10_000]));
        }
        sender.send(&[0x88, 0x80, 0, 0, 0, 0]);
        stage.pass(Duration::from_secs(12)); // longer than the closing timeout and a stall
        reader.send(&message(b"to a peer that left"));
        stage.pass(Duration::from_secs(3));
        let (received, code) = reader.receive_close(&mut stage);
        let payload = received.iter().filter(|&&byte| byte == 7).count();
        assert_eq!((payload, code), (9 * 10_000, 1000), "seed {seed}");
        drop((reader, sender));
        stage.stop();
        stage.check_empty();
    }
}

/// A reset that a write finds is reported as a loss, although the relay is not reading.
#[test]
fn a_reset_found_by_a_write_is_reported_as_a_loss() {
    for seed in 0..20 {
        let mut stage = Stage::new(Random::new(seed), Config::default());
        let mut reader = Actor::enter(&mut stage, 0, 100_000);
        let mut sender = Actor::enter(&mut stage, 1, 1_000_000);
        // More than the relay takes while the reader does not read, but no more than its kernel takes.
        for _ in 0..10 {
            sender.send(&message(&[7; 70_000]));
        }
        stage.pass(Duration::from_secs(20));
        sender.0.reset();
        reader.send(&message(b"to a peer that left"));
        stage.pass(Duration::from_secs(5));
        let (_, code) = reader.receive_close(&mut stage);
        assert_eq!(code, 1011, "seed {seed}");
        drop(reader);
        stage.stop();
        drop(sender);
        stage.check_empty();
    }
}

/// A client that ends its stream before a peer has come is not told of a lost peer.
///
/// It has sent more than the relay holds for a peer.
#[test]
fn ending_the_stream_without_a_peer_reports_no_loss() {
    for seed in 0..20 {
        let mut stage = Stage::new(Random::new(seed), Config::default());
        let mut alone = Actor::enter(&mut stage, 0, 1_000_000);
        // More than the relay holds for a peer, but no more than its kernel takes.
        for _ in 0..6 {
            alone.send(&message(&[7; 70_000]));
        }
        alone.0.shut_down().unwrap();
        stage.pass(Duration::from_secs(30));
        assert_eq!(stage.relay.seats.pairs(), 0, "seed {seed}: the pair code is not free");
        assert_eq!(alone.receive(), b"", "seed {seed}");
        drop(alone);
        stage.stop();
        stage.check_empty();
    }
}

/// A vanished client is given up after the ping timeout, and its peer is told.
///
/// The peer answers its pings, and stays.
#[test]
fn a_vanished_client_is_given_up_after_the_ping_timeout() {
    let mut stage = Stage::new(Random::new(0), Config::default());
    let vanished = Actor::enter(&mut stage, 0, 10_000);
    vanished.0.cut();
    let mut peer = Actor::enter(&mut stage, 1, 10_000);
    let mut waited = Duration::ZERO;
    let mut received = Vec::new();
    while received.len() <= 4 {
        stage.pass(Duration::from_millis(100));
        waited += Duration::from_millis(100);
        let more = peer.receive();
        if more == PING {
            peer.send(&PONG);
        }
        received.extend(more);
    }
    assert_eq!(received[..4], [&PING[..], &[0x88, 22]].concat());
    assert_eq!(received[4..6], 1011_u16.to_be_bytes());
    // The vanished client came six seconds earlier. The beat looks at each client every 2.5 s.
    assert!(waited >= Duration::from_secs(34) && waited < Duration::from_secs(40), "{waited:?}");
    drop((vanished, peer));
    stage.stop();
    stage.check_empty();
}

/// Bytes in flight give a client more time to answer a ping.
///
/// Both the bytes up to the first mark and messages count.
#[test]
fn bytes_in_flight_extend_the_ping_timeout() {
    // The client came six seconds earlier, and the first ping comes after twenty. By then, fourteen seconds of the time
    // for its messages are over.
    let mark = 65_536 / 16_384;
    for (count, length, expected) in [(0, 0, 40 - 6), (40, 10, 34 + 40 - 14), (100, 30_000, 34 + 100 - 14 + mark)] {
        let mut stage = Stage::new(Random::new(0), Config::default());
        let mut silent = Actor::enter(&mut stage, 0, 4_000_000);
        let mut sender = Actor::enter(&mut stage, 1, 4_000_000);
        stage.cables.iter().for_each(Cable::hold_steady); // a late answer would shorten the silence
        for _ in 0..count {
            sender.send(&message(&vec![7; length]));
            stage.settle();
            silent.receive();
        }
        let mut seconds = 0;
        while stage.relay.seats.pairs() > 0 {
            stage.pass(Duration::from_secs(1));
            seconds += 1;
            silent.receive();
            if sender.receive().ends_with(&PING) {
                sender.send(&PONG);
            }
        }
        assert!((expected..expected + 6).contains(&seconds), "{count} of {length} bytes: {seconds} s");
        drop((silent, sender));
        stage.stop();
        stage.check_empty();
    }
}

/// A seat that has answered one takeover probe has the full time for the next one.
///
/// The second probe comes between the answers to the first probe and its end. The end of the first probe must not take
/// both clients for lost.
#[test]
fn each_takeover_probe_has_its_own_timeout() {
    for seed in 0..200 {
        let mut stage = Stage::new(Random::new(seed), Config::default());
        let mut pair = [0, 1].map(|number| Actor::enter(&mut stage, number, 10_000));
        stage.cables.iter().for_each(Cable::hold_steady);
        let mut others: Vec<_> = (2..5)
            .map(|number| {
                let (socket, cable) = stage.socket(number, 10_000);
                cable.hold_steady();
                let mut other = Actor(socket);
                other.send(JOIN.as_bytes());
                other
            })
            .collect();
        while stage.step() {
            for side in &mut pair {
                for _ in side.receive().into_iter().filter(|&byte| byte == PING[0]) {
                    side.send(&PONG);
                }
            }
        }
        stage.pass(Duration::from_secs(1));
        for other in &mut others {
            let response = String::from_utf8(other.receive()).unwrap();
            assert!(response.starts_with("HTTP/1.1 409"), "seed {seed}: {response:?}");
        }
        drop((pair, others));
        stage.stop();
        stage.check_empty();
    }
}

/// The acceptor pauses after an accept that fails.
///
/// Without free file descriptors, an immediate retry would spin and still fail.
#[test]
fn a_failed_accept_is_followed_by_a_pause() {
    let mut stage = Stage::new(Random::new(0), Config::default());
    stage.relay.fail_accept();
    stage.settle();
    let (socket, cable) = stage.socket(0, 10_000);
    cable.hold_steady();
    let mut client = Actor(socket);
    client.send(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n");
    stage.settle();
    assert_eq!(client.receive(), b"");
    stage.pass(Duration::from_secs(1));
    assert!(client.receive().starts_with(b"HTTP/1.1 200"));
    drop(client);
    stage.stop();
    stage.check_empty();
}

/// A stalled reader costs two buffers, however much it is sent.
///
/// One is being written, and the other is being filled meanwhile. (With pings, a slow reader costs less.)
#[test]
fn a_stalled_reader_costs_two_buffers() {
    for seed in 0..20 {
        let mut stage = Stage::new(Random::new(seed), Config { ping_interval: None, ..Config::default() });
        let reader = Actor::enter(&mut stage, 0, 10_000);
        let mut sender = Actor::enter(&mut stage, 1, 4_000_000);
        let mut most = 0;
        for _ in 0..50 {
            sender.send(&message(&[7; 70_000]));
            while stage.step() {
                most = most.max(stage.relay.memory());
            }
            stage.pass(Duration::from_millis(100)); // the network may stall
        }
        // A buffer has headroom for a header before the bytes that are read into it.
        assert!(most > LARGEST && most <= 2 * LARGEST + 4096, "seed {seed}: {most} bytes");
        drop((reader, sender));
        stage.stop();
        stage.check_empty();
    }
}

/// A client that joins, but does not take the response, loses its seat.
///
/// Acknowledgements from its kernel do not extend the time.
#[test]
fn an_untaken_response_frees_the_seat() {
    for seed in 0..20 {
        let mut stage = Stage::new(Random::new(seed), Config::default());
        // Less room than the response needs.
        let (socket, cable) = stage.socket(0, 60);
        cable.hold_steady();
        let mut client = Actor(socket);
        for part in JOIN.as_bytes().chunks(30) {
            client.send(part);
            stage.settle();
        }
        assert_eq!(stage.relay.seats.pairs(), 1, "seed {seed}");
        stage.pass(Duration::from_secs(10));
        assert_eq!(stage.relay.seats.pairs(), 0, "seed {seed}");
        drop(client);
        stage.stop();
        stage.check_empty();
    }
}

/// The answer is not cut short when the body is not read.
#[test]
fn a_rejection_of_a_request_with_a_body_is_complete() {
    for seed in 0..20 {
        let mut stage = Stage::new(Random::new(seed), Config::default());
        // Less room than the response needs.
        let (socket, cable) = stage.socket(0, 100);
        cable.hold_steady();
        let mut client = Actor(socket);
        client.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n");
        let mut response = Vec::new();
        while !cable.is_closed_by_relay() {
            stage.pass(Duration::from_millis(100));
            response.extend(client.receive());
        }
        response.extend(client.receive());
        assert!(response.ends_with(b"\r\n\r\nmethod not allowed\n"), "seed {seed}: {}", response.escape_ascii());
        drop(client);
        stage.stop();
        stage.check_empty();
    }
}

/// A second request does not extend the time to take the first response.
#[test]
fn a_second_request_does_not_extend_the_time_for_a_response() {
    for seed in 0..20 {
        let mut stage = Stage::new(Random::new(seed), Config::default());
        let (socket, cable) = stage.socket(0, 60);
        cable.hold_steady();
        let mut client = Actor(socket);
        for _ in 0..2 {
            client.send(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n");
            stage.pass(Duration::from_secs(6));
        }
        assert!(cable.is_closed_by_relay(), "seed {seed}");
        drop(client);
        stage.stop();
        stage.check_empty();
    }
}

/// The time for a third client's request does not run during a takeover probe.
#[test]
fn the_request_timeout_pauses_during_a_takeover_probe() {
    let mut stage = Stage::new(Random::new(0), Config::default());
    let silent = [0, 1].map(|number| Actor::enter(&mut stage, number, 10_000));
    let (socket, cable) = stage.socket(2, 10_000);
    cable.hold_steady();
    let mut third = Actor(socket);
    let (most, rest) = JOIN.as_bytes().split_at(JOIN.len() - 1);
    third.send(most);
    stage.pass(Duration::from_secs(9));
    third.send(rest);
    stage.pass(Duration::from_secs(6));
    assert!(third.receive().starts_with(b"HTTP/1.1 "));
    drop((silent, third));
    stage.stop();
    stage.check_empty();
}

/// Every time to live is capped at a hundred years, so that a deadline fits into an `Instant`.
#[test]
fn the_pair_ttl_is_capped_at_a_hundred_years() {
    const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);
    let config =
        Config { pair_ttl: Duration::MAX, ping_interval: None, probe_timeout: Duration::ZERO, ..Config::default() };
    let mut stage = Stage::new(Random::new(0), config);
    let mut alone = Actor::enter(&mut stage, 0, 10_000);
    let mut skip = |years: u32| {
        // Not beat by beat: a century has five billion of them.
        stage.clock.set(stage.clock.now() + years * YEAR);
        stage.pass(Duration::from_secs(1));
    };
    skip(99);
    assert_eq!(alone.receive(), b"");
    skip(1);
    assert_eq!(alone.receive_close(&mut stage), (vec![], 1001));
    drop(alone);
    stage.stop();
    stage.check_empty();
}

/// A throttled pair gets everything that is sent, within its rate and without undue delay.
#[test]
fn a_throttled_pair_loses_nothing() {
    const RATE: usize = 4000;
    for seed in 0..20 {
        let config = Config { max_rate_per_pair: NonZeroU64::new(RATE as u64), ..Config::default() };
        let mut stage = Stage::new(Random::new(seed), config);
        let mut pair = [0, 1].map(|number| Actor::enter(&mut stage, number, 1_000_000));
        stage.cables.iter().for_each(Cable::hold_steady);
        // Two thirds go one way and one third goes the other way. It takes longer than the ping timeout.
        let sent = [40, 20].map(|count| message(&[0xEE; 4000]).repeat(count));
        pair.iter_mut().zip(&sent).for_each(|(side, sent)| side.send(sent));
        let mut received = [0; 2];
        for tenth in 1..=620 {
            stage.pass(Duration::from_millis(100));
            for (side, received) in pair.iter_mut().zip(&mut received) {
                *received += side.receive().into_iter().filter(|&byte| byte == 0xEE).count();
            }
            let most = RATE * (tenth + 3) / 10;
            assert!(received[0] + received[1] <= most, "seed {seed}: {received:?} in {tenth} tenths of a second");
        }
        assert_eq!(received, [20 * 4000, 40 * 4000], "seed {seed}");
        assert!(stage.relay.counters().throttled > 100, "seed {seed}");
        drop(pair);
        stage.stop();
        stage.check_empty();
    }
}

/// Pairs take turns at a shared rate.
#[test]
fn pairs_share_a_rate_evenly() {
    const RATE: usize = 100_000;
    for seed in 0..20 {
        let config = Config { ping_interval: None, max_rate: NonZeroU64::new(RATE as u64), ..Config::default() };
        let mut stage = Stage::new(Random::new(seed), config);
        let mut pairs: Vec<_> = (0..5)
            .map(|pair| [2 * pair, 2 * pair + 1].map(|number| Actor::enter_as(&mut stage, number, pair, 1_000_000)))
            .collect();
        stage.cables.iter().for_each(Cable::hold_steady);
        pairs.iter_mut().for_each(|[sender, _]| sender.send(&message(&[7; 4000]).repeat(100)));
        stage.pass(Duration::from_secs(10));
        let received: Vec<_> = pairs.iter_mut().map(|[_, reader]| reader.receive().len()).collect();
        let all: usize = received.iter().sum();
        assert!((9 * RATE..=11 * RATE).contains(&all), "seed {seed}: {received:?}");
        assert!(received.iter().all(|&one| one > all / 10 && one < all * 3 / 10), "seed {seed}: {received:?}");
        drop(pairs);
        stage.stop();
        stage.check_empty();
    }
}

/// A connection that waits for the shared rate is not overtaken again and again by later ones.
#[test]
fn a_connection_that_waits_for_a_rate_is_not_starved() {
    const RATE: usize = 100_000;
    for seed in 0..20 {
        let config = Config { max_rate: NonZeroU64::new(RATE as u64), ping_interval: None, ..Config::default() };
        let mut stage = Stage::new(Random::new(seed), config);
        let mut pairs: Vec<_> = (0..11)
            .map(|pair| [2 * pair, 2 * pair + 1].map(|number| Actor::enter_as(&mut stage, number, pair, 2_000_000)))
            .collect();
        stage.cables.iter().for_each(Cable::hold_steady);
        let ([sender, reader], others) = pairs.split_first_mut().unwrap();
        sender.send(&message(&[7; 60_000]).repeat(20));
        // The other clients alone send as much as the rate allows.
        let mut received = 0;
        for nth in 0..200 {
            others[nth % 10][0].send(&message(&[7; RATE / 10]));
            stage.pass(Duration::from_millis(100));
            received += reader.receive().len();
        }
        assert!(received > 20 * RATE / 11 * 4 / 5, "seed {seed}: {received} bytes in 20 s are no fair share");
        drop(pairs);
        stage.stop();
        stage.check_empty();
    }
}

/// Messages right behind an opening handshake are charged to the rate, too.
///
/// Otherwise, many short connections could use up the shared rate.
#[test]
fn messages_behind_the_handshake_are_throttled() {
    for seed in 0..20 {
        let config = Config { max_rate: NonZeroU64::new(10_000), ..Config::default() };
        let mut stage = Stage::new(Random::new(seed), config);
        let mut pair = [0, 1].map(|number| Actor::enter_as(&mut stage, number, 99, 10_000));
        let strangers: Vec<_> = (2..32)
            .map(|number| {
                let (socket, cable) = stage.socket(number, 100_000);
                cable.hold_steady();
                let mut stranger = Actor(socket);
                stranger.send(
                    &[JOIN.replace("pair=x", &format!("pair={number}")).as_bytes(), &message(&[7; 5000])].concat(),
                );
                stage.settle();
                stranger
            })
            .collect();
        drop(strangers);
        // The network may stall.
        stage.pass(Duration::from_secs(1));
        pair[0].send(&message(b"not long"));
        stage.pass(Duration::from_secs(6));
        assert_eq!(pair[1].receive(), [&[0x82, 8], &b"not long"[..]].concat(), "seed {seed}");
        drop(pair);
        stage.stop();
        stage.check_empty();
    }
}

/// A client that has closed is not kept for its earlier messages, which have no receiver.
#[test]
fn a_closing_handshake_is_not_throttled() {
    for seed in 0..20 {
        let config = Config { max_rate_per_pair: NonZeroU64::new(2000), ..Config::default() };
        let mut stage = Stage::new(Random::new(seed), config);
        let mut pair = [0, 1].map(|number| Actor::enter(&mut stage, number, 1_000_000));
        stage.cables.iter().for_each(Cable::hold_steady);
        pair[1].send(&message(&[7; 60_000]));
        stage.settle();
        pair[0].send(&[0x88, 0x80, 0, 0, 0, 0]);
        stage.pass(Duration::from_secs(2));
        assert_eq!(pair[1].receive_close(&mut stage).1, 1000, "seed {seed}");
        pair[1].send(&[0x88, 0x82, 0, 0, 0, 0, 3, 0xE8]);
        stage.pass(Duration::from_secs(1));
        assert!(stage.cables.iter().all(Cable::is_closed_by_relay), "seed {seed}: a connection is kept");
        drop(pair);
        stage.stop();
        stage.check_empty();
    }
}

/// A reset is noticed while the rate prevents the relay from reading.
#[test]
fn a_reset_is_noticed_while_throttled() {
    for seed in 0..20 {
        let config = Config { max_rate_per_pair: NonZeroU64::new(1024), ..Config::default() };
        let mut stage = Stage::new(Random::new(seed), config);
        let mut pair = [0, 1].map(|number| Actor::enter(&mut stage, number, 1_000_000));
        stage.cables.iter().for_each(Cable::hold_steady);
        pair[0].send(&message(&[7; 100_000]));
        stage.pass(Duration::from_secs(2));
        pair[0].0.reset();
        stage.pass(Duration::from_millis(100));
        assert_eq!(stage.relay.seats.pairs(), 0, "seed {seed}: the pair code is not free");
        drop(pair);
        stage.stop();
        stage.check_empty();
    }
}

/// Bytes in a proxy arrive after the sender has closed.
///
/// A proxy takes everything at once and delivers it over forty seconds. The closing timeout must not begin when the
/// proxy's kernel has the close frame. The relay would close its socket, and the client's next byte would meet a reset.
/// Then the proxy would drop the rest.
#[test]
fn bytes_in_a_proxy_arrive_after_the_sender_has_closed() {
    depart_with_bytes_in_a_proxy(1000, |sender| sender.send(&CLOSE));
}

/// Bytes in a proxy arrive after the sender has violated the protocol.
#[test]
fn bytes_in_a_proxy_arrive_after_a_protocol_violation() {
    depart_with_bytes_in_a_proxy(1011, |sender| sender.send(&[0xC2, 0x80, 0, 0, 0, 0]));
}

/// Bytes in a proxy arrive after the sender was lost within a message.
#[test]
fn bytes_in_a_proxy_arrive_after_the_sender_was_lost() {
    depart_with_bytes_in_a_proxy(1011, |sender| {
        sender.send(&[0x82, 0xFE, 1]);
        sender.0.shut_down().unwrap();
    });
}

const CLOSE: [u8; 8] = [0x88, 0x82, 0, 0, 0, 0, 3, 0xE8];

/// Departs while a proxy holds most of the sender's messages, and expects all of them and this code.
///
/// The receiver answers each message and each ping when it has read it.
fn depart_with_bytes_in_a_proxy(expected: u16, depart: impl Fn(&mut Actor)) {
    depart_later_with_bytes_in_a_proxy(&Config::default(), Duration::ZERO, expected, depart);
}

/// Does the same some time after the last message.
fn depart_later_with_bytes_in_a_proxy(config: &Config, later: Duration, expected: u16, depart: impl Fn(&mut Actor)) {
    const MESSAGES: usize = 40;
    for seed in 0..20 {
        let mut stage = Stage::new(Random::new(seed), config.clone());
        let up = Pace { bytes: usize::MAX, pause: Duration::from_millis(10) };
        let down = Pace { bytes: 1000, pause: Duration::from_millis(100) };
        let (mut receiver, line) = Actor::enter_behind_proxy(&mut stage, 0, 1_000_000, [up, down]);
        let mut sender = Actor::enter(&mut stage, 1, 1_000_000);
        line.hold_steady();
        stage.cables.iter().for_each(Cable::hold_steady);
        (0..MESSAGES).for_each(|_| sender.send(&message(&[7; 10_000])));
        stage.pass(later);
        depart(&mut sender);
        stage.pass(Duration::from_secs(1));
        sender.receive(); // closing with unread bytes would send a reset
        drop(sender);
        let (mut bytes, mut messages, mut code) = (Vec::new(), 0, None);
        for _ in 0..60 {
            stage.pass(Duration::from_secs(1));
            bytes.extend(receiver.receive());
            while let Some((first, payload)) = take_frame(&mut bytes) {
                let answer = match first {
                    0x89 => pong(&payload),
                    0x88 => {
                        code = payload.first_chunk().map(|code| u16::from_be_bytes(*code));
                        CLOSE.to_vec()
                    }
                    _ => {
                        messages += 1;
                        message(b"got it")
                    }
                };
                receiver.try_send(&answer); // a failure shows in the received messages
            }
        }
        assert_eq!((messages, code), (MESSAGES, Some(expected)), "seed {seed}");
        drop(receiver);
        stage.pass(Duration::from_secs(1));
        assert!(stage.cables.iter().all(Cable::is_closed_by_relay), "seed {seed}: a socket is kept");
        stage.stop();
        stage.check_empty();
    }
}

/// A proxy takes everything at once, but the relay sends no more than the client takes in some seconds.
///
/// At first it sends a window of 64 KiB, and the batch that was read before it was known that the client takes any.
#[test]
fn a_slow_client_behind_a_proxy_has_few_bytes_in_flight() {
    const MESSAGES: usize = 60;
    for seed in 0..20 {
        let mut stage = Stage::new(Random::new(seed), Config::default());
        let up = Pace { bytes: usize::MAX, pause: Duration::from_millis(10) };
        let down = Pace { bytes: 1000, pause: Duration::from_millis(100) };
        let (mut receiver, line) = Actor::enter_behind_proxy(&mut stage, 0, 1_000_000, [up, down]);
        let mut sender = Actor::enter(&mut stage, 1, 1_000_000);
        line.hold_steady();
        stage.cables.iter().for_each(Cable::hold_steady);
        (0..MESSAGES).for_each(|_| sender.send(&message(&[7; 10_000])));
        let (mut bytes, mut messages) = (Vec::new(), 0);
        for second in 0..80 {
            stage.pass(Duration::from_secs(1));
            let most = if second < 30 { (64 + 256) << 10 } else { 5 * down.rate() + (64 << 10) };
            assert!(line.held_for_client() <= most, "seed {seed}: {} bytes after {second} s", line.held_for_client());
            bytes.extend(receiver.receive());
            while let Some((first, payload)) = take_frame(&mut bytes) {
                match first {
                    0x89 => receiver.send(&pong(&payload)),
                    _ => messages += 1,
                }
            }
        }
        assert_eq!(messages, MESSAGES, "seed {seed}");
        drop((receiver, sender));
        stage.stop();
        stage.check_empty();
    }
}

/// A client that uploads one long message cannot answer meanwhile.
///
/// Its window must not stay closed.
#[test]
fn a_client_within_a_long_message_gets_messages() {
    const MESSAGES: usize = 60;
    for seed in 0..20 {
        let mut stage = Stage::new(Random::new(seed), Config::default());
        let up = Pace { bytes: 2000, pause: Duration::from_millis(100) };
        let down = Pace { bytes: usize::MAX, pause: Duration::from_millis(10) };
        let (mut uploader, line) = Actor::enter_behind_proxy(&mut stage, 0, 4_000_000, [up, down]);
        let mut peer = Actor::enter(&mut stage, 1, 4_000_000);
        line.hold_steady();
        stage.cables.iter().for_each(Cable::hold_steady);
        let (mut bytes, mut peers, mut messages, mut uploaded) = (Vec::new(), Vec::new(), 0, 0);
        for second in 0..180 {
            if second == 0 || second == 10 {
                (0..MESSAGES / 2).for_each(|_| peer.send(&message(&[7; 10_000])));
            }
            if second == 9 {
                uploader.send(&message(&vec![8; 2_000_000]));
            }
            stage.pass(Duration::from_secs(1));
            bytes.extend(uploader.receive());
            while let Some((first, payload)) = take_frame(&mut bytes) {
                match first {
                    0x89 => uploader.send(&pong(&payload)),
                    _ => messages += 1,
                }
            }
            peers.extend(peer.receive());
            while let Some((first, payload)) = take_frame(&mut peers) {
                match first {
                    0x89 => peer.send(&pong(&payload)),
                    _ => uploaded += payload.len(),
                }
            }
            assert!(second < 45 || messages == MESSAGES, "seed {seed}: {messages} messages after {second} s");
        }
        assert_eq!(uploaded, 2_000_000, "seed {seed}");
        drop((uploader, peer));
        stage.stop();
        stage.check_empty();
    }
}

/// Lingering connections are bounded, and make room for new clients.
///
/// A quarter of all connections may linger in their closing handshake. The one that is silent for longest makes room
/// for the next. At the connection limit, a new client replaces a lingering one.
#[test]
fn lingering_connections_are_bounded_and_make_room_for_newcomers() {
    for seed in 0..20 {
        let config = Config { max_connections: Some(8), ping_interval: None, ..Config::default() };
        let mut stage = Stage::new(Random::new(seed), config);
        let mut readers = Vec::new();
        for pair in 0..3 {
            let mut reader = Actor::enter_as(&mut stage, 2 * pair, pair, 1_000_000);
            let mut sender = Actor::enter_as(&mut stage, 2 * pair + 1, pair, 1_000_000);
            stage.cables.iter().for_each(Cable::hold_steady);
            sender.send(&message(&[7; 60_000]).repeat(4));
            sender.send(&[0x88, 0x80, 0, 0, 0, 0]);
            stage.settle();
            reader.receive(); // without answering the close frame
            readers.push((reader, sender));
        }
        stage.pass(Duration::from_secs(8));
        let is_closed = |stage: &Stage, nth: usize| stage.cables[2 * nth].is_closed_by_relay();
        assert_eq!([0, 1, 2].map(|nth| is_closed(&stage, nth)), [true, false, false], "seed {seed}");
        assert_eq!(stage.relay.counters().lingering, 2, "seed {seed}");
        // Six new clients are admitted beside the two, and the others replace these.
        let newcomers: Vec<_> =
            (6..14).map(|number| Actor::enter_as(&mut stage, number, 100 + number / 2, 10_000)).collect();
        assert_eq!(stage.relay.counters().lingering, 0, "seed {seed}");
        drop((readers, newcomers));
        stage.stop();
        stage.check_empty();
    }
}

/// Without pings nothing tells what the receiver has taken, and the proxy passes on 10 KB a second.
#[test]
fn bytes_in_a_proxy_arrive_without_pings() {
    for probe_timeout in [Config::default().probe_timeout, Duration::ZERO] {
        let config = Config { ping_interval: None, probe_timeout, ..Config::default() };
        depart_later_with_bytes_in_a_proxy(&config, Duration::from_secs(30), 1000, |sender| sender.send(&CLOSE));
    }
}

/// A client that sends and never reads is given up after the write timeout, with any pings and probes.
///
/// The kernel's timeout does not see such a client, so the relay counts by itself.
#[test]
fn the_write_timeout_needs_neither_pings_nor_probes() {
    for (pings, probes) in [(true, true), (false, true), (true, false), (false, false)] {
        let mut config = Config { write_timeout: Duration::from_secs(30), ..Config::default() };
        if !pings {
            config.ping_interval = None;
        }
        if !probes {
            config.probe_timeout = Duration::ZERO;
        }
        let mut stage = Stage::new(Random::new(0), config);
        let mut stalled = Actor::enter(&mut stage, 0, 10_000);
        let mut sender = Actor::enter(&mut stage, 1, 4_000_000);
        sender.send(&message(&[7; 70_000]));
        let mut seconds = 0;
        while !stage.cables[0].is_closed_by_relay() {
            assert!(seconds < 60, "pings: {pings}, probes: {probes}");
            stalled.try_send(&message(b"still here"));
            stage.pass(Duration::from_secs(1));
            if sender.receive().ends_with(&PING) {
                sender.send(&PONG);
            }
            seconds += 1;
        }
        assert!(seconds >= 30, "pings: {pings}, probes: {probes}: {seconds} s");
        drop((stalled, sender));
        stage.stop();
        stage.check_empty();
    }
}

/// Without pings, bytes count as taken at 4 KiB/s, with probes or without.
///
/// So a client that had the time to take everything has 5 seconds to answer a close frame.
#[test]
fn bytes_in_flight_count_as_taken_without_pings_and_probes() {
    for probe_timeout in [Config::default().probe_timeout, Duration::ZERO] {
        let config = Config { ping_interval: None, probe_timeout, ..Config::default() };
        let mut stage = Stage::new(Random::new(0), config);
        let mut reader = Actor::enter(&mut stage, 0, 4_000_000);
        let mut sender = Actor::enter(&mut stage, 1, 4_000_000);
        for _ in 0..16 {
            sender.send(&message(&[7; 60_000]));
            stage.settle();
            reader.receive();
        }
        stage.pass(Duration::from_secs(250));
        reader.receive();
        sender.send(&[0x88, 0x80, 0, 0, 0, 0]);
        stage.pass(Duration::from_secs(10)); // the network may stall
        assert!(stage.cables[0].is_closed_by_relay(), "probe timeout: {probe_timeout:?}");
        drop((reader, sender));
        stage.stop();
        stage.check_empty();
    }
}

/// Pairs spread over the workers, though one worker accepts all clients.
///
/// Both clients of a pair are on one worker.
#[test]
fn pairs_spread_over_the_workers() {
    const PAIRS: usize = 30;
    let mut stage =
        Stage::new(Random::new(0), Config { workers: NonZeroUsize::new(3), ping_interval: None, ..Config::default() });
    stage.relay.door.have_a_favourite();
    stage.settle(); // all workers are idle
    let on_workers = |stage: &Stage| {
        let tasks = stage.executor.tasks();
        [0, 1, 2].map(|worker| tasks.iter().filter(|task| **task == ("connection on worker", worker)).count())
    };
    let mut pairs = Vec::new();
    for pair in 0..PAIRS {
        let first = Actor::enter_as(&mut stage, 2 * pair, pair, 10_000);
        let second = Actor::enter_as(&mut stage, 2 * pair + 1, pair, 10_000);
        pairs.push((first, second));
        let now = on_workers(&stage);
        assert!(now.iter().all(|connections| connections % 2 == 0), "a pair is on two workers: {now:?}");
    }
    let spread = on_workers(&stage);
    assert!(spread.iter().all(|connections| (16..=26).contains(connections)), "{spread:?}");
    drop(pairs);
    stage.stop();
    stage.check_empty();
}
