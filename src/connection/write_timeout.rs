//! The write timeout of a client that reads slowly through a small window.
//!
//! The kernel ends a connection whose client acknowledges nothing for the write timeout (`TCP_USER_TIMEOUT`). Linux counts it, too,
//! from when the client's window was shut until it has room for a whole segment, though the client takes smaller parts all
//! along. On the loopback interface a segment is 64 KiB, so a proxy with smaller buffers was given up while it read. Its answers
//! to [marks](crate::in_flight) say that it does: each of them moves the timeout on.
//!
//! A client that dies has then more time by the kernel, but [`liveness`](crate::liveness) misses its answers.

use std::time::{Duration, Instant};

use super::Surroundings;
use super::outbound::Outbound;
use crate::in_flight::LEAST_MARKED;
use crate::transport::Transport;

/// With fewer bytes in flight, a window is never shut for long.
const LEAST_IN_FLIGHT: u32 = 64 << 10;

/// The extension of a write timeout; there only while much is in flight.
#[derive(Debug, Default)]
pub(super) struct WriteTimeout(Option<Box<Pressed>>);

#[derive(Debug)]
struct Pressed {
    /// Since when much is in flight.
    since: Instant,
    /// How much longer than configured the timeout is.
    extension: Duration,
}

impl WriteTimeout {
    /// Extends the timeout of a client that `takes` what it is sent, as its answer to a mark says, now and then. (Any other byte
    /// says nothing of that: a client that sends and does not read is given up.)
    pub(super) fn advance(
        &mut self,
        socket: &impl Transport,
        outbound: &Outbound,
        takes: bool,
        surroundings: &Surroundings,
    ) {
        let bytes = outbound.in_flight().bytes();
        if self.0.is_none() && bytes < LEAST_IN_FLIGHT {
            return;
        }
        let (now, write_timeout) = (surroundings.clock.now(), surroundings.write_timeout);
        let pressed = self.0.get_or_insert_with(|| Box::new(Pressed { since: now, extension: Duration::ZERO }));
        let time = now.saturating_duration_since(pressed.since);
        // A system call for each answer would be too many.
        let is_due = takes && time > pressed.extension.saturating_add(write_timeout / 4);
        if bytes == 0 || is_due && bytes < LEAST_MARKED {
            // Not before: the window may be shut until the last of them.
            if !pressed.extension.is_zero() {
                socket.set_ack_timeout(write_timeout);
            }
            self.0 = None;
        } else if is_due {
            pressed.extension = time;
            socket.set_ack_timeout(write_timeout.saturating_add(time));
        }
    }
}
