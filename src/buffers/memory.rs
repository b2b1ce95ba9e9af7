//! How much memory all buffers together may take, beyond the smallest, of which every connection has its own.
//!
//! When it is used up, nobody waits for somebody else to give some back, as whoever holds it may never do so: everybody
//! goes on with [the smallest buffers](crate::buffers::pool::SIZES), which costs time and no memory, until there is some again.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// What there is of it. All workers share it.
#[derive(Debug)]
pub(crate) struct Memory {
    limit: usize,
    taken: AtomicUsize,
}

/// A part of it, which is given back by its drop.
#[derive(Debug)]
pub(crate) struct Part {
    memory: Arc<Memory>,
    bytes: usize,
}

impl Memory {
    pub(crate) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit, taken: AtomicUsize::new(0) })
    }

    /// Whether there is as much as this left. Whoever asks before it takes some takes no more than there is, unless another
    /// worker does so at the same moment.
    pub(crate) fn has(&self, bytes: usize) -> bool {
        // The count guards nothing but itself, hence the ordering.
        self.limit.saturating_sub(self.taken.load(Relaxed)) >= bytes
    }

    /// Takes this much, even if there is not so much: what is held already has to go somewhere.
    pub(crate) fn take(self: &Arc<Self>, bytes: usize) -> Part {
        self.taken.fetch_add(bytes, Relaxed);
        Part { memory: Arc::clone(self), bytes }
    }

    /// How much is taken, in bytes.
    #[cfg(test)]
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
    fn there_is_what_was_not_taken_and_what_was_given_back() {
        let memory = Memory::new(10);
        let (large, small) = (memory.take(6), memory.take(1));
        assert_eq!((memory.has(3), memory.has(4), memory.taken()), (true, false, 7));
        drop(large);
        assert_eq!((memory.has(9), memory.has(10)), (true, false));
        drop(small);
        assert_eq!((memory.has(10), memory.has(11), memory.taken()), (true, false, 0));
    }

    #[test]
    fn more_than_there_is_can_be_taken() {
        let memory = Memory::new(10);
        let part = memory.take(100);
        assert!(memory.has(0) && !memory.has(1));
        drop(part);
        assert!(memory.has(10));
    }
}
