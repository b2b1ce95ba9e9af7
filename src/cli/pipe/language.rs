//! What the two programs say to each other: bytes, and that a stream has ended.
//!
//! A close ends both directions of a pair, so it cannot say that one of them has ended. In the clear, an empty message
//! does. With a secret, it is the farewell of the encryption, so the library clients understand it, too.

use std::cell::RefCell;

use arc_relay::client::Secret;
use arc_relay::client::meeting::{Meeting, SUBPROTOCOL, Step, longest_frame};
use arc_relay::internals::client::stream::Stream;
use arc_relay::internals::client::websocket::{Ending, next};
use async_tungstenite::tungstenite::Message;
use async_tungstenite::{WebSocketReceiver, WebSocketSender};

/// The most bytes of a message in the clear. The relay forwards a message of this size in one piece.
const CHUNK: usize = 64 << 10;

/// What a message of the peer means.
pub(super) enum Word {
    Chunk(Vec<u8>),
    /// The peer sends nothing more.
    End,
    Nothing,
}

/// The language of a connection.
pub(super) enum Language {
    Plain,
    Encrypted(RefCell<Meeting>),
}

impl Language {
    /// The language for a secret, or in the clear.
    pub(super) fn new(secret: Option<Secret>, max_message: usize) -> Self {
        match secret {
            Some(secret) => Self::Encrypted(RefCell::new(Meeting::new(Some(secret), max_message))),
            None => Self::Plain,
        }
    }

    /// The subprotocol that it needs, or an empty text.
    pub(super) fn subprotocol(&self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Encrypted(_) => SUBPROTOCOL,
        }
    }

    /// The longest message of the WebSocket, if a chunk of the peer may have so many bytes.
    pub(super) fn longest_frame(&self, max_message: usize) -> usize {
        match self {
            Self::Plain => max_message,
            Self::Encrypted(_) => longest_frame(true, max_message),
        }
    }

    /// Waits until the two have keys in common. In the clear, nothing is needed.
    ///
    /// # Errors
    ///
    /// The error is one line.
    pub(super) async fn agree(
        &self,
        sender: &mut WebSocketSender<Box<dyn Stream>>,
        receiver: &mut WebSocketReceiver<Box<dyn Stream>>,
    ) -> Result<(), String> {
        let Self::Encrypted(meeting) = self else { return Ok(()) };
        while !meeting.borrow().is_paired() {
            let (_, answer) = match next(receiver).await.map_err(|ending| ending.to_string())? {
                Message::Text(text) => meeting.borrow_mut().take_text(&text),
                Message::Binary(message) => {
                    let taken = meeting.borrow_mut().take_binary(message.into());
                    taken.map_err(|broken| broken.to_string())?
                }
                _ => continue,
            };
            if let Some(answer) = answer {
                sender.send(Message::binary(answer)).await.map_err(|error| Ending::of_error(&error).to_string())?;
            }
        }
        Ok(())
    }

    /// The most bytes of a chunk.
    pub(super) fn longest_chunk(&self) -> usize {
        match self {
            Self::Plain => CHUNK,
            Self::Encrypted(meeting) => meeting.borrow_mut().session().part_length(),
        }
    }

    /// The message for a chunk.
    pub(super) fn chunk(&self, chunk: Vec<u8>) -> Message {
        match self {
            Self::Plain => Message::binary(chunk),
            Self::Encrypted(meeting) => Message::binary(meeting.borrow_mut().session().seal(&chunk, true)),
        }
    }

    /// The message for the end of the stream.
    ///
    /// None: a close is enough for a peer that is told nothing else.
    pub(super) fn end(&self, is_close_next: bool) -> Option<Message> {
        match self {
            Self::Plain => (!is_close_next).then(|| Message::binary(Vec::new())),
            Self::Encrypted(meeting) => meeting.borrow_mut().session().farewell().map(Message::binary),
        }
    }

    /// Whether an end of the connection without an end of the peer's stream may have lost something.
    pub(super) fn needs_end(&self) -> bool {
        matches!(self, Self::Encrypted(_))
    }

    /// Reads a message of the peer or of the relay.
    ///
    /// # Errors
    ///
    /// The error is one line.
    pub(super) fn read(&self, message: Message) -> Result<Word, String> {
        match (self, message) {
            (Self::Plain, Message::Binary(end)) if end.is_empty() => Ok(Word::End),
            (Self::Plain, Message::Binary(chunk)) => Ok(Word::Chunk(chunk.into())),
            (Self::Encrypted(meeting), Message::Binary(message)) => {
                let taken = meeting.borrow_mut().take_binary(message.into());
                match taken.map_err(|broken| broken.to_string())?.0 {
                    Step::Message(chunk) => Ok(Word::Chunk(chunk)),
                    Step::Farewell { is_orderly: true } => Ok(Word::End),
                    Step::Farewell { is_orderly: false } => {
                        Err(String::from("the peer left in the middle of a message"))
                    }
                    _ => Ok(Word::Nothing),
                }
            }
            _ => Ok(Word::Nothing),
        }
    }
}
