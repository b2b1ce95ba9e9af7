//! The message that a client is sending, across its fragments (RFC 6455, section 5.4).

use super::header::{CONTINUATION, Header, TEXT};
use super::violation::Violation;

/// The type of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MessageKind {
    Binary,
    Text,
}

/// The fragmentation state of a stream.
#[derive(Debug)]
pub(super) struct Message {
    /// The kind of the message that is incomplete, if one is.
    open: Option<MessageKind>,
    /// Its payload so far, in bytes, the current frame included.
    length: u64,
    limit: u64,
}

impl Message {
    /// The start of a stream with messages of at most `limit` bytes.
    pub(super) fn new(limit: u64) -> Self {
        Self { open: None, length: 0, limit }
    }

    /// Whether a message is incomplete.
    #[inline]
    pub(super) fn is_open(&self) -> bool {
        self.open.is_some()
    }

    pub(super) fn limit(&self) -> u64 {
        self.limit
    }

    /// The kind of message that a data frame belongs to, and the length of the message with it.
    #[inline(always)]
    pub(super) fn extended_by(&self, frame: &Header) -> Result<(MessageKind, u64), Violation> {
        let (kind, before) = match (frame.opcode(), self.open) {
            (CONTINUATION, Some(kind)) => (kind, self.length),
            (TEXT, _) => (MessageKind::Text, 0),
            _ => (MessageKind::Binary, 0),
        };
        // Both are below 2^63 (the frame by its header, the sum by the limit or saturation).
        let length = before.saturating_add(frame.length);
        if length > self.limit { Err(Violation::MessageTooBig) } else { Ok((kind, length)) }
    }

    /// Notes that the message goes on, or begins, with a frame.
    #[inline]
    pub(super) fn extend(&mut self, kind: MessageKind, length: u64) {
        self.open = Some(kind);
        self.length = length;
    }

    /// Notes that the message has ended.
    #[inline]
    pub(super) fn end(&mut self) {
        self.open = None;
    }
}
