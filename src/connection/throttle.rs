//! Keeps a client from sending faster than its pair, and all pairs together, may. Nothing is dropped: what is not read
//! waits in the system's queue, and TCP slows the client.

use std::sync::{MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Instant;

use crate::clock::{Clock, Sleep};
use crate::rate::{Budget, SharedBudget};
use crate::stats::Stats;

/// What a connection has to wait for before it reads.
pub(super) struct Throttle {
    budgets: Vec<SharedBudget>,
    /// How much to read at once at most, in bytes.
    portion: usize,
    pause: Option<Sleep>,
}

impl Throttle {
    /// None if there is nothing to wait for.
    pub(super) fn new(budgets: Vec<SharedBudget>) -> Option<Box<Self>> {
        let portion = budgets.iter().map(|budget| lock(budget).portion()).min()?;
        Some(Box::new(Self { budgets, portion, pause: None }))
    }

    pub(super) fn portion(&self) -> usize {
        self.portion
    }

    /// Ready when the client may send more.
    pub(super) fn poll_ready(&mut self, cx: &mut Context<'_>, clock: &dyn Clock, stats: &Stats) -> Poll<()> {
        loop {
            if let Some(pause) = &mut self.pause {
                ready!(pause.as_mut().poll(cx));
                self.pause = None;
            }
            let now = clock.now();
            let until = self.budgets.iter().filter_map(|budget| lock(budget).wait(now)).max();
            match until {
                Some(until) => {
                    stats.throttled();
                    self.pause = Some(clock.sleep_until(until));
                }
                None => return Poll::Ready(()),
            }
        }
    }

    /// Pays for what the client has sent.
    pub(super) fn spend(&self, bytes: usize, now: Instant) {
        self.budgets.iter().for_each(|budget| lock(budget).spend(bytes, now));
    }
}

/// A budget is right after each step of it.
fn lock(budget: &SharedBudget) -> MutexGuard<'_, Budget> {
    budget.lock().unwrap_or_else(PoisonError::into_inner)
}
