//! The message that a client is sending, across its fragments (RFC 6455, section 5.4).

use super::header::{CONTINUATION, Header, TEXT};
use super::violation::Violation;

/// The type of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MessageKind {
    Binary,
    Text,
}

/// The length of the message that is incomplete, and its limit.
///
/// Its kind is not in here, but beside other small fields of the reframer: an idle connection pays for no padding.
#[derive(Debug)]
pub(super) struct MessageLength {
    so_far: u64,
    pub(super) limit: u64,
}

impl MessageLength {
    /// The start of a stream with messages of at most `limit` bytes.
    pub(super) fn new(limit: u64) -> Self {
        Self { so_far: 0, limit }
    }

    /// The payload so far, in bytes, the current frame included.
    pub(super) fn so_far(&self) -> u64 {
        self.so_far
    }

    /// The kind of message that a data frame belongs to, and the length of the message with it.
    ///
    /// `open` is the kind of the message that is incomplete, if one is.
    #[inline(always)]
    pub(super) fn extended_by(
        &self,
        frame: &Header,
        open: Option<MessageKind>,
    ) -> Result<(MessageKind, u64), Violation> {
        let (kind, before) = match (frame.opcode(), open) {
            (CONTINUATION, Some(kind)) => (kind, self.so_far),
            (TEXT, _) => (MessageKind::Text, 0),
            _ => (MessageKind::Binary, 0),
        };
        // Both are below 2^63 (the frame by its header, the sum by the limit or saturation).
        let length = before.saturating_add(frame.length);
        if length > self.limit { Err(Violation::MessageTooBig) } else { Ok((kind, length)) }
    }

    /// Notes the length of the message with its current frame.
    #[inline]
    pub(super) fn set(&mut self, length: u64) {
        self.so_far = length;
    }
}
