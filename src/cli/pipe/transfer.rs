//! The way of the bytes: both directions, until both streams have ended.
//!
//! Whichever side has sent its own end and received the other's closes.

use std::cell::Cell;
use std::io::{self, IsTerminal};
use std::time::Duration;

use arc_relay::internals::client::stream::Stream;
use arc_relay::internals::client::websocket::{Ending, Socket, answer_close, next};
use async_channel::Receiver;
use async_tungstenite::tungstenite::protocol::CloseFrame;
use async_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use async_tungstenite::tungstenite::{Error, Message};
use async_tungstenite::{WebSocketReceiver, WebSocketSender};
use futures_lite::FutureExt;
use futures_lite::future::pending;
use smol::Timer;

use super::command::Pipe;
use super::language::{Language, Word};
use super::standard_streams::{Output, input};
use super::totals::Totals;

/// How long the relay may take to answer a close frame, behind what a slow peer has yet to take.
const LONGEST_CLOSE: Duration = Duration::from_secs(600);

/// How long the end of a connection may take once it is known how it ends.
const LONGEST_END: Duration = Duration::from_secs(2);

/// Copies both ways until the end.
///
/// # Errors
///
/// The error is one line.
pub(super) async fn transfer(socket: Socket, language: Language, pipe: &Pipe, totals: &Totals) -> Result<(), String> {
    let (mut sender, mut receiver) = socket.split();
    language.agree(&mut sender, &mut receiver).await?;
    let (_nothing, peer_end) = async_channel::bounded(1);
    let (is_sending, is_closing) = (Cell::new(false), Cell::new(false));
    let transfer = Transfer { language, pipe, totals, peer_end, is_sending, is_closing };
    transfer.send(&mut sender).or(transfer.receive(&mut receiver)).await
}

/// What both directions know of each other.
struct Transfer<'a> {
    language: Language,
    pipe: &'a Pipe,
    totals: &'a Totals,
    /// Closed when the peer's stream has ended.
    peer_end: Receiver<()>,
    /// Whether a chunk is on its way into the socket.
    is_sending: Cell<bool>,
    /// Whether this side has sent its close frame.
    is_closing: Cell<bool>,
}

impl Transfer<'_> {
    /// Sends standard input, then the end of the stream, then a close frame.
    ///
    /// It returns only an error.
    async fn send(&self, sender: &mut WebSocketSender<Box<dyn Stream>>) -> Result<(), String> {
        if !self.pipe.recv_only {
            self.feed(sender).or(self.typed()).await?;
        }
        if let Some(end) = self.language.end(self.pipe.send_only) {
            self.put(sender, end).await?;
        }
        if !self.pipe.send_only {
            self.peer_ended().await;
        }
        self.is_closing.set(true);
        let frame = CloseFrame { code: CloseCode::Normal, reason: "".into() };
        if let Err(error) = sender.close(Some(frame)).await {
            return known_later(&error).await;
        }
        Timer::after(LONGEST_CLOSE).await;
        Err(String::from("the relay does not answer the close frame"))
    }

    /// Sends standard input until its end.
    async fn feed(&self, sender: &mut WebSocketSender<Box<dyn Stream>>) -> Result<(), String> {
        let chunks = input(self.language.longest_chunk());
        while let Ok(chunk) = chunks.recv().await {
            let chunk = chunk.map_err(|error| format!("cannot read standard input: {error}"))?;
            let length = chunk.len();
            self.is_sending.set(true);
            self.put(sender, self.language.chunk(chunk)).await?;
            self.is_sending.set(false);
            self.totals.sent(length);
        }
        Ok(())
    }

    /// Sends a message.
    async fn put(&self, sender: &mut WebSocketSender<Box<dyn Stream>>, message: Message) -> Result<(), String> {
        match sender.send(message).await {
            Ok(()) => Ok(()),
            Err(error) => known_later(&error).await,
        }
    }

    /// Waits for the end of the peer's stream if the input is typed, which has no end by itself.
    async fn typed(&self) -> Result<(), String> {
        if !io::stdin().is_terminal() {
            return pending().await;
        }
        self.peer_ended().await;
        Ok(())
    }

    async fn peer_ended(&self) {
        let _ = self.peer_end.recv().await; // nothing is sent, so it returns when the channel is closed
    }

    /// Prints what the peer sends, until the connection has ended.
    async fn receive(&self, receiver: &mut WebSocketReceiver<Box<dyn Stream>>) -> Result<(), String> {
        let failed = |error: io::Error| format!("cannot write to standard output: {error}");
        let output = Output::new();
        let ending = loop {
            let message = match next(receiver).await {
                Err(ending) => break Ok(ending),
                Ok(_) if self.pipe.send_only => continue,
                Ok(message) => message,
            };
            let word = match self.language.read(message) {
                Ok(word) => word,
                // What came before it is printed.
                Err(error) => break Err(error),
            };
            match word {
                Word::End => {
                    output.finish().await.map_err(failed)?;
                    self.peer_end.close();
                }
                Word::Chunk(_) if self.peer_end.is_closed() => {
                    return Err(String::from("the peer sent a message behind the end of its stream"));
                }
                Word::Chunk(chunk) => {
                    let length = chunk.len();
                    output.put(chunk).await.map_err(failed)?;
                    self.totals.received(length);
                }
                Word::Nothing => {}
            }
        };
        output.finish().await.map_err(failed)?;
        let ending = ending?;
        answer_close(receiver, LONGEST_END).await;
        match ending {
            Ending::Closed { code: 1000, .. } if self.is_sending.get() => {
                Err(String::from("the peer left before it had taken everything"))
            }
            Ending::Closed { code: 1000, .. }
                if self.language.needs_end() && !self.pipe.send_only && !self.peer_end.is_closed() =>
            {
                Err(String::from("the peer left without a farewell, so something may be missing"))
            }
            Ending::Closed { code: 1000, .. } => Ok(()),
            Ending::Cut if self.is_closing.get() => {
                Err(String::from("the connection ended before the relay had everything"))
            }
            ending => Err(ending.to_string()),
        }
    }
}

/// The error of a failed write, later: the receiving side may know the reason, and ends both.
async fn known_later(error: &Error) -> Result<(), String> {
    Timer::after(LONGEST_END).await;
    Err(Ending::of_error(error).to_string())
}
