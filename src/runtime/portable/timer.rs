//! A future that is ready at a deadline.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

/// The looks of the reactor at events, from the deadline to the end of the timer.
///
/// The first takes the events that came before the deadline. The second begins when their tasks are woken. So they run
/// first.
const LOOKS: u8 = 2;

/// The time between two looks. A timer of no time would not wait for the reactor.
const BETWEEN: Duration = Duration::from_micros(100);

/// Ready at a deadline, after all events that came before it are reported.
///
/// So after a stop of the process, no client is given up although its answer has arrived. smol's timer asks the clock,
/// and would be ready before the reactor has looked at the sockets.
#[derive(Debug)]
pub(crate) struct Timer {
    timer: smol::Timer,
    /// Whether the reactor has fired the timer, for the task that polled it last.
    fired: Option<Arc<Fired>>,
    /// The looks that are left.
    looks: u8,
}

/// Notes that the reactor has fired a timer, and wakes the task.
#[derive(Debug)]
struct Fired {
    is_fired: AtomicBool,
    task: Waker,
}

impl Wake for Fired {
    fn wake(self: Arc<Self>) {
        self.is_fired.store(true, SeqCst);
        self.task.wake_by_ref();
    }
}

impl Timer {
    pub(crate) fn at(deadline: Instant) -> Self {
        Self { timer: smol::Timer::at(deadline), fired: None, looks: LOOKS }
    }

    fn wait_for_next_look(&mut self) {
        self.timer = smol::Timer::after(BETWEEN);
        self.fired = None;
    }
}

impl Future for Timer {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.fired.as_ref().is_some_and(|fired| fired.is_fired.load(SeqCst)) {
            self.looks -= 1;
            self.wait_for_next_look();
        }
        while self.looks > 0 {
            let fired = self.fired.take().filter(|fired| fired.task.will_wake(cx.waker()));
            let fired =
                fired.unwrap_or_else(|| Arc::new(Fired { is_fired: AtomicBool::new(false), task: cx.waker().clone() }));
            self.fired = Some(Arc::clone(&fired));
            if Pin::new(&mut self.timer).poll(&mut Context::from_waker(&Waker::from(fired))).is_pending() {
                return Poll::Pending;
            }
            // The clock was faster than the reactor.
            self.wait_for_next_look();
        }
        Poll::Ready(())
    }
}
