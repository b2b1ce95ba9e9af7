//! A client's outgoing half of the link to its peer, and its seat, until either side departs.

use std::task::Context;

use crate::buffers::buffer::Buffer;
use crate::pairing::link::{Outgoing, Pace, SpareChannels};
use crate::pairing::seats::Seat;
use crate::runtime::transport::Transport;

/// The way of a client's batches, while there is one.
#[derive(Debug)]
pub(super) struct PeerLink(Option<Ends>);

#[derive(Debug)]
struct Ends {
    /// Dropped before `outgoing`: the code is free before the peer learns of the departure.
    /// None if the client is known to be gone, while its last bytes are still to be read.
    seat: Option<Seat>,
    outgoing: Outgoing<Box<Buffer>>,
}

impl PeerLink {
    pub(super) fn new(seat: Seat, outgoing: Outgoing<Box<Buffer>>) -> Self {
        Self(Some(Ends { seat: Some(seat), outgoing }))
    }

    /// The client's seat, unless it has left it.
    pub(super) fn seat(&mut self) -> Option<&mut Seat> {
        self.0.as_mut()?.seat.as_mut()
    }

    /// Whether the client has not departed.
    pub(super) fn is_open(&self) -> bool {
        self.0.is_some()
    }

    /// Whether the link has ended, on either side.
    pub(super) fn is_abandoned(&self) -> bool {
        self.0.as_ref().is_none_or(|ends| ends.outgoing.is_abandoned())
    }

    /// Whether the next batch can be sent. If not, a credit will wake the task.
    pub(super) fn has_credit(&mut self, cx: &mut Context<'_>) -> bool {
        self.0.as_mut().is_none_or(|ends| ends.outgoing.poll_ready(cx).is_ready())
    }

    /// Whether the peer is known to take batches as fast as they come.
    pub(super) fn is_fast(&self) -> bool {
        self.0.as_ref().is_none_or(|ends| ends.outgoing.pace() == Pace::Fast)
    }

    /// Whether the peer takes batches, but is not known to take them as fast as they come.
    pub(super) fn is_slow(&self) -> bool {
        self.0.as_ref().is_some_and(|ends| ends.outgoing.pace() == Pace::Slow)
    }

    /// Sends a batch, for which there has to be a [credit](Self::has_credit).
    pub(super) fn send(&mut self, batch: Box<Buffer>, channels: &SpareChannels<Box<Buffer>>) {
        if let Some(ends) = &mut self.0 {
            ends.outgoing.send(batch, channels);
        }
    }

    /// Departs: frees the code, and returns the link, to be finished. None the second time.
    pub(super) fn leave(&mut self) -> Option<Outgoing<Box<Buffer>>> {
        let Ends { seat, outgoing } = self.0.take()?;
        drop(seat);
        Some(outgoing)
    }

    /// Frees the code if the client's stream has ended, though there is more to read.
    ///
    /// True if this call did so.
    pub(super) fn free_if_ended(&mut self, cx: &mut Context<'_>, socket: &impl Transport) -> bool {
        let Some(Ends { seat: seat @ Some(_), .. }) = &mut self.0 else { return false };
        let has_ended = socket.poll_ended(cx).is_ready();
        if has_ended {
            *seat = None;
        }
        has_ended
    }
}
