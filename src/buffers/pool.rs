//! A worker's pool of buffers, so that a connection owns one only while there are bytes in it.
//!
//! Buffers are boxed, so that tasks hand over a pointer, and an idle connection keeps room for a pointer only.
//!
//! The pool is a LIFO for each size: the buffer that was written last is filled next, while it is still in the cache.
//! It keeps 1.6 MiB at most and frees further buffers. While memory is [short](Pool::is_short), it keeps only the
//! smallest ones.

use std::cell::RefCell;
use std::sync::Arc;

use super::buffer::Buffer;
use super::memory::Memory;

/// The sizes of buffers, in bytes.
///
/// The smallest is for round trips, and the largest for streams: larger ones gain nothing, and 64 KiB cost up to twice
/// as much for each byte. The third has room for the longest frame that goes out whole and for a read behind it, so
/// that such a frame that arrives in small pieces is never copied.
pub(crate) const SIZES: [usize; 4] = [4 << 10, 16 << 10, 68 << 10, 256 << 10];

/// The size of the smallest buffers, in bytes. There are always enough of them.
pub(crate) const SMALLEST: usize = SIZES[0];

/// The size of the largest buffers, in bytes: the most that a connection reads ahead.
pub(crate) const LARGEST: usize = SIZES[SIZES.len() - 1];

/// The most free buffers of each size.
const KEPT: [usize; 4] = [32, 16, 4, 4];

/// Free buffers by size.
#[derive(Debug)]
pub(crate) struct Pool {
    memory: Arc<Memory>,
    #[expect(clippy::vec_box, reason = "buffers come and go as boxes")]
    free: RefCell<[Vec<Box<Buffer>>; SIZES.len()]>,
}

impl Pool {
    /// An empty pool. Its buffers count for this budget.
    pub(crate) fn new(memory: Arc<Memory>) -> Self {
        Self { memory, free: RefCell::default() }
    }

    /// Takes an empty buffer of the smallest size that holds `capacity` bytes, or of the largest size.
    pub(crate) fn take(&self, capacity: usize) -> Box<Buffer> {
        let size = size_for(capacity);
        self.free.borrow_mut()[size].pop().unwrap_or_else(|| {
            let part = (size > 0).then(|| self.memory.take(SIZES[size]));
            Box::new(Buffer::counted(SIZES[size], part))
        })
    }

    /// Whether memory is short.
    ///
    /// If so, connections should take only the smallest buffers, unless a frame needs more.
    pub(crate) fn is_short(&self) -> bool {
        if self.memory.has(LARGEST) {
            return false;
        }
        // Perhaps the free buffers of this pool are all that is missing.
        self.free.borrow_mut()[1..].iter_mut().for_each(Vec::clear);
        !self.memory.has(LARGEST)
    }

    /// Takes a buffer back, and drops its bytes.
    pub(crate) fn put(&self, mut buffer: Box<Buffer>) {
        let size = size_for(buffer.capacity());
        let free = &mut self.free.borrow_mut()[size];
        if free.len() < KEPT[size] && (size == 0 || self.memory.has(LARGEST)) {
            buffer.clear();
            free.push(buffer);
        }
    }

    /// The size of all free buffers, in bytes.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn held(&self) -> usize {
        self.free.borrow().iter().flatten().map(|buffer| buffer.capacity()).sum()
    }
}

/// The index in [`SIZES`] of the smallest size that holds `capacity` bytes, or of the largest size.
pub(crate) fn size_for(capacity: usize) -> usize {
    SIZES.iter().position(|&size| size >= capacity).unwrap_or(SIZES.len() - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(memory: usize) -> Pool {
        Pool::new(Memory::new(memory))
    }

    #[test]
    fn the_smallest_size_that_fits_is_taken() {
        let pool = pool(usize::MAX);
        for (capacity, size) in
            [(0, 4096), (4096, 4096), (4097, 16384), (16385, 69632), (69633, 262_144), (usize::MAX, 262_144)]
        {
            assert_eq!(pool.take(capacity).capacity(), size);
        }
    }

    #[test]
    fn free_buffers_are_empty_and_bounded_in_number() {
        let pool = pool(usize::MAX);
        for _ in 0..100 {
            let mut buffer = Box::new(Buffer::new(LARGEST));
            buffer.append_input(b"left over");
            pool.put(buffer);
        }
        assert_eq!(pool.free.borrow()[3].len(), KEPT[3]);
        let buffer = pool.take(LARGEST);
        assert!(buffer.input().is_empty() && buffer.output().is_empty());
    }

    #[test]
    fn the_smallest_buffers_are_not_counted_and_others_are_freed_when_memory_is_short() {
        let pool = pool(2 * LARGEST);
        let smallest: Vec<_> = (0..10).map(|_| pool.take(SMALLEST)).collect();
        let large: Vec<_> = (0..2).map(|_| pool.take(LARGEST)).collect();
        assert_eq!((pool.memory.taken(), pool.is_short()), (2 * LARGEST, true));
        smallest.into_iter().chain(large).for_each(|buffer| pool.put(buffer));
        assert_eq!((pool.held(), pool.memory.taken(), pool.is_short()), (10 * SMALLEST + LARGEST, LARGEST, false));
        // Another worker takes so much that the free buffer's memory is missing.
        let part = pool.memory.take(1);
        assert_eq!((pool.is_short(), pool.held()), (false, 10 * SMALLEST));
        drop(part);
    }
}
