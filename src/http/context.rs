//! What all opening handshakes of a relay share.

use std::sync::Arc;
use std::time::Duration;

use super::demo::Demo;
use super::network::Network;
use crate::access::policy::Policy;
use crate::limits::clients::ClientLimits;
use crate::limits::slots::Slots;
use crate::pairing::seats::Seats;
use crate::runtime::clock::Clock;
use crate::runtime::sync::atomic::{
    AtomicBool,
    Ordering::{Acquire, Release},
};
use crate::telemetry::code_hash::CodeHasher;
use crate::telemetry::counters::RelayTelemetry;

/// The settings and shared state of all opening handshakes, on any worker.
#[derive(Debug)]
pub(crate) struct HandshakeContext {
    pub(crate) slots: Arc<Slots>,
    /// How long a client may take for the head of its request, and then for the answer.
    pub(crate) handshake_timeout: Duration,
    pub(crate) policy: Policy,
    pub(crate) client_limits: Arc<ClientLimits>,
    /// The proxies that are believed to name the client, by `X-Forwarded-For` or the PROXY protocol.
    pub(crate) trusted_proxies: Vec<Network>,
    /// Whether every connection has to begin with a header of the PROXY protocol.
    pub(crate) proxy_protocol: bool,
    pub(crate) seats: Arc<Seats>,
    pub(crate) telemetry: Arc<RelayTelemetry>,
    /// Whether events contain the addresses of clients.
    pub(crate) log_addresses: bool,
    /// Makes the hashes of pair codes in events, if they contain any.
    pub(crate) code_hasher: Option<CodeHasher>,
    /// The demo, if there is one.
    pub(crate) demo: Option<Demo>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) readiness: Readiness,
}

#[cfg(test)]
impl HandshakeContext {
    /// The context of these seats, with no further limits.
    pub(crate) fn of(seats: Arc<Seats>) -> Self {
        use crate::limits::clients::Limits;
        use crate::runtime::clock::SystemClock;

        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        Self {
            slots: Arc::new(Slots::new(1)),
            handshake_timeout: Duration::from_secs(1),
            policy: Policy::default(),
            client_limits: Arc::new(ClientLimits::new(Limits::default(), Arc::clone(&clock))),
            trusted_proxies: vec![],
            proxy_protocol: false,
            seats,
            telemetry: Arc::default(),
            log_addresses: false,
            code_hasher: None,
            demo: None,
            clock,
            readiness: Readiness::default(),
        }
    }
}

/// Whether load balancers are to send new clients to this relay, as `/readyz` tells them.
///
/// It depends on nothing but the request to stop. A relay that is full stays ready: the peers of its waiting clients have to
/// come to it.
#[derive(Debug)]
pub(crate) struct Readiness(AtomicBool);

impl Default for Readiness {
    /// A relay that accepts connections is ready.
    fn default() -> Self {
        Self(AtomicBool::new(true))
    }
}

impl Readiness {
    pub(crate) fn is_ready(&self) -> bool {
        self.0.load(Acquire)
    }

    /// Ends it for ever: the relay was told to stop.
    pub(crate) fn end(&self) {
        self.0.store(false, Release);
    }
}
