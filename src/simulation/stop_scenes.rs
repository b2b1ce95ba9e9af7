//! Scenes of stops and recalls: what clients see of them, and when.

use std::time::{Duration, Instant};

use super::actor::{Actor, message};
use super::executor::Random;
use super::network::Cable;
use super::stage::Stage;
use crate::runtime::clock::Clock;
use crate::server::config::Config;

const MOMENT: Duration = Duration::from_millis(1);

/// A stage on which no client is pinged, and the network never stalls for those that have joined.
fn stage(seed: u64, drain_delay: Duration, drain_timeout: Duration) -> Stage {
    let config = Config { drain_delay, drain_timeout, ping_interval: None, ..Config::default() };
    Stage::new(Random::new(seed), config)
}

/// Joins with this number as its pair code, on a steady line.
fn join(stage: &mut Stage, number: usize, code: usize) -> Actor {
    let actor = Actor::enter_as(stage, number, code, 100_000);
    stage.cables.iter().for_each(Cable::hold_steady);
    actor
}

/// The response to a request for this path.
fn ask(stage: &mut Stage, path: &str) -> String {
    let (socket, cable) = stage.socket(999, 10_000);
    cable.hold_steady();
    let mut client = Actor(socket);
    client.send(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes());
    stage.settle();
    String::from_utf8(client.receive()).unwrap()
}

/// Tells the relay to stop, and returns the time.
fn begin_stop(stage: &mut Stage) -> Instant {
    stage.relay.running = None;
    stage.settle();
    stage.clock.now()
}

fn pass_until(stage: &mut Stage, time: Instant) {
    stage.pass(time - stage.clock.now());
}

#[test]
fn all_but_readiness_goes_on_during_the_drain_delay() {
    let [delay, timeout] = [60, 100].map(Duration::from_secs);
    for seed in 0..10 {
        let mut stage = stage(seed, delay, timeout);
        let mut pair = [0, 1].map(|number| join(&mut stage, number, 0));
        let mut early = join(&mut stage, 2, 1);
        assert!(ask(&mut stage, "/readyz").starts_with("HTTP/1.1 200 OK\r\n"));

        let stopped = begin_stop(&mut stage);
        let response = ask(&mut stage, "/readyz");
        assert!(response.starts_with("HTTP/1.1 503 ") && response.ends_with("\r\n\r\nstopping\n"), "{response}");
        assert!(ask(&mut stage, "/livez").starts_with("HTTP/1.1 200 OK\r\n"));
        let late = [join(&mut stage, 3, 1), join(&mut stage, 4, 2)];
        let [mut late, mut alone] = late;
        late.send(&message(b"joined"));
        stage.settle();
        assert_eq!(early.receive(), b"\x82\x06joined", "seed {seed}");

        pass_until(&mut stage, stopped + delay - MOMENT);
        assert_eq!(alone.receive(), b"", "seed {seed}: told too early");
        assert!(ask(&mut stage, "/health").starts_with("HTTP/1.1 200 OK\r\n"));
        stage.pass(MOMENT);
        assert_eq!(alone.receive(), b"\x88\x10\x03\xE9relay stopping", "seed {seed}");
        let (_, cable) = stage.socket(5, 10_000);
        stage.settle();
        assert!(cable.is_closed_by_relay(), "seed {seed}: the relay still listens");

        pair[0].send(&message(b"goes on"));
        pass_until(&mut stage, stopped + delay + timeout - Duration::from_secs(5) - MOMENT);
        assert_eq!(pair[1].receive(), b"\x82\x07goes on", "seed {seed}");
        pass_until(&mut stage, stopped + delay + timeout);
        for side in pair.iter_mut().chain([&mut early, &mut late]) {
            assert_eq!(side.receive(), b"\x88\x10\x03\xE9relay stopping", "seed {seed}");
        }
        drop((pair, early, late, alone));
        stage.stop();
        stage.check_empty();
    }
}

/// A relay without clients waits out the delay, too: a load balancer may still send some.
#[test]
fn the_drain_delay_is_not_shorter_without_clients() {
    let delay = Duration::from_secs(60);
    let mut stage = stage(0, delay, Duration::ZERO);
    stage.settle();
    begin_stop(&mut stage);
    stage.pass(delay - MOMENT);
    assert!(ask(&mut stage, "/readyz").starts_with("HTTP/1.1 503 "));
    stage.pass(2 * MOMENT);
    stage.check_empty();
}

/// The ends of pairs are spread over the last tenth of the drain timeout, busy pairs or not.
///
/// Both clients of a pair are told at once.
#[test]
fn the_ends_of_pairs_are_spread() {
    const PAIRS: usize = 48;
    const STEP: Duration = Duration::from_millis(100);
    let timeout = Duration::from_secs(40);
    let mut stage = stage(0, Duration::ZERO, timeout);
    let mut pairs: Vec<_> = (0..PAIRS).map(|pair| [0, 1].map(|side| join(&mut stage, 2 * pair + side, pair))).collect();
    let stopped = begin_stop(&mut stage);
    pass_until(&mut stage, stopped + timeout - timeout / 10 - MOMENT);
    let mut ends = vec![0; PAIRS];
    for step in 1..=40 {
        for (nth, pair) in pairs.iter_mut().enumerate().filter(|(nth, _)| nth % 2 == 0) {
            if ends[nth] == 0 {
                pair[0].send(&message(b"busy"));
            }
        }
        stage.pass(STEP);
        for (end, pair) in ends.iter_mut().zip(&mut pairs).filter(|(end, _)| **end == 0) {
            let told = pair.each_mut().map(|side| side.receive().ends_with(b"relay stopping"));
            assert_eq!(told[0], told[1], "only one client of a pair is told");
            *end = if told[0] { step } else { 0 };
        }
    }
    assert!(ends.iter().all(|&end| end > 0), "told too late: {ends:?}");
    let moments: Vec<_> = (1..=40).map(|step| ends.iter().filter(|&&end| end == step).count()).collect();
    assert!(moments.iter().filter(|&&count| count > 0).count() >= 12, "{moments:?}");
    assert!(moments.iter().all(|&count| count <= PAIRS / 12), "{moments:?}");
    drop(pairs);
    stage.stop();
    stage.check_empty();
}

/// Without a drain timeout all clients are told at once.
#[test]
fn a_stop_without_a_timeout_takes_no_time() {
    let mut stage = stage(0, Duration::ZERO, Duration::ZERO);
    let mut clients: Vec<_> = (0..20).map(|number| join(&mut stage, number, number / 2)).collect();
    begin_stop(&mut stage);
    for client in &mut clients {
        assert_eq!(client.receive(), b"\x88\x10\x03\xE9relay stopping");
    }
    drop(clients);
    stage.stop();
    stage.check_empty();
}

/// A recall ends the waits, and neither pairs nor the waits of clients that come after it.
#[test]
fn a_recall_tells_waiting_clients_only() {
    for seed in 0..10 {
        let mut stage = stage(seed, Duration::ZERO, Duration::ZERO);
        let mut pair = [0, 1].map(|number| join(&mut stage, number, 0));
        let mut waiting = [2, 3].map(|number| join(&mut stage, number, number));
        stage.relay.recall_waiting();
        stage.settle();
        for client in &mut waiting {
            assert_eq!(client.receive(), b"\x88\x11\x03\xF4service restart", "seed {seed}");
        }
        let mut again = [join(&mut stage, 4, 2), join(&mut stage, 5, 2)];
        for [one, other] in [&mut pair, &mut again] {
            one.send(&message(b"goes on"));
            stage.settle();
            assert_eq!(other.receive(), b"\x82\x07goes on", "seed {seed}");
        }
        drop((pair, waiting, again));
        stage.stop();
        stage.check_empty();
    }
}
