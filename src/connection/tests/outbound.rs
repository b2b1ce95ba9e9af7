//! Writes: their bytes, their order, and their errors.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::task::Wake;

use super::*;
use crate::connection::notices::MOST_BYTES;
use crate::connection::outbound::CONTROL_BACKLOG;
use crate::runtime::reactor::Reactor;
use crate::websocket::reframer::TextPing;
use crate::websocket::subprotocol::LONGEST_FRAME;

#[test]
fn an_interrupted_write_is_retried() {
    let mut side = Side::new();
    side.outbound.pong(b"ping");
    side.let_write(100);
    side.fail(io::ErrorKind::Interrupted);
    assert_eq!(side.write().last().unwrap(), b"\x8A\x04ping");
    assert!(!side.outbound.is_broken());
}

#[test]
fn a_write_waits_for_room_after_a_short_one() {
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
    assert_eq!(side.write().len(), 1, "the last write was not short: there may be room");
    side.let_write(2);
    assert_eq!(side.write(), [b"\x8A\0"]);
}

#[test]
fn unread_pongs_are_bounded() {
    let mut side = Side::new();
    let fill = |side: &mut Side| {
        (0..CONTROL_BACKLOG / 32).for_each(|_| side.outbound.pong(&[b'a'; 30]));
        side.outbound.pong(&[b'a'; CONTROL_BACKLOG % 32 - 2]);
    };
    fill(&mut side);
    side.let_write(usize::MAX);
    assert_eq!(side.write().concat().len(), CONTROL_BACKLOG, "all of these pings are answered");
    fill(&mut side);
    side.outbound.pong(b"newest");
    assert_eq!(side.write().concat(), b"\x8A\x06newest");
    fill(&mut side);
    assert!((0..100).all(|_| !side.outbound.ping(b"")), "there is no room");
    side.outbound.close(Some(1000), &"x".repeat(123));
    let all = side.write().concat().len();
    assert_eq!(all, CONTROL_BACKLOG + 2 + 125, "no ping without room, and always room for the close frame");
}

#[test]
fn a_broken_pipe_is_no_reset() {
    for (kind, was_reset) in [(io::ErrorKind::ConnectionReset, true), (io::ErrorKind::BrokenPipe, false)] {
        let mut side = Side::new();
        side.outbound.pong(b"ping");
        side.fail(kind);
        side.write();
        assert!(side.outbound.is_broken() && side.outbound.is_closing());
        assert_eq!(side.outbound.was_reset(), was_reset);
    }
}

#[test]
fn a_client_that_has_closed_or_violated_the_protocol_has_not_stalled() {
    in_reactor(|| {
        for (sent, outcome) in [
            (&[][..], Outcome::Stalled),
            (&[0x88, 0x80, 0, 0, 0, 0], Outcome::Left),
            (&[0xFF, 0x80, 0, 0, 0, 0], Outcome::Violation),
        ] {
            let side = Side::new();
            side.arrive(sent);
            let socket = side.socket.clone();
            let (mut connection, _peer) = side.connection();
            let mut step = || {
                connection.context.turn.set(connection.context.turn.get() + 1);
                connection.step(&mut Context::from_waker(Waker::noop()))
            };
            assert!(step().is_pending());
            // The kernel gives the client up, which a read or the next write finds out.
            let mut state = socket.0.borrow_mut();
            state.failures.push_back(io::ErrorKind::TimedOut.into());
            (state.lies, state.room) = (true, 1);
            drop(state);
            let _ = step();
            assert_eq!(connection.outcome(), outcome, "{sent:x?}");
        }
    });
}

/// Runs a test on a reactor, for its timers.
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
            connection.context.turn.set(connection.context.turn.get() + 1);
            assert!(connection.step(&mut Context::from_waker(Waker::noop())).is_pending());
            socket.0.borrow().ended
        };
        assert!(!arrive(&[&ping, &close[..6]].concat(), 1), "the client has not closed yet");
        let ended = arrive(&close[6..], room);
        assert!(ended || arrive(&[], LARGEST));
        assert_eq!(socket.0.borrow().with_end, expected);
    };
    in_reactor(|| {
        // Behind the rest of the pong: in one write, and in two.
        run(LARGEST, &[0x88, 2, 3, 0xE8]);
        run(3, &[3, 0xE8]);
    });
}

#[test]
fn the_stream_is_not_ended_before_the_client_has_closed() {
    in_reactor(|| {
        let side = Side::new();
        side.let_write(LARGEST);
        let socket = side.socket.clone();
        let (mut connection, peer) = side.connection();
        peer.outgoing.finish(None, CloseCause::Left);
        assert!(connection.step(&mut Context::from_waker(Waker::noop())).is_pending());
        let state = socket.0.borrow();
        assert_eq!((state.writes.len(), state.with_end.len(), state.ended), (1, 0, false));
    });
}

#[test]
fn a_connection_ends_with_the_answer_to_the_relays_close_frame_unless_more_may_come() {
    let close = [0x88, 0x82, 0, 0, 0, 0, 3, 0xE8];
    type Change = fn(&mut Connection<FakeSocket>, &mut End<Box<Buffer>>);
    let is_over = |client: &[u8], change: Change| {
        let side = Side::new();
        side.let_write(LARGEST);
        let socket = side.socket.clone();
        let (mut connection, mut peer) = side.connection();
        change(&mut connection, &mut peer);
        peer.outgoing.finish(None, CloseCause::Left);
        let mut step = || {
            connection.context.turn.set(connection.context.turn.get() + 1);
            connection.step(&mut Context::from_waker(Waker::noop())).is_ready()
        };
        assert!(!step(), "the client has not answered yet");
        socket.0.borrow_mut().arrived.extend(client);
        step()
    };
    in_reactor(|| {
        assert!(is_over(&close, |_, _| {}));
        assert!(!is_over(&[&close[..], b"!"].concat(), |_, _| {}), "bytes behind the close frame");
        assert!(!is_over(&[0x81, 0x80, 0, 0, 0, 0, 0x83, 0x80, 0, 0, 0, 0], |_, _| {}), "a violation");
        let pinged: Change = |connection, _| {
            let pings = KeepaliveConfig::new(Some(Duration::from_secs(20)), Duration::from_secs(20));
            connection.keepalive.probe(0, Observation::default(), &pings);
        };
        assert!(!is_over(&close, pinged), "a pong is to come");
        let fed: Change = |connection, peer| {
            let mut batch = Box::new(Buffer::new(LARGEST));
            batch.append_output(&[0; LARGEST / 2]);
            assert!(peer.outgoing.poll_ready(&mut Context::from_waker(Waker::noop())).is_ready());
            peer.outgoing.send(batch, &connection.context.channels);
        };
        assert!(!is_over(&close, fed), "the client may not have everything");
    });
}

/// Its task waits for a credit, which no longer comes. An event of the socket would not wake it.
#[test]
fn a_held_connection_reads_on_when_its_link_ends() {
    in_reactor(|| {
        let side = Side::new();
        side.let_write(LARGEST);
        let message = [&[0x82, 0xFE, 0xC0, 0x00, 0, 0, 0, 0][..], &[0; 0xC000]].concat();
        side.socket.0.borrow_mut().arrived.extend(message.repeat(2 * LARGEST / message.len()));
        let (mut connection, peer) = side.connection();
        let woken = Arc::new(CountWakes::default());
        let step = |connection: &mut Connection<FakeSocket>| {
            connection.context.turn.set(connection.context.turn.get() + 1);
            let before = woken.0.load(Relaxed);
            assert!(connection.step(&mut Context::from_waker(&Waker::from(Arc::clone(&woken)))).is_pending());
            woken.0.load(Relaxed) - before
        };
        while step(&mut connection) > 0 {}
        assert!(connection.inbound.is_held());
        peer.outgoing.finish(None, CloseCause::Left);
        assert!(step(&mut connection) > 0);
        assert!(!connection.inbound.is_joined());
    });
}

/// Counts its wake-ups.
#[derive(Default)]
struct CountWakes(AtomicUsize);

impl Wake for CountWakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Relaxed);
    }
}

/// The kernel need not report room after such an error: the socket was not full.
#[test]
fn a_send_without_kernel_memory_is_retried_once_a_step() {
    for error in [Errno::NOBUFS, Errno::NOMEM] {
        let mut side = Side::new();
        side.socket.0.borrow_mut().hides_room = true;
        side.let_write(100);
        side.outbound.pong(b"ping");
        for _ in 0..3 {
            side.fail(error);
            assert_eq!(side.write().len(), 1, "one attempt a step");
            assert!(side.outbound.is_blocked() && !side.outbound.is_broken(), "{error}");
        }
        assert_eq!(side.write(), [b"\x8A\x04ping"]);
        assert!(!side.outbound.is_blocked());
    }
}

/// Takes a connection's first step, in which it answers a ping and all writes fail.
///
/// Returns the step's result, the outcome, and the cause that the peer receives.
fn answer_a_ping(error: Errno, write_timeout: Duration) -> (Poll<()>, Outcome, Option<CloseCause>) {
    let side = Side::with_limits(usize::MAX, write_timeout);
    side.arrive(&[0x89, 0x80, 0, 0, 0, 0]);
    side.socket.0.borrow_mut().write_error = Some(error);
    let (mut connection, mut peer) = side.connection();
    let mut cx = Context::from_waker(Waker::noop());
    connection.context.turn.set(1);
    let polled = connection.step(&mut cx);
    let cause = match peer.incoming.poll_next(&mut cx, &SpareChannels::default()) {
        Poll::Ready(Next::End(close_cause)) => Some(close_cause),
        _ => None,
    };
    (polled, connection.outcome(), cause)
}

#[test]
fn a_send_without_kernel_memory_has_the_write_timeout() {
    in_reactor(|| {
        let (polled, _, cause) = answer_a_ping(Errno::NOBUFS, Duration::from_secs(60));
        assert_eq!((polled, cause), (Poll::Pending, None));
        let (polled, outcome, cause) = answer_a_ping(Errno::NOBUFS, Duration::ZERO);
        assert_eq!((polled, outcome, cause), (Poll::Ready(()), Outcome::Stalled, Some(CloseCause::Lost)));
    });
}

#[test]
fn an_unknown_send_error_ends_the_connection_and_tells_the_peer() {
    in_reactor(|| {
        for error in [Errno::PERM, Errno::INVAL, Errno::IO] {
            let (polled, outcome, cause) = answer_a_ping(error, Duration::from_secs(60));
            assert_eq!((polled, outcome, cause), (Poll::Ready(()), Outcome::Lost, Some(CloseCause::Lost)), "{error}");
        }
        // The kernel has ended the stream: bytes that the client sent before are still read.
        for error in [Errno::CONNRESET, Errno::PIPE, Errno::TIMEDOUT, Errno::HOSTUNREACH, Errno::CONNABORTED] {
            let (polled, _, cause) = answer_a_ping(error, Duration::from_secs(60));
            assert_eq!((polled, cause), (Poll::Pending, None), "{error}");
        }
    });
}

#[test]
fn a_read_error_ends_the_connection_at_once_and_tells_the_peer() {
    in_reactor(|| {
        for error in [Errno::CONNRESET, Errno::PIPE, Errno::TIMEDOUT, Errno::HOSTUNREACH, Errno::IO] {
            let side = Side::new();
            side.fail(error);
            side.socket.0.borrow_mut().lies = true;
            let (mut connection, mut peer) = side.connection();
            connection.context.turn.set(1);
            let mut cx = Context::from_waker(Waker::noop());
            assert!(connection.step(&mut cx).is_ready(), "{error}");
            let outcome = if error == Errno::TIMEDOUT { Outcome::Stalled } else { Outcome::Lost };
            assert_eq!(connection.outcome(), outcome, "{error}");
            let next = peer.incoming.poll_next(&mut cx, &SpareChannels::default());
            assert!(matches!(next, Poll::Ready(Next::End(CloseCause::Lost))), "{error}");
        }
    });
}

/// A batch of whole server frames, each with a payload of `length` bytes.
fn batch(frames: usize, length: u16) -> Box<Buffer> {
    let frame = [&[0x82, 126][..], &length.to_be_bytes(), &vec![7; length.into()]].concat();
    let mut batch = Box::new(Buffer::new(HEADROOM + frames * frame.len()));
    batch.append_output(&frame.repeat(frames));
    batch
}

/// Whether the peer may send.
fn has_credit(side: &mut Side) -> bool {
    side.peer.outgoing.poll_ready(&mut Context::from_waker(Waker::noop())).is_ready()
}

/// Sends batches of 20 KiB until there is no credit, and returns the bytes that the client was sent.
fn fill_window(side: &mut Side) -> Vec<u8> {
    side.let_write(usize::MAX);
    let mut written = Vec::new();
    while has_credit(side) {
        assert!(written.len() < 1 << 20, "the window is no bound");
        side.peer.outgoing.send(batch(5, 4000), &side.context.channels);
        written.extend(side.write().concat());
    }
    written
}

/// The numbers of the marks among frames.
fn marks(bytes: &[u8]) -> Vec<u8> {
    let (mut numbers, mut rest) = (Vec::new(), bytes);
    while let [first, short, behind @ ..] = rest {
        let (length, behind) = match short {
            126 => (usize::from(u16::from_be_bytes([behind[0], behind[1]])), &behind[2..]),
            short => (usize::from(*short), behind),
        };
        if *first == 0x89 {
            numbers.push(behind[0]);
        }
        rest = &behind[length..];
    }
    numbers
}

#[test]
fn peer_has_no_credit_until_the_client_answers_a_mark_in_a_full_window() {
    let mut side = Side::with_pings();
    let written = fill_window(&mut side);
    assert!((64 << 10..(64 + 21) << 10).contains(&written.len()), "{} bytes", written.len());
    assert!(side.outbound.is_flushed(), "everything that was sent is written");
    side.outbound.pong(b"at once");
    assert_eq!(side.write().concat(), b"\x8A\x07at once", "a pong does not wait for the window");
    assert!(!has_credit(&mut side));
    side.outbound.answered(*marks(&written).last().unwrap());
    side.write();
    assert!(has_credit(&mut side));
}

#[test]
fn close_of_the_peer_does_not_wait_for_the_window() {
    let mut side = Side::with_pings();
    fill_window(&mut side);
    let Side { peer: End { outgoing, .. }, outbound, socket, .. } = &mut side;
    let (end, _) = crate::pairing::link::link();
    std::mem::replace(outgoing, end.outgoing).finish(Some(batch(1, 1000)), CloseCause::Left);
    outbound.poll(&mut Context::from_waker(Waker::noop()), socket);
    let written = std::mem::take(&mut socket.0.borrow_mut().writes).concat();
    assert_eq!(written[..4], [0x82, 126, 3, 232]);
    assert!(outbound.is_closing() && outbound.is_flushed());
}

/// Both clients stream, and neither is read from.
///
/// Each answer waits behind a stream that waits for the other answer.
#[test]
fn window_is_no_bound_while_answers_wait_unread() {
    let mut side = Side::with_pings();
    fill_window(&mut side);
    assert_eq!(side.peer.outgoing.pace(), Pace::Slow, "it does not answer");
    side.outbound.set_unheard(true);
    side.write();
    assert!(has_credit(&mut side));
    assert_eq!(side.peer.outgoing.pace(), Pace::Unknown);
}

#[test]
fn there_is_no_window_without_pings() {
    let mut side = Side::new();
    side.let_write(usize::MAX);
    for _ in 0..100 {
        assert!(has_credit(&mut side));
        side.peer.outgoing.send(batch(5, 4000), &side.context.channels);
        side.write();
    }
    assert!(side.peer.outgoing.pace() == Pace::Fast);
}

/// A pong of `arc-relay.v1`.
fn text_pong(id: &str) -> Vec<u8> {
    let json = format!(r#"{{"type":"pong","id":"{id}"}}"#);
    [&[0x81, json.len() as u8], json.as_bytes()].concat()
}

fn text_ping(side: &mut Side, id: &str) {
    side.outbound.answer(TextPing { id: Some(id.into()) });
}

#[test]
fn a_text_pong_waits_for_the_end_of_the_peers_message_and_answers_the_newest_ping() {
    let mut side = Side::speaking_v1();
    side.let_write(usize::MAX);
    text_ping(&mut side, "one");
    assert_eq!(side.write().concat(), text_pong("one"));
    side.peer_sends(b"\x02\x01a", true);
    assert_eq!(side.write().concat(), b"\x02\x01a");
    ["two", "three"].iter().for_each(|id| text_ping(&mut side, id));
    side.outbound.pong(b"control");
    assert_eq!(side.write().concat(), b"\x8A\x07control", "a control frame need not wait");
    side.peer_sends(b"\x00\x01b", true);
    assert_eq!(side.write().concat(), b"\x00\x01b");
    side.peer_sends(b"\x80\x01c", false);
    assert_eq!(side.write().concat(), [b"\x80\x01c", &text_pong("three")[..]].concat());
    assert_eq!(side.write().concat(), b"", "each ping is answered once at most");
}

#[test]
fn a_text_pong_goes_before_the_close_frame_unless_the_peers_message_is_incomplete() {
    for is_within_message in [false, true] {
        let mut side = Side::speaking_v1();
        side.let_write(1);
        side.peer_sends(b"\x02\x01a", is_within_message);
        side.write();
        text_ping(&mut side, "last");
        side.outbound.close(Some(1000), "");
        text_ping(&mut side, "too late");
        side.let_write(usize::MAX);
        let pong = if is_within_message { vec![] } else { text_pong("last") };
        assert_eq!(side.write().concat(), [b"\x01a", &pong[..], b"\x88\x02\x03\xE8"].concat());
        assert!(side.outbound.is_flushed());
    }
}

#[test]
fn notices_have_room_behind_any_number_of_pongs() {
    let mut side = Side::first_speaking_v1();
    (0..CONTROL_BACKLOG / 32).for_each(|_| side.outbound.pong(&[b'a'; 30]));
    side.outbound.pong(&[b'a'; CONTROL_BACKLOG % 32 - 2]);
    text_ping(&mut side, &"\u{1}".repeat(64));
    side.outbound.close(Some(1000), &"x".repeat(123));
    side.let_write(usize::MAX);
    let written = side.write().concat();
    let notices = written.len() - CONTROL_BACKLOG - (2 + 125);
    assert!(notices > LONGEST_FRAME && notices <= MOST_BYTES, "{notices}");
    assert!(written.ends_with(&[b'x'; 123]));
}

#[test]
fn a_text_pong_does_not_go_between_the_parts_of_a_frame() {
    let mut side = Side::speaking_v1();
    side.let_write(usize::MAX);
    let mut frame = vec![0x82, 0xFF];
    frame.extend((100_000_u64).to_be_bytes());
    frame.extend([0; 4]);
    side.arrive(&[&frame[..], &[0; 70_000]].concat());
    side.read();
    let next = |side: &mut Side| {
        let (cx, channels) = (&mut Context::from_waker(Waker::noop()), &side.context.channels);
        match side.peer.incoming.poll_next(cx, channels) {
            Poll::Ready(Next::Batch(batch)) => {
                side.peer.incoming.give_credit(Pace::Fast);
                side.read();
                Some((batch.output().len(), batch.ends_within_message))
            }
            _ => None,
        }
    };
    let mut parts = vec![];
    while let Some(part) = next(&mut side) {
        parts.push(part);
    }
    assert!(!parts.is_empty() && parts.iter().all(|(_, ends_within)| *ends_within), "{parts:?}");
    side.arrive(&[0; 30_000]);
    side.read();
    while let Some(part) = next(&mut side) {
        parts.push(part);
    }
    assert!(parts.iter().map(|(length, _)| length).sum::<usize>() > 100_000, "{parts:?}");
    assert!(!parts.pop().unwrap().1 && parts.iter().all(|(_, ends_within)| *ends_within), "{parts:?}");
}

#[test]
fn first_client_takes_nothing_from_the_link_before_it_is_told_of_its_peer() {
    let mut side = Side::first_speaking_v1();
    side.let_write(usize::MAX);
    assert!(side.write().concat().ends_with(b"\"expires_in\":300}"));
    side.peer.outgoing.meet();
    side.peer_sends(b"\x82\x01a", false);
    assert_eq!(side.write(), [&b"\x81\x11{\"type\":\"paired\"}"[..], b"\x82\x01a"]);
    assert!(has_credit(&mut side) && side.write().is_empty());
}

#[test]
fn first_client_without_a_peer_is_told_of_the_end_of_the_link_only() {
    let mut side = Side::first_speaking_v1();
    side.let_write(usize::MAX);
    side.write();
    let (_, end) = crate::pairing::link::link();
    let outgoing = std::mem::replace(&mut side.peer.outgoing, end.outgoing);
    outgoing.finish(None, CloseCause::Expired);
    assert_eq!(side.write().concat(), [b"\x88\x0E\x03\xE9", &b"pair expired"[..]].concat());
}
