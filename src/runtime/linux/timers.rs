//! The timer queue of a reactor: wakers by deadline.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::Waker;
use std::time::Instant;

use crate::runtime::sync::{lock, with_lock};

/// Wakers, ordered by deadline. A number tells wakers with the same deadline apart.
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

    /// Wakes all tasks with deadlines up to `now`.
    pub(super) fn fire(&self, now: Instant) {
        if self.next().is_none_or(|first| first > now) {
            return;
        }
        let due = with_lock(&self.waiting, |waiting| {
            let later = waiting.split_off(&(now, u64::MAX));
            std::mem::replace(waiting, later)
        });
        due.into_values().for_each(Waker::wake);
    }

    /// Adds a waker, and returns the number that tells it from others with the same deadline.
    pub(super) fn insert(&self, deadline: Instant, waker: Waker) -> u64 {
        let number = self.issued.fetch_add(1, Relaxed);
        lock(&self.waiting).insert((deadline, number), waker);
        number
    }

    /// Replaces a waker. False if the timer has fired already.
    pub(super) fn replace(&self, deadline: Instant, number: u64, waker: &Waker) -> bool {
        let previous = with_lock(&self.waiting, |waiting| {
            waiting.get_mut(&(deadline, number)).map(|entry| std::mem::replace(entry, waker.clone()))
        });
        previous.is_some()
    }

    /// Removes a waker.
    pub(super) fn remove(&self, deadline: Instant, number: u64) {
        with_lock(&self.waiting, |waiting| waiting.remove(&(deadline, number)));
    }
}
