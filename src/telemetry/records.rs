//! Events that are counted and logged in one place, so that counters and log agree.

use std::cell::Cell;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Instant;

use log::{debug, info, warn};

use super::counters::Telemetry;
use super::events::{Outcome, TARGET, milliseconds};
use super::rejection::Rejection;

/// A connection could not be accepted.
pub(crate) fn accept_failed(telemetry: &Telemetry, error: &io::Error) {
    telemetry.accept_failed();
    warn!(target: TARGET, error:%; "accept_failed");
}

/// Records the rejections of one client in its opening handshake.
#[derive(Debug)]
pub(crate) struct RejectionRecorder<'a> {
    telemetry: &'a Telemetry,
    /// The client's address as far as it is known, if addresses are logged.
    address: Cell<Option<IpAddr>>,
}

impl<'a> RejectionRecorder<'a> {
    pub(crate) fn new(telemetry: &'a Telemetry, address: Option<IpAddr>) -> Self {
        Self { telemetry, address: Cell::new(address.map(|address| address.to_canonical())) }
    }

    /// Takes the address that a proxy has named, if addresses are logged.
    pub(crate) fn learn(&self, address: IpAddr) {
        self.address.set(self.address.get().map(|_| address.to_canonical()));
    }

    pub(crate) fn address(&self) -> Option<IpAddr> {
        self.address.get()
    }

    /// The client is rejected, with this status if it gets an answer.
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

/// What is logged of a WebSocket, from the moment it has its seat.
#[derive(Debug)]
pub(crate) struct ConnectionRecord {
    number: u64,
    is_first: bool,
    began: Instant,
    /// When the second side came. Both sides share it.
    met: Arc<OnceLock<Instant>>,
    /// The client's address, if addresses are logged. Boxed, because most relays do not log them.
    pub(crate) address: Option<Box<IpAddr>>,
}

impl ConnectionRecord {
    /// The record of a pair's first side.
    pub(crate) fn first(number: u64, now: Instant, met: Arc<OnceLock<Instant>>) -> Self {
        Self { number, is_first: true, began: now, met, address: None }
    }

    /// The record of a pair's second side. It ends the wait of the first.
    pub(crate) fn second(number: u64, now: Instant, met: Arc<OnceLock<Instant>>) -> Self {
        let _ = met.set(now); // a pair has one second side
        Self { number, is_first: false, began: now, met, address: None }
    }

    /// The WebSocket has ended. `status_code` is that of the close frame to the client, if there was one.
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn first_side_waits_until_the_second_comes() {
        let (begin, met) = (Instant::now(), Arc::default());
        let first = ConnectionRecord::first(1, begin, Arc::clone(&met));
        let second = ConnectionRecord::second(2, begin + Duration::from_secs(3), Arc::clone(&met));
        assert_eq!(first.met.get(), Some(&second.began));
        assert_eq!(met.get().unwrap().duration_since(first.began), Duration::from_secs(3));
    }
}
