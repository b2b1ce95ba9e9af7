//! The loads of the workers, and the choice of a worker for a new pair.
//!
//! The system's queue wakes some workers more often than others. So the worker that accepts a client may have many more
//! connections than another one. The first client of a pair then goes to the worker with the fewest, and the second follows.

use crate::runtime::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// The difference up to which a client stays, in connections: two pairs.
///
/// A move wakes another thread, which is dear on a quiet relay.
const SLACK: usize = 4;

/// The same as a part of the own connections: one in so many.
const SHARE: usize = 8;

/// The number of connections on each worker, as last told.
#[derive(Debug)]
pub(crate) struct Loads(Box<[Load]>);

/// The load of one worker, on cache lines of its own (two, as processors fetch lines in pairs).
#[derive(Debug, Default)]
#[repr(align(128))]
struct Load(AtomicUsize);

impl Loads {
    pub(crate) fn new(workers: usize) -> Self {
        Self((0..workers).map(|_| Load::default()).collect())
    }

    /// Notes how many connections a worker has.
    pub(crate) fn tell(&self, worker: usize, connections: usize) {
        let Load(load) = &self.0[worker];
        if load.load(Relaxed) != connections {
            load.store(connections, Relaxed);
        }
    }

    /// The worker for the first client of a pair.
    ///
    /// `worker` has accepted it, and has so many connections. It is the same one unless another has clearly fewer.
    pub(crate) fn place(&self, worker: usize, connections: usize) -> usize {
        let Some(fewer) = connections.checked_sub(SLACK + connections / SHARE) else { return worker };
        let loads = self.0.iter().map(|Load(load)| load.load(Relaxed)).zip(0..);
        let Some((least, other)) = loads.filter(|&(_, other)| other != worker).min() else { return worker };
        if least >= fewer {
            return worker;
        }
        other
    }

    /// Notes a connection on its way to a worker, which will [tell](Self::tell) its load.
    ///
    /// So others that are placed before that do not all follow.
    pub(crate) fn expect(&self, worker: usize) {
        self.0[worker].0.fetch_add(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn client_stays_unless_another_worker_has_clearly_fewer_connections() {
        let place = |own, other| {
            let loads = Loads::new(2);
            loads.tell(1, other);
            loads.place(0, own)
        };
        assert_eq!([(0, 0), (4, 0), (5, 0), (9, 5), (10, 4)].map(|(own, other)| place(own, other)), [0, 0, 1, 0, 1]);
        assert_eq!(
            [(800, 700), (800, 696), (800, 695), (700, 800)].map(|(own, other)| place(own, other)),
            [0, 0, 1, 0]
        );
        assert_eq!(Loads::new(1).place(0, 1000), 0);
    }

    proptest! {
        /// One worker accepts all clients, as the system may have it.
        #[test]
        fn pairs_spread_over_the_workers(workers in 1..9_usize, pairs in 1..500_usize, told_every in 1..5_usize) {
            let (loads, mut connections) = (Loads::new(workers), vec![0; workers]);
            for pair in 0..pairs {
                let worker = loads.place(0, connections[0]);
                if worker != 0 {
                    loads.expect(worker);
                }
                connections[worker] += 2;
                if pair % told_every == 0 {
                    connections.iter().enumerate().for_each(|(worker, &number)| loads.tell(worker, number));
                }
            }
            let (least, most) = (connections.iter().min().unwrap(), connections.iter().max().unwrap());
            prop_assert!(*most <= least + least / 4 + SLACK + 2 * told_every + 2, "{connections:?}");
        }
    }
}
