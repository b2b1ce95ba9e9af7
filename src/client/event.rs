//! What a connection tells its program, and the queue until the program takes it.

use std::collections::VecDeque;
use std::fmt;
use std::mem::discriminant;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_channel::{Receiver, Sender, bounded};

/// What a message counts in the queue besides its bytes: memory of its own, and of events behind it.
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

/// The events that the program has not taken.
///
/// Bytes bound the messages, as these have very different lengths. All other events are put at once: a connection comes
/// again though its program takes nothing, such as one that only sends, or one that waits in `send` for the peer. Between
/// two messages the queue holds the last event of each kind.
#[derive(Debug)]
pub(super) struct Events {
    queue: Mutex<Queue>,
    /// With at least this cost, the queue is full. So it holds one message more at most.
    most: usize,
    /// Holds a token when an event was put.
    made_event: Sender<()>,
    event: Receiver<()>,
    /// Holds a token when room was made.
    made_room: Sender<()>,
    room: Receiver<()>,
}

#[derive(Debug, Default)]
struct Queue {
    events: VecDeque<Event>,
    /// The cost of all messages in the queue.
    cost: usize,
    is_closed: bool,
}

impl Queue {
    /// Adds an event.
    ///
    /// One that tells how far the connection is replaces those of its kind behind the last message.
    fn push(&mut self, event: Event) {
        if let Event::Message(message) = &event {
            self.cost += COST + message.len();
        } else {
            let is_message = |event: &Event| matches!(event, Event::Message(_));
            let behind = self.events.iter().rposition(is_message).map_or(0, |last| last + 1);
            let same = self.events.range(behind..).position(|other| discriminant(other) == discriminant(&event));
            same.and_then(|nth| self.events.remove(behind + nth));
        }
        self.events.push_back(event);
    }
}

impl Events {
    /// A queue for messages of so many bytes, and at least for one message.
    pub(super) fn new(most: usize) -> Self {
        let ((made_event, event), (made_room, room)) = (bounded(1), bounded(1));
        Self { queue: Mutex::default(), most: most.max(1), made_event, event, made_room, room }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds an event, and waits for room if it is a message. Behind [`close`](Self::close), it is dropped.
    pub(super) async fn put(&self, event: Event) {
        if matches!(event, Event::Message(_)) {
            while self.lock().cost >= self.most && self.room.recv().await.is_ok() {}
        }
        let mut queue = self.lock();
        if !queue.is_closed {
            queue.push(event);
            let _ = self.made_event.try_send(()); // full: there is a token already
        }
    }

    /// The next event. None: the queue is closed, and all are taken.
    pub(super) async fn take(&self) -> Option<Event> {
        loop {
            {
                let mut queue = self.lock();
                if let Some(event) = queue.events.pop_front() {
                    if let Event::Message(message) = &event {
                        queue.cost -= COST + message.len();
                    }
                    let _ = self.made_room.try_send(()); // as in `put`
                    if !queue.events.is_empty() {
                        let _ = self.made_event.try_send(()); // for another task that waits
                    }
                    return Some(event);
                }
                if queue.is_closed {
                    return None;
                }
            }
            let _ = self.event.recv().await; // an error: the queue is closed
        }
    }

    /// Takes no more events.
    pub(super) fn close(&self) {
        self.lock().is_closed = true;
        self.event.close();
        self.room.close();
    }
}

#[cfg(test)]
mod tests {
    use futures_lite::future::{block_on, poll_once, zip};

    use super::*;

    fn message(nth: usize) -> Event {
        Event::Message(vec![nth as u8; 100 * nth])
    }

    fn reconnecting(nth: usize) -> Event {
        Event::Reconnecting { code: 1006, reason: nth.to_string(), pause: Duration::ZERO }
    }

    #[test]
    fn messages_are_bounded_by_bytes_and_keep_their_order() {
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
                    assert!(events.lock().cost < 1000 + 5000 + COST);
                    assert_eq!(events.take().await, Some(message(nth)));
                }
                assert_eq!(events.take().await, None);
            };
            zip(put, take).await;
        });
        assert_eq!(events.lock().cost, 0);
    }

    #[test]
    fn full_queue_holds_messages_up_until_it_is_closed() {
        // A queue for nothing would hold everything up for ever.
        for most in [0, COST] {
            let events = Events::new(most);
            block_on(async {
                events.put(message(0)).await;
                let mut put = Box::pin(events.put(message(1)));
                assert_eq!(poll_once(&mut put).await, None);
                events.close();
                assert_eq!(poll_once(&mut put).await, Some(()));
                assert_eq!((events.take().await, events.take().await), (Some(message(0)), None));
            });
        }
    }

    #[test]
    fn program_that_takes_nothing_holds_up_no_other_event_and_they_do_not_pile_up() {
        let events = Events::new(1);
        block_on(async {
            events.put(Event::Paired).await;
            events.put(message(1)).await;
            for nth in 0..1000 {
                let draining = Event::Draining { within: Duration::from_secs(nth as u64) };
                for event in [draining, Event::Unpaired { orderly: false }, reconnecting(nth), Event::Waiting] {
                    assert_eq!(poll_once(events.put(event)).await, Some(()));
                }
                events.put(Event::Paired).await;
            }
            let within = Duration::from_secs(999);
            let last = [Event::Draining { within }, Event::Unpaired { orderly: false }, reconnecting(999)];
            for event in [Event::Paired, message(1)].into_iter().chain(last).chain([Event::Waiting, Event::Paired]) {
                assert_eq!(events.take().await, Some(event));
            }
            assert_eq!(poll_once(events.take()).await, None);
        });
    }

    #[test]
    fn each_of_several_tasks_that_wait_gets_an_event() {
        let events = Events::new(1000);
        block_on(async {
            let mut tasks = [(); 3].map(|()| Box::pin(events.take()));
            for task in &mut tasks {
                assert_eq!(poll_once(task).await, None);
            }
            for nth in 0..3 {
                events.put(message(nth)).await;
            }
            let [one, two, three] = tasks;
            let ((one, two), three) = zip(zip(one, two), three).await;
            assert!([one, two, three].iter().all(Option::is_some));
        });
    }
}
