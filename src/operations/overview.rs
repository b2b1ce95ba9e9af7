//! What an operator can know of a relay: its counters, limits, readiness and uptime.
//!
//! Everything here is a number, a fixed word or the version. Nothing names a client, a pair code or a connection.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::buffers::memory::Memory;
use crate::http::context::HandshakeContext;
use crate::limits::capacity::EffectiveLimits;
use crate::telemetry::counters::Counters;

/// The version of this build.
pub(super) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// A running relay, as an operator sees it.
#[derive(Debug)]
pub(crate) struct Overview {
    pub(crate) handshakes: Arc<HandshakeContext>,
    pub(crate) buffer_memory: Arc<Memory>,
    pub(crate) limits: EffectiveLimits,
    pub(crate) workers: usize,
    pub(crate) began: Instant,
}

impl Overview {
    /// The present time.
    pub(super) fn now(&self) -> Instant {
        self.handshakes.clock.now()
    }

    /// For how long the relay has run.
    pub(super) fn uptime(&self) -> Duration {
        self.now().saturating_duration_since(self.began)
    }

    pub(super) fn counters(&self) -> Counters {
        self.handshakes.telemetry.counters(self.handshakes.seats.counts())
    }

    /// Opening handshakes under way.
    pub(super) fn opening(&self) -> usize {
        self.handshakes.slots.len()
    }

    pub(super) fn is_ready(&self) -> bool {
        self.handshakes.readiness.is_ready()
    }

    /// The limits in effect, with their names.
    pub(super) fn limits(&self) -> [(&'static str, usize); 5] {
        let EffectiveLimits { connections, handshakes, buffer_memory, codes, waiting, .. } = self.limits;
        [
            ("connections", connections),
            ("waiting", waiting),
            ("pairs", codes),
            ("handshakes", handshakes),
            ("buffer_bytes", buffer_memory),
        ]
    }

    /// The answer of `/info`.
    pub(super) fn info(&self) -> Value {
        let counters = self.counters();
        let limits: serde_json::Map<_, _> =
            self.limits().into_iter().map(|(name, limit)| (name.to_owned(), limit.into())).collect();
        json!({
            "version": VERSION,
            "uptime_seconds": self.uptime().as_secs(),
            "ready": self.is_ready(),
            "connections": counters.connections,
            "pairs": { "waiting": counters.waiting, "paired": counters.paired },
            "handshakes": self.opening(),
            "buffer_bytes": self.buffer_memory.taken(),
            "workers": self.workers,
            "limits": limits,
        })
    }
}

#[cfg(test)]
impl Overview {
    /// The overview of a relay that has just begun.
    pub(super) fn empty() -> Self {
        use crate::pairing::seats::Seats;
        use crate::runtime::clock::SystemClock;

        let seats = Seats::roomy(Arc::new(SystemClock));
        Self {
            handshakes: Arc::new(HandshakeContext::of(seats)),
            buffer_memory: Memory::new(1 << 20),
            limits: EffectiveLimits::ROOMY,
            workers: 1,
            began: Instant::now(),
        }
    }
}
