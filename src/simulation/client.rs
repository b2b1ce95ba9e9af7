//! A client that verifies all that it receives: one task writes, and one reads.

use std::cell::RefCell;
use std::future::pending;
use std::io;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_channel::{Receiver, Sender};
use futures_lite::{AsyncReadExt, AsyncWriteExt, FutureExt};

use super::executor::Random;
use super::line::Line;
use super::network::Socket;
use super::time::sleep;
use super::trace::trace;
use crate::runtime::clock::Clock;
use crate::runtime::transport::Transport;

/// How a client departs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// Sends a close frame with this code.
    Close(u16),
    /// Ends its stream between two messages.
    End,
    /// Ends its stream within a message.
    CutOff,
    /// Resets its connection.
    Reset,
    /// Sends a frame that violates the protocol. The relay answers with this close code.
    Violation(u16),
    /// Vanishes without a packet, as when a cable is pulled.
    Vanish,
    /// Stays until the relay or the peer ends the connection, or the world tells it to leave.
    Stay,
}

/// What a client of `arc-relay.v1` was told, and has asked.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// The seconds for which it waits at most, if it was the first.
    pub(super) waits: Option<u64>,
    pub(super) is_paired: bool,
    /// The seconds until the relay ends its connection.
    pub(super) drain: Option<u64>,
    /// The number of pings that it has sent, which is the `id` of the next.
    pub(super) pings: usize,
    /// The `id`s of the pongs that it has received.
    pub(super) pongs: Vec<usize>,
    /// Whether a message of its peer is incomplete.
    pub(super) is_within_message: bool,
}

impl Told {
    /// Reads a message of the relay. Each but a pong comes once, and in this order.
    fn read(&mut self, text: &str) {
        let number = |prefix: &str, suffix: &str| text.strip_prefix(prefix)?.strip_suffix(suffix)?.parse::<u64>().ok();
        if let Some(seconds) = number(r#"{"type":"waiting","expires_in":"#, "}") {
            let is_first = self.waits.is_none() && !self.is_paired && self.drain.is_none() && self.pongs.is_empty();
            assert!(is_first, "a client was told to wait too late");
            self.waits = Some(seconds);
        } else if text == r#"{"type":"paired"}"# {
            assert!(!self.is_paired, "a client was told of its peer twice");
            assert!(
                self.waits.is_some() || self.drain.is_none() && self.pongs.is_empty(),
                "a second client was told too late"
            );
            self.is_paired = true;
        } else if let Some(seconds) = number(r#"{"type":"draining","within":"#, "}") {
            assert!(self.drain.is_none(), "a client was told of the stop twice");
            assert!(self.waits.is_some() || self.is_paired, "a client was told of the stop first");
            self.drain = Some(seconds);
        } else if let Some(id) = number(r#"{"type":"pong","id":""#, "\"}") {
            let id = id as usize;
            assert!(id < self.pings + 1 && self.pongs.last().is_none_or(|last| *last < id), "pongs are out of order");
            assert!(self.waits.is_some() || self.is_paired, "a pong came first");
            self.pongs.push(id);
        } else {
            panic!("an unexpected text: {text}");
        }
    }

    /// Whether it was told where it stands, and its newest ping was answered.
    pub(super) fn is_complete(&self) -> bool {
        (self.waits.is_some() || self.is_paired) && self.pongs.last().map_or(0, |last| last + 1) == self.pings
    }
}

/// The state of a client, for the checks.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) code: usize,
    /// Its side identity, if the world gives it one.
    pub(super) side: Option<usize>,
    pub(super) ending: Ending,
    /// Whether it never answers a close frame.
    pub(super) deaf: bool,
    /// The messages that it is going to send.
    pub(super) messages: Vec<Vec<u8>>,
    /// The number of messages that it has sent completely.
    pub(super) sent: usize,
    /// Whether it is writing, and may be waiting for room.
    pub(super) sending: bool,
    /// Whether it has begun the departure that `ending` names.
    pub(super) departs: bool,
    /// When it had departed, as far as its side can.
    pub(super) departed_at: Option<Instant>,
    pub(super) pings: Vec<Vec<u8>>,
    /// What it was told and has asked, if it speaks `arc-relay.v1`.
    pub(super) v1: Option<Told>,

    pub(super) came_at: Instant,
    pub(super) requested_at: Option<Instant>,
    pub(super) joined_at: Option<Instant>,
    pub(super) status: Option<u16>,
    pub(super) refusal: String,
    pub(super) received: Vec<Vec<u8>>,
    /// The bytes of frames that it has read.
    pub(super) bytes: usize,
    /// The number of received messages that the checks have verified.
    pub(super) checked: usize,
    pub(super) pongs: Vec<Vec<u8>>,
    /// The pongs that it still has to send: for pings, and for messages if it acknowledges these.
    pub(super) owed: Vec<Vec<u8>>,
    pub(super) close: Option<(Option<u16>, String)>,
    pub(super) closed_at: Option<Instant>,
    /// How its stream has ended: in order, or by an error.
    pub(super) end: Option<Result<(), io::ErrorKind>>,
    /// When both it and the relay had sent a close frame, and when the connection ended.
    pub(super) answered_at: Option<Instant>,
    pub(super) ended_at: Option<Instant>,
    /// Whether its reader may pause for longer than the relay waits.
    ///
    /// The relay waits for a client that has departed, and for the pong to a takeover probe.
    pub(super) slow: bool,
    /// Whether it makes long pauses between messages, and so may still send long after its peer has left.
    pub(super) dreamy: bool,
    /// Whether it acknowledges each message with an unsolicited pong.
    pub(super) acknowledges: bool,
    /// Whether its reader is pausing, and the total time of its pauses.
    pub(super) pausing: bool,
    pub(super) paused_for: Duration,
}

/// A running client.
pub(super) struct Handle {
    pub(super) line: Line,
    pub(super) state: Rc<RefCell<Client>>,
    /// Wakes its writer: it is to leave, or the reader has received something.
    pub(super) nudge: Sender<()>,
}

impl Handle {
    /// Tells a client that stays to leave.
    pub(super) fn leave(&self) {
        self.state.borrow_mut().ending = Ending::Close(4999);
        let _ = self.nudge.try_send(());
    }
}

impl Client {
    fn new(number: usize, speaks_v1: bool, random: &mut Random, came_at: Instant) -> Self {
        // Some clients send much more than the others: a proxy then holds minutes of data.
        let kinds = if random.once_in(8) { 7..8 } else { 0..8 };
        let messages = (0..random.below(7)).map(|nth| message(number, nth, kinds.clone(), random)).collect();
        let ending = match random.below(11) {
            0 | 1 => Ending::Close(4000 + number as u16),
            2 | 3 => Ending::End,
            4 => Ending::CutOff,
            5 => Ending::Reset,
            6 => Ending::Violation([1002, 1007, 1009][random.below(3)]),
            7 => Ending::Vanish,
            _ => Ending::Stay,
        };
        let ending = match ending {
            Ending::Violation(1002) if speaks_v1 => Ending::Violation(1003),
            other => other,
        };
        Self {
            code: random.below(3),
            side: None,
            ending,
            deaf: random.once_in(8),
            messages,
            sent: 0,
            sending: false,
            departs: false,
            departed_at: None,
            pings: Vec::new(),
            v1: speaks_v1.then(Told::default),
            came_at,
            requested_at: None,
            joined_at: None,
            status: None,
            refusal: String::new(),
            received: Vec::new(),
            bytes: 0,
            checked: 0,
            pongs: Vec::new(),
            owed: Vec::new(),
            close: None,
            closed_at: None,
            end: None,
            answered_at: None,
            ended_at: None,
            slow: random.once_in(3),
            dreamy: random.once_in(3),
            acknowledges: random.once_in(3),
            pausing: false,
            paused_for: Duration::ZERO,
        }
    }

    /// The client that sent the messages which it received.
    pub(super) fn peer(&self) -> Option<usize> {
        self.received.first().map(|message| origin(message).0)
    }

    /// Whether its WebSocket is open, as far as it knows.
    pub(super) fn is_there(&self) -> bool {
        self.status == Some(101) && !self.is_over()
    }

    /// Whether it has received a close frame or the end of its stream.
    fn is_over(&self) -> bool {
        self.close.is_some() || self.end.is_some()
    }
}

/// The relay's limit for a message. Only a violation exceeds it.
pub(super) const MAX_MESSAGE: usize = 200_000;

/// A message that names its sender and its number, and differs from all others.
///
/// The last of the eight kinds of length is the longest.
fn message(client: usize, nth: usize, kinds: Range<usize>, random: &mut Random) -> Vec<u8> {
    let length = match kinds.start + random.below(kinds.len()) {
        0..=3 => random.below(200),
        4 | 5 => random.below(5000),
        6 => random.below(80_000),
        _ if random.once_in(4) => MAX_MESSAGE - 2,
        _ => random.below(MAX_MESSAGE - 2),
    };
    let mut message = vec![client as u8, nth as u8];
    message.extend((0..length).map(|i| (i * (nth + 3) + client) as u8));
    message
}

/// The client that sent a message, and the message's number.
pub(super) fn origin(message: &[u8]) -> (usize, usize) {
    (message[0].into(), message[1].into())
}

/// Creates a client and its two tasks.
///
/// `is_asked` says whether the relay sends it pings, and `speaks_v1` whether it speaks `arc-relay.v1`.
pub(super) fn client(
    number: usize,
    (socket, line): (Socket, Line),
    [is_asked, speaks_v1]: [bool; 2],
    random: &mut Random,
    clock: &Arc<dyn Clock>,
) -> (Handle, impl Future<Output = ()> + 'static, impl Future<Output = ()> + 'static) {
    let state = Rc::new(RefCell::new(Client::new(number, speaks_v1, random, clock.now())));
    let (nudge, nudged) = async_channel::bounded(1);
    let writer = Writer {
        number,
        socket: socket.clone(),
        state: Rc::clone(&state),
        nudged,
        random: random.split(),
        clock: Arc::clone(clock),
    };
    let reader = Reader {
        number,
        socket,
        is_asked,
        pauses: 0,
        state: Rc::clone(&state),
        nudge: nudge.clone(),
        random: random.split(),
        clock: Arc::clone(clock),
    };
    (Handle { line, state, nudge }, writer.run(), reader.run())
}

struct Writer {
    number: usize,
    socket: Socket,
    state: Rc<RefCell<Client>>,
    nudged: Receiver<()>,
    random: Random,
    clock: Arc<dyn Clock>,
}

impl Writer {
    async fn run(mut self) {
        // An error means that the connection is gone. The reader finds out how it ended.
        let _ = self.write_all().await;
    }

    async fn write_all(&mut self) -> io::Result<()> {
        self.pause().await?;
        let Client { code, side, .. } = *self.state.borrow();
        let side = side.map(|side| format!("&side={side}")).unwrap_or_default();
        let offer = if self.speaks_v1() { "Sec-WebSocket-Protocol: arc-relay.v1\r\n" } else { "" };
        let request = format!(
            "GET /?pair={code}{side} HTTP/1.1\r\nHost: simulation\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n{offer}\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        self.state.borrow_mut().requested_at = Some(self.clock.now());
        self.send_bytes(request.as_bytes()).await?;
        if self.random.once_in(2) {
            self.nudged().await; // wait for the response, while other clients send at once
        }
        let messages = self.state.borrow().messages.clone();
        for message in messages {
            self.pause().await?;
            if !self.send(&message).await? {
                return self.answer().await;
            }
            self.state.borrow_mut().sent += 1;
            trace(|| format!("client {}: has sent a message of {} bytes", self.number, message.len()));
        }
        let ending = self.state.borrow().ending;
        if ending != Ending::Stay {
            self.state.borrow_mut().departs = true;
            trace(|| format!("client {}: {ending:?}", self.number));
        }
        match ending {
            Ending::Close(code) => self.frame(0x88, &code.to_be_bytes()).await?,
            Ending::End => self.socket.shut_down()?,
            Ending::Reset => self.socket.reset(),
            Ending::CutOff => {
                let part = [&[0x02, 0x81, 0, 0, 0, 0, 7][..], &[0x82, 0xFE, 1], &[0x82]][self.random.below(3)];
                self.send_bytes(part).await?;
                self.socket.shut_down()?;
            }
            Ending::Vanish => {
                self.socket.cut();
                // The relay's kernel probes now and then, and gives up after a while.
                sleep(&self.clock, Duration::from_secs(60 + self.random.below(45) as u64)).await;
                self.socket.time_out();
            }
            Ending::Violation(code) => {
                let bytes = match code {
                    1003 => vec![0x81, 0x82, 0, 0, 0, 0, b'{', b'}'],
                    1007 => vec![0x81, 0x81, 0, 0, 0, 0, 0xFF],
                    1009 => [&[0x82, 0xFF], &(MAX_MESSAGE as u64 + 1).to_be_bytes()[..], &[0; 4]].concat(),
                    _ => [[0xC2, 0x80], [0x83, 0x80], [0x82, 0x00], [0x80, 0x80]][self.random.below(4)].into(),
                };
                self.send_bytes(&bytes).await?;
            }
            Ending::Stay => {
                while !self.state.borrow().is_over() && self.state.borrow().ending == Ending::Stay {
                    self.pong().await?;
                    self.nudged().await;
                }
                if self.state.borrow().is_over() {
                    return self.answer().await;
                }
                self.state.borrow_mut().departs = true;
                self.frame(0x88, &4999_u16.to_be_bytes()).await?;
            }
        }
        self.state.borrow_mut().departed_at = Some(self.clock.now());
        Ok(())
    }

    /// Sends a binary message in some fragments, with other frames in between.
    ///
    /// Returns false if a close frame has come.
    async fn send(&mut self, message: &[u8]) -> io::Result<bool> {
        let mut rest = message;
        let mut opcode = 0x02;
        loop {
            if self.state.borrow().close.is_some() {
                return Ok(false);
            }
            self.pong().await?;
            if self.random.once_in(6) {
                let number = self.state.borrow().pings.len() as u8;
                let data = vec![number; self.random.below(126)];
                self.frame(0x89, &data).await?;
                self.state.borrow_mut().pings.push(data);
            }
            if opcode == 0x02 && self.random.once_in(6) {
                match self.speaks_v1() {
                    true => self.text_ping().await?,
                    false => self.frame(0x81, "not forwarded: é".as_bytes()).await?,
                }
            }
            let length = if self.random.once_in(2) { rest.len() } else { self.random.below(rest.len() + 1) };
            let (part, more) = rest.split_at(length);
            let last = more.is_empty();
            self.frame(opcode | if last { 0x80 } else { 0 }, part).await?;
            if last {
                return Ok(true);
            }
            (opcode, rest) = (0x00, more);
        }
    }

    fn speaks_v1(&self) -> bool {
        self.state.borrow().v1.is_some()
    }

    /// Sends a ping of `arc-relay.v1` in one frame or two.
    async fn text_ping(&mut self) -> io::Result<()> {
        let number = self.state.borrow().v1.as_ref().map_or(0, |told| told.pings);
        let text = format!(r#"{{"type":"ping","id":"{number}"}}"#);
        let (part, rest) = text.as_bytes().split_at(self.random.below(text.len()));
        if self.random.once_in(2) {
            self.frame(0x81, text.as_bytes()).await?;
        } else {
            self.frame(0x01, part).await?;
            self.pong().await?;
            self.frame(0x80, rest).await?;
        }
        if let Some(told) = &mut self.state.borrow_mut().v1 {
            told.pings += 1;
        }
        Ok(())
    }

    async fn answer(&mut self) -> io::Result<()> {
        if self.state.borrow().deaf {
            return Ok(());
        }
        self.frame(0x88, &1000_u16.to_be_bytes()).await?;
        self.state.borrow_mut().answered_at = Some(self.clock.now());
        Ok(())
    }

    async fn frame(&mut self, first: u8, payload: &[u8]) -> io::Result<()> {
        let mask = [1, 2, 3, self.random.below(256) as u8];
        let mut frame = vec![first];
        match payload.len() {
            length @ 0..=125 => frame.push(0x80 | length as u8),
            length @ 126..=0xFFFF => {
                frame.push(0xFE);
                frame.extend((length as u16).to_be_bytes());
            }
            length => {
                frame.push(0xFF);
                frame.extend((length as u64).to_be_bytes());
            }
        }
        frame.extend(mask);
        frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        self.send_bytes(&frame).await
    }

    async fn send_bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.state.borrow_mut().sending = true;
        let result = self.socket.write_all(bytes).await;
        self.state.borrow_mut().sending = false;
        result
    }

    async fn pause(&mut self) -> io::Result<()> {
        let (odds, longest) = if self.state.borrow().dreamy { (2, 10_000) } else { (5, 2000) };
        if self.random.once_in(odds) {
            let end = self.clock.now() + Duration::from_millis(self.random.below(longest) as u64);
            self.pong().await?; // an earlier nudge may be unanswered
            while self.is_nudged_before(end).await {
                self.pong().await?;
            }
        }
        Ok(())
    }

    async fn is_nudged_before(&self, end: Instant) -> bool {
        let slept = async {
            self.clock.sleep_until(end).await;
            false
        };
        let nudged = async {
            if self.nudged.recv().await.is_err() {
                pending::<()>().await; // the reader has closed the channel
            }
            true
        };
        slept.or(nudged).await
    }

    async fn nudged(&self) {
        let _ = self.nudged.recv().await;
    }

    /// Sends the pongs that it owes.
    async fn pong(&mut self) -> io::Result<()> {
        let owed = std::mem::take(&mut self.state.borrow_mut().owed);
        for payload in owed {
            self.frame(0x8A, &payload).await?;
        }
        Ok(())
    }
}

struct Reader {
    number: usize,
    socket: Socket,
    is_asked: bool,
    pauses: usize,
    state: Rc<RefCell<Client>>,
    nudge: Sender<()>,
    random: Random,
    clock: Arc<dyn Clock>,
}

impl Reader {
    async fn run(mut self) {
        let end = self.read_all().await.map_err(|error| error.kind());
        trace(|| format!("client {}: the stream ends: {end:?}", self.number));
        if self.state.borrow().joined_at.is_some() {
            self.begin(); // the stream has ended before any frame
        }
        self.state.borrow_mut().end = Some(end);
        self.state.borrow_mut().ended_at = Some(self.clock.now());
        // Nothing more will arrive that the writer may wait for. Closing the channel tells it so.
        self.nudge.close();
    }

    async fn read_all(&mut self) -> io::Result<()> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let Some(byte) = self.byte().await? else { return Ok(()) };
            head.push(byte);
        }
        let status = std::str::from_utf8(&head[9..12]).unwrap().parse().unwrap();
        trace(|| format!("client {}: status {status}", self.number));
        self.state.borrow_mut().joined_at = Some(self.clock.now());
        // A client of `arc-relay.v1` learns from the next frame whether it is refused.
        if self.state.borrow().v1.is_none() {
            self.state.borrow_mut().status = Some(status);
            let _ = self.nudge.try_send(());
        }
        if status != 101 {
            while let Some(byte) = self.byte().await? {
                self.state.borrow_mut().refusal.push(byte.into());
            }
            return Ok(());
        }
        let mut message = None;
        while let Some(first) = self.byte().await? {
            assert!(self.state.borrow().close.is_none(), "a frame follows a close frame");
            let payload = self.payload().await?;
            match (first, &mut message) {
                (0x89, _) => {
                    self.begin();
                    trace(|| format!("client {}: receives a ping", self.number));
                    self.state.borrow_mut().owed.push(payload);
                    let _ = self.nudge.try_send(());
                }
                (0x8A, _) => {
                    self.begin();
                    self.state.borrow_mut().pongs.push(payload);
                }
                (0x81, None) => self.read_text(std::str::from_utf8(&payload).unwrap()),
                (0x88, _) if self.is_refused(&payload) => {}
                (0x88, _) => {
                    self.begin();
                    let code = payload.first_chunk().map(|code| u16::from_be_bytes(*code));
                    let reason = String::from_utf8(payload.get(2..).unwrap_or_default().to_vec()).unwrap();
                    trace(|| format!("client {}: receives a close frame, {code:?} {reason:?}", self.number));
                    self.state.borrow_mut().close = Some((code, reason));
                    self.state.borrow_mut().closed_at = Some(self.clock.now());
                    let _ = self.nudge.try_send(());
                }
                (0x02 | 0x82, None) => {
                    let knows = self.state.borrow().v1.as_ref().is_none_or(|told| told.is_paired);
                    assert!(knows, "a message came before its client was told of the peer");
                    message = Some(payload);
                }
                (0x00 | 0x80, Some(begun)) => begun.extend(payload),
                _ => panic!("an unexpected frame that begins with {first:#x}"),
            }
            if first == 0x82 || first == 0x80 {
                trace(|| {
                    format!("client {}: receives a message of {:?} bytes", self.number, message.as_ref().map(Vec::len))
                });
                self.state.borrow_mut().received.extend(message.take());
                if self.state.borrow().acknowledges {
                    self.state.borrow_mut().owed.push(vec![]);
                    let _ = self.nudge.try_send(());
                }
            }
            if let Some(told) = &mut self.state.borrow_mut().v1 {
                told.is_within_message = message.is_some();
            }
        }
        Ok(())
    }

    /// Notes that the client is admitted, as another frame than a refusal has come.
    fn begin(&self) {
        if self.state.borrow().status.is_none() {
            self.state.borrow_mut().status = Some(101);
            let _ = self.nudge.try_send(());
        }
    }

    fn read_text(&self, text: &str) {
        trace(|| format!("client {}: receives {text}", self.number));
        if text == r#"{"type":"retry","after":5}"# {
            assert!(self.state.borrow().status.is_none(), "a client was refused late");
            return;
        }
        self.begin();
        self.state.borrow_mut().v1.as_mut().expect("it speaks `arc-relay.v1`").read(text);
    }

    /// Whether a close frame is a refusal, which the state then tells like one by a status.
    fn is_refused(&self, payload: &[u8]) -> bool {
        let mut state = self.state.borrow_mut();
        if state.v1.is_none() || state.status.is_some() {
            return false;
        }
        let Some((code, reason)) = payload.split_first_chunk() else { return false };
        let code = u16::from_be_bytes(*code);
        let is_refusal = (4400..4600).contains(&code);
        if is_refusal {
            state.status = Some(code - 4000);
            state.refusal = format!("{}\n", str::from_utf8(reason).unwrap());
            let _ = self.nudge.try_send(());
        }
        is_refusal
    }

    async fn payload(&mut self) -> io::Result<Vec<u8>> {
        let extended = match self.required().await? {
            126 => 2,
            127 => 8,
            length => return self.bytes(length.into()).await,
        };
        let length = self.bytes(extended).await?.iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
        self.bytes(length).await
    }

    async fn bytes(&mut self, length: usize) -> io::Result<Vec<u8>> {
        // These pauses are shorter than the time in which the relay waits for a client to take its close frame.
        if self.pauses < 4 && self.random.once_in(8) {
            self.pauses += 1;
            self.state.borrow_mut().pausing = true;
            // Unless the client is slow, the sum of the pauses is less than the relay's wait for a pong.
            let longest = match (self.state.borrow().slow, self.is_asked) {
                (true, false) => 15_000,
                (true, true) if self.pauses == 1 => 15_000,
                (false, false) => 1000,
                _ => 400,
            };
            let pause = Duration::from_millis(self.random.below(longest) as u64);
            sleep(&self.clock, pause).await;
            self.state.borrow_mut().pausing = false;
            self.state.borrow_mut().paused_for += pause;
        }
        let mut bytes = vec![0; length];
        self.socket.read_exact(&mut bytes).await?;
        self.state.borrow_mut().bytes += length;
        Ok(bytes)
    }

    async fn required(&mut self) -> io::Result<u8> {
        self.byte().await?.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }

    async fn byte(&mut self) -> io::Result<Option<u8>> {
        let mut byte = [0];
        Ok((self.socket.read(&mut byte).await? > 0).then_some(byte[0]))
    }
}
