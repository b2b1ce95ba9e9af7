//! The clock, so that the same code runs in real time and in the simulation.

use std::fmt::Debug;
use std::future::Future;
use std::pin::Pin;
use std::time::Instant;

use crate::runtime::timer::Timer;

/// A source of time, and of timers.
pub(crate) trait Clock: Debug + Send + Sync {
    /// The current time.
    fn now(&self) -> Instant;

    /// Ready at `deadline` or a little later.
    fn sleep_until(&self, deadline: Instant) -> Sleep;
}

/// A wait until a deadline.
pub(crate) type Sleep = Pin<Box<dyn Future<Output = ()> + Send + Sync>>;

/// The system's monotonic clock.
#[derive(Debug)]
pub(crate) struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Instant {
        Instant::now()
    }

    fn sleep_until(&self, deadline: Instant) -> Sleep {
        Box::pin(Timer::at(deadline))
    }
}
