//! A scheduler that a seed decides, and a clock that stands still while anything can be done.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use crate::transport::{Clock, Sleep};

/// A generator that is the same everywhere: a failing seed must replay exactly (xorshift64*, Vigna 2016).
#[derive(Clone, Debug)]
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        // Neighbouring seeds must not resemble each other, and zero would stay zero.
        let mut random = Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0xD1B5_4A32_D192_ED03);
        random.below(2);
        random
    }

    /// A number from 0 up to `bound`, which is excluded.
    pub(super) fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        ((self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize) % bound
    }

    /// True once in `times`.
    pub(super) fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }
}

type Task = Pin<Box<dyn Future<Output = ()>>>;

/// Tasks, any of which may run next.
#[derive(Default)]
pub(super) struct Executor {
    tasks: RefCell<BTreeMap<usize, Task>>,
    next: RefCell<usize>,
    runnable: Arc<Mutex<BTreeSet<usize>>>,
}

struct TaskWaker {
    task: usize,
    runnable: Arc<Mutex<BTreeSet<usize>>>,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.runnable.lock().unwrap().insert(self.task);
    }
}

impl Executor {
    pub(super) fn spawn(&self, future: impl Future<Output = ()> + 'static) {
        let task = self.next.replace_with(|next| *next + 1);
        self.tasks.borrow_mut().insert(task, Box::pin(future));
        self.runnable.lock().unwrap().insert(task);
    }

    /// How many tasks could run.
    pub(super) fn runnable(&self) -> usize {
        self.runnable.lock().unwrap().len()
    }

    /// How many tasks there are.
    pub(super) fn tasks(&self) -> usize {
        self.tasks.borrow().len()
    }

    /// Runs one of those that could, for one step.
    pub(super) fn run(&self, nth: usize) {
        let task = {
            let mut runnable = self.runnable.lock().unwrap();
            let task = *runnable.iter().nth(nth).unwrap();
            runnable.remove(&task);
            task
        };
        // It is taken out meanwhile, so that it may spawn others.
        let Some(mut future) = self.tasks.borrow_mut().remove(&task) else { return };
        let waker = Waker::from(Arc::new(TaskWaker { task, runnable: Arc::clone(&self.runnable) }));
        if future.as_mut().poll(&mut Context::from_waker(&waker)).is_pending() {
            self.tasks.borrow_mut().insert(task, future);
        }
    }
}

/// A clock that is set by hand.
#[derive(Debug)]
pub(super) struct SimulatedClock(Arc<Mutex<Time>>);

#[derive(Debug)]
struct Time {
    now: Instant,
    sleepers: BTreeMap<(Instant, usize), Waker>,
    issued: usize,
}

impl SimulatedClock {
    pub(super) fn new() -> Self {
        Self(Arc::new(Mutex::new(Time { now: Instant::now(), sleepers: BTreeMap::new(), issued: 0 })))
    }

    /// Goes to the next time that anybody waits for, up to `limit` from now. False if there is none.
    pub(super) fn advance(&self, limit: Duration) -> bool {
        let mut time = self.0.lock().unwrap();
        match time.sleepers.first_key_value() {
            Some((&(deadline, _), _)) if deadline <= time.now + limit => {
                time.now = deadline.max(time.now);
                let now = time.now;
                let later = time.sleepers.split_off(&(now, usize::MAX));
                let due = std::mem::replace(&mut time.sleepers, later);
                drop(time);
                due.into_values().for_each(Waker::wake);
                true
            }
            _ => false,
        }
    }
}

impl Clock for SimulatedClock {
    fn now(&self) -> Instant {
        self.0.lock().unwrap().now
    }

    fn sleep_until(&self, deadline: Instant) -> Sleep {
        /// Takes the sleeper out when the sleep is dropped: nobody waits for it any more.
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
}

/// Waits for a while.
pub(super) async fn sleep(clock: &Rc<dyn Clock>, duration: Duration) {
    clock.sleep_until(clock.now() + duration).await;
}
