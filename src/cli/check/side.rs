//! One side of a pair. A task reads all the time, so pings are answered whatever the checks do.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use arc_relay::internals::client::stream::Stream;
use arc_relay::internals::client::websocket::{Ending, Socket, next};
use async_channel::{Receiver, Sender, bounded};
use async_tungstenite::tungstenite::Message;
use async_tungstenite::tungstenite::protocol::CloseFrame;
use async_tungstenite::{WebSocketReceiver, WebSocketSender};
use futures_lite::{FutureExt, StreamExt};
use smol::{LocalExecutor, Task, Timer};

/// The most messages that were read and not looked at.
const MOST_MESSAGES: usize = 16;

/// How long a close frame may take to be answered.
const LONGEST_END: Duration = Duration::from_secs(2);

/// Why an expected message did not come.
#[derive(Debug)]
pub(super) enum Lost {
    Ended(Ending),
    Timeout,
    /// A text message came.
    Text,
}

impl Lost {
    pub(super) fn text(&self) -> String {
        match self {
            Self::Ended(ending) => ending.to_string(),
            Self::Timeout => String::from("nothing came in time"),
            Self::Text => String::from("a text message came"),
        }
    }
}

/// A side of a pair.
pub(super) struct Side {
    pub(super) outgoing: Outgoing,
    pub(super) incoming: Incoming,
    /// How many pings have come.
    pub(super) pings: Rc<Cell<u32>>,
    _reader: Task<()>,
}

pub(super) struct Outgoing(WebSocketSender<Box<dyn Stream>>);

pub(super) struct Incoming(Receiver<Result<Message, Ending>>);

impl Side {
    pub(super) fn new(socket: Socket, executor: &LocalExecutor<'_>) -> Self {
        let (sender, receiver) = socket.split();
        let (messages, incoming) = bounded(MOST_MESSAGES);
        let pings = Rc::new(Cell::new(0));
        let reader = executor.spawn(read(receiver, messages, Rc::clone(&pings)));
        Self { outgoing: Outgoing(sender), incoming: Incoming(incoming), pings, _reader: reader }
    }
}

async fn read(
    mut receiver: WebSocketReceiver<Box<dyn Stream>>,
    messages: Sender<Result<Message, Ending>>,
    pings: Rc<Cell<u32>>,
) {
    loop {
        match next(&mut receiver).await {
            Ok(Message::Ping(_)) => pings.set(pings.get() + 1), // the library answers it
            Ok(message) => {
                if messages.send(Ok(message)).await.is_err() {
                    return;
                }
            }
            Err(ending) => {
                let _ = messages.send(Err(ending)).await;
                break;
            }
        }
    }
    let ended = async { while receiver.next().await.is_some_and(|rest| rest.is_ok()) {} };
    let timeout = async {
        Timer::after(LONGEST_END).await;
    };
    ended.or(timeout).await;
}

impl Outgoing {
    /// Sends a message. The end of the connection is told by the other half.
    pub(super) async fn send(&mut self, message: Message) -> Result<(), Lost> {
        self.0.send(message).await.map_err(|error| Lost::Ended(Ending::of_error(&error)))
    }

    pub(super) async fn close(&mut self, frame: CloseFrame) -> Result<(), Lost> {
        self.0.close(Some(frame)).await.map_err(|error| Lost::Ended(Ending::of_error(&error)))
    }
}

impl Incoming {
    /// The next message of any kind but ping.
    pub(super) async fn next(&self) -> Result<Message, Lost> {
        match self.0.recv().await {
            Ok(Ok(message)) => Ok(message),
            Ok(Err(ending)) => Err(Lost::Ended(ending)),
            Err(_) => Err(Lost::Ended(Ending::Cut)),
        }
    }

    /// The next binary message.
    pub(super) async fn binary(&self, bound: Duration) -> Result<Vec<u8>, Lost> {
        let message = async {
            loop {
                match self.next().await? {
                    Message::Binary(bytes) => break Ok(bytes.into()),
                    Message::Text(_) => break Err(Lost::Text),
                    _ => {}
                }
            }
        };
        within(bound, message).await
    }

    /// How the connection ends. Messages before that are dropped.
    pub(super) async fn end(&self, bound: Duration) -> Result<Ending, Lost> {
        let end = async {
            loop {
                match self.next().await {
                    Err(Lost::Ended(ending)) => break Ok(ending),
                    Err(lost) => break Err(lost),
                    Ok(_) => {}
                }
            }
        };
        within(bound, end).await
    }
}

/// The result of a future, or [`Lost::Timeout`] if it takes longer.
pub(super) async fn within<T>(bound: Duration, future: impl Future<Output = Result<T, Lost>>) -> Result<T, Lost> {
    let timeout = async {
        Timer::after(bound).await;
        Err(Lost::Timeout)
    };
    future.or(timeout).await
}
