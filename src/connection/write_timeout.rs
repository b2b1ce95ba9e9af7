//! The write timeout: how long a client may take none of the bytes that it is sent.
//!
//! The kernel ends a connection if the client acknowledges nothing for that time (`TCP_USER_TIMEOUT`). By itself, that
//! timeout can fire too early or never:
//!
//! 1. **Too early.** Linux counts from the moment when the client's window was shut until the window has room for a
//!    whole segment, though the client takes smaller parts meanwhile. On the loopback interface a segment is 64 KiB, so
//!    a proxy with smaller buffers was given up while it read. The client's answers to
//!    [marks](crate::connection::in_flight) show that it reads, so each answer extends the timeout.
//! 2. **Never.** The kernel notices a shut window by its window probes, and each segment from the client restarts their
//!    timer (`tcp_ack_probe`). A client that sends five times a second and reads nothing would keep its connection for
//!    ever. So the relay counts by itself while the socket is full. Written bytes and answers to marks are progress.
//!
//! An extended timeout gives a dead client more time, but [`keepalive`](crate::connection::keepalive) misses its
//! answers.
//!
//! A socket is also full while the kernel is short of memory. As no event tells when it has some again, a timer
//! retries.

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

/// The write timeout of a client. It takes memory only while much is in flight or the socket is full.
#[derive(Default)]
pub(super) struct WriteTimeout(Option<Box<Countdown>>);

/// The state of a write timeout while it counts.
struct Countdown {
    /// When it began: since then, much is in flight or the socket is full.
    since: Instant,
    /// How much longer than configured the kernel's timeout is.
    extension: Duration,
    /// The bytes [written](Outbound::written) at the last call.
    written: u32,
    /// When the client will have taken nothing for too long, as far as the relay can tell.
    deadline: Option<Instant>,
    /// The time of the next attempt to write, while the kernel is short of memory.
    retry: Option<Sleep>,
}

impl Countdown {
    fn new(now: Instant, written: u32) -> Box<Self> {
        let (written, extension) = (written.wrapping_sub(1), Duration::ZERO);
        Box::new(Self { since: now, extension, written, deadline: None, retry: None })
    }
}

impl WriteTimeout {
    /// Wakes the task for another attempt to write while the kernel is short of memory.
    ///
    /// True if that took too long.
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
        let Some(countdown) = &mut self.0 else { return has_stalled };
        loop {
            let after_next = || context.clock.sleep_until(context.clock.now() + RETRY_AFTER);
            if countdown.retry.get_or_insert_with(after_next).as_mut().poll(cx).is_pending() {
                return has_stalled;
            }
            countdown.retry = None;
        }
    }

    /// Goes on counting, and extends the kernel's timeout now and then.
    ///
    /// True if the client has taken nothing for too long.
    ///
    /// `has_answered` says that the client has answered a mark since the last call, and so takes bytes. No other byte
    /// from it says that.
    pub(super) fn advance(
        &mut self,
        socket: &impl Transport,
        outbound: &Outbound,
        has_answered: bool,
        context: &WorkerContext,
    ) -> bool {
        let (bytes, is_blocked) = (outbound.in_flight().bytes(), outbound.is_blocked());
        if self.0.is_none() && bytes < LEAST_IN_FLIGHT && !is_blocked {
            return false;
        }
        let (now, write_timeout, written) = (context.clock.now(), context.write_timeout, outbound.written());
        let countdown = self.0.get_or_insert_with(|| Countdown::new(now, written));
        if has_answered || written != countdown.written || !is_blocked {
            countdown.written = written;
            let patience =
                write_timeout.saturating_add(context.keepalive.time_for(outbound.in_flight().to_next_answer()));
            countdown.deadline = now.checked_add(patience);
        }
        let has_stalled = countdown.deadline.is_some_and(|deadline| now >= deadline);
        let time = now.saturating_duration_since(countdown.since);
        // A system call for each answer would be too many.
        let is_due = has_answered && time > countdown.extension.saturating_add(write_timeout / 4);
        if bytes == 0 && !is_blocked || is_due && bytes < LEAST_MARKED {
            // Not earlier: the window may be shut until the last byte in flight is taken.
            if !countdown.extension.is_zero() {
                socket.set_ack_timeout(write_timeout);
            }
            self.0 = None;
        } else if is_due {
            countdown.extension = time;
            socket.set_ack_timeout(write_timeout.saturating_add(time));
        }
        has_stalled
    }
}
