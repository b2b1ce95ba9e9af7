//! A bounded number of slots. When all are taken, the oldest is revoked for the next one.
//!
//! Two kinds of connection hold a slot, because each costs a socket and may be silent on purpose: those in the opening
//! handshake, and those that linger in the closing one.
//!
//! To refuse the newest instead would let a stranger with a hundred connections a second keep all others out. An honest
//! handshake is over within a round trip or two. With 1024 slots and a handshake of 50 ms, twenty thousand strangers have
//! to come in a second before an honest client is revoked.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use crate::runtime::sync::{lock, with_lock};

/// The number of slots up to which [`Slots::make_room`] does nothing: most of them are about to end.
const FEW: usize = 16;

/// All slots of a kind, on any worker.
#[derive(Debug)]
pub(crate) struct Slots {
    limit: usize,
    taken: Mutex<TakenSlots>,
}

#[derive(Debug, Default)]
struct TakenSlots {
    /// The number of the next slot.
    next: u64,
    /// The waker of each slot's task, if it waits, by number: so the oldest is the first.
    ///
    /// A slot that is not here is revoked.
    by_age: BTreeMap<u64, Option<Waker>>,
}

/// A slot, until it is dropped.
#[derive(Debug)]
pub(crate) struct Slot {
    slots: Arc<Slots>,
    number: u64,
}

impl Slots {
    /// As many slots as the limit says, and one at least.
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit: limit.max(1), taken: Mutex::default() }
    }

    /// Takes a slot. If all are taken, the oldest is revoked.
    pub(crate) fn take(self: &Arc<Self>) -> Slot {
        let (number, oldest) = with_lock(&self.taken, |taken| {
            let oldest = if taken.by_age.len() == self.limit { taken.by_age.pop_first() } else { None };
            let number = taken.next_number();
            taken.by_age.insert(number, None);
            (number, oldest)
        });
        wake(oldest);
        Slot { slots: Arc::clone(self), number }
    }

    /// Revokes the oldest quarter, for want of another resource, unless few are taken. Whether it did.
    pub(crate) fn make_room(&self) -> bool {
        let oldest: Vec<_> = with_lock(&self.taken, |taken| {
            let count = taken.by_age.len();
            let revoked = if count <= FEW { 0 } else { count / 4 };
            (0..revoked).filter_map(|_| taken.by_age.pop_first()).collect()
        });
        let is_any = !oldest.is_empty();
        wake(oldest);
        is_any
    }

    /// Revokes the oldest slot. Whether there was one.
    pub(crate) fn revoke_oldest(&self) -> bool {
        let oldest = with_lock(&self.taken, |taken| taken.by_age.pop_first());
        let is_any = oldest.is_some();
        wake(oldest);
        is_any
    }

    /// The number of slots that are taken.
    pub(crate) fn len(&self) -> usize {
        lock(&self.taken).by_age.len()
    }
}

impl TakenSlots {
    fn next_number(&mut self) -> u64 {
        self.next += 1;
        self.next - 1
    }
}

/// Wakes the tasks of revoked slots.
fn wake(revoked: impl IntoIterator<Item = (u64, Option<Waker>)>) {
    revoked.into_iter().filter_map(|(_, waker)| waker).for_each(Waker::wake);
}

impl Slot {
    /// Whether the slot is revoked.
    #[cfg(test)]
    pub(crate) fn is_revoked(&self) -> bool {
        !lock(&self.slots.taken).by_age.contains_key(&self.number)
    }

    /// Makes the slot the newest, unless it is revoked.
    pub(crate) fn renew(&mut self) {
        let mut taken = lock(&self.slots.taken);
        if let Some(waker) = taken.by_age.remove(&self.number) {
            self.number = taken.next_number();
            taken.by_age.insert(self.number, waker);
        }
    }

    /// Waits until the slot is revoked. One task does so at a time.
    pub(crate) async fn revoked(&self) {
        poll_fn(|cx| self.poll_revoked(cx)).await;
    }

    /// Ready when the slot is revoked. One task polls it at a time.
    pub(crate) fn poll_revoked(&self, cx: &mut Context<'_>) -> Poll<()> {
        let previous = with_lock(&self.slots.taken, |taken| {
            taken.by_age.get_mut(&self.number).map(|waker| waker.replace(cx.waker().clone()))
        });
        if previous.is_some() { Poll::Pending } else { Poll::Ready(()) }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let _waker = with_lock(&self.slots.taken, |taken| taken.by_age.remove(&self.number));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_lite::future::{block_on, poll_once, zip};

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
        let mut taken: Vec<_> = (0..3).map(|_| slots.take()).collect();
        assert!(revoked(&taken).is_empty());
        taken.push(slots.take());
        assert_eq!(revoked(&taken), [0]);
        taken.push(slots.take());
        assert_eq!(revoked(&taken), [0, 1]);
    }

    #[test]
    fn task_of_a_revoked_slot_is_woken() {
        let slots = Arc::new(Slots::new(1));
        let slot = slots.take();
        block_on(zip(slot.revoked(), async { drop(slots.take()) }));
    }

    #[test]
    fn dropped_slot_is_free() {
        let slots = Arc::new(Slots::new(2));
        let first = slots.take();
        for _ in 0..10 {
            drop(slots.take());
        }
        assert!(!is_revoked(&first));
        assert_eq!(slots.len(), 1);
    }

    #[test]
    fn limit_of_zero_is_one_slot() {
        let slots = Arc::new(Slots::new(0));
        assert!(!is_revoked(&slots.take()));
    }

    #[test]
    fn oldest_quarter_makes_room_unless_few_are_taken() {
        let slots = Arc::new(Slots::new(100));
        let mut taken: Vec<_> = (0..FEW).map(|_| slots.take()).collect();
        assert!(!slots.make_room());
        assert!(revoked(&taken).is_empty());
        taken.extend((0..4).map(|_| slots.take()));
        assert!(slots.make_room());
        assert_eq!(revoked(&taken), [0, 1, 2, 3, 4]);
    }

    #[test]
    fn oldest_slot_can_be_revoked_before_all_are_taken() {
        let slots = Arc::new(Slots::new(9));
        assert!(!slots.revoke_oldest());
        let taken: Vec<_> = (0..2).map(|_| slots.take()).collect();
        assert!(slots.revoke_oldest());
        assert_eq!((revoked(&taken), slots.len()), (vec![0], 1));
    }

    #[test]
    fn renewed_slot_is_the_newest_and_revokes_no_other() {
        let slots = Arc::new(Slots::new(2));
        let mut taken: Vec<_> = (0..2).map(|_| slots.take()).collect();
        taken[0].renew();
        assert!(revoked(&taken).is_empty());
        taken.push(slots.take());
        assert_eq!(revoked(&taken), [1]);
        taken[1].renew();
        assert_eq!((revoked(&taken), slots.len()), (vec![1], 2), "a revoked slot stays revoked");
    }
}
