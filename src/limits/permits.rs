//! How many WebSockets there may be at a time: each holds a permit from its admission to its end, also while it closes and
//! has no seat any more.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Those that are left.
#[derive(Debug)]
pub(crate) struct ConnectionPermits(AtomicUsize);

/// One of them. It is given back by its drop.
#[derive(Debug)]
pub(crate) struct ConnectionPermit(Arc<ConnectionPermits>);

impl ConnectionPermits {
    pub(crate) fn new(count: usize) -> Arc<Self> {
        Arc::new(Self(AtomicUsize::new(count)))
    }

    /// Takes one, if there is one left.
    pub(crate) fn take(self: &Arc<Self>) -> Option<ConnectionPermit> {
        // The count guards nothing but itself, hence the ordering.
        self.0.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)).ok()?;
        Some(ConnectionPermit(Arc::clone(self)))
    }

    /// Whether none is left.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.load(Relaxed) == 0
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        self.0.0.fetch_add(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_are_given_than_there_are() {
        let permits = ConnectionPermits::new(2);
        let held: Vec<_> = (0..2).map(|_| permits.take().unwrap()).collect();
        assert!(permits.take().is_none());
        drop(held);
        assert!(permits.take().is_some());
    }
}
