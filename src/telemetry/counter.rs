//! A number that one thread counts, and any thread reads.

use crate::runtime::sync::atomic::{
    AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};

/// A number that one thread writes, and any thread reads.
#[derive(Debug, Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    /// Adds to the number.
    ///
    /// Only a [`Telemetry`](super::counters::Telemetry) calls this. So there is no other writer, and a load and a store do
    /// what `fetch_add` would. A reader that sees the sum also sees what its worker has counted before.
    pub(super) fn add(&self, count: u64) {
        self.0.store(self.0.load(Relaxed) + count, Release);
    }

    pub(super) fn get(&self) -> u64 {
        self.0.load(Acquire)
    }
}
