//! Why a client is not let in, and how it is told.

use std::time::Duration;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};

use crate::access::policy::Denial;
use crate::limits::clients::Excess;
use crate::pairing::seats::NoSeat;
use crate::telemetry::events::Rejection;

/// The answer to a request.
pub(super) type Answer = Response<Full<Bytes>>;

/// Why a request is refused before it becomes a WebSocket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    TargetTooLong,
    Host,
    NotFound,
    Method { allow: &'static str },
    Version,
    Handshake(&'static str),
    Excess(Excess),
    Denied(Denial),
    NoSeat(NoSeat),
}

impl Refusal {
    /// What it is called in logs and counters.
    pub(super) fn reason(self) -> Rejection {
        match self {
            Self::TargetTooLong => Rejection::TargetTooLong,
            Self::Host => Rejection::Host,
            Self::NotFound => Rejection::NotFound,
            Self::Method { .. } => Rejection::Method,
            Self::Version => Rejection::Version,
            Self::Handshake(_) => Rejection::Handshake,
            Self::Denied(Denial::Origin) => Rejection::Origin,
            Self::Denied(Denial::Token) => Rejection::Token,
            Self::Denied(Denial::PairCode) => Rejection::PairCode,
            Self::Excess(Excess::Connections) => Rejection::Connections,
            Self::Excess(Excess::Joins { .. }) => Rejection::Requests,
            Self::NoSeat(NoSeat::Occupied(_)) => Rejection::PairFull,
            Self::NoSeat(NoSeat::Full) => Rejection::RelayFull,
            Self::NoSeat(NoSeat::Stopping) => Rejection::Stopping,
        }
    }

    /// The refusal as a response with a body of one line.
    pub(super) fn into_answer(self) -> Answer {
        let (status, body) = match self {
            Self::TargetTooLong => (StatusCode::URI_TOO_LONG, "request target too long"),
            Self::Host => (StatusCode::BAD_REQUEST, "exactly one Host header required"),
            Self::NotFound => (StatusCode::NOT_FOUND, "not found: connect to /?pair=CODE with a WebSocket"),
            Self::Method { .. } => (StatusCode::METHOD_NOT_ALLOWED, "method not allowed"),
            Self::Version => (StatusCode::UPGRADE_REQUIRED, "WebSocket version 13 required"),
            Self::Handshake(reason) => (StatusCode::BAD_REQUEST, reason),
            Self::Excess(Excess::Connections) => (StatusCode::TOO_MANY_REQUESTS, "too many connections"),
            Self::Excess(Excess::Joins { .. }) => (StatusCode::TOO_MANY_REQUESTS, "too many requests"),
            Self::Denied(Denial::Origin) => (StatusCode::FORBIDDEN, "origin not allowed"),
            Self::Denied(Denial::Token) => (StatusCode::UNAUTHORIZED, "access token required"),
            Self::Denied(Denial::PairCode) => (StatusCode::BAD_REQUEST, "missing or invalid pair code"),
            Self::NoSeat(NoSeat::Occupied(_)) => (StatusCode::CONFLICT, "pair is full"),
            Self::NoSeat(NoSeat::Full) => (StatusCode::SERVICE_UNAVAILABLE, "relay is full"),
            Self::NoSeat(NoSeat::Stopping) => (StatusCode::SERVICE_UNAVAILABLE, "relay stopping"),
        };
        let mut answer = Answer::new(Full::from(format!("{body}\n")));
        *answer.status_mut() = status;
        let mut put = |name: HeaderName, value| answer.headers_mut().insert(name, value);
        let mut set = |name, value| put(name, HeaderValue::from_static(value));
        set(header::CONTENT_TYPE, "text/plain; charset=utf-8");
        set(header::CONNECTION, "close");
        // A cache may keep a 404, a 405 or a 414 without being told to (RFC 9110, section 15.1), and answer for the relay.
        set(header::CACHE_CONTROL, "no-store");
        match self {
            Self::Method { allow } => set(header::ALLOW, allow),
            Self::Denied(Denial::Token) => set(header::WWW_AUTHENTICATE, "Bearer"),
            Self::Version => set(header::SEC_WEBSOCKET_VERSION, "13"),
            Self::NoSeat(NoSeat::Full | NoSeat::Stopping) | Self::Excess(Excess::Connections) => {
                set(header::RETRY_AFTER, "5")
            }
            Self::Excess(Excess::Joins { wait }) => put(header::RETRY_AFTER, whole_seconds(wait).into()),
            _ => None,
        };
        answer
    }
}

/// Rounded up, so that who comes back then is not too early.
fn whole_seconds(wait: Duration) -> u64 {
    wait.as_secs() + u64::from(wait.subsec_nanos() > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_comes_back_when_told_to_is_not_too_early() {
        for (wait, seconds) in [(1, 1), (999_999_999, 1), (1_000_000_000, 1), (1_000_000_001, 2)] {
            assert_eq!(whole_seconds(Duration::from_nanos(wait)), seconds);
        }
    }
}
