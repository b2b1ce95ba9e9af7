//! Counters of what the relay has done: each worker has its own, and a reader adds them up.
//!
//! So counting a batch needs no locked instruction, and takes no cache line from another worker. [`Counters`] documents
//! what each of them counts.

use std::cell::Cell;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use super::counter::Counter;
use super::histogram::{DURATIONS, Distribution, Histogram, WAITS};
use crate::runtime::sync::{Mutex, lock};
use crate::telemetry::events::Outcome;
use crate::telemetry::rejection::Rejection;
use crate::websocket::reframer::Tally;

/// The counters of one worker, which it alone may change.
///
/// This is neither `Sync` nor `Clone`, so one thread at a time has it.
#[derive(Debug, Default)]
pub(crate) struct Telemetry {
    counters: Arc<WorkerCounters>,
    _single_writer: PhantomData<Cell<()>>,
}

/// The counters of all workers.
#[derive(Debug, Default)]
pub(crate) struct RelayTelemetry(Mutex<Vec<Arc<WorkerCounters>>>);

/// The counters of one worker, since the start.
///
/// No two workers share a cache line. That takes 128 bytes: Intel's processors fetch lines of 64 bytes in pairs, and some
/// of ARM's have lines of 128.
#[derive(Debug, Default)]
#[repr(align(128))]
struct WorkerCounters {
    opened: Counter,
    rejected: [Counter; Rejection::ALL.len()],
    closed: [Counter; Outcome::ALL.len()],
    forwarded: Counter,
    dropped: Counter,
    bytes: Counter,
    pings: Counter,
    throttled: Counter,
    squeezed: Counter,
    panics: Counter,
    accept_errors: Counter,
    unmet: Counter,
    waits: Histogram,
    durations: Histogram,
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
    /// First sides that ended before a second one came.
    pub unmet: u64,
    /// How long first sides waited for the second ones that came.
    pub pair_waits: Distribution,
    /// How long pairs lasted that have ended, from the arrival of the second side to its end.
    pub pair_durations: Distribution,
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
        let add = |counter: &Counter, before, after| {
            if after > before {
                counter.add(after - before);
            }
            after > before
        };
        add(&self.counters.forwarded, before.forwarded, after.forwarded);
        add(&self.counters.bytes, before.bytes, after.bytes);
        add(&self.counters.dropped, before.dropped, after.dropped)
    }

    /// A WebSocket begins.
    pub(crate) fn opened(&self) {
        self.counters.opened.add(1);
    }

    /// A WebSocket has ended. It began on the same worker.
    pub(crate) fn closed(&self, outcome: Outcome) {
        self.counters.closed[outcome as usize].add(1);
        if outcome == Outcome::Panicked {
            self.panicked();
        }
    }

    pub(crate) fn rejected(&self, reason: Rejection) {
        self.counters.rejected[reason as usize].add(1);
    }

    pub(crate) fn pinged(&self) {
        self.counters.pings.add(1);
    }

    pub(crate) fn throttled(&self) {
        self.counters.throttled.add(1);
    }

    pub(crate) fn squeezed(&self) {
        self.counters.squeezed.add(1);
    }

    pub(crate) fn panicked(&self) {
        self.counters.panics.add(1);
    }

    pub(crate) fn accept_failed(&self) {
        self.counters.accept_errors.add(1);
    }

    /// A second side came to a first one, which has waited for so long.
    pub(crate) fn met(&self, wait: Duration) {
        self.counters.waits.observe(&WAITS, wait);
    }

    /// A first side has ended before a second one came.
    pub(crate) fn unmet(&self) {
        self.counters.unmet.add(1);
    }

    /// A pair has ended, which lasted for so long.
    pub(crate) fn parted(&self, duration: Duration) {
        self.counters.durations.observe(&DURATIONS, duration);
    }

    /// All counters of this worker, for tests.
    #[cfg(test)]
    pub(crate) fn counters(&self) -> Counters {
        RelayTelemetry(Mutex::new(vec![Arc::clone(&self.counters)])).counters(Counts::default())
    }
}

impl RelayTelemetry {
    /// The counters of one more worker.
    pub(crate) fn add_worker(&self) -> Telemetry {
        let telemetry = Telemetry::default();
        lock(&self.0).push(Arc::clone(&telemetry.counters));
        telemetry
    }

    /// All counters, with the numbers from the table.
    pub(crate) fn counters(&self, Counts { waiting, paired, probes, lingering }: Counts) -> Counters {
        let workers = lock(&self.0);
        let sum = |counter: fn(&WorkerCounters) -> &Counter| workers.iter().map(|worker| counter(worker).get()).sum();
        // Ends are read before beginnings, so that no end is seen without its beginning. That holds across workers, as a
        // connection begins and ends on the same one.
        let closed: Vec<_> = Outcome::ALL
            .iter()
            .map(|&outcome| (outcome, workers.iter().map(|worker| worker.closed[outcome as usize].get()).sum::<u64>()))
            .collect();
        let ended: u64 = closed.iter().map(|(_, count)| count).sum();
        let opened: u64 = sum(|worker| &worker.opened);
        let rejected = |reason| workers.iter().map(|worker| worker.rejected[reason as usize].get()).sum();
        Counters {
            connections: opened.saturating_sub(ended),
            waiting,
            paired,
            rejected: Rejection::ALL.iter().map(|&reason| (reason, rejected(reason))).collect(),
            closed,
            messages: Tally {
                forwarded: sum(|worker| &worker.forwarded),
                dropped: sum(|worker| &worker.dropped),
                bytes: sum(|worker| &worker.bytes),
            },
            lingering,
            pings: sum(|worker| &worker.pings),
            throttled: sum(|worker| &worker.throttled),
            squeezed: sum(|worker| &worker.squeezed),
            probes,
            panics: sum(|worker| &worker.panics),
            accept_errors: sum(|worker| &worker.accept_errors),
            unmet: sum(|worker| &worker.unmet),
            pair_waits: Distribution::of(&WAITS, workers.iter().map(|worker| &worker.waits)),
            pair_durations: Distribution::of(&DURATIONS, workers.iter().map(|worker| &worker.durations)),
        }
    }
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
        assert_eq!(telemetry.counters().messages, tally(10, 4, 20));
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
        let Counters { connections, rejected, closed, panics, .. } = telemetry.counters();
        assert!(rejected.iter().zip(1..).all(|((_, count), nth)| *count == nth), "{rejected:?}");
        assert!(closed.iter().zip(1..).all(|((_, count), nth)| *count == nth), "{closed:?}");
        assert_eq!(connections, 1);
        assert_eq!(panics, closed.last().unwrap().1, "a connection that panicked counts as a panic");
    }

    #[test]
    fn workers_are_added_up() {
        let relay = RelayTelemetry::default();
        let tally = |forwarded, dropped, bytes| Tally { forwarded, dropped, bytes };
        for worker in 1..=3 {
            // A worker counts on a thread of its own.
            let telemetry = relay.add_worker();
            let count = move || {
                (0..=worker).for_each(|_| telemetry.opened());
                telemetry.closed(Outcome::Left);
                telemetry.rejected(Rejection::Host);
                telemetry.count(Tally::default(), tally(worker, 10 * worker, 100 * worker));
                telemetry.pinged();
                telemetry.throttled();
                telemetry.squeezed();
                telemetry.accept_failed();
                telemetry.unmet();
                telemetry.met(Duration::from_secs(worker));
                telemetry.parted(Duration::from_secs(10 * worker));
            };
            std::thread::spawn(count).join().unwrap();
        }
        let counters = relay.counters(Counts::default());
        assert_eq!((counters.connections, counters.messages), (6, tally(6, 60, 600)));
        assert!(counters.closed.contains(&(Outcome::Left, 3)) && counters.rejected.contains(&(Rejection::Host, 3)));
        assert_eq!([counters.pings, counters.throttled, counters.squeezed, counters.accept_errors], [3; 4]);
        assert_eq!([counters.unmet, counters.pair_waits.count(), counters.pair_durations.count()], [3; 3]);
        assert_eq!([counters.pair_waits.sum, counters.pair_durations.sum], [6, 60].map(Duration::from_secs));
    }

    #[test]
    fn workers_share_no_cache_line() {
        let relay = RelayTelemetry::default();
        let _workers = [(); 9].map(|()| relay.add_worker());
        let mut places: Vec<_> = lock(&relay.0).iter().map(|worker| Arc::as_ptr(worker) as usize).collect();
        places.sort_unstable();
        assert!(places.iter().all(|place| place % 128 == 0));
        assert!(places.windows(2).all(|two| two[1] - two[0] >= size_of::<WorkerCounters>()));
        assert_eq!(size_of::<WorkerCounters>() % 128, 0);
    }
}
