//! What the relay has done so far, in counters that any worker may add to. What each of them counts is said where it can
//! be read: at [`Counters`].

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::telemetry::events::Outcome;
use crate::telemetry::rejection::Rejection;
use crate::websocket::reframer::Tally;

/// Counters since the start. They are independent of each other, hence the relaxed ordering.
#[derive(Debug, Default)]
pub(crate) struct Telemetry {
    opened: AtomicU64,
    rejected: [AtomicU64; Rejection::ALL.len()],
    closed: [AtomicU64; Outcome::ALL.len()],
    forwarded: AtomicU64,
    dropped: AtomicU64,
    bytes: AtomicU64,
    pings: AtomicU64,
    throttled: AtomicU64,
    squeezed: AtomicU64,
    panics: AtomicU64,
    accept_errors: AtomicU64,
}

/// What a relay has done since its start, and what it has at the moment. Each number is right by itself; together they
/// may be a moment apart.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counters {
    /// WebSockets that are open, those that are being closed included.
    pub connections: u64,
    /// Pair codes with one side that waits.
    pub waiting: usize,
    /// Pair codes with two sides.
    pub paired: usize,
    /// How many clients were not let in, for each reason.
    pub rejected: Vec<(Rejection, u64)>,
    /// How many WebSockets have ended, for each way to.
    pub closed: Vec<(Outcome, u64)>,
    /// Messages that were forwarded or dropped, and the bytes of the first.
    pub messages: Tally,
    /// Connections whose closing handshake takes longer than 5 s, because much is in flight to their clients.
    pub lingering: usize,
    /// Pings that clients were sent because they were quiet, or a third client wanted their seat.
    pub pings: u64,
    /// How often a client was not read from for a while, as a rate was used up.
    pub throttled: u64,
    /// How often there was no buffer of the size that a client's stream asked for, as their memory was used up, and it was
    /// read from in a small part.
    pub squeezed: u64,
    /// Takeover probes: a pair was asked whether it is there, because a third client wanted a seat.
    pub probes: u64,
    /// Connections that met a bug of the relay.
    pub panics: u64,
    /// How often a connection could not be accepted.
    pub accept_errors: u64,
}

/// What the shared table counts.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    /// Codes with one side.
    pub(crate) waiting: usize,
    /// Codes with two.
    pub(crate) paired: usize,
    /// Takeover probes so far.
    pub(crate) probes: u64,
    /// Connections whose closing handshake takes long.
    pub(crate) lingering: usize,
}

impl Telemetry {
    /// Adds what a connection's tally has grown by.
    pub(crate) fn count(&self, before: Tally, after: Tally) {
        let add = |counter: &AtomicU64, before, after| {
            if after > before {
                counter.fetch_add(after - before, Relaxed);
            }
        };
        add(&self.forwarded, before.forwarded, after.forwarded);
        add(&self.dropped, before.dropped, after.dropped);
        add(&self.bytes, before.bytes, after.bytes);
    }

    pub(crate) fn tally(&self) -> Tally {
        Tally { forwarded: get(&self.forwarded), dropped: get(&self.dropped), bytes: get(&self.bytes) }
    }

    /// A WebSocket begins.
    pub(crate) fn opened(&self) {
        increment(&self.opened);
    }

    /// A WebSocket has ended.
    pub(crate) fn closed(&self, outcome: Outcome) {
        increment(&self.closed[outcome as usize]);
        if outcome == Outcome::Panicked {
            self.panicked();
        }
    }

    pub(crate) fn rejected(&self, reason: Rejection) {
        increment(&self.rejected[reason as usize]);
    }

    pub(crate) fn pinged(&self) {
        increment(&self.pings);
    }

    pub(crate) fn throttled(&self) {
        increment(&self.throttled);
    }

    pub(crate) fn squeezed(&self) {
        increment(&self.squeezed);
    }

    pub(crate) fn panicked(&self) {
        increment(&self.panics);
    }

    pub(crate) fn accept_failed(&self) {
        increment(&self.accept_errors);
    }

    /// All of them, beside what is counted elsewhere.
    pub(crate) fn counters(&self, Counts { waiting, paired, probes, lingering }: Counts) -> Counters {
        // Those that have ended are read first, as each of them was opened before.
        let closed: Vec<_> =
            Outcome::ALL.iter().map(|&outcome| (outcome, get(&self.closed[outcome as usize]))).collect();
        let ended: u64 = closed.iter().map(|(_, count)| count).sum();
        Counters {
            connections: get(&self.opened).saturating_sub(ended),
            waiting,
            paired,
            rejected: Rejection::ALL.iter().map(|&reason| (reason, get(&self.rejected[reason as usize]))).collect(),
            closed,
            messages: self.tally(),
            lingering,
            pings: get(&self.pings),
            throttled: get(&self.throttled),
            squeezed: get(&self.squeezed),
            probes,
            panics: get(&self.panics),
            accept_errors: get(&self.accept_errors),
        }
    }
}

fn increment(counter: &AtomicU64) {
    counter.fetch_add(1, Relaxed);
}

fn get(counter: &AtomicU64) -> u64 {
    counter.load(Relaxed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_tally_has_grown_by_counts() {
        let telemetry = Telemetry::default();
        let tally = |forwarded, dropped, bytes| Tally { forwarded, dropped, bytes };
        telemetry.count(tally(2, 3, 5), tally(2, 7, 5));
        telemetry.count(tally(2, 7, 5), tally(12, 7, 25));
        assert_eq!(telemetry.tally(), tally(10, 4, 20));
    }

    #[test]
    fn each_reason_and_outcome_has_a_counter_of_its_own() {
        let telemetry = Telemetry::default();
        let times = |nth: usize| 0..=nth;
        for (nth, &reason) in Rejection::ALL.iter().enumerate() {
            times(nth).for_each(|_| telemetry.rejected(reason));
        }
        for (nth, &outcome) in Outcome::ALL.iter().enumerate() {
            times(nth).for_each(|_| telemetry.opened());
            times(nth).for_each(|_| telemetry.closed(outcome));
        }
        telemetry.opened();
        let Counters { connections, rejected, closed, panics, .. } = telemetry.counters(Counts::default());
        assert!(rejected.iter().zip(1..).all(|((_, count), nth)| *count == nth), "{rejected:?}");
        assert!(closed.iter().zip(1..).all(|((_, count), nth)| *count == nth), "{closed:?}");
        assert_eq!(connections, 1);
        assert_eq!(panics, closed.last().unwrap().1, "a connection that panicked counts as a panic");
    }
}
