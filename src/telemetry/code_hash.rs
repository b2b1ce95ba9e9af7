//! Keyed hashes of pair codes, by which two lines of a log are told to be of one pair.
//!
//! A pair code is a secret, and a log is read by many. So a line has the start of SHA-256 over a secret key and the code:
//! without the key, no guess of a code can be tried on a log. The key is drawn when the relay starts, and is in its memory only.

use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::BuildHasher;

use sha2::{Digest, Sha256};

/// The key of a relay's hashes, of a fixed length: so two keys with two codes are never the same bytes.
type Key = [u8; 32];

/// Hashes the pair codes of a relay, with a key of its own.
pub(crate) struct CodeHasher(Key);

/// The hash of a pair code, for logs.
///
/// 48 bits: two codes of a million in use have the same one with a probability of 0.2 %. Cutting off the rest also keeps
/// SHA-256 from being continued by bytes behind the code.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct CodeHash([u8; 6]);

impl CodeHasher {
    /// A hasher with a new key.
    pub(crate) fn new() -> Self {
        // The standard library draws 128 bits from the system for it, and has no other way to random numbers.
        let random = RandomState::new();
        let mut key = Key::default();
        for (nth, part) in key.chunks_exact_mut(size_of::<u64>()).enumerate() {
            part.copy_from_slice(&random.hash_one(nth).to_ne_bytes());
        }
        Self(key)
    }

    /// The hash of a code.
    pub(crate) fn hash(&self, code: &[u8]) -> CodeHash {
        let digest = Sha256::new().chain_update(self.0).chain_update(code).finalize();
        CodeHash(std::array::from_fn(|nth| digest[nth]))
    }
}

impl fmt::Debug for CodeHasher {
    /// Does not show the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CodeHasher(..)")
    }
}

impl fmt::Display for CodeHash {
    /// Twelve hexadecimal digits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for CodeHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hash_is_the_start_of_sha256_over_key_and_code() {
        // python3 -c "import hashlib; print(hashlib.sha256(bytes(32) + b'code').hexdigest()[:12])"
        assert_eq!(CodeHasher([0; 32]).hash(b"code").to_string(), "177b4b3209cb");
    }

    #[test]
    fn each_hasher_has_a_key_of_its_own() {
        let [one, two] = [(); 2].map(|()| CodeHasher::new());
        assert_eq!(one.hash(b"x"), one.hash(b"x"));
        assert_ne!(one.hash(b"x"), one.hash(b"y"));
        assert_ne!(one.hash(b"x"), two.hash(b"x"));
        assert_eq!(one.0.chunks_exact(8).collect::<std::collections::HashSet<_>>().len(), 4, "no part repeats");
        assert_eq!(format!("{one:?}"), "CodeHasher(..)");
    }
}
