//! The whole relay, from accept to the close, on a network in memory and a clock that is set by hand.
//!
//! It is the code that runs on sockets, generic over its transport, its time and what runs its tasks, and not a copy of
//! it. A seed decides which task runs next, what the network delivers, when, and in which pieces, and what the clients
//! do; the same seed does the same again. Some clients are behind a proxy that buffers without bound. The clients know
//! exactly what they sent and what they may receive, and when nothing can run any more, everybody has to have a reason to
//! wait.
//!
//! `cargo test --lib simulation` runs some thousand seeds. `ARC_RELAY_SEEDS=FIRST..LAST cargo test --release --lib
//! simulation` runs these; a failing one is named, and runs alone, with a trace, as `FIRST..FIRST+1`.

#![cfg_attr(not(test), allow(dead_code, missing_docs, reason = "the fuzz targets use a part of it"))]

mod actor;
mod checks;
mod client;
#[cfg(test)]
mod conformance;
mod executor;
mod line;
mod network;
mod proxy;
#[cfg(test)]
mod scenes;
mod stage;
#[cfg(fuzzing)]
mod stranger;
mod time;
mod trace;
mod visitor;
mod world;

#[cfg(fuzzing)]
pub use stranger::respond;
#[cfg(test)]
use world::simulate;

#[test]
fn every_seed_keeps_the_contract() {
    let seeds = match std::env::var("ARC_RELAY_SEEDS") {
        Err(_) => 0..3000,
        Ok(range) => {
            let (first, last) = range.split_once("..").expect("FIRST..LAST");
            first.parse::<u64>().expect("a number")..last.parse().expect("a number")
        }
    };
    let alone = seeds.end - seeds.start == 1;
    for seed in seeds {
        let result = std::panic::catch_unwind(|| simulate(seed, alone));
        let again = format!("ARC_RELAY_SEEDS={seed}..{} cargo test --lib simulation::every -- --nocapture", seed + 1);
        assert!(result.is_ok(), "seed {seed}: {again}");
    }
}

#[test]
fn a_seed_does_the_same_again() {
    for seed in 0..50 {
        assert_eq!(simulate(seed, false), simulate(seed, false), "seed {seed}");
    }
}
