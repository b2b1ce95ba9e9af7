//! The cases of `tests/conformance/` in memory: each seed splits input and output differently.

#[path = "../../tests/conformance/cases.rs"]
mod cases;
#[path = "../../tests/conformance/verdict.rs"]
mod verdict;

use std::time::Duration;

use super::actor::Actor;
use super::executor::Random;
use super::stage::Stage;
use crate::server::config::Config;
use cases::{Case, cases};
use verdict::{Received, judge};

/// Room for everything that a case sends.
const CAPACITY: usize = 32 << 20;

#[test]
fn every_conformance_case_passes() {
    let failures: Vec<_> = cases()
        .iter()
        .flat_map(|case| {
            let long = case.sent.iter().map(Vec::len).sum::<usize>() > 100_000;
            (0..if long { 1 } else { 10 }).filter_map(|seed| play(case, seed))
        })
        .collect();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// Plays a case. Returns a description of the failure, if there is one.
fn play(case: &Case, seed: u64) -> Option<String> {
    let mut stage =
        Stage::new(Random::new(seed), Config { max_message: case.limit, ping_interval: None, ..Config::default() });
    let mut peer = Actor::enter(&mut stage, 0, CAPACITY);
    let mut client = Actor::enter(&mut stage, 1, CAPACITY);
    for piece in &case.sent {
        if !client.try_send(piece) {
            break; // the relay may have refused an earlier piece and closed
        }
        if stage.random.once_in(2) {
            stage.settle();
        }
    }
    let (mut to_peer, mut to_client) = (Received::default(), Received::default());
    // Longer than a stall of the network.
    while {
        stage.pass(Duration::from_secs(3));
        let more = [(&mut peer, &mut to_peer), (&mut client, &mut to_client)].map(|(actor, received)| {
            let bytes = actor.receive();
            received.push(&bytes);
            !bytes.is_empty()
        });
        more.contains(&true)
    } {}
    drop((peer, client));
    stage.stop();
    stage.check_empty();
    judge(case, &to_client, &to_peer).map(|wrong| format!("seed {seed}: {wrong}"))
}
