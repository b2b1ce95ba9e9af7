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
    /// How much has come that was not allowed yet, in bytes: what the client sent right behind its opening handshake.
    unpaid: usize,
    pause: Option<Sleep>,
}

impl Throttle {
    /// None if there is nothing to wait for. So many bytes were read ahead.
    pub(super) fn new(budgets: Vec<SharedBudget>, read_ahead: usize) -> Option<Box<Self>> {
        let portion = budgets.iter().map(|budget| lock(budget).portion()).min()?;
        Some(Box::new(Self { budgets, portion, unpaid: read_ahead, pause: None }))
    }

    pub(super) fn portion(&self) -> usize {
        self.portion
    }

    /// Whether what was read ahead has to wait.
    pub(super) fn has_unpaid(&self) -> bool {
        self.unpaid > 0
    }

    /// Ready when the client may send more, or what was read ahead may pass.
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
                None => {
                    let unpaid = std::mem::take(&mut self.unpaid);
                    self.spend(unpaid, now);
                    return Poll::Ready(());
                }
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
