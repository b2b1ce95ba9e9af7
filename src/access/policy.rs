//! The operator's policy: the clients that may join. By default these are all clients with a pair code.

use std::num::NonZeroU64;
use std::str;

use crate::access::credentials::Credentials;
use crate::access::origin::Origin;
use crate::access::secrets::{Denied, Secrets};
use crate::access::ticket::{Grant, TicketFault};
use crate::pairing::join::Join;
use crate::runtime::clock::Clock;
use crate::telemetry::rejection::Rejection;

/// The requirements for a request to join.
#[derive(Debug, Default)]
pub(crate) struct Policy {
    /// The sites that may join by a script in a browser. Empty: all.
    allowed_origins: Vec<Origin>,
    /// The access tokens, and the keys of tickets.
    pub(crate) secrets: Secrets,
    /// The shortest pair code, in characters. An invalid code stays invalid, whatever this is.
    min_code_length: usize,
}

impl Policy {
    pub(crate) fn new(allowed_origins: Vec<Origin>, secrets: Secrets, min_code_length: usize) -> Self {
        Self { allowed_origins, secrets, min_code_length }
    }

    /// The seat that a request asks for, if its client may join.
    ///
    /// `origins` are the values of `Origin`. The credentials are not looked for if none are needed.
    pub(crate) fn admit<'a>(
        &self,
        target: &'a str,
        origins: impl Iterator<Item = &'a [u8]>,
        credentials: impl FnOnce() -> Credentials<'a>,
        clock: &dyn Clock,
    ) -> Result<Permitted, Refusal> {
        if !self.allows_origin(origins) {
            return Err(Rejection::Origin.into());
        }
        let join = Join::from_target(target);
        let Grant { side, rate } = self.secrets.admit(target, join.as_ref().ok(), credentials, clock)?;
        let mut join = join?;
        if join.code.characters() < self.min_code_length {
            return Err(Rejection::PairCode.into());
        }
        join.side = side.or(join.side);
        Ok(Permitted { join, rate })
    }

    /// Whether the origin is allowed.
    ///
    /// Browsers send an origin with every WebSocket, and a script cannot choose it. So a client that sends none is no
    /// browser, and no site's script.
    fn allows_origin<'a>(&self, mut origins: impl Iterator<Item = &'a [u8]>) -> bool {
        let is_allowed = |origin: Option<Origin>| origin.is_some_and(|origin| self.allowed_origins.contains(&origin));
        let parse = |origin: &[u8]| str::from_utf8(origin).ok().filter(|origin| origin.is_ascii())?.parse().ok();
        self.allowed_origins.is_empty() || origins.all(|origin| is_allowed(parse(origin)))
    }
}

/// What a client may have.
#[derive(Debug)]
pub(crate) struct Permitted {
    pub(crate) join: Join,
    /// How many bytes it may send in a second, if its ticket says so.
    pub(crate) rate: Option<NonZeroU64>,
}

/// Why a client may not join.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) reason: Rejection,
    /// The fault of its ticket, if that is the reason.
    pub(crate) ticket_fault: Option<TicketFault>,
}

impl From<Rejection> for Refusal {
    fn from(reason: Rejection) -> Self {
        Self { reason, ticket_fault: None }
    }
}

impl From<Denied> for Refusal {
    fn from(denied: Denied) -> Self {
        match denied {
            Denied::Token => Rejection::Token.into(),
            Denied::Ticket(fault) => Self { reason: Rejection::Ticket, ticket_fault: Some(fault) },
        }
    }
}
