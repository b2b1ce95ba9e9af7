//! Protocol violations of clients, and the close frames that they are answered with.

use std::fmt;

use super::utf8::InvalidUtf8;

/// A client's offence against RFC 6455, the message limit or its subprotocol.
///
/// It is the client's fault, and ends its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Violation {
    /// RSV1, RSV2 or RSV3 is set though no extension was negotiated (section 5.2).
    ReservedBits,
    /// An opcode from 3 to 7 or from 11 to 15, which have no meaning yet (section 5.2).
    ReservedOpcode,
    /// A frame without a mask, though a client must mask every frame (section 5.1).
    Unmasked,
    /// A fragmented control frame (section 5.5).
    FragmentedControl,
    /// A control frame with more than 125 bytes of payload (section 5.5).
    OversizedControl,
    /// A continuation frame without a message to continue (section 5.4).
    UnexpectedContinuation,
    /// A new message within a fragmented one (section 5.4).
    ExpectedContinuation,
    /// A length that is encoded in more bytes than it needs (section 5.2).
    NonMinimalLength,
    /// A 64-bit length with its most significant bit set (section 5.2).
    OverlongLength,
    /// A close frame with half a status code (section 5.5.1).
    TruncatedCloseCode,
    /// A status code that a close frame must not carry (section 7.4).
    InvalidCloseCode,
    /// Text or a close reason that is not UTF-8 (section 8.1).
    InvalidUtf8,
    /// A message longer than the configured limit (section 7.4.1, code 1009).
    MessageTooBig,
    /// Text that is no message of `arc-relay.v1`, from a client that speaks it (section 7.4.1, code 1003).
    UnsupportedText,
}

impl Violation {
    /// The status code of the close frame (section 7.4.1).
    pub fn code(self) -> u16 {
        match self {
            Self::UnsupportedText => 1003,
            Self::InvalidUtf8 => 1007,
            Self::MessageTooBig => 1009,
            _ => 1002,
        }
    }

    /// The reason in the close frame. Stable: clients may compare it.
    pub fn reason(self) -> &'static str {
        match self {
            Self::ReservedBits => "reserved bit set",
            Self::ReservedOpcode => "reserved opcode",
            Self::Unmasked => "unmasked frame",
            Self::FragmentedControl => "fragmented control frame",
            Self::OversizedControl => "control frame over 125 bytes",
            Self::UnexpectedContinuation => "nothing to continue",
            Self::ExpectedContinuation => "continuation expected",
            Self::NonMinimalLength => "length not minimal",
            Self::OverlongLength => "length over 63 bits",
            Self::TruncatedCloseCode => "truncated status code",
            Self::InvalidCloseCode => "invalid status code",
            Self::InvalidUtf8 => "invalid UTF-8",
            Self::MessageTooBig => "message too big",
            Self::UnsupportedText => "unsupported text message",
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason())
    }
}

impl std::error::Error for Violation {}

impl From<InvalidUtf8> for Violation {
    fn from(_: InvalidUtf8) -> Self {
        Self::InvalidUtf8
    }
}
