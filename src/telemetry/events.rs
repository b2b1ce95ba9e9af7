//! Events of the log, and the words in them.
//!
//! **An event holds nothing that a client said.** It consists of numbers, of the words in this file, and of what the system
//! says of its own errors. (A client's address and a keyed hash of its code are there if the operator wants them.) So no
//! client can put words or control characters into a log, and no log holds a pair code or an access token.
//!
//! Events that are also counted are in [`records`](super::records). The installed logger decides what becomes of an event;
//! the binary installs its own.

use std::time::{Duration, Instant};

use log::{info, warn};

use crate::limits::capacity::EffectiveLimits;
use crate::telemetry::words::words;

/// The target of all events.
///
/// A logger tells them by it from those of other crates, which may repeat what clients say.
pub(super) const TARGET: &str = "arc_relay";

words! {
    /// How a WebSocket ended: the first cause.
    Outcome {
        /// The client closed, or its stream ended between two messages.
        Left = "left",
        /// The client was reset, or its stream ended within a message.
        Lost = "lost",
        /// The client violated the protocol.
        Violation = "violation",
        /// The client did not answer a ping in time.
        Timeout = "timeout",
        /// A newcomer got its place: with the same side identity, or by a takeover probe.
        Replaced = "replaced",
        /// The client's system acknowledged or accepted nothing for too long.
        Stalled = "stalled",
        /// The peer left.
        PeerLeft = "peer_left",
        /// The peer was lost, violated the protocol, or did not answer.
        PeerLost = "peer_lost",
        /// No peer came in time.
        Expired = "expired",
        /// The relay stopped.
        Stopped = "stopped",
        /// The client waited alone, and was told to come again.
        Recalled = "recalled",
        /// The connection met a bug of the relay.
        Panicked = "panicked",
    }
}

/// A running relay: it tells its start and its end.
#[derive(Debug)]
pub(crate) struct Running(Instant);

impl Running {
    pub(crate) fn new(port: u16, ops_port: Option<u16>, workers: usize, capacity: &EffectiveLimits) -> Self {
        info!(
            target: TARGET,
            version = env!("CARGO_PKG_VERSION"),
            port,
            ops_port,
            workers,
            connections = capacity.connections,
            waiting = capacity.waiting,
            handshakes = capacity.handshakes,
            buffer_memory = capacity.buffer_memory;
            "started"
        );
        Self(Instant::now())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        info!(target: TARGET, duration_ms = milliseconds(self.0.elapsed()); "stopped");
    }
}

/// A configured limit is higher than the system allows.
pub(crate) fn limit_lowered(limit: &str, wish: usize, effective: usize) {
    warn!(target: TARGET, limit, wish, effective; "limit_lowered");
}

/// A client has sent text, which is dropped. Logged once for each connection.
pub(crate) fn text_dropped(conn: u64) {
    info!(target: TARGET, conn; "text_dropped");
}

/// The relay was told to stop: it admits clients for so long, and then pairs may go on for so long.
pub(crate) fn stopping(delay: Duration, timeout: Duration) {
    let [delay_ms, timeout_ms] = [delay, timeout].map(milliseconds);
    info!(target: TARGET, delay_ms, timeout_ms; "stopping");
}

/// The sides that waited, so many, were told to come again.
pub(crate) fn recalled(count: usize) {
    info!(target: TARGET, count; "recalled");
}

pub(super) fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::rejection::Rejection;
    use std::collections::HashSet;

    #[test]
    fn names_are_unique_and_need_no_quotes() {
        let rejections: Vec<_> = Rejection::ALL.iter().map(|reason| reason.name()).collect();
        let outcomes: Vec<_> = Outcome::ALL.iter().map(|outcome| outcome.name()).collect();
        for names in [rejections, outcomes] {
            assert_eq!(names.iter().collect::<HashSet<_>>().len(), names.len());
            assert!(names.concat().bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{names:?}");
        }
    }
}
