//! The room of reads, the memory that they hold, and when there are none.

use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;

use super::*;
use crate::buffers::pool::{SIZES, size_for};
use crate::connection::PORTIONS;
use crate::connection::inbound::{MOST_DISCARDED, MOST_FOR_A_SLOW_PEER};
use crate::connection::read_size::{LEAST_READ, SPARSE};
use crate::connection::reader::{LARGE_BATCH, Reader};
use crate::runtime::reactor::Reactor;

#[test]
fn reads_grow_with_a_stream_and_shrink_after_it() {
    let mut side = Side::new();
    side.arrive(&small_messages(1 << 20));
    for size in [0, 1, 2, 3, 3, 3] {
        assert_eq!(side.read(), [SIZES[size] - HEADROOM]);
        assert!(side.take().is_some());
        side.peer.incoming.give_credit(Pace::Fast);
    }
    side.socket.0.borrow_mut().arrived.clear();
    let sparse = |size: usize| SIZES[size] / SPARSE;
    assert_eq!(side.read().len(), 1, "the last read was full, so there may be more");
    for (bytes, size) in [(sparse(3), 3), (8, 3), (sparse(2), 2), (8, 2), (8, 1), (8, 0), (8, 0)] {
        side.arrive(&small_messages(bytes));
        assert_eq!(side.read(), [SIZES[size] - HEADROOM]);
        assert!(side.take().is_some());
        side.peer.incoming.give_credit(Pace::Fast);
        assert_eq!(side.in_use(), 0, "an empty buffer is given back");
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
        side.peer.incoming.give_credit(Pace::Fast);
    }
    assert!(side.inbound.streams());
    side
}

#[test]
fn a_stream_is_read_once_in_a_turn() {
    let mut side = streaming();
    assert!(side.read_again().is_empty(), "this turn has had its read");
    assert_eq!(side.read().len(), 1);
    assert!(side.take().is_some());
    side.peer.incoming.give_credit(Pace::Fast);
    assert!(side.read_again().is_empty());
    assert_eq!(side.read().len(), 1);
}

/// Thousands of links may end at once, each with a full buffer and a full queue of the kernel.
#[test]
fn after_the_end_of_a_link_the_close_frame_is_written_first_and_reads_are_small() {
    let mut side = Side::new();
    side.arrive(&small_messages(2 << 20));
    for _ in 0..20 {
        side.read();
    }
    side.let_write(usize::MAX);
    let (socket, context) = (side.socket.clone(), Rc::clone(&side.context));
    let (mut connection, peer) = side.connection();
    peer.outgoing.finish(None, CloseCause::Expired);
    drop(peer.incoming);
    let mut step = || {
        context.turn.set(context.turn.get() + 1);
        assert!(Pin::new(&mut connection).poll(&mut Context::from_waker(Waker::noop())).is_pending());
        let mut state = socket.0.borrow_mut();
        (std::mem::take(&mut state.reads), std::mem::take(&mut state.writes).len())
    };
    socket.0.borrow_mut().reads.clear();
    // The timeouts need a reactor.
    Reactor::new().unwrap().block_on(async {
        assert_eq!(step(), (vec![], 1));
        let (mut reads, mut steps) = (vec![], 0);
        while reads.len() < 10 {
            let (more, writes) = step();
            assert!(more.len() <= 1 && writes == 0);
            reads.extend(more);
            steps += 1;
            assert!(steps < 1000, "the client is not read from");
        }
        assert!(reads.iter().all(|&room| room <= MOST_DISCARDED), "{reads:?}");
    });
}

#[test]
fn a_client_is_held_only_while_its_peer_takes_nothing() {
    let mut side = streaming();
    side.read(); // the batch is in flight, and more bytes have arrived
    assert!(side.inbound.is_held());
    side.socket.0.borrow_mut().arrived.clear();
    assert!(side.take().is_some());
    side.peer.incoming.give_credit(Pace::Fast);
    side.read(); // no bytes, and there may never be more
    assert!(!side.inbound.is_held(), "its silence counts");
}

#[test]
fn with_streams_both_ways_the_peers_batch_is_written_before_the_next_read() {
    for streams in [true, false] {
        let mut side = if streams { streaming() } else { Side::new() };
        side.arrive(&small_messages(64));
        side.let_write(usize::MAX);
        let mut batch = side.context.pool.take(LARGEST);
        batch.append_input(&small_messages(64));
        let _ = Reframer::new(None).advance(&mut batch);
        assert!(side.peer.outgoing.poll_ready(&mut Context::from_waker(Waker::noop())).is_ready());
        side.peer.outgoing.send(batch, &side.context.channels);
        side.context.turn.set(u32::MAX);
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
fn behind_waiting_output_a_read_has_a_worthwhile_room() {
    // With so many messages of output, the smallest size has just enough room, and with one more it has not.
    let fitting = (SIZES[0] - 2 * HEADROOM - LEAST_READ) / 4;
    for (messages, size) in [(fitting, 0), (fitting + 1, 1)] {
        let mut side = Side::new();
        side.arrive(&small_messages(8));
        side.read();
        assert!(side.take().is_some(), "the batch; its credit is not given back");
        side.arrive(&small_messages(8 * messages));
        side.read();
        side.arrive(&small_messages(8));
        assert_eq!(side.read(), [SIZES[size] - 2 * HEADROOM - 4 * messages]);
    }
}

#[test]
fn no_read_follows_a_short_one_without_an_event() {
    let mut side = Side::new();
    assert_eq!(side.read().len(), 0);
    side.arrive(&small_messages(800));
    assert_eq!(side.read().len(), 1);
    assert_eq!(side.read().len(), 0);
}

#[test]
fn a_read_that_would_block_or_is_interrupted_is_retried() {
    let mut side = Side::new();
    side.socket.0.borrow_mut().lies = true;
    assert_eq!(side.read().len(), 1, "the socket reported bytes");
    assert_eq!(side.in_use(), 0, "the buffer is given back");
    side.fail(io::ErrorKind::Interrupted);
    side.arrive(&small_messages(8));
    while !side.read().is_empty() {}
    assert_eq!(side.take(), Some(4));
}

#[test]
fn a_frame_that_arrives_in_small_pieces_is_not_copied() {
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

/// A read into an empty slice returns 0, as the end of a stream does.
#[test]
fn a_read_without_room_is_not_made() {
    let side = Side::new();
    side.arrive(&small_messages(8));
    let mut full = side.context.pool.take(LARGEST);
    full.append_output(&[0; LARGEST - HEADROOM]);
    let mut reader = Reader::new(&[], &side.context.pool);
    reader.buffer = Some(full);
    assert!(reader.read(LARGEST, usize::MAX, &side.socket, &side.context).is_none());
    assert!(side.socket.0.borrow().reads.is_empty());
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

/// A model of a connection, which knows lengths only.
struct Model {
    frames: Frames,
    consumed: usize,
    sent: usize,
    has_credit: bool,
    drained: bool,
    /// Whether the last batch was large.
    streams: bool,
    /// The index of the size of the next read.
    size: usize,
}

impl Model {
    /// The lengths of the output, of the input, and of the frame that the input begins.
    fn holds(&self) -> (usize, usize, usize) {
        let (output, input, frame) = self.frames.after(self.consumed);
        (output - self.sent, input, frame)
    }

    /// Hands the output over if it may, and returns its length.
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

    /// Every read has a worthwhile room, and enough for the incomplete frame.
    ///
    /// It takes no more memory than that, and holds none while no bytes come. Only a full buffer or a stream without a
    /// credit stops reads.
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
                // There is one credit, which comes back when a batch is written.
                Step::Credit if model.has_credit => {}
                Step::Credit => {
                    side.peer.incoming.give_credit(Pace::Fast);
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
}

#[test]
fn a_stop_loses_no_bytes_that_were_read() {
    let side = Side::new();
    let messages = 25_600;
    side.let_write(usize::MAX);
    side.arrive(&small_messages(messages * 8));
    let (context, socket) = (Rc::clone(&side.context), side.socket.clone());
    let (mut connection, mut peer) = side.connection();
    let mut cx = Context::from_waker(Waker::noop());
    let mut received = 0;
    let close_cause = loop {
        context.turn.set(context.turn.get() + 1);
        assert!(context.turn.get() < 1000, "the connection never ends");
        let _ = connection.step(&mut cx);
        if socket.0.borrow().arrived.is_empty() && connection.inbound.yields() {
            context.stopping.set(PORTIONS); // all bytes are read, and not all are reframed
        }
        match peer.incoming.poll_next(&mut cx, &SpareChannels::default()) {
            Poll::Ready(Next::Batch(batch)) => {
                received += batch.output().len() / 4;
                peer.incoming.give_credit(Pace::Fast);
            }
            Poll::Ready(Next::End(close_cause)) => break close_cause,
            Poll::Pending => {}
        }
    };
    assert_eq!((received, close_cause), (messages, CloseCause::Stopping));
}

#[test]
fn system_receives_little_ahead_from_a_stream_until_the_peer_is_known_to_be_fast() {
    let mut side = Side::with_pings();
    let is_bounded = |side: &Side| side.socket.0.borrow().is_bounded;
    side.arrive(&small_messages(1000));
    side.read();
    assert!(!is_bounded(&side), "no stream");
    side.take();
    side.peer.incoming.give_credit(Pace::Slow);
    side.arrive(&small_messages(1 << 20));
    side.read();
    assert!(is_bounded(&side));
    for pace in [Pace::Slow, Pace::Fast, Pace::Unknown, Pace::Fast, Pace::Slow] {
        side.take();
        side.peer.incoming.give_credit(pace);
        side.read();
        assert_eq!(is_bounded(&side), pace != Pace::Fast);
    }
}

#[test]
fn little_is_read_ahead_for_a_slow_peer() {
    let mut side = Side::with_pings();
    side.arrive(&small_messages(1 << 20));
    side.read();
    side.take();
    for _ in 0..5 {
        side.peer.incoming.give_credit(Pace::Slow);
        let read: usize = (0..10).flat_map(|_| side.read()).sum();
        assert!((MOST_FOR_A_SLOW_PEER..3 * MOST_FOR_A_SLOW_PEER).contains(&read), "{read} bytes");
        assert!(side.inbound.is_held());
        side.take();
    }
}

#[test]
fn receive_buffer_is_the_systems_without_pings() {
    let mut side = Side::new();
    side.arrive(&small_messages(1 << 20));
    side.read();
    assert!(!side.socket.0.borrow().is_bounded);
}
