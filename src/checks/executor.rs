//! The executor of a worker. Other threads wake its tasks.

use std::cell::Cell;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;

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
