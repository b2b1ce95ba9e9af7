//! The executor of a worker. Other threads wake its tasks.

use std::cell::Cell;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;

use futures_lite::future::yield_now;
use shuttle::thread;

use super::{Signal, block_on, check};
use crate::runtime::executor::Executor;
use crate::runtime::spawn::Spawn;

/// Tasks are woken while the executor runs others, and while it falls asleep.
#[test]
fn no_wake_up_of_a_task_is_lost() {
    check(|| {
        let signals = [(); 3].map(|()| Arc::new(Signal::default()));
        let others = signals.each_ref().map(|signal| {
            let signal = Arc::clone(signal);
            thread::spawn(move || signal.give())
        });
        let executor = Executor::default();
        let (left, all) = (Rc::new(Cell::new(signals.len())), Arc::new(Signal::default()));
        for signal in signals {
            let (left, all) = (Rc::clone(&left), Arc::clone(&all));
            executor.spawn(async move {
                poll_fn(|cx| signal.poll(cx)).await;
                left.set(left.get() - 1);
                if left.get() == 0 {
                    all.give();
                }
            });
        }
        block_on(executor.run(poll_fn(|cx| all.poll(cx))));
        others.into_iter().for_each(|other| other.join().unwrap());
    });
}

/// The future beside the tasks is polled only when it is woken.
///
/// Other threads do so, while a task is busy or none is.
#[test]
fn no_wake_up_of_the_future_beside_the_tasks_is_lost() {
    check(|| {
        let signals = [(); 2].map(|()| Arc::new(Signal::default()));
        let others = signals.each_ref().map(|signal| {
            let signal = Arc::clone(signal);
            thread::spawn(move || signal.give())
        });
        let executor = Executor::default();
        executor.spawn(async {
            yield_now().await;
            yield_now().await;
        });
        let [first, second] = &signals;
        block_on(executor.run(async {
            poll_fn(|cx| first.poll(cx)).await;
            poll_fn(|cx| second.poll(cx)).await;
        }));
        others.into_iter().for_each(|other| other.join().unwrap());
    });
}

/// Tasks that wait for another thread are dropped with the executor, while that thread wakes them.
#[test]
fn tasks_are_dropped_while_they_are_woken() {
    check(|| {
        let (signal, task) = (Arc::new(Signal::default()), Arc::new(()));
        let other = {
            let signal = Arc::clone(&signal);
            thread::spawn(move || signal.give())
        };
        let executor = Executor::default();
        for held in [Arc::clone(&task), Arc::clone(&task)] {
            let signal = Arc::clone(&signal);
            executor.spawn(async move {
                poll_fn(|cx| signal.poll(cx)).await;
                drop(held);
            });
        }
        block_on(executor.run(yield_now()));
        drop(executor);
        assert_eq!(Arc::strong_count(&task), 1, "a task outlives its executor");
        other.join().unwrap();
    });
}
