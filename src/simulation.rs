//! Deterministic simulation of the whole relay, on an in-memory network and a manual clock.
//!
//! The simulation runs the relay's own code, from accept to close. That code is generic over transport, clock and
//! executor.
//!
//! A seed decides which task runs next, what the network delivers, when, and in which pieces, and what the clients do.
//! The same seed always produces the same run. Some clients are behind a proxy that buffers without bound. Each client
//! knows exactly what it sent and what it may receive. When nothing can run any more, every client must have a reason
//! to wait.
//!
//! `cargo test --lib simulation` runs some thousand seeds. `ARC_RELAY_SEEDS=FIRST..LAST cargo test --release --lib
//! simulation` runs that range. A failing seed is named in the output. `FIRST..FIRST+1` runs it alone, with a trace.

#![cfg_attr(not(test), allow(dead_code, missing_docs, reason = "the fuzz targets use only a part of the simulation"))]

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
#[cfg(test)]
mod side_scenes;
mod stage;
#[cfg(test)]
mod stop_scenes;
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
fn a_seed_replays_exactly() {
    for seed in 0..50 {
        assert_eq!(simulate(seed, false), simulate(seed, false), "seed {seed}");
    }
}
