//! The tokens that let somebody join, and whether a client has one of them.
//!
//! This file does no I/O; whoever starts the relay reads the file they are in. They are secrets: nothing here prints one,
//! and of a token only its SHA-256 is kept.

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
    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// Whether this is one of them. How long it takes tells nothing about them but how many they are: what is compared
    /// are hashes, which all have one length, to their ends, and each with every token.
    pub(crate) fn contains(&self, token: &[u8]) -> bool {
        let hash = Sha256::digest(token);
        self.0.iter().fold(Choice::from(0), |found, known| found | known[..].ct_eq(&hash)).into()
    }
}

impl FromStr for AccessTokens {
    type Err = NoAccessToken;

    /// Reads one token from each line, without the white space around it. Blank lines and those that begin with `#` hold
    /// none.
    fn from_str(text: &str) -> Result<Self, NoAccessToken> {
        // Some editors begin a file with a mark that says how it is encoded.
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

/// A text without an access token. Taken for a list, it would let nobody in; taken for none, everybody.
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
    fn a_line_is_a_token_unless_it_is_blank_or_a_remark() {
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
    fn an_empty_list_is_none() {
        for text in ["", "\n \n", "# one", "#\n#\n"] {
            assert_eq!(text.parse::<AccessTokens>(), Err(NoAccessToken), "{text:?}");
        }
    }

    #[test]
    fn no_token_is_shown() {
        let tokens: AccessTokens = "hush".parse().unwrap();
        assert_eq!(format!("{tokens:?} {tokens:#?}"), "AccessTokens(..) AccessTokens(..)");
    }
}
