//! What is written, and when.

use super::*;
use crate::connection::outbound::CONTROL_BACKLOG;
use crate::runtime::reactor::Reactor;

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

#[test]
fn who_has_said_how_it_departs_has_not_stalled() {
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
            // Its system gives it up, which is found by a read or by the next write.
            let mut state = socket.0.borrow_mut();
            state.failures.push_back(io::ErrorKind::TimedOut.into());
            (state.lies, state.room) = (true, 1);
            drop(state);
            let _ = step();
            assert_eq!(connection.outcome(), outcome, "{sent:x?}");
        }
    });
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
        peer.outgoing.finish(None, CloseCause::Left);
        assert!(connection.step(&mut Context::from_waker(Waker::noop())).is_pending());
        let state = socket.0.borrow();
        assert_eq!((state.writes.len(), state.with_end.len(), state.ended), (1, 0, false));
    });
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

/// A connection whose client has pinged, and to which every write fails: the result of its first step, its outcome, and
/// what its peer is told.
fn answer_a_ping(error: Errno, write_timeout: Duration) -> (Poll<()>, Outcome, Option<CloseCause>) {
    let side = Side::with_limits(usize::MAX, write_timeout);
    side.arrive(&[0x89, 0x80, 0, 0, 0, 0]);
    side.socket.0.borrow_mut().write_error = Some(error);
    let (mut connection, mut peer) = side.connection();
    let mut cx = Context::from_waker(Waker::noop());
    connection.context.turn.set(1);
    let polled = connection.step(&mut cx);
    let told = match peer.incoming.poll_next(&mut cx) {
        Poll::Ready(Next::End(close_cause)) => Some(close_cause),
        _ => None,
    };
    (polled, connection.outcome(), told)
}

#[test]
fn a_send_without_kernel_memory_has_the_write_timeout() {
    in_reactor(|| {
        let (polled, _, told) = answer_a_ping(Errno::NOBUFS, Duration::from_secs(60));
        assert_eq!((polled, told), (Poll::Pending, None));
        let (polled, outcome, told) = answer_a_ping(Errno::NOBUFS, Duration::ZERO);
        assert_eq!((polled, outcome, told), (Poll::Ready(()), Outcome::Stalled, Some(CloseCause::Lost)));
    });
}

#[test]
fn an_unknown_send_error_ends_the_connection_and_tells_the_peer() {
    in_reactor(|| {
        for error in [Errno::PERM, Errno::INVAL, Errno::IO] {
            let (polled, outcome, told) = answer_a_ping(error, Duration::from_secs(60));
            assert_eq!((polled, outcome, told), (Poll::Ready(()), Outcome::Lost, Some(CloseCause::Lost)), "{error}");
        }
        // The kernel has ended the stream: what the client sent before is still read, to its end.
        for error in [Errno::CONNRESET, Errno::PIPE, Errno::TIMEDOUT, Errno::HOSTUNREACH, Errno::CONNABORTED] {
            let (polled, _, told) = answer_a_ping(error, Duration::from_secs(60));
            assert_eq!((polled, told), (Poll::Pending, None), "{error}");
        }
    });
}
