//! `arc-relay pipe`: standard input to the peer, and what the peer sends to standard output.
//!
//! A chunk is a binary message. A close ends both directions of a pair, so it cannot say that one of them has ended: an
//! empty message does. Whichever side has sent its own and received the other's closes.

use std::cell::Cell;
use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use arc_relay::internals::client::dial::{self, Tls};
use arc_relay::internals::client::stream::Stream;
use arc_relay::internals::client::target::Target;
use arc_relay::internals::client::websocket::{self, Ending, Opening, Socket, next};
use async_channel::Receiver;
use async_tungstenite::tungstenite::Message;
use async_tungstenite::tungstenite::protocol::CloseFrame;
use async_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use async_tungstenite::{WebSocketReceiver, WebSocketSender};
use bytesize::ByteSize;
use futures_lite::future::pending;
use futures_lite::{FutureExt, StreamExt};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::json;
use smol::Timer;

use super::progress::Progress;
use super::standard_streams::{Output, input};
use crate::cli::table::{Argument, Command, flags};
use crate::cli::token::first_line;
use crate::cli::values::{Parsed, boolean, duration, memory, path, url};

/// How long the relay may take to answer a close frame, behind what a slow peer has yet to take.
const LONGEST_CLOSE: Duration = Duration::from_secs(600);

/// How long the end of a connection may take once it is known how it ends.
const LONGEST_END: Duration = Duration::from_secs(2);

/// What the command line asks for.
#[derive(Debug, PartialEq)]
pub(crate) struct Pipe {
    target: Option<Target>,
    pair_file: Option<PathBuf>,
    token_file: Option<PathBuf>,
    ca_file: Option<PathBuf>,
    send_only: bool,
    recv_only: bool,
    max_message: usize,
    timeout: Duration,
    json: bool,
}

impl Default for Pipe {
    fn default() -> Self {
        Self {
            target: None,
            pair_file: None,
            token_file: None,
            ca_file: None,
            send_only: false,
            recv_only: false,
            max_message: 16 << 20,
            timeout: Duration::from_secs(10),
            json: false,
        }
    }
}

/// Connects standard input and output to a peer.
pub(crate) static PIPE: Command<Pipe> = Command {
    name: "pipe",
    summary: "send standard input to a peer, and print what it sends",
    about: "Send standard input to the peer with the same pair code, and what the peer sends to standard\n\
        output, as binary messages. When both streams have ended, or the peer leaves, so does this command.\n\
        A terminal as input ends with the peer's stream.\n\n\
        Exit codes: 0 the streams have ended, 1 the connection failed or something is lost, 2 wrong\n\
        arguments.",
    argument: Some(Argument {
        usage: "<url>",
        set: |settings, value| {
            settings.target = Some(url(value)?);
            Ok(())
        },
    }),
    flags: FLAGS,
    has_variables: false,
};

flags! {
    FLAGS: Pipe;
    "Options" {
        /// file with the pair code, in place of pair=CODE in the URL, which other users of the machine
        /// see
        pair_file <path> => pair_file = path;
        /// file with an access token for the relay
        token_file <path> => token_file = path;
        /// close when standard input has ended, and print nothing
        send_only => send_only = boolean;
        /// read no standard input, and close when the peer's stream has ended
        recv_only => recv_only = boolean;
        /// longest message of the peer, which is held in memory; default 16MiB
        /// (those of this command have 64KiB at most)
        max_message <size> => max_message = memory;
        /// how long connecting may take; default 10s
        timeout <duration> => timeout = duration;
        /// file of certificates, in PEM, that may sign the relay's, besides those of Mozilla's list
        ca_file <path> => ca_file = path;
        /// print the result as JSON, to standard error
        json => json = boolean;
    }
}

impl Pipe {
    /// Refuses what the flags cannot say one by one.
    pub(crate) fn checked(self) -> Parsed<Self> {
        let has_code = self.target.as_ref().is_some_and(|target| target.has("pair"));
        match (has_code, &self.pair_file) {
            (false, None) => Err(String::from("url: a pair code is missing: add ?pair=CODE, or give --pair-file")),
            (true, Some(_)) => Err(String::from("--pair-file: the URL has a pair code already")),
            _ if self.send_only && self.recv_only => {
                Err(String::from("--send-only and --recv-only exclude each other"))
            }
            _ => Ok(self),
        }
    }
}

/// Connects, and copies until the end.
///
/// # Errors
///
/// The error is one line.
pub(crate) fn run(pipe: &Pipe) -> Result<ExitCode, String> {
    let totals = Totals::new(pipe);
    let result = smol::block_on(async {
        let socket = connect(pipe).await?;
        transfer(socket, pipe, &totals).await
    });
    totals.progress.clear();
    if pipe.json {
        let _ = writeln!(io::stderr(), "{}", totals.json(result.as_ref().err()));
        return Ok(if result.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    if totals.progress.is_shown() {
        let _ = writeln!(io::stderr(), "{}", totals.line());
    }
    result.map(|()| ExitCode::SUCCESS)
}

async fn connect(pipe: &Pipe) -> Result<Socket, String> {
    let target = pipe.target.as_ref().expect("the command needs a URL");
    let code = pipe.pair_file.as_deref().map(|path| first_line(path, "pair code")).transpose()?;
    let query = code.map(|code| format!("pair={}", utf8_percent_encode(&code, NON_ALPHANUMERIC))).unwrap_or_default();
    let token = pipe.token_file.as_deref().map(|path| first_line(path, "access token")).transpose()?;
    let tls = Tls::new(pipe.ca_file.as_deref())?;
    let opened = dial::within(pipe.timeout, async {
        let stream = dial::open(target, &tls).await?;
        let (query, token) = (&*query, token.as_deref());
        websocket::open(stream, Opening { target, query, token, subprotocols: "", max_message: pipe.max_message }).await
    });
    opened.await.map(|(socket, _)| socket).map_err(|failure| format!("{target}: {failure}"))
}

/// Copies both ways until the end.
async fn transfer(socket: Socket, pipe: &Pipe, totals: &Totals) -> Result<(), String> {
    let (mut sender, mut receiver) = socket.split();
    let (_nothing, peer_end) = async_channel::bounded(1);
    let transfer = Transfer { pipe, totals, peer_end, is_sending: Cell::new(false), is_closing: Cell::new(false) };
    transfer.send(&mut sender).or(transfer.receive(&mut receiver)).await
}

/// What both directions know of each other.
struct Transfer<'a> {
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
        if !self.pipe.send_only {
            self.put(sender, Vec::new()).await?;
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
        let chunks = input();
        while let Ok(chunk) = chunks.recv().await {
            let chunk = chunk.map_err(|error| format!("cannot read standard input: {error}"))?;
            let length = chunk.len();
            self.put(sender, chunk).await?;
            self.totals.sent(length);
        }
        Ok(())
    }

    /// Sends a message.
    async fn put(&self, sender: &mut WebSocketSender<Box<dyn Stream>>, chunk: Vec<u8>) -> Result<(), String> {
        self.is_sending.set(!chunk.is_empty());
        if let Err(error) = sender.send(Message::binary(chunk)).await {
            return known_later(&error).await;
        }
        self.is_sending.set(false);
        Ok(())
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
            match next(receiver).await {
                Err(ending) => break ending,
                Ok(Message::Binary(_)) if self.pipe.send_only => {}
                Ok(Message::Binary(end)) if end.is_empty() => {
                    output.finish().await.map_err(failed)?;
                    self.peer_end.close();
                }
                Ok(Message::Binary(_)) if self.peer_end.is_closed() => {
                    return Err(String::from("the peer sent a message behind the end of its stream"));
                }
                Ok(Message::Binary(chunk)) => {
                    let length = chunk.len();
                    output.put(chunk.into()).await.map_err(failed)?;
                    self.totals.received(length);
                }
                Ok(_) => {}
            }
        };
        output.finish().await.map_err(failed)?;
        end(receiver).await;
        match ending {
            Ending::Closed { code: 1000, .. } if !self.is_sending.get() => Ok(()),
            Ending::Closed { code: 1000, .. } => Err(String::from("the peer left before it had taken everything")),
            Ending::Cut if self.is_closing.get() => {
                Err(String::from("the connection ended before the relay had everything"))
            }
            ending => Err(ending.to_string()),
        }
    }
}

/// The error of a failed write, later: the receiving side may know the reason, and ends both.
async fn known_later(error: &async_tungstenite::tungstenite::Error) -> Result<(), String> {
    Timer::after(LONGEST_END).await;
    Err(Ending::of_error(error).to_string())
}

/// Answers the relay's close frame, and waits for the end of the stream.
async fn end(receiver: &mut WebSocketReceiver<Box<dyn Stream>>) {
    let ended = async { while receiver.next().await.is_some_and(|rest| rest.is_ok()) {} };
    let timeout = async {
        Timer::after(LONGEST_END).await;
    };
    ended.or(timeout).await;
}

/// What was sent and received so far.
#[derive(Debug)]
struct Totals {
    begin: Instant,
    sent: Cell<[u64; 2]>,
    received: Cell<[u64; 2]>,
    progress: Progress,
}

impl Totals {
    fn new(pipe: &Pipe) -> Self {
        // On a terminal the line would be in the way of what is typed or printed there.
        let is_typed = !pipe.recv_only && io::stdin().is_terminal();
        let is_printed = !pipe.send_only && io::stdout().is_terminal();
        let progress = Progress::new(!is_typed && !is_printed && !pipe.json);
        Self { begin: Instant::now(), sent: Cell::default(), received: Cell::default(), progress }
    }

    fn sent(&self, length: usize) {
        self.count(&self.sent, length);
    }

    fn received(&self, length: usize) {
        self.count(&self.received, length);
    }

    fn count(&self, total: &Cell<[u64; 2]>, length: usize) {
        let [bytes, messages] = total.get();
        total.set([bytes + length as u64, messages + 1]);
        self.progress.draw(|| self.line());
    }

    fn line(&self) -> String {
        let ([sent, _], [received, _]) = (self.sent.get(), self.received.get());
        let seconds = self.begin.elapsed().as_secs_f64();
        format!("sent {}, received {} in {seconds:.1} s", ByteSize(sent), ByteSize(received))
    }

    fn json(&self, error: Option<&String>) -> serde_json::Value {
        let total = |[bytes, messages]: [u64; 2]| json!({ "bytes": bytes, "messages": messages });
        json!({
            "ok": error.is_none(),
            "sent": total(self.sent.get()),
            "received": total(self.received.get()),
            "seconds": self.begin.elapsed().as_secs_f64(),
            "error": error,
        })
    }
}
