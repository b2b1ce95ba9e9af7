//! The secret of a pair, and what is derived from it.

use std::fmt;
use std::str::FromStr;

use data_encoding::BASE64URL_NOPAD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

use super::noise::fill_random;

/// The length of a secret and of a key, in bytes.
const LENGTH: usize = 32;

/// The length of a pair code before its encoding, in bytes.
const CODE: usize = 16;

/// The secret of a pair that encrypts: 32 random bytes, which both sides have and the relay does not.
///
/// It gives the pair code and the key that authenticates each meeting. It is compared and printed nowhere: its `Debug` output is
/// without it, and its memory is overwritten when it is dropped.
///
/// # Examples
///
/// ```
/// use arc_relay::client::Secret;
///
/// let secret = Secret::random();
/// let link = secret.link("https://app.example/pair"); // for the peer, as text or as a QR code
/// let same: Secret = link.parse()?;
/// assert_eq!(same.code(), secret.code());
/// # Ok::<(), arc_relay::client::InvalidSecret>(())
/// ```
#[derive(Clone)]
pub struct Secret(Zeroizing<[u8; LENGTH]>);

/// A text that holds no secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidSecret;

impl fmt::Display for InvalidSecret {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a secret is 43 characters of base64url, alone or behind the # of a link")
    }
}

impl std::error::Error for InvalidSecret {}

impl Secret {
    /// A secret for a new pair.
    ///
    /// # Panics
    ///
    /// If the system has no random numbers.
    pub fn random() -> Self {
        let mut bytes = Zeroizing::new([0; LENGTH]);
        fill_random(&mut *bytes);
        Self(bytes)
    }

    /// The secret with these bytes, which have to be random.
    pub fn from_bytes(bytes: [u8; LENGTH]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8; LENGTH] {
        &self.0
    }

    /// The bytes as text: 43 characters of base64url.
    pub fn to_text(&self) -> String {
        BASE64URL_NOPAD.encode(&*self.0)
    }

    /// A link that carries the secret in its fragment, which browsers send to no server.
    ///
    /// A fragment that `page` has already is replaced.
    pub fn link(&self, page: &str) -> String {
        format!("{}#{}", page.split('#').next().unwrap_or_default(), self.to_text())
    }

    /// The pair code that both sides give the relay.
    pub fn code(&self) -> String {
        let mut code = [0; CODE];
        self.derive("pair code", &mut code);
        BASE64URL_NOPAD.encode(&code)
    }

    /// A secret for one of several devices.
    ///
    /// The program that has them listens at the code of each. `name` tells the device from the others.
    pub fn device(&self, name: &str) -> Self {
        let mut bytes = Zeroizing::new([0; LENGTH]);
        self.derive(&format!("device {name}"), &mut *bytes);
        Self(bytes)
    }

    /// The key that authenticates each meeting.
    pub(super) fn key(&self) -> Zeroizing<[u8; LENGTH]> {
        let mut key = Zeroizing::new([0; LENGTH]);
        self.derive("key", &mut *key);
        key
    }

    /// HKDF-SHA-256 (RFC 5869) without a salt. Of at most 32 bytes, the first block is all.
    fn derive(&self, purpose: &str, out: &mut [u8]) {
        let mac = |key: &[u8], parts: &[&[u8]]| {
            let mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes a key of any length");
            Zeroizing::new(<[u8; LENGTH]>::from(
                parts.iter().fold(mac, |mac, part| mac.chain_update(part)).finalize().into_bytes(),
            ))
        };
        let extracted = mac(&[0; LENGTH], &[&*self.0]);
        let expanded = mac(&*extracted, &[b"arc-relay.e2e.v1 ", purpose.as_bytes(), &[1]]);
        out.copy_from_slice(&expanded[..out.len()]);
    }
}

/// From a link, or from the text alone.
impl FromStr for Secret {
    type Err = InvalidSecret;

    fn from_str(text: &str) -> Result<Self, InvalidSecret> {
        let text = text.rsplit_once('#').map_or(text, |(_, fragment)| fragment);
        let bytes = Zeroizing::new(BASE64URL_NOPAD.decode(text.as_bytes()).map_err(|_| InvalidSecret)?);
        Ok(Self::from_bytes(bytes.as_slice().try_into().map_err(|_| InvalidSecret)?))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Secret(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::vectors::{hex, vectors};

    #[test]
    fn code_key_and_devices_are_those_of_the_vectors() {
        for vector in vectors()["end_to_end"]["derivations"].as_array().unwrap() {
            let text = |field: &str| vector[field].as_str().unwrap();
            let secret = Secret::from_bytes(hex(text("secret")).try_into().unwrap());
            assert_eq!(secret.code(), text("code"));
            assert_eq!(secret.key().to_vec(), hex(text("key")));
            assert_eq!(secret.device(text("device")).as_bytes().to_vec(), hex(text("device_secret")));
        }
    }

    #[test]
    fn link_carries_the_secret_and_other_texts_do_not() {
        let secret = Secret::random();
        for text in [secret.to_text(), secret.link("https://app.example/?x=1"), secret.link("https://app.example/#old")]
        {
            assert_eq!(text.parse::<Secret>().unwrap().as_bytes(), secret.as_bytes());
        }
        let text = secret.to_text();
        for wrong in ["", "#", "https://app.example/", &text[1..], &format!("{text}="), &format!("{text}A")] {
            assert_eq!(wrong.parse::<Secret>().unwrap_err(), InvalidSecret, "{wrong}");
        }
        assert_ne!(Secret::random().as_bytes(), secret.as_bytes());
    }

    #[test]
    fn debug_output_is_without_the_secret() {
        assert_eq!(format!("{:?}", Secret::random()), "Secret(..)");
    }
}
