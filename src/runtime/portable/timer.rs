//! A future that is ready at a deadline.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use super::reactor;

/// The looks at events between the end of a timer and its report.
///
/// The first finds the events that came before the deadline, and wakes their tasks. They run before the second.
const LOOKS: u32 = 2;

/// Ready at a deadline, after all events that came before it are reported.
///
/// So after a stop of the process, a client whose answer has arrived is not given up. smol's timer asks the clock, and
/// would be ready before the reactor has looked at the sockets.
#[derive(Debug)]
pub(crate) struct Timer {
    timer: smol::Timer,
    /// The number of looks when the deadline was over.
    over: Option<u32>,
}

impl Timer {
    pub(crate) fn at(deadline: Instant) -> Self {
        Self { timer: smol::Timer::at(deadline), over: None }
    }
}

impl Future for Timer {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let over = match self.over {
            Some(over) => over,
            None => {
                ready!(Pin::new(&mut self.timer).poll(cx));
                *self.over.insert(reactor::looks())
            }
        };
        if reactor::looks().wrapping_sub(over) < LOOKS {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(())
    }
}
