//! How long a client that speaks HTTP may take for its next step.
//!
//! There are two of them in turn: to send the head of a request, and to take the answer. Each has the same time, and it
//! begins when the step does; nothing that is sent or taken meanwhile extends it. hyper has a timeout for the first step
//! only.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use futures_lite::{AsyncRead, AsyncWrite};
use hyper::body::{Buf, Bytes};

use super::heads::{Heads, Piece};
use crate::buffers::buffer::HEADROOM;
use crate::buffers::pool::SMALLEST;
use crate::runtime::clock::Clock;

/// The deadline of a connection's present step.
#[derive(Debug)]
pub(super) struct Deadline<'a> {
    clock: &'a dyn Clock,
    timeout: Duration,
    at: Cell<Instant>,
    /// Whether the step is to take an answer.
    answering: Cell<bool>,
    /// Whether an answer is being made, which is no step of the client's.
    paused: Cell<bool>,
}

impl<'a> Deadline<'a> {
    /// Begins with the head of the first request.
    pub(super) fn new(clock: &'a dyn Clock, timeout: Duration) -> Self {
        Self {
            clock,
            timeout,
            at: Cell::new(clock.now() + timeout),
            answering: Cell::new(false),
            paused: Cell::new(false),
        }
    }

    /// An answer is being made, which can take so long: until there is [one to take](Self::answer), it is not the client
    /// that takes its time.
    pub(super) fn pause(&self, longest: Duration) {
        self.paused.set(true);
        self.at.set(self.clock.now() + longest + self.timeout);
    }

    /// Whether an answer is being made.
    pub(super) fn is_paused(&self) -> bool {
        self.paused.get()
    }

    /// There is an answer to take. hyper reads no other request before it is written, so who sends requests and takes no
    /// answers gains no time by it.
    pub(super) fn answer(&self) {
        self.paused.set(false);
        self.answering.set(true);
        self.restart();
    }

    /// Everything is written that was to be written.
    fn written(&self) {
        if self.answering.replace(false) {
            self.restart();
        }
    }

    fn restart(&self) {
        self.at.set(self.clock.now() + self.timeout);
    }

    /// Whether the step is to take an answer.
    pub(super) fn is_answering(&self) -> bool {
        self.answering.get()
    }

    /// Whether the step has taken too long.
    pub(super) fn is_over(&self) -> bool {
        self.clock.now() >= self.at.get()
    }

    /// Ready when a step has taken too long.
    pub(super) async fn passed(&self) {
        // It may move while it is waited for; to an earlier time only by what an answer did not take.
        while !self.is_over() {
            self.clock.sleep_until(self.at.get()).await;
        }
    }
}

/// How much is read at a time, in bytes. What is behind a head comes from the same read, so it is no more than this, and
/// has room in the smallest buffer.
const PIECE: usize = SMALLEST - HEADROOM;

/// What hyper reads instead of a bare line feed: no head may contain it.
const REFUSED: u8 = 0;

/// What hyper reads behind that. It judges a head that comes in pieces only at its end.
const REFUSED_END: Bytes = Bytes::from_static(b"\r\n\r\n");

/// A stream that is read in pieces, none of which goes beyond a head, and tells the deadline when everything is written.
#[derive(Debug)]
pub(super) struct Timed<'a, T> {
    /// What was read of it already, and is still to be read by hyper, or else by the connection.
    pub(super) read_ahead: Bytes,
    pub(super) stream: T,
    pub(super) deadline: &'a Deadline<'a>,
    pub(super) heads: &'a Heads,
}

impl<T: AsyncRead + Unpin> AsyncRead for Timed<'_, T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let room = buffer.len().min(PIECE);
        let Piece { length, is_refused } = if self.read_ahead.is_empty() {
            let count = ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer[..room]))?;
            let piece = self.heads.scan(&buffer[..count]);
            self.read_ahead = Bytes::copy_from_slice(&buffer[piece.length..count]);
            piece
        } else {
            let count = room.min(self.read_ahead.len());
            let piece = self.heads.scan(&self.read_ahead[..count]);
            self.read_ahead.copy_to_slice(&mut buffer[..piece.length]);
            piece
        };
        if is_refused {
            buffer[length - 1] = REFUSED;
            self.read_ahead = REFUSED_END;
        }
        Poll::Ready(Ok(length))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Timed<'_, T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    // hyper does it when all it had to write has been taken.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
        self.deadline.written();
        Poll::Ready(Ok(()))
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_close(cx)
    }
}

#[cfg(test)]
mod tests {
    use futures_lite::AsyncReadExt;
    use futures_lite::future::block_on;
    use futures_lite::io::Cursor;

    use super::*;
    use crate::runtime::clock::SystemClock;
    use proptest::prelude::*;

    /// Reads all of it with buffers of these lengths: what was read before, and the rest.
    fn read(read_ahead: &[u8], rest: &[u8], lengths: &[usize]) -> Vec<Vec<u8>> {
        let (deadline, heads) = (Deadline::new(&SystemClock, Duration::from_secs(1)), Heads::default());
        let (read_ahead, stream) = (Bytes::copy_from_slice(read_ahead), Cursor::new(rest.to_vec()));
        let mut timed = Timed { read_ahead, stream, deadline: &deadline, heads: &heads };
        let mut pieces = Vec::new();
        for &length in lengths.iter().cycle() {
            let mut buffer = vec![0; length];
            match block_on(timed.read(&mut buffer)).unwrap() {
                0 => break,
                count => pieces.push(buffer[..count].to_vec()),
            }
        }
        pieces
    }

    proptest! {
        #[test]
        fn a_head_and_what_is_behind_it_are_read_apart_and_unchanged(
            behind in prop::collection::vec(prop_oneof![Just(b'\r'), Just(b'\n'), any::<u8>()], 0..60),
            split: prop::sample::Index,
            lengths in prop::collection::vec(1..70_usize, 1..9),
        ) {
            let head = b"\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n";
            let sent = [head, &behind[..]].concat();
            let (read_ahead, rest) = sent.split_at(split.index(sent.len() + 1));
            let pieces = read(read_ahead, rest, &lengths);
            prop_assert_eq!(pieces.concat(), sent);
            let ends: Vec<_> = pieces.iter().scan(0, |at, piece| { *at += piece.len(); Some(*at) }).collect();
            prop_assert!(ends.contains(&head.len()), "{:?}", ends);
        }

        #[test]
        fn a_bare_line_feed_is_read_as_what_no_head_may_contain(
            at in 0..30_usize,
            split: prop::sample::Index,
            lengths in prop::collection::vec(1..70_usize, 1..9),
        ) {
            let head = [b"GET / HTTP/1.1\r\nHost: x\r\nX: y\r\n\r\n", &b"behind"[..]].concat();
            let at = if head[..at].ends_with(b"\r") { at - 1 } else { at };
            let sent = [&head[..at], b"\n", &head[at..]].concat();
            let (read_ahead, rest) = sent.split_at(split.index(sent.len() + 1));
            let pieces = read(read_ahead, rest, &lengths).concat();
            prop_assert!(pieces.starts_with(&[&head[..at], b"\0\r\n\r\n"].concat()), "{:?}", pieces.escape_ascii().to_string());
        }
    }

    /// A larger one would take memory that there may not be.
    #[test]
    fn a_piece_has_room_in_the_smallest_buffer_and_what_was_read_before_comes_first() {
        let deadline = Deadline::new(&SystemClock, Duration::from_secs(1));
        let (read_ahead, stream) = (Bytes::from_static(b"before"), Cursor::new(vec![7; 100_000]));
        let heads = Heads::default();
        let mut timed = Timed { read_ahead, stream, deadline: &deadline, heads: &heads };
        let mut buffer = [0; 32 * 1024];
        assert_eq!(block_on(timed.read(&mut buffer)).unwrap(), 6);
        assert_eq!(&buffer[..6], b"before");
        assert_eq!(block_on(timed.read(&mut buffer)).unwrap() + HEADROOM, SMALLEST);
        assert_eq!(block_on(timed.read(&mut buffer[..10])).unwrap(), 10);
    }
}
