//! The context that a worker's connections share.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::keepalive::KeepaliveConfig;
use crate::buffers::buffer::Buffer;
use crate::buffers::pool::Pool;
use crate::limits::slots::Slots;
use crate::pairing::link::SpareChannels;
use crate::runtime::clock::Clock;
use crate::telemetry::counters::Telemetry;

/// The shared state of a worker's connections.
#[derive(Debug)]
pub(crate) struct WorkerContext {
    pub(crate) pool: Rc<Pool>,
    /// Channels for batches.
    pub(crate) channels: SpareChannels<Box<Buffer>>,
    pub(crate) clock: Arc<dyn Clock>,
    /// The counters of the worker.
    pub(crate) telemetry: Rc<Telemetry>,
    /// Whether the relay stops. All connections are woken when this changes.
    pub(crate) stopping: Cell<bool>,
    /// The executor's turn counter.
    pub(crate) turn: Rc<Cell<u32>>,
    /// The number of beats so far.
    /// At each beat, a share of the connections is woken to check their clients.
    pub(crate) beat: Cell<u32>,
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
