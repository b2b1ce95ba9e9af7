//! Counters of what the relay has done, shared by all workers.
//!
//! [`Counters`] documents what each of them counts.

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

/// What a relay has done since its start, and its current state.
///
/// Each number is right by itself. Two of them may be a moment apart.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counters {
    /// Open WebSockets, closing ones included.
    pub connections: u64,
    /// Pair codes with one side, which waits.
    pub waiting: usize,
    /// Pair codes with two sides.
    pub paired: usize,
    /// Rejected clients, by reason.
    pub rejected: Vec<(Rejection, u64)>,
    /// Ended WebSockets, by outcome.
    pub closed: Vec<(Outcome, u64)>,
    /// Messages forwarded and dropped, and the bytes of the forwarded ones.
    pub messages: Tally,
    /// Connections in a closing handshake of more than 5 s, because much is in flight to their clients.
    pub lingering: usize,
    /// Pings to clients that were quiet, or for a takeover probe.
    pub pings: u64,
    /// Pauses in reading from a client because a rate was used up.
    pub throttled: u64,
    /// Reads into a smaller buffer than the stream asked for, as the buffers' memory was used up.
    pub squeezed: u64,
    /// Takeover probes: pairs that were asked for a sign of life because a third client wanted a seat.
    pub probes: u64,
    /// Connections that met a bug of the relay.
    pub panics: u64,
    /// Failed accepts.
    pub accept_errors: u64,
}

/// Numbers from the shared table of pairs.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    /// Pair codes with one side.
    pub(crate) waiting: usize,
    /// Pair codes with two sides.
    pub(crate) paired: usize,
    /// Takeover probes so far.
    pub(crate) probes: u64,
    /// Connections in a closing handshake of more than 5 s.
    pub(crate) lingering: usize,
}

impl Telemetry {
    /// Adds the growth of a connection's tally. Whether messages were dropped.
    pub(crate) fn count(&self, before: Tally, after: Tally) -> bool {
        let add = |counter: &AtomicU64, before, after| {
            if after > before {
                counter.fetch_add(after - before, Relaxed);
            }
            after > before
        };
        add(&self.forwarded, before.forwarded, after.forwarded);
        add(&self.bytes, before.bytes, after.bytes);
        add(&self.dropped, before.dropped, after.dropped)
    }

    fn tally(&self) -> Tally {
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

    /// All counters, with the numbers from the table.
    pub(crate) fn counters(&self, Counts { waiting, paired, probes, lingering }: Counts) -> Counters {
        // Ends are read before beginnings, so that no end is seen without its beginning.
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
    fn count_adds_the_growth_of_a_tally() {
        let telemetry = Telemetry::default();
        let tally = |forwarded, dropped, bytes| Tally { forwarded, dropped, bytes };
        assert!(telemetry.count(tally(2, 3, 5), tally(2, 7, 5)));
        assert!(!telemetry.count(tally(2, 7, 5), tally(12, 7, 25)));
        assert_eq!(telemetry.tally(), tally(10, 4, 20));
    }

    #[test]
    fn reasons_and_outcomes_have_separate_counters() {
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
