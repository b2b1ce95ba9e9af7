//! Runs the tasks of a worker: first come, first served, but the first one that a task wakes runs next.
//!
//! That is what a relay wants: a batch that was just read is written while it is still in the cache. With a queue alone,
//! fifty connections that are readable at once would all read before the first of their peers writes. It is a matter of
//! [a few](CHAIN) tasks: whom the last of them wakes has to queue, so that no two can keep the others from running.
//!
//! Two scheduling classes, each first in, first out:
//!
//! 1. Tasks woken by an event (a socket, a timer, a peer). All of them run once in each turn.
//! 2. Busy tasks, which woke themselves while they ran, because they have more to do. Only [a few](BUSY) run in each
//!    turn, but one at least. So a thousand clients with much to say delay a short message by a few steps, and not by a
//!    thousand.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

use async_task::{Builder, ScheduleInfo, WithInfo};
use slab::Slab;

/// Runs tasks beside each other.
pub(crate) trait Spawn {
    /// Runs this one, too, until it ends or all are dropped.
    fn spawn(&self, task: impl Future<Output = ()> + 'static);

    /// Wakes those of this share, when all are divided into so many shares: something has changed that concerns them.
    fn wake(&self, share: usize, shares: usize);

    /// Counts the turns: a task that has much to do does one step of it in each.
    fn turn(&self) -> Rc<Cell<u32>>;
}

/// A task that is ready. It knows which it is.
type Runnable = async_task::Runnable<usize>;
type Task = async_task::Task<(), usize>;

/// How many tasks run right behind one from the queue, each woken by the one before it: whoever has waited for room, who
/// then reads on, and who writes what was read.
const CHAIN: usize = 2;

/// How many busy tasks run in a turn, before the sockets are looked at again. A step takes 0.1 ms, so an event waits for
/// about a millisecond. Fewer would cost streams more system calls.
const BUSY: usize = 8;

/// The tasks of a thread. They end with it.
#[derive(Debug, Default)]
pub(crate) struct Executor {
    queue: Arc<Queue>,
    tasks: RefCell<Slab<(Task, Waker)>>,
    turn: Rc<Cell<u32>>,
}

/// Those that are ready. Any thread may wake one.
#[derive(Debug, Default)]
struct Queue(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// Woken by an event.
    ready: VecDeque<Runnable>,
    /// Woken by themselves.
    busy: VecDeque<Runnable>,
    /// The thread, if it waits for a task to be ready.
    sleeper: Option<Waker>,
}

thread_local! {
    /// The queue whose task is running, and may say what runs next.
    static RUNNING: Cell<*const Queue> = const { Cell::new(std::ptr::null()) };
    /// What runs next.
    static NEXT: Cell<Option<Runnable>> = const { Cell::new(None) };
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, runnable: Runnable, info: ScheduleInfo) {
        let mut runnable = Some(runnable);
        if !info.woken_while_running && RUNNING.get() == std::ptr::from_ref(self) {
            NEXT.set(NEXT.take().or_else(|| runnable.take()));
        }
        if let Some(runnable) = runnable {
            let mut state = self.lock();
            state.class(info.woken_while_running).push_back(runnable);
            if let Some(sleeper) = state.sleeper.take() {
                drop(state);
                sleeper.wake();
            }
        }
    }

    /// How many tasks of each class are ready, busy ones last. If there are none, the waker is woken when there is one.
    fn len(&self, waker: &Waker) -> [usize; 2] {
        let mut state = self.lock();
        let len = [state.ready.len(), state.busy.len()];
        if len == [0, 0] {
            state.sleeper = Some(waker.clone());
        }
        len
    }

    /// The task of a class that has waited longest.
    fn pop(&self, busy: bool) -> Option<Runnable> {
        self.lock().class(busy).pop_front()
    }
}

impl State {
    fn class(&mut self, busy: bool) -> &mut VecDeque<Runnable> {
        if busy { &mut self.busy } else { &mut self.ready }
    }
}

impl Executor {
    /// Runs the tasks until this future is ready. Each turn runs the tasks that an event has woken, once each, then a few
    /// busy ones; then the sockets are looked at again.
    pub(crate) async fn run(&self, until: impl Future<Output = ()>) {
        let mut until = pin!(until);
        poll_fn(|cx| {
            if until.as_mut().poll(cx).is_ready() {
                return Poll::Ready(());
            }
            self.turn.set(self.turn.get().wrapping_add(1));
            // Whatever is queued from here on has to wait for the next turn.
            let [ready, busy] = self.queue.len(cx.waker());
            self.run_class(false, ready);
            self.run_class(true, busy.min(BUSY));
            if self.queue.len(cx.waker()) != [0, 0] {
                cx.waker().wake_by_ref();
            }
            Poll::Pending
        })
        .await;
    }

    /// Runs so many tasks of a class, and behind each the tasks that it wakes.
    fn run_class(&self, busy: bool, count: usize) {
        for _ in 0..count {
            let Some(first) = self.queue.pop(busy) else { break };
            RUNNING.set(Arc::as_ptr(&self.queue));
            self.run_task(first);
            for _ in 0..CHAIN {
                let Some(next) = NEXT.take() else { break };
                self.run_task(next);
            }
            RUNNING.set(std::ptr::null());
            if let Some(next) = NEXT.take() {
                self.queue.lock().ready.push_back(next);
            }
        }
    }

    fn run_task(&self, runnable: Runnable) {
        let which = *runnable.metadata();
        runnable.run();
        let mut tasks = self.tasks.borrow_mut();
        if tasks.get(which).is_some_and(|(task, _)| task.is_finished()) {
            drop(tasks.remove(which));
        }
    }
}

impl Spawn for Executor {
    fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        let mut tasks = self.tasks.borrow_mut();
        let entry = tasks.vacant_entry();
        let queue = Arc::clone(&self.queue);
        let schedule = WithInfo(move |runnable, info| queue.push(runnable, info));
        // A panic ends its task, and whoever awaits it would hear of it. Nothing that it leaves behind is half done: what
        // tasks share are links, buffers that are free, counters, the pair table and the reactor's lists.
        let builder = Builder::new().propagate_panic(true).metadata(entry.key());
        let (runnable, task) = builder.spawn_local(|_| task, schedule);
        entry.insert((task, runnable.waker()));
        drop(tasks);
        runnable.schedule();
    }

    fn wake(&self, share: usize, shares: usize) {
        let tasks = self.tasks.borrow();
        tasks.iter().filter(|(which, _)| which % shares == share).for_each(|(_, (_, waker))| waker.wake_by_ref());
    }

    fn turn(&self) -> Rc<Cell<u32>> {
        Rc::clone(&self.turn)
    }
}

impl Drop for Executor {
    fn drop(&mut self) {
        // This cancels them, which puts those that sleep into the queue; they have to be dropped on this thread.
        let tasks = self.tasks.take();
        drop(tasks);
        for busy in [false, true] {
            while let Some(runnable) = self.queue.pop(busy) {
                drop(runnable);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::pending;
    use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
    use std::task::{Context, Wake};

    use async_channel::Sender;
    use futures_lite::future::{block_on, yield_now};
    use proptest::prelude::*;

    /// What the tasks have done, in the order in which they did it.
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

    /// A task that waits to be told, and then tells somebody else.
    fn spawn(executor: &Executor, log: &Log, name: &'static str, tells: Option<Sender<()>>) -> Sender<()> {
        let (sender, receiver) = async_channel::bounded::<()>(1);
        let log = Rc::clone(log);
        executor.spawn(async move {
            receiver.recv().await.unwrap();
            note(&log, name);
            if let Some(tells) = tells {
                tells.try_send(()).unwrap();
            }
            yield_now().await;
            note(&log, "again");
        });
        sender
    }

    #[test]
    fn whom_a_task_wakes_runs_next_but_no_more_than_two_of_them() {
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
    fn only_the_first_that_is_woken_runs_next() {
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
    fn a_task_that_is_always_ready_has_one_step_in_a_turn() {
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

    /// Spawns so many tasks that are always busy, each of which notes its steps in a log of all.
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
        run(executor, 1); // the first step of each is not by its own doing
        assert_eq!(steps.borrow_mut().drain(..).count(), count);
        steps
    }

    proptest! {
        #[test]
        fn in_each_turn_all_that_events_have_woken_run_and_a_few_busy_tasks(
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
                prop_assert_eq!(woken.take(), events, "events that waited for more than a turn");
                prop_assert_eq!(steps.borrow().len(), (turn + 1) * busy.min(BUSY));
            }
            // In order, so that the busy task that has waited longest is the next one.
            prop_assert!(steps.borrow().iter().copied().eq((0..busy).cycle().take(steps.borrow().len())));
        }
    }

    #[test]
    fn all_of_a_share_are_woken_once() {
        let (executor, log) = (Executor::default(), Log::default());
        for name in ["a", "b"] {
            let log = Rc::clone(&log);
            executor.spawn(poll_fn(move |_| {
                note(&log, name);
                Poll::Pending
            }));
        }
        run(&executor, 1);
        executor.wake(0, 1);
        executor.wake(0, 1);
        run(&executor, 2);
        assert_eq!(log.borrow()[..], ["a", "b", "a", "b"]);
        executor.wake(1, 2);
        run(&executor, 2);
        assert_eq!(log.borrow()[4..], ["b"]);
    }

    #[test]
    fn a_panic_ends_its_task_alone() {
        let (executor, log) = (Executor::default(), Log::default());
        executor.spawn(async { panic!("a bug") });
        let other = spawn(&executor, &log, "other", None);
        other.try_send(()).unwrap();
        run(&executor, 2);
        assert_eq!(log.borrow()[..], ["other", "again"]);
        assert!(executor.tasks.borrow().is_empty(), "tasks that have ended are forgotten");
    }

    /// Whether the thread of an executor was woken.
    #[derive(Default)]
    struct Notifier(AtomicBool);

    impl Wake for Notifier {
        fn wake(self: Arc<Self>) {
            self.0.store(true, SeqCst);
        }
    }

    #[test]
    fn another_thread_can_wake_a_task_and_the_executor_with_it() {
        let (executor, log, notifier) = (Executor::default(), Log::default(), Arc::new(Notifier::default()));
        let told = spawn(&executor, &log, "told", None);
        let waker = Waker::from(Arc::clone(&notifier));
        let mut running = pin!(executor.run(pending()));
        let mut poll = || assert!(running.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        poll();
        assert!(!notifier.0.load(SeqCst), "there is nothing to do");
        std::thread::spawn(move || told.try_send(()).unwrap()).join().unwrap();
        assert!(notifier.0.load(SeqCst), "the executor sleeps on");
        poll();
        poll();
        assert_eq!(log.borrow()[..], ["told", "again"]);
    }

    #[test]
    fn what_tasks_hold_is_dropped_with_the_executor() {
        let executor = Executor::default();
        let held = Rc::new(());
        for waits in [true, false] {
            let held = Rc::clone(&held);
            executor.spawn(async move {
                if waits {
                    pending::<()>().await;
                }
                yield_now().await;
                drop(held);
            });
            run(&executor, 0);
        }
        // One waits, and one is ready, with a waker of its own elsewhere.
        let (sender, receiver) = async_channel::bounded::<()>(1);
        let also = Rc::clone(&held);
        executor.spawn(async move {
            let _ = receiver.recv().await;
            drop(also);
        });
        run(&executor, 1);
        sender.try_send(()).unwrap();
        drop(executor);
        assert_eq!(Rc::strong_count(&held), 1);
        let _ = sender.try_send(());
    }
}
