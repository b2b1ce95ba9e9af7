//! Permits bound the number of connections at a time.
//!
//! Each connection holds one from its admission to its end, also while it closes and has no seat any more.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// The remaining connection permits.
#[derive(Debug)]
pub(crate) struct ConnectionPermits(AtomicUsize);

/// A permit for one connection. Its drop returns it.
#[derive(Debug)]
pub(crate) struct ConnectionPermit(Arc<ConnectionPermits>);

impl ConnectionPermits {
    pub(crate) fn new(count: usize) -> Arc<Self> {
        Arc::new(Self(AtomicUsize::new(count)))
    }

    /// Takes a permit, if one is left.
    pub(crate) fn take(self: &Arc<Self>) -> Option<ConnectionPermit> {
        // The count guards nothing but itself, hence the ordering.
        self.0.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)).ok()?;
        Some(ConnectionPermit(Arc::clone(self)))
    }

    /// Whether no permit is left.
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
    fn permits_run_out_and_come_back() {
        let permits = ConnectionPermits::new(2);
        let held: Vec<_> = (0..2).map(|_| permits.take().unwrap()).collect();
        assert!(permits.take().is_none());
        drop(held);
        assert!(permits.take().is_some());
    }
}
