//! The context of a relay: what its supervisor and its workers share.

use std::sync::Arc;
use std::time::Duration;

use async_channel::{Receiver, Sender};

use super::config::Config;
use crate::access::policy::Policy;
use crate::access::secrets::Secrets;
use crate::buffers::memory::Memory;
use crate::connection::Drain;
use crate::connection::keepalive::KeepaliveConfig;
use crate::http::context::{HandshakeContext, Readiness};
use crate::http::demo::Demo;
use crate::http::opening::Admitted;
use crate::limits::capacity::{EffectiveLimits, INBOX};
use crate::limits::clients::ClientLimits;
use crate::limits::clients::Limits;
use crate::limits::loads::Loads;
use crate::limits::pair_rate::Rates;
use crate::limits::slots::Slots;
use crate::pairing::seats::Seats;
use crate::runtime::clock::Clock;
use crate::runtime::stop::{Stop, StopOnDrop};
use crate::telemetry::code_hash::CodeHasher;

/// The longest time over which the ends of pairs are spread at a stop.
///
/// Clients come again at once, and a pair that is opened costs a relay 0.15 ms: so 10,000 clients do not fill a core.
const LONGEST_SPREAD: Duration = Duration::from_secs(5);

/// The context of a relay. Its supervisor and all of its workers share it.
#[derive(Debug)]
pub(crate) struct RelayContext<T> {
    pub(crate) handshakes: Arc<HandshakeContext>,
    pub(crate) buffer_memory: Arc<Memory>,
    /// The inbox of each worker.
    pub(crate) inboxes: Vec<Sender<Job<T>>>,
    pub(super) loads: Loads,
    /// When the last connections end, once the relay was told to stop.
    pub(crate) drain: Arc<Drain>,
    /// The signal to workers that the relay was told to stop.
    pub(crate) drain_begun: Stop,
    /// The signal to workers that no client is admitted any more.
    pub(crate) admission_closed: Stop,
    /// The signal to workers to close their connections.
    pub(crate) stopped: Stop,
    /// The time over which they close them, the last part of the drain timeout.
    pub(super) spread: Duration,
    pub(crate) max_message: Option<u64>,
    pub(crate) keepalive: KeepaliveConfig,
    pub(crate) pair_ttl: Duration,
    pub(crate) write_timeout: Duration,
    pub(crate) probe_timeout: Duration,
}

/// Ends the relay when it is dropped, by closing the inboxes of all workers.
///
/// The supervisor and each thread hold one. So the relay ends as a whole, even if a panic ends one of them.
#[derive(Debug)]
pub(super) struct EndOnDrop<T>(pub(super) Arc<RelayContext<T>>);

impl<T> Drop for EndOnDrop<T> {
    fn drop(&mut self) {
        for inbox in &self.0.inboxes {
            inbox.close();
        }
    }
}

/// A WebSocket with its seat, on its way to the worker of its pair.
pub(crate) struct Job<T> {
    /// Held until the connection has ended.
    pub(crate) alive: StopOnDrop,
    pub(crate) admitted: Admitted<T>,
}

/// The signals of a stop, which the workers wait for.
pub(super) struct Signals {
    pub(super) drain_begun: Stop,
    pub(super) admission_closed: Stop,
    pub(super) stopped: Stop,
}

impl<T> RelayContext<T> {
    /// A context, and the receiving end of each worker's inbox.
    pub(super) fn new(
        config: &Config,
        workers: usize,
        capacity: EffectiveLimits,
        signals: Signals,
        clock: Arc<dyn Clock>,
    ) -> (Self, Vec<Receiver<Job<T>>>) {
        let (inboxes, receivers) = (0..workers).map(|_| async_channel::bounded(INBOX)).unzip();
        let context = Self {
            handshakes: Arc::new(handshakes(config, workers, capacity, clock)),
            buffer_memory: Memory::new(capacity.buffer_memory),
            inboxes,
            loads: Loads::new(workers),
            drain: Arc::default(),
            drain_begun: signals.drain_begun,
            admission_closed: signals.admission_closed,
            stopped: signals.stopped,
            spread: (config.drain_timeout / 10).min(LONGEST_SPREAD),
            max_message: config.max_message,
            keepalive: KeepaliveConfig::new(config.ping_interval, config.ping_timeout),
            pair_ttl: config.pair_ttl,
            write_timeout: config.write_timeout,
            probe_timeout: config.probe_timeout,
        };
        (context, receivers)
    }

    /// The clock of the relay.
    pub(super) fn clock(&self) -> &dyn Clock {
        &*self.handshakes.clock
    }
}

/// The context of opening handshakes.
fn handshakes(config: &Config, workers: usize, capacity: EffectiveLimits, clock: Arc<dyn Clock>) -> HandshakeContext {
    let rates = Rates::new(config.max_rate_per_pair, config.max_rate, clock.now());
    let client_limits =
        Limits { connections: config.max_connections_per_client, joins_per_minute: config.max_joins_per_minute };
    let secrets = Secrets::new(config.access_tokens.clone(), config.ticket_keys.clone());
    HandshakeContext {
        slots: Arc::new(Slots::sharded(capacity.handshakes, workers)),
        handshake_timeout: config.handshake_timeout,
        policy: Policy::new(config.allowed_origins.clone(), secrets, config.min_code_length),
        client_limits: Arc::new(ClientLimits::new(client_limits, Arc::clone(&clock))),
        trusted_proxies: config.trusted_proxies.clone(),
        proxy_protocol: config.proxy_protocol,
        seats: Arc::new(Seats::new(
            workers,
            config.pair_ttl,
            capacity,
            config.probe_timeout,
            rates,
            Arc::clone(&clock),
        )),
        telemetry: Arc::default(),
        log_addresses: config.log_addresses,
        code_hasher: config.log_code_hash.then(CodeHasher::new),
        demo: config.demo.then(Demo::new),
        clock,
        readiness: Readiness::default(),
    }
}
