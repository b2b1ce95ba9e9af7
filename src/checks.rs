//! Model checks of what workers share: the relay's own code, on threads that shuttle schedules.
//!
//! With `--cfg shuttle`, [`sync`](crate::runtime::sync) takes mutexes and atomics from shuttle. Each use of one is a point at
//! which another thread may go on. A run follows one schedule. Random schedules and those of PCT (probabilistic concurrency
//! testing: threads by priority, with a few changes of it) take turns.
//!
//! Shuttle knows no weak memory: every atomic is sequentially consistent. Channels, `async-task` and `Arc` are not
//! instrumented, so what they do is one step.
//!
//! ```sh
//! tests/schedules                                          # 10,000 schedules for each check
//! ARC_RELAY_SCHEDULES=100000 tests/schedules seats         # more, for the checks of the seats
//! ```
//!
//! A failure prints its schedule. `ARC_RELAY_SCHEDULE=THAT tests/schedules NAME` replays it.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod counters;
mod executor;
mod link;
mod notifier;
mod permits;
mod places;
mod probes;
mod seats;
mod slots;
mod stage;
mod stop;

use std::env;
use std::future::Future;
use std::task::{Context, Poll, Waker};

use crate::runtime::sync::{Mutex, with_lock};

/// The number of schedules of each check.
const SCHEDULES: usize = 10_000;

/// How often a schedule of PCT changes priorities. Most bugs need one or two changes.
const CHANGES: usize = 3;

/// Runs a small world under many schedules, or under the one that the environment names.
fn check(world: fn()) {
    if let Ok(schedule) = env::var("ARC_RELAY_SCHEDULE") {
        return shuttle::replay(world, &schedule);
    }
    let schedules = env::var("ARC_RELAY_SCHEDULES").map_or(SCHEDULES, |count| count.parse().expect("a number"));
    shuttle::check_random(world, schedules / 2);
    shuttle::check_pct(world, schedules / 2, CHANGES);
}

/// Runs a future on a thread of shuttle. A wake-up that is lost is a deadlock, which shuttle reports.
fn block_on<F: Future>(future: F) -> F::Output {
    shuttle::future::block_on(future)
}

/// A signal to any number of threads, for the checks themselves.
#[derive(Default)]
struct Signal(Mutex<(bool, Vec<Waker>)>);

impl Signal {
    fn give(&self) {
        let waiting = with_lock(&self.0, |(is_given, waiting)| {
            *is_given = true;
            std::mem::take(waiting)
        });
        waiting.into_iter().for_each(Waker::wake);
    }

    fn poll(&self, cx: &Context<'_>) -> Poll<()> {
        with_lock(&self.0, |(is_given, waiting)| {
            if *is_given {
                return Poll::Ready(());
            }
            waiting.push(cx.waker().clone());
            Poll::Pending
        })
    }
}
