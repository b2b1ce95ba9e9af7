//! A manual clock: it stands still while anything can run.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use super::trace;
use crate::runtime::clock::{Clock, Sleep};

/// When a simulation begins, since 1970.
const BEGAN: Duration = Duration::from_secs(1_800_000_000);

/// A clock that tests advance by hand.
#[derive(Debug)]
pub(super) struct SimulatedClock(Arc<Mutex<Time>>);

#[derive(Debug)]
struct Time {
    began: Instant,
    now: Instant,
    sleepers: BTreeMap<(Instant, usize), Waker>,
    issued: usize,
}

impl SimulatedClock {
    pub(super) fn new() -> Self {
        let now = Instant::now();
        Self(Arc::new(Mutex::new(Time { began: now, now, sleepers: BTreeMap::new(), issued: 0 })))
    }

    /// Advances to the next deadline, up to `limit` from now. Returns false if there is none.
    pub(super) fn advance(&self, limit: Duration) -> bool {
        let mut time = self.0.lock().unwrap();
        match time.sleepers.first_key_value() {
            Some((&(deadline, _), _)) if deadline <= time.now + limit => {
                time.now = deadline.max(time.now);
                let now = time.now;
                trace::at(now);
                let later = time.sleepers.split_off(&(now, usize::MAX));
                let due = std::mem::replace(&mut time.sleepers, later);
                drop(time);
                due.into_values().for_each(Waker::wake);
                true
            }
            _ => false,
        }
    }

    /// Sets the clock to a time before the next deadline.
    pub(super) fn set(&self, now: Instant) {
        self.0.lock().unwrap().now = now;
        trace::at(now);
    }
}

impl Clock for SimulatedClock {
    fn now(&self) -> Instant {
        self.0.lock().unwrap().now
    }

    fn sleep_until(&self, deadline: Instant) -> Sleep {
        /// Removes the sleeper when its sleep is dropped.
        struct Sleeper(Arc<Mutex<Time>>, (Instant, usize));
        impl Drop for Sleeper {
            fn drop(&mut self) {
                self.0.lock().unwrap().sleepers.remove(&self.1);
            }
        }
        let mut time = self.0.lock().unwrap();
        time.issued += 1;
        let sleeper = Sleeper(Arc::clone(&self.0), (deadline, time.issued));
        Box::pin(poll_fn(move |cx| {
            let mut time = sleeper.0.lock().unwrap();
            if time.now >= deadline {
                return Poll::Ready(());
            }
            time.sleepers.insert(sleeper.1, cx.waker().clone());
            Poll::Pending
        }))
    }

    fn since_epoch(&self) -> Duration {
        let time = self.0.lock().unwrap();
        BEGAN + (time.now - time.began)
    }
}

/// Sleeps for this duration.
pub(super) async fn sleep(clock: &Arc<dyn Clock>, duration: Duration) {
    clock.sleep_until(clock.now() + duration).await;
}
