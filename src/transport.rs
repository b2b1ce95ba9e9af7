//! What a connection needs of its socket and of time, so that the same code runs on the system's and in a simulation.

use std::fmt::Debug;
use std::future::Future;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use futures_lite::{AsyncRead, AsyncWrite};
use rustix::event::{PollFd, PollFlags, Timespec};
use smol::{Async, Timer};
use socket2::SockRef;

/// A stream socket that never blocks. Clones are the same socket; it is closed when the last one is dropped.
pub(crate) trait Transport: AsyncRead + AsyncWrite + Clone + Debug + Unpin + 'static {
    /// Ready when there may be something to [receive](Self::receive), once after each call that was pending.
    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Ready when there may be room to [send](Self::send), once after each call that was pending.
    fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Receives what is there, or fails with [`io::ErrorKind::WouldBlock`]. Zero is the end of the stream.
    fn receive(&self, buffer: &mut [u8]) -> io::Result<usize>;

    /// Sends what there is room for, or fails with [`io::ErrorKind::WouldBlock`].
    fn send(&self, bytes: &[u8]) -> io::Result<usize>;

    /// From now on, [writable](Self::poll_writable) means that all that was sent has left this system.
    fn report_when_sent(&self);

    /// Ends this side's stream. The other side's goes on.
    fn shut_down(&self) -> io::Result<()>;

    /// Whether the other side's stream is known to have ended or been reset, though there may be more to receive.
    fn has_ended(&self) -> bool;
}

/// Time, and a way to wait for it.
pub(crate) trait Clock: Debug + Send + Sync {
    /// The time.
    fn now(&self) -> Instant;

    /// Ready at `deadline` or a little later.
    fn sleep_until(&self, deadline: Instant) -> Sleep;
}

/// A wait for a time.
pub(crate) type Sleep = Pin<Box<dyn Future<Output = ()> + Send + Sync>>;

/// A TCP connection.
#[derive(Clone, Debug)]
pub(crate) struct Tcp(Arc<Async<TcpStream>>);

impl From<async_net::TcpStream> for Tcp {
    fn from(stream: async_net::TcpStream) -> Self {
        Self(stream.into())
    }
}

impl Transport for Tcp {
    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.poll_readable(cx)
    }

    fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.poll_writable(cx)
    }

    fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.get_ref().read(buffer)
    }

    fn send(&self, bytes: &[u8]) -> io::Result<usize> {
        self.0.get_ref().write(bytes)
    }

    fn report_when_sent(&self) {
        // The system's queue may hold megabytes, and closing the socket can throw them away (the next byte from the
        // client is then answered with a reset). Without the option it is known only that they are queued.
        let _ = SockRef::from(&*self.0).set_tcp_notsent_lowat(1);
    }

    fn shut_down(&self) -> io::Result<()> {
        self.0.get_ref().shutdown(Shutdown::Write)
    }

    fn has_ended(&self) -> bool {
        let mut watched = [PollFd::new(&self.0, PollFlags::RDHUP)]; // and errors, which are always reported
        rustix::event::poll(&mut watched, Some(&Timespec::default())).is_ok_and(|found| found > 0)
    }
}

impl AsyncRead for Tcp {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut &*self.0).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Tcp {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut &*self.0).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut &*self.0).poll_flush(cx)
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut &*self.0).poll_close(cx)
    }
}

/// The system's time.
#[derive(Debug)]
pub(crate) struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Instant {
        Instant::now()
    }

    fn sleep_until(&self, deadline: Instant) -> Sleep {
        Box::pin(async move {
            Timer::at(deadline).await;
        })
    }
}
