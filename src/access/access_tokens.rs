//! Access tokens: secrets that let a client join.
//!
//! This file does no I/O; the binary reads the token file. Nothing here prints a token, and only its SHA-256 is kept.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

/// The access tokens of a relay, at least one.
///
/// Cloning is cheap, and [`Debug`](fmt::Debug) shows none of them.
///
/// # Examples
///
/// ```
/// use arc_relay::AccessTokens;
///
/// let tokens: AccessTokens = "# for the phones\nQ5dLGlQvQ0bTqQ8iSxO6kQ\n".parse()?;
/// assert_eq!(tokens.count(), 1);
/// assert_eq!(format!("{tokens:?}"), "AccessTokens(..)");
/// # Ok::<(), arc_relay::NoAccessToken>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct AccessTokens(Arc<[[u8; 32]]>);

impl AccessTokens {
    /// The number of tokens.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// Whether this is one of the tokens.
    ///
    /// The comparison takes constant time. Hashes, which all have one length, are compared to their ends, and with every
    /// token. So its duration tells nothing but the number of tokens.
    pub(crate) fn contains(&self, token: &[u8]) -> bool {
        let hash = Sha256::digest(token);
        self.0.iter().fold(Choice::from(0), |found, known| found | known[..].ct_eq(&hash)).into()
    }
}

impl FromStr for AccessTokens {
    type Err = NoAccessToken;

    /// Reads one token from each line, without the white space around it.
    ///
    /// Blank lines and lines that begin with `#` are skipped.
    fn from_str(text: &str) -> Result<Self, NoAccessToken> {
        // Some editors begin a file with a byte order mark.
        let text = text.strip_prefix('\u{FEFF}').unwrap_or(text);
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        let hashes: Arc<[_]> = lines.map(|token| Sha256::digest(token).into()).collect();
        if hashes.is_empty() { Err(NoAccessToken) } else { Ok(Self(hashes)) }
    }
}

impl fmt::Debug for AccessTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AccessTokens(..)")
    }
}

/// The error for a text without an access token.
///
/// As a list it would let no client in, and as no list every client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoAccessToken;

impl fmt::Display for NoAccessToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("there is no access token")
    }
}

impl std::error::Error for NoAccessToken {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_is_a_token_unless_blank_or_a_comment() {
        let tokens: AccessTokens = "one\r\n\n  # two\n\t three four \n#five\nsix#6".parse().unwrap();
        assert_eq!(tokens.count(), 3);
        assert_eq!("\u{FEFF}one".parse(), "one".parse::<AccessTokens>());
        for token in ["one", "three four", "six#6"] {
            assert!(tokens.contains(token.as_bytes()), "{token}");
        }
        for token in ["", "o", "one\r", "one\0", "ONE", "# two", "two", "five", "three", "onethree four"] {
            assert!(!tokens.contains(token.as_bytes()), "{token}");
        }
    }

    #[test]
    fn a_text_without_a_token_is_an_error() {
        for text in ["", "\n \n", "# one", "#\n#\n"] {
            assert_eq!(text.parse::<AccessTokens>(), Err(NoAccessToken), "{text:?}");
        }
    }

    #[test]
    fn debug_shows_no_token() {
        let tokens: AccessTokens = "hush".parse().unwrap();
        assert_eq!(format!("{tokens:?} {tokens:#?}"), "AccessTokens(..) AccessTokens(..)");
    }
}
