//! What a client of `arc-relay.v1` is to be told: flags, which become frames when they may be written.
//!
//! So nothing is queued without bound. Of the client's pings only the newest one without an answer is remembered, as RFC
//! 6455, section 5.5.3, allows for its own. A notice is a data frame: it goes between two batches, and never while the
//! peer's message is incomplete. [`outbound`](super::outbound) writes them.

use crate::websocket::subprotocol::{LONGEST_FRAME, Notice, TextPing};

/// The most bytes of all notices that are written together.
pub(super) const MOST_BYTES: usize = LONGEST_FRAME;

/// The notices for one client.
#[derive(Debug, Default)]
pub(super) struct Notices {
    /// The newest ping without an answer.
    ping: Option<TextPing>,
    /// Whether the bytes that were taken from the peer so far end within a message.
    is_within_message: bool,
}

impl Notices {
    /// Notes a ping, which replaces an earlier one.
    pub(super) fn ping(&mut self, ping: TextPing) {
        self.ping = Some(ping);
    }

    /// Notes whether a batch from the peer, which is written next, ends within a message.
    pub(super) fn begin_batch(&mut self, ends_within_message: bool) {
        self.is_within_message = ends_within_message;
    }

    /// The notices that may be written between two batches.
    pub(super) fn take(&mut self) -> impl Iterator<Item = Notice> {
        let pong = if self.is_within_message { None } else { self.ping.take().map(Notice::Pong) };
        pong.into_iter()
    }
}
