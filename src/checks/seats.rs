//! Seats under joins, departures, expiry, recalls and the stop on several threads.

use std::future::{poll_fn, ready};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_lite::future::poll_once;
use shuttle::thread;

use super::{block_on, check};
use crate::limits::capacity::EffectiveLimits;
use crate::limits::pair_rate::Rates;
use crate::pairing::join::Join;
use crate::pairing::link::{CloseCause, Next, SpareChannels};
use crate::pairing::seats::{Claim, Seats};
use crate::runtime::clock::{Clock, Sleep};
use crate::telemetry::rejection::Rejection;

pub(super) const ROOMY: EffectiveLimits = EffectiveLimits::ROOMY;

/// A clock on which every deadline has passed.
#[derive(Debug)]
struct Late;

impl Clock for Late {
    fn now(&self) -> Instant {
        Instant::now()
    }

    fn sleep_until(&self, _: Instant) -> Sleep {
        Box::pin(ready(()))
    }

    fn since_epoch(&self) -> Duration {
        Duration::ZERO
    }
}

/// Seats in eight shards, for two workers.
pub(super) fn seats(ttl: Duration, limits: EffectiveLimits) -> Arc<Seats> {
    Arc::new(Seats::new(2, ttl, limits, Duration::ZERO, Rates::default(), Arc::new(Late)))
}

pub(super) fn claim(seats: &Arc<Seats>, code: &str, worker: usize) -> Result<Claim, Rejection> {
    seats.claim(Join::from_target(&format!("/?pair={code}")).unwrap(), worker)
}

/// Departs as a connection does: the code is free first.
pub(super) fn depart(claim: Claim, cause: CloseCause) {
    drop(claim.seat);
    claim.end.outgoing.finish(None, cause);
}

/// Waits for what the link tells at its end.
pub(super) fn told(claim: &mut Claim) -> CloseCause {
    let channels = SpareChannels::default();
    match block_on(poll_fn(|cx| claim.end.incoming.poll_next(cx, &channels))) {
        Next::End(cause) => cause,
        Next::Batch(_) => unreachable!("none was sent"),
    }
}

pub(super) fn is_deserted(seats: &Seats) -> bool {
    let counts = seats.counts();
    (counts.waiting, counts.paired, seats.pairs()) == (0, 0, 0)
}

/// Threads that claim a seat each, all at once. They hold what they get.
pub(super) fn claims(seats: &Arc<Seats>, codes: &[&'static str]) -> Vec<Result<Claim, Rejection>> {
    let claim = |(nth, &code): (usize, &&'static str)| {
        let seats = Arc::clone(seats);
        thread::spawn(move || claim(&seats, code, nth % 2))
    };
    let threads: Vec<_> = codes.iter().enumerate().map(claim).collect();
    threads.into_iter().map(|thread| thread.join().unwrap()).collect()
}

#[test]
fn of_three_clients_with_a_code_two_are_joined() {
    check(|| {
        let seats = seats(Duration::from_secs(60), ROOMY);
        let (joined, rejected): (Vec<_>, Vec<_>) = claims(&seats, &["x"; 3]).into_iter().partition(Result::is_ok);
        assert_eq!(rejected.into_iter().map(Result::unwrap_err).collect::<Vec<_>>(), [Rejection::PairFull]);
        let mut joined: Vec<_> = joined.into_iter().map(Result::unwrap).collect();
        assert_eq!((seats.counts().paired, seats.pairs()), (1, 1));
        assert_eq!(joined[0].worker, joined[1].worker, "a pair runs on one worker");
        let (mut stays, leaves) = (joined.pop().unwrap(), joined.pop().unwrap());
        let leaver = thread::spawn(move || depart(leaves, CloseCause::Left));
        assert_eq!(told(&mut stays), CloseCause::Left);
        assert!(is_deserted(&seats), "the code is free before the peer is told");
        leaver.join().unwrap();
    });
}

/// Two come and leave at once, and one waits until it is told something.
#[test]
fn every_client_is_told_of_its_end() {
    check(|| {
        let seats = seats(Duration::from_secs(60), ROOMY);
        let leavers = [0, 1].map(|worker| {
            let seats = Arc::clone(&seats);
            thread::spawn(move || match claim(&seats, "x", worker) {
                Ok(claim) => depart(claim, CloseCause::Left),
                Err(rejection) => assert_eq!(rejection, Rejection::PairFull),
            })
        });
        let stayer = {
            let seats = Arc::clone(&seats);
            thread::spawn(move || claim(&seats, "x", 1).map(|mut claim| told(&mut claim)))
        };
        leavers.into_iter().for_each(|leaver| leaver.join().unwrap());
        block_on(seats.close());
        match stayer.join().unwrap() {
            Ok(cause) => assert!(matches!(cause, CloseCause::Left | CloseCause::Stopping)),
            Err(rejection) => assert!(matches!(rejection, Rejection::PairFull | Rejection::Stopping)),
        }
        assert!(is_deserted(&seats));
    });
}

/// As many clients are admitted as a limit says, and again when these have left.
///
/// Their codes are in several shards.
fn admits(limits: EffectiveLimits, codes: &[&'static str], expected: usize) {
    let seats = seats(Duration::from_secs(60), limits);
    for _ in 0..2 {
        let claims = claims(&seats, codes);
        let mut rejections = claims.iter().filter_map(|claim| claim.as_ref().err());
        assert!(rejections.all(|rejection| *rejection == Rejection::RelayFull));
        assert_eq!(claims.iter().filter(|claim| claim.is_ok()).count(), expected);
        // They leave at the same time.
        let leavers = claims.into_iter().flatten().map(|claim| thread::spawn(move || drop(claim)));
        leavers.collect::<Vec<_>>().into_iter().for_each(|leaver| leaver.join().unwrap());
        assert!(is_deserted(&seats));
    }
}

#[test]
fn limit_of_connections_is_exact() {
    check(|| admits(EffectiveLimits { connections: 2, ..ROOMY }, &["x", "y", "z"], 2));
}

#[test]
fn limit_of_waiting_sides_is_exact_and_refuses_no_second_side() {
    check(|| admits(EffectiveLimits { waiting: 2, ..ROOMY }, &["x", "y", "z"], 2));
    check(|| admits(EffectiveLimits { waiting: 1, ..ROOMY }, &["x", "x"], 2));
}

#[test]
fn limit_of_codes_is_exact_and_refuses_no_second_side() {
    check(|| admits(EffectiveLimits { codes: 2, ..ROOMY }, &["x", "y", "z"], 2));
    check(|| admits(EffectiveLimits { codes: 1, ..ROOMY }, &["x", "x"], 2));
}

/// A wait ends at its deadline while a second side comes: the two are joined, or the first has expired.
#[test]
fn side_expires_or_is_joined_and_never_both() {
    check(|| {
        let seats = seats(Duration::ZERO, ROOMY);
        let mut first = claim(&seats, "x", 0).unwrap();
        let expires = [0, 1].map(|worker| {
            let seats = Arc::clone(&seats);
            thread::spawn(move || assert!(block_on(poll_once(seats.expire(worker))).is_none()))
        });
        let second = claim(&seats, "x", 1).unwrap();
        expires.into_iter().for_each(|expires| expires.join().unwrap());
        match seats.counts() {
            counts if counts.paired == 1 => depart(second, CloseCause::Left),
            _ => drop(second), // the first of a pair that never was
        }
        assert!(matches!(told(&mut first), CloseCause::Left | CloseCause::Expired));
        assert!(is_deserted(&seats));
    });
}

/// A recall comes while a second side joins: the two are joined, or the first is to come again.
#[test]
fn side_is_recalled_or_joined_and_never_both() {
    check(|| {
        let seats = seats(Duration::from_secs(60), ROOMY);
        let mut first = claim(&seats, "x", 0).unwrap();
        let recall = {
            let seats = Arc::clone(&seats);
            thread::spawn(move || block_on(seats.recall()))
        };
        let second = claim(&seats, "x", 1).unwrap();
        let recalled = recall.join().unwrap();
        match seats.counts() {
            counts if counts.paired == 1 => {
                assert_eq!(recalled, 0);
                depart(second, CloseCause::Left);
                assert_eq!(told(&mut first), CloseCause::Left);
            }
            _ => {
                assert!(recalled > 0);
                assert_eq!(told(&mut first), CloseCause::Recalled);
                drop(second); // the first of a pair that never was
            }
        }
        assert!(is_deserted(&seats));
    });
}
