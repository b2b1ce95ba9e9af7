//! From the peer to the client: take a batch from the link, write it, give its credit back.
//!
//! While the client has to take bytes first, by its [window](super::window), the credit stays here. So everything that the
//! relay has read is written, and the peer's further bytes stay in its own system.
//!
//! The relay's own control frames go between batches. A batch consists of whole frames, so no control frame gets into
//! the middle of another frame. [Notices](super::notices) are text, and so they also wait for the end of a message.

use std::io;
use std::rc::Rc;
use std::task::{Context, Poll};

use super::context::WorkerContext;
use super::notices::{self, Notices};
use crate::buffers::buffer::{Buffer, HEADROOM};
use crate::buffers::pool::SIZES;
use crate::connection::in_flight::{Heard, InFlight};
use crate::pairing::link::{CloseCause, Incoming, Next, Pace};
use crate::runtime::io_error::is_out_of_memory;
use crate::runtime::transport::{Transport, ends_stream};
use crate::websocket::header::{CLOSE, CONTROL_PAYLOAD, FIN, PING, PONG};
use crate::websocket::subprotocol::TextPing;

/// The most bytes of pongs and pings that wait for a client that does not read.
///
/// They fit into the smallest buffer, with notices, a mark and a close frame behind them. Beyond that only the client's newest
/// ping is answered, as RFC 6455, section 5.5.3 allows: a flood of pings costs no memory.
pub(super) const CONTROL_BACKLOG: usize = SIZES[0] - HEADROOM - notices::MOST_BYTES - MARK - (2 + CONTROL_PAYLOAD);

/// The size of a mark: a ping with a number, in bytes.
const MARK: usize = 3;

/// The direction from the peer to a client.
pub(crate) struct Outbound {
    /// The link, until a close frame is queued.
    incoming: Option<Incoming<Box<Buffer>>>,
    writing: Writing,
    /// What the next write waits for.
    awaits: Awaits,
    /// Bytes that were written, modulo 2^32: for comparison only.
    written: u32,
    /// The peer's bytes that the client may not have taken.
    in_flight: InFlight,
    /// Messages that the client was sent since the last call of [`take_messages`](Self::take_messages).
    /// A hundred are the most that matter.
    messages: u16,
    /// Frames of the relay that are written next, if there are any.
    ///
    /// Pongs, pings, notices, and at last a close frame.
    control: Option<Box<Buffer>>,
    /// What the client is to be told, if it speaks `arc-relay.v1`.
    notices: Option<Box<Notices>>,
    /// Whether the stream ends with the close frame: the client has nothing more to say.
    ends: bool,
    /// Whether the client's answers wait unread.
    ///
    /// Then its window is no bound, or two clients that stream would wait for each other.
    is_unheard: bool,
    /// Why nothing can be written any more, once that is the case.
    broken: Option<io::ErrorKind>,
    /// How the link has ended, if nothing else ended this direction before.
    close_cause: Option<CloseCause>,
    /// The status code of the close frame.
    status_code: Option<u16>,
    /// Whether a batch is written and its credit not given back yet.
    owes_credit: bool,
    context: Rc<WorkerContext>,
}

/// What a write waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Awaits {
    Nothing,
    /// Room in the socket, as the last write was a short one. The reactor reports it.
    Room,
    /// Memory of the kernel, which reports nothing. Each step tries again.
    Memory,
}

/// The buffer that is being written. It is finished before another one is begun.
enum Writing {
    Nothing,
    Batch(Box<Buffer>),
    Control(Box<Buffer>),
}

impl Outbound {
    /// The direction to a client.
    pub(super) fn new(
        incoming: Incoming<Box<Buffer>>,
        notices: Option<Box<Notices>>,
        context: Rc<WorkerContext>,
    ) -> Self {
        Self {
            incoming: Some(incoming),
            writing: Writing::Nothing,
            awaits: Awaits::Nothing,
            written: 0,
            in_flight: InFlight::new(context.keepalive.has_pings()),
            messages: 0,
            control: None,
            notices,
            ends: false,
            is_unheard: false,
            broken: None,
            close_cause: None,
            status_code: None,
            owes_credit: false,
            context,
        }
    }

    /// Queues the answer to a ping.
    pub(crate) fn pong(&mut self, data: &[u8]) {
        if self.is_closing() {
            return; // nothing follows a close frame
        }
        if !self.has_room(data.len())
            && let Some(control) = &mut self.control
        {
            control.clear();
        }
        self.queue(PONG, &[data]);
    }

    /// Answers a ping of `arc-relay.v1` as soon as it may.
    pub(crate) fn answer(&mut self, ping: TextPing) {
        if let Some(notices) = &mut self.notices {
            notices.ping(ping);
        }
    }

    /// Queues a ping. False if there is no room for it.
    pub(crate) fn ping(&mut self, data: &[u8]) -> bool {
        let has_room = !self.is_closing() && self.has_room(data.len());
        if has_room {
            self.queue(PING, &[data]);
        }
        has_room
    }

    /// Whether a control frame waits to be written.
    pub(crate) fn has_control(&self) -> bool {
        self.control.is_some()
    }

    /// Whether there is room for a ping or pong with a payload of so many bytes.
    fn has_room(&self, length: usize) -> bool {
        self.control.as_ref().map_or(0, |control| control.output().len()) + 2 + length <= CONTROL_BACKLOG
    }

    /// Whether the client has to take bytes before it is sent more.
    pub(crate) fn is_blocked(&self) -> bool {
        self.awaits != Awaits::Nothing && !matches!(self.writing, Writing::Nothing)
    }

    /// Whether a write waits for memory of the kernel. No event tells when to go on.
    pub(crate) fn awaits_memory(&self) -> bool {
        self.awaits == Awaits::Memory && !matches!(self.writing, Writing::Nothing)
    }

    /// Bytes that were written, modulo 2^32: for comparison with a later value.
    pub(crate) fn written(&self) -> u32 {
        self.written
    }

    /// The peer's bytes that the client may not have taken.
    pub(crate) fn in_flight(&self) -> &InFlight {
        &self.in_flight
    }

    /// Whether the client has answered a mark since the last call.
    pub(crate) fn take_answered(&mut self) -> bool {
        self.in_flight.take_answered()
    }

    /// Notes that the client has answered the mark with this number.
    pub(crate) fn answered(&mut self, number: u8) {
        self.in_flight.answered(number, self.context.clock.now());
    }

    /// Notes whether the client is read from: if not, its answers wait unread.
    pub(crate) fn set_unheard(&mut self, is_unheard: bool) {
        self.is_unheard = is_unheard;
        if is_unheard {
            self.in_flight.excuse_answers();
        }
    }

    /// Marks the bytes behind the last mark, if they are worth a ping.
    ///
    /// `beats` have passed since the last call, and so much was `heard` from the client.
    ///
    /// True if the window was [lifted](InFlight::refill).
    pub(crate) fn mark(&mut self, beats: u32, heard: Heard) -> bool {
        let now = self.context.clock.now();
        let rules = &self.context.keepalive;
        let is_lifted = self.in_flight.refill(beats, rules.bytes_in(beats), heard, rules.patience(), now);
        if !self.is_closing()
            && self.has_room(1)
            && let Some(number) = self.in_flight.mark_at_rest(now)
        {
            self.queue(PING, &[&[number]]);
        }
        is_lifted
    }

    /// Messages that the client was sent since the last call.
    pub(crate) fn take_messages(&mut self) -> u32 {
        std::mem::take(&mut self.messages).into()
    }

    /// Queues a close frame, the last frame that this client gets. Idempotent: the first code stands.
    ///
    /// If much is in flight, a mark comes before it: the mark's pong says that the client has everything. Batches of
    /// the peer that are not being written yet are dropped.
    pub(crate) fn close(&mut self, code: Option<u16>, reason: &str) {
        if self.incoming.take().is_some() {
            self.queue_notices();
            if let Some(number) = self.in_flight.mark_at_rest(self.context.clock.now()) {
                self.queue(PING, &[&[number]]);
            }
            self.status_code = code;
            let code = code.map(u16::to_be_bytes);
            self.queue(CLOSE, &[code.as_ref().map_or(&[], |code| code), reason.as_bytes()]);
        }
    }

    /// Queues a close frame that ends the stream, as the client has nothing more to say.
    ///
    /// The stream has to be shut down as soon as everything is [flushed](Self::is_flushed).
    pub(crate) fn end(&mut self, code: Option<u16>, reason: &str) {
        self.close(code, reason);
        self.ends = true;
    }

    /// Whether a close frame is queued or sent, or nothing can be written any more.
    pub(crate) fn is_closing(&self) -> bool {
        self.incoming.is_none()
    }

    /// How the peer departed, if that has ended this direction.
    pub(crate) fn close_cause(&self) -> Option<CloseCause> {
        self.close_cause
    }

    /// The status code that the client was sent, if any.
    pub(crate) fn status_code(&self) -> Option<u16> {
        self.status_code.filter(|_| self.is_flushed())
    }

    /// Whether all queued bytes are in the socket.
    pub(crate) fn is_flushed(&self) -> bool {
        matches!(self.writing, Writing::Nothing) && self.control.is_none()
    }

    /// Whether nothing can be written any more. Earlier bytes from the client may still be in the socket.
    pub(crate) fn is_broken(&self) -> bool {
        self.broken.is_some()
    }

    /// Whether writing failed because the client reset the connection.
    ///
    /// The kernel reports a reset only once, and later reads see an ordinary end. (After the end of the client's stream
    /// it reports a broken pipe.)
    pub(crate) fn was_reset(&self) -> bool {
        self.broken.is_some_and(|kind| kind != io::ErrorKind::BrokenPipe)
    }

    /// Whether writing failed and the kernel has not ended the stream: reads may never end.
    pub(crate) fn has_failed(&self) -> bool {
        self.broken.is_some_and(|kind| !ends_stream(kind))
    }

    /// Whether the client's kernel has acknowledged or accepted nothing for too long.
    pub(crate) fn has_stalled(&self) -> bool {
        self.broken == Some(io::ErrorKind::TimedOut)
    }

    /// Writes as much as the socket takes. When the link ends, queues the close frame that gives the cause.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, socket: &impl Transport) {
        if let Err(error) = self.try_poll(cx, socket) {
            self.break_off(error.kind());
        }
    }

    /// Takes nothing more from the peer, as the client's stream has ended.
    ///
    /// The batch in hand is still written.
    pub(crate) fn finish(&mut self) {
        self.incoming = None;
    }

    /// Writes nothing any more, as the client is gone.
    ///
    /// The first error stands: a reset is reported only once.
    pub(crate) fn break_off(&mut self, error: io::ErrorKind) {
        self.broken.get_or_insert(error);
        self.status_code = self.status_code();
        self.incoming = None;
        self.writing = Writing::Nothing;
        self.control = None;
    }

    fn try_poll(&mut self, cx: &mut Context<'_>, socket: &impl Transport) -> io::Result<()> {
        loop {
            if self.poll_write(cx, socket)?.is_pending() {
                return Ok(());
            }
            if self.notices.is_some() && self.poll_notices(cx).is_pending() {
                return Ok(());
            }
            if let Some(control) = self.control.take() {
                self.give_credit(); // control frames may wait for room
                self.writing = Writing::Control(control);
                continue;
            }
            if !self.is_closing()
                && self.in_flight.is_mark_due()
                && let Some(number) = self.in_flight.mark_in_burst(self.context.clock.now())
            {
                self.queue(PING, &[&[number]]);
                continue;
            }
            let (gives_credit, pace) = (self.takes_credit(), self.pace());
            let Some(incoming) = &mut self.incoming else { return Ok(()) };
            let channels = &self.context.channels;
            let next = match gives_credit {
                true => incoming.give_credit_and_poll_next(pace, cx, channels),
                false => incoming.poll_next(cx, channels),
            };
            match next {
                Poll::Ready(Next::Batch(batch)) => {
                    self.in_flight.add(batch.output().len());
                    self.messages = self.messages.saturating_add(batch.messages.try_into().unwrap_or(u16::MAX));
                    if let Some(notices) = &mut self.notices {
                        notices.begin_batch(batch.ends_within_message);
                    }
                    self.writing = Writing::Batch(batch);
                }
                Poll::Ready(Next::End(close_cause)) => {
                    self.close_cause = Some(close_cause);
                    self.close(Some(close_cause.code()), close_cause.reason());
                }
                Poll::Pending => return Ok(()),
            }
        }
    }

    /// Takes the credit of a written batch, to give it back, if the client's window allows.
    ///
    /// If not, an answer of the client wakes the task.
    fn takes_credit(&mut self) -> bool {
        if !self.owes_credit {
            return false;
        }
        let has_window = self.is_unheard || self.in_flight.has_room();
        if has_window {
            self.owes_credit = false;
        } else {
            self.in_flight.shut();
        }
        has_window
    }

    /// The pace of the client, as far as its answers tell.
    fn pace(&self) -> Pace {
        match (self.in_flight.is_fast(), self.in_flight.is_answering()) {
            (true, _) => Pace::Fast,
            // Two clients that stream to each other: its answers wait behind its stream, which its peer does not take yet.
            (false, false) if self.is_unheard => Pace::Unknown,
            (false, _) => Pace::Slow,
        }
    }

    /// Gives the credit of a batch that is written back to the peer, if the client's window allows.
    fn give_credit(&mut self) {
        if self.takes_credit()
            && let Some(incoming) = &self.incoming
        {
            incoming.give_credit(self.pace());
        }
    }

    /// Ready when no buffer is left in hand.
    fn poll_write(&mut self, cx: &mut Context<'_>, socket: &impl Transport) -> io::Result<Poll<()>> {
        loop {
            let bytes = match &self.writing {
                Writing::Nothing => return Ok(Poll::Ready(())),
                Writing::Batch(buffer) | Writing::Control(buffer) => buffer.output(),
            };
            if self.awaits == Awaits::Room {
                match socket.poll_writable(cx)? {
                    Poll::Ready(()) => self.awaits = Awaits::Nothing,
                    Poll::Pending => return Ok(Poll::Pending),
                }
            }
            let is_last = matches!(self.writing, Writing::Control(_)) && self.control.is_none() && self.is_closing();
            match socket.send(bytes, is_last && self.ends) {
                Ok(count) => {
                    self.awaits = if count < bytes.len() { Awaits::Room } else { Awaits::Nothing };
                    self.written = self.written.wrapping_add(count as u32);
                    self.advance(count);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.awaits = Awaits::Room,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if is_out_of_memory(&error) => {
                    self.awaits = Awaits::Memory;
                    return Ok(Poll::Pending);
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Notes that `count` bytes of the buffer in hand are written.
    fn advance(&mut self, count: usize) {
        let (Writing::Batch(buffer) | Writing::Control(buffer)) = &mut self.writing else { return };
        buffer.consume_output(count);
        if !buffer.output().is_empty() {
            return;
        }
        match std::mem::replace(&mut self.writing, Writing::Nothing) {
            Writing::Nothing => {}
            Writing::Control(frames) => self.context.pool.put(frames),
            Writing::Batch(batch) => {
                self.context.pool.put(batch);
                self.owes_credit = true;
            }
        }
    }

    /// Queues the notices that may be written now.
    ///
    /// Pending while the client waits for its peer, and nothing is queued.
    #[inline(never)] // few clients have any, and the loop is to stay small
    fn poll_notices(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let (Some(notices), Some(incoming)) = (&mut self.notices, &mut self.incoming) else { return Poll::Ready(()) };
        let mut awaits_peer = notices.awaits_peer();
        if awaits_peer && let Poll::Ready(is_there) = incoming.poll_met(cx) {
            notices.end_wait(is_there);
            awaits_peer = false;
        }
        self.queue_notices();
        if awaits_peer && self.control.is_none() { Poll::Pending } else { Poll::Ready(()) }
    }

    /// Queues the notices that may be written behind the batch in hand, before any other batch.
    #[inline(never)]
    fn queue_notices(&mut self) {
        let Some(notices) = &mut self.notices else { return };
        for notice in notices.take(&self.context) {
            let control = self.control.get_or_insert_with(|| self.context.pool.take(0));
            control.append_output(&notice.frame());
        }
    }

    /// Queues a control frame with a payload of at most 125 bytes (the relay's own reasons are short).
    fn queue(&mut self, opcode: u8, payload: &[&[u8]]) {
        let length: usize = payload.iter().map(|part| part.len()).sum();
        debug_assert!(length <= CONTROL_PAYLOAD);
        let control = self.control.get_or_insert_with(|| self.context.pool.take(0));
        control.append_output(&[FIN | opcode, length as u8]);
        payload.iter().for_each(|part| control.append_output(part));
    }
}
