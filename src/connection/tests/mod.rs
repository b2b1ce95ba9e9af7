//! Tests of properties that no client can see.
//!
//! These are the room of each read, the memory of a connection and its system calls. The simulation tests the forwarded
//! bytes.

mod inbound;
mod memory;
mod outbound;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use rustix::io::Errno;

use super::*;
use crate::buffers::buffer::{Buffer, HEADROOM, allocated};
use crate::buffers::memory::Memory;
use crate::buffers::pool::{LARGEST, Pool};
use crate::connection::keepalive::KeepaliveConfig;
use crate::limits::pair_rate::Allowance;
use crate::limits::permits::Permits;
use crate::limits::slots::Slots;
use crate::pairing::join::Join;
use crate::pairing::link::{End, Next, Pace, SpareChannels};
use crate::pairing::seats::Seats;
use crate::runtime::clock::SystemClock;
use crate::runtime::stop::stop;
use crate::telemetry::records::Meeting;

/// A socket under the test's control.
#[derive(Clone, Debug, Default)]
struct FakeSocket(Rc<RefCell<FakeState>>);

#[derive(Debug, Default)]
struct FakeState {
    /// Bytes that the client has sent.
    arrived: VecDeque<u8>,
    /// The errors of the next calls.
    failures: VecDeque<io::Error>,
    /// The error of all writes.
    write_error: Option<Errno>,
    /// Whether it never reports room to write.
    hides_room: bool,
    /// Whether it reports once that it is readable though it is not.
    lies: bool,
    /// The room of each read.
    reads: Vec<usize>,
    /// Bytes that the client takes.
    room: usize,
    /// Bytes that the client was sent, by write.
    writes: Vec<Vec<u8>>,
    /// Bytes that wait for the stream's end, or were sent with it.
    with_end: Vec<u8>,
    /// Whether the stream has ended.
    ended: bool,
    /// Whether its receive buffer is bounded.
    is_bounded: bool,
    /// The last system call.
    last: &'static str,
}

impl Transport for FakeSocket {
    fn poll_readable(&self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.0.borrow_mut();
        let lies = std::mem::take(&mut state.lies);
        if lies || !state.arrived.is_empty() { Poll::Ready(Ok(())) } else { Poll::Pending }
    }

    fn poll_writable(&self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let state = self.0.borrow();
        if state.room > 0 && !state.hides_room { Poll::Ready(Ok(())) } else { Poll::Pending }
    }

    fn mark_readable(&self) {}

    fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut state = self.0.borrow_mut();
        state.reads.push(buffer.len());
        state.last = "read";
        match state.failures.pop_front() {
            Some(error) => Err(error),
            None if state.arrived.is_empty() => Err(io::ErrorKind::WouldBlock.into()),
            None => {
                let count = buffer.len().min(state.arrived.len());
                buffer.iter_mut().zip(state.arrived.drain(..count)).for_each(|(to, from)| *to = from);
                Ok(count)
            }
        }
    }

    fn send(&self, bytes: &[u8], ends: bool) -> io::Result<usize> {
        let mut state = self.0.borrow_mut();
        state.last = "write";
        let error = state.write_error.map(io::Error::from);
        if let Some(error) = error.or_else(|| state.failures.pop_front()) {
            state.writes.push(Vec::new());
            return Err(error);
        }
        let count = bytes.len().min(state.room);
        state.room -= count;
        if ends && count == bytes.len() {
            state.with_end.extend(&bytes[..count]);
        } else {
            assert!(state.with_end.is_empty(), "the end of the stream has to follow");
        }
        state.writes.push(bytes[..count].to_vec());
        if count > 0 { Ok(count) } else { Err(io::ErrorKind::WouldBlock.into()) }
    }

    fn report_when_sent(&self) {}

    fn report_room(&self) {}

    fn set_ack_timeout(&self, _: Duration) {}

    fn bound_receive_buffer(&self, is_bounded: bool) {
        self.0.borrow_mut().is_bounded = is_bounded;
    }

    fn shut_down(&self) -> io::Result<()> {
        self.0.borrow_mut().ended = true;
        Ok(())
    }

    fn poll_ended(&self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Pending
    }

    fn deregister(self) -> Self {
        self
    }
}

/// One connection, and its peer's end of the link.
struct Side {
    inbound: Inbound,
    outbound: Outbound,
    socket: FakeSocket,
    peer: End<Box<Buffer>>,
    context: Rc<WorkerContext>,
    memory: Arc<Memory>,
}

impl Side {
    fn new() -> Self {
        Self::with_memory(usize::MAX)
    }

    /// With a memory budget for buffers.
    fn with_memory(bytes: usize) -> Self {
        Self::with_limits(bytes, Duration::MAX)
    }

    /// With pings, and so with marks and a window.
    fn with_pings() -> Self {
        Self::with(usize::MAX, Duration::MAX, Some(Duration::from_secs(20)), None)
    }

    /// With a memory budget for buffers and a write timeout.
    fn with_limits(bytes: usize, write_timeout: Duration) -> Self {
        Self::with(bytes, write_timeout, None, None)
    }

    /// With a first client that speaks `arc-relay.v1`, and was told nothing yet.
    fn first_speaking_v1() -> Self {
        Self::with(usize::MAX, Duration::MAX, None, Some(Notices::new(true)))
    }

    /// With a client that speaks `arc-relay.v1`, and was told of its peer.
    fn speaking_v1() -> Self {
        let mut side = Self::first_speaking_v1();
        side.let_write(usize::MAX);
        side.peer.outgoing.meet();
        let told = [&b"\x81\x23{\"type\":\"waiting\",\"expires_in\":300}"[..], b"\x81\x11{\"type\":\"paired\"}"];
        assert_eq!(side.write(), told);
        side.let_write(0);
        side
    }

    fn with(
        bytes: usize,
        write_timeout: Duration,
        ping_interval: Option<Duration>,
        notices: Option<Box<Notices>>,
    ) -> Self {
        let reframer = Reframer::new(None);
        let reframer = if notices.is_some() { reframer.reading_text() } else { reframer };
        let memory = Memory::new(bytes);
        let clock = Arc::new(SystemClock);
        let seats = Seats::roomy(clock.clone());
        let claim = || seats.claim(Join::from_target("/?pair=code").unwrap(), 0).unwrap();
        let (ours, theirs) = (claim(), claim());
        let context = Rc::new(WorkerContext {
            pool: Rc::new(Pool::new(Arc::clone(&memory))),
            channels: SpareChannels::default(),
            clock,
            telemetry: Rc::default(),
            stopping: Cell::default(),
            drain: Arc::default(),
            turn: Rc::default(),
            beat: Cell::default(),
            keepalive: KeepaliveConfig::new(ping_interval, Duration::from_secs(20)),
            pair_ttl: Duration::from_secs(300),
            write_timeout,
            probe_timeout: Duration::ZERO,
            connections: Cell::new(0),
            lingering: Arc::new(Slots::new(1)),
        });
        Self {
            inbound: Inbound::new(
                &[],
                ours.seat,
                ours.end.outgoing,
                reframer,
                Allowance::default(),
                Rc::clone(&context),
            ),
            outbound: Outbound::new(ours.end.incoming, notices, Rc::clone(&context)),
            socket: FakeSocket::default(),
            peer: theirs.end,
            context,
            memory,
        }
    }

    /// A connection of both directions, and the peer's end.
    fn connection(self) -> (Connection<FakeSocket>, End<Box<Buffer>>) {
        let Self { inbound, outbound, socket, peer, context, .. } = self;
        let ((alive, _), permits) = (stop(), Permits::new(1, 1));
        context.connections.set(context.connections.get() + 1);
        let connection = Connection {
            socket,
            inbound,
            outbound,
            closing: None,
            shut_down: false,
            ended: false,
            keepalive: Keepalive::new(0),
            record: ConnectionRecord::first(0, Meeting::new(Instant::now())),
            given_up: None,
            is_in_step: false,
            takeover: Takeover::None,
            received: false,
            write_timeout: WriteTimeout::default(),
            attends: false,
            context,
            _permit: permits.take(0).unwrap(),
            _client_guard: None,
            _alive: alive,
        };
        (connection, peer)
    }

    /// Has the peer send a batch of these frames.
    fn peer_sends(&mut self, frames: &[u8], ends_within_message: bool) {
        let mut batch = self.context.pool.take(HEADROOM + frames.len());
        batch.append_output(frames);
        batch.ends_within_message = ends_within_message;
        let ready = self.peer.outgoing.poll_ready(&mut Context::from_waker(Waker::noop()));
        assert!(ready.is_ready(), "the batch before is written");
        self.peer.outgoing.send(batch, &self.context.channels);
    }

    fn arrive(&self, bytes: &[u8]) {
        self.socket.0.borrow_mut().arrived.extend(bytes);
    }

    /// Has the next read or write fail.
    fn fail(&self, error: impl Into<io::Error>) {
        self.socket.0.borrow_mut().failures.push_back(error.into());
    }

    fn let_write(&self, room: usize) {
        self.socket.0.borrow_mut().room = room;
    }

    /// Polls the inbound direction in a turn of its own, and returns the room of each read.
    fn read(&mut self) -> Vec<usize> {
        self.context.turn.set(self.context.turn.get() + 1);
        self.read_again()
    }

    /// The same in the current turn, until all bytes are reframed.
    fn read_again(&mut self) -> Vec<usize> {
        self.step();
        while self.inbound.yields() {
            self.step();
        }
        std::mem::take(&mut self.socket.0.borrow_mut().reads)
    }

    /// Polls the inbound direction once.
    fn step(&mut self) {
        let poll = self.inbound.poll(&mut Context::from_waker(Waker::noop()), &self.socket, &mut self.outbound);
        assert!(poll.is_pending());
    }

    /// Polls the outbound direction, and returns the bytes of each write.
    fn write(&mut self) -> Vec<Vec<u8>> {
        self.outbound.poll(&mut Context::from_waker(Waker::noop()), &self.socket);
        std::mem::take(&mut self.socket.0.borrow_mut().writes)
    }

    /// Takes the batch in flight to the peer, and returns its length. Its credit is not given back.
    fn take(&mut self) -> Option<usize> {
        self.take_bytes().map(|bytes| bytes.len())
    }

    /// The same, and returns the batch itself.
    fn take_bytes(&mut self) -> Option<Vec<u8>> {
        match self.peer.incoming.poll_next(&mut Context::from_waker(Waker::noop()), &self.context.channels) {
            Poll::Ready(Next::Batch(batch)) => Some(batch.output().to_vec()),
            Poll::Ready(Next::End(close_cause)) => panic!("the pair has ended: {close_cause:?}"),
            Poll::Pending => None,
        }
    }

    /// The memory of all buffers in use, in bytes.
    fn in_use(&self) -> usize {
        allocated() - self.context.pool.held()
    }
}

/// Frames of two-byte messages, `bytes` long in all.
fn small_messages(bytes: usize) -> Vec<u8> {
    [0x82, 0x82, 1, 2, 3, 4, 5, 6].repeat(bytes / 8)
}

/// A stream of binary messages of given lengths.
struct Frames(Vec<usize>);

impl Frames {
    fn header(length: usize) -> usize {
        match length {
            0..=125 => 2,
            126..=0xFFFF => 4,
            _ => 10,
        }
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for &length in &self.0 {
            bytes.push(0x82);
            match Self::header(length) {
                2 => bytes.push(0x80 | length as u8),
                4 => bytes.extend([[0xFE].as_slice(), &(length as u16).to_be_bytes()].concat()),
                _ => bytes.extend([[0xFF].as_slice(), &(length as u64).to_be_bytes()].concat()),
            }
            bytes.resize(bytes.len() + 4 + length, 0);
        }
        bytes
    }

    /// The lengths of output, input and incomplete frame after the first `count` bytes.
    ///
    /// The last one is 0 if it is not known.
    fn after(&self, mut count: usize) -> (usize, usize, usize) {
        let mut output = 0;
        for &length in &self.0 {
            let header = Self::header(length);
            if count < header + 4 {
                break;
            }
            let whole = header + 4 + length;
            if count < whole {
                return (output, count, whole);
            }
            count -= whole;
            output += header + length;
        }
        (output, count, 0)
    }
}
