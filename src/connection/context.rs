//! The context of a worker's connections.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::keepalive::KeepaliveConfig;
use crate::buffers::pool::Pool;
use crate::limits::slots::Slots;
use crate::runtime::clock::Clock;
use crate::telemetry::counters::Telemetry;

/// What all connections of a worker share.
#[derive(Debug)]
pub(crate) struct WorkerContext {
    pub(crate) pool: Rc<Pool>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) telemetry: Arc<Telemetry>,
    /// Whether they are to close. They are woken when this changes.
    pub(crate) stopping: Cell<bool>,
    /// The executor's turn.
    pub(crate) turn: Rc<Cell<u32>>,
    /// Counts the beats, at which some of the connections are woken to look at their clients.
    pub(crate) beat: Cell<u32>,
    /// How long a client's system may acknowledge nothing, and how long in a takeover probe.
    pub(crate) write_timeout: Duration,
    pub(crate) probe_timeout: Duration,
    /// Slots of connections whose closing handshake takes long.
    pub(crate) lingering: Arc<Slots>,
    pub(crate) keepalive: KeepaliveConfig,
}
