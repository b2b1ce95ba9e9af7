//! The context that a worker's connections share.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use super::keepalive::KeepaliveConfig;
use crate::buffers::buffer::Buffer;
use crate::buffers::pool::Pool;
use crate::limits::slots::Slots;
use crate::pairing::link::SpareChannels;
use crate::runtime::clock::Clock;
use crate::telemetry::counters::Telemetry;

/// The number of portions in which a stop ends pairs.
pub(crate) const PORTIONS: u8 = 16;

/// When the relay will have ended all connections, once it was told to stop.
///
/// All workers share it. It is set before any client is told to leave, so each client hears of the stop first.
#[derive(Debug, Default)]
pub(crate) struct Drain(OnceLock<Instant>);

impl Drain {
    /// Notes that the relay was told to stop, and ends the last connections at this time.
    pub(crate) fn begin(&self, end: Instant) {
        let _ = self.0.set(end); // it is told once
    }

    /// When the last connections end, if the relay was told to stop.
    pub(super) fn end(&self) -> Option<Instant> {
        self.0.get().copied()
    }
}

/// The shared state of a worker's connections.
#[derive(Debug)]
pub(crate) struct WorkerContext {
    pub(crate) pool: Rc<Pool>,
    /// Channels for batches.
    pub(crate) channels: SpareChannels<Box<Buffer>>,
    pub(crate) clock: Arc<dyn Clock>,
    /// The counters of the worker.
    pub(crate) telemetry: Rc<Telemetry>,
    /// How many [`PORTIONS`] of the pairs the stop of the relay ends.
    ///
    /// All connections are woken when this changes.
    pub(crate) stopping: Cell<u8>,
    /// Whether the relay was told to stop, for clients of `arc-relay.v1`.
    ///
    /// All connections are woken when this changes.
    pub(crate) drain: Arc<Drain>,
    /// The executor's turn counter.
    pub(crate) turn: Rc<Cell<u32>>,
    /// The number of beats so far.
    /// At each beat, a share of the connections is woken to check their clients.
    pub(crate) beat: Cell<u32>,
    /// How long a client may wait for its peer.
    pub(crate) pair_ttl: Duration,
    /// How long a client may take nothing.
    pub(crate) write_timeout: Duration,
    /// How long a client's kernel may acknowledge nothing in a takeover probe.
    pub(crate) probe_timeout: Duration,
    /// The number of connections.
    pub(crate) connections: Cell<usize>,
    /// The slots of lingering closes.
    pub(crate) lingering: Arc<Slots>,
    pub(crate) keepalive: KeepaliveConfig,
}

impl WorkerContext {
    /// Whether the stop of the relay ends this pair. Both of its connections give the same number.
    pub(super) fn ends(&self, pair: impl FnOnce() -> u64) -> bool {
        match self.stopping.get() {
            0 => false,
            portions => portion(pair()) < portions,
        }
    }
}

/// The portion of a pair, by Fibonacci hashing.
///
/// It divides a run of numbers evenly, and also numbers with a common step: each shard has such numbers.
fn portion(pair: u64) -> u8 {
    let hash = pair.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (hash >> (u64::BITS - PORTIONS.ilog2())) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn portions_are_alike() {
        for (first, step) in [(0, 1), (7, 1), (1 << 40, 1), (3, 8), (5, 64), (0, 1024)] {
            let mut counts = [0; PORTIONS as usize];
            (0..1600).for_each(|nth| counts[usize::from(portion(first + nth * step))] += 1);
            assert!(counts.iter().all(|count| (80..=120).contains(count)), "{first}, {step}: {counts:?}");
        }
    }
}
