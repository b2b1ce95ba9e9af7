//! The memory budget of all buffers together.
//!
//! The smallest buffers are not counted: every connection may have one.
//!
//! When the budget is used up, no connection waits for another one to free memory, which it might never do. All go on
//! with [the smallest buffers](crate::buffers::pool::SIZES), which costs time and no memory, until there is memory
//! again.

use std::sync::Arc;

use crate::runtime::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// A memory budget, shared by all workers.
#[derive(Debug)]
pub(crate) struct Memory {
    limit: usize,
    taken: AtomicUsize,
}

/// A part of the budget. Its drop gives it back.
#[derive(Debug)]
pub(crate) struct Part {
    memory: Arc<Memory>,
    bytes: usize,
}

impl Memory {
    pub(crate) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit, taken: AtomicUsize::new(0) })
    }

    /// Whether so many bytes are left.
    ///
    /// A worker that asks before it takes memory keeps the budget, unless another worker takes some at the same moment.
    pub(crate) fn has(&self, bytes: usize) -> bool {
        // Relaxed: the count guards no other data.
        self.limit.saturating_sub(self.taken.load(Relaxed)) >= bytes
    }

    /// Takes so many bytes, even beyond the budget: bytes that are held already need a buffer.
    pub(crate) fn take(self: &Arc<Self>, bytes: usize) -> Part {
        self.taken.fetch_add(bytes, Relaxed);
        Part { memory: Arc::clone(self), bytes }
    }

    /// Bytes that are taken.
    pub(crate) fn taken(&self) -> usize {
        self.taken.load(Relaxed)
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        self.memory.taken.fetch_sub(self.bytes, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rest_and_returned_parts_are_available() {
        let memory = Memory::new(10);
        let (large, small) = (memory.take(6), memory.take(1));
        assert_eq!((memory.has(3), memory.has(4), memory.taken()), (true, false, 7));
        drop(large);
        assert_eq!((memory.has(9), memory.has(10)), (true, false));
        drop(small);
        assert_eq!((memory.has(10), memory.has(11), memory.taken()), (true, false, 0));
    }

    #[test]
    fn a_part_may_exceed_the_budget() {
        let memory = Memory::new(10);
        let part = memory.take(100);
        assert!(memory.has(0) && !memory.has(1));
        drop(part);
        assert!(memory.has(10));
    }
}
