//! The query of a request target.

use std::borrow::Cow;
use std::sync::Arc;

use percent_encoding::percent_decode;

/// The value of the first field of this name in the query of a request target.
///
/// The query is decoded as `application/x-www-form-urlencoded` ([URL Standard, section 5.1]): `%xx` stands for a byte
/// and `+` for a space, in names as in values, and a `%` that no two hexadecimal digits follow stands for itself. Unlike
/// in that standard, bytes that are not UTF-8 are not replaced.
///
/// [URL Standard, section 5.1]: https://url.spec.whatwg.org/#urlencoded-parsing
pub(crate) fn first<'a>(target: &'a str, name: &str) -> Option<Cow<'a, [u8]>> {
    let (_, query) = split_at(target.as_bytes(), b'?')?;
    // A fragment is not part of a request target, but nothing stops a client from sending one.
    let query = split_at(query, b'#').map_or(query, |(query, _)| query);
    query
        .split(|&byte| byte == b'&')
        .map(|field| split_at(field, b'=').unwrap_or((field, b"")))
        .find_map(|(found, value)| (*form_decode(found) == *name.as_bytes()).then(|| form_decode(value)))
}

/// What is in front of the first such byte, and what is behind it.
fn split_at(bytes: &[u8], separator: u8) -> Option<(&[u8], &[u8])> {
    let at = bytes.iter().position(|&byte| byte == separator)?;
    Some((&bytes[..at], &bytes[at + 1..]))
}

/// A field is empty, too long, or not UTF-8.
#[derive(Clone, Copy, Debug)]
pub(super) struct InvalidText;

/// The value of the [first] field of this name, if there is one.
///
/// It is a text of 1 to `longest` characters (Unicode scalar values).
pub(super) fn first_text(target: &str, name: &str, longest: usize) -> Result<Option<Arc<str>>, InvalidText> {
    first(target, name).map(|value| text(&value, longest)).transpose()
}

/// These bytes as a text of 1 to `longest` characters (Unicode scalar values).
pub(super) fn text(bytes: &[u8], longest: usize) -> Result<Arc<str>, InvalidText> {
    let text = str::from_utf8(bytes).map_err(|_| InvalidText)?;
    let length = text.chars().take(longest + 1).count();
    if (1..=longest).contains(&length) { Ok(text.into()) } else { Err(InvalidText) }
}

/// Decodes one name or value, and borrows it if there is nothing to decode.
fn form_decode(field: &[u8]) -> Cow<'_, [u8]> {
    if !field.iter().any(|byte| matches!(byte, b'+' | b'%')) {
        return field.into();
    }
    // `+` goes first, so that `%2B` remains a plus sign.
    let spaced: Vec<_> = field.iter().map(|&byte| if byte == b'+' { b' ' } else { byte }).collect();
    percent_decode(&spaced).collect()
}
