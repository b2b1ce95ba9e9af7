//! The places in which a request carries an access token.
//!
//! Browsers cannot set a header for a WebSocket. A script has two other places: the query, which logs of proxies often
//! hold, and a subprotocol, which they seldom do.

use std::borrow::Cow;

use data_encoding::BASE64URL_NOPAD;

use crate::pairing::query;

/// The beginning of a subprotocol that is an access token in base64url.
///
/// It is never chosen, so no answer repeats it.
pub(crate) const TOKEN_PROTOCOL: &[u8] = b"arc-relay.token.";

/// Whether an offered subprotocol is an access token.
pub(crate) fn is_token_protocol(protocol: &[u8]) -> bool {
    protocol.starts_with(TOKEN_PROTOCOL)
}

/// The values of a request that may be, or hold, an access token.
#[derive(Clone, Copy, Default)]
pub(crate) struct Credentials<'a> {
    /// The value of a single `Authorization`. Two of these count as none (RFC 9110, section 5.3).
    pub(crate) authorization: Option<&'a [u8]>,
    /// The first offered subprotocol that [is a token](is_token_protocol).
    pub(crate) protocol: Option<&'a [u8]>,
}

impl<'a> Credentials<'a> {
    /// The tokens of a request with this target: at most one from each place.
    ///
    /// More would be needless work, which a stranger could ask for.
    pub(crate) fn tokens(self, target: &'a str) -> impl Iterator<Item = Cow<'a, [u8]>> {
        let in_field = self.authorization.and_then(bearer).map(Cow::Borrowed);
        let in_protocol = self.protocol.and_then(decode).map(Cow::Owned);
        [in_field, in_protocol, query::first(target, "token")].into_iter().flatten()
    }
}

/// The token of an `Authorization` (RFC 6750, section 2.1).
///
/// The scheme's case does not matter (RFC 9110, section 11.1).
fn bearer(credentials: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = credentials.split_at_checked("Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then(|| token.trim_ascii())
}

/// The token of a subprotocol. A token may have any bytes, and a subprotocol may not: hence base64url.
fn decode(protocol: &[u8]) -> Option<Vec<u8>> {
    BASE64URL_NOPAD.decode(protocol.strip_prefix(TOKEN_PROTOCOL)?).ok()
}
