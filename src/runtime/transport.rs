//! Traits for sockets.
//!
//! By them, the same code runs on TCP (`tcp`) and in the simulation.

use std::fmt::Debug;
use std::io;
use std::net::IpAddr;
use std::task::{Context, Poll};
use std::time::Duration;

/// A worker's handle to a listening socket. All workers share the queue of its connections.
///
/// One task waits for it. Readiness is edge-triggered: the task accepts until the queue is empty before it waits again. An
/// idle worker is told of each connection. A busy one is told, too, and finds out when it is idle.
pub(crate) trait Listener: Sized {
    /// The socket of a connection.
    type Socket: Transport;

    /// A handle for another worker. The socket is closed when the last one is dropped.
    fn share(&self) -> Self;

    /// Whether another process has the queue, too, and goes on with it when this relay stops.
    fn is_inherited(&self) -> bool {
        false
    }

    /// Ready when there may be connections to [accept](Self::accept).
    fn poll_acceptable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Takes the next connection out of the queue, with its remote address.
    ///
    /// With [`io::ErrorKind::WouldBlock`] the queue is empty. After another error, another connection may still be accepted.
    fn accept(&self) -> io::Result<(Self::Socket, IpAddr)>;
}

/// A non-blocking stream socket. Clones share it, and it is closed when the last clone is dropped.
///
/// One task waits for it at a time. Readiness is edge-triggered: it is reported once, and the task reads until a read
/// is short, or sends until a send is, before it waits again.
pub(crate) trait Transport: Clone + Debug + Unpin + 'static {
    /// Ready when there may be bytes to [receive](Self::receive).
    ///
    /// A socket that was just accepted is ready once.
    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Ready when there may be room to [send](Self::send).
    fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Ready when the other side's stream has ended or was reset, though there may be more to receive.
    fn poll_ended(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Reports [readable](Self::poll_readable) once more: another task will receive the remaining bytes.
    fn mark_readable(&self);

    /// Receives bytes that have arrived, or fails with [`io::ErrorKind::WouldBlock`].
    ///
    /// Zero is the end of the stream.
    fn receive(&self, buffer: &mut [u8]) -> io::Result<usize>;

    /// Sends as many bytes as there is room for, or fails with [`io::ErrorKind::WouldBlock`].
    ///
    /// If the stream `ends` with these bytes, they may wait for its [shutdown](Self::shut_down), which has to follow at
    /// once.
    fn send(&self, bytes: &[u8], ends: bool) -> io::Result<usize>;

    /// From now on, [writable](Self::poll_writable) means that all bytes have left this system.
    fn report_when_sent(&self);

    /// From now on, [writable](Self::poll_writable) means that there is room, as at first.
    fn report_room(&self);

    /// Sets for how long the other side's kernel may acknowledge nothing after a retransmission.
    ///
    /// Then the connection ends with [`io::ErrorKind::TimedOut`]. A system without such a timeout ignores it.
    fn set_ack_timeout(&self, timeout: Duration);

    /// Bounds how much the system receives ahead from the other side, or lets it decide again.
    ///
    /// The bound is a few ten KiB, which is less than a fast sender needs. A system without such a bound ignores it.
    fn bound_receive_buffer(&self, is_bounded: bool);

    /// Ends this side's stream. The other side's goes on.
    fn shut_down(&self) -> io::Result<()>;

    /// Releases the socket from this thread's reactor, so that a task on another thread can wait for it.
    fn deregister(self) -> Self;
}

/// Whether a send failed because the kernel has ended the stream.
///
/// Then receiving gives the bytes that arrived before, and the end behind them.
pub(crate) fn ends_stream(kind: io::ErrorKind) -> bool {
    matches!(
        kind,
        io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::TimedOut
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::NetworkDown
    )
}
