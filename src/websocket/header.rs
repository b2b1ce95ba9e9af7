//! The header of a client's frame (RFC 6455, section 5.2).

use super::violation::Violation;

/// The bit of the first byte that marks a message's last fragment.
pub(crate) const FIN: u8 = 0x80;
/// The bit of the second byte that says that the payload is masked.
pub(super) const MASKED: u8 = 0x80;

pub(super) const CONTINUATION: u8 = 0x0;
pub(super) const TEXT: u8 = 0x1;
pub(super) const BINARY: u8 = 0x2;
pub(crate) const CLOSE: u8 = 0x8;
pub(crate) const PING: u8 = 0x9;
pub(crate) const PONG: u8 = 0xA;

/// The longest payload of a control frame, in bytes (section 5.5).
pub(crate) const CONTROL_PAYLOAD: usize = 125;

/// A frame's header, legal in its place.
pub(super) struct Header {
    /// FIN, reserved bits (never set) and opcode: the first byte of the frame.
    first: u8,
    pub(super) key: [u8; 4],
    /// The length of the header, in bytes.
    pub(super) size: usize,
    /// The length of the payload, in bytes. Below 2^63, and at most [`CONTROL_PAYLOAD`] in a control frame.
    pub(super) length: u64,
}

impl Header {
    /// Parses the header at the front of the input, or returns `None` if it is incomplete.
    ///
    /// `in_message` says whether a message is incomplete.
    ///
    /// The first two bytes are judged without the others, so that a violator learns of it at once.
    #[inline(always)] // into the reframer's loop
    pub(super) fn parse(input: &[u8], in_message: bool) -> Result<Option<Self>, Violation> {
        let &[first, second, ..] = input else { return Ok(None) };
        let short = second & !MASKED;
        check_start(first, short, in_message)?;
        if second & MASKED == 0 {
            return Err(Violation::Unmasked);
        }
        let (length, rest) = match short {
            126 => {
                let Some((length, rest)) = input[2..].split_first_chunk() else { return Ok(None) };
                let length = u64::from(u16::from_be_bytes(*length));
                if length < 126 {
                    return Err(Violation::NonMinimalLength);
                }
                (length, rest)
            }
            127 => {
                let Some((length, rest)) = input[2..].split_first_chunk() else { return Ok(None) };
                let length = u64::from_be_bytes(*length);
                if length >> 63 != 0 {
                    return Err(Violation::OverlongLength);
                }
                if length <= u64::from(u16::MAX) {
                    return Err(Violation::NonMinimalLength);
                }
                (length, rest)
            }
            short => (u64::from(short), &input[2..]),
        };
        let Some((&key, rest)) = rest.split_first_chunk() else { return Ok(None) };
        Ok(Some(Self { first, key, size: input.len() - rest.len(), length }))
    }

    pub(super) fn opcode(&self) -> u8 {
        self.first & 0xF
    }

    pub(super) fn is_final(&self) -> bool {
        self.first & FIN != 0
    }

    pub(super) fn is_control(&self) -> bool {
        self.first & 0x8 != 0
    }
}

/// Judges the first byte, and the 7-bit length of control frames (sections 5.2, 5.4 and 5.5).
#[inline(always)]
fn check_start(first: u8, short: u8, in_message: bool) -> Result<(), Violation> {
    if first & 0x70 != 0 {
        return Err(Violation::ReservedBits);
    }
    match first & 0xF {
        CONTINUATION if !in_message => Err(Violation::UnexpectedContinuation),
        TEXT | BINARY if in_message => Err(Violation::ExpectedContinuation),
        CONTINUATION | TEXT | BINARY => Ok(()),
        CLOSE | PING | PONG if first & FIN == 0 => Err(Violation::FragmentedControl),
        CLOSE | PING | PONG if usize::from(short) > CONTROL_PAYLOAD => Err(Violation::OversizedControl),
        CLOSE | PING | PONG => Ok(()),
        _ => Err(Violation::ReservedOpcode),
    }
}
