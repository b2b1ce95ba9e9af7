//! A future that is ready at a deadline.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use super::reactor::Reactor;

/// Ready at a deadline, on the thread that polled it first.
///
/// The reactor fires it, and not the clock: so events that came before the deadline are reported first.
#[derive(Debug)]
pub(crate) struct Timer {
    deadline: Instant,
    /// The reactor that will fire it, and its number there.
    registered: Option<(Arc<Reactor>, u64)>,
}

impl Timer {
    pub(crate) fn at(deadline: Instant) -> Self {
        Self { deadline, registered: None }
    }
}

impl Future for Timer {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let deadline = self.deadline;
        let Some((reactor, number)) = &self.registered else {
            let reactor = Reactor::current();
            let number = reactor.timers().insert(deadline, cx.waker().clone());
            self.registered = Some((reactor, number));
            return Poll::Pending;
        };
        if reactor.timers().replace(deadline, *number, cx.waker()) { Poll::Pending } else { Poll::Ready(()) }
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        if let Some((reactor, number)) = &self.registered {
            reactor.timers().remove(self.deadline, *number);
        }
    }
}
