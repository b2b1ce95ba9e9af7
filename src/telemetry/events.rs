//! What the relay tells of itself, and the words it does so with. An event is counted in [`Telemetry`] and logged in the same
//! place, so that logs, counters and the README cannot differ.
//!
//! **Nothing that a client said is ever told**: an event consists of numbers, of the words in this file and of what the
//! system says of its own errors. (A client's address is told if the operator wants it.) So nobody can put words, or
//! control characters, into somebody's log, and no log holds a pair code or a token.
//!
//! What becomes of an event is decided by whoever installs a logger; `main.rs` installs its own.

use std::cell::Cell;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use log::{debug, info, warn};

use crate::pairing::link::CloseCause;
use crate::telemetry::counters::Telemetry;
use crate::telemetry::rejection::Rejection;
use crate::telemetry::words::words;

/// Whose events these are. A logger tells them from those of other crates by it, some of which tell what clients say.
const TARGET: &str = "arc_relay";

words! {
    /// How a WebSocket ended: what came first.
    Outcome {
        /// The client closed, or its stream ended between two messages.
        Left = "left",
        /// The client was reset, or its stream ended within a message.
        Lost = "lost",
        /// The client broke the protocol.
        Violation = "violation",
        /// The client did not answer a ping in time.
        Timeout = "timeout",
        /// The client did not answer a third one's question in time, and made room for it.
        Replaced = "replaced",
        /// The client's system acknowledged or accepted nothing for too long.
        Stalled = "stalled",
        /// Its peer left.
        PeerLeft = "peer_left",
        /// Its peer was lost, broke the protocol, or did not answer.
        PeerLost = "peer_lost",
        /// Nobody came in time.
        Expired = "expired",
        /// The relay stopped.
        Stopped = "stopped",
        /// The relay has a bug, and this connection met it.
        Panicked = "panicked",
    }
}

/// For a client that stays: how its peer departed.
impl From<CloseCause> for Outcome {
    fn from(close_cause: CloseCause) -> Self {
        match close_cause {
            CloseCause::Left => Self::PeerLeft,
            CloseCause::Lost => Self::PeerLost,
            CloseCause::Expired => Self::Expired,
            CloseCause::Stopping => Self::Stopped,
        }
    }
}

/// A relay that runs: begins and ends with it.
#[derive(Debug)]
pub(crate) struct Running(Instant);

impl Running {
    pub(crate) fn new(port: u16, workers: usize) -> Self {
        info!(target: TARGET, version = env!("CARGO_PKG_VERSION"), port, workers; "started");
        Self(Instant::now())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        info!(target: TARGET, duration_ms = milliseconds(self.0.elapsed()); "stopped");
    }
}

/// The relay was told to stop.
pub(crate) fn stopping() {
    info!(target: TARGET, "stopping");
}

/// A connection could not be accepted.
pub(crate) fn accept_failed(telemetry: &Telemetry, error: &io::Error) {
    telemetry.accept_failed();
    warn!(target: TARGET, error:%; "accept_failed");
}

/// A client at the front door.
#[derive(Debug)]
pub(crate) struct RejectionRecorder<'a> {
    telemetry: &'a Telemetry,
    /// Where it comes from, as far as that is known, if it is to be told.
    address: Cell<Option<IpAddr>>,
}

impl<'a> RejectionRecorder<'a> {
    pub(crate) fn new(telemetry: &'a Telemetry, address: Option<IpAddr>) -> Self {
        Self { telemetry, address: Cell::new(address.map(|address| address.to_canonical())) }
    }

    /// A proxy has said for whom it asks.
    pub(crate) fn learn(&self, address: IpAddr) {
        self.address.set(self.address.get().map(|_| address.to_canonical()));
    }

    pub(crate) fn address(&self) -> Option<IpAddr> {
        self.address.get()
    }

    /// It is not let in, and gets an answer with this status, if any is known of.
    pub(crate) fn rejected(&self, reason: Rejection, status: Option<u16>) {
        self.telemetry.rejected(reason);
        let address = self.address.get().map(|address| address.to_string());
        debug!(target: TARGET, status, reason = reason.name(), address; "refused");
    }
}

impl Drop for RejectionRecorder<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.telemetry.panicked();
        }
    }
}

/// A WebSocket, from when it has its seat.
#[derive(Debug)]
pub(crate) struct ConnectionRecord {
    number: u64,
    is_first: bool,
    began: Instant,
    /// When the second side came. Both sides have it.
    met: Arc<OnceLock<Instant>>,
    /// Where the client comes from, if that is to be told. Boxed, as mostly it is not.
    pub(crate) address: Option<Box<IpAddr>>,
}

impl ConnectionRecord {
    /// Of the first side of a pair.
    pub(crate) fn first(number: u64, now: Instant, met: Arc<OnceLock<Instant>>) -> Self {
        Self { number, is_first: true, began: now, met, address: None }
    }

    /// Of the second side, whose coming is what the first one has waited for.
    pub(crate) fn second(number: u64, now: Instant, met: Arc<OnceLock<Instant>>) -> Self {
        let _ = met.set(now); // nobody else is the second
        Self { number, is_first: false, began: now, met, address: None }
    }

    /// It has ended. The client was sent a close frame with this status code, if any, and `bytes` of it were forwarded.
    pub(crate) fn end(
        &self,
        telemetry: &Telemetry,
        outcome: Outcome,
        status_code: Option<u16>,
        bytes: u64,
        now: Instant,
    ) {
        telemetry.closed(outcome);
        let waited_until = *self.met.get().unwrap_or(&now);
        info!(
            target: TARGET,
            conn = self.number,
            side = if self.is_first { "a" } else { "b" },
            outcome = outcome.name(),
            status_code,
            wait_ms = milliseconds(waited_until.saturating_duration_since(self.began)),
            duration_ms = milliseconds(now.saturating_duration_since(self.began)),
            bytes,
            address = self.address.as_ref().map(|address| address.to_string());
            "closed"
        );
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn no_two_have_the_same_name_and_none_needs_quotes() {
        let rejections: Vec<_> = Rejection::ALL.iter().map(|reason| reason.name()).collect();
        let outcomes: Vec<_> = Outcome::ALL.iter().map(|outcome| outcome.name()).collect();
        for names in [rejections, outcomes] {
            assert_eq!(names.iter().collect::<HashSet<_>>().len(), names.len());
            assert!(names.concat().bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{names:?}");
        }
    }

    #[test]
    fn the_first_side_has_waited_until_the_second_came() {
        let (begin, met) = (Instant::now(), Arc::default());
        let first = ConnectionRecord::first(1, begin, Arc::clone(&met));
        let second = ConnectionRecord::second(2, begin + Duration::from_secs(3), Arc::clone(&met));
        assert_eq!(first.met.get(), Some(&second.began));
        assert_eq!(met.get().unwrap().duration_since(first.began), Duration::from_secs(3));
    }
}
