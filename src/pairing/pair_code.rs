//! The pair code out of a request target.
//!
//! This file decides which two connections mean the same code, and it does nothing else: no lookups, no I/O. Its
//! counterpart is the pair table, which joins connections with equal codes.

use std::fmt;
use std::sync::Arc;

use crate::pairing::query;

/// The longest pair code that is accepted, in characters (Unicode scalar values) after decoding.
pub const MAX_CHARACTERS: usize = 256;

/// The secret by which two clients are joined.
///
/// Any client that knows a code can take its second seat. So [`Debug`](fmt::Debug) does not show it, and there is no
/// `Display`. Cloning is cheap.
///
/// # Examples
///
/// ```
/// use arc_relay::internals::pair_code::PairCode;
///
/// let encoded = PairCode::from_target("/?pair=blue%2Bwhale")?;
/// assert_eq!(encoded, PairCode::from_target("/any/path?x=1&pair=blue%2bwhale&pair=ignored")?);
/// assert_ne!(encoded, PairCode::from_target("/?pair=blue+whale")?); // `+` is a space
/// assert_eq!(format!("{encoded:?}"), "PairCode(..)");
/// # Ok::<(), arc_relay::internals::pair_code::InvalidPairCode>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct PairCode(Arc<str>);

impl PairCode {
    /// Reads the code from a request target in origin or absolute form, such as `/?pair=CODE`.
    ///
    /// The query is decoded as `application/x-www-form-urlencoded` ([URL Standard, section 5.1]): `%xx` stands for a
    /// byte and `+` for a space, in names as in values, and a `%` that no two hexadecimal digits follow stands for
    /// itself. The first `pair` decides, whatever follows it. Unlike in that standard, bytes that are not UTF-8 are
    /// refused and not replaced: two different byte strings must never become the same code.
    ///
    /// # Errors
    ///
    /// [`InvalidPairCode`] if there is no `pair`, or the first one is empty, longer than [`MAX_CHARACTERS`], or not
    /// UTF-8. The fault is the client's.
    ///
    /// [URL Standard, section 5.1]: https://url.spec.whatwg.org/#urlencoded-parsing
    pub fn from_target(target: &str) -> Result<Self, InvalidPairCode> {
        match query::first_text(target, "pair", MAX_CHARACTERS) {
            Ok(Some(code)) => Ok(Self(code)),
            _ => Err(InvalidPairCode),
        }
    }

    /// The length in characters (Unicode scalar values).
    ///
    /// # Examples
    ///
    /// ```
    /// use arc_relay::internals::pair_code::PairCode;
    ///
    /// assert_eq!(PairCode::from_target("/?pair=%F0%9F%90%8B")?.characters(), 1);
    /// # Ok::<(), arc_relay::internals::pair_code::InvalidPairCode>(())
    /// ```
    pub fn characters(&self) -> usize {
        self.0.chars().count()
    }

    /// The code itself, for its keyed hash. Nothing may show it.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl fmt::Debug for PairCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PairCode(..)")
    }
}

/// A request target has no usable pair code.
///
/// The error does not show what was there: that might be a code, mistyped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidPairCode;

impl fmt::Display for InvalidPairCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("missing or invalid pair code")
    }
}

impl std::error::Error for InvalidPairCode {}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(target: &str) -> Option<String> {
        PairCode::from_target(target).ok().map(|code| code.0.to_string())
    }

    #[test]
    fn code_is_read_from_the_query() {
        assert_eq!(code("/?pair=abc").as_deref(), Some("abc"));
        assert_eq!(code("ws://host/deep/path?pair=abc").as_deref(), Some("abc"));
        assert_eq!(code("?pair=a=b?c").as_deref(), Some("a=b?c"));
    }

    #[test]
    fn percent_and_plus_are_decoded_in_names_and_values() {
        assert_eq!(code("/?p%61ir=a%20b+c%2B").as_deref(), Some("a b c+"));
        assert_eq!(code("/?pair=%F0%9F%90%8B").as_deref(), Some("🐋"));
    }

    #[test]
    fn stray_percent_stands_for_itself() {
        assert_eq!(code("/?pair=100%").as_deref(), Some("100%"));
        assert_eq!(code("/?pair=%zz%4").as_deref(), Some("%zz%4"));
    }

    #[test]
    fn first_pair_wins_even_if_it_is_bad() {
        assert_eq!(code("/?pair=a&pair=b").as_deref(), Some("a"));
        assert_eq!(code("/?pair=&pair=b"), None);
        assert_eq!(code("/?pair=%FF&pair=b"), None);
        assert_eq!(code("/?pairs=x&PAIR=y&pair=z").as_deref(), Some("z"));
    }

    #[test]
    fn missing_or_empty_code_is_refused() {
        for target in ["", "/", "/?", "/?pair", "/?pair=", "/?pair=#x", "/#?", "/?%70air", "/?repair=a", "/pair=a"] {
            assert_eq!(code(target), None, "{target}");
        }
    }

    #[test]
    fn fragment_is_no_part_of_the_code() {
        assert_eq!(code("/?pair=a#b").as_deref(), Some("a"));
    }

    #[test]
    fn length_is_counted_in_characters_after_decoding() {
        assert!(code(&format!("/?pair={}", "x".repeat(256))).is_some());
        assert!(code(&format!("/?pair={}", "x".repeat(257))).is_none());
        assert!(code(&format!("/?pair={}", "%F0%9F%90%8B".repeat(256))).is_some());
        assert!(code(&format!("/?pair={}", "%F0%9F%90%8B".repeat(257))).is_none());
    }

    #[test]
    fn bytes_that_are_not_utf8_are_refused_and_not_replaced() {
        for bytes in ["%FF", "a%C3", "%C0%80", "%ED%A0%80", "%F5%80%80%80"] {
            assert_eq!(code(&format!("/?pair={bytes}")), None, "{bytes}");
        }
        // A lossy decoder would turn them into this, which is a code like any other.
        assert_eq!(code("/?pair=%EF%BF%BD").as_deref(), Some("\u{FFFD}"));
    }

    #[test]
    fn code_and_error_do_not_show_what_was_there() {
        let error = PairCode::from_target("/?hush").unwrap_err();
        assert_eq!(error.to_string(), "missing or invalid pair code");
        let code = PairCode::from_target("/?pair=hush").unwrap();
        assert_eq!(format!("{code:?}"), "PairCode(..)");
    }
}
