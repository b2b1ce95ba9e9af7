//! A scheduler under the control of a seed.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::task::{Context, Wake, Waker};

use super::trace::trace;
use crate::runtime::spawn::Spawn;

/// A portable random number generator (xorshift64*, Vigna 2016).
///
/// A failing seed must replay exactly on every machine.
#[derive(Clone, Debug)]
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        // Neighbouring seeds must not resemble each other, and zero would stay zero.
        let mut random = Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0xD1B5_4A32_D192_ED03);
        random.below(2);
        random
    }

    /// A generator for one task, independent of all others.
    ///
    /// One client's choices must not change the other clients' choices.
    pub(super) fn split(&mut self) -> Self {
        Self::new(self.below(usize::MAX >> 34) as u64)
    }

    /// A number from 0 up to `bound`, exclusive.
    pub(super) fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        ((self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize) % bound
    }

    /// True once in `times` calls, on average.
    pub(super) fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }
}

/// Steps per turn. A task may run in none of them, or in all.
const STEPS: u32 = 4;

/// A task's kind, and the number of its client or worker.
pub(super) type Name = (&'static str, usize);

struct Task {
    name: Name,
    future: Pin<Box<dyn Future<Output = ()>>>,
}

/// An executor that runs any runnable task next.
#[derive(Default)]
pub(super) struct Executor {
    tasks: RefCell<BTreeMap<usize, Task>>,
    next: RefCell<usize>,
    runnable: Arc<Mutex<BTreeSet<usize>>>,
    steps: Cell<u32>,
    turn: Rc<Cell<u32>>,
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
    pub(super) fn spawn(&self, name: Name, future: impl Future<Output = ()> + 'static) -> usize {
        let id = self.next.replace_with(|next| *next + 1);
        self.tasks.borrow_mut().insert(id, Task { name, future: Box::pin(future) });
        self.runnable.lock().unwrap().insert(id);
        id
    }

    /// The number of runnable tasks.
    pub(super) fn runnable(&self) -> usize {
        self.runnable.lock().unwrap().len()
    }

    /// The names of all live tasks.
    pub(super) fn tasks(&self) -> Vec<Name> {
        self.tasks.borrow().values().map(|task| task.name).collect()
    }

    /// Runs the `nth` runnable task for one step.
    pub(super) fn run(&self, nth: usize) {
        self.steps.set(self.steps.get() + 1);
        self.turn.set(self.steps.get() / STEPS);
        let id = {
            let mut runnable = self.runnable.lock().unwrap();
            let id = *runnable.iter().nth(nth).unwrap();
            runnable.remove(&id);
            id
        };
        // The task is taken out while it runs, because it may spawn others.
        let Some(mut task) = self.tasks.borrow_mut().remove(&id) else { return };
        trace(|| format!("task {id}, {} {}", task.name.0, task.name.1));
        let waker = Waker::from(Arc::new(TaskWaker { task: id, runnable: Arc::clone(&self.runnable) }));
        if task.future.as_mut().poll(&mut Context::from_waker(&waker)).is_pending() {
            self.tasks.borrow_mut().insert(id, task);
        }
    }

    fn cancel(&self, id: usize) {
        let task = self.tasks.borrow_mut().remove(&id);
        drop(task); // its wake-ups may borrow the tasks
    }
}

/// The tasks of one worker. They end with it.
pub(super) struct Tasks {
    pub(super) executor: Rc<Executor>,
    pub(super) worker: usize,
    pub(super) spawned: RefCell<Vec<usize>>,
}

impl Spawn for Tasks {
    fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        let id = self.executor.spawn(("connection on worker", self.worker), task);
        self.spawned.borrow_mut().push(id);
    }

    fn wake(&self, share: usize, shares: usize) {
        let tasks = self.executor.tasks.borrow();
        let is_meant = |id: &usize| id % shares == share && tasks.contains_key(id);
        let there = self.spawned.borrow().iter().copied().filter(is_meant).collect::<Vec<_>>();
        self.executor.runnable.lock().unwrap().extend(there);
    }

    fn turn(&self) -> Rc<Cell<u32>> {
        Rc::clone(&self.executor.turn)
    }
}

impl Drop for Tasks {
    fn drop(&mut self) {
        for id in self.spawned.take() {
            self.executor.cancel(id);
        }
    }
}
