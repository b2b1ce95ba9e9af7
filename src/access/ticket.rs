//! Tickets: signed, short-lived access tokens that a backend makes, and that need no list here.
//!
//! A ticket is a JSON Web Token (RFC 7519) in the compact serialization (RFC 7515, section 7.1). This file reads one and
//! decides on it. It is pure: the time is an argument. [`ticket_keys`](super::ticket_keys) checks the signature.
//!
//! A refusal tells the client only what its own ticket says, and whether the signature is good.

#[cfg(test)]
mod tests;

use std::num::NonZeroU64;
use std::time::Duration;

use data_encoding::BASE64URL_NOPAD;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::ticket_keys::{Algorithm, TicketKeys};
use crate::pairing::join::Join;
use crate::pairing::side_id::SideId;

/// How far apart the clocks of signer and relay may be.
///
/// Synchronized clocks differ by less than a second. A ticket of a minute is not to last much longer than that.
const LEEWAY: Duration = Duration::from_secs(5);

/// The most bytes of a ticket. Those of backends have some hundreds.
const MOST_BYTES: usize = 4096;

/// The first `exp` that is no number of seconds: the year 5138.
///
/// A program that counts in milliseconds would make tickets that never expire.
const NO_SECONDS: f64 = 1e11;

/// The audience that this relay belongs to (RFC 7519, section 4.1.3).
const AUDIENCE: &str = "arc-relay";

/// What a valid ticket says about the connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Grant {
    /// The identity of the client.
    pub(crate) side: Option<SideId>,
    /// How many bytes the client may send in a second.
    pub(crate) rate: Option<NonZeroU64>,
}

/// The fault of a ticket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TicketFault {
    /// Its form, its algorithm, its signature or the type of a claim.
    Invalid,
    NoExpiry,
    Milliseconds,
    Expired,
    NotYetValid,
    OtherAudience,
    OtherPair,
    OtherSide,
}

impl TicketFault {
    /// The fault in one line, for the client.
    pub(crate) fn line(self) -> &'static str {
        match self {
            Self::Invalid => "invalid ticket",
            Self::NoExpiry => "ticket has no exp",
            Self::Milliseconds => "ticket has an exp that is not in seconds",
            Self::Expired => "ticket expired",
            Self::NotYetValid => "ticket not valid yet",
            Self::OtherAudience => "ticket is for another audience",
            Self::OtherPair => "ticket is for another pair",
            Self::OtherSide => "ticket is for another side",
        }
    }
}

/// Decides on a ticket for this request, which is missing if it is to be rejected anyway.
///
/// `now` is the time since 1970. The signature, which takes the longest, is checked last.
pub(super) fn check(
    ticket: &[u8],
    join: Option<&Join>,
    keys: &TicketKeys,
    now: Duration,
) -> Result<Grant, TicketFault> {
    let parts = Parts::split(ticket).ok_or(TicketFault::Invalid)?;
    let header = Header::read(parts.header).ok_or(TicketFault::Invalid)?;
    let claims = Claims::read(parts.claims)?;
    claims.allow(join, now.as_secs_f64())?;
    match keys.have_signed(parts.signed, &parts.signature, header.algorithm, header.key_id.as_deref()) {
        true => Ok(Grant { side: claims.side, rate: claims.rate }),
        false => Err(TicketFault::Invalid),
    }
}

/// Whether this may be a ticket: it has three parts.
pub(super) fn has_its_form(token: &[u8]) -> bool {
    token.iter().filter(|&&byte| byte == b'.').count() == 2
}

/// The parts of a ticket.
struct Parts<'a> {
    header: &'a [u8],
    claims: &'a [u8],
    /// What the signature is over: header and claims, as they were sent.
    signed: &'a [u8],
    signature: Vec<u8>,
}

impl<'a> Parts<'a> {
    fn split(ticket: &'a [u8]) -> Option<Self> {
        let mut parts = ticket.split(|&byte| byte == b'.');
        let (header, claims, signature) = (parts.next()?, parts.next()?, parts.next()?);
        if parts.next().is_some() || ticket.len() > MOST_BYTES {
            return None;
        }
        let signed = &ticket[..header.len() + 1 + claims.len()];
        Some(Self { header, claims, signed, signature: BASE64URL_NOPAD.decode(signature).ok()? })
    }
}

/// Reads a JSON object in base64url. If it has a name twice, the last one counts (RFC 7519, section 4).
fn object(encoded: &[u8]) -> Option<Map<String, Value>> {
    serde_json::from_slice(&BASE64URL_NOPAD.decode(encoded).ok()?).ok()
}

/// The header of a ticket.
struct Header {
    algorithm: Algorithm,
    key_id: Option<String>,
}

impl Header {
    fn read(encoded: &[u8]) -> Option<Self> {
        let mut fields = object(encoded)?;
        let algorithm = match fields.get("alg")?.as_str()? {
            "HS256" => Algorithm::Hs256,
            // RFC 8037, section 3.1, and its successor, RFC 9864, section 2.2.
            "EdDSA" | "Ed25519" => Algorithm::Ed25519,
            _ => return None,
        };
        // Extensions that have to be understood (RFC 7515, section 4.1.11). This understands none.
        if fields.contains_key("crit") {
            return None;
        }
        let key_id = match fields.remove("kid") {
            None => None,
            Some(Value::String(id)) => Some(id),
            Some(_) => return None,
        };
        Some(Self { algorithm, key_id })
    }
}

/// The claims of a ticket that the relay knows. It ignores all others.
#[derive(Debug, PartialEq)]
struct Claims {
    /// In seconds since 1970, as `not_before`. Fractions are allowed (RFC 7519, section 2).
    expiry: f64,
    not_before: Option<f64>,
    is_for_others: bool,
    pair: Option<String>,
    pair_sha256: Option<[u8; 32]>,
    side: Option<SideId>,
    rate: Option<NonZeroU64>,
}

impl Claims {
    /// Reads the claims.
    ///
    /// One of a wrong type makes the ticket invalid: as a missing one, it might permit more.
    fn read(encoded: &[u8]) -> Result<Self, TicketFault> {
        const INVALID: TicketFault = TicketFault::Invalid;
        let claims = object(encoded).ok_or(INVALID)?;
        let optional = |name: &str| claims.get(name);
        let expiry = optional("exp").ok_or(TicketFault::NoExpiry)?.as_f64().ok_or(INVALID)?;
        if expiry >= NO_SECONDS {
            return Err(TicketFault::Milliseconds);
        }
        Ok(Self {
            expiry,
            not_before: optional("nbf").map(|time| time.as_f64().ok_or(INVALID)).transpose()?,
            is_for_others: !optional("aud").map_or(Ok(true), |audience| names_this(audience).ok_or(INVALID))?,
            pair: optional("pair").map(|code| code.as_str().map(str::to_owned).ok_or(INVALID)).transpose()?,
            pair_sha256: optional("pair_sha256").map(|hash| sha256(hash).ok_or(INVALID)).transpose()?,
            side: optional("side").map(|side| side.as_str().and_then(SideId::new).ok_or(INVALID)).transpose()?,
            rate: optional("rate").map(|rate| rate.as_u64().and_then(NonZeroU64::new).ok_or(INVALID)).transpose()?,
        })
    }

    /// Whether the claims allow this request at this time.
    fn allow(&self, join: Option<&Join>, now: f64) -> Result<(), TicketFault> {
        let leeway = LEEWAY.as_secs_f64();
        if now >= self.expiry + leeway {
            return Err(TicketFault::Expired);
        }
        if self.not_before.is_some_and(|time| now < time - leeway) {
            return Err(TicketFault::NotYetValid);
        }
        if self.is_for_others {
            return Err(TicketFault::OtherAudience);
        }
        let Some(Join { code, side, .. }) = join else { return Ok(()) };
        let is_pair = self.pair.as_ref().is_none_or(|pair| pair.as_bytes() == code.as_bytes());
        let has_hash = |hash: &[u8; 32]| Sha256::digest(code.as_bytes())[..] == hash[..];
        if !is_pair || !self.pair_sha256.as_ref().is_none_or(has_hash) {
            return Err(TicketFault::OtherPair);
        }
        match (&self.side, side) {
            (Some(own), Some(asked)) if own != asked => Err(TicketFault::OtherSide),
            _ => Ok(()),
        }
    }
}

/// Whether an `aud`, a name or a list of names, names this relay.
fn names_this(audience: &Value) -> Option<bool> {
    match audience {
        Value::String(name) => Some(name == AUDIENCE),
        Value::Array(names) => {
            let names = names.iter().map(Value::as_str).collect::<Option<Vec<_>>>()?;
            Some(names.contains(&AUDIENCE))
        }
        _ => None,
    }
}

/// A SHA-256 in base64url.
fn sha256(hash: &Value) -> Option<[u8; 32]> {
    BASE64URL_NOPAD.decode(hash.as_str()?.as_bytes()).ok()?.try_into().ok()
}
