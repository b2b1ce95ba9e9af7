//! The executor of a worker: FIFO queues with a LIFO slot.
//!
//! **LIFO slot.** The first task woken by the running task runs next. So a batch that was just read is written while it
//! is still in the cache. With a queue alone, fifty connections that are readable at once would all read before the
//! first of their peers writes. A chain of such tasks has a [bound](CHAIN): the task woken by the last of them queues,
//! so that no two tasks can keep the others from running.
//!
//! **Two scheduling classes**, each a FIFO queue:
//!
//! 1. Tasks woken by an event (a socket, a timer, a peer). All of them run once in each turn.
//! 2. Busy tasks, which woke themselves while they ran, because they have more to do. Only a [few](BUSY) run in each
//!    turn, but one at least. So a thousand busy connections delay a short message by a few steps and not by a
//!    thousand.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use async_task::{Builder, ScheduleInfo, WithInfo};
use slab::Slab;

use crate::runtime::spawn::Spawn;
use crate::runtime::sync::atomic::{
    AtomicBool,
    Ordering::{AcqRel, Acquire, Release},
};
use crate::runtime::sync::{Mutex, thread, thread_local, with_lock};

/// A task that is ready.
type Runnable = async_task::Runnable<Home>;
type Task = async_task::Task<(), Home>;

/// The executor that a task belongs to.
#[derive(Debug)]
struct Home {
    remote: Arc<RemoteQueue>,
    /// The task's key in the slab.
    key: usize,
}

/// The most tasks that run through the LIFO slot behind one task from a queue.
///
/// Two are enough for a relayed stream: a connection with room again wakes its peer, which reads on, and that wakes the
/// connection that writes the batch.
const CHAIN: usize = 2;

/// The most busy tasks that run in a turn, before the reactor looks at the sockets again.
///
/// A step takes 0.1 ms, so an event waits for about a millisecond. Fewer would cost streams more system calls.
const BUSY: usize = 8;

/// The tasks of a thread. They end with the executor.
#[derive(Debug, Default)]
pub(crate) struct Executor {
    queue: Rc<Queue>,
    tasks: RefCell<Slab<(Task, Waker)>>,
    turn: Rc<Cell<u32>>,
}

/// The run queue of the executor's thread, without a lock.
#[derive(Debug, Default)]
struct Queue {
    /// Tasks woken by an event.
    ready: RefCell<VecDeque<Runnable>>,
    /// Tasks that woke themselves.
    busy: RefCell<VecDeque<Runnable>>,
    /// The LIFO slot: the task that runs next.
    next: RefCell<Option<Runnable>>,
    /// Whether a task runs, which may fill the LIFO slot.
    runs: Cell<bool>,
    /// Whether the executor will look at its queue anyway: it is at work, or was woken.
    is_awake: Cell<bool>,
    /// The waker of the executor's thread.
    waker: RefCell<Option<Waker>>,
    remote: Arc<RemoteQueue>,
}

/// The tasks that other threads have woken.
#[derive(Debug, Default)]
struct RemoteQueue {
    /// Whether there are any. It changes under the mutex.
    is_filled: AtomicBool,
    woken: Mutex<Woken>,
}

#[derive(Debug, Default)]
struct Woken {
    tasks: Vec<(Runnable, ScheduleInfo)>,
    /// The waker of the executor's thread.
    waker: Option<Waker>,
}

/// The waker of the future that [`Executor::run`] runs beside the tasks.
struct UntilWaker {
    is_woken: AtomicBool,
    thread: Waker,
}

impl UntilWaker {
    /// A waker of a future that was never polled.
    fn new(thread: &Waker) -> Arc<Self> {
        Arc::new(Self { is_woken: AtomicBool::new(true), thread: thread.clone() })
    }

    /// Whether the future was woken since the last call.
    fn take(&self) -> bool {
        // A turn without a wake-up writes nothing.
        self.is_woken.load(Acquire) && self.is_woken.swap(false, AcqRel)
    }
}

impl Wake for UntilWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // Not a store: the poll behind it sees what was written before each of several wake-ups.
        self.is_woken.swap(true, AcqRel);
        self.thread.wake_by_ref();
    }
}

thread_local! {
    /// The queue of the executor that runs on this thread.
    static LOCAL: RefCell<Option<Rc<Queue>>> = const { RefCell::new(None) };
}

/// Queues a task that was woken.
///
/// It captures nothing. Otherwise, async-task would count a reference for it whenever a task is woken.
fn schedule(runnable: Runnable, info: ScheduleInfo) {
    let mut runnable = Some(runnable);
    let _ = LOCAL.try_with(|local| {
        if let Some(queue) = &*local.borrow()
            && let Some(runnable) = runnable.take_if(|it| Arc::ptr_eq(&queue.remote, &it.metadata().remote))
        {
            queue.push(runnable, info);
        }
    });
    if let Some(runnable) = runnable {
        let remote = Arc::clone(&runnable.metadata().remote);
        remote.push(runnable, info);
    }
}

impl Queue {
    /// Queues a task that was woken on this thread.
    fn push(&self, runnable: Runnable, info: ScheduleInfo) {
        if !info.woken_while_running && self.runs.get() && self.next.borrow().is_none() {
            self.next.replace(Some(runnable));
        } else {
            self.class(info.woken_while_running).borrow_mut().push_back(runnable);
        }
        if !self.is_awake.replace(true)
            && let Some(waker) = &*self.waker.borrow()
        {
            waker.wake_by_ref();
        }
    }

    fn class(&self, busy: bool) -> &RefCell<VecDeque<Runnable>> {
        if busy { &self.busy } else { &self.ready }
    }

    /// The number of ready tasks of each class, busy ones last.
    fn len(&self) -> [usize; 2] {
        [false, true].map(|busy| self.class(busy).borrow().len())
    }

    /// The task of a class that has waited longest.
    fn pop(&self, busy: bool) -> Option<Runnable> {
        self.class(busy).borrow_mut().pop_front()
    }

    /// Takes the tasks that other threads have woken. From now on, they wake this waker.
    fn take_remote(&self, waker: &Waker) {
        if !self.waker.borrow().as_ref().is_some_and(|previous| previous.will_wake(waker)) {
            let _previous = self.waker.replace(Some(waker.clone()));
            let _previous = with_lock(&self.remote.woken, |woken| woken.waker.replace(waker.clone()));
        }
        if self.remote.is_filled.load(Acquire) {
            for (runnable, info) in self.remote.take() {
                self.class(info.woken_while_running).borrow_mut().push_back(runnable);
            }
        }
    }
}

impl RemoteQueue {
    /// Queues a task that was woken on another thread, and wakes the executor's.
    fn push(&self, runnable: Runnable, info: ScheduleInfo) {
        let waker = with_lock(&self.woken, |woken| {
            woken.tasks.push((runnable, info));
            self.is_filled.store(true, Release);
            woken.waker.clone()
        });
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn take(&self) -> Vec<(Runnable, ScheduleInfo)> {
        with_lock(&self.woken, |woken| {
            self.is_filled.store(false, Release);
            std::mem::take(&mut woken.tasks)
        })
    }
}

impl Executor {
    /// Runs the tasks until this future is ready.
    ///
    /// Each turn runs the tasks that an event has woken, once each, and then a few busy ones. Then the reactor looks at
    /// the sockets again.
    ///
    /// The future is polled only when it was woken, and then first in a turn.
    pub(crate) async fn run(&self, until: impl Future<Output = ()>) {
        let mut until = pin!(until);
        let mut until_waker = None;
        poll_fn(|cx| {
            self.enter();
            self.queue.is_awake.set(true);
            let woken = until_waker.get_or_insert_with(|| UntilWaker::new(cx.waker()));
            if woken.take() && until.as_mut().poll(&mut Context::from_waker(&Waker::from(Arc::clone(woken)))).is_ready()
            {
                return Poll::Ready(());
            }
            self.turn.set(self.turn.get().wrapping_add(1));
            self.queue.take_remote(cx.waker());
            // Tasks that are queued from here on wait for the next turn.
            let [ready, busy] = self.queue.len();
            self.run_class(false, ready);
            self.run_class(true, busy.min(BUSY));
            let is_awake = self.queue.len() != [0, 0];
            self.queue.is_awake.set(is_awake);
            if is_awake {
                cx.waker().wake_by_ref();
            }
            Poll::Pending
        })
        .await;
    }

    /// Makes this the executor of the thread.
    fn enter(&self) {
        let is_local = LOCAL.with(|local| local.borrow().as_ref().is_some_and(|local| Rc::ptr_eq(local, &self.queue)));
        if !is_local {
            let _previous = LOCAL.with(|local| local.replace(Some(Rc::clone(&self.queue))));
        }
    }

    /// Runs `count` tasks of a class, and behind each the tasks in the LIFO slot.
    fn run_class(&self, busy: bool, count: usize) {
        for _ in 0..count {
            let Some(first) = self.queue.pop(busy) else { break };
            self.queue.runs.set(true);
            self.run_task(first);
            for _ in 0..CHAIN {
                let Some(next) = self.queue.next.take() else { break };
                self.run_task(next);
            }
            self.queue.runs.set(false);
            if let Some(next) = self.queue.next.take() {
                self.queue.ready.borrow_mut().push_back(next);
            }
        }
    }

    /// Drops the tasks that are queued, and returns their number.
    fn drop_queued(&self) -> usize {
        let woken = self.queue.remote.take();
        let next = self.queue.next.take();
        let queued = [false, true].map(|busy| self.queue.class(busy).take());
        woken.len() + usize::from(next.is_some()) + queued.iter().map(VecDeque::len).sum::<usize>()
    }

    fn run_task(&self, runnable: Runnable) {
        let key = runnable.metadata().key;
        runnable.run();
        let mut tasks = self.tasks.borrow_mut();
        if tasks.get(key).is_some_and(|(task, _)| task.is_finished()) {
            drop(tasks.remove(key));
        }
    }
}

impl Spawn for Executor {
    fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        let mut tasks = self.tasks.borrow_mut();
        let entry = tasks.vacant_entry();
        let home = Home { remote: Arc::clone(&self.queue.remote), key: entry.key() };
        // A panic ends its task alone. It leaves nothing half done: tasks share links, free buffers, counters, the pair
        // table and the reactor's lists.
        let builder = Builder::new().propagate_panic(true).metadata(home);
        let (runnable, task) = builder.spawn_local(|_| task, WithInfo(schedule));
        entry.insert((task, runnable.waker()));
        drop(tasks);
        runnable.schedule();
    }

    fn wake(&self, share: usize, shares: usize) {
        let tasks = self.tasks.borrow();
        tasks.iter().filter(|(key, _)| key % shares == share).for_each(|(_, (_, waker))| waker.wake_by_ref());
    }

    fn turn(&self) -> Rc<Cell<u32>> {
        Rc::clone(&self.turn)
    }
}

impl Drop for Executor {
    fn drop(&mut self) {
        // This cancels all tasks, and queues those that no wake-up has queued. They have to be dropped on this thread.
        let tasks = self.tasks.take();
        let mut left = tasks.len();
        drop(tasks);
        while left > 0 {
            let dropped = self.drop_queued();
            left = left.saturating_sub(dropped);
            if dropped == 0 {
                // Another thread is waking the rest, and has not queued them yet.
                thread::yield_now();
            }
        }
        let _ = LOCAL.try_with(|local| {
            let _queue = local.borrow_mut().take_if(|local| Rc::ptr_eq(local, &self.queue));
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::pending;

    use async_channel::Sender;
    use futures_lite::future::{block_on, yield_now};
    use proptest::prelude::*;

    /// The steps of the tasks, in order.
    type Log = Rc<RefCell<Vec<&'static str>>>;

    fn note(log: &Log, what: &'static str) {
        log.borrow_mut().push(what);
    }

    fn run(executor: &Executor, turns: usize) {
        block_on(executor.run(async move {
            for _ in 0..turns {
                yield_now().await;
            }
        }));
    }

    /// Spawns a task that waits for a message and then wakes another task. Returns its sender.
    fn spawn(executor: &Executor, log: &Log, name: &'static str, wakes: Option<Sender<()>>) -> Sender<()> {
        let (sender, receiver) = async_channel::bounded::<()>(1);
        let log = Rc::clone(log);
        executor.spawn(async move {
            receiver.recv().await.unwrap();
            note(&log, name);
            if let Some(wakes) = wakes {
                wakes.try_send(()).unwrap();
            }
            yield_now().await;
            note(&log, "again");
        });
        sender
    }

    #[test]
    fn woken_tasks_run_next_in_a_chain_of_two_at_most() {
        let (executor, log) = (Executor::default(), Log::default());
        let fourth = spawn(&executor, &log, "fourth", None);
        let third = spawn(&executor, &log, "third", Some(fourth));
        let second = spawn(&executor, &log, "second", Some(third));
        let first = spawn(&executor, &log, "first", Some(second));
        let other = spawn(&executor, &log, "other", None);
        run(&executor, 1); // they wait
        first.try_send(()).unwrap();
        other.try_send(()).unwrap();
        run(&executor, 2);
        assert_eq!(log.borrow()[..5], ["first", "second", "third", "other", "fourth"]);
        assert_eq!(log.borrow()[5..], ["again"; 4]);
    }

    #[test]
    fn only_the_first_woken_task_runs_next() {
        let (executor, log) = (Executor::default(), Log::default());
        let woken = ["a", "b"].map(|name| spawn(&executor, &log, name, None));
        let other = spawn(&executor, &log, "other", None);
        run(&executor, 1);
        executor.spawn(async move { woken.iter().for_each(|woken| woken.try_send(()).unwrap()) });
        other.try_send(()).unwrap();
        run(&executor, 2);
        assert_eq!(log.borrow()[..3], ["a", "other", "b"]);
    }

    #[test]
    fn the_future_beside_the_tasks_is_polled_when_it_is_woken_and_not_in_each_turn() {
        let (executor, polls) = (Executor::default(), Cell::new(0));
        let (sender, receiver) = async_channel::bounded(1);
        executor.spawn(async move {
            for _ in 0..10 {
                yield_now().await;
            }
            sender.try_send(()).unwrap();
            pending::<()>().await;
        });
        block_on(executor.run(async {
            let mut end = pin!(receiver.recv());
            poll_fn(|cx| {
                polls.set(polls.get() + 1);
                end.as_mut().poll(cx)
            })
            .await
            .unwrap();
        }));
        assert_eq!((polls.get(), executor.turn.get()), (2, 11));
    }

    #[test]
    fn a_busy_task_takes_one_step_in_a_turn() {
        let (executor, steps) = (Executor::default(), Rc::new(Cell::new(0)));
        let counted = Rc::clone(&steps);
        executor.spawn(async move {
            loop {
                counted.set(counted.get() + 1);
                yield_now().await;
            }
        });
        run(&executor, 3);
        assert_eq!(steps.get(), 3);
    }

    /// Spawns `count` tasks that are always busy. Each notes its steps in a common log.
    fn spawn_busy(executor: &Executor, count: usize) -> Rc<RefCell<Vec<usize>>> {
        let steps = Rc::new(RefCell::new(Vec::new()));
        for task in 0..count {
            let steps = Rc::clone(&steps);
            executor.spawn(async move {
                loop {
                    steps.borrow_mut().push(task);
                    yield_now().await;
                }
            });
        }
        run(executor, 1); // the first step of each follows from its spawn
        assert_eq!(steps.borrow_mut().drain(..).count(), count);
        steps
    }

    proptest! {
        #[test]
        fn a_turn_runs_all_tasks_woken_by_events_and_a_few_busy_ones(
            busy in 0..100_usize,
            events in prop::collection::vec(0..100_usize, 1..20),
        ) {
            let (executor, woken) = (Executor::default(), Rc::new(Cell::new(0)));
            let senders = [(); 100].map(|()| {
                let (sender, receiver) = async_channel::bounded::<()>(1);
                let woken = Rc::clone(&woken);
                executor.spawn(async move {
                    while receiver.recv().await.is_ok() {
                        woken.set(woken.get() + 1);
                    }
                });
                sender
            });
            run(&executor, 1);
            let steps = spawn_busy(&executor, busy);
            for (turn, &events) in events.iter().enumerate() {
                senders[..events].iter().for_each(|sender| sender.try_send(()).unwrap());
                run(&executor, 1);
                prop_assert_eq!(woken.take(), events, "an event waited for more than a turn");
                prop_assert_eq!(steps.borrow().len(), (turn + 1) * busy.min(BUSY));
            }
            // In order: the busy task that has waited longest is next.
            prop_assert!(steps.borrow().iter().copied().eq((0..busy).cycle().take(steps.borrow().len())));
        }
    }

    #[test]
    fn a_panic_ends_only_its_task() {
        let (executor, log) = (Executor::default(), Log::default());
        executor.spawn(async { panic!("a bug") });
        let other = spawn(&executor, &log, "other", None);
        other.try_send(()).unwrap();
        run(&executor, 2);
        assert_eq!(log.borrow()[..], ["other", "again"]);
        assert!(executor.tasks.borrow().is_empty(), "tasks that have ended are removed");
    }
}
