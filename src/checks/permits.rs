//! Permits: exactly as many as the limit, whatever the order of takers and returns is.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use shuttle::thread;

use super::check;
use crate::limits::permits::Permits;

/// Permits move between shares while each share is looked at.
#[test]
fn no_permit_is_refused_while_one_is_left() {
    check(|| {
        let permits = Arc::new(Permits::new(2, 2));
        let takers = [0, 1].map(|nth| {
            let permits = Arc::clone(&permits);
            thread::spawn(move || {
                for _ in 0..2 {
                    assert!(permits.withdraw(nth), "one was left");
                    permits.deposit(1 - nth, 1);
                }
            })
        });
        takers.into_iter().for_each(|taker| taker.join().unwrap());
        assert!(permits.withdraw(0) && permits.withdraw(0) && !permits.withdraw(0));
    });
}

#[test]
fn permits_are_not_found_empty_while_one_is_left() {
    check(|| {
        let permits = Arc::new(Permits::new(2, 2));
        // Both are in one share, and then in the other one.
        assert!(permits.withdraw(0));
        permits.deposit(1, 1);
        let moved = Arc::clone(&permits);
        let taker = thread::spawn(move || {
            for _ in 0..2 {
                assert!(moved.withdraw(1));
                moved.deposit(0, 1);
            }
        });
        assert!(!permits.is_empty());
        taker.join().unwrap();
    });
}

#[test]
fn no_more_permits_than_the_limit_are_taken() {
    check(|| {
        let permits = Arc::new(Permits::new(2, 2));
        // Not instrumented: it counts what the check holds, and is no part of it.
        let held = Arc::new(AtomicUsize::new(0));
        let takers = [0, 0, 1].map(|share| {
            let (permits, held) = (Arc::clone(&permits), Arc::clone(&held));
            thread::spawn(move || {
                for _ in 0..2 {
                    if let Some(permit) = permits.take(share) {
                        assert!(held.fetch_add(1, SeqCst) < 2, "more than the limit");
                        thread::yield_now();
                        held.fetch_sub(1, SeqCst);
                        drop(permit);
                    }
                }
            })
        });
        takers.into_iter().for_each(|taker| taker.join().unwrap());
        let all = [0, 0].map(|share| permits.take(share));
        assert!(all.iter().all(Option::is_some) && permits.take(1).is_none() && permits.is_empty());
    });
}
