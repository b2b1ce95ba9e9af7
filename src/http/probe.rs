//! Questions about the relay itself, and their answers.
//!
//! The operations listener answers them, too, in the same words.

use http::StatusCode;

use super::answer::Answer;
use super::context::HandshakeContext;

/// A question about the relay itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Probe {
    /// How many codes are in use?
    Health,
    /// Does the process answer?
    Liveness,
    /// Are new clients to come?
    Readiness,
}

impl Probe {
    pub(crate) fn at(path: &str) -> Option<Self> {
        match path {
            "/health" | "/health/" => Some(Self::Health),
            "/livez" => Some(Self::Liveness),
            "/readyz" => Some(Self::Readiness),
            _ => None,
        }
    }

    pub(crate) fn answer(self, context: &HandshakeContext) -> Answer {
        match self {
            Self::Health => {
                let health = format!("{{\"ok\":true,\"pairs\":{}}}", context.seats.pairs());
                Answer::with_body(StatusCode::OK, "application/json", health)
            }
            Self::Liveness => Answer::with_line(StatusCode::OK, "alive"),
            Self::Readiness if context.readiness.is_ready() => Answer::with_line(StatusCode::OK, "ready"),
            Self::Readiness => Answer::with_line(StatusCode::SERVICE_UNAVAILABLE, "stopping"),
        }
    }
}
