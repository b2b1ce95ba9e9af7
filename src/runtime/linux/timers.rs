//! The timer queue of a thread: wakers by deadline.
//!
//! It takes no lock, as each thread has one of its own, which its reactor fires.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::task::Waker;
use std::time::Instant;

use super::serials;

/// Wakers, ordered by deadline. A serial number tells wakers with the same deadline apart.
type Waiting = BTreeMap<(Instant, u64), Waker>;

thread_local! {
    static WAITING: RefCell<Waiting> = const { RefCell::new(BTreeMap::new()) };
}

/// The earliest deadline.
pub(super) fn next() -> Option<Instant> {
    WAITING.with_borrow(|waiting| waiting.first_key_value().map(|(&(deadline, _), _)| deadline))
}

/// Wakes all tasks with deadlines up to `now`.
pub(super) fn fire(now: Instant) {
    if next().is_none_or(|first| first > now) {
        return;
    }
    let due = WAITING.with_borrow_mut(|waiting| {
        let later = waiting.split_off(&(now, u64::MAX));
        std::mem::replace(waiting, later)
    });
    due.into_values().for_each(Waker::wake);
}

/// Adds a waker, and returns the number that tells it from others with the same deadline.
pub(super) fn insert(deadline: Instant, waker: Waker) -> u64 {
    let number = serials::next();
    WAITING.with_borrow_mut(|waiting| waiting.insert((deadline, number), waker));
    number
}

/// Replaces a waker. False if the timer has fired already.
pub(super) fn replace(deadline: Instant, number: u64, waker: &Waker) -> bool {
    let previous = WAITING.with_borrow_mut(|waiting| {
        waiting.get_mut(&(deadline, number)).map(|entry| std::mem::replace(entry, waker.clone()))
    });
    previous.is_some()
}

/// Removes a waker. That of another thread stays, as its reactor has ended.
pub(super) fn remove(deadline: Instant, number: u64) {
    let _removed = WAITING.try_with(|waiting| waiting.borrow_mut().remove(&(deadline, number)));
}
