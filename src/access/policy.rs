//! The operator's policy: the clients that may join. By default these are all clients with a pair code.

use std::str;
use std::sync::PoisonError;

use crate::access::access_tokens::AccessTokens;
use crate::access::credentials::Credentials;
use crate::access::origin::Origin;
use crate::pairing::join::Join;
use crate::runtime::sync::RwLock;
use crate::runtime::sync::atomic::{
    AtomicBool,
    Ordering::{Acquire, Release},
};
use crate::telemetry::rejection::Rejection;

/// The requirements for a request to join.
#[derive(Debug, Default)]
pub(crate) struct Policy {
    /// The sites that may join by a script in a browser. Empty: all.
    allowed_origins: Vec<Origin>,
    /// The tokens of which a request needs one.
    ///
    /// They can be exchanged while the relay runs. The lock is held for a comparison, and never across an await.
    access_tokens: RwLock<Option<AccessTokens>>,
    /// Whether there are tokens. Without them no request takes the lock, which all workers share.
    needs_token: AtomicBool,
    /// The shortest pair code, in characters. An invalid code stays invalid, whatever this is.
    min_code_length: usize,
}

impl Policy {
    pub(crate) fn new(
        allowed_origins: Vec<Origin>,
        access_tokens: Option<AccessTokens>,
        min_code_length: usize,
    ) -> Self {
        let needs_token = AtomicBool::new(access_tokens.is_some());
        Self { allowed_origins, access_tokens: RwLock::new(access_tokens), needs_token, min_code_length }
    }

    /// The seat that a request asks for, if its client may join.
    ///
    /// `origins` are the values of `Origin`. The credentials are not looked for if none are needed.
    pub(crate) fn admit<'a>(
        &self,
        target: &'a str,
        origins: impl Iterator<Item = &'a [u8]>,
        credentials: impl FnOnce() -> Credentials<'a>,
    ) -> Result<Join, Rejection> {
        if !self.allows_origin(origins) {
            return Err(Rejection::Origin);
        }
        if !self.allows_access(target, credentials) {
            return Err(Rejection::Token);
        }
        let join = Join::from_target(target)?;
        if join.code.characters() < self.min_code_length {
            return Err(Rejection::PairCode);
        }
        Ok(join)
    }

    /// Exchanges the tokens. Existing connections stay.
    pub(crate) fn set_access_tokens(&self, tokens: AccessTokens) {
        *self.access_tokens.write().unwrap_or_else(PoisonError::into_inner) = Some(tokens);
        self.needs_token.store(true, Release); // never false again
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

    /// Whether the request has a token, or needs none.
    fn allows_access<'a>(&self, target: &'a str, credentials: impl FnOnce() -> Credentials<'a>) -> bool {
        if !self.needs_token.load(Acquire) {
            return true;
        }
        let tokens = self.access_tokens.read().unwrap_or_else(PoisonError::into_inner);
        let Some(tokens) = &*tokens else { return true };
        credentials().tokens(target).any(|token| tokens.contains(&token))
    }
}
