//! One WebSocket of a connection, from the first attempt to its end.

#[cfg(test)]
mod tests;

use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_channel::{Receiver, Sender, bounded};
use async_tungstenite::tungstenite::Message;
use async_tungstenite::tungstenite::error::ProtocolError;
use async_tungstenite::tungstenite::protocol::CloseFrame;
use async_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use async_tungstenite::{WebSocketReceiver, WebSocketSender};
use futures_lite::FutureExt;
use futures_lite::future::{pending, yield_now};
use smol::Timer;

use super::closing::Attempts;
use super::event::{Event, Events};
use super::life::{Counted, Life};
use super::meeting::{Meeting, SUBPROTOCOL, Step, longest_frame};
use super::options::Options;
use super::session::Broken;
use super::wire::dial::{self, Tls};
use super::wire::failure::Failure;
use super::wire::stream::Stream;
use super::wire::websocket::{self, Ending, Opening, Socket, next};

/// How often the signs of life are looked at: once in a heartbeat, within these bounds.
const LOOKS: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(1);

/// How long the close frame of a meeting that failed may take.
const LONGEST_CLOSE: Duration = Duration::from_secs(1);

/// The close code of a WebSocket that this side gives up (docs/protocol.md).
pub(super) const BROKEN: u16 = 4002;

/// The reason of an end that the program asked for.
pub(super) const ASKED_FOR: &str = "the program asked for it";

/// The close code of a refusal is its HTTP status and this.
const REFUSAL: u16 = 4000;

/// A message of the program.
pub(super) struct Outgoing {
    pub(super) message: Vec<u8>,
    /// Is told when the message was handed over.
    pub(super) sent: Sender<()>,
}

/// The message that is under way, also from one WebSocket to the next.
#[derive(Default)]
pub(super) struct UnderWay {
    outgoing: Option<Outgoing>,
    /// Whether its last part was begun. Then it may have arrived, and is not sent again.
    is_last: bool,
}

impl UnderWay {
    /// The message was handed over, or may have been.
    fn finish(&mut self) {
        self.is_last = false;
        if let Some(outgoing) = self.outgoing.take() {
            let _ = outgoing.sent.try_send(()); // the program may have given up
        }
    }
}

/// What the parts of a connection's task share.
pub(super) struct Shared {
    pub(super) options: Options,
    pub(super) tls: Arc<Tls>,
    pub(super) events: Arc<Events>,
    pub(super) outgoing: Receiver<Outgoing>,
    /// Closed when the program closes the connection.
    pub(super) closing: Receiver<()>,
    /// Holds a token when the program asks for a new attempt.
    pub(super) hurry: Receiver<()>,
    pub(super) begin: Instant,
}

/// The end of the task, also by a panic: no call of the program waits for ever.
impl Drop for Shared {
    fn drop(&mut self) {
        self.events.close();
        // A message that waits is dropped, so its sender is told.
        self.outgoing.close();
        while self.outgoing.try_recv().is_ok() {}
    }
}

/// How a WebSocket ended.
#[derive(Debug)]
pub(super) struct Lost {
    pub(super) code: u16,
    pub(super) reason: String,
    /// What the relay asked for.
    pub(super) after: Option<Duration>,
    /// Whether the peer was there, and whether it has taken leave.
    pub(super) was_paired: bool,
    pub(super) is_orderly: bool,
    /// Whether the next attempt is to follow at once.
    pub(super) is_hurried: bool,
}

/// What the writer does besides sending the program's messages.
enum Order {
    Send(Message),
    /// The program's messages can be sent.
    Pair,
}

/// What the writer does next.
enum Turn {
    Order(Order),
    /// Sends the message that is under way.
    Message,
    Close,
}

impl Shared {
    /// The time of the clock that [`Attempts`] counts by.
    pub(super) fn now(&self) -> Duration {
        self.begin.elapsed()
    }

    /// Waits until the program closes the connection.
    pub(super) async fn closed(&self) {
        let _ = self.closing.recv().await; // nothing is sent, so it returns when the channel is closed
    }

    /// Waits until the program asks for a new attempt.
    async fn asked(&self) {
        if self.hurry.recv().await.is_err() {
            pending::<()>().await; // the connection is dropped, and so will be this task
        }
    }

    /// Waits until the program asks for a new attempt, and has not done so shortly before.
    pub(super) async fn hurried(&self, attempts: &mut Attempts) {
        loop {
            self.asked().await;
            if attempts.hurry(self.now()) {
                return;
            }
        }
    }

    /// Runs a WebSocket to its end.
    pub(super) async fn run(&self, attempts: &mut Attempts, under_way: &mut UnderWay) -> Lost {
        let never =
            |code, reason| Lost { code, reason, after: None, was_paired: false, is_orderly: false, is_hurried: false };
        let life = Arc::new(Life::default());
        let opened = dial::within(self.options.patience, self.open(Arc::clone(&life)));
        let given_up = async {
            self.closed().await;
            Err(Failure::Timeout)
        };
        let mut is_hurried = false;
        let hurried = async {
            self.hurried(attempts).await;
            is_hurried = true;
            Err(Failure::Timeout)
        };
        match opened.or(given_up).or(hurried).await {
            Err(_) if is_hurried => Lost { is_hurried, ..never(BROKEN, String::from(ASKED_FOR)) },
            Err(Failure::Refused(answer)) => {
                let after = answer.retry_after.map(Duration::from_secs);
                Lost { after, ..never(REFUSAL + answer.status.as_u16(), answer.line) }
            }
            Err(failure) => never(1006, failure.to_string()),
            Ok((_, chosen)) if chosen.as_deref() != Some(SUBPROTOCOL) => {
                never(REFUSAL + 400, format!("the relay does not speak {SUBPROTOCOL}"))
            }
            Ok((socket, _)) => {
                attempts.open(self.now());
                Line::new(self, life, attempts).run(socket, under_way).await
            }
        }
    }

    async fn open(&self, life: Arc<Life>) -> Result<(Socket, Option<String>), Failure> {
        let options = &self.options;
        let inner = dial::open(&options.target, &self.tls).await?;
        let opening = Opening {
            target: &options.target,
            query: &options.query(),
            token: options.token.as_deref(),
            subprotocols: SUBPROTOCOL,
            max_message: longest_frame(options.secret.is_some(), options.max_message),
        };
        websocket::open(Box::new(Counted { inner, life }), opening).await
    }
}

/// An open WebSocket.
struct Line<'a> {
    shared: &'a Shared,
    life: Arc<Life>,
    attempts: Mutex<&'a mut Attempts>,
    meeting: Mutex<Meeting>,
    orders: Sender<Order>,
    ordered: Receiver<Order>,
    after: Mutex<Option<Duration>>,
    /// Whether a message of the program is on its way into the socket.
    is_sending: AtomicBool,
    /// Whether the program has to take a message before the next one is read.
    is_held: AtomicBool,
    /// Whether the program was told that the peer is there.
    was_paired: AtomicBool,
    is_orderly: AtomicBool,
}

/// The code and the reason of an end.
type End = (u16, String);

impl<'a> Line<'a> {
    fn new(shared: &'a Shared, life: Arc<Life>, attempts: &'a mut Attempts) -> Self {
        // The handshake's answer, the peer's coming, and a ping.
        let (orders, ordered) = bounded(3);
        let meeting = Meeting::new(shared.options.secret.clone(), shared.options.max_message);
        Self {
            shared,
            life,
            attempts: Mutex::new(attempts),
            meeting: Mutex::new(meeting),
            orders,
            ordered,
            after: Mutex::default(),
            is_sending: AtomicBool::new(false),
            is_held: AtomicBool::new(false),
            was_paired: AtomicBool::new(false),
            is_orderly: AtomicBool::new(false),
        }
    }

    async fn run(self, socket: Socket, under_way: &mut UnderWay) -> Lost {
        let (mut sender, mut receiver) = socket.split();
        // The reader is first: it has the close frame when a write fails.
        let (code, reason) =
            self.read(&mut receiver).or(self.write(&mut sender, under_way)).or(self.watch()).or(self.asked()).await;
        if under_way.is_last {
            under_way.finish();
        }
        if code == BROKEN {
            let close = async {
                let _ = sender.close(Some(CloseFrame { code: CloseCode::Normal, reason: "".into() })).await;
            };
            let bound = async {
                Timer::after(LONGEST_CLOSE).await;
            };
            close.or(bound).await;
        }
        Lost {
            code,
            reason,
            after: *lock(&self.after),
            was_paired: self.was_paired.load(Ordering::Relaxed),
            is_orderly: self.is_orderly.load(Ordering::Relaxed),
            is_hurried: false,
        }
    }

    /// Reads until the end.
    async fn read(&self, receiver: &mut WebSocketReceiver<Box<dyn Stream>>) -> End {
        loop {
            let (step, answer) = match next(receiver).await {
                Ok(Message::Text(text)) => lock(&self.meeting).take_text(&text),
                Ok(Message::Binary(message)) => {
                    let taken = lock(&self.meeting).take_binary(message.into());
                    match taken {
                        Ok(taken) => taken,
                        Err(Broken::TooLong) => return (1009, Broken::TooLong.to_string()),
                        Err(broken) => return (BROKEN, broken.to_string()),
                    }
                }
                Ok(_) => continue,
                Err(Ending::Closed { code, reason }) => {
                    websocket::answer_close(receiver, LONGEST_CLOSE).await;
                    return (code, reason);
                }
                Err(ending @ Ending::TooLong) => return (1009, ending.to_string()),
                Err(ending) => return (1006, ending.to_string()),
            };
            if let Some(answer) = answer {
                self.order(Order::Send(Message::binary(answer))).await;
            }
            self.tell(step).await;
            // A peer that sends without a pause is always ready. The writer, and the process's other connections, are too.
            yield_now().await;
        }
    }

    async fn order(&self, order: Order) {
        let _ = self.orders.send(order).await; // this side holds a receiver, so the channel is open
    }

    /// Does what a step means.
    async fn tell(&self, step: Step) {
        let events = &self.shared.events;
        match step {
            Step::Nothing => {}
            Step::Waiting => events.put(Event::Waiting).await,
            Step::Paired => {
                lock(&self.attempts).meet(self.shared.now());
                events.put(Event::Paired).await;
                self.was_paired.store(true, Ordering::Relaxed);
                self.order(Order::Pair).await;
            }
            Step::Message(message) => {
                self.is_held.store(true, Ordering::Relaxed);
                events.put(Event::Message(message)).await;
                self.is_held.store(false, Ordering::Relaxed);
            }
            Step::Farewell { is_orderly } => self.is_orderly.store(is_orderly, Ordering::Relaxed),
            Step::Draining { within } => events.put(Event::Draining { within }).await,
            Step::Retry { after } => *lock(&self.after) = Some(after),
        }
    }

    /// Writes until the end.
    async fn write(&self, sender: &mut WebSocketSender<Box<dyn Stream>>, under_way: &mut UnderWay) -> End {
        match self.messages(sender, under_way).await {
            Ok(()) => {
                // What was sent before the close frame may still be on its way.
                Timer::after(self.shared.options.patience).await;
                (1000, String::new())
            }
            // The reader may find the reason.
            Err(_) => {
                Timer::after(LONGEST_CLOSE).await;
                (1006, String::from("the connection failed"))
            }
        }
    }

    /// Sends messages until the program closes the connection.
    async fn messages(
        &self,
        sender: &mut WebSocketSender<Box<dyn Stream>>,
        under_way: &mut UnderWay,
    ) -> Result<(), websocket::Error> {
        let mut is_paired = false;
        loop {
            let order = async { self.ordered.recv().await.map_or(Turn::Close, Turn::Order) };
            match order.or(self.program(is_paired, under_way)).await {
                Turn::Order(Order::Pair) => is_paired = true,
                Turn::Order(Order::Send(message)) => sender.send(message).await?,
                Turn::Message => self.message(sender, under_way).await?,
                Turn::Close => break,
            }
        }
        let farewell = is_paired.then(|| lock(&self.meeting).session().farewell()).flatten();
        if let Some(farewell) = farewell {
            sender.send(Message::binary(farewell)).await?;
        }
        sender.close(Some(CloseFrame { code: CloseCode::Normal, reason: "".into() })).await
    }

    /// Waits until the program has a message for the peer, or closes the connection.
    ///
    /// Without a peer, only the close counts.
    async fn program(&self, is_paired: bool, under_way: &mut UnderWay) -> Turn {
        if !is_paired {
            self.shared.closed().await;
            return Turn::Close;
        }
        while under_way.outgoing.is_none() {
            match self.shared.outgoing.recv().await {
                Ok(outgoing) if outgoing.sent.is_closed() => {} // its program has given up
                Ok(outgoing) => under_way.outgoing = Some(outgoing),
                Err(_) if self.shared.closing.is_closed() => return Turn::Close,
                // The connection is dropped, and so will be this task.
                Err(_) => pending().await,
            }
        }
        Turn::Message
    }

    /// Sends the message that is under way.
    async fn message(
        &self,
        sender: &mut WebSocketSender<Box<dyn Stream>>,
        under_way: &mut UnderWay,
    ) -> Result<(), websocket::Error> {
        let longest = lock(&self.meeting).session().part_length();
        let outgoing = under_way.outgoing.as_ref().expect("a message is under way");
        let length = outgoing.message.len();
        let mut begin = 0_usize;
        self.is_sending.store(true, Ordering::Relaxed);
        loop {
            let end = length.min(begin.saturating_add(longest));
            under_way.is_last = end == length;
            let part = lock(&self.meeting).session().seal(&outgoing.message[begin..end], under_way.is_last);
            if let Err(error) = sender.send(Message::binary(part)).await {
                under_way.is_last &= !is_unwritten(&error);
                return Err(error);
            }
            if under_way.is_last {
                break;
            }
            begin = end;
            // A ping waits for a part of a long message, and not for all of it.
            while let Ok(Order::Send(message)) = self.ordered.try_recv() {
                sender.send(message).await?;
            }
        }
        self.is_sending.store(false, Ordering::Relaxed);
        under_way.finish();
        Ok(())
    }

    /// Waits until the program gives the WebSocket up.
    async fn asked(&self) -> End {
        self.shared.asked().await;
        (BROKEN, String::from(ASKED_FOR))
    }

    /// Asks the relay after a silence, and gives the WebSocket up if it does not answer.
    async fn watch(&self) -> End {
        let Options { heartbeat, patience, .. } = self.shared.options;
        let (mut read, mut written) = (0, 0);
        let (mut last, mut is_asked) = (Instant::now(), false);
        loop {
            Timer::after(heartbeat.clamp(*LOOKS.start(), *LOOKS.end())).await;
            let (read_before, written_before) = (read, written);
            (read, written) = (self.life.read(), self.life.written());
            // What has left this program is received by the relay's system. An answer waits behind it, and behind
            // messages that the program has not taken.
            let is_leaving = self.is_sending.load(Ordering::Relaxed) && written > written_before;
            if read > read_before || is_leaving || self.is_held.load(Ordering::Relaxed) {
                (last, is_asked) = (Instant::now(), false);
            }
            let silence = last.elapsed();
            if silence > heartbeat.saturating_add(patience) {
                return (1006, String::from("the relay does not answer"));
            }
            if silence > heartbeat && !is_asked {
                is_asked = true;
                let _ = self.orders.try_send(Order::Send(Message::text(r#"{"type":"ping"}"#)));
            }
        }
    }
}

/// Whether nothing of the message was written, because it came behind a close frame.
fn is_unwritten(error: &websocket::Error) -> bool {
    matches!(error, websocket::Error::AlreadyClosed | websocket::Error::Protocol(ProtocolError::SendAfterClosing))
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
