//! `Noise_NNpsk0_25519_ChaChaPoly_SHA256`: the state machine of snow, on primitives of other crates.
//!
//! Snow's own choice of primitives would bring older versions of the same crates beside those of tickets and of TLS.

use curve25519_dalek::MontgomeryPoint;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use ring::rand::{SecureRandom, SystemRandom};
use sha2::{Digest, Sha256};
use snow::params::{CipherChoice, DHChoice, HashChoice};
use snow::resolvers::CryptoResolver;
use snow::types::{Cipher, Dh, Hash, Random};
use snow::{Builder, Error, HandshakeState};
use zeroize::Zeroizing;

/// The protocol, as the Noise framework names it.
const NAME: &str = "Noise_NNpsk0_25519_ChaChaPoly_SHA256";

/// What both sides have to agree on.
const PROLOGUE: &[u8] = b"arc-relay.e2e.v1";

/// The length of keys, of public keys and of hashes, in bytes.
const KEY: usize = 32;

/// The length of what authenticates a message, in bytes.
pub(super) const TAG: usize = 16;

/// The length of both messages of a handshake, in bytes: a public key, and an empty payload.
pub(super) const GREETING: usize = KEY + TAG;

/// The state of a side before the handshake.
pub(super) fn handshake(key: &[u8; KEY], is_initiator: bool) -> HandshakeState {
    let builder = builder(key);
    if is_initiator { builder.build_initiator() } else { builder.build_responder() }.expect("all primitives are there")
}

fn builder(key: &[u8; KEY]) -> Builder<'_> {
    let builder = Builder::with_resolver(NAME.parse().expect("the name is right"), Box::new(Primitives));
    let builder = builder.psk(0, key).and_then(|builder| builder.prologue(PROLOGUE));
    builder.expect("both are given once")
}

/// Fills a buffer with random bytes of the system.
///
/// # Panics
///
/// If the system has none.
pub(super) fn fill_random(bytes: &mut [u8]) {
    SystemRandom::new().fill(bytes).expect("the system has random numbers");
}

/// The primitives of the protocol.
struct Primitives;

impl CryptoResolver for Primitives {
    fn resolve_rng(&self) -> Option<Box<dyn Random>> {
        Some(Box::new(System))
    }

    fn resolve_dh(&self, choice: &DHChoice) -> Option<Box<dyn Dh>> {
        matches!(choice, DHChoice::Curve25519).then(|| Box::new(X25519::default()) as Box<dyn Dh>)
    }

    fn resolve_hash(&self, choice: &HashChoice) -> Option<Box<dyn Hash>> {
        matches!(choice, HashChoice::SHA256).then(|| Box::new(Sha(Sha256::new())) as Box<dyn Hash>)
    }

    fn resolve_cipher(&self, choice: &CipherChoice) -> Option<Box<dyn Cipher>> {
        matches!(choice, CipherChoice::ChaChaPoly).then(|| Box::new(ChaChaPoly(None)) as Box<dyn Cipher>)
    }
}

struct System;

impl Random for System {
    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Error> {
        SystemRandom::new().fill(bytes).map_err(|_| Error::Rng)
    }
}

/// Diffie-Hellman on Curve25519 (RFC 7748).
#[derive(Default)]
struct X25519 {
    private: Zeroizing<[u8; KEY]>,
    public: [u8; KEY],
}

impl Dh for X25519 {
    fn name(&self) -> &'static str {
        "25519"
    }

    fn pub_len(&self) -> usize {
        KEY
    }

    fn priv_len(&self) -> usize {
        KEY
    }

    fn set(&mut self, private: &[u8]) {
        self.private.copy_from_slice(private);
        self.public = MontgomeryPoint::mul_base_clamped(*self.private).to_bytes();
    }

    fn generate(&mut self, random: &mut dyn Random) -> Result<(), Error> {
        let mut private = Zeroizing::new([0; KEY]);
        random.try_fill_bytes(&mut *private)?;
        self.set(&*private);
        Ok(())
    }

    fn pubkey(&self) -> &[u8] {
        &self.public
    }

    fn privkey(&self) -> &[u8] {
        &*self.private
    }

    fn dh(&self, public: &[u8], shared: &mut [u8]) -> Result<(), Error> {
        let public = public.first_chunk::<KEY>().ok_or(Error::Dh)?;
        let point = MontgomeryPoint(*public).mul_clamped(*self.private);
        // A public key of low order: what it gives is known to all.
        if point.to_bytes() == [0; KEY] {
            return Err(Error::Dh);
        }
        shared[..KEY].copy_from_slice(point.as_bytes());
        Ok(())
    }
}

struct Sha(Sha256);

impl Hash for Sha {
    fn name(&self) -> &'static str {
        "SHA256"
    }

    fn block_len(&self) -> usize {
        64
    }

    fn hash_len(&self) -> usize {
        KEY
    }

    fn reset(&mut self) {
        self.0 = Sha256::new();
    }

    fn input(&mut self, data: &[u8]) {
        self.0.update(data);
    }

    fn result(&mut self, hash: &mut [u8]) {
        hash[..KEY].copy_from_slice(&self.0.finalize_reset());
    }
}

/// ChaCha20-Poly1305 (RFC 8439). Snow counts the messages, and sets the key before the first.
struct ChaChaPoly(Option<LessSafeKey>);

impl ChaChaPoly {
    fn key(&self) -> &LessSafeKey {
        self.0.as_ref().expect("a key was set")
    }
}

/// Section 12.3 of the framework: 32 bits of zeros, then the number, little-endian.
fn nonce(number: u64) -> Nonce {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&number.to_le_bytes());
    Nonce::assume_unique_for_key(nonce)
}

impl Cipher for ChaChaPoly {
    fn name(&self) -> &'static str {
        "ChaChaPoly"
    }

    fn set(&mut self, key: &[u8; KEY]) {
        self.0 = Some(LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, key).expect("a key has 32 bytes")));
    }

    fn encrypt(&self, number: u64, data: &[u8], plaintext: &[u8], ciphertext: &mut [u8]) -> usize {
        let (text, tag) = ciphertext.split_at_mut(plaintext.len());
        text.copy_from_slice(plaintext);
        let sealed = self.key().seal_in_place_separate_tag(nonce(number), Aad::from(data), text);
        tag[..TAG].copy_from_slice(sealed.expect("a message is shorter than 256 GiB").as_ref());
        plaintext.len() + TAG
    }

    fn decrypt(&self, number: u64, data: &[u8], ciphertext: &[u8], plaintext: &mut [u8]) -> Result<usize, Error> {
        let length = ciphertext.len().checked_sub(TAG).ok_or(Error::Decrypt)?;
        let (text, tag) = ciphertext.split_at(length);
        let plaintext = plaintext.get_mut(..length).ok_or(Error::Decrypt)?;
        plaintext.copy_from_slice(text);
        let tag = tag.try_into().map_err(|_| Error::Decrypt)?;
        let opened = self.key().open_in_place_separate_tag(nonce(number), Aad::from(data), tag, plaintext, 0..);
        opened.map(|_| length).map_err(|_| Error::Decrypt)
    }
}

/// The first message of a peer that has the secret, and a public key of low order.
#[cfg(test)]
pub(super) fn greeting_of_low_order(key: &[u8; KEY]) -> Vec<u8> {
    struct LowOrder;
    impl CryptoResolver for LowOrder {
        fn resolve_rng(&self) -> Option<Box<dyn Random>> {
            Primitives.resolve_rng()
        }
        fn resolve_dh(&self, _: &DHChoice) -> Option<Box<dyn Dh>> {
            Some(Box::new(Zeros))
        }
        fn resolve_hash(&self, choice: &HashChoice) -> Option<Box<dyn Hash>> {
            Primitives.resolve_hash(choice)
        }
        fn resolve_cipher(&self, choice: &CipherChoice) -> Option<Box<dyn Cipher>> {
            Primitives.resolve_cipher(choice)
        }
    }
    struct Zeros;
    impl Dh for Zeros {
        fn name(&self) -> &'static str {
            "25519"
        }
        fn pub_len(&self) -> usize {
            KEY
        }
        fn priv_len(&self) -> usize {
            KEY
        }
        fn set(&mut self, _: &[u8]) {}
        fn generate(&mut self, _: &mut dyn Random) -> Result<(), Error> {
            Ok(())
        }
        fn pubkey(&self) -> &[u8] {
            &[0; KEY]
        }
        fn privkey(&self) -> &[u8] {
            &[0; KEY]
        }
        fn dh(&self, _: &[u8], _: &mut [u8]) -> Result<(), Error> {
            Ok(())
        }
    }
    let builder = Builder::with_resolver(NAME.parse().expect("the name is right"), Box::new(LowOrder));
    let builder = builder.psk(0, key).and_then(|builder| builder.prologue(PROLOGUE)).expect("both are given once");
    let mut message = vec![0; GREETING];
    let length = builder.build_initiator().and_then(|mut state| state.write_message(&[], &mut message));
    assert_eq!(length.expect("a message"), GREETING);
    message
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::client::vectors::{hex, vectors};

    fn bytes(of: &Value, field: &str) -> Vec<u8> {
        hex(of[field].as_str().unwrap())
    }

    #[test]
    fn handshakes_and_records_are_those_of_the_vectors() {
        let vectors = vectors();
        for meeting in vectors["end_to_end"]["meetings"].as_array().unwrap() {
            let key: [u8; KEY] = bytes(meeting, "key").try_into().unwrap();
            let ephemerals = ["initiator_ephemeral", "responder_ephemeral"].map(|field| bytes(meeting, field));
            let [one, other] = ephemerals.each_ref().map(|own| builder(&key).fixed_ephemeral_key_for_testing_only(own));
            let (mut one, mut other) = (one.build_initiator().unwrap(), other.build_responder().unwrap());
            let mut message = [0; GREETING];
            assert_eq!(one.write_message(&[], &mut message).unwrap(), GREETING);
            assert_eq!(message.to_vec(), bytes(meeting, "first"));
            assert_eq!(other.read_message(&message, &mut []).unwrap(), 0);
            assert_eq!(other.write_message(&[], &mut message).unwrap(), GREETING);
            assert_eq!(message.to_vec(), bytes(meeting, "second"));
            assert_eq!(one.read_message(&message, &mut []).unwrap(), 0);
            let mut sides = [one, other].map(|side| side.into_transport_mode().unwrap());
            for record in meeting["records"].as_array().unwrap() {
                let [from, to] = if record["from"] == "initiator" { [0, 1] } else { [1, 0] };
                let mut out = [0; 100];
                let length = sides[from].write_message(&bytes(record, "plaintext"), &mut out).unwrap();
                assert_eq!(out[..length], bytes(record, "record"));
                let sealed = out[..length].to_vec();
                let length = sides[to].read_message(&sealed, &mut out).unwrap();
                assert_eq!(out[..length], bytes(record, "plaintext"));
            }
        }
    }

    #[test]
    fn public_keys_of_low_order_are_refused() {
        let mut own = X25519::default();
        own.generate(&mut System).unwrap();
        let mut one = [0; KEY];
        one[0] = 1;
        for public in [[0; KEY], one] {
            assert!(own.dh(&public, &mut [0; KEY]).is_err());
        }
        assert!(own.dh(&[9; KEY - 1], &mut [0; KEY]).is_err());
    }
}
