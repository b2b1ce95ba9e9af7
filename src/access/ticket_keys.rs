//! Keys that tickets are signed with.
//!
//! This file does no I/O; the binary reads the file of keys. Nothing here prints a key. A key has one algorithm, which the
//! file says: what a ticket says only chooses among the keys of that algorithm. So a public key never becomes a secret
//! (RFC 8725, section 2.1).

#[cfg(test)]
mod tests;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use data_encoding::BASE64URL_NOPAD;
use ed25519_dalek::{Signature, VerifyingKey};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// The most keys of a file. A ticket that names no key may cost a check with each.
const MOST_KEYS: usize = 16;

/// The shortest secret of HS256, in bytes (RFC 7518, section 3.2).
const LEAST_SECRET: usize = 32;

/// The beginning of an Ed25519 public key in DER (RFC 8410, section 4).
///
/// So begins the line of Base64 in a PEM file.
pub(super) const ED25519_DER: [u8; 12] = [0x30, 0x2A, 0x30, 0x05, 0x06, 0x03, 0x2B, 0x65, 0x70, 0x03, 0x21, 0x00];

/// The keys that tickets are signed with, at least one.
///
/// Cloning is cheap, and [`Debug`](fmt::Debug) shows none of them.
///
/// # Examples
///
/// ```
/// use arc_relay::TicketKeys;
///
/// let keys: TicketKeys = "# of the backend\ned25519 11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo 2026\n".parse()?;
/// assert_eq!(keys.count(), 1);
/// assert_eq!(format!("{keys:?}"), "TicketKeys(..)");
/// # Ok::<(), arc_relay::InvalidTicketKeys>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct TicketKeys(Arc<[TicketKey]>);

/// A key, and its name if it has one.
#[derive(PartialEq, Eq)]
struct TicketKey {
    key: Key,
    id: Option<Box<str>>,
}

#[derive(PartialEq, Eq)]
enum Key {
    Hs256(Box<[u8]>),
    Ed25519(Box<VerifyingKey>),
}

/// The algorithm of a signature (RFC 7518, section 3.1, and RFC 8037, section 3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Algorithm {
    Hs256,
    Ed25519,
}

impl TicketKeys {
    /// The number of keys.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// Whether one of the keys has made this signature.
    ///
    /// A ticket may name its key. Keys with another name are not tried then.
    pub(super) fn have_signed(&self, message: &[u8], signature: &[u8], algorithm: Algorithm, id: Option<&str>) -> bool {
        let is_named = |key: &&TicketKey| match (&key.id, id) {
            (Some(known), Some(named)) => **known == *named,
            _ => true,
        };
        self.0.iter().filter(is_named).any(|key| key.key.has_signed(message, signature, algorithm))
    }
}

impl Key {
    fn has_signed(&self, message: &[u8], signature: &[u8], algorithm: Algorithm) -> bool {
        match (self, algorithm) {
            (Self::Hs256(secret), Algorithm::Hs256) => {
                let mac = Hmac::<Sha256>::new_from_slice(secret).expect("HMAC takes a key of any length");
                mac.chain_update(message).verify_slice(signature).is_ok() // in constant time
            }
            (Self::Ed25519(key), Algorithm::Ed25519) => {
                // Strictly: there is one signature only that is valid, and none of a weak key.
                Signature::from_slice(signature).is_ok_and(|signature| key.verify_strict(message, &signature).is_ok())
            }
            _ => false,
        }
    }

    /// Reads a key in the words of a line.
    fn parse(algorithm: &str, encoded: &str) -> Result<Self, Fault> {
        let key = decode(encoded);
        match algorithm {
            "hs256" => {
                let secret = key.filter(|secret| secret.len() >= LEAST_SECRET).ok_or(Fault::Hs256)?;
                Ok(Self::Hs256(secret.into()))
            }
            "ed25519" => {
                let key = key.ok_or(Fault::Ed25519)?;
                let point = key.strip_prefix(&ED25519_DER).unwrap_or(&key).try_into().map_err(|_| Fault::Ed25519)?;
                let key = VerifyingKey::from_bytes(point).ok().filter(|key| !key.is_weak()).ok_or(Fault::Ed25519)?;
                Ok(Self::Ed25519(Box::new(key)))
            }
            _ => Err(Fault::Algorithm),
        }
    }
}

/// Decodes Base64 of either alphabet, with or without padding.
///
/// Programs print keys in all of these forms.
fn decode(encoded: &str) -> Option<Vec<u8>> {
    let encoded = encoded.trim_end_matches('=').replace('+', "-").replace('/', "_");
    BASE64URL_NOPAD.decode(encoded.as_bytes()).ok()
}

impl FromStr for TicketKeys {
    type Err = InvalidTicketKeys;

    /// Reads one key from each line.
    ///
    /// A line has an algorithm, the key in Base64 or base64url, and a name if it has one.
    ///
    /// The algorithm is `hs256`, for a secret of at least 32 bytes, or `ed25519`, for a public key of 32 bytes or the DER
    /// that contains it. Blank lines and lines that begin with `#` are skipped.
    fn from_str(text: &str) -> Result<Self, InvalidTicketKeys> {
        // Some editors begin a file with a byte order mark.
        let text = text.strip_prefix('\u{FEFF}').unwrap_or(text);
        let lines = text.lines().map(str::trim).enumerate();
        let lines = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
        let read = |(nth, line)| parse_line(line).map_err(|fault| InvalidTicketKeys { line: nth + 1, fault });
        let keys = lines.map(read).collect::<Result<Arc<[_]>, _>>()?;
        match keys.len() {
            0 => Err(InvalidTicketKeys { line: 0, fault: Fault::None }),
            1..=MOST_KEYS => Ok(Self(keys)),
            _ => Err(InvalidTicketKeys { line: 0, fault: Fault::TooMany }),
        }
    }
}

fn parse_line(line: &str) -> Result<TicketKey, Fault> {
    let mut words = line.split_whitespace();
    let (Some(algorithm), Some(key), id, None) = (words.next(), words.next(), words.next(), words.next()) else {
        return Err(Fault::Words);
    };
    Ok(TicketKey { key: Key::parse(algorithm, key)?, id: id.map(Box::from) })
}

impl fmt::Debug for TicketKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TicketKeys(..)")
    }
}

/// The error for a text that is no list of ticket keys. It shows nothing of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidTicketKeys {
    /// The number of the line, from 1. 0: the fault is that of no line.
    line: usize,
    fault: Fault,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    TooMany,
    Words,
    Algorithm,
    Hs256,
    Ed25519,
}

impl fmt::Display for InvalidTicketKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line > 0 {
            write!(f, "line {}: ", self.line)?;
        }
        f.write_str(match self.fault {
            Fault::None => "there is no ticket key",
            Fault::TooMany => "there are more than 16 ticket keys",
            Fault::Words => "an algorithm, a key and at most one name are needed",
            Fault::Algorithm => "the algorithm has to be hs256 or ed25519",
            Fault::Hs256 => "a secret of at least 32 bytes in Base64 is needed",
            Fault::Ed25519 => "an Ed25519 public key in Base64 is needed",
        })
    }
}

impl std::error::Error for InvalidTicketKeys {}
