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
//! | the link ends with a close_cause         |                                         | the close_cause's code       |
//!
//! After a close frame is sent to the client, the connection lasts until the client has closed too and its stream has
//! ended, or until [`closing`] waits no longer. A stream that ends while it is not read from, because the peer is slow or a
//! rate is used up, ends the way to that client at once, whatever it said before. If nothing can be written to it any more,
//! what it sent before is still read, as fast as its peer takes it, and the end of its stream says how it departed.

#[cfg(test)]
#[path = "tests/mod.rs"]
mod tests;

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use crate::connection::keepalive::{Keepalive, Seen, Verdict};
use crate::limits::client_limits::ClientGuard;
use crate::limits::permits::ConnectionPermit;
use crate::pairing::link::CloseCause;
use crate::pairing::seats::Claim;
use crate::runtime::stop::StopOnDrop;
use crate::runtime::transport::Transport;
use crate::telemetry::events::Outcome;
use crate::telemetry::records::ConnectionRecord;
use crate::websocket::reframer::Reframer;

use super::closing::Closing;
use super::context::WorkerContext;
use super::inbound::{Ended, Inbound};
use super::outbound::Outbound;
use super::takeover::Takeover;
use super::write_timeout::WriteTimeout;

/// What a client is told that has not answered, should it still listen.
const PING_TIMEOUT: (u16, &str) = (1011, "ping timeout");

/// A connection after its opening handshake.
pub(crate) struct Connection<T> {
    socket: T,
    inbound: Inbound,
    outbound: Outbound,
    /// The closing handshake, once it has begun.
    closing: Option<Box<Closing>>,
    shut_down: bool,
    /// Whether the client's stream has ended in order, so that only the way to it is left.
    ended: bool,
    keepalive: Keepalive,
    /// What is told of it when it ends.
    record: ConnectionRecord,
    /// Why the client was given up, once it is.
    given_up: Option<Outcome>,
    /// Whether a step has begun and not ended: whoever drops it then does so because of a panic.
    is_in_step: bool,
    /// The takeover probe that its seat owes an answer to, if any.
    takeover: Takeover,
    /// Whether something was received since the last look at the client.
    received: bool,
    write_timeout: WriteTimeout,
    /// Whether its seat has the waker of this task.
    attends: bool,
    context: Rc<WorkerContext>,
    _permit: ConnectionPermit,
    /// Counts it among its client's.
    _client_guard: Option<Box<ClientGuard>>,
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
        context: Rc<WorkerContext>,
        client_guard: Option<Box<ClientGuard>>,
        alive: StopOnDrop,
    ) -> Self {
        let Claim { seat, end, record, permit, allowance, .. } = claim;
        context.telemetry.opened();
        Self {
            socket,
            inbound: Inbound::new(read_ahead, seat, end.outgoing, reframer, allowance, Rc::clone(&context)),
            outbound: Outbound::new(end.incoming, Rc::clone(&context.pool), context.keepalive.has_pings()),
            closing: None,
            shut_down: false,
            ended: false,
            keepalive: Keepalive::new(context.beat.get()),
            record,
            given_up: None,
            is_in_step: false,
            takeover: Takeover::None,
            received: false,
            write_timeout: WriteTimeout::default(),
            attends: false,
            context,
            _permit: permit,
            _client_guard: client_guard,
            _alive: alive,
        }
    }
}

impl<T> Connection<T> {
    /// How it ended. What came first counts: after a close_cause, the client's own end is only the answer to it.
    fn outcome(&self) -> Outcome {
        match (self.given_up, self.outbound.close_cause()) {
            _ if self.is_in_step => Outcome::Panicked,
            (Some(outcome), _) => outcome,
            (None, Some(close_cause)) => match close_cause {
                CloseCause::Left => Outcome::PeerLeft,
                CloseCause::Lost => Outcome::PeerLost,
                CloseCause::Expired => Outcome::Expired,
                CloseCause::Stopping => Outcome::Stopped,
            },
            (None, None) => match self.inbound.outcome() {
                Some(Outcome::Lost) if self.inbound.has_stalled() || self.outbound.has_stalled() => {
                    // In a takeover probe, the system has found that out for the third client.
                    if self.takeover.is_probed() { Outcome::Replaced } else { Outcome::Stalled }
                }
                // If the client has not ended either, the relay waits for it no longer.
                outcome => outcome.unwrap_or(Outcome::Stopped),
            },
        }
    }
}

impl<T> Drop for Connection<T> {
    fn drop(&mut self) {
        let WorkerContext { telemetry, clock, .. } = &*self.context;
        let (status_code, bytes) = (self.outbound.status_code(), self.inbound.bytes_forwarded());
        self.record.end(telemetry, self.outcome(), status_code, bytes, clock.now());
    }
}

impl<T: Transport> Connection<T> {
    /// Looks whether the client is there: at each beat, and when a third client wants its seat.
    fn look_after_client(&mut self, cx: &mut Context<'_>) {
        if self.outbound.is_closing() {
            return; // which has timeouts of its own
        }
        let received = self.inbound.take_received();
        self.received |= received;
        let beat = self.context.beat.get();
        let beats = self.keepalive.beats_since_look(beat);
        if beats > 0 {
            self.outbound.mark(beats, &self.context.keepalive);
            let takes = self.outbound.take_taken();
            if self.write_timeout.advance(&self.socket, &self.outbound, takes, &self.context) {
                self.given_up = Some(Outcome::Stalled);
                return;
            }
            let seen = self.seen();
            match self.keepalive.look(beat, seen, &self.context.keepalive) {
                Verdict::Wait => {}
                Verdict::Ping => self.ping(),
                Verdict::Lost => return self.give_up(cx),
            }
        }
        self.take_over(cx, received);
        if self.outbound.has_control() {
            self.outbound.poll(cx, &self.socket);
        }
        if self.takeover.is_probed() {
            self.takeover.advance(cx, &self.socket, &self.outbound, &self.context);
        }
    }

    /// Begins or ends a takeover probe.
    fn take_over(&mut self, cx: &Context<'_>, received: bool) {
        let Some(seat) = self.inbound.seat() else { return };
        if !std::mem::replace(&mut self.attends, true) {
            seat.attend(cx.waker().clone());
        }
        let is_asked = seat.is_asked();
        if !is_asked && !self.takeover.is_probed() {
            return;
        }
        // A client that could not answer in time, though it lives, keeps its seat.
        if received || self.is_excused() {
            if let Some(seat) = self.inbound.seat() {
                seat.answer();
            }
            return self.takeover.end(&self.socket, &self.context);
        }
        if !self.takeover.is_probed() {
            self.takeover = Takeover::Pinged;
            let seen = self.seen();
            if self.keepalive.probe(self.context.beat.get(), seen, &self.context.keepalive) {
                self.ping();
            }
        }
    }

    /// What has happened since this was asked last.
    fn seen(&mut self) -> Seen {
        Seen {
            received: std::mem::take(&mut self.received) || self.is_excused(),
            messages: self.outbound.take_messages(),
            to_next_answer: self.outbound.in_flight().to_next_answer(),
        }
    }

    /// Pings the client, unless there is no room for a ping: then there is enough before it to be taken.
    fn ping(&mut self) {
        if self.outbound.ping(&[]) {
            self.context.telemetry.pinged(); // any byte is an answer
        }
    }

    /// Gives the client up. Should it live, it gets everything that is being written to it, and then learns why.
    fn give_up(&mut self, cx: &mut Context<'_>) {
        self.given_up = Some(if self.takeover.is_probed() { Outcome::Replaced } else { Outcome::Timeout });
        let (code, reason) = PING_TIMEOUT;
        self.outbound.close(Some(code), reason);
        self.outbound.poll(cx, &self.socket);
        self.inbound.leave(CloseCause::Lost);
        // What it still sends is read and discarded.
        cx.waker().wake_by_ref();
    }

    /// Whether the client is not to blame for its silence: it is not read from, or it has to take something first and has never
    /// answered a mark. (If it takes nothing, the system gives it up.)
    fn is_excused(&self) -> bool {
        let is_answering = self.outbound.in_flight().is_answering();
        self.inbound.is_held() || self.outbound.is_blocked() && !is_answering
    }

    /// Ready when the closing handshake has taken too long.
    fn poll_closing(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.closing.is_none() {
            self.takeover.end(&self.socket, &self.context);
            let now = self.context.clock.now();
            self.closing = Some(Box::new(Closing::new(now, self.given_up.is_some())));
        }
        let Some(closing) = &mut self.closing else { return Poll::Pending };
        let received = self.inbound.take_received();
        let takes = self.outbound.take_taken();
        let _ = self.write_timeout.advance(&self.socket, &self.outbound, takes, &self.context);
        closing.poll(cx, &self.socket, &self.outbound, received, &self.context)
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
        // What was read is judged first: it was received before the stop.
        if self.context.stopping.get() && !self.inbound.yields() {
            self.inbound.leave(CloseCause::Stopping);
        }
        if self.inbound.streams() {
            // What the peer has just read is written before it is driven out of the cache.
            self.outbound.poll(cx, &self.socket);
        }
        if !self.ended
            && let Poll::Ready(ended) = self.inbound.poll(cx, &self.socket, &mut self.outbound)
        {
            if ended == Ended::Broken {
                return Poll::Ready(());
            }
            // It may still read: answers that it is owed go out, and what is being written.
            self.ended = true;
            self.outbound.finish();
        }
        self.outbound.poll(cx, &self.socket);
        if self.outbound.is_closing() && !self.outbound.is_broken() && self.inbound.is_joined() {
            // The link has ended. What the client still sends has nowhere to go, but has to be read for its answer: in other
            // steps, as a busy task, because thousands of links may end at once.
            self.inbound.leave(CloseCause::Left);
            cx.waker().wake_by_ref();
        }
        // After reading: an answer that has arrived counts before the time that it had.
        self.look_after_client(cx);
        let has_stalled = self.write_timeout.poll_retry(cx, &self.socket, &self.outbound, &self.context);
        if has_stalled && !self.outbound.is_closing() {
            self.given_up = Some(Outcome::Stalled);
        }
        if self.given_up == Some(Outcome::Stalled) {
            self.inbound.leave(CloseCause::Lost);
            return Poll::Ready(()); // a close frame would not get into the socket either
        }
        if self.outbound.has_failed() {
            // Nothing more is written to the client, and so nothing tells whether it is there.
            self.inbound.leave(CloseCause::Lost);
            return Poll::Ready(());
        }
        let is_broken = self.outbound.is_broken();
        if self.ended && (is_broken || self.outbound.is_flushed()) {
            return Poll::Ready(()); // nothing is left to wait for
        }
        if self.outbound.is_closing() && !is_broken {
            if self.poll_closing(cx).is_ready() {
                self.inbound.leave(CloseCause::Lost);
                return Poll::Ready(());
            }
            if self.outbound.is_flushed() && self.inbound.has_closed() && !self.shut_down {
                // The server is to close first (RFC 6455, section 7.1.1). An error says that the client was faster.
                self.shut_down = true;
                let _ = self.socket.shut_down();
            }
        }
        Poll::Pending
    }
}
