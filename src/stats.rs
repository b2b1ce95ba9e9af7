//! What the relay has done so far, in counters that any worker may add to.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::reframe::Tally;

/// Counters since the start. They are independent of each other, hence the relaxed ordering.
#[derive(Debug, Default)]
pub(crate) struct Stats {
    forwarded: AtomicU64,
    dropped: AtomicU64,
}

impl Stats {
    /// Adds what a connection's tally has grown by.
    pub(crate) fn count(&self, before: Tally, after: Tally) {
        if after.forwarded > before.forwarded {
            self.forwarded.fetch_add(after.forwarded - before.forwarded, Relaxed);
        }
        if after.dropped > before.dropped {
            self.dropped.fetch_add(after.dropped - before.dropped, Relaxed);
        }
    }

    pub(crate) fn tally(&self) -> Tally {
        Tally { forwarded: self.forwarded.load(Relaxed), dropped: self.dropped.load(Relaxed) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_tally_has_grown_by_counts() {
        let stats = Stats::default();
        stats.count(Tally { forwarded: 2, dropped: 3 }, Tally { forwarded: 2, dropped: 7 });
        stats.count(Tally { forwarded: 2, dropped: 7 }, Tally { forwarded: 12, dropped: 7 });
        assert_eq!(stats.tally(), Tally { forwarded: 10, dropped: 4 });
    }
}
