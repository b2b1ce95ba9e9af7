//! Time, so that the same code runs by the system's and in a simulation.

use std::fmt::Debug;
use std::future::Future;
use std::pin::Pin;
use std::time::Instant;

use crate::runtime::timer::Timer;

/// Time, and a way to wait for it.
pub(crate) trait Clock: Debug + Send + Sync {
    /// The time.
    fn now(&self) -> Instant;

    /// Ready at `deadline` or a little later.
    fn sleep_until(&self, deadline: Instant) -> Sleep;
}

/// A wait for a time.
pub(crate) type Sleep = Pin<Box<dyn Future<Output = ()> + Send + Sync>>;

/// The system's time.
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
