//! The closing handshake: from the queued close frame until the socket may be closed.
//!
//! Closing a socket early loses what is in flight to its client. The client's next byte, an acknowledgement or a pong, is
//! answered with a reset, and a proxy that sees a reset tears down both of its connections with all that it holds. So the relay
//! keeps the socket, reads and discards, until the client's stream has ended. How long it waits follows from what it
//! knows:
//!
//! | step       | until                                    | at most                                                             |
//! |------------|------------------------------------------|---------------------------------------------------------------------|
//! | delivering | the close frame is in the socket         | [`LONGEST`]; the kernel ends a connection that takes nothing        |
//! | sending    | the kernel has sent everything           | the same                                                            |
//! | answering  | the client's close frame, end of stream  | [`CLOSE_TIMEOUT`] after the last sign of life, and the time that the bytes up to the client's next answer take at [`SLOWEST`]; in all, what the bytes in flight take |
//!
//! A [mark](crate::connection::in_flight) in front of the close frame tells when the client has everything: its pong leaves
//! nothing in flight. A client that takes longer than [`CLOSE_TIMEOUT`] in all *lingers*: it holds one of a bounded
//! number of slots, and the connection that has shown no sign of life for longest makes room for others.

use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use super::context::WorkerContext;
use super::outbound::Outbound;
use crate::limits::slots::Slot;
use crate::runtime::clock::Sleep;
use crate::runtime::transport::Transport;

/// The time that a client which has everything may take to answer a close frame. Long enough for a slow line, short enough
/// that a vanished client does not matter.
pub(super) const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// The least number of bytes that a client takes in a second while it closes. It is slower than what a live client is
/// believed to take, as no peer waits for this one any more.
const SLOWEST: u32 = 4 * 1024;

/// The longest closing handshake: 14 MiB at [`SLOWEST`].
const LONGEST: Duration = Duration::from_secs(60 * 60);

/// The longest silence in it.
const LONGEST_SILENCE: Duration = Duration::from_secs(10 * 60);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Delivering,
    Sending,
    Answering,
}

/// A closing handshake that has begun.
pub(super) struct Closing {
    step: Step,
    /// When it lingers.
    lingers_at: Instant,
    /// When it ends if the client shows no sign of life.
    silent_until: Instant,
    /// When it ends.
    until: Instant,
    slot: Option<Slot>,
    timer: Option<(Instant, Sleep)>,
}

impl Closing {
    /// A closing handshake that begins now. One with a client that was given up lingers at once: the client is most likely
    /// gone, and another connection may want its place.
    pub(super) fn new(now: Instant, is_given_up: bool) -> Self {
        let lingers_at = if is_given_up { now } else { now + CLOSE_TIMEOUT };
        let until = now + LONGEST;
        Self { step: Step::Delivering, lingers_at, silent_until: until, until, slot: None, timer: None }
    }

    /// Ready when its time is over. `received` says whether the client has sent something since the last time.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        socket: &impl Transport,
        outbound: &Outbound,
        received: bool,
        context: &WorkerContext,
    ) -> Poll<()> {
        let mut now = context.clock.now();
        let begins_to_answer = self.advance(cx, socket, outbound);
        if begins_to_answer {
            self.until = self.until.min(now + time_to_take(outbound.in_flight().bytes()));
        }
        if self.step == Step::Answering && (begins_to_answer || received) {
            let in_flight = outbound.in_flight();
            // A client that has answered no mark so far may never do so.
            let bytes = if in_flight.is_answering() { in_flight.to_next_answer() } else { in_flight.bytes() };
            let time = time_to_take(bytes).min(LONGEST_SILENCE);
            self.silent_until = now + time;
            if let (true, Some(slot)) = (received, &mut self.slot) {
                slot.renew();
            }
        }
        loop {
            let end = self.silent_until.min(self.until);
            if now >= end {
                return Poll::Ready(()); // before it takes a slot from another one
            }
            if now >= self.lingers_at && self.slot.is_none() {
                self.slot = Some(context.lingering.take());
            }
            if self.slot.as_ref().is_some_and(|slot| slot.poll_revoked(cx).is_ready()) {
                return Poll::Ready(());
            }
            let next = if self.slot.is_some() { end } else { end.min(self.lingers_at) };
            if self.timer.as_ref().is_none_or(|(at, _)| *at != next) {
                self.timer = Some((next, context.clock.sleep_until(next)));
            }
            if self.timer.as_mut().is_some_and(|(_, timer)| timer.as_mut().poll(cx).is_pending()) {
                return Poll::Pending;
            }
            self.timer = None;
            now = context.clock.now();
        }
    }

    /// Goes to the next step, if it is time to. Whether that is the client's answer.
    fn advance(&mut self, cx: &mut Context<'_>, socket: &impl Transport, outbound: &Outbound) -> bool {
        if self.step == Step::Delivering && outbound.is_flushed() {
            // Not before: the room that the frame waits for would be reported in the place of this.
            socket.report_when_sent();
            self.step = Step::Sending;
        }
        if self.step == Step::Sending && socket.poll_writable(cx).is_ready() {
            self.step = Step::Answering;
            return true;
        }
        false
    }
}

/// The time in which a client takes so many bytes and answers.
fn time_to_take(bytes: u32) -> Duration {
    CLOSE_TIMEOUT + Duration::from_secs((bytes / SLOWEST).into())
}
