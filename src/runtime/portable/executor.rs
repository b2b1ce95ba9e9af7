//! The executor of a worker: smol's, cut into turns.
//!
//! A turn runs all tasks that are ready when it begins, once each, in the order in which they were woken. Then the
//! reactor looks at the sockets. Its counterpart, `linux/executor.rs`, runs some tasks earlier and some later.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::{Poll, Waker};

use slab::Slab;
use smol::LocalExecutor;

use crate::runtime::spawn::Spawn;

/// The wakers of all tasks. A task that has not run yet has none.
type Wakers = Rc<RefCell<Slab<Option<Waker>>>>;

/// The tasks of a thread. They end with the executor.
#[derive(Default)]
pub(crate) struct Executor {
    tasks: LocalExecutor<'static>,
    wakers: Wakers,
    turn: Rc<Cell<u32>>,
}

impl fmt::Debug for Executor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Executor").field("tasks", &self.wakers.borrow().len()).finish_non_exhaustive()
    }
}

impl Executor {
    /// Runs the tasks until this future is ready.
    pub(crate) async fn run(&self, until: impl Future<Output = ()>) {
        let mut until = pin!(until);
        // Waits until a task is ready, and runs it.
        let mut first = pin!(self.tasks.tick());
        poll_fn(|cx| {
            if until.as_mut().poll(cx).is_ready() {
                return Poll::Ready(());
            }
            // A tick that sleeps would be woken by each task of this turn, and the thread with it.
            first.set(self.tasks.tick());
            self.run_turn();
            // If a task was woken meanwhile, the first one begins the next turn.
            self.turn.set(self.turn.get().wrapping_add(1));
            if first.as_mut().poll(cx).is_ready() {
                cx.waker().wake_by_ref();
            }
            Poll::Pending
        })
        .await;
    }

    /// Runs the tasks that are ready now. Tasks that they wake wait for the next turn.
    fn run_turn(&self) {
        self.turn.set(self.turn.get().wrapping_add(1));
        // The queue tells no length, but its order is that of the wake-ups.
        let is_over = Rc::new(Cell::new(false));
        let last = Rc::clone(&is_over);
        self.tasks.spawn(async move { last.set(true) }).detach();
        while !is_over.get() && self.tasks.try_tick() {}
    }
}

impl Spawn for Executor {
    fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        let entry = Entry { key: self.wakers.borrow_mut().insert(None), wakers: Rc::clone(&self.wakers) };
        let mut task = Box::pin(task);
        // A panic ends its task alone: smol keeps it for the task's owner, and there is none.
        let task = poll_fn(move |cx| {
            entry.keep(cx.waker());
            task.as_mut().poll(cx)
        });
        self.tasks.spawn(task).detach();
    }

    fn wake(&self, share: usize, shares: usize) {
        let wakers = self.wakers.borrow();
        let wakers = wakers.iter().filter(|(key, _)| key % shares == share).filter_map(|(_, waker)| waker.as_ref());
        wakers.for_each(Waker::wake_by_ref);
    }

    fn turn(&self) -> Rc<Cell<u32>> {
        Rc::clone(&self.turn)
    }
}

/// A task's place among the wakers, until the task is dropped.
struct Entry {
    wakers: Wakers,
    key: usize,
}

impl Entry {
    /// Keeps the waker of the task, which is the same in each of its steps.
    fn keep(&self, waker: &Waker) {
        self.wakers.borrow_mut()[self.key].get_or_insert_with(|| waker.clone());
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let waker = self.wakers.borrow_mut().remove(self.key);
        drop(waker); // after the borrow
    }
}
