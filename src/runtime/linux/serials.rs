//! Serial numbers of sources and timers, unique over all threads.
//!
//! Each thread takes numbers in blocks, as every handshake needs some: one for each would be a write that all workers share.

use std::cell::Cell;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// How many numbers a thread takes at a time.
///
/// An opening handshake needs fewer than ten, so a worker takes a block in more than a hundred of them.
const BLOCK: u64 = 1024;

/// The first number of the next block.
static TAKEN: AtomicU64 = AtomicU64::new(0);

thread_local! {
    /// The numbers that this thread has taken and not used.
    static LEFT: Cell<Range<u64>> = const { Cell::new(0..0) };
}

/// The next number of this thread. No other thread ever gets it.
pub(super) fn next() -> u64 {
    LEFT.with(|cell| {
        let mut left = cell.take();
        if left.is_empty() {
            let first = TAKEN.fetch_add(BLOCK, Relaxed);
            left = first..first + BLOCK;
        }
        let number = left.start;
        cell.set(number + 1..left.end);
        number
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;
    use std::thread;

    #[test]
    fn no_two_threads_get_a_number_and_each_gets_them_in_order() {
        const EACH: usize = 3 * BLOCK as usize + 1;
        let threads = [(); 4].map(|()| thread::spawn(|| (0..EACH).map(|_| next()).collect::<Vec<_>>()));
        let numbers = threads.map(|thread| thread.join().unwrap());
        assert!(numbers.iter().all(|numbers| numbers.is_sorted()));
        assert_eq!(numbers.iter().flatten().collect::<HashSet<_>>().len(), 4 * EACH);
    }

    #[test]
    fn thread_takes_a_block_at_a_time() {
        thread::spawn(|| {
            let numbers: Vec<_> = (0..BLOCK).map(|_| next()).collect();
            assert_eq!(numbers[BLOCK as usize - 1] - numbers[0], BLOCK - 1);
        })
        .join()
        .unwrap();
    }
}
