//! Events that are counted and logged in one place, so that counters and log agree.

use std::cell::Cell;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use log::{debug, info, warn};

use super::counters::Telemetry;
use super::events::{Outcome, TARGET, milliseconds};
use super::rejection::Rejection;
use crate::websocket::reframer::Tally;

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

/// When the two sides of a pair came. Both of their records share it.
#[derive(Debug)]
pub(crate) struct Meeting {
    began: Instant,
    second: OnceLock<Arrival>,
}

/// The arrival of the second side.
#[derive(Debug)]
struct Arrival {
    at: Instant,
    /// The number of the first side.
    first: u64,
}

impl Meeting {
    /// The first side came.
    pub(crate) fn new(began: Instant) -> Arc<Self> {
        Arc::new(Self { began, second: OnceLock::new() })
    }

    /// How long the first side waited for the second, which has come or will not come any more.
    fn wait(&self, now: Instant) -> Duration {
        self.second.get().map_or(now, |second| second.at).saturating_duration_since(self.began)
    }
}

/// What is logged of a WebSocket, from the moment it has its seat.
#[derive(Debug)]
pub(crate) struct ConnectionRecord {
    number: u64,
    meeting: Arc<Meeting>,
    /// The client's address, if addresses are logged. Boxed, because most relays do not log them.
    pub(crate) address: Option<Box<IpAddr>>,
}

impl ConnectionRecord {
    /// The record of a pair's first side.
    pub(crate) fn first(number: u64, meeting: Arc<Meeting>) -> Self {
        Self { number, meeting, address: None }
    }

    /// The record of a pair's second side, which comes `now`.
    pub(crate) fn second(number: u64, first: u64, now: Instant, meeting: Arc<Meeting>) -> Self {
        let _ = meeting.second.set(Arrival { at: now, first }); // a pair has one second side
        Self { number, meeting, address: None }
    }

    /// The arrival of this side, if it is the second.
    fn arrival(&self) -> Option<&Arrival> {
        self.meeting.second.get().filter(|second| second.first != self.number)
    }

    /// A number of the pair, which both of its records know: that of its first side.
    pub(crate) fn pair(&self) -> u64 {
        self.arrival().map_or(self.number, |second| second.first)
    }

    fn side(&self) -> &'static str {
        if self.arrival().is_none() { "a" } else { "b" }
    }

    /// The WebSocket begins.
    pub(crate) fn begin(&self, telemetry: &Telemetry) {
        telemetry.opened();
        let conn = self.number;
        if let Some(&Arrival { at, first }) = self.arrival() {
            let wait_ms = milliseconds(self.meeting.wait(at));
            info!(target: TARGET, conn, side = "b", peer = first, wait_ms; "paired");
        } else if self.meeting.second.get().is_none() {
            // Otherwise the second side was faster, and this one does not wait any more.
            info!(target: TARGET, conn, side = "a"; "waiting");
        }
    }

    /// The WebSocket has ended.
    ///
    /// `status_code` is that of the close frame to the client, if there was one; `messages` are the client's.
    pub(crate) fn end(
        &self,
        telemetry: &Telemetry,
        outcome: Outcome,
        status_code: Option<u16>,
        messages: Tally,
        now: Instant,
    ) {
        telemetry.closed(outcome);
        let (began, wait) = match self.arrival() {
            Some(second) => (second.at, Duration::ZERO),
            None => (self.meeting.began, self.meeting.wait(now)),
        };
        info!(
            target: TARGET,
            conn = self.number,
            side = self.side(),
            outcome = outcome.name(),
            status_code,
            wait_ms = milliseconds(wait),
            duration_ms = milliseconds(now.saturating_duration_since(began)),
            bytes = messages.bytes,
            dropped = messages.dropped,
            address = self.address.as_ref().map(|address| address.to_string());
            "closed"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_side_waits_until_the_second_comes() {
        let begin = Instant::now();
        let seconds = Duration::from_secs;
        let meeting = Meeting::new(begin);
        assert_eq!(meeting.wait(begin + seconds(2)), seconds(2));
        let _second = ConnectionRecord::second(2, 1, begin + seconds(3), Arc::clone(&meeting));
        assert_eq!(meeting.wait(begin + seconds(9)), seconds(3));
    }
}
