//! Tickets, signed without the code of the relay.

use std::time::{SystemTime, UNIX_EPOCH};

use data_encoding::BASE64URL_NOPAD;
use ed25519_dalek::{Signer, SigningKey};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// A key that signs tickets.
#[derive(Clone, Copy)]
pub enum Key {
    Hs256([u8; 32]),
    Ed25519([u8; 32]),
}

impl Key {
    /// The line of the key in a file of the relay.
    pub fn line(self) -> String {
        match self {
            Self::Hs256(secret) => format!("hs256 {}\n", encode(&secret)),
            Self::Ed25519(seed) => {
                format!("ed25519 {}\n", encode(SigningKey::from_bytes(&seed).verifying_key().as_bytes()))
            }
        }
    }

    /// A ticket with these claims, an object in JSON.
    pub fn sign(self, claims: &str) -> String {
        let algorithm = match self {
            Self::Hs256(_) => "HS256",
            Self::Ed25519(_) => "EdDSA",
        };
        let header = format!(r#"{{"alg":"{algorithm}","typ":"JWT"}}"#);
        let signed = format!("{}.{}", encode(header.as_bytes()), encode(claims.as_bytes()));
        let signature = match self {
            Self::Hs256(secret) => {
                let mac = Hmac::<Sha256>::new_from_slice(&secret).expect("a key of any length");
                mac.chain_update(&signed).finalize().into_bytes().to_vec()
            }
            Self::Ed25519(seed) => SigningKey::from_bytes(&seed).sign(signed.as_bytes()).to_bytes().to_vec(),
        };
        format!("{signed}.{}", encode(&signature))
    }
}

/// Base64url, without padding.
pub fn encode(bytes: &[u8]) -> String {
    BASE64URL_NOPAD.encode(bytes)
}

/// The time so many seconds from now, in seconds since 1970.
#[expect(clippy::disallowed_methods, reason = "tickets have dates of the wall clock")]
pub fn seconds_from_now(seconds: i64) -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is set");
    now.as_secs().cast_signed() + seconds
}
