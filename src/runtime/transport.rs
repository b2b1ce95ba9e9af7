//! What the relay needs of sockets, so that the same code runs on the system's ([`tcp`](crate::runtime::tcp)) and in a
//! simulation.

use std::fmt::Debug;
use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_lite::{AsyncRead, AsyncWrite};
use rustix::io::Errno;

/// Where connections come from.
pub(crate) trait Listener {
    /// A connection's socket.
    type Socket: Transport;

    /// The next connection, and the address that it comes from. After an error there may be another one.
    fn accept(&self) -> impl Future<Output = io::Result<(Self::Socket, IpAddr)>>;
}

/// A stream socket that never blocks. Clones are the same socket; it is closed when the last one is dropped.
///
/// One task waits for it at a time. A wait is over as soon as what it is for is so, which is told once: whoever was told
/// reads until there is less than there was room for, or sends until less is taken, before asking again.
pub(crate) trait Transport: AsyncRead + AsyncWrite + Clone + Debug + Unpin + 'static {
    /// Ready when there may be something to [receive](Self::receive).
    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Ready when there may be room to [send](Self::send).
    fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Ready when the other side's stream is known to have ended or been reset, though there may be more to receive.
    fn poll_ended(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Says that what [readable](Self::poll_readable) told is still so: somebody else is going to receive it.
    fn mark_readable(&self);

    /// Receives what is there, or fails with [`io::ErrorKind::WouldBlock`]. Zero is the end of the stream.
    fn receive(&self, buffer: &mut [u8]) -> io::Result<usize>;

    /// Sends what there is room for, or fails with [`io::ErrorKind::WouldBlock`]. If the stream `ends` with these bytes,
    /// they may wait for its end, which has to follow at once.
    fn send(&self, bytes: &[u8], ends: bool) -> io::Result<usize>;

    /// From now on, [writable](Self::poll_writable) means that all that was sent has left this system.
    fn report_when_sent(&self);

    /// From now on, [writable](Self::poll_writable) means again that there is room.
    fn report_room(&self);

    /// Ends the connection, with [`io::ErrorKind::TimedOut`], once the other side's system has acknowledged nothing for so long
    /// after what was sent had to be sent again. A system that cannot do so ignores it.
    fn set_ack_timeout(&self, timeout: Duration);

    /// Ends this side's stream. The other side's goes on.
    fn shut_down(&self) -> io::Result<()>;

    /// The same socket, for a task on another thread to wait for.
    fn deregister(self) -> Self;
}

/// Whether a send failed because the kernel is short of memory. It may succeed later, and no event tells when.
pub(crate) fn is_out_of_memory(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::NOBUFS | Errno::NOMEM))
}

/// Whether a send failed because the kernel has ended the stream. Then receiving gives the bytes that arrived before, and
/// the end behind them.
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
