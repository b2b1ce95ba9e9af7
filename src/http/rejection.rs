//! The answers to requests that are rejected.

use std::borrow::Cow;
use std::time::Duration;

use http::StatusCode;

use super::answer::Answer;
use crate::access::policy::Refusal;
use crate::access::ticket::TicketFault;
use crate::limits::clients::Excess;
use crate::telemetry::rejection::Rejection;
use crate::websocket::subprotocol::{self, Notice};

/// When a client that finds no room may come again, in seconds.
const RETRY_AFTER: &str = "5";

/// The field with that time.
const RETRY_FIELD: &str = "retry-after";

/// A rejection, with everything that its answer says.
#[derive(Debug)]
pub(crate) struct Rejected {
    pub(super) reason: Rejection,
    /// None: the connection is closed without an answer.
    pub(super) status: Option<StatusCode>,
    /// One line, or nothing.
    body: &'static str,
    /// A field that only this answer has.
    field: Option<(&'static str, Cow<'static, str>)>,
}

impl From<Rejection> for Rejected {
    fn from(reason: Rejection) -> Self {
        let (status, body) = match reason {
            Rejection::TargetTooLong => (StatusCode::URI_TOO_LONG, "request target too long"),
            Rejection::Host => (StatusCode::BAD_REQUEST, "exactly one Host header required"),
            Rejection::NotFound => (StatusCode::NOT_FOUND, "not found: connect to /?pair=CODE with a WebSocket"),
            Rejection::Method => (StatusCode::METHOD_NOT_ALLOWED, "method not allowed"),
            Rejection::Version => (StatusCode::UPGRADE_REQUIRED, "WebSocket version 13 required"),
            Rejection::Handshake => (StatusCode::BAD_REQUEST, "invalid opening handshake"),
            Rejection::Origin => (StatusCode::FORBIDDEN, "origin not allowed"),
            Rejection::Token => (StatusCode::UNAUTHORIZED, "access token required"),
            Rejection::Ticket => (StatusCode::UNAUTHORIZED, TicketFault::Invalid.line()),
            Rejection::PairCode => (StatusCode::BAD_REQUEST, "missing or invalid pair code"),
            Rejection::Side => (StatusCode::BAD_REQUEST, "invalid side"),
            Rejection::Connections => (StatusCode::TOO_MANY_REQUESTS, "too many connections"),
            Rejection::Requests => (StatusCode::TOO_MANY_REQUESTS, "too many requests"),
            Rejection::PairFull => (StatusCode::CONFLICT, "pair is full"),
            Rejection::RelayFull => (StatusCode::SERVICE_UNAVAILABLE, "relay is full"),
            Rejection::Stopping => (StatusCode::SERVICE_UNAVAILABLE, "relay stopping"),
            Rejection::Malformed => (StatusCode::BAD_REQUEST, ""),
            Rejection::ProxyHeader | Rejection::Timeout | Rejection::Crowded => return Self::unanswered(reason),
        };
        let field = match reason {
            Rejection::Version => Some(("sec-websocket-version", "13")),
            Rejection::Token => Some(("www-authenticate", "Bearer")),
            // RFC 6750, section 3.1.
            Rejection::Ticket => Some(("www-authenticate", "Bearer error=\"invalid_token\"")),
            Rejection::Connections | Rejection::RelayFull | Rejection::Stopping => Some((RETRY_FIELD, RETRY_AFTER)),
            _ => None,
        };
        let field = field.map(|(name, value)| (name, value.into()));
        Self { reason, status: Some(status), body, field }
    }
}

impl From<Refusal> for Rejected {
    fn from(refusal: Refusal) -> Self {
        let rejected = Self::from(refusal.reason);
        match refusal.ticket_fault {
            Some(fault) => Self { body: fault.line(), ..rejected },
            None => rejected,
        }
    }
}

impl From<Excess> for Rejected {
    fn from(excess: Excess) -> Self {
        match excess {
            Excess::Connections => Rejection::Connections.into(),
            Excess::Joins { wait } => {
                let field = Some((RETRY_FIELD, whole_seconds(wait).to_string().into()));
                Self { field, ..Rejection::Requests.into() }
            }
        }
    }
}

impl Rejected {
    /// A rejection of the request's method.
    pub(crate) fn method(allow: &'static str) -> Self {
        let field = Some(("allow", allow.into()));
        Self { field, ..Rejection::Method.into() }
    }

    /// A rejection of the opening handshake for this fault.
    pub(super) fn handshake(fault: &'static str) -> Self {
        Self { body: fault, ..Rejection::Handshake.into() }
    }

    /// A rejection of a head with too many bytes or fields.
    pub(super) fn head_too_large() -> Self {
        Self { status: Some(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE), ..Rejection::Malformed.into() }
    }

    /// A rejection after which the connection is closed without an answer.
    pub(super) fn unanswered(reason: Rejection) -> Self {
        Self { reason, status: None, body: "", field: None }
    }

    /// The frames that tell a client of `arc-relay.v1`, behind its 101. None if there is no answer.
    ///
    /// A script in a browser learns nothing of a status other than 101, but it gets a close code and a reason.
    pub(super) fn frames(&self) -> Option<Vec<u8>> {
        let mut frames = match self.retry_after() {
            Some(after) => Notice::Retry { after }.frame(),
            None => Vec::new(),
        };
        frames.extend(subprotocol::refusal(self.status?.as_u16(), self.body));
        Some(frames)
    }

    /// The seconds after which the client may come again, if it may.
    fn retry_after(&self) -> Option<u64> {
        let (_, seconds) = self.field.as_ref().filter(|(name, _)| *name == RETRY_FIELD)?;
        seconds.parse().ok()
    }

    /// The answer, if there is one.
    pub(crate) fn into_answer(self) -> Option<Answer> {
        let answer = match self.body {
            "" => Answer::empty(self.status?),
            line => Answer::with_line(self.status?, line),
        };
        Some(match self.field {
            Some((name, value)) => answer.with_field(name, value.as_bytes()),
            None => answer,
        })
    }
}

/// The duration in seconds, rounded up: a client that waits for so long does not come too early.
fn whole_seconds(wait: Duration) -> u64 {
    wait.as_secs() + u64::from(wait.subsec_nanos() > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_rounded_up() {
        for (wait, seconds) in [(1, 1), (999_999_999, 1), (1_000_000_000, 1), (1_000_000_001, 2)] {
            assert_eq!(whole_seconds(Duration::from_nanos(wait)), seconds);
        }
    }
}
