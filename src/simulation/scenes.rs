//! Scenes, played step by step: what the seeds have found, so that it stays found when the seeds mean something else,
//! and what no client could complain of.

use std::num::NonZeroU64;
use std::time::Duration;

use super::actor::{Actor, JOIN, PING, PONG, message, take_frame};
use super::executor::Random;
use super::network::Cable;
use super::proxy::Pace;
use super::stage::Stage;
use crate::buffers::pool::LARGEST;
use crate::runtime::transport::Transport;
use crate::server::relay::Config;

/// The connection of a client that is reset ends at once, and not only when it has not answered a ping.
#[test]
fn a_client_that_is_reset_is_gone_at_once() {
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

/// A slow reader that still talks gets everything after its peer has left: the time for its answer begins when the close
/// frame is sent, and not when it is queued.
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
        stage.pass(Duration::from_secs(12)); // more than an answer may take, and what the network may stall
        reader.send(&message(b"to somebody who has left"));
        stage.pass(Duration::from_secs(3));
        let (received, code) = reader.receive_close(&mut stage);
        let payload = received.iter().filter(|&&byte| byte == 7).count();
        assert_eq!((payload, code), (9 * 10_000, 1000), "seed {seed}");
        drop((reader, sender));
        stage.stop();
        stage.check_empty();
    }
}

/// A reset that was found by a write, while the client could not be read from, was told as an orderly departure.
#[test]
fn a_reset_that_a_write_has_found_is_told_as_a_loss() {
    for seed in 0..20 {
        let mut stage = Stage::new(Random::new(seed), Config::default());
        let mut reader = Actor::enter(&mut stage, 0, 100_000);
        let mut sender = Actor::enter(&mut stage, 1, 1_000_000);
        // More than the relay takes in while the reader does not read, but no more than its system does.
        for _ in 0..10 {
            sender.send(&message(&[7; 70_000]));
        }
        stage.pass(Duration::from_secs(20));
        sender.0.reset();
        reader.send(&message(b"to somebody who is gone"));
        stage.pass(Duration::from_secs(5));
        let (_, code) = reader.receive_close(&mut stage);
        assert_eq!(code, 1011, "seed {seed}");
        drop(reader);
        stage.stop();
        drop(sender);
        stage.check_empty();
    }
}

/// Who ended its stream while it was alone, with more sent than is held for a peer, was told of the loss of a peer that
/// it never had.
#[test]
fn who_ends_its_stream_alone_is_not_told_of_a_loss() {
    for seed in 0..20 {
        let mut stage = Stage::new(Random::new(seed), Config::default());
        let mut alone = Actor::enter(&mut stage, 0, 1_000_000);
        // More than the relay takes in for a peer, but no more than its system does.
        for _ in 0..6 {
            alone.send(&message(&[7; 70_000]));
        }
        alone.0.shut_down().unwrap();
        stage.pass(Duration::from_secs(30));
        assert_eq!(stage.relay.seats.pairs(), 0, "seed {seed}: the code is not free");
        assert_eq!(alone.receive(), b"", "seed {seed}");
        drop(alone);
        stage.stop();
        stage.check_empty();
    }
}

/// Who has vanished is given up when it has not answered for as long as it may, and its peer is told; who answers is not.
#[test]
fn a_client_that_has_vanished_is_given_up_in_time() {
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
    // The vanished one came six seconds earlier, and each is looked at every two and a half.
    assert!(waited >= Duration::from_secs(34) && waited < Duration::from_secs(40), "{waited:?}");
    drop((vanished, peer));
    stage.stop();
    stage.check_empty();
}

/// What a client was sent gives it more time, and keeps its seat: bytes up to the first mark, and messages.
#[test]
fn a_client_that_was_sent_much_has_more_time() {
    // It came six seconds earlier, and is pinged after twenty: then fourteen of the seconds for its messages are over.
    let mark = 65_536 / 16_384;
    for (count, length, expected) in [(0, 0, 40 - 6), (40, 10, 34 + 40 - 14), (100, 30_000, 34 + 100 - 14 + mark)] {
        let mut stage = Stage::new(Random::new(0), Config::default());
        let mut silent = Actor::enter(&mut stage, 0, 4_000_000);
        let mut sender = Actor::enter(&mut stage, 1, 4_000_000);
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

/// Two questions to the same pair, the second of which comes between the answers to the first and its end: the first one
/// once took both for lost.
#[test]
fn whoever_has_answered_one_question_has_time_for_the_next() {
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

/// Whoever asks again at once while there are no file descriptors takes the processor, and gets none.
#[test]
fn after_an_accept_that_fails_there_is_a_pause() {
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

/// A reader that does not read costs two buffers, whatever is sent to it: the one that is written, and the one that is
/// filled meanwhile.
#[test]
fn a_reader_that_does_not_read_costs_two_buffers() {
    for seed in 0..20 {
        let mut stage = Stage::new(Random::new(seed), Config::default());
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
        // A buffer has room for a header before what is read into it.
        assert!(most > LARGEST && most <= 2 * LARGEST + 4096, "seed {seed}: {most} bytes");
        drop((reader, sender));
        stage.stop();
        stage.check_empty();
    }
}

/// Who joins and does not take the answer kept its seat for as long as its system acknowledged anything.
#[test]
fn a_seat_is_free_again_when_its_answer_is_not_taken_in_time() {
    for seed in 0..20 {
        let mut stage = Stage::new(Random::new(seed), Config::default());
        // Less room than the answer needs.
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

/// hyper is done with a request whose body it does not want before its answer is written.
#[test]
fn a_refusal_of_a_request_with_a_body_is_written_to_its_end() {
    for seed in 0..20 {
        let mut stage = Stage::new(Random::new(seed), Config::default());
        // Less room than the answer needs.
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

/// Whoever asks again before the answer is taken would have the whole time again.
#[test]
fn asking_again_gives_no_more_time_to_take_the_first_answer() {
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

/// While a third one waits until the relay has asked the two, the time for its request is not running.
#[test]
fn a_third_one_that_was_slow_to_ask_is_not_cut_off_while_it_waits() {
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

/// Whatever time to live is asked for, a deadline fits into an instant, and it is a hundred years at most.
#[test]
fn the_longest_time_to_live_is_a_hundred_years() {
    const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);
    let config =
        Config { pair_ttl: Duration::MAX, ping_interval: None, probe_timeout: Duration::ZERO, ..Config::default() };
    let mut stage = Stage::new(Random::new(0), config);
    let mut alone = Actor::enter(&mut stage, 0, 10_000);
    stage.pass(99 * YEAR);
    assert_eq!(alone.receive(), b"");
    stage.pass(YEAR);
    assert_eq!(alone.receive_close(&mut stage), (vec![], 1001));
    drop(alone);
    stage.stop();
    stage.check_empty();
}

/// A pair whose rate is limited gets everything that is sent, no faster than it may, and in good time.
#[test]
fn a_pair_that_is_slowed_down_loses_nothing() {
    const RATE: usize = 4000;
    for seed in 0..20 {
        let config = Config { max_rate_per_pair: NonZeroU64::new(RATE as u64), ..Config::default() };
        let mut stage = Stage::new(Random::new(seed), config);
        let mut pair = [0, 1].map(|number| Actor::enter(&mut stage, number, 1_000_000));
        stage.cables.iter().for_each(Cable::hold_steady);
        // Two thirds one way and one third the other, for a time in which silence would have been noticed.
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

/// Pairs that share a rate have their turns at it.
#[test]
fn pairs_that_share_a_rate_share_it_evenly() {
    const RATE: usize = 100_000;
    for seed in 0..20 {
        let config = Config { max_rate: NonZeroU64::new(RATE as u64), ..Config::default() };
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

/// Whoever waits for a rate is not overtaken by those who come later, again and again.
#[test]
fn nobody_overtakes_who_waits_for_a_rate() {
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
        // The others alone have as much to say as may pass.
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

/// What comes right behind an opening handshake is not free, either: many of them could use up a rate for all.
#[test]
fn what_is_read_ahead_waits_for_its_rate() {
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
        // (The network may stall.)
        stage.pass(Duration::from_secs(1));
        pair[0].send(&message(b"not long"));
        stage.pass(Duration::from_secs(6));
        assert_eq!(pair[1].receive(), [&[0x82, 8], &b"not long"[..]].concat(), "seed {seed}");
        drop(pair);
        stage.stop();
        stage.check_empty();
    }
}

/// Who has closed is not kept for what it sent before, which has nowhere to go.
#[test]
fn an_answer_to_a_close_frame_waits_for_no_rate() {
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
        assert!(stage.cables.iter().all(Cable::is_closed_by_relay), "seed {seed}: it is kept");
        drop(pair);
        stage.stop();
        stage.check_empty();
    }
}

/// That somebody is gone is noticed though its rate does not let it be read from.
#[test]
fn who_is_gone_is_noticed_while_it_is_slowed_down() {
    for seed in 0..20 {
        let config = Config { max_rate_per_pair: NonZeroU64::new(1024), ..Config::default() };
        let mut stage = Stage::new(Random::new(seed), config);
        let mut pair = [0, 1].map(|number| Actor::enter(&mut stage, number, 1_000_000));
        stage.cables.iter().for_each(Cable::hold_steady);
        pair[0].send(&message(&[7; 100_000]));
        stage.pass(Duration::from_secs(2));
        pair[0].0.reset();
        stage.pass(Duration::from_millis(100));
        assert_eq!(stage.relay.seats.pairs(), 0, "seed {seed}: the code is not free");
        drop(pair);
        stage.stop();
        stage.check_empty();
    }
}

/// A proxy takes everything at once and delivers it over forty seconds. The relay must not count the time for the answer
/// to its close frame from when the proxy has that: a socket that is dropped meets what the client still says with a
/// reset, at which the proxy drops the rest.
#[test]
fn what_a_proxy_holds_arrives_after_the_sender_has_closed() {
    leave_what_a_proxy_holds(1000, |sender| sender.send(&CLOSE));
}

/// The same, when the sender breaks the protocol.
#[test]
fn what_a_proxy_holds_arrives_after_the_sender_has_broken_the_protocol() {
    leave_what_a_proxy_holds(1011, |sender| sender.send(&[0xC2, 0x80, 0, 0, 0, 0]));
}

/// The same, when the sender is lost within a message.
#[test]
fn what_a_proxy_holds_arrives_after_the_sender_was_lost() {
    leave_what_a_proxy_holds(1011, |sender| {
        sender.send(&[0x82, 0xFE, 1]);
        sender.0.shut_down().unwrap();
    });
}

const CLOSE: [u8; 8] = [0x88, 0x82, 0, 0, 0, 0, 3, 0xE8];

/// A sender departs while a proxy holds almost all that it has sent. The receiver answers each message and each ping when
/// it has read it, and gets everything and this code.
fn leave_what_a_proxy_holds(expected: u16, depart: impl Fn(&mut Actor)) {
    const MESSAGES: usize = 40;
    for seed in 0..20 {
        let mut stage = Stage::new(Random::new(seed), Config::default());
        let up = Pace { bytes: usize::MAX, pause: Duration::from_millis(10) };
        let down = Pace { bytes: 1000, pause: Duration::from_millis(100) };
        let (mut receiver, line) = Actor::enter_behind_proxy(&mut stage, 0, 1_000_000, [up, down]);
        let mut sender = Actor::enter(&mut stage, 1, 1_000_000);
        line.hold_steady();
        stage.cables.iter().for_each(Cable::hold_steady);
        (0..MESSAGES).for_each(|_| sender.send(&message(&[7; 10_000])));
        depart(&mut sender);
        stage.pass(Duration::from_secs(1));
        sender.receive(); // or the answer would be answered with a reset
        drop(sender);
        let (mut bytes, mut messages, mut code) = (Vec::new(), 0, None);
        for _ in 0..60 {
            stage.pass(Duration::from_secs(1));
            bytes.extend(receiver.receive());
            while let Some((first, payload)) = take_frame(&mut bytes) {
                let answer = match first {
                    0x89 => [&[0x8A, 0x80 | payload.len() as u8, 0, 0, 0, 0], &payload[..]].concat(),
                    0x88 => {
                        code = payload.first_chunk().map(|code| u16::from_be_bytes(*code));
                        CLOSE.to_vec()
                    }
                    _ => {
                        messages += 1;
                        message(b"got it")
                    }
                };
                receiver.try_send(&answer); // a reset shows in what comes
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

/// Connections that linger in their closing handshake have a bound, a quarter of all, and the one that is silent for longest
/// makes room for the next. A newcomer that finds no room among the connections takes the place of one.
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
            reader.receive(); // and answers nothing
            readers.push((reader, sender));
        }
        stage.pass(Duration::from_secs(8));
        let is_closed = |stage: &Stage, nth: usize| stage.cables[2 * nth].is_closed_by_relay();
        assert_eq!([0, 1, 2].map(|nth| is_closed(&stage, nth)), [true, false, false], "seed {seed}");
        assert_eq!(stage.relay.counters().lingering, 2, "seed {seed}");
        // Six newcomers are let in beside the two, and the others in their place.
        let newcomers: Vec<_> =
            (6..14).map(|number| Actor::enter_as(&mut stage, number, 100 + number / 2, 10_000)).collect();
        assert_eq!(stage.relay.counters().lingering, 0, "seed {seed}");
        drop((readers, newcomers));
        stage.stop();
        stage.check_empty();
    }
}
