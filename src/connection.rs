//! One task for each connection: its socket on one side, its end of a link on the other.
//!
//! The two directions, [`Inbound`] and [`Outbound`], advance independently of each other: a loop that alternates them
//! would stand still when both clients stream. What they share is decided here: how a connection ends.
//!
//! | what happens                          | to the peer, after all that came before | to this client            |
//! |---------------------------------------|-----------------------------------------|---------------------------|
//! | the client sends a close frame        | 1000 `peer disconnected`                | its code back             |
//! | its stream ends between two messages  | 1000 `peer disconnected`                |                           |
//! | ... within a message, or is reset     | 1011 `peer connection lost`             |                           |
//! | it violates the protocol              | 1011 `peer connection lost`             | the violation's code      |
//! | it does not answer in time            | 1011 `peer connection lost`             | 1011 `ping timeout`       |
//! | the relay stops                       | 1001 `relay stopping`                   | (its peer's end says so)  |
//! | the link ends with a farewell         |                                         | the farewell's code       |
//!
//! After a close frame is sent to the client, the connection lasts until the client has closed too and its stream has
//! ended, but no longer than [`CLOSE_TIMEOUT`]. A stream that ends while it is not read from, because the peer is slow or a rate is used up,
//! ends the way to that client at once, whatever it said before. If nothing can be written to it any more, what it sent before is
//! still read, as fast as its peer takes it, and the end of its stream says how it departed.

mod inbound;
mod outbound;
#[cfg(test)]
mod tests;
mod throttle;

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use crate::client_limits::Presence;
use crate::clock::{Clock, Sleep};
use crate::events::{Outcome, Visit};
use crate::link::Farewell;
use crate::liveness::{Liveness, Rules, Seen, Verdict};
use crate::occupants::Question;
use crate::pool::Pool;
use crate::reframe::Reframer;
use crate::seats::Claim;
use crate::stats::Stats;
use crate::stop::StopOnDrop;
use crate::tickets::Ticket;
use crate::transport::Transport;

use inbound::Inbound;
use outbound::Outbound;

/// How long a close frame may remain unanswered, and a closed connection open. Long enough for a slow link, short
/// enough that a vanished client does not matter.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long the close frame may take to get to a client that has done nothing wrong: the system's queue before it may
/// hold megabytes that its peer has sent. Enough for 4 MiB at half a megabit in a second.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(70);

/// What a client is told that has not answered, should it still listen.
const PING_TIMEOUT: (u16, &str) = (1011, "ping timeout");

/// What all connections of a worker share.
#[derive(Debug)]
pub(crate) struct Surroundings {
    pub(crate) pool: Rc<Pool>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) stats: Arc<Stats>,
    /// Whether they are to close. They are woken when this changes.
    pub(crate) stopping: Cell<bool>,
    /// The executor's turn.
    pub(crate) turn: Rc<Cell<u32>>,
    /// Counts the beats, at which some of the connections are woken to look at their clients.
    pub(crate) beat: Cell<u32>,
    /// The last one that came too late: as when the process was stopped.
    pub(crate) late_beat: Cell<u32>,
    pub(crate) liveness: Rules,
}

/// A connection after its opening handshake.
pub(crate) struct Connection<T> {
    socket: T,
    inbound: Inbound,
    outbound: Outbound,
    closing: Closing,
    /// The end of its present step.
    timeout: Option<Sleep>,
    shut_down: bool,
    liveness: Liveness,
    /// What is told of it when it ends.
    visit: Visit,
    /// Why the client was given up, once it is.
    given_up: Option<Outcome>,
    /// Whether a step has begun and not ended: whoever drops it then does so because of a panic.
    is_in_step: bool,
    /// Whether its seat owes an answer.
    asked: bool,
    /// Whether its seat knows whom to wake.
    attends: bool,
    surroundings: Rc<Surroundings>,
    _ticket: Ticket,
    /// Counts it among its client's.
    _presence: Option<Box<Presence>>,
    /// Tells by its end that the connection has ended.
    _alive: StopOnDrop,
}

impl<T: Transport> Connection<T> {
    /// A connection on `socket` that has claimed its seat. `read_ahead` is what the client sent right behind its
    /// opening handshake.
    pub(crate) fn new(
        socket: T,
        read_ahead: &[u8],
        claim: Claim,
        reframer: Reframer,
        surroundings: Rc<Surroundings>,
        presence: Option<Box<Presence>>,
        alive: StopOnDrop,
    ) -> Self {
        let Claim { seat, end, visit, ticket, budgets, .. } = claim;
        surroundings.stats.opened();
        Self {
            socket,
            inbound: Inbound::new(read_ahead, seat, end.outgoing, reframer, budgets, Rc::clone(&surroundings)),
            outbound: Outbound::new(end.incoming, Rc::clone(&surroundings.pool)),
            closing: Closing::NotYet,
            timeout: None,
            shut_down: false,
            liveness: Liveness::new(surroundings.beat.get()),
            visit,
            given_up: None,
            is_in_step: false,
            asked: false,
            attends: false,
            surroundings,
            _ticket: ticket,
            _presence: presence,
            _alive: alive,
        }
    }
}

impl<T> Connection<T> {
    /// How it ended. What came first counts: after a farewell, the client's own end is only the answer to it.
    fn outcome(&self) -> Outcome {
        match (self.given_up, self.outbound.farewell()) {
            _ if self.is_in_step => Outcome::Panicked,
            (Some(outcome), _) => outcome,
            (None, Some(farewell)) => farewell.into(),
            (None, None) => match self.inbound.outcome() {
                Some(Outcome::Lost) if self.inbound.has_stalled() || self.outbound.has_stalled() => Outcome::Stalled,
                // If the client has not ended either, the relay waits for it no longer.
                outcome => outcome.unwrap_or(Outcome::Stopped),
            },
        }
    }
}

impl<T> Drop for Connection<T> {
    fn drop(&mut self) {
        let Surroundings { stats, clock, .. } = &*self.surroundings;
        let (status_code, bytes) = (self.outbound.status_code(), self.inbound.bytes_forwarded());
        self.visit.end(stats, self.outcome(), status_code, bytes, clock.now());
    }
}

/// How far the closing handshake has come.
#[derive(Clone, Copy, Debug)]
enum Closing {
    NotYet,
    /// The close frame is queued, but not yet sent.
    Delivering,
    /// It is in the socket, which was asked to tell when it is sent.
    Sending,
    /// The client's turn.
    Answering,
}

impl<T: Transport> Connection<T> {
    /// Asks the client whether it is there, if it is time to. If it is given up, says why.
    fn look_after_client(&mut self, cx: &mut Context<'_>) -> Option<Outcome> {
        if self.outbound.is_closing() {
            return None; // which has timeouts of its own
        }
        if self.liveness.is_due(self.surroundings.beat.get()) {
            let heard = self.inbound.forget_heard() || self.is_excused();
            match self.look(heard) {
                Verdict::Wait => {}
                Verdict::Ping => _ = self.ping(&[]), // any byte is an answer
                Verdict::Measure { ping } => {
                    if self.ping(&[ping]) {
                        self.liveness.pinged();
                    }
                }
                Verdict::Lost => return Some(Outcome::Timeout),
            }
        }
        let seat = self.inbound.seat()?;
        if !std::mem::replace(&mut self.attends, true) {
            seat.attend(cx.waker().clone());
        }
        match seat.question() {
            Some(Question::Lost) => return Some(Outcome::Replaced),
            Some(Question::IsThere) if !self.asked => {
                self.asked = true;
                let heard = self.inbound.forget_heard();
                let _ = self.look(heard);
                if self.liveness.is_near(&self.surroundings.liveness) && !self.is_excused() {
                    self.ping(&[]);
                } else {
                    // The answer would not come in time, and a client that lives never loses its seat.
                    self.answer();
                }
            }
            Some(Question::IsThere) | None => {}
        }
        None
    }

    fn look(&mut self, heard: bool) -> Verdict {
        let Surroundings { beat, late_beat, liveness: rules, .. } = &*self.surroundings;
        let seen = Seen { heard, echo: self.inbound.echo(), written: self.outbound.take_written() };
        self.liveness.look(beat.get(), late_beat.get(), seen, rules)
    }

    /// False if there is no room for a ping.
    fn ping(&mut self, data: &[u8]) -> bool {
        let is_queued = self.outbound.ping(data);
        if is_queued {
            self.surroundings.stats.pinged();
        }
        is_queued
    }

    /// Whether the client is not to blame for its silence: it is not read from, or what it was sent before is on its way
    /// (and if it takes nothing of that, the system gives it up).
    fn is_excused(&self) -> bool {
        self.inbound.is_held() || self.outbound.is_blocked()
    }

    /// Tells who asked that the client is there.
    fn answer(&mut self) {
        self.asked = false;
        if let Some(seat) = self.inbound.seat() {
            seat.answer();
        }
    }

    /// Ready when the closing handshake has taken too long.
    fn poll_timeout(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let clock = &self.surroundings.clock;
        let sleep = |duration| Some(clock.sleep_until(clock.now() + duration));
        loop {
            self.closing = match self.closing {
                // A client that has closed or violated the protocol wants nothing more.
                Closing::NotYet | Closing::Delivering | Closing::Sending if self.inbound.has_closed() => {
                    self.timeout = sleep(CLOSE_TIMEOUT);
                    Closing::Answering
                }
                Closing::NotYet => {
                    self.timeout = sleep(DELIVERY_TIMEOUT);
                    Closing::Delivering
                }
                Closing::Delivering if self.outbound.is_flushed() => {
                    // Not before: the room that the frame waits for would be told in the place of this.
                    self.socket.report_when_sent();
                    Closing::Sending
                }
                Closing::Sending if self.socket.poll_writable(cx).is_ready() => {
                    self.timeout = sleep(CLOSE_TIMEOUT);
                    Closing::Answering
                }
                Closing::Delivering | Closing::Sending | Closing::Answering => break,
            };
        }
        self.timeout.as_mut().map_or(Poll::Pending, |timeout| timeout.as_mut().poll(cx))
    }
}

/// Forwards until both the client and the link have ended. It is a future by itself, as an async function would take
/// up its size twice.
impl<T: Transport> Future for Connection<T> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.is_in_step = true;
        let polled = self.step(cx);
        self.is_in_step = false;
        polled
    }
}

impl<T: Transport> Connection<T> {
    fn step(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let this = self;
        if this.surroundings.stopping.get() {
            this.inbound.leave(Farewell::Stopping);
        }
        this.given_up = this.look_after_client(cx);
        if this.given_up.is_some() {
            let (code, reason) = PING_TIMEOUT;
            this.outbound.close(Some(code), reason);
            this.outbound.poll(cx, &this.socket);
            this.inbound.leave(Farewell::Lost);
            return Poll::Ready(());
        }
        let mut was_closing = this.outbound.is_closing();
        if this.inbound.streams() {
            // What the peer has just read is written before it is driven out of the cache.
            this.outbound.poll(cx, &this.socket);
        }
        loop {
            if this.inbound.poll(cx, &this.socket, &mut this.outbound).is_ready() {
                if this.outbound.is_closing() {
                    // Its stream ended right behind what is answered by this, but it may still listen.
                    this.outbound.poll(cx, &this.socket);
                }
                return Poll::Ready(()); // and there is nobody to wait for
            }
            this.outbound.poll(cx, &this.socket);
            if was_closing || !this.outbound.is_closing() || this.outbound.is_broken() {
                break;
            }
            was_closing = true;
            // The link has ended. What the client still sends has nowhere to go, but has to be read for its answer.
            this.inbound.leave(Farewell::Left);
        }
        if this.asked && (this.inbound.has_heard() || this.is_excused()) {
            this.answer();
        }
        if this.outbound.is_closing() && !this.outbound.is_broken() {
            if this.poll_timeout(cx).is_ready() {
                this.inbound.leave(Farewell::Lost);
                return Poll::Ready(());
            }
            if this.outbound.is_flushed() && this.inbound.has_closed() && !this.shut_down {
                // The server is to close first (RFC 6455, section 7.1.1). An error says that the client was faster.
                this.shut_down = true;
                let _ = this.socket.shut_down();
            }
        }
        Poll::Pending
    }
}
