//! Permits bound how many there are of something at a time.
//!
//! They are for connections, pair codes, waiting sides and takeover probes.
//!
//! The limit is divided into shares, such as one for each worker. A taker takes from its own share, and from another one
//! only when that is empty. So below the limit, takers of different shares write to no common cache line. The sum of the
//! shares is exact: no more permits than the limit are taken, and none is refused while one is left.

use std::sync::Arc;

use crate::runtime::sync::atomic::{AtomicU64, Ordering::SeqCst};

/// The lower 40 bits of a [`Share`] count its remaining permits, the upper 24 bits how many came back.
const LEFT: u64 = (1 << 40) - 1;

/// A permit that comes back: one more is left, and one more came back.
const RETURN: u64 = LEFT + 2;

/// No more than these, so that no sum of a few hundred shares exceeds [`LEFT`].
///
/// No system has four billion open files.
const MOST: usize = u32::MAX as usize;

/// A limited number of permits.
#[derive(Debug)]
pub(crate) struct Permits(Box<[Arc<Share>]>);

/// A part of the permits.
///
/// No two shares are in a cache line (of 128 bytes, as the processor may fetch two lines of 64 together).
#[derive(Debug)]
#[repr(align(128))]
struct Share(AtomicU64);

/// A permit. Its drop returns it to its share.
#[derive(Debug)]
pub(crate) struct Permit(Arc<Share>);

impl Permits {
    /// This many permits in this many shares.
    pub(crate) fn new(limit: usize, shares: usize) -> Self {
        let limit = limit.min(MOST);
        // The first shares get the remainder.
        let part = |nth| limit / shares + usize::from(nth < limit % shares);
        Self((0..shares).map(|nth| Arc::new(Share(AtomicU64::new(part(nth) as u64)))).collect())
    }

    /// Takes a permit, if one is left: from this share, or else from the next one that has one.
    pub(crate) fn take(&self, share: usize) -> Option<Permit> {
        self.take_from(share).map(|share| Permit(Arc::clone(share)))
    }

    /// Takes a permit for which the caller keeps count. Whether one was left.
    ///
    /// The caller will [deposit](Self::deposit) it.
    pub(crate) fn withdraw(&self, share: usize) -> bool {
        self.take_from(share).is_some()
    }

    /// Returns permits that were [withdrawn](Self::withdraw), to any share.
    pub(crate) fn deposit(&self, share: usize, count: usize) {
        self.0[share].put_back(count as u64);
    }

    fn take_from(&self, share: usize) -> Option<&Arc<Share>> {
        loop {
            let mut seen = 0_u64;
            let (before, from) = self.0.split_at(share);
            for share in from.iter().chain(before) {
                match share.take() {
                    Ok(()) => return Some(share),
                    Err(empty) => seen = seen.wrapping_add(empty),
                }
            }
            // Each share was empty, but at another moment each. If none has changed since, all were empty at once.
            if self.sum() == seen {
                return None;
            }
        }
    }

    /// Whether no permit is left.
    pub(crate) fn is_empty(&self) -> bool {
        loop {
            let seen = self.sum();
            if seen & LEFT != 0 || self.sum() == seen {
                return seen & LEFT == 0;
            }
        }
    }

    /// The number of permits that are left, and how many came back, as in a [`Share`].
    ///
    /// A moving target, unless it is the same twice: numbers that came back only grow.
    fn sum(&self) -> u64 {
        self.0.iter().fold(0, |sum, share| sum.wrapping_add(share.0.load(SeqCst)))
    }
}

impl Share {
    /// Takes a permit. The error is the value of the empty share.
    fn take(&self) -> Result<(), u64> {
        self.0.fetch_update(SeqCst, SeqCst, |share| (share & LEFT != 0).then(|| share - 1)).map(drop)
    }

    fn put_back(&self, count: u64) {
        self.0.fetch_add(count * RETURN, SeqCst); // the upper bits wrap around
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.put_back(1);
    }
}

#[cfg(test)]
mod tests {
    //! Takers on several threads are in `src/checks/`.

    use super::*;
    use proptest::prelude::*;

    #[test]
    fn permits_run_out_and_come_back() {
        let permits = Permits::new(2, 1);
        let held: Vec<_> = (0..2).map(|_| permits.take(0).unwrap()).collect();
        assert!(permits.take(0).is_none() && permits.is_empty());
        drop(held);
        assert!(permits.take(0).is_some() && !permits.is_empty());
    }

    #[test]
    fn other_shares_are_untouched_until_the_own_one_is_empty() {
        let permits = Permits::new(7, 3);
        let shares = || permits.0.iter().map(|share| share.0.load(SeqCst) & LEFT).collect::<Vec<_>>();
        assert_eq!(shares(), [3, 2, 2]);
        let mut held: Vec<_> = (0..2).map(|_| permits.take(1)).collect();
        assert_eq!(shares(), [3, 0, 2]);
        held.push(permits.take(1));
        assert_eq!(shares(), [3, 0, 1]);
        drop(held);
        assert_eq!(shares(), [3, 2, 2], "each is back where it was taken");
    }

    #[test]
    fn any_number_of_permits_is_possible() {
        for limit in [0, 1, usize::MAX] {
            let permits = Permits::new(limit, 256);
            assert_eq!((permits.is_empty(), permits.take(255).is_some()), (limit == 0, limit > 0));
        }
    }

    #[test]
    fn count_of_those_that_came_back_wraps_around() {
        let permits = Permits(Box::new([Arc::new(Share(AtomicU64::new(!LEFT)))]));
        permits.deposit(0, 1);
        assert!(permits.withdraw(0));
        assert!(!permits.withdraw(0));
    }

    proptest! {
        #[test]
        fn permits_are_exactly_as_many_as_the_limit(
            (limit, shares) in (0..20_usize, 1..6_usize),
            operations in prop::collection::vec((0..4, any::<prop::sample::Index>()), 0..200),
        ) {
            let permits = Permits::new(limit, shares);
            let (mut held, mut withdrawn) = (Vec::new(), 0);
            for (operation, nth) in operations {
                let (share, is_left) = (nth.index(shares), held.len() + withdrawn < limit);
                match operation {
                    0 => {
                        let permit = permits.take(share);
                        prop_assert_eq!(permit.is_some(), is_left);
                        held.extend(permit);
                    }
                    1 => {
                        prop_assert_eq!(permits.withdraw(share), is_left);
                        withdrawn += usize::from(is_left);
                    }
                    2 if !held.is_empty() => drop(held.swap_remove(nth.index(held.len()))),
                    _ => {
                        let count = nth.index(withdrawn + 1);
                        permits.deposit(share, count);
                        withdrawn -= count;
                    }
                }
                prop_assert_eq!(permits.is_empty(), held.len() + withdrawn == limit);
            }
        }
    }
}
