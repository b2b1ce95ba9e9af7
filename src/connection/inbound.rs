//! From the client to its peer: wait until the socket is readable, read once, rewrite in place, hand over.
//!
//! There is at most one buffer. Without a credit to hand it over it goes on being filled, up to [`LARGEST`] bytes, so
//! that a client's pings and its departure are noticed while its peer is slow or not there yet. When it is full, or when
//! what is under way is [large](LARGE_BATCH) and more follows, or a rate is [used up](Throttle), the client is not read
//! from any more, and TCP slows it. When the memory of all buffers is used up, what there is of the smallest has to do.

use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use super::context::WorkerContext;
use super::outbound::Outbound;
use super::throttle::Throttle;
use crate::buffers::buffer::{Buffer, HEADROOM};
use crate::buffers::pool::{LARGEST, SIZES, SMALLEST, size_for};
use crate::limits::pair_rate::Allowance;
use crate::pairing::link::{CloseCause, Outgoing};
use crate::pairing::seats::Seat;
use crate::runtime::transport::Transport;
use crate::telemetry::events::Outcome;
use crate::websocket::reframer::{Event, Reframer};

/// A read for less room than this is not worth its system call.
pub(super) const LEAST_READ: usize = 2048;

/// The same when memory is short: what room there is has to do.
pub(super) const LEAST_SHORT_READ: usize = 256;

/// A read of what has nowhere to go takes no more than this: nothing is gained by doing it fast.
pub(super) const MOST_DISCARDED: usize = 64 << 10;

/// A read that fills less than this fraction of its buffer makes the next one smaller.
pub(super) const SPARSE: usize = 16;

/// A batch of more bytes than this is part of a stream that has filled the system's queue.
pub(super) const LARGE_BATCH: usize = LARGEST / 2;

/// How a client's stream has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// In order. The client may still read.
    InOrder,
    /// By a reset, or because its system was silent for too long.
    Broken,
}

pub(crate) struct Inbound {
    reframer: Reframer,
    /// What is read and not yet handed over; none while there is nothing.
    buffer: Option<Box<Buffer>>,
    /// The length of the incomplete frame at the front of the input that must go out whole, or 0. (Whatever goes out
    /// whole fits in a buffer.)
    frame: u32,
    /// The index in [`SIZES`] of the next read: it follows what the socket has to give.
    size: u8,
    /// Whether the last read took all there was. Then the next one waits until the socket is readable.
    drained: bool,
    /// Whether the last batch was a large one. Then what follows it is not read before it is written.
    streams: bool,
    /// Whether input is left to be judged because the reframer [yielded](Event::Yield): it is judged before anything else
    /// is read, in a later step.
    yields: bool,
    /// Whether what the client sends has nowhere to go, as its link has ended.
    discards: bool,
    /// The executor's turn at the last read.
    turn: u32,
    /// Messages that were handed over, for comparison only.
    handed_over: u32,
    /// Whether something was read since this was asked last.
    received: bool,
    /// Whether the client is not read from, for the sake of its peer or of a rate.
    held: bool,
    /// Whether the client's system has acknowledged or accepted nothing for too long.
    stalled: bool,
    /// Whether the client has closed or violated the protocol: whatever follows means nothing.
    closed: bool,
    /// How the client departed, once it has.
    close_cause: Option<CloseCause>,
    /// Where messages go, until either side departs.
    route: Option<Forwarding>,
    /// What it has to wait for before it reads, if rates are limited.
    throttle: Option<Box<Throttle>>,
    context: Rc<WorkerContext>,
}

#[derive(Debug)]
struct Forwarding {
    /// Declared first and so dropped first: the code is free before the peer hears of the departure. None if the client
    /// is known to have gone, while what it left behind is still to be read.
    seat: Option<Seat>,
    outgoing: Outgoing<Box<Buffer>>,
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
        let buffer = (!read_ahead.is_empty()).then(|| {
            let mut buffer = context.pool.take(HEADROOM + read_ahead.len());
            buffer.append_input(read_ahead);
            buffer
        });
        Self {
            reframer,
            // What was read ahead is judged before the first read.
            buffer,
            frame: 0,
            size: 0,
            drained: true,
            streams: false,
            yields: false,
            discards: false,
            turn: 0,
            handed_over: 0,
            received: false,
            held: false,
            stalled: false,
            closed: false,
            close_cause: None,
            route: Some(Forwarding { seat: Some(seat), outgoing }),
            throttle: Throttle::new(allowance, read_ahead.len()),
            context,
        }
    }

    /// Whether the client has nothing more to say: it closed, or broke the protocol.
    pub(crate) fn has_closed(&self) -> bool {
        self.closed
    }

    /// How the client departed, once it has.
    pub(crate) fn outcome(&self) -> Option<Outcome> {
        Some(match self.close_cause? {
            CloseCause::Lost if self.closed => Outcome::Violation,
            CloseCause::Lost => Outcome::Lost,
            CloseCause::Left => Outcome::Left,
            CloseCause::Expired | CloseCause::Stopping => Outcome::Stopped,
        })
    }

    /// How many bytes of the client were forwarded.
    pub(crate) fn bytes_forwarded(&self) -> u64 {
        self.reframer.tally().bytes
    }

    /// Whether what is under way is part of a stream.
    pub(crate) fn streams(&self) -> bool {
        self.streams
    }

    /// Whether what was read last is not all judged yet.
    pub(crate) fn yields(&self) -> bool {
        self.yields
    }

    /// Whether the client is not read from, whatever it sends: its silence means nothing.
    pub(crate) fn is_held(&self) -> bool {
        self.held
    }

    /// Whether something of the client was read since the last time.
    pub(crate) fn take_received(&mut self) -> bool {
        std::mem::take(&mut self.received)
    }

    /// The client's seat, unless it has left it.
    pub(crate) fn seat(&mut self) -> Option<&mut Seat> {
        self.route.as_mut()?.seat.as_mut()
    }

    /// Whether messages still go to the peer.
    pub(crate) fn is_joined(&self) -> bool {
        self.route.is_some()
    }

    /// Departs from the pair: frees the code, and lets the peer have what was read before `close_cause`. Idempotent.
    pub(crate) fn leave(&mut self, close_cause: CloseCause) {
        let Some(Forwarding { seat, outgoing }) = self.route.take() else { return };
        drop(seat);
        self.close_cause = Some(close_cause);
        self.discards = true;
        let last = self.split_output();
        outgoing.finish(last, close_cause);
    }

    /// Whether the client's system has acknowledged or accepted nothing for too long.
    pub(crate) fn has_stalled(&self) -> bool {
        self.stalled
    }

    /// Departs, as nothing can be read any more.
    fn break_off(&mut self, how: &io::Error) {
        self.stalled = how.kind() == io::ErrorKind::TimedOut;
        self.leave(CloseCause::Lost);
    }

    /// Reads and hands over what it can. Ready when the client's stream has ended.
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
            self.watch_for_departure(cx, socket, outbound);
            return Poll::Pending; // time will wake us
        }
        self.reframe(outbound);
        loop {
            if self.yields {
                // Handed over now, the output would leave the input behind, to be copied into a buffer of its own.
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            self.hand_over(cx);
            let Some(capacity) = self.next_capacity() else {
                self.watch_for_departure(cx, socket, outbound);
                return Poll::Pending; // a credit will wake us
            };
            if self.streams && !self.drained && !self.has_credit(cx) {
                // It would be read into another buffer, and be out of the cache again when it is written.
                self.watch_for_departure(cx, socket, outbound);
                return Poll::Pending; // as above
            }
            if !self.drained && self.turn == self.context.turn.get() {
                // There is more, but others have a turn first, above all the peer that writes what was read.
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            if self.drained {
                if let Err(gone) = ready!(self.poll_readable(cx, socket)) {
                    self.break_off(&gone);
                    return Poll::Ready(Ended::Broken);
                }
                self.drained = false;
            }
            if self.poll_throttle(cx).is_pending() {
                self.watch_for_departure(cx, socket, outbound);
                return Poll::Pending; // as above
            }
            if !self.discards && self.is_abandoned() {
                // The close frame is written first, and in the same step nothing is read.
                self.discards = true;
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            self.turn = self.context.turn.get();
            match self.read(capacity, socket) {
                Ok(0) => {
                    let lost = outbound.was_reset() || self.is_mid_message();
                    self.leave(if lost { CloseCause::Lost } else { CloseCause::Left });
                    return Poll::Ready(Ended::InOrder);
                }
                Ok(_) => self.reframe(outbound),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.drained = true,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(gone) => {
                    self.break_off(&gone);
                    return Poll::Ready(Ended::Broken);
                }
            }
        }
    }

    /// While the socket is not read from, what it left unread hides the end of its stream and a reset: watches for them.
    /// The code of a client that is gone is free at once; what it left behind still goes to its peer, if it has one.
    fn watch_for_departure(&mut self, cx: &mut Context<'_>, socket: &impl Transport, outbound: &mut Outbound) {
        self.held = true;
        let Some(Forwarding { seat: seat @ Some(_), .. }) = &mut self.route else { return };
        if socket.poll_ended(cx).is_ready() {
            *seat = None;
            outbound.break_off(io::ErrorKind::BrokenPipe);
            // If nobody has come for it, this was all that held the link: the rest can be read, and has nowhere to go.
            cx.waker().wake_by_ref();
        }
    }

    /// Waits until the client may send more.
    fn poll_throttle(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.throttle().is_none() {
            return Poll::Ready(());
        }
        let WorkerContext { clock, telemetry, .. } = &*self.context;
        self.throttle.as_mut().map_or(Poll::Ready(()), |throttle| throttle.poll_ready(cx, &**clock, telemetry))
    }

    /// What has to be waited for and paid for, unless nobody gets what is read any more: that costs nobody anything.
    fn throttle(&self) -> Option<&Throttle> {
        let throttle = self.throttle.as_deref()?;
        (!self.is_abandoned()).then_some(throttle)
    }

    /// Whether the link has ended, on either side.
    fn is_abandoned(&self) -> bool {
        self.route.as_ref().is_none_or(|route| route.outgoing.is_abandoned())
    }

    /// Waits for the socket, and does not keep an unnecessary byte meanwhile.
    fn poll_readable(&mut self, cx: &mut Context<'_>, socket: &impl Transport) -> Poll<io::Result<()>> {
        let readable = socket.poll_readable(cx);
        if readable.is_pending() {
            self.shrink();
        }
        readable
    }

    fn read(&mut self, capacity: usize, socket: &impl Transport) -> io::Result<usize> {
        let most = if self.discards { MOST_DISCARDED } else { usize::MAX };
        let portion = self.throttle().map_or(most, Throttle::portion);
        let (wanted, is_short) = (self.next_size(), self.context.pool.is_short());
        let buffer = self.buffer_of(capacity);
        let is_squeezed = is_short && buffer.capacity() < wanted;
        let spare = buffer.spare_mut();
        let room = spare.len().min(portion);
        debug_assert!(room > 0, "a read into nothing looks like the end of the stream");
        let received = socket.receive(&mut spare[..room]);
        let count = received.as_ref().copied().unwrap_or(0);
        buffer.fill(count);
        if let Some(throttle) = &mut self.throttle {
            throttle.spend(count, self.context.clock.now());
        }
        received?;
        if is_squeezed {
            self.context.telemetry.squeezed();
        }
        self.received = true;
        self.drained = count < room;
        if !self.drained && room < portion && self.next_size() < LARGEST {
            self.size += 1;
        } else if count < self.next_size() / SPARSE && self.size > 0 {
            self.size -= 1;
        }
        Ok(count)
    }

    fn reframe(&mut self, outbound: &mut Outbound) {
        let Some(mut buffer) = self.buffer.take() else { return };
        self.reframer.save_memory(self.context.pool.is_short());
        let (before, text_before) = (self.reframer.tally(), self.reframer.text_bytes());
        self.yields = false;
        let end = loop {
            match self.reframer.advance(&mut buffer) {
                Ok(Event::Starved { frame }) => {
                    self.frame = frame as u32;
                    break None;
                }
                Ok(Event::Yield) => {
                    self.yields = true;
                    break None;
                }
                Ok(Event::Ping(data)) => outbound.pong(data),
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
        if let Some(number) = self.reframer.take_echo() {
            outbound.answered(number);
        }
        self.context.telemetry.count(before, self.reframer.tally());
        let dropped = self.reframer.text_bytes() - text_before;
        if let (Some(throttle), 1..) = (&self.throttle, dropped) {
            throttle.weigh(dropped);
        }
        self.buffer = Some(buffer);
        if let Some(close_cause) = end {
            self.closed = true;
            self.frame = 0;
            self.leave(close_cause);
        }
        if let (None, Some(buffer)) = (&self.route, &mut self.buffer) {
            buffer.clear_output();
        }
    }

    /// Whether what is read next can be handed over. If not, a credit will wake the task.
    fn has_credit(&mut self, cx: &mut Context<'_>) -> bool {
        self.route.as_mut().is_none_or(|route| route.outgoing.poll_ready(cx).is_ready())
    }

    /// Sends the output to the peer if the link has a credit for it.
    fn hand_over(&mut self, cx: &mut Context<'_>) {
        if self.buffer.as_ref().is_none_or(|buffer| buffer.output().is_empty()) {
            return;
        }
        let Some(route) = &mut self.route else { return };
        if route.outgoing.poll_ready(cx).is_pending() {
            return;
        }
        let batch = self.split_output();
        if let (Some(route), Some(batch)) = (&mut self.route, batch) {
            self.streams = batch.output().len() > LARGE_BATCH;
            route.outgoing.send(batch);
        }
    }

    /// Takes the buffer with its output, and keeps what begins the next frame in another one.
    fn split_output(&mut self) -> Option<Box<Buffer>> {
        let mut buffer = self.buffer.take()?;
        if buffer.output().is_empty() {
            self.buffer = Some(buffer);
            return None;
        }
        if !buffer.input().is_empty() {
            // As small as can be: the next read takes a buffer that is still in the cache, and copies the rest to its front.
            let mut rest = self.context.pool.take(HEADROOM + buffer.input().len());
            buffer.move_input_into(&mut rest);
            self.buffer = Some(rest);
        }
        let forwarded = self.reframer.tally().forwarded as u32;
        buffer.messages = forwarded.wrapping_sub(std::mem::replace(&mut self.handed_over, forwarded));
        Some(buffer)
    }

    fn frame(&self) -> usize {
        self.frame as usize
    }

    /// What the socket is believed to give at once, in bytes.
    fn next_size(&self) -> usize {
        SIZES[usize::from(self.size)]
    }

    /// The capacity that the next read is to have, or `None` if everything is full until the link has a credit.
    fn next_capacity(&self) -> Option<usize> {
        // A larger buffer that is there may be filled all the same.
        let held = self.buffer.as_ref().map_or(0, |buffer| buffer.capacity());
        let most = if self.context.pool.is_short() { SMALLEST.max(held) } else { LARGEST };
        let alone = self.next_size().min(most).max(HEADROOM + self.frame());
        let Some(buffer) = &self.buffer else { return Some(alone) };
        let least = self.least_read();
        let output = match buffer.output().len() {
            0 => return Some(alone.max(HEADROOM + buffer.input().len() + least)),
            length => HEADROOM + length,
        };
        let needed = output + HEADROOM + self.frame().max(buffer.input().len() + least);
        (needed <= most).then_some(needed)
    }

    fn least_read(&self) -> usize {
        if self.context.pool.is_short() { LEAST_SHORT_READ } else { LEAST_READ }
    }

    /// The buffer, with room for the next read: a new one, a larger one or the one that there is.
    fn buffer_of(&mut self, capacity: usize) -> &mut Buffer {
        let capacity = capacity.min(LARGEST);
        let buffer = match self.buffer.take() {
            None => self.context.pool.take(capacity),
            Some(mut buffer) => {
                let more = self.frame().saturating_sub(buffer.input().len()).max(self.least_read());
                if buffer.capacity() < capacity || buffer.spare_mut().len() < more {
                    let mut large = self.context.pool.take(capacity);
                    buffer.move_into(&mut large);
                    self.context.pool.put(std::mem::replace(&mut buffer, large));
                }
                buffer
            }
        };
        self.buffer.insert(buffer)
    }

    /// Gives back the buffer if it is empty, and moves into a smaller one if it has become too large.
    fn shrink(&mut self) {
        let Some(mut large) = self.buffer.take() else { return };
        let held = large.output().len() + large.input().len();
        if held > 0 {
            let needed = 2 * HEADROOM + held;
            if size_for(needed) >= size_for(large.capacity()) {
                self.buffer = Some(large);
                return;
            }
            let mut small = self.context.pool.take(needed);
            large.move_into(&mut small);
            self.buffer = Some(small);
        }
        self.context.pool.put(large);
    }

    fn is_mid_message(&self) -> bool {
        self.reframer.is_mid_message() || self.buffer.as_ref().is_some_and(|buffer| !buffer.input().is_empty())
    }
}
