//! Slots in shards with common free slots. The oldest is revoked for the next when none is free.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Instant;

use shuttle::rand::{Rng, thread_rng};
use shuttle::thread;

use super::{block_on, check};
use crate::limits::slots::Slots;

/// Each holder of a slot waits until it is revoked, or has the last one.
#[test]
fn every_revoked_slot_is_told() {
    check(|| {
        let slots = Arc::new(Slots::sharded(1, 2));
        let holders = [0, 1].map(|shard| {
            let slot = slots.take(shard, Instant::now());
            thread::spawn(move || block_on(slot.revoked()))
        });
        let taker = {
            let slots = Arc::clone(&slots);
            thread::spawn(move || slots.take(1, Instant::now()))
        };
        let mut last = [slots.take(0, Instant::now()), taker.join().unwrap()];
        holders.into_iter().for_each(|holder| holder.join().unwrap());
        assert_eq!(last.iter().filter(|slot| slot.is_revoked()).count(), 1);
        last.iter_mut().for_each(|slot| slot.renew(Instant::now()));
        assert_eq!((slots.len(), slots.free()), (1, 0));
        drop(last);
        assert_eq!((slots.len(), slots.free()), (0, 1));
    });
}

/// Slots of several shards end, are renewed and are revoked at once.
#[test]
fn slot_is_freed_or_revoked_and_never_both() {
    check(|| {
        let slots = Arc::new(Slots::sharded(2, 3));
        let takers = [0, 1, 2].map(|shard| {
            let slots = Arc::clone(&slots);
            thread::spawn(move || {
                for _ in 0..2 {
                    let mut slot = slots.borrow(shard, Instant::now());
                    if thread_rng().gen_bool(0.5) {
                        slot.renew(Instant::now());
                    }
                    if shard == 2 {
                        slots.revoke_oldest();
                    }
                }
            })
        });
        takers.into_iter().for_each(|taker| taker.join().unwrap());
        assert_eq!((slots.len(), slots.free()), (0, 2), "a slot is lost, or there is one more");
    });
}

/// As many tasks as there are slots hold one. Slots come back in blocks, to any shard.
#[test]
fn no_slot_is_revoked_while_one_is_free() {
    check(|| {
        let slots = Arc::new(Slots::sharded(3, 2));
        let first = slots.take(0, Instant::now());
        // Not instrumented: it counts what the check holds, and is no part of it.
        let revoked = Arc::new(AtomicUsize::new(0));
        let takers = [0, 1].map(|shard| {
            let (slots, revoked) = (Arc::clone(&slots), Arc::clone(&revoked));
            thread::spawn(move || {
                for _ in 0..3 {
                    let slot = slots.take(shard, Instant::now());
                    revoked.fetch_add(usize::from(slot.is_revoked()), SeqCst);
                }
            })
        });
        takers.into_iter().for_each(|taker| taker.join().unwrap());
        assert!(!first.is_revoked() && revoked.load(SeqCst) == 0, "two others were free");
        drop(first);
        assert_eq!((slots.len(), slots.free()), (0, 3));
    });
}
