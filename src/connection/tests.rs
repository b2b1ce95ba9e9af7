//! What no client can see: how much a read has room for, what memory is held meanwhile, which system calls are made.
//! That what is forwarded is right is the simulation's to show.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use futures_lite::{AsyncRead, AsyncWrite};
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;

use super::inbound::{Inbound, LARGE_BATCH, LEAST_READ, SPARSE};
use super::outbound::{CONTROL_BACKLOG, Outbound};
use super::*;
use crate::buffer::{Buffer, HEADROOM, Memory, allocated};
use crate::clock::SystemClock;
use crate::link::{End, Next};
use crate::pair_code::PairCode;
use crate::pool::{LARGEST, SIZES, SMALLEST, size_for};
use crate::reactor::Reactor;
use crate::reframe::SMALL_FRAME;
use crate::seats::Seats;
use crate::stop::stop;
use crate::tickets::Tickets;

/// A socket that is in the test's hand.
#[derive(Clone, Debug, Default)]
struct Tap(Rc<RefCell<State>>);

#[derive(Debug, Default)]
struct State {
    /// What the client has sent.
    arrived: VecDeque<u8>,
    /// How the next calls fail.
    failures: VecDeque<io::ErrorKind>,
    /// Whether it says that it is readable though it is not.
    lies: bool,
    /// The room of each read that was made.
    reads: Vec<usize>,
    /// How much the client takes.
    room: usize,
    /// What the client was sent, each write apart.
    writes: Vec<Vec<u8>>,
    /// What waits for the stream's end, or was sent with it.
    with_end: Vec<u8>,
    /// Whether the stream has ended.
    ended: bool,
    /// What was done last.
    last: &'static str,
}

impl Transport for Tap {
    fn poll_readable(&self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.0.borrow_mut();
        let lies = std::mem::take(&mut state.lies);
        if lies || !state.arrived.is_empty() { Poll::Ready(Ok(())) } else { Poll::Pending }
    }

    fn poll_writable(&self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.0.borrow().room > 0 { Poll::Ready(Ok(())) } else { Poll::Pending }
    }

    fn leave_unread(&self) {}

    fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut state = self.0.borrow_mut();
        state.reads.push(buffer.len());
        state.last = "read";
        match state.failures.pop_front() {
            Some(kind) => Err(kind.into()),
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
        let count = bytes.len().min(state.room);
        state.room -= count;
        state.last = "write";
        if ends && count == bytes.len() {
            state.with_end.extend(&bytes[..count]);
        } else {
            assert!(state.with_end.is_empty(), "the end does not follow");
        }
        state.writes.push(bytes[..count].to_vec());
        match state.failures.pop_front() {
            Some(kind) => Err(kind.into()),
            None if count == 0 => Err(io::ErrorKind::WouldBlock.into()),
            None => Ok(count),
        }
    }

    fn report_when_sent(&self) {}

    fn shut_down(&self) -> io::Result<()> {
        self.0.borrow_mut().ended = true;
        Ok(())
    }

    fn poll_ended(&self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Pending
    }

    fn leave_thread(self) -> Self {
        self
    }
}

impl AsyncRead for Tap {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(self.receive(buffer))
    }
}

impl AsyncWrite for Tap {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(self.send(bytes, false))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.shut_down())
    }
}

/// One connection, and its peer's end of the link.
struct Side {
    inbound: Inbound,
    outbound: Outbound,
    socket: Tap,
    peer: End<Box<Buffer>>,
    surroundings: Rc<Surroundings>,
    memory: Arc<Memory>,
}

impl Side {
    fn new() -> Self {
        Self::with_memory(usize::MAX)
    }

    /// With so much memory for buffers, beyond the smallest.
    fn with_memory(bytes: usize) -> Self {
        let memory = Memory::new(bytes);
        let clock = Arc::new(SystemClock);
        let seats = Seats::roomy(clock.clone());
        let claim = || seats.claim(PairCode::from_target("/?pair=code").unwrap(), 0).unwrap();
        let (ours, theirs) = (claim(), claim());
        let surroundings = Rc::new(Surroundings {
            pool: Rc::new(Pool::new(Arc::clone(&memory))),
            clock,
            stats: Arc::default(),
            stopping: Cell::default(),
            turn: Rc::default(),
            beat: Cell::default(),
            late_beat: Cell::default(),
            liveness: Rules::new(None, Duration::MAX),
        });
        Self {
            inbound: Inbound::new(
                &[],
                ours.seat,
                ours.end.outgoing,
                Reframer::new(None),
                vec![],
                Rc::clone(&surroundings),
            ),
            outbound: Outbound::new(ours.end.incoming, Rc::clone(&surroundings.pool)),
            socket: Tap::default(),
            peer: theirs.end,
            surroundings,
            memory,
        }
    }

    /// The two ways together, and the peer's end.
    fn connection(self) -> (Connection<Tap>, End<Box<Buffer>>) {
        let Self { inbound, outbound, socket, peer, surroundings, .. } = self;
        let ((alive, _), tickets) = (stop(), Tickets::new(1));
        let connection = Connection {
            socket,
            inbound,
            outbound,
            closing: Closing::NotYet,
            timeout: None,
            shut_down: false,
            liveness: Liveness::new(0),
            visit: Visit::first(0, Instant::now(), Arc::default()),
            given_up: None,
            is_in_step: false,
            asked: false,
            attends: false,
            surroundings,
            _ticket: tickets.take().unwrap(),
            _presence: None,
            _alive: alive,
        };
        (connection, peer)
    }

    fn arrive(&self, bytes: &[u8]) {
        self.socket.0.borrow_mut().arrived.extend(bytes);
    }

    fn fail(&self, kind: io::ErrorKind) {
        self.socket.0.borrow_mut().failures.push_back(kind);
    }

    fn let_write(&self, room: usize) {
        self.socket.0.borrow_mut().room = room;
    }

    /// Polls the way in, in a turn of its own, and returns the room of each read that it made.
    fn read(&mut self) -> Vec<usize> {
        self.surroundings.turn.set(self.surroundings.turn.get() + 1);
        self.read_again()
    }

    /// The same in the turn that there is.
    fn read_again(&mut self) -> Vec<usize> {
        let poll = self.inbound.poll(&mut Context::from_waker(Waker::noop()), &self.socket, &mut self.outbound);
        assert!(poll.is_pending());
        std::mem::take(&mut self.socket.0.borrow_mut().reads)
    }

    /// Polls the way out, and returns what each write sent.
    fn write(&mut self) -> Vec<Vec<u8>> {
        self.outbound.poll(&mut Context::from_waker(Waker::noop()), &self.socket);
        std::mem::take(&mut self.socket.0.borrow_mut().writes)
    }

    /// Takes the batch that is under way to the peer, and returns its length. Its credit is not given back.
    fn take(&mut self) -> Option<usize> {
        self.take_bytes().map(|bytes| bytes.len())
    }

    /// The same, and returns the batch itself.
    fn take_bytes(&mut self) -> Option<Vec<u8>> {
        match self.peer.incoming.poll_next(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Next::Batch(batch)) => Some(batch.output().to_vec()),
            Poll::Ready(Next::End(farewell)) => panic!("the pair has ended: {farewell:?}"),
            Poll::Pending => None,
        }
    }

    /// The memory of all buffers in use, in bytes.
    fn in_use(&self) -> usize {
        allocated() - self.surroundings.pool.held()
    }
}

/// Messages of two bytes each: as many as fill a whole number of buffers.
fn small_messages(bytes: usize) -> Vec<u8> {
    [0x82, 0x82, 1, 2, 3, 4, 5, 6].repeat(bytes / 8)
}

#[test]
fn reads_grow_with_a_stream_and_shrink_behind_it() {
    let mut side = Side::new();
    side.arrive(&small_messages(1 << 20));
    for size in [0, 1, 2, 3, 3, 3] {
        assert_eq!(side.read(), [SIZES[size] - HEADROOM]);
        assert!(side.take().is_some());
        side.peer.incoming.give_credit();
    }
    side.socket.0.borrow_mut().arrived.clear();
    let sparse = |size: usize| SIZES[size] / SPARSE;
    assert_eq!(side.read().len(), 1, "the last one was full, so there may be more");
    for (bytes, size) in [(sparse(3), 3), (8, 3), (sparse(2), 2), (8, 2), (8, 1), (8, 0), (8, 0)] {
        side.arrive(&small_messages(bytes));
        assert_eq!(side.read(), [SIZES[size] - HEADROOM]);
        assert!(side.take().is_some());
        side.peer.incoming.give_credit();
        assert_eq!(side.in_use(), 0, "there is nothing to keep");
    }
}

/// A side in the middle of a stream, the rest of which has arrived.
fn streaming() -> Side {
    let mut side = Side::new();
    let mut message = vec![0; 1 << 10];
    message[..8].copy_from_slice(&[0x82, 0xFE, 0x03, 0xF8, 1, 2, 3, 4]);
    side.arrive(&message.repeat(1 << 10));
    for _ in SIZES {
        assert_eq!(side.read().len(), 1);
        assert!(side.take().is_some());
        side.peer.incoming.give_credit();
    }
    assert!(side.inbound.streams());
    side
}

#[test]
fn a_stream_is_read_once_in_a_turn() {
    let mut side = streaming();
    assert!(side.read_again().is_empty(), "there was a read in this turn");
    assert_eq!(side.read().len(), 1);
    assert!(side.take().is_some());
    side.peer.incoming.give_credit();
    assert!(side.read_again().is_empty());
    assert_eq!(side.read().len(), 1);
}

#[test]
fn a_client_is_held_only_for_as_long_as_its_peer_takes_nothing() {
    let mut side = streaming();
    side.read(); // the batch is under way, and more has arrived
    assert!(side.inbound.is_held());
    side.socket.0.borrow_mut().arrived.clear();
    assert!(side.take().is_some());
    side.peer.incoming.give_credit();
    side.read(); // there is nothing, and nothing may ever come
    assert!(!side.inbound.is_held(), "its silence would never count again");
}

#[test]
fn in_a_stream_both_ways_what_came_from_the_peer_is_written_before_more_is_read() {
    for streams in [true, false] {
        let mut side = if streams { streaming() } else { Side::new() };
        side.arrive(&small_messages(64));
        side.let_write(usize::MAX);
        let mut batch = side.surroundings.pool.take(LARGEST);
        batch.append_input(&small_messages(64));
        let _ = Reframer::new(None).advance(&mut batch);
        assert!(side.peer.outgoing.poll_ready(&mut Context::from_waker(Waker::noop())).is_ready());
        side.peer.outgoing.send(batch);
        side.surroundings.turn.set(u32::MAX);
        let socket = side.socket.clone();
        let (mut connection, _peer) = side.connection();
        socket.0.borrow_mut().reads.clear();
        let poll = Pin::new(&mut connection).poll(&mut Context::from_waker(Waker::noop()));
        assert!(poll.is_pending());
        let state = socket.0.borrow();
        assert_eq!((state.reads.len(), state.writes.len()), (1, 1));
        assert_eq!(state.last, if streams { "read" } else { "write" });
    }
}

#[test]
fn behind_what_has_to_wait_there_is_room_for_a_read_that_is_worth_it() {
    // With so many messages ready, the smallest size has just room for it; with one more it has not.
    let fitting = (SIZES[0] - 2 * HEADROOM - LEAST_READ) / 4;
    for (messages, size) in [(fitting, 0), (fitting + 1, 1)] {
        let mut side = Side::new();
        side.arrive(&small_messages(8));
        side.read();
        assert!(side.take().is_some(), "and its credit is out");
        side.arrive(&small_messages(8 * messages));
        side.read();
        side.arrive(&small_messages(8));
        assert_eq!(side.read(), [SIZES[size] - 2 * HEADROOM - 4 * messages]);
    }
}

#[test]
fn nothing_is_read_that_can_only_say_that_there_is_nothing() {
    let mut side = Side::new();
    assert_eq!(side.read().len(), 0);
    side.arrive(&small_messages(800));
    assert_eq!(side.read().len(), 1);
    assert_eq!(side.read().len(), 0);
}

#[test]
fn a_read_that_fails_for_now_is_made_again() {
    let mut side = Side::new();
    side.socket.0.borrow_mut().lies = true;
    assert_eq!(side.read().len(), 1, "it said that there is something");
    assert_eq!(side.in_use(), 0, "the buffer is given back");
    side.fail(io::ErrorKind::Interrupted);
    side.arrive(&small_messages(8));
    while !side.read().is_empty() {}
    assert_eq!(side.take(), Some(4));
}

#[test]
fn a_write_that_fails_for_now_is_made_again() {
    let mut side = Side::new();
    side.outbound.pong(b"ping");
    side.let_write(100);
    side.fail(io::ErrorKind::Interrupted);
    assert_eq!(side.write().last().unwrap(), b"\x8A\x04ping");
    assert!(!side.outbound.is_broken());
}

#[test]
fn nothing_is_written_where_there_is_no_room() {
    let mut side = Side::new();
    side.outbound.pong(b"ping");
    side.let_write(2);
    assert_eq!(side.write(), [b"\x8A\x04"]);
    assert_eq!(side.write().len(), 0);
    side.let_write(4);
    assert_eq!(side.write(), [b"ping"]);
    assert!(side.outbound.is_flushed());
    side.let_write(0);
    side.outbound.pong(b"");
    assert_eq!(side.write().len(), 1, "the last write took everything: there may be room");
    side.let_write(2);
    assert_eq!(side.write(), [b"\x8A\0"]);
}

#[test]
fn a_frame_that_comes_in_drops_stays_where_it_is() {
    let mut side = Side::new();
    let mut header = vec![0x82, 0xFF, 0, 0, 0, 0, 0, 1, 0, 0];
    header.extend([0; 4]);
    side.arrive(&[header, vec![7; 60_000]].concat());
    while !side.read().is_empty() {}
    let in_use = side.in_use();
    for _ in 0..100 {
        side.arrive(&[7]);
        let room = side.read();
        assert!(room.len() <= 2 && (LEAST_READ..SIZES[2]).contains(&room[0]), "{room:?}");
        assert_eq!(side.in_use(), in_use);
    }
    assert_eq!(in_use, SIZES[2]);
}

#[test]
fn pongs_that_nobody_reads_have_a_bound() {
    let mut side = Side::new();
    let fill = |side: &mut Side| {
        (0..CONTROL_BACKLOG / 32).for_each(|_| side.outbound.pong(&[b'a'; 30]));
        side.outbound.pong(&[b'a'; CONTROL_BACKLOG % 32 - 2]);
    };
    fill(&mut side);
    side.let_write(usize::MAX);
    assert_eq!(side.write().concat().len(), CONTROL_BACKLOG, "so many are all answered");
    fill(&mut side);
    side.outbound.pong(b"newest");
    assert_eq!(side.write().concat(), b"\x8A\x06newest");
    fill(&mut side);
    assert!((0..100).all(|_| !side.outbound.ping(b"")), "there is no room");
    side.outbound.close(Some(1000), &"x".repeat(123));
    let all = side.write().concat().len();
    assert_eq!(all, CONTROL_BACKLOG + 2 + 125, "there is room for the end, and there are no pings without");
}

#[test]
fn only_a_reset_is_a_reset() {
    for (kind, was_reset) in [(io::ErrorKind::ConnectionReset, true), (io::ErrorKind::BrokenPipe, false)] {
        let mut side = Side::new();
        side.outbound.pong(b"ping");
        side.fail(kind);
        side.write();
        assert!(side.outbound.is_broken() && side.outbound.is_closing());
        assert_eq!(side.outbound.was_reset(), was_reset);
    }
}

/// What is known of a stream of binary messages of given lengths, without looking at a byte.
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

    /// Of the first `count` bytes: the length of what can be forwarded, of what is left, and of the frame it begins,
    /// if that is known.
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

#[derive(Clone, Debug)]
enum Step {
    Arrive(usize),
    Read,
    Credit,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let arrive = prop_oneof![0..40usize, 0..5000usize, 0..200_000usize].prop_map(Step::Arrive);
    prop::collection::vec(prop_oneof![2 => arrive, 4 => Just(Step::Read), 1 => Just(Step::Credit)], 1..60)
}

fn lengths() -> impl Strategy<Value = Vec<usize>> {
    let length = prop_oneof![0..126usize, 126..3000usize, 3000..=65536usize, Just(65535), Just(65536)];
    prop_oneof![prop::collection::vec(length, 1..40), prop::collection::vec(0..9usize, 1..5000)]
}

/// What a connection must have done with them, told by lengths alone.
struct Model {
    frames: Frames,
    consumed: usize,
    sent: usize,
    has_credit: bool,
    drained: bool,
    /// Whether the last batch was a large one.
    streams: bool,
    /// The index of the size of the next read.
    size: usize,
}

impl Model {
    /// The lengths of what is ready, of what is not, and of the frame that it begins.
    fn holds(&self) -> (usize, usize, usize) {
        let (output, input, frame) = self.frames.after(self.consumed);
        (output - self.sent, input, frame)
    }

    /// Hands over what is ready if it may, and returns its length.
    fn hand_over(&mut self) -> usize {
        let output = if self.has_credit { self.holds().0 } else { 0 };
        if output > 0 {
            self.has_credit = false;
            self.streams = output > LARGE_BATCH;
        }
        self.sent += output;
        output
    }

    fn read(&mut self, room: usize, available: usize) {
        let count = room.min(available);
        self.consumed += count;
        self.drained = count < room;
        if !self.drained && self.size < SIZES.len() - 1 {
            self.size += 1;
        } else if count > 0 && count < SIZES[self.size] / SPARSE {
            self.size = self.size.saturating_sub(1);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct("tests/regressions/connection.txt"))),
        ..ProptestConfig::default()
    })]

    /// Every read has room that is worth it and all that the next frame needs; no more memory is taken for it than
    /// that, nor held while nothing comes; and nothing but a full buffer stops it.
    #[test]
    fn a_read_has_the_room_it_needs_and_no_more(lengths in lengths(), steps in steps()) {
        let frames = Frames(lengths);
        let stream = frames.bytes();
        let mut model = Model { frames, consumed: 0, sent: 0, has_credit: true, drained: true, streams: false, size: 0 };
        let mut side = Side::new();
        let mut arrived = 0;
        for step in steps {
            match step {
                Step::Arrive(count) => {
                    let end = stream.len().min(arrived + count);
                    side.arrive(&stream[arrived..end]);
                    arrived = end;
                }
                // There is but one, which comes back when a batch is written.
                Step::Credit if model.has_credit => {}
                Step::Credit => {
                    side.peer.incoming.give_credit();
                    model.has_credit = true;
                }
                Step::Read => {
                    let held = side.in_use();
                    let mut batch = model.hand_over();
                    let kept = if batch == 0 { size_for(held) } else { 0 };
                    let (output, input, frame) = model.holds();
                    let before = HEADROOM + if output > 0 { output + HEADROOM } else { 0 };
                    let needed = before + frame.max(input + LEAST_READ);
                    let is_full = output > 0 && needed > LARGEST;
                    let reads = side.read();
                    let waits = model.streams && !model.drained && !model.has_credit;
                    let expected = !is_full && !waits && (arrived > model.consumed || !model.drained);
                    prop_assert_eq!(reads.len(), usize::from(expected));
                    if let Some(&room) = reads.first() {
                        let worth = if output == 0 { needed.max(SIZES[model.size]) } else { needed };
                        prop_assert!(before + input + room >= worth);
                        let capacity = HEADROOM + output + input + room;
                        prop_assert!(size_for(capacity) <= size_for(worth).max(kept));
                        model.read(room, arrived - model.consumed);
                    }
                    batch += model.hand_over();
                    prop_assert_eq!(side.take().unwrap_or(0), batch);
                    let (output, input, _) = model.holds();
                    let held = if output + input > 0 { SIZES[size_for(2 * HEADROOM + output + input)] } else { 0 };
                    prop_assert!(!model.drained || is_full || side.in_use() <= held);
                }
            }
        }
    }

    #[test]
    fn without_memory_the_smallest_buffers_do(
        messages in prop::collection::vec(prop_oneof![0..200usize, 0..3000usize, 0..70_000usize, 0..400_000usize], 1..10),
        steps in prop::collection::vec((prop_oneof![1..20usize, 1..5000usize, 1..200_000usize], any::<bool>(), 0..4usize), 1..100),
    ) {
        let mut side = Side::with_memory(1 << 30);
        let (mut part, mut was_there) = (Some(side.memory.take(1 << 30)), false);
        let stream = Frames(messages.clone()).bytes();
        let (mut rest, mut received, mut owes_credit) = (&stream[..], vec![], false);
        let patient = steps.into_iter().chain(std::iter::repeat((usize::MAX, true, 1)));
        for (count, credit, memory) in patient {
            if memory == 0 {
                // It comes back, and is gone again.
                part = if part.take().is_some() { None } else { Some(side.memory.take(1 << 30)) };
                was_there = true;
            }
            let (arrives, later) = rest.split_at(count.min(rest.len()));
            side.arrive(arrives);
            rest = later;
            let reads = side.read();
            if let Some(batch) = side.take_bytes() {
                received.extend(batch);
                owes_credit = true;
            }
            if !was_there {
                prop_assert!(reads.iter().all(|&room| room <= SMALLEST), "{:?}", reads);
                prop_assert!(side.in_use() <= SMALLEST, "{} bytes", side.in_use());
                prop_assert_eq!(side.memory.taken(), 1 << 30);
            }
            if credit && std::mem::take(&mut owes_credit) {
                side.peer.incoming.give_credit();
            }
            if rest.is_empty() && side.socket.0.borrow().arrived.is_empty() && side.in_use() == 0 {
                break;
            }
        }
        let (received, shortest) = received_lengths(&received);
        prop_assert_eq!(received, messages);
        prop_assert!(shortest.is_none_or(|shortest| shortest > SMALL_FRAME), "a message of {:?} was split", shortest);
    }
}

#[test]
fn a_read_that_is_small_for_want_of_memory_is_counted() {
    let squeezed = |memory| {
        let mut side = Side::with_memory(memory);
        side.arrive(&small_messages(1 << 20));
        let mut counts = vec![];
        for _ in 0..3 {
            side.read();
            assert!(side.take().is_some());
            side.peer.incoming.give_credit();
            counts.push(side.surroundings.stats.counters((0, 0, 0)).squeezed);
        }
        counts
    };
    // The first read of a stream is small anyway, and so is what is read behind output.
    assert_eq!(squeezed(0), [0, 1, 2]);
    assert_eq!(squeezed(usize::MAX), [0, 0, 0]);
    let mut side = Side::with_memory(usize::MAX);
    side.arrive(&small_messages(1 << 20));
    (0..3).for_each(|_| drop(side.read()));
    assert_eq!(side.surroundings.stats.counters((0, 0, 0)).squeezed, 0);
}

#[test]
fn pings_are_answered_behind_what_fills_a_small_buffer() {
    let message = |length| Frames(vec![length]).bytes();
    let mut side = Side::with_memory(0);
    side.let_write(LARGEST);
    // One is under way, and the other waits behind it.
    for (length, behind) in [(1500, 0), (3000, 0), (200, 3)] {
        side.arrive(&message(length));
        side.arrive(&[0x89, 0x80, 0, 0, 0, 0].repeat(behind));
        side.read();
    }
    assert_eq!(side.write(), [[0x8A, 0, 0x8A, 0, 0x8A, 0]]);
    // A larger buffer that is there is filled before the client is not read from any more.
    let mut side = Side::with_memory(1 << 30);
    side.let_write(LARGEST);
    (0..2).for_each(|_| {
        side.arrive(&message(10_000).repeat(2));
        side.read();
        side.read();
    });
    let _part = side.memory.take(1 << 30);
    side.arrive(&[0x89, 0x80, 0, 0, 0, 0]);
    side.read();
    assert_eq!(side.write(), [[0x8A, 0]]);
}

/// The lengths of messages, from server frames, and of the shortest frame that came in parts.
fn received_lengths(mut frames: &[u8]) -> (Vec<usize>, Option<usize>) {
    let (mut lengths, mut length, mut parts, mut shortest) = (vec![], 0, 0, None);
    while let [first, short, rest @ ..] = frames {
        let (payload, header) = match short {
            126 => (usize::from(u16::from_be_bytes([rest[0], rest[1]])), 4),
            127 => (u64::from_be_bytes(rest[..8].try_into().unwrap()) as usize, 10),
            _ => (usize::from(*short), 2),
        };
        length += payload;
        parts += 1;
        frames = &frames[header + payload..];
        if first & 0x80 != 0 {
            if parts > 1 {
                shortest = Some(shortest.map_or(length, |shortest: usize| shortest.min(length)));
            }
            lengths.push(std::mem::take(&mut length));
            parts = 0;
        }
    }
    (lengths, shortest)
}

/// Where there are timers.
fn in_reactor(test: impl FnOnce()) {
    Reactor::new().unwrap().block_on(async { test() });
}

#[test]
fn the_answer_to_a_close_frame_goes_out_with_the_end_of_the_stream() {
    let close = [0x88, 0x82, 0, 0, 0, 0, 3, 0xE8];
    let ping = [0x89, 0x80, 0, 0, 0, 0];
    let run = |room, expected: &[u8]| {
        let side = Side::new();
        let socket = side.socket.clone();
        let (mut connection, _peer) = side.connection();
        let mut arrive = |bytes: &[u8], room| {
            socket.0.borrow_mut().arrived.extend(bytes);
            socket.0.borrow_mut().room = room;
            connection.surroundings.turn.set(connection.surroundings.turn.get() + 1);
            assert!(connection.step(&mut Context::from_waker(Waker::noop())).is_pending());
            socket.0.borrow().ended
        };
        assert!(!arrive(&[&ping, &close[..6]].concat(), 1), "the client has not closed yet");
        let ended = arrive(&close[6..], room);
        assert!(ended || arrive(&[], LARGEST));
        assert_eq!(socket.0.borrow().with_end, expected);
    };
    in_reactor(|| {
        // Behind the rest of the pong, whole, and in two parts.
        run(LARGEST, &[0x88, 2, 3, 0xE8]);
        run(3, &[3, 0xE8]);
    });
}

#[test]
fn the_end_of_a_stream_is_not_at_hand_before_the_client_has_closed() {
    in_reactor(|| {
        let side = Side::new();
        side.let_write(LARGEST);
        let socket = side.socket.clone();
        let (mut connection, peer) = side.connection();
        peer.outgoing.finish(None, Farewell::Left);
        assert!(connection.step(&mut Context::from_waker(Waker::noop())).is_pending());
        let state = socket.0.borrow();
        assert_eq!((state.writes.len(), state.with_end.len(), state.ended), (1, 0, false));
    });
}
