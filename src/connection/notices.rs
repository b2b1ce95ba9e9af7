//! What a client of `arc-relay.v1` is to be told: flags, which become frames when they may be written.
//!
//! So nothing is queued without bound. Of the client's pings only the newest one without an answer is remembered, as RFC
//! 6455, section 5.5.3, allows for its own. A notice is a data frame: it goes between two batches, and never while the
//! peer's message is incomplete. [`outbound`](super::outbound) writes them.

use super::context::WorkerContext;
use crate::websocket::subprotocol::{LONGEST_FRAME, Notice, TextPing};

/// The most bytes of all notices that are written together: the longest pong, and three of fewer bytes.
pub(super) const MOST_BYTES: usize = LONGEST_FRAME + 3 * 64;

/// What a client knows of its peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Peer {
    /// The client is the first, and is to be told so.
    Waiting,
    /// It was told. The link tells when the peer is there.
    Awaited,
    /// It is to be told that the peer is there.
    There,
    /// It was told, or the link has ended.
    Known,
}

/// The notices for one client.
#[derive(Debug)]
pub(super) struct Notices {
    peer: Peer,
    /// The newest ping without an answer.
    ping: Option<TextPing>,
    /// Whether the client was told that the relay stops.
    knows_drain: bool,
    /// Whether the bytes that were taken from the peer so far end within a message.
    is_within_message: bool,
}

impl Notices {
    /// The notices for the first client of a pair, or for the second.
    pub(super) fn new(is_first: bool) -> Box<Self> {
        let peer = if is_first { Peer::Waiting } else { Peer::There };
        Box::new(Self { peer, ping: None, knows_drain: false, is_within_message: false })
    }

    /// Whether the client waits for the link to tell that its peer is there.
    pub(super) fn awaits_peer(&self) -> bool {
        self.peer == Peer::Awaited
    }

    /// Notes that the peer is there, or that none will come.
    pub(super) fn end_wait(&mut self, is_there: bool) {
        self.peer = if is_there { Peer::There } else { Peer::Known };
    }

    /// Notes a ping, which replaces an earlier one.
    pub(super) fn ping(&mut self, ping: TextPing) {
        self.ping = Some(ping);
    }

    /// Notes whether a batch from the peer, which is written next, ends within a message.
    pub(super) fn begin_batch(&mut self, ends_within_message: bool) {
        self.is_within_message = ends_within_message;
    }

    /// The notices that may be written between two batches, in their order.
    pub(super) fn take(&mut self, context: &WorkerContext) -> Vec<Notice> {
        let mut due = Vec::new();
        if self.is_within_message {
            return due;
        }
        match self.peer {
            Peer::Waiting => {
                self.peer = Peer::Awaited;
                due.push(Notice::Waiting { expires_in: context.pair_ttl.as_secs() });
            }
            Peer::There => {
                self.peer = Peer::Known;
                due.push(Notice::Paired);
            }
            Peer::Awaited | Peer::Known => {}
        }
        if !self.knows_drain
            && let Some(end) = context.drain.end()
        {
            self.knows_drain = true;
            let left = end.saturating_duration_since(context.clock.now());
            due.push(Notice::Draining { within: left.as_secs() + u64::from(left.subsec_nanos() > 0) });
        }
        due.extend(self.ping.take().map(Notice::Pong));
        due
    }
}
