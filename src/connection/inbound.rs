//! The inbound direction: from the client to its peer.
//!
//! A step waits until the socket is readable, reads once, rewrites in place, and hands over.
//!
//! There is at most one buffer. Without a credit it goes on being filled, up to
//! [`LARGEST`](crate::buffers::pool::LARGEST) bytes, so that the relay notices a client's pings and its departure while
//! the peer is slow or not there yet.
//!
//! Backpressure: the client is not read from, and TCP slows it, while one of these holds. The client is then *held*.
//!
//! - The buffer is full.
//! - The batch in flight is [large](LARGE_BATCH) and more bytes have arrived.
//! - The peer is [slow](PeerLink::is_slow), and [some bytes](MOST_FOR_A_SLOW_PEER) wait for it.
//! - A rate limit is [used up](Throttle).
//!
//! When the memory for buffers is used up, an existing buffer or one of the smallest size has to do.

use std::io;
use std::rc::Rc;
use std::task::{Context, Poll};

use super::context::WorkerContext;
use super::outbound::Outbound;
use super::peer_link::PeerLink;
use super::reader::{LARGE_BATCH, Reader};
use super::throttle::Throttle;
use crate::buffers::buffer::Buffer;
use crate::limits::pair_rate::Allowance;
use crate::pairing::link::{CloseCause, Outgoing};
use crate::pairing::seats::Seat;
use crate::runtime::transport::Transport;
use crate::telemetry::events::{self, Outcome};
use crate::websocket::reframer::{Event, Reframer, Tally};

/// The most bytes of a read while bytes are discarded: there is no gain in a fast one.
pub(super) const MOST_DISCARDED: usize = 64 << 10;

/// The most bytes that are read ahead for a [slow](PeerLink::is_slow) peer: a second at 32 KiB/s.
pub(super) const MOST_FOR_A_SLOW_PEER: usize = 32 << 10;

/// The bytes of a read that may be a part of a stream: less than a segment.
const STREAM: usize = 1 << 10;

/// How a client's stream has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// In order. The client may still read.
    InOrder,
    /// By a reset, or because its kernel was silent for too long.
    Broken,
}

/// The direction from a client to its peer.
pub(crate) struct Inbound {
    reframer: Reframer,
    reader: Reader,
    /// Whether the reframer has [yielded](Event::Yield) and left input.
    /// A later step reframes it before anything else is read.
    yields: bool,
    /// Whether the client's bytes are discarded, because its link has ended.
    discards: bool,
    /// Whether the client is not read from, because of its peer or of a rate limit.
    held: bool,
    /// Whether the client's kernel has acknowledged or accepted nothing for too long.
    stalled: bool,
    /// Whether the system receives only little ahead, as the peer is not known to be fast.
    is_bounded: bool,
    /// Whether the client has closed or violated the protocol. Bytes that follow mean nothing.
    closed: bool,
    /// Whether its close frame was the last that was read.
    has_finished: bool,
    /// How the client departed, once it has.
    close_cause: Option<CloseCause>,
    /// The link to the peer, until the client departs.
    link: PeerLink,
    /// The limits on the client's rate, if there are any.
    throttle: Option<Box<Throttle>>,
    context: Rc<WorkerContext>,
}

/// What a step does next.
enum Plan {
    /// Read into a buffer of this capacity.
    Read(usize),
    /// Leave the client's bytes in the socket, until a credit or the time wakes the task.
    Hold,
    /// Go on in a later step, as a busy task.
    Yield,
    /// Wait until the socket is readable.
    Wait,
    /// End the connection, as the socket is broken.
    BreakOff(io::Error),
}

impl Drop for Inbound {
    fn drop(&mut self) {
        if let Some(buffer) = self.reader.buffer.take() {
            self.context.pool.put(buffer);
        }
    }
}

impl Inbound {
    pub(crate) fn new(
        read_ahead: &[u8],
        seat: Seat,
        outgoing: Outgoing<Box<Buffer>>,
        reframer: Reframer,
        allowance: Allowance,
        context: Rc<WorkerContext>,
    ) -> Self {
        Self {
            reframer,
            reader: Reader::new(read_ahead, &context.pool),
            yields: false,
            discards: false,
            held: false,
            stalled: false,
            is_bounded: false,
            closed: false,
            has_finished: false,
            close_cause: None,
            link: PeerLink::new(seat, outgoing),
            throttle: Throttle::new(allowance, read_ahead.len()),
            context,
        }
    }

    /// Whether the client has closed or violated the protocol, and so has nothing more to say.
    pub(crate) fn has_closed(&self) -> bool {
        self.closed
    }

    /// Whether the client has closed, and nothing behind its close frame has arrived.
    pub(crate) fn has_finished(&self) -> bool {
        self.has_finished && self.reader.is_drained
    }

    /// How the client departed, once it has.
    pub(crate) fn outcome(&self) -> Option<Outcome> {
        Some(match self.close_cause? {
            CloseCause::Lost if self.closed => Outcome::Violation,
            CloseCause::Lost => Outcome::Lost,
            CloseCause::Left => Outcome::Left,
            CloseCause::Expired | CloseCause::Stopping | CloseCause::Recalled | CloseCause::Replaced => {
                Outcome::Stopped
            }
        })
    }

    /// The client's messages so far.
    pub(crate) fn tally(&self) -> Tally {
        self.reframer.tally()
    }

    /// Whether the batch in flight is part of a stream.
    pub(crate) fn streams(&self) -> bool {
        self.reader.streams
    }

    /// Whether some bytes of the last read are not reframed yet.
    pub(crate) fn yields(&self) -> bool {
        self.yields
    }

    /// Whether the client is not read from, whatever it sends: its silence means nothing.
    pub(crate) fn is_held(&self) -> bool {
        self.held
    }

    /// Whether the last bytes that were read end within a message.
    pub(crate) fn is_within_message(&self) -> bool {
        self.reframer.is_mid_message() || self.reader.has_input()
    }

    /// Whether anything of the client was read since the last call.
    pub(crate) fn take_received(&mut self) -> bool {
        self.reader.take_received()
    }

    /// The client's seat, unless it has left it.
    pub(crate) fn seat(&mut self) -> Option<&mut Seat> {
        self.link.seat()
    }

    /// Whether the client's messages still go to the peer.
    pub(crate) fn is_joined(&self) -> bool {
        self.link.is_open()
    }

    /// Whether the client's kernel has acknowledged or accepted nothing for too long.
    pub(crate) fn has_stalled(&self) -> bool {
        self.stalled
    }

    /// Departs from the pair: frees the code, hands the last batch to the peer, then `close_cause`.
    ///
    /// Idempotent.
    pub(crate) fn close_link(&mut self, close_cause: CloseCause) {
        let Some(outgoing) = self.link.leave() else { return };
        self.close_cause = Some(close_cause);
        self.discards = true;
        let last = self.reader.split_output(&self.reframer, &self.context.pool);
        outgoing.finish(last, close_cause);
    }

    /// Departs, as nothing can be read any more.
    fn break_off(&mut self, error: &io::Error) {
        self.stalled = error.kind() == io::ErrorKind::TimedOut;
        self.close_link(CloseCause::Lost);
    }

    /// Reads and hands over as much as it may in one step. Ready when the client's stream has ended.
    pub(crate) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        socket: &impl Transport,
        outbound: &mut Outbound,
    ) -> Poll<Ended> {
        let polled = self.step(cx, socket, outbound);
        if let Some(throttle) = &mut self.throttle {
            throttle.end_step();
        }
        polled
    }

    fn step(&mut self, cx: &mut Context<'_>, socket: &impl Transport, outbound: &mut Outbound) -> Poll<Ended> {
        self.held = false;
        let must_wait = self.throttle.as_ref().is_some_and(|throttle| throttle.has_unpaid());
        if must_wait && self.poll_throttle(cx).is_pending() {
            return self.hold(cx, socket, outbound);
        }
        self.reframe(outbound);
        loop {
            let capacity = match self.plan(cx, socket) {
                Plan::Read(capacity) => capacity,
                Plan::Hold => return self.hold(cx, socket, outbound),
                Plan::Yield => {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Plan::Wait => return Poll::Pending,
                Plan::BreakOff(error) => {
                    self.break_off(&error);
                    return Poll::Ready(Ended::Broken);
                }
            };
            match self.read(capacity, socket) {
                None => return self.hold(cx, socket, outbound),
                Some(Ok(0)) => {
                    let is_lost = outbound.was_reset() || self.is_within_message();
                    self.close_link(if is_lost { CloseCause::Lost } else { CloseCause::Left });
                    return Poll::Ready(Ended::InOrder);
                }
                Some(Ok(bytes)) => {
                    self.adapt_receive_buffer(bytes, socket);
                    self.reframe(outbound);
                }
                Some(Err(error)) if error.kind() == io::ErrorKind::WouldBlock => self.reader.is_drained = true,
                Some(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Some(Err(error)) => {
                    self.break_off(&error);
                    return Poll::Ready(Ended::Broken);
                }
            }
        }
    }

    /// Hands over the batch if it may, and decides whether to read now.
    fn plan(&mut self, cx: &mut Context<'_>, socket: &impl Transport) -> Plan {
        if self.yields {
            // Handed over now, the output would leave the input behind, to be copied into a buffer of its own.
            return Plan::Yield;
        }
        self.hand_over(cx);
        let Some(capacity) = self.reader.capacity(&self.context.pool) else { return Plan::Hold };
        if self.is_bounded && self.reader.output_length() >= self.most_ahead() && !self.link.has_credit(cx) {
            return Plan::Hold;
        }
        let turn = self.context.turn.get();
        if !self.reader.is_drained {
            if self.reader.streams && !self.link.has_credit(cx) {
                // The bytes would go into another buffer, and be out of the cache again when they are written.
                return Plan::Hold;
            }
            if self.reader.turn == turn {
                // Other tasks have a turn first, above all the peer's, which writes the bytes just read.
                return Plan::Yield;
            }
        } else {
            match socket.poll_readable(cx) {
                Poll::Ready(Ok(())) => self.reader.is_drained = false,
                Poll::Ready(Err(error)) => return Plan::BreakOff(error),
                Poll::Pending => {
                    self.reader.shrink(&self.context.pool);
                    return Plan::Wait;
                }
            }
        }
        if self.poll_throttle(cx).is_pending() {
            return Plan::Hold;
        }
        if !self.discards && self.link.is_abandoned() {
            // The close frame is written first, and the same step reads nothing.
            self.discards = true;
            return Plan::Yield;
        }
        self.reader.turn = turn;
        Plan::Read(capacity)
    }

    /// Lets the system receive ahead from a client that streams, if its peer is known to be fast.
    ///
    /// So many `bytes` were read at once.
    ///
    /// Linux sizes a receive buffer, and a sender's queue, by the first bytes, which a peer's library takes at once. Later the
    /// sender's pings wait behind all of that.
    fn adapt_receive_buffer(&mut self, bytes: usize, socket: &impl Transport) {
        if bytes < STREAM && !self.is_bounded {
            return;
        }
        let is_bounded = self.context.keepalive.has_pings() && !self.discards && !self.link.is_fast();
        if is_bounded != self.is_bounded {
            self.is_bounded = is_bounded;
            socket.bound_receive_buffer(is_bounded);
        }
    }

    /// The most bytes of a read, and of what waits for the peer.
    fn most_ahead(&self) -> usize {
        if self.is_bounded && self.link.is_slow() { MOST_FOR_A_SLOW_PEER } else { usize::MAX }
    }

    /// Leaves the client's bytes in the socket, and watches for the end of its stream.
    ///
    /// The unread bytes hide the end and a reset.
    ///
    /// The code of a client that is gone is free at once. The bytes that it left behind still go to its peer, if it has
    /// one.
    fn hold(&mut self, cx: &mut Context<'_>, socket: &impl Transport, outbound: &mut Outbound) -> Poll<Ended> {
        self.held = true;
        if self.link.free_if_ended(cx, socket) {
            outbound.break_off(io::ErrorKind::BrokenPipe);
            // Without a peer, the seat was all that held the link: the rest can be read now, and is discarded.
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }

    /// Waits until the rate limits allow a read.
    fn poll_throttle(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.throttle().is_none() {
            return Poll::Ready(());
        }
        let WorkerContext { clock, telemetry, .. } = &*self.context;
        self.throttle.as_mut().map_or(Poll::Ready(()), |throttle| throttle.poll_ready(cx, &**clock, telemetry))
    }

    /// The rate limits. Bytes that no peer gets are free of them: discarding costs nothing.
    fn throttle(&self) -> Option<&Throttle> {
        let throttle = self.throttle.as_deref()?;
        (!self.link.is_abandoned()).then_some(throttle)
    }

    /// Reads once, and pays for it.
    fn read(&mut self, capacity: usize, socket: &impl Transport) -> Option<io::Result<usize>> {
        let most = if self.discards { MOST_DISCARDED } else { self.most_ahead() };
        let most = self.throttle().map_or(most, Throttle::portion);
        let result = self.reader.read(capacity, most, socket, &self.context)?;
        if let Some(throttle) = &mut self.throttle {
            throttle.spend(result.as_ref().copied().unwrap_or(0), self.context.clock.now());
        }
        Some(result)
    }

    /// Rewrites the bytes that were read, and acts on their events.
    fn reframe(&mut self, outbound: &mut Outbound) {
        let Some(mut buffer) = self.reader.buffer.take() else { return };
        self.reframer.save_memory(self.context.pool.is_short());
        let (before, text_before) = (self.reframer.tally(), self.reframer.text_bytes());
        (self.yields, self.has_finished) = (false, false);
        let end = loop {
            match self.reframer.advance(&mut buffer) {
                Ok(Event::Starved { frame }) => {
                    self.reader.frame = frame as u32;
                    break None;
                }
                Ok(Event::Yield) => {
                    self.yields = true;
                    break None;
                }
                Ok(Event::Ping(data)) => outbound.pong(data),
                Ok(Event::TextPing) => {
                    if let Some(ping) = self.reframer.take_text_ping() {
                        outbound.answer(ping);
                    }
                }
                Ok(Event::Close { code, .. }) => {
                    outbound.end(code, "");
                    break Some(CloseCause::Left);
                }
                Err(violation) => {
                    outbound.end(Some(violation.code()), violation.reason());
                    break Some(CloseCause::Lost);
                }
            }
        };
        self.reader.buffer = Some(buffer);
        if let Some(number) = self.reframer.take_echo() {
            outbound.answered(number);
        }
        if self.context.telemetry.count(before, self.reframer.tally()) && before.dropped == 0 {
            self.report_dropped_text();
        }
        let text = self.reframer.text_bytes() - text_before;
        if let (Some(throttle), 1..) = (&self.throttle, text) {
            throttle.weigh(text);
        }
        if let Some(close_cause) = end {
            self.closed = true;
            self.has_finished = close_cause == CloseCause::Left && !self.reader.has_input();
            self.reader.frame = 0;
            self.close_link(close_cause);
        }
        if !self.link.is_open() {
            self.reader.clear_output();
        }
    }

    #[cold]
    fn report_dropped_text(&mut self) {
        if let Some(seat) = self.seat() {
            events::text_dropped(seat.number());
        }
    }

    /// Sends the output to the peer if the link has a credit for it.
    fn hand_over(&mut self, cx: &mut Context<'_>) {
        if !self.reader.has_output() || !self.link.is_open() || !self.link.has_credit(cx) {
            return;
        }
        if let Some(batch) = self.reader.split_output(&self.reframer, &self.context.pool) {
            self.reader.streams = batch.output().len() > LARGE_BATCH;
            self.link.send(batch, &self.context.channels);
        }
    }
}
