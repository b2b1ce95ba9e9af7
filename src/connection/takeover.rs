//! The takeover probe of a seated client: a third client wants a seat of its pair.
//!
//! Two kinds of evidence make a client lose its seat to the third client:
//!
//! 1. **Its kernel is silent.** The ping has left this system, and nothing acknowledges it. The relay's kernel
//!    retransmits by the line's round trip. The connection ends when it has done so without an acknowledgement for the
//!    *probe timeout* (`TCP_USER_TIMEOUT`, RFC 5482). So a client that has vanished loses its seat within seconds.
//! 2. **Its program is silent**, though its kernel, or a proxy, acknowledges the ping. That takes the *ping timeout*,
//!    by [`keepalive`](crate::connection::keepalive). Until then the third client is rejected with 409 and may come
//!    again.
//!
//! The first needs care. If a program does not read, its kernel acknowledges everything but shuts its window, and the
//! timeout would count that too. So the timeout is set only when nothing is unsent, and reset as soon as anything more
//! is written.

use std::task::Context;

use super::context::WorkerContext;
use super::outbound::Outbound;
use crate::runtime::transport::Transport;

/// The progress of a takeover probe.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Takeover {
    /// No probe, or one that the client has answered.
    #[default]
    None,
    /// The ping is queued.
    Pinged,
    /// The ping is written, and the socket will report when it is sent.
    Sending,
    /// The ping is sent, and its acknowledgement has the probe timeout.
    Sent {
        /// The bytes [written](Outbound::written) by then.
        written: u32,
    },
    /// Only the ping timeout is left.
    Undecided,
}

impl Takeover {
    /// Whether the client owes an answer.
    pub(super) fn is_probed(self) -> bool {
        self != Self::None
    }

    /// Goes on with a probe as far as possible.
    pub(super) fn advance(
        &mut self,
        cx: &mut Context<'_>,
        socket: &impl Transport,
        outbound: &Outbound,
        context: &WorkerContext,
    ) {
        if *self == Self::Pinged && outbound.is_flushed() {
            socket.report_when_sent();
            *self = Self::Sending;
        }
        if *self == Self::Sending && outbound.is_flushed() && socket.poll_writable(cx).is_ready() {
            socket.report_room();
            socket.set_ack_timeout(context.probe_timeout);
            *self = Self::Sent { written: outbound.written() };
        }
        if let Self::Sent { written } = *self
            && (written != outbound.written() || !outbound.is_flushed())
        {
            socket.set_ack_timeout(context.write_timeout);
            *self = Self::Undecided;
        }
    }

    /// Ends a probe: the client has answered, or the connection closes.
    pub(super) fn end(&mut self, socket: &impl Transport, context: &WorkerContext) {
        match std::mem::take(self) {
            Self::None | Self::Pinged | Self::Undecided => {}
            Self::Sending => socket.report_room(),
            Self::Sent { .. } => socket.set_ack_timeout(context.write_timeout),
        }
    }
}
