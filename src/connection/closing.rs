//! The closing handshake: from the queued close frame until the socket may be closed.
//!
//! Lingering close: a socket that is closed early loses the bytes in flight to its client. The kernel answers the
//! client's next byte, an acknowledgement or a pong, with a reset, and a proxy that sees a reset tears down both of its
//! connections with all bytes that it holds. So the relay keeps the socket, reads and discards, until the client's
//! stream has ended. The time limits:
//!
//! | step       | until                                    | at most                                                             |
//! |------------|------------------------------------------|---------------------------------------------------------------------|
//! | delivering | the close frame is in the socket         | [`LONGEST`]; the kernel ends a connection that takes nothing        |
//! | grace      | [`GRACE`] has passed                     | the same                                                            |
//! | sending    | the kernel has sent everything           | the same                                                            |
//! | answering  | the client's close frame, end of stream  | after each sign of life: [`CLOSE_TIMEOUT`] and the time that the bytes up to the client's next answer take at [`SLOWEST`]; in all: the same for all bytes in flight |
//!
//! Most clients answer within the grace, and so the socket is not asked at all whether everything was sent. If everything was
//! sent by then, the grace counts among the time for the answer.
//!
//! A [mark](crate::connection::in_flight) in front of the close frame tells when the client has everything: its pong
//! leaves nothing in flight. A client that takes longer than [`CLOSE_TIMEOUT`] in all *lingers*: it holds one of a
//! bounded number of slots, and the connection without a sign of life for longest makes room for others.

use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use super::context::WorkerContext;
use super::in_flight::InFlight;
use super::outbound::Outbound;
use crate::limits::slots::Slot;
use crate::runtime::clock::Sleep;
use crate::runtime::transport::Transport;

/// The time for an answer: long enough for a slow line, short for a vanished client.
pub(super) const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// The time in which most clients answer: more than a round trip of most lines.
const GRACE: Duration = Duration::from_millis(250);

/// The bytes that the slowest client takes in a second while it closes. That is slower than in
/// [`keepalive`](crate::connection::keepalive), as no peer waits for this client any more.
const SLOWEST: u32 = 4 * 1024;

/// The longest closing handshake: 14 MiB at [`SLOWEST`].
const LONGEST: Duration = Duration::from_secs(60 * 60);

/// The longest silence in a closing handshake.
const LONGEST_SILENCE: Duration = Duration::from_secs(10 * 60);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Delivering,
    Grace { until: Instant },
    Sending,
    Answering,
}

/// A closing handshake that has begun.
pub(super) struct Closing {
    step: Step,
    /// When it begins to linger.
    lingers_at: Instant,
    /// When it ends unless the client shows a sign of life.
    silent_until: Instant,
    /// When it ends in any case.
    until: Instant,
    slot: Option<Slot>,
    timer: Option<(Instant, Sleep)>,
}

impl Closing {
    /// A closing handshake that begins now.
    ///
    /// With a client that was given up or replaced it lingers at once: the client is most likely gone, and other connections
    /// may need a slot.
    pub(super) fn new(now: Instant, is_given_up: bool) -> Self {
        let lingers_at = if is_given_up { now } else { now + CLOSE_TIMEOUT };
        let until = now + LONGEST;
        Self { step: Step::Delivering, lingers_at, silent_until: until, until, slot: None, timer: None }
    }

    /// Goes on, and is ready when a time limit is over.
    ///
    /// `received` says whether the client has sent anything since the last call.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        socket: &impl Transport,
        outbound: &Outbound,
        received: bool,
        context: &WorkerContext,
    ) -> Poll<()> {
        let mut is_sign_of_life = received;
        loop {
            let now = context.clock.now();
            let begins_at = self.advance(now, cx, socket, outbound);
            if let Some(begins_at) = begins_at {
                self.until = self.until.min(begins_at + time_to_take(outbound.in_flight().bytes()));
            }
            if is_sign_of_life && self.step == Step::Answering {
                self.extend(now, outbound.in_flight());
                if let Some(slot) = &mut self.slot {
                    slot.renew(now);
                }
            } else if let Some(begins_at) = begins_at {
                self.extend(begins_at, outbound.in_flight());
            }
            is_sign_of_life = false;
            let end = self.silent_until.min(self.until);
            if now >= end {
                return Poll::Ready(()); // before it takes a slot, which might revoke another connection's
            }
            if now >= self.lingers_at && self.slot.is_none() {
                self.slot = Some(context.lingering.take(0, now));
            }
            if self.slot.as_ref().is_some_and(|slot| slot.poll_revoked(cx).is_ready()) {
                return Poll::Ready(());
            }
            let mut next = if self.slot.is_some() { end } else { end.min(self.lingers_at) };
            if let Step::Grace { until } = self.step {
                next = next.min(until);
            }
            if self.timer.as_ref().is_none_or(|(at, _)| *at != next) {
                self.timer = Some((next, context.clock.sleep_until(next)));
            }
            if self.timer.as_mut().is_some_and(|(_, timer)| timer.as_mut().poll(cx).is_pending()) {
                return Poll::Pending;
            }
            self.timer = None;
        }
    }

    /// Extends the time of a client that has shown a sign of life, or begins to answer, at this time.
    fn extend(&mut self, at: Instant, in_flight: &InFlight) {
        // A client that has answered no mark so far may never do so.
        let bytes = if in_flight.is_answering() { in_flight.to_next_answer() } else { in_flight.bytes() };
        self.silent_until = at + time_to_take(bytes).min(LONGEST_SILENCE);
    }

    /// Goes to the next step if the current one is done.
    ///
    /// If the client begins to answer, returns since when it could.
    fn advance(
        &mut self,
        now: Instant,
        cx: &mut Context<'_>,
        socket: &impl Transport,
        outbound: &Outbound,
    ) -> Option<Instant> {
        let mut begins_at = now;
        if self.step == Step::Delivering && outbound.is_flushed() {
            self.step = Step::Grace { until: now + GRACE };
        }
        if let Step::Grace { until } = self.step
            && now >= until
        {
            // Not before everything is in the socket: it would report the room that the frame waits for.
            socket.report_when_sent();
            self.step = Step::Sending;
            begins_at = until - GRACE;
        }
        if self.step == Step::Sending && socket.poll_writable(cx).is_ready() {
            self.step = Step::Answering;
            return Some(begins_at);
        }
        None
    }
}

/// The time in which a client takes these bytes and answers.
fn time_to_take(bytes: u32) -> Duration {
    CLOSE_TIMEOUT + Duration::from_secs((bytes / SLOWEST).into())
}
