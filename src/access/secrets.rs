//! What a client has to present: an access token or a ticket.
//!
//! Tokens and keys can be exchanged while the relay runs. The lock is held for a comparison of tokens, or for a clone of the
//! keys, and never across an await.

use std::sync::PoisonError;

use super::access_tokens::AccessTokens;
use super::credentials::Credentials;
use super::ticket::{self, Grant, TicketFault};
use super::ticket_keys::TicketKeys;
use crate::pairing::join::Join;
use crate::runtime::clock::Clock;
use crate::runtime::sync::RwLock;
use crate::runtime::sync::atomic::{
    AtomicBool,
    Ordering::{Acquire, Release},
};

/// The access tokens and ticket keys of a relay. Without any, every client may join.
#[derive(Debug, Default)]
pub(crate) struct Secrets {
    current: RwLock<Current>,
    /// Whether there are any. Without them no request takes the lock, which all workers share.
    are_there: AtomicBool,
}

#[derive(Debug, Default)]
struct Current {
    access_tokens: Option<AccessTokens>,
    ticket_keys: Option<TicketKeys>,
}

/// Why a request is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Denied {
    /// It has no valid token.
    Token,
    /// It has a ticket, with this fault.
    Ticket(TicketFault),
}

impl Secrets {
    pub(crate) fn new(access_tokens: Option<AccessTokens>, ticket_keys: Option<TicketKeys>) -> Self {
        let are_there = AtomicBool::new(access_tokens.is_some() || ticket_keys.is_some());
        Self { current: RwLock::new(Current { access_tokens, ticket_keys }), are_there }
    }

    /// Exchanges the tokens. Existing connections stay.
    pub(crate) fn set_access_tokens(&self, tokens: AccessTokens) {
        self.exchange(|current| current.access_tokens = Some(tokens));
    }

    /// Exchanges the keys. Existing connections stay.
    pub(crate) fn set_ticket_keys(&self, keys: TicketKeys) {
        self.exchange(|current| current.ticket_keys = Some(keys));
    }

    fn exchange(&self, exchange: impl FnOnce(&mut Current)) {
        exchange(&mut self.current.write().unwrap_or_else(PoisonError::into_inner));
        self.are_there.store(true, Release); // never false again
    }

    /// What a request to `target` may do, if it has a token or a ticket, or needs none.
    ///
    /// `join` is what it asks for. If that is not valid, the request is to be rejected, whatever this says.
    ///
    /// The credentials are not looked for if none are needed. Of several tokens, one that is valid suffices. Of several
    /// tickets, the first counts.
    pub(crate) fn admit<'a>(
        &self,
        target: &'a str,
        join: Option<&Join>,
        credentials: impl FnOnce() -> Credentials<'a>,
        clock: &dyn Clock,
    ) -> Result<Grant, Denied> {
        if !self.are_there.load(Acquire) {
            return Ok(Grant::default());
        }
        let given: Vec<_> = credentials().tokens(target).collect();
        let (has_tokens, keys) = {
            let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
            if let Some(tokens) = &current.access_tokens
                && given.iter().any(|token| tokens.contains(token))
            {
                return Ok(Grant::default());
            }
            (current.access_tokens.is_some(), current.ticket_keys.clone())
        };
        let Some(keys) = keys else { return Err(Denied::Token) };
        // One of them, as signatures take long. Without tokens, what does not look like a ticket is a bad one.
        let ticket = given.iter().find(|token| ticket::has_its_form(token)).or(given.first().filter(|_| !has_tokens));
        let ticket = ticket.ok_or(Denied::Token)?;
        ticket::check(ticket, join, &keys, clock.since_epoch()).map_err(Denied::Ticket)
    }
}
