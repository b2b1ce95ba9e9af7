//! Events that are counted and logged in one place, so that counters and log agree.

use std::cell::Cell;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use log::{debug, info, warn};

use super::code_hash::CodeHash;
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
    /// The hash of the pair code once it is known, if these are logged.
    code_hash: Cell<Option<CodeHash>>,
}

impl<'a> RejectionRecorder<'a> {
    pub(crate) fn new(telemetry: &'a Telemetry, address: Option<IpAddr>) -> Self {
        let address = Cell::new(address.map(|address| address.to_canonical()));
        Self { telemetry, address, code_hash: Cell::default() }
    }

    /// Takes the address that a proxy has named, if addresses are logged.
    pub(crate) fn learn(&self, address: IpAddr) {
        self.address.set(self.address.get().map(|_| address.to_canonical()));
    }

    /// Takes the hash of the pair code that the client asks for, if these are logged.
    pub(crate) fn learn_code(&self, code_hash: CodeHash) {
        self.code_hash.set(Some(code_hash));
    }

    /// What is logged of the client in later events, if anything is.
    pub(crate) fn details(&self) -> Option<Box<ClientDetails>> {
        let details = ClientDetails { address: self.address.get(), code_hash: self.code_hash.get() };
        let is_empty = details.address.is_none() && details.code_hash.is_none();
        (!is_empty).then(|| Box::new(details))
    }

    /// The client is rejected, with this status if it gets an answer.
    pub(crate) fn rejected(&self, reason: Rejection, status: Option<u16>) {
        self.telemetry.rejected(reason);
        debug!(
            target: TARGET,
            status,
            reason = reason.name(),
            code_hash = text(self.code_hash.get()),
            address = text(self.address.get());
            "refused"
        );
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
    /// Boxed, because most relays log none of them.
    pub(crate) details: Option<Box<ClientDetails>>,
}

/// What is logged of a client only if the operator wants it.
#[derive(Debug)]
pub(crate) struct ClientDetails {
    address: Option<IpAddr>,
    code_hash: Option<CodeHash>,
}

impl ConnectionRecord {
    /// The record of a pair's first side.
    pub(crate) fn first(number: u64, meeting: Arc<Meeting>) -> Self {
        Self { number, meeting, details: None }
    }

    /// The record of a pair's second side, which comes `now`.
    pub(crate) fn second(number: u64, first: u64, now: Instant, meeting: Arc<Meeting>) -> Self {
        let _ = meeting.second.set(Arrival { at: now, first }); // a pair has one second side
        Self { number, meeting, details: None }
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

    fn address(&self) -> Option<String> {
        text(self.details.as_ref()?.address)
    }

    fn code_hash(&self) -> Option<String> {
        text(self.details.as_ref()?.code_hash)
    }

    /// The WebSocket begins.
    pub(crate) fn begin(&self, telemetry: &Telemetry) {
        telemetry.opened();
        let conn = self.number;
        if let Some(&Arrival { at, first }) = self.arrival() {
            let wait = self.meeting.wait(at);
            telemetry.met(wait);
            let wait_ms = milliseconds(wait);
            info!(target: TARGET, conn, side = "b", peer = first, wait_ms, code_hash = self.code_hash(); "paired");
        } else if self.meeting.second.get().is_none() {
            // Otherwise the second side was faster, and this one does not wait any more.
            info!(target: TARGET, conn, side = "a", code_hash = self.code_hash(); "waiting");
        }
    }

    /// The client has waited for as long as it may, and is told so.
    ///
    /// Its connection ends when it has closed, too.
    pub(crate) fn expired(&self, now: Instant) {
        info!(
            target: TARGET,
            conn = self.number,
            side = self.side(),
            wait_ms = milliseconds(self.meeting.wait(now)),
            code_hash = self.code_hash(),
            address = self.address();
            "expired"
        );
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
        let duration = now.saturating_duration_since(began);
        // A pair counts once, by its second side.
        match self.meeting.second.get() {
            None => telemetry.unmet(),
            Some(second) if second.first != self.number => telemetry.parted(duration),
            Some(_) => {}
        }
        info!(
            target: TARGET,
            conn = self.number,
            side = self.side(),
            outcome = outcome.name(),
            status_code,
            wait_ms = milliseconds(wait),
            duration_ms = milliseconds(duration),
            bytes = messages.bytes,
            dropped = messages.dropped,
            code_hash = self.code_hash(),
            address = self.address();
            "closed"
        );
    }
}

/// The text of a field that may have no value.
fn text(value: Option<impl ToString>) -> Option<String> {
    value.map(|value| value.to_string())
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
