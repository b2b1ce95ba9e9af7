//! The clock, so that the same code runs in real time and in the simulation.

use std::fmt::Debug;
use std::future::Future;
use std::pin::Pin;
use std::time::{Duration, Instant, SystemTime};

use crate::runtime::timer::Timer;

/// A source of time, and of timers.
pub(crate) trait Clock: Debug + Send + Sync {
    /// The current time.
    fn now(&self) -> Instant;

    /// Ready at `deadline` or a little later.
    fn sleep_until(&self, deadline: Instant) -> Sleep;

    /// The time of day, since the beginning of 1970.
    ///
    /// It may jump. So it is compared only with what another host has dated.
    fn since_epoch(&self) -> Duration;
}

/// A wait until a deadline.
pub(crate) type Sleep = Pin<Box<dyn Future<Output = ()> + Send + Sync>>;

/// The clocks of the system.
#[derive(Debug)]
pub(crate) struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Instant {
        Instant::now()
    }

    fn sleep_until(&self, deadline: Instant) -> Sleep {
        Box::pin(Timer::at(deadline))
    }

    #[expect(clippy::disallowed_methods, reason = "a date by another host's clock says when a ticket expires")]
    fn since_epoch(&self) -> Duration {
        // Before 1970 the clock is not set. Then no ticket has expired, and those with a beginning are not valid yet.
        SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
    }
}
