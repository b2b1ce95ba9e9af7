//! Newcomers with the side identity of a client, whatever else happens to it at that moment.
//!
//! It departs, expires, is probed, or is told of the stop.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use futures_lite::future::poll_once;
use shuttle::thread::{self, JoinHandle};

use super::seats::{ROOMY, claim, claims, depart, is_deserted, seats, told};
use super::stage::Still;
use super::{block_on, check};
use crate::limits::pair_rate::Rates;
use crate::pairing::join::Join;
use crate::pairing::link::{CloseCause, Next, SpareChannels};
use crate::pairing::seats::{Claim, Seats};
use crate::telemetry::rejection::Rejection;

/// The code of all clients, with a side identity.
const PHONE: &str = "x&side=phone";
const DAEMON: &str = "x&side=daemon";

const LONG: Duration = Duration::from_secs(60);

/// A connection that looks at its seat and its link when it is woken, until it is told of its end.
///
/// It returns the cause.
fn lives(mut claim: Claim) -> JoinHandle<CloseCause> {
    thread::spawn(move || {
        let channels = SpareChannels::default();
        let cause = block_on(poll_fn(|cx| {
            claim.seat.attend(cx.waker().clone());
            if claim.seat.is_replaced() {
                return Poll::Ready(CloseCause::Replaced);
            }
            if claim.seat.is_called() {
                claim.seat.answer();
            }
            match claim.end.incoming.poll_next(cx, &channels) {
                Poll::Ready(Next::End(cause)) => Poll::Ready(cause),
                Poll::Ready(Next::Batch(_)) => unreachable!("none was sent"),
                Poll::Pending => Poll::Pending,
            }
        }));
        depart(claim, if cause == CloseCause::Replaced { CloseCause::Lost } else { CloseCause::Left });
        cause
    })
}

/// A pair of a phone and its daemon.
fn pair(seats: &Arc<Seats>) -> [JoinHandle<CloseCause>; 2] {
    [(PHONE, 0), (DAEMON, 1)].map(|(side, worker)| claim(seats, side, worker).unwrap()).map(lives)
}

/// Ends a side that waits, or has a peer that is gone.
fn end(seats: &Seats, side: Claim) {
    depart(side, CloseCause::Left);
    assert!(is_deserted(seats));
}

#[test]
fn client_of_a_pair_is_told_that_it_is_replaced_and_its_peer_that_it_is_lost() {
    check(|| {
        let seats = seats(LONG, ROOMY);
        let [phone, daemon] = pair(&seats);
        let newcomer = claim(&seats, PHONE, 1).unwrap();
        assert_eq!(phone.join().unwrap(), CloseCause::Replaced);
        assert_eq!(daemon.join().unwrap(), CloseCause::Lost);
        assert_eq!((seats.counts().waiting, seats.counts().paired), (1, 0));
        end(&seats, newcomer);
    });
}

#[test]
fn of_clients_with_one_side_one_stays_and_the_others_are_told() {
    check(|| {
        let seats = seats(LONG, ROOMY);
        let claims: Vec<_> = claims(&seats, &[PHONE; 3]).into_iter().map(Result::unwrap).collect();
        assert_eq!((seats.counts().waiting, seats.counts().paired), (1, 0));
        let (mut stays, mut replaced) = (None, 0);
        for mut claim in claims {
            let mut next = poll_fn(|cx| claim.end.incoming.poll_next(cx, &SpareChannels::default()));
            match block_on(poll_once(&mut next)) {
                None => assert!(stays.replace(claim).is_none(), "two stay"),
                Some(end) => {
                    assert!(matches!(end, Next::End(CloseCause::Replaced)));
                    replaced += 1;
                }
            }
        }
        assert_eq!(replaced, 2);
        end(&seats, stays.unwrap());
    });
}

#[test]
fn client_departs_or_is_replaced() {
    check(|| {
        let seats = seats(LONG, ROOMY);
        let [phone, daemon] = [PHONE, DAEMON].map(|side| claim(&seats, side, 0).unwrap());
        let daemon = lives(daemon);
        let departs = thread::spawn(move || depart(phone, CloseCause::Left));
        let newcomer = claim(&seats, PHONE, 1).unwrap();
        departs.join().unwrap();
        assert_eq!(daemon.join().unwrap(), CloseCause::Left, "it has left, whatever else happens");
        assert_eq!((seats.counts().waiting, seats.counts().paired), (1, 0));
        end(&seats, newcomer);
    });
}

#[test]
fn wait_ends_by_its_deadline_or_by_a_newcomer_and_never_by_both() {
    check(|| {
        let seats = seats(Duration::ZERO, ROOMY);
        let mut first = claim(&seats, PHONE, 0).unwrap();
        let expires = [0, 1].map(|worker| {
            let seats = Arc::clone(&seats);
            thread::spawn(move || assert!(block_on(poll_once(seats.expire(worker))).is_none()))
        });
        let mut newcomer = claim(&seats, PHONE, 1).unwrap();
        assert!(matches!(told(&mut first), CloseCause::Replaced | CloseCause::Expired));
        expires.into_iter().for_each(|expires| expires.join().unwrap());
        if seats.counts().waiting == 0 {
            assert_eq!(told(&mut newcomer), CloseCause::Expired);
        }
        drop(first);
        end(&seats, newcomer);
    });
}

/// A third client wants a seat of the pair while one of its clients comes again.
#[test]
fn client_that_is_probed_is_replaced_all_the_same() {
    check(|| {
        let clock = Arc::new(Still(Instant::now()));
        let seats = Arc::new(Seats::new(2, LONG, ROOMY, Duration::from_secs(2), Rates::default(), clock));
        let [phone, daemon] = pair(&seats);
        let third = {
            let (seats, join) = (Arc::clone(&seats), Join::from_target("/?pair=x&side=third").unwrap());
            thread::spawn(move || block_on(seats.join(join, 0)))
        };
        let newcomer = claim(&seats, PHONE, 1).unwrap();
        assert_eq!(phone.join().unwrap(), CloseCause::Replaced);
        assert_eq!(daemon.join().unwrap(), CloseCause::Lost);
        match third.join().unwrap() {
            Ok(third) => {
                assert_eq!((seats.counts().waiting, seats.counts().paired), (0, 1));
                assert!(!third.seat.is_called() && !newcomer.seat.is_called());
                depart(third, CloseCause::Left);
            }
            Err(rejection) => {
                assert_eq!(rejection, Rejection::PairFull, "the pair had answered before");
                assert_eq!((seats.counts().waiting, seats.counts().paired), (1, 0));
            }
        }
        end(&seats, newcomer);
    });
}

#[test]
fn client_is_told_of_the_stop_or_of_a_newcomer() {
    check(|| {
        let seats = seats(LONG, ROOMY);
        let mut first = claim(&seats, PHONE, 0).unwrap();
        let stop = {
            let seats = Arc::clone(&seats);
            thread::spawn(move || block_on(seats.close()))
        };
        match claim(&seats, PHONE, 1) {
            Ok(mut newcomer) => {
                assert_eq!(told(&mut first), CloseCause::Replaced);
                assert_eq!(told(&mut newcomer), CloseCause::Stopping);
            }
            Err(rejection) => {
                assert_eq!(rejection, Rejection::Stopping);
                assert_eq!(told(&mut first), CloseCause::Stopping);
            }
        }
        stop.join().unwrap();
        end(&seats, first);
    });
}
