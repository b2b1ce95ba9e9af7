//! A bounded number of slots. When all are taken, the oldest is revoked for the next one.
//!
//! Two kinds of connection hold a slot, because each costs a socket and may be silent on purpose: those in the opening
//! handshake, and those that linger in the closing one.
//!
//! To refuse the newest instead would let a stranger with a hundred connections a second keep all others out. An honest
//! handshake is over within a round trip or two. With 1024 slots and a handshake of 50 ms, twenty thousand strangers have
//! to come in a second before an honest client is revoked.
//!
//! **Shards.** Each worker takes its slots from a shard of its own, which no other worker writes to. Free slots are
//! common to all shards, and a shard takes and returns them in blocks. When no slot is free anywhere, the oldest of all
//! shards goes. So the bound and the order are those of a single list.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::ops::Deref;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use crate::runtime::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use crate::runtime::sync::{Mutex, lock, thread, with_lock};

/// The number of slots up to which [`Slots::make_room`] does nothing: most of them are about to end.
const FEW: usize = 16;

/// A shard keeps up to two blocks free. This many blocks are all slots of a worker's share.
///
/// More of them return to the common slots more often, and fewer make the search of other shards more likely.
const BLOCKS_OF_A_SHARD: usize = 16;

/// All slots of a kind.
#[derive(Debug)]
pub(crate) struct Slots {
    /// The number of free slots that no shard has.
    free: AtomicUsize,
    /// How many slots a shard takes and returns at a time.
    block: usize,
    shards: Box<[Shard]>,
}

/// The slots of a worker, on cache lines of their own (two, as processors fetch lines in pairs).
#[derive(Debug, Default)]
#[repr(align(128))]
struct Shard(Mutex<TakenSlots>);

/// The age of a slot: when it was taken, and a number that tells it from others of that moment.
type Age = (Instant, u64);

#[derive(Debug, Default)]
struct TakenSlots {
    /// The number of free slots that this shard has.
    free: usize,
    /// The number of the next slot.
    next: u64,
    /// The waker of each slot's task, if it waits, by age: so the oldest is the first.
    ///
    /// A slot that is not here is revoked.
    by_age: BTreeMap<Age, Option<Waker>>,
}

/// A slot, until it is dropped.
///
/// An opening handshake borrows its slots: to count references would be a write that all workers share.
#[derive(Debug)]
pub(crate) struct Slot<S: Deref<Target = Slots> = Arc<Slots>> {
    slots: S,
    shard: usize,
    age: Age,
}

impl Slots {
    /// As many slots as the limit says, and one at least, in a single shard.
    pub(crate) fn new(limit: usize) -> Self {
        Self::sharded(limit, 1)
    }

    /// As many slots as the limit says, and one at least, with a shard for each worker.
    pub(crate) fn sharded(limit: usize, workers: usize) -> Self {
        let (limit, workers) = (limit.max(1), workers.max(1));
        Self {
            free: AtomicUsize::new(limit),
            block: (limit / workers / BLOCKS_OF_A_SHARD).max(1),
            shards: (0..workers).map(|_| Shard::default()).collect(),
        }
    }

    /// Takes a slot of a shard. If all are taken, in any shard, the oldest is revoked.
    pub(crate) fn take(self: &Arc<Self>, shard: usize, now: Instant) -> Slot {
        Slot { slots: Arc::clone(self), shard, age: self.take_age(shard, now) }
    }

    /// The same for as long as the slots are borrowed.
    pub(crate) fn borrow(&self, shard: usize, now: Instant) -> Slot<&Self> {
        Slot { slots: self, shard, age: self.take_age(shard, now) }
    }

    fn take_age(&self, shard: usize, now: Instant) -> Age {
        let age = with_lock(self.shard(shard), |taken| {
            if taken.free == 0 {
                taken.free = self.take_common(self.block);
            }
            taken.take_free().then(|| taken.issue(now))
        });
        age.unwrap_or_else(|| {
            self.take_from_others();
            with_lock(self.shard(shard), |taken| taken.issue(now))
        })
    }

    /// Revokes the oldest quarter, for want of another resource, unless few are taken. Whether it did.
    pub(crate) fn make_room(&self) -> bool {
        let count = self.len();
        let revoked = if count <= FEW { 0 } else { count / 4 };
        (0..revoked).fold(false, |is_any, _| self.revoke_oldest() || is_any)
    }

    /// Revokes the oldest slot. Whether there was one.
    pub(crate) fn revoke_oldest(&self) -> bool {
        let is_revoked = self.take_oldest();
        if is_revoked {
            self.free.fetch_add(1, Relaxed);
        }
        is_revoked
    }

    /// The number of slots that are taken.
    pub(crate) fn len(&self) -> usize {
        self.shards.iter().map(|Shard(taken)| lock(taken).by_age.len()).sum()
    }

    /// The number of free slots, in common and in the shards.
    #[cfg(test)]
    pub(crate) fn free(&self) -> usize {
        self.free.load(Relaxed) + self.shards.iter().map(|Shard(taken)| lock(taken).free).sum::<usize>()
    }

    fn shard(&self, shard: usize) -> &Mutex<TakenSlots> {
        &self.shards[shard].0
    }

    /// Takes this many of the common free slots, or what is left of them.
    fn take_common(&self, most: usize) -> usize {
        let taken = self.free.fetch_update(Relaxed, Relaxed, |free| (free > 0).then(|| free.saturating_sub(most)));
        taken.map_or(0, |free| free.min(most))
    }

    /// Takes a slot that is free in another shard, or revokes the oldest slot of all.
    ///
    /// If there is neither, other workers are just taking or returning slots.
    fn take_from_others(&self) {
        loop {
            let is_found = self.take_common(1) > 0
                || self.shards.iter().any(|Shard(taken)| with_lock(taken, TakenSlots::take_free))
                || self.take_oldest();
            if is_found {
                return;
            }
            thread::yield_now();
        }
    }

    /// Takes the oldest slot from its task. Whether there was one.
    fn take_oldest(&self) -> bool {
        let ages = || self.shards.iter().map(|Shard(taken)| lock(taken).by_age.first_key_value().map(|(age, _)| *age));
        let Some((oldest, shard)) = ages().zip(0..).filter_map(|(age, shard)| Some((age?, shard))).min() else {
            return false;
        };
        // It may be gone meanwhile, and then its slot is free.
        let revoked = with_lock(self.shard(shard), |taken| {
            taken.by_age.remove(&oldest).or_else(|| taken.take_free().then_some(None))
        });
        let is_any = revoked.is_some();
        revoked.flatten().into_iter().for_each(Waker::wake);
        is_any
    }
}

impl TakenSlots {
    /// Adds a slot, which is the newest.
    fn issue(&mut self, now: Instant) -> Age {
        let age = self.next_age(now);
        self.by_age.insert(age, None);
        age
    }

    fn next_age(&mut self, now: Instant) -> Age {
        self.next += 1;
        (now, self.next - 1)
    }

    /// Takes a slot that the shard has free. Whether there was one.
    fn take_free(&mut self) -> bool {
        let is_free = self.free > 0;
        self.free -= usize::from(is_free);
        is_free
    }
}

impl<S: Deref<Target = Slots>> Slot<S> {
    fn shard(&self) -> &Mutex<TakenSlots> {
        self.slots.shard(self.shard)
    }

    /// Whether the slot is revoked.
    #[cfg(test)]
    pub(crate) fn is_revoked(&self) -> bool {
        !lock(self.shard()).by_age.contains_key(&self.age)
    }

    /// Makes the slot the newest, unless it is revoked.
    pub(crate) fn renew(&mut self, now: Instant) {
        let mut taken = lock(self.slots.shard(self.shard));
        if let Some(waker) = taken.by_age.remove(&self.age) {
            self.age = taken.next_age(now);
            taken.by_age.insert(self.age, waker);
        }
    }

    /// Waits until the slot is revoked. One task does so at a time.
    pub(crate) async fn revoked(&self) {
        poll_fn(|cx| self.poll_revoked(cx)).await;
    }

    /// Ready when the slot is revoked. One task polls it at a time.
    pub(crate) fn poll_revoked(&self, cx: &mut Context<'_>) -> Poll<()> {
        let previous = with_lock(self.shard(), |taken| {
            taken.by_age.get_mut(&self.age).map(|waker| waker.replace(cx.waker().clone()))
        });
        if previous.is_some() { Poll::Pending } else { Poll::Ready(()) }
    }
}

impl<S: Deref<Target = Slots>> Drop for Slot<S> {
    fn drop(&mut self) {
        let (_waker, surplus) = with_lock(self.shard(), |taken| {
            let waker = taken.by_age.remove(&self.age);
            let mut surplus = 0;
            if waker.is_some() {
                taken.free += 1;
                if taken.free > self.slots.block * 2 {
                    surplus = self.slots.block;
                    taken.free -= surplus;
                }
            }
            (waker, surplus)
        });
        if surplus > 0 {
            self.slots.free.fetch_add(surplus, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_lite::future::{block_on, poll_once, zip};
    use proptest::prelude::*;
    use std::time::Duration;

    fn is_revoked(slot: &Slot) -> bool {
        let is_told = block_on(poll_once(slot.revoked())).is_some();
        assert_eq!(is_told, slot.is_revoked());
        is_told
    }

    /// The positions of the revoked slots.
    fn revoked(slots: &[Slot]) -> Vec<usize> {
        (0..slots.len()).filter(|&nth| is_revoked(&slots[nth])).collect()
    }

    #[test]
    fn oldest_slot_is_revoked_when_all_are_taken() {
        let slots = Arc::new(Slots::new(3));
        let mut taken: Vec<_> = (0..3).map(|_| slots.take(0, Instant::now())).collect();
        assert!(revoked(&taken).is_empty());
        taken.push(slots.take(0, Instant::now()));
        assert_eq!(revoked(&taken), [0]);
        taken.push(slots.take(0, Instant::now()));
        assert_eq!(revoked(&taken), [0, 1]);
    }

    #[test]
    fn task_of_a_revoked_slot_is_woken() {
        let slots = Arc::new(Slots::new(1));
        let slot = slots.take(0, Instant::now());
        block_on(zip(slot.revoked(), async { drop(slots.take(0, Instant::now())) }));
    }

    #[test]
    fn dropped_slot_is_free() {
        let slots = Arc::new(Slots::new(2));
        let first = slots.take(0, Instant::now());
        for _ in 0..10 {
            drop(slots.take(0, Instant::now()));
        }
        assert!(!is_revoked(&first));
        assert_eq!(slots.len(), 1);
    }

    #[test]
    fn limit_of_zero_is_one_slot() {
        let slots = Arc::new(Slots::new(0));
        assert!(!is_revoked(&slots.take(0, Instant::now())));
    }

    #[test]
    fn oldest_quarter_makes_room_unless_few_are_taken() {
        let slots = Arc::new(Slots::new(100));
        let mut taken: Vec<_> = (0..FEW).map(|_| slots.take(0, Instant::now())).collect();
        assert!(!slots.make_room());
        assert!(revoked(&taken).is_empty());
        taken.extend((0..4).map(|_| slots.take(0, Instant::now())));
        assert!(slots.make_room());
        assert_eq!(revoked(&taken), [0, 1, 2, 3, 4]);
    }

    #[test]
    fn oldest_slot_can_be_revoked_before_all_are_taken() {
        let slots = Arc::new(Slots::new(9));
        assert!(!slots.revoke_oldest());
        let taken: Vec<_> = (0..2).map(|_| slots.take(0, Instant::now())).collect();
        assert!(slots.revoke_oldest());
        assert_eq!((revoked(&taken), slots.len()), (vec![0], 1));
    }

    #[test]
    fn renewed_slot_is_the_newest_and_revokes_no_other() {
        let slots = Arc::new(Slots::new(2));
        let mut taken: Vec<_> = (0..2).map(|_| slots.take(0, Instant::now())).collect();
        taken[0].renew(Instant::now());
        assert!(revoked(&taken).is_empty());
        taken.push(slots.take(0, Instant::now()));
        assert_eq!(revoked(&taken), [1]);
        taken[1].renew(Instant::now());
        assert_eq!((revoked(&taken), slots.len()), (vec![1], 2), "a revoked slot stays revoked");
    }

    proptest! {
        /// The naive model is one list, from the oldest to the newest.
        #[test]
        fn shards_are_like_one_list(
            limit in 1..40_usize,
            workers in 1..5_usize,
            operations in prop::collection::vec((0..4_u8, any::<prop::sample::Index>()), 1..400),
        ) {
            let slots = Arc::new(Slots::sharded(limit, workers));
            let (mut held, mut model, mut now) = (Vec::<(usize, Slot)>::new(), Vec::new(), Instant::now());
            for (number, (operation, index)) in operations.into_iter().enumerate() {
                now += Duration::from_millis(1);
                match operation {
                    0 | 1 => {
                        if model.len() == limit {
                            model.remove(0);
                        }
                        model.push(number);
                        held.push((number, slots.take(index.index(workers), now)));
                    }
                    2 if !held.is_empty() => {
                        let (number, _slot) = held.remove(index.index(held.len()));
                        model.retain(|&other| other != number);
                    }
                    3 if !held.is_empty() => {
                        let nth = index.index(held.len());
                        let (number, slot) = &mut held[nth];
                        slot.renew(now);
                        if let Some(place) = model.iter().position(|other| other == number) {
                            let number = model.remove(place);
                            model.push(number);
                        }
                    }
                    _ => {}
                }
                prop_assert_eq!(slots.len() + slots.free(), limit);
                prop_assert_eq!(slots.len(), model.len());
                for (number, slot) in &held {
                    prop_assert_eq!(slot.is_revoked(), !model.contains(number));
                }
            }
        }
    }

    #[test]
    fn threads_lose_no_slot_and_make_none() {
        for limit in [1, 3, 100] {
            let slots = Arc::new(Slots::sharded(limit, 4));
            thread::scope(|scope| {
                for shard in 0..4 {
                    let slots = &slots;
                    scope.spawn(move || {
                        let mut held = Vec::new();
                        for nth in 0..2000 {
                            held.push(slots.take(shard, Instant::now()));
                            if nth % 60 == 0 {
                                held.clear();
                            }
                        }
                    });
                }
            });
            assert_eq!((slots.len(), slots.free()), (0, limit));
        }
    }
}
