//! A future that is ready at a deadline.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use super::reactor::Reactor;
use super::timers;

/// Ready at a deadline, on the thread that polled it first.
///
/// The reactor fires it, and not the clock: so events that came before the deadline are reported first.
#[derive(Debug)]
pub(crate) struct Timer {
    deadline: Instant,
    /// Its number among the timers of the thread, once it has one.
    number: Option<u64>,
}

impl Timer {
    pub(crate) fn at(deadline: Instant) -> Self {
        Self { deadline, number: None }
    }
}

impl Future for Timer {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let deadline = self.deadline;
        let Some(number) = self.number else {
            Reactor::assert_running();
            self.number = Some(timers::insert(deadline, cx.waker().clone()));
            return Poll::Pending;
        };
        if timers::replace(deadline, number, cx.waker()) { Poll::Pending } else { Poll::Ready(()) }
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            timers::remove(self.deadline, number);
        }
    }
}
