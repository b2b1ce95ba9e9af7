//! Takeover probes: third clients, and a pair that answers or departs, on other threads.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_lite::future::poll_once;
use shuttle::thread::{self, JoinHandle};

use super::stage::Still;
use super::{Signal, block_on, check};
use crate::limits::capacity::EffectiveLimits;
use crate::limits::pair_rate::Rates;
use crate::pairing::join::Join;
use crate::pairing::seats::{Claim, Seats};
use crate::telemetry::rejection::Rejection;

fn join() -> Join {
    Join::from_target("/?pair=x").unwrap()
}

/// A pair, in seats where clients can be probed.
fn pair() -> (Arc<Seats>, [Claim; 2]) {
    let (clock, limits) = (Arc::new(Still(Instant::now())), EffectiveLimits::ROOMY);
    let (ttl, probe_timeout) = (Duration::from_secs(60), Duration::from_secs(2));
    let seats = Arc::new(Seats::new(2, ttl, limits, probe_timeout, Rates::default(), clock));
    let pair = [0, 1].map(|worker| seats.claim(join(), worker).unwrap());
    (seats, pair)
}

/// A connection that answers when it is asked, until it is told that all is over. It returns its claim.
fn answers(claim: Claim, over: &Arc<Signal>) -> JoinHandle<Claim> {
    let over = Arc::clone(over);
    thread::spawn(move || {
        block_on(poll_fn(|cx| {
            claim.seat.attend(cx.waker().clone());
            if claim.seat.is_asked() {
                claim.seat.answer();
            }
            over.poll(cx)
        }));
        claim
    })
}

#[test]
fn third_client_gets_the_code_of_a_side_that_departs() {
    check(|| {
        let (seats, [stays, departs]) = pair();
        let over = Arc::new(Signal::default());
        let stays = answers(stays, &over);
        let departs = thread::spawn(move || drop(departs));
        // If the side departs in time, there is no pair to be asked.
        let joined = block_on(seats.join(join(), 1));
        let rejection = joined.as_ref().err().copied();
        over.give();
        let stays = stays.join().unwrap();
        departs.join().unwrap();
        assert_eq!(rejection, None);
        assert!(!stays.seat.is_asked());
    });
}

#[test]
fn third_clients_are_refused_by_a_pair_that_answers() {
    check(|| {
        let (seats, pair) = pair();
        let over = Arc::new(Signal::default());
        let pair = pair.map(|side| answers(side, &over));
        let other = {
            let seats = Arc::clone(&seats);
            thread::spawn(move || block_on(seats.join(join(), 0)).unwrap_err())
        };
        assert_eq!(block_on(seats.join(join(), 1)).unwrap_err(), Rejection::PairFull);
        assert_eq!(other.join().unwrap(), Rejection::PairFull);
        over.give();
        let pair = pair.map(|side| side.join().unwrap());
        assert!(pair.iter().all(|side| !side.seat.is_asked()));
        assert_eq!((seats.pairs(), seats.counts().probes), (1, 1));
    });
}

/// A third client leaves within its probe, while one side answers and the other departs.
#[test]
fn no_question_outlives_its_probe() {
    check(|| {
        let (seats, [stays, departs]) = pair();
        let over = Arc::new(Signal::default());
        let stays = answers(stays, &over);
        let departs = thread::spawn(move || drop(departs));
        let third = thread::spawn(move || block_on(poll_once(seats.join(join(), 1))).is_some());
        third.join().unwrap();
        departs.join().unwrap();
        over.give();
        let stays = stays.join().unwrap();
        assert!(!stays.seat.is_asked());
    });
}
