//! The write timeout: how long a client may take nothing of what it is sent.
//!
//! The kernel ends a connection whose client acknowledges nothing for that time (`TCP_USER_TIMEOUT`). That is not enough, in both
//! directions:
//!
//! 1. **Too early.** Linux counts from when the client's window was shut until it has room for a whole segment, though the
//!    client takes smaller parts all along. On the loopback interface a segment is 64 KiB, so a proxy with smaller buffers was
//!    given up while it read. Its answers to [marks](crate::connection::in_flight) say that it does: each of them moves the timeout on.
//! 2. **Never.** The kernel notices a shut window by its window probes, and each segment from the client starts their timer anew
//!    (`tcp_ack_probe`). A client that sends five times a second and reads nothing keeps its connection for ever. So the
//!    relay counts by itself while the socket is full: bytes that are written and answers to marks are progress.
//!
//! A client that dies has then more time by the kernel, but [`keepalive`](crate::connection::keepalive) misses its answers.

use std::task::Context;
use std::time::{Duration, Instant};

use super::context::WorkerContext;
use super::outbound::Outbound;
use crate::connection::in_flight::LEAST_MARKED;
use crate::runtime::clock::Sleep;
use crate::runtime::transport::Transport;

/// With fewer bytes in flight, a window is never shut for long.
const LEAST_IN_FLIGHT: u32 = 64 << 10;

/// How long a write waits for memory of the kernel before it is tried again.
const RETRY_AFTER: Duration = Duration::from_millis(100);

/// The extension of a write timeout; there only while much is in flight or the socket is full.
#[derive(Default)]
pub(super) struct WriteTimeout(Option<Box<Pressed>>);

struct Pressed {
    /// Since when much is in flight.
    since: Instant,
    /// How much longer than configured the kernel's timeout is.
    extension: Duration,
    /// What was [written](Outbound::written) at the last look.
    written: u32,
    /// When the client has taken nothing for too long, as far as the relay can tell.
    deadline: Option<Instant>,
    /// Until the next attempt to write, while the kernel is short of memory.
    retry: Option<Sleep>,
}

impl Pressed {
    fn new(now: Instant, written: u32) -> Box<Self> {
        let (written, extension) = (written.wrapping_sub(1), Duration::ZERO);
        Box::new(Self { since: now, extension, written, deadline: None, retry: None })
    }
}

impl WriteTimeout {
    /// Wakes the task for another attempt to write, if the kernel is short of memory. Whether the client has taken nothing
    /// for too long.
    pub(super) fn poll_retry(
        &mut self,
        cx: &mut Context<'_>,
        socket: &impl Transport,
        outbound: &Outbound,
        context: &WorkerContext,
    ) -> bool {
        if !outbound.awaits_memory() {
            return false;
        }
        let has_stalled = self.advance(socket, outbound, false, context);
        let Some(pressed) = &mut self.0 else { return has_stalled };
        loop {
            let after_next = || context.clock.sleep_until(context.clock.now() + RETRY_AFTER);
            if pressed.retry.get_or_insert_with(after_next).as_mut().poll(cx).is_pending() {
                return has_stalled;
            }
            pressed.retry = None;
        }
    }

    /// Extends the kernel's timeout of a client that `takes` what it is sent, as its answer to a mark says, now and then. (Any other
    /// byte says nothing of that.) Whether the client has taken nothing for too long.
    pub(super) fn advance(
        &mut self,
        socket: &impl Transport,
        outbound: &Outbound,
        takes: bool,
        context: &WorkerContext,
    ) -> bool {
        let (bytes, is_blocked) = (outbound.in_flight().bytes(), outbound.is_blocked());
        if self.0.is_none() && bytes < LEAST_IN_FLIGHT && !is_blocked {
            return false;
        }
        let (now, write_timeout, written) = (context.clock.now(), context.write_timeout, outbound.written());
        let pressed = self.0.get_or_insert_with(|| Pressed::new(now, written));
        if takes || written != pressed.written || !is_blocked {
            pressed.written = written;
            let patience =
                write_timeout.saturating_add(context.keepalive.time_for(outbound.in_flight().to_next_answer()));
            pressed.deadline = now.checked_add(patience);
        }
        let has_stalled = pressed.deadline.is_some_and(|deadline| now >= deadline);
        let time = now.saturating_duration_since(pressed.since);
        // A system call for each answer would be too many.
        let is_due = takes && time > pressed.extension.saturating_add(write_timeout / 4);
        if bytes == 0 && !is_blocked || is_due && bytes < LEAST_MARKED {
            // Not before: the window may be shut until the last of them.
            if !pressed.extension.is_zero() {
                socket.set_ack_timeout(write_timeout);
            }
            self.0 = None;
        } else if is_due {
            pressed.extension = time;
            socket.set_ack_timeout(write_timeout.saturating_add(time));
        }
        has_stalled
    }
}
