//! The events of a client's stream, and its counters.

use std::ops::Range;

/// The reason why [`Reframer::advance`](super::reframer::Reframer::advance) returned.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<'b> {
    /// Everything that could be rewritten is; more input is needed.
    Starved {
        /// The length in bytes of the frame that has to be whole in the next buffer, or 0.
        ///
        /// That frame begins the remaining input. The length includes the header, as far as it is known.
        frame: usize,
    },
    /// The call has taken as long as one call may.
    /// Input is left, and the next call goes on with it. Without this, a buffer of the shortest frames would take ten
    /// times as long as one of long frames, and other clients would wait.
    Yield,
    /// A ping, to be answered with its application data (section 5.5.2).
    Ping(&'b [u8]),
    /// A ping of `arc-relay.v1`, to be [taken](super::reframer::Reframer::take_text_ping) and answered.
    TextPing,
    /// The client closes (section 5.5.1). Input behind it is left, and the next call discards it.
    Close {
        /// The status code, if there is one. It is valid on the wire (section 7.4).
        code: Option<u16>,
        /// The reason, possibly empty.
        reason: &'b str,
    },
}

/// Messages that have ended, and bytes that were forwarded, so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Binary messages, forwarded to their last byte.
    pub forwarded: u64,
    /// Text messages, dropped. Those of `arc-relay.v1` are none.
    pub dropped: u64,
    /// The payload of binary messages, in bytes, as far as it was forwarded.
    pub bytes: u64,
}

/// An [`Event`] that names its data by their place in the buffer.
pub(super) enum RawEvent {
    Starved { frame: usize },
    Yield,
    Ping(Range<usize>),
    TextPing,
    Close(Range<usize>),
}
