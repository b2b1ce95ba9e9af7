//! The payload of a close frame: a status code and a reason (RFC 6455, sections 5.5.1 and 7.4).

use super::violation::Violation;

/// The status code, if there is one, and the reason, which may be empty.
pub(super) fn parse(payload: &[u8]) -> Result<(Option<u16>, &str), Violation> {
    let (code, reason) = match payload {
        [] => (None, &[][..]),
        [_] => return Err(Violation::TruncatedCloseCode),
        [high, low, reason @ ..] => (Some(u16::from_be_bytes([*high, *low])), reason),
    };
    if code.is_some_and(|code| !is_valid_on_the_wire(code)) {
        return Err(Violation::InvalidCloseCode);
    }
    let reason = std::str::from_utf8(reason).map_err(|_| Violation::InvalidUtf8)?;
    Ok((code, reason))
}

/// Whether a close frame may carry a status code.
///
/// These are the registered codes, and the ranges for registered and for private use. Codes 1004 to 1006 and 1015 only
/// stand for local conditions.
fn is_valid_on_the_wire(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_is_empty_or_a_valid_code_and_a_reason() {
        assert_eq!(parse(b""), Ok((None, "")));
        assert_eq!(parse(b"\x03"), Err(Violation::TruncatedCloseCode));
        assert_eq!(parse(b"\x03\xE8"), Ok((Some(1000), "")));
        assert_eq!(parse(b"\x0B\xB8bye"), Ok((Some(3000), "bye")));
        assert_eq!(parse(b"\x03\xE8\xFF"), Err(Violation::InvalidUtf8));
        for code in [0_u16, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, u16::MAX] {
            assert_eq!(parse(&code.to_be_bytes()), Err(Violation::InvalidCloseCode), "{code}");
        }
    }
}
