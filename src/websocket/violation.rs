//! What a client can do wrong, and how it is told.

use std::fmt;

use crate::websocket::utf8::InvalidUtf8;

/// What a client did against RFC 6455 or over the limit. It is the client's fault, and the end of its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Violation {
    /// RSV1, RSV2 or RSV3 is set though no extension was negotiated (section 5.2).
    ReservedBits,
    /// Opcodes 3 to 7 and 11 to 15 mean nothing yet (section 5.2).
    ReservedOpcode,
    /// A client must mask every frame (section 5.1).
    Unmasked,
    /// A control frame must not be fragmented (section 5.5).
    FragmentedControl,
    /// A control frame carries at most 125 bytes (section 5.5).
    OversizedControl,
    /// A continuation frame with nothing to continue (section 5.4).
    UnexpectedContinuation,
    /// A new message within a fragmented one (section 5.4).
    ExpectedContinuation,
    /// A length in more bytes than it needs (section 5.2).
    NonMinimalLength,
    /// A 64-bit length with its most significant bit set (section 5.2).
    OverlongLength,
    /// A close frame with half a status code (section 5.5.1).
    TruncatedCloseCode,
    /// A status code that must not be on the wire (section 7.4).
    InvalidCloseCode,
    /// Text or a close reason that is not UTF-8 (section 8.1).
    InvalidUtf8,
    /// A message longer than the relay was told to accept (section 7.4.1, code 1009).
    MessageTooBig,
}

impl Violation {
    /// The status code that the client gets (section 7.4.1).
    pub fn code(self) -> u16 {
        match self {
            Self::InvalidUtf8 => 1007,
            Self::MessageTooBig => 1009,
            _ => 1002,
        }
    }

    /// The reason that the client gets with it. Stable: clients may compare it.
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
