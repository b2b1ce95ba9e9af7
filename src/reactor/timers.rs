//! Whom to wake at what time.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use super::{Reactor, lock};

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
}

/// Ready at a deadline, on the thread whose reactor was the first to poll it: not by the time that it is, but when the
/// reactor says so, which tells what has happened until then first.
#[derive(Debug)]
pub(crate) struct Timer {
    deadline: Instant,
    place: Option<(Arc<Reactor>, u64)>,
}

impl Timer {
    pub(crate) fn at(deadline: Instant) -> Self {
        Self { deadline, place: None }
    }
}

impl Future for Timer {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let deadline = self.deadline;
        let Some((reactor, number)) = &self.place else {
            let reactor = Reactor::current();
            let number = reactor.timers.issued.fetch_add(1, Relaxed);
            lock(&reactor.timers.waiting).insert((deadline, number), cx.waker().clone());
            self.place = Some((reactor, number));
            return Poll::Pending;
        };
        let mut waiting = lock(&reactor.timers.waiting);
        let Some(waker) = waiting.get_mut(&(deadline, *number)) else { return Poll::Ready(()) };
        let previous = std::mem::replace(waker, cx.waker().clone());
        drop(waiting);
        drop(previous); // which may do anything
        Poll::Pending
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        if let Some((reactor, number)) = &self.place {
            let waker = lock(&reactor.timers.waiting).remove(&(self.deadline, *number));
            drop(waker);
        }
    }
}
