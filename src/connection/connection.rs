//! One task for each connection: its socket on one side, its end of a link on the other.
//!
//! The two directions, [`Inbound`] and [`Outbound`], advance independently: a loop that alternates them would deadlock
//! when both clients stream. This file decides what they share: how a connection ends.
//!
//! | event                                 | to the peer, after all earlier messages | to this client            |
//! |---------------------------------------|-----------------------------------------|---------------------------|
//! | the client sends a close frame        | 1000 `peer disconnected`                | its code back             |
//! | its stream ends between two messages  | 1000 `peer disconnected`                |                           |
//! | ... within a message, or is reset     | 1011 `peer connection lost`             |                           |
//! | it cannot be written to any more      | 1011 `peer connection lost`             |                           |
//! | it violates the protocol              | 1011 `peer connection lost`             | the violation's code      |
//! | it does not answer in time            | 1011 `peer connection lost`             | 1011 `ping timeout`       |
//! | it comes again as the same side       | 1011 `peer connection lost`             | 4001 `replaced`           |
//! | the relay stops                       | 1001 `relay stopping`                   | (from its peer's end)     |
//! | the link ends with a [`CloseCause`]   |                                         | the cause's code          |
//!
//! After the relay has sent a close frame, the connection lasts until the client has closed too and its stream has
//! ended, or until a timeout of [`closing`](super::closing). The end of the stream is not waited for if the client has
//! answered the relay's close frame.
//!
//! A stream can end while the client is held (its peer is slow, or a rate limit is used up). Then the outbound
//! direction ends at once. If the kernel has ended the stream, the client's earlier bytes are still read, as fast as
//! its peer takes them, and the end of the stream says how the client departed.

#[cfg(test)]
#[path = "tests/mod.rs"]
mod tests;

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use crate::connection::keepalive::{Keepalive, Observation, Verdict};
use crate::limits::clients::ClientGuard;
use crate::limits::permits::Permit;
use crate::pairing::link::CloseCause;
use crate::pairing::seats::Claim;
use crate::runtime::stop::StopOnDrop;
use crate::runtime::transport::Transport;
use crate::telemetry::events::Outcome;
use crate::telemetry::records::ConnectionRecord;
use crate::websocket::reframer::Reframer;

use super::closing::Closing;
use super::context::WorkerContext;
use super::in_flight::Heard;
use super::inbound::{Ended, Inbound};
use super::notices::Notices;
use super::outbound::Outbound;
use super::takeover::Takeover;
use super::write_timeout::WriteTimeout;

/// The close frame for a client that has not answered. It may still listen.
const PING_TIMEOUT: (u16, &str) = (1011, "ping timeout");

/// The close frame for a client that has come again, on the connection before.
fn replaced() -> (u16, &'static str) {
    (CloseCause::Replaced.code(), CloseCause::Replaced.reason())
}

/// A connection after its opening handshake.
pub(crate) struct Connection<T> {
    socket: T,
    inbound: Inbound,
    outbound: Outbound,
    /// The closing handshake, once it has begun.
    closing: Option<Box<Closing>>,
    shut_down: bool,
    /// Whether the client's stream has ended in order. Then only the outbound direction is left.
    ended: bool,
    keepalive: Keepalive,
    /// The data of the event that tells of its end.
    record: ConnectionRecord,
    /// Why the relay has given the client up, once it has.
    given_up: Option<Outcome>,
    /// Whether a step has begun and not ended. A drop at that time is due to a panic.
    is_in_step: bool,
    /// The takeover probe of its seat.
    takeover: Takeover,
    /// Whether something was received since the last look at the client.
    received: bool,
    write_timeout: WriteTimeout,
    /// Whether its seat has this task's waker.
    attends: bool,
    context: Rc<WorkerContext>,
    _permit: Permit,
    /// Counts the connection for its client's address.
    _client_guard: Option<Box<ClientGuard>>,
    /// Its drop signals the end of the connection.
    _alive: StopOnDrop,
}

impl<T: Transport> Connection<T> {
    /// A connection on `socket` that has claimed its seat.
    ///
    /// `read_ahead` are bytes that the client sent right behind its opening handshake.
    pub(crate) fn new(
        socket: T,
        read_ahead: &[u8],
        claim: Claim,
        reframer: Reframer,
        context: Rc<WorkerContext>,
        client_guard: Option<Box<ClientGuard>>,
        alive: StopOnDrop,
    ) -> Self {
        let Claim { seat, end, record, permit, allowance, speaks_v1, first_speaks_v1, .. } = claim;
        let (reframer, notices) = match speaks_v1 {
            true => (reframer.reading_text(), Some(Notices::new(first_speaks_v1.is_none()))),
            false => (reframer, None),
        };
        if first_speaks_v1 == Some(true) {
            end.outgoing.meet();
        }
        record.begin(&context.telemetry);
        context.connections.set(context.connections.get() + 1);
        Self {
            socket,
            inbound: Inbound::new(read_ahead, seat, end.outgoing, reframer, allowance, Rc::clone(&context)),
            outbound: Outbound::new(end.incoming, notices, Rc::clone(&context)),
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
    /// How the connection ended.
    ///
    /// The first cause counts: after a link's end, the client's own end is only the answer to it.
    fn outcome(&self) -> Outcome {
        match (self.given_up, self.outbound.close_cause()) {
            _ if self.is_in_step => Outcome::Panicked,
            (Some(outcome), _) => outcome,
            (None, Some(close_cause)) => match close_cause {
                CloseCause::Left => Outcome::PeerLeft,
                CloseCause::Lost => Outcome::PeerLost,
                CloseCause::Expired => Outcome::Expired,
                CloseCause::Stopping => Outcome::Stopped,
                CloseCause::Recalled => Outcome::Recalled,
                CloseCause::Replaced => Outcome::Replaced,
            },
            (None, None) => match self.inbound.outcome() {
                Some(Outcome::Lost) if self.inbound.has_stalled() || self.outbound.has_stalled() => {
                    // In a takeover probe, the kernel has found that out for the third client.
                    if self.takeover.is_probed() { Outcome::Replaced } else { Outcome::Stalled }
                }
                // If the client has not departed either, the relay waits for it no longer.
                outcome => outcome.unwrap_or(Outcome::Stopped),
            },
        }
    }
}

impl<T> Drop for Connection<T> {
    fn drop(&mut self) {
        let WorkerContext { telemetry, clock, connections, .. } = &*self.context;
        connections.set(connections.get() - 1);
        let (status_code, messages) = (self.outbound.status_code(), self.inbound.tally());
        self.record.end(telemetry, self.outcome(), status_code, messages, clock.now());
    }
}

impl<T: Transport> Connection<T> {
    /// Checks whether the client is there: at each beat, and when a third client wants its seat.
    fn check_client(&mut self, cx: &mut Context<'_>) {
        if self.outbound.is_closing() {
            return; // the closing handshake has timeouts of its own
        }
        let received = self.inbound.take_received();
        self.received |= received;
        let beat = self.context.beat.get();
        let beats = self.keepalive.beats_since_look(beat);
        let mut may_write = false;
        if beats > 0 {
            may_write = self.outbound.mark(beats, self.heard());
            let has_answered = self.outbound.take_answered();
            if self.write_timeout.advance(&self.socket, &self.outbound, has_answered, &self.context) {
                self.given_up = Some(Outcome::Stalled);
                return;
            }
            let observation = self.observe();
            match self.keepalive.look(beat, observation, &self.context.keepalive) {
                Verdict::Wait => {}
                Verdict::Ping => self.ping(),
                Verdict::Lost => {
                    let outcome = if self.takeover.is_probed() { Outcome::Replaced } else { Outcome::Timeout };
                    return self.give_up(cx, outcome, PING_TIMEOUT);
                }
            }
        }
        self.take_over(cx, received);
        if may_write || self.outbound.has_control() {
            self.outbound.poll(cx, &self.socket);
        }
        if self.takeover.is_probed() {
            self.takeover.advance(cx, &self.socket, &self.outbound, &self.context);
        }
    }

    /// Begins or ends a takeover probe, or departs if a newcomer has the seat already.
    fn take_over(&mut self, cx: &mut Context<'_>, received: bool) {
        let Some(seat) = self.inbound.seat() else { return };
        if !std::mem::replace(&mut self.attends, true) {
            seat.attend(cx.waker().clone());
        }
        if !seat.is_called() && !self.takeover.is_probed() {
            return;
        }
        if seat.is_replaced() {
            self.takeover.end(&self.socket, &self.context);
            return self.give_up(cx, Outcome::Replaced, replaced());
        }
        // A live client that had no way to answer in time keeps its seat.
        if received || self.is_excused() {
            if let Some(seat) = self.inbound.seat() {
                seat.answer();
            }
            return self.takeover.end(&self.socket, &self.context);
        }
        if !self.takeover.is_probed() {
            self.takeover = Takeover::Pinged;
            let observation = self.observe();
            if self.keepalive.probe(self.context.beat.get(), observation, &self.context.keepalive) {
                self.ping();
            }
        }
    }

    /// What the client has done since the last observation.
    fn observe(&mut self) -> Observation {
        Observation {
            received: std::mem::take(&mut self.received) || self.is_excused(),
            messages: self.outbound.take_messages(),
            to_next_answer: self.outbound.in_flight().to_next_answer(),
        }
    }

    /// What came from the client since the last look.
    fn heard(&self) -> Heard {
        match self.received {
            false => Heard::Nothing,
            true if self.inbound.is_within_message() => Heard::Part,
            true => Heard::Frames,
        }
    }

    /// Pings the client. If there is no room for a ping, the frames before it ask for an answer already.
    fn ping(&mut self) {
        if self.outbound.ping(&[]) {
            self.context.telemetry.pinged(); // any byte is an answer
        }
    }

    /// Gives the client up. If it lives, it gets the batch that is being written, and then the reason.
    fn give_up(&mut self, cx: &mut Context<'_>, outcome: Outcome, (code, reason): (u16, &str)) {
        self.given_up = Some(outcome);
        self.outbound.close(Some(code), reason);
        self.outbound.poll(cx, &self.socket);
        self.inbound.close_link(CloseCause::Lost);
        // Its further bytes are read and discarded.
        cx.waker().wake_by_ref();
    }

    /// Whether the client's silence has an excuse.
    ///
    /// It has one if the client is held, or if it has to take bytes first and has never answered a mark. (If it takes
    /// nothing, the write timeout gives it up.)
    fn is_excused(&self) -> bool {
        let is_answering = self.outbound.in_flight().is_answering();
        self.inbound.is_held() || self.outbound.is_blocked() && !is_answering
    }

    /// Goes on with the closing handshake. Ready when it has taken too long.
    fn poll_closing(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.closing.is_none() {
            self.takeover.end(&self.socket, &self.context);
            let now = self.context.clock.now();
            let is_replaced = self.outbound.close_cause() == Some(CloseCause::Replaced);
            self.closing = Some(Box::new(Closing::new(now, is_replaced || self.given_up.is_some())));
        }
        let Some(closing) = &mut self.closing else { return Poll::Pending };
        let received = self.inbound.take_received();
        let has_answered = self.outbound.take_answered();
        let _ = self.write_timeout.advance(&self.socket, &self.outbound, has_answered, &self.context);
        closing.poll(cx, &self.socket, &self.outbound, received, &self.context)
    }
}

/// Forwards until both the client and the link have ended.
///
/// A future by hand: an async function would take up its size twice.
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
        // Bytes that were read are reframed first: they came before the stop.
        if self.context.ends(|| self.record.pair()) && !self.inbound.yields() {
            self.inbound.close_link(CloseCause::Stopping);
        }
        if self.inbound.streams() {
            // The bytes that the peer has just read are written before a read drives them out of the cache.
            self.outbound.poll(cx, &self.socket);
        }
        if !self.ended
            && let Poll::Ready(ended) = self.inbound.poll(cx, &self.socket, &mut self.outbound)
        {
            if ended == Ended::Broken {
                return Poll::Ready(());
            }
            // The client may still read: its answers go out, and the batch that is being written.
            self.ended = true;
            self.outbound.finish();
        }
        self.outbound.set_unheard(self.inbound.is_held());
        self.outbound.poll(cx, &self.socket);
        if self.outbound.is_closing() && !self.outbound.is_broken() && self.inbound.is_joined() {
            // The link has ended. The client's further bytes are discarded, but read for its answer. If it was not read
            // from, that is for other steps, as a busy task, because thousands of links may end at once.
            if self.inbound.is_held() {
                cx.waker().wake_by_ref();
            }
            self.inbound.close_link(CloseCause::Left);
            if self.outbound.close_cause() == Some(CloseCause::Expired) {
                self.record.expired(self.context.clock.now());
            }
        }
        // After reading: an answer that has arrived counts before its timeout.
        self.check_client(cx);
        self.poll_end(cx)
    }

    /// Whether the client has answered the relay's close frame, and nothing more can come from it.
    ///
    /// The drop of the socket then ends the stream. If the client sent any byte after that, the kernel would answer with a
    /// reset. So the client has sent nothing behind its close frame, and was sent nothing else that asks for an answer.
    ///
    /// A client that closes first is waited for. Some clients do send bytes behind their close frame, and the reset could
    /// overtake the relay's.
    fn is_over(&self) -> bool {
        let is_asked =
            self.keepalive.awaits_answer() || self.takeover.is_probed() || !self.outbound.in_flight().is_little();
        self.outbound.close_cause().is_some() && self.inbound.has_finished() && self.outbound.is_flushed() && !is_asked
    }

    /// Ready when the connection is over, or has to be given up.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let has_stalled = self.write_timeout.poll_retry(cx, &self.socket, &self.outbound, &self.context);
        if has_stalled && !self.outbound.is_closing() {
            self.given_up = Some(Outcome::Stalled);
        }
        // A client that has stalled cannot be sent a close frame either. After an unknown error nothing tells whether
        // it is there.
        if self.given_up == Some(Outcome::Stalled) || self.outbound.has_failed() {
            self.inbound.close_link(CloseCause::Lost);
            return Poll::Ready(());
        }
        let is_broken = self.outbound.is_broken();
        if self.ended && (is_broken || self.outbound.is_flushed()) {
            return Poll::Ready(());
        }
        if self.outbound.is_closing() && !is_broken {
            if self.is_over() {
                return Poll::Ready(());
            }
            if self.poll_closing(cx).is_ready() {
                self.inbound.close_link(CloseCause::Lost);
                return Poll::Ready(());
            }
            if self.outbound.is_flushed() && self.inbound.has_closed() && !self.shut_down {
                // The server closes first (RFC 6455, section 7.1.1). An error says that the client was faster.
                self.shut_down = true;
                let _ = self.socket.shut_down();
            }
        }
        Poll::Pending
    }
}
