//! The answers to requests that are rejected.

use std::time::Duration;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};

use crate::limits::clients::Excess;
use crate::telemetry::rejection::Rejection;

/// The answer to a request.
pub(super) type Answer = Response<Full<Bytes>>;

/// When a client may come again that finds no room, in seconds.
const RETRY_AFTER: u64 = 5;

/// A rejection and its answer.
#[derive(Debug)]
pub(super) struct Rejected {
    pub(super) reason: Rejection,
    /// None: the connection is closed without an answer.
    pub(super) answer: Option<Answer>,
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
            Rejection::PairCode => (StatusCode::BAD_REQUEST, "missing or invalid pair code"),
            Rejection::Connections => (StatusCode::TOO_MANY_REQUESTS, "too many connections"),
            Rejection::Requests => (StatusCode::TOO_MANY_REQUESTS, "too many requests"),
            Rejection::PairFull => (StatusCode::CONFLICT, "pair is full"),
            Rejection::RelayFull => (StatusCode::SERVICE_UNAVAILABLE, "relay is full"),
            Rejection::Stopping => (StatusCode::SERVICE_UNAVAILABLE, "relay stopping"),
            Rejection::ProxyHeader | Rejection::Malformed | Rejection::Timeout | Rejection::Crowded => {
                return Self { reason, answer: None };
            }
        };
        let rejected = Self { reason, answer: Some(answer(status, body)) };
        match reason {
            Rejection::Version => rejected.with(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13")),
            Rejection::Token => rejected.with(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer")),
            Rejection::Connections | Rejection::RelayFull | Rejection::Stopping => {
                rejected.with(header::RETRY_AFTER, RETRY_AFTER.into())
            }
            _ => rejected,
        }
    }
}

impl From<Excess> for Rejected {
    fn from(excess: Excess) -> Self {
        match excess {
            Excess::Connections => Rejection::Connections.into(),
            Excess::Joins { wait } => {
                Self::from(Rejection::Requests).with(header::RETRY_AFTER, whole_seconds(wait).into())
            }
        }
    }
}

impl Rejected {
    /// A rejection of the request's method.
    pub(super) fn method(allow: &'static str) -> Self {
        Self::from(Rejection::Method).with(header::ALLOW, HeaderValue::from_static(allow))
    }

    /// A rejection of the opening handshake, with what is wrong in it.
    pub(super) fn handshake(fault: &'static str) -> Self {
        Self { reason: Rejection::Handshake, answer: Some(answer(StatusCode::BAD_REQUEST, fault)) }
    }

    fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        if let Some(answer) = &mut self.answer {
            answer.headers_mut().insert(name, value);
        }
        self
    }
}

/// An answer with a body of one line, behind which the connection ends.
fn answer(status: StatusCode, body: &str) -> Answer {
    let mut answer = Answer::new(Full::from(format!("{body}\n")));
    *answer.status_mut() = status;
    let mut set = |name, value| answer.headers_mut().insert(name, HeaderValue::from_static(value));
    set(header::CONTENT_TYPE, "text/plain; charset=utf-8");
    set(header::CONNECTION, "close");
    // A cache may keep a 404, a 405 or a 414 without being told to (RFC 9110, section 15.1), and answer for the relay.
    set(header::CACHE_CONTROL, "no-store");
    answer
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
