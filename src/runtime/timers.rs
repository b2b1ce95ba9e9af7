//! Whom to wake at what time.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::Waker;
use std::time::Instant;

use super::sync::lock;

/// Those who wait, by deadline; a number tells those of one deadline apart.
#[derive(Debug, Default)]
pub(super) struct Timers {
    waiting: Mutex<BTreeMap<(Instant, u64), Waker>>,
    issued: AtomicU64,
}

impl Timers {
    /// The earliest deadline.
    pub(super) fn next(&self) -> Option<Instant> {
        lock(&self.waiting).first_key_value().map(|(&(deadline, _), _)| deadline)
    }

    /// Wakes those whose time has come by `now`.
    pub(super) fn fire(&self, now: Instant) {
        if self.next().is_none_or(|first| first > now) {
            return;
        }
        let due = {
            let mut waiting = lock(&self.waiting);
            let later = waiting.split_off(&(now, u64::MAX));
            std::mem::replace(&mut *waiting, later)
        };
        due.into_values().for_each(Waker::wake);
    }
    /// Adds a waker, and returns the number that tells it from others with the same deadline.
    pub(super) fn insert(&self, deadline: Instant, waker: Waker) -> u64 {
        let number = self.issued.fetch_add(1, Relaxed);
        lock(&self.waiting).insert((deadline, number), waker);
        number
    }

    /// Replaces a waker. False if it has been woken already.
    pub(super) fn replace(&self, deadline: Instant, number: u64, waker: &Waker) -> bool {
        let mut waiting = lock(&self.waiting);
        let Some(entry) = waiting.get_mut(&(deadline, number)) else { return false };
        let previous = std::mem::replace(entry, waker.clone());
        drop(waiting);
        drop(previous); // outside the lock: a waker's code is not ours
        true
    }

    /// Removes a waker.
    pub(super) fn remove(&self, deadline: Instant, number: u64) {
        let waker = lock(&self.waiting).remove(&(deadline, number));
        drop(waker);
    }
}
