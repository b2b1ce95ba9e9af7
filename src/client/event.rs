//! What a connection tells its program, and the queue until the program takes it.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_channel::{Receiver, Sender, bounded, unbounded};

/// What an event counts in the queue besides its message, in bytes.
const COST: usize = 64;

/// What a connection tells its program.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// The relay holds a place for this side, and the other one is not there yet.
    Waiting,
    /// The peer is there. After each of these, the two begin anew.
    Paired,
    /// A message of the peer.
    Message(Vec<u8>),
    /// The peer has gone, or the line to it.
    Unpaired {
        /// Whether an encrypted peer has taken leave: nothing it sent is missing.
        orderly: bool,
    },
    /// The relay stops.
    Draining {
        /// How long it still forwards.
        within: Duration,
    },
    /// The next attempt comes after a pause.
    Reconnecting {
        /// The close code of the last WebSocket, as in docs/protocol.md. 1006: there was none.
        code: u16,
        /// The reason, in one line.
        reason: String,
        /// How long the pause is.
        pause: Duration,
    },
}

/// A connection has closed for good: by its program (1000), or because a further attempt is of no use.
///
/// Its text is one line without anything secret.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Closed {
    /// The close code, as in docs/protocol.md.
    pub code: u16,
    /// The reason, in one line.
    pub reason: String,
}

impl Closed {
    pub(super) fn by_this_program() -> Self {
        Self { code: 1000, reason: String::from("closed by this program") }
    }
}

impl fmt::Display for Closed {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "closed with {}", format!("{} {}", self.code, self.reason).trim_end())
    }
}

impl std::error::Error for Closed {}

/// The events that the program has not taken. Bytes bound it, as messages have very different lengths.
#[derive(Debug)]
pub(super) struct Events {
    sender: Sender<Event>,
    receiver: Receiver<Event>,
    /// The cost of all events in the queue.
    cost: AtomicUsize,
    /// With at least this cost, the queue is full. So it holds one event more at most.
    most: usize,
    /// Holds a token when room was made.
    made_room: Sender<()>,
    room: Receiver<()>,
}

impl Events {
    pub(super) fn new(most: usize) -> Self {
        let ((sender, receiver), (made_room, room)) = (unbounded(), bounded(1));
        Self { sender, receiver, cost: AtomicUsize::new(0), most, made_room, room }
    }

    fn cost(event: &Event) -> usize {
        COST + if let Event::Message(message) = event { message.len() } else { 0 }
    }

    /// Waits for room, and adds an event. Behind [`close`](Self::close), it is dropped.
    pub(super) async fn put(&self, event: Event) {
        while self.cost.load(Ordering::SeqCst) >= self.most && self.room.recv().await.is_ok() {}
        self.cost.fetch_add(Self::cost(&event), Ordering::SeqCst);
        let _ = self.sender.try_send(event);
    }

    /// The next event. None: the queue is closed, and all are taken.
    pub(super) async fn take(&self) -> Option<Event> {
        let event = self.receiver.recv().await.ok()?;
        self.cost.fetch_sub(Self::cost(&event), Ordering::SeqCst);
        let _ = self.made_room.try_send(()); // full: there is a token already
        Some(event)
    }

    /// Takes no more events.
    pub(super) fn close(&self) {
        self.sender.close();
        self.room.close();
    }
}

#[cfg(test)]
mod tests {
    use futures_lite::future::{block_on, poll_once, zip};

    use super::*;

    #[test]
    fn queue_is_bounded_by_bytes_and_keeps_the_order() {
        let message = |nth: usize| Event::Message(vec![nth as u8; 100 * nth]);
        let events = Events::new(1000);
        block_on(async {
            let put = async {
                for nth in 0..50 {
                    events.put(message(nth)).await;
                }
                events.close();
            };
            let take = async {
                for nth in 0..50 {
                    assert!(events.cost.load(Ordering::SeqCst) < 1000 + 5000 + COST);
                    assert_eq!(events.take().await, Some(message(nth)));
                }
                assert_eq!(events.take().await, None);
            };
            zip(put, take).await;
        });
        assert_eq!(events.cost.load(Ordering::SeqCst), 0);
    }

    #[test]
    fn full_queue_holds_up_until_it_is_closed() {
        let events = Events::new(COST);
        block_on(async {
            events.put(Event::Paired).await;
            let mut put = Box::pin(events.put(Event::Waiting));
            assert_eq!(poll_once(&mut put).await, None);
            events.close();
            assert_eq!(poll_once(&mut put).await, Some(()));
            assert_eq!((events.take().await, events.take().await), (Some(Event::Paired), None));
        });
    }
}
