//! The trace: a timestamped log of events for debugging, printed only when one seed runs alone.

use std::cell::RefCell;
use std::time::Instant;

thread_local! {
    /// The start of the trace and the current time, while tracing is on. Each test has its own thread.
    static TRACE: RefCell<Option<(Instant, Instant)>> = const { RefCell::new(None) };
}

/// Begins a trace at this time, or ends it.
pub(super) fn begin(now: Option<Instant>) {
    TRACE.set(now.map(|now| (now, now)));
}

/// Sets the simulated time of the following lines.
pub(super) fn at(now: Instant) {
    TRACE.with_borrow_mut(|trace| trace.iter_mut().for_each(|(_, last)| *last = now));
}

/// Prints a line, if tracing is on.
pub(super) fn trace(line: impl FnOnce() -> String) {
    TRACE.with_borrow(|trace| {
        if let Some((begin, now)) = trace {
            println!("{:9.3} s  {}", (*now - *begin).as_secs_f64(), line());
        }
    });
}
