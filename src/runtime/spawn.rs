//! The trait of executors, so that the same tasks run on threads and in the simulation.

use std::cell::Cell;
use std::future::Future;
use std::rc::Rc;

/// Spawns and wakes tasks.
pub(crate) trait Spawn {
    /// Spawns a task, which runs until it ends or the executor is dropped.
    fn spawn(&self, task: impl Future<Output = ()> + 'static);

    /// Wakes the tasks of one share, if all tasks are divided into `shares`.
    fn wake(&self, share: usize, shares: usize);

    /// The counter of turns. A busy task takes one step in each.
    fn turn(&self) -> Rc<Cell<u32>>;
}
