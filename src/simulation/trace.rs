//! What happened, line by line with its time, for a person to read: only when one seed runs alone.

use std::cell::RefCell;
use std::time::Instant;

thread_local! {
    /// When it began, while it is wanted. A test has a thread of its own.
    static TRACE: RefCell<Option<(Instant, Instant)>> = const { RefCell::new(None) };
}

/// Begins a trace at this time, or ends it.
pub(super) fn begin(now: Option<Instant>) {
    TRACE.set(now.map(|now| (now, now)));
}

/// The simulated time of all that follows.
pub(super) fn at(now: Instant) {
    TRACE.with_borrow_mut(|trace| trace.iter_mut().for_each(|(_, last)| *last = now));
}

/// Prints a line, if it is wanted.
pub(super) fn trace(line: impl FnOnce() -> String) {
    TRACE.with_borrow(|trace| {
        if let Some((begin, now)) = trace {
            println!("{:9.3} s  {}", (*now - *begin).as_secs_f64(), line());
        }
    });
}
