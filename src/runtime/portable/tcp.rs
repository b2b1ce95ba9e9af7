//! Connections on the system's sockets. The listener is in [`port`](super::port).

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use smol::Async;

use crate::runtime::transport::Transport;

/// A TCP connection.
///
/// smol's reactor is level-triggered. To wait costs system calls, so each operation is tried first.
#[derive(Clone)]
pub(crate) struct Tcp(Arc<Socket>);

/// A socket and what is known of it. One task uses it at a time.
struct Socket {
    stream: Async<TcpStream>,
    /// Whether bytes may have come since a read found none.
    may_receive: AtomicBool,
    /// Whether the last send found too little room.
    is_full: AtomicBool,
    /// Whether bytes are known to be there. They hide the end of the stream.
    has_bytes: AtomicBool,
    /// An error that a look at the socket has taken from the system, or 0.
    error: AtomicI32,
}

impl From<Async<TcpStream>> for Tcp {
    fn from(stream: Async<TcpStream>) -> Self {
        Self(Arc::new(Socket {
            stream,
            may_receive: AtomicBool::new(true),
            is_full: AtomicBool::new(false),
            has_bytes: AtomicBool::new(false),
            error: AtomicI32::new(0),
        }))
    }
}

impl fmt::Debug for Tcp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The implementation for the stream has the addresses, too.
        f.debug_struct("Tcp").finish_non_exhaustive()
    }
}

fn would_block<T>(result: &io::Result<T>) -> bool {
    result.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
}

#[cfg(test)]
impl Tcp {
    /// The address of the other side.
    pub(crate) fn peer(&self) -> std::net::SocketAddr {
        self.0.stream.get_ref().peer_addr().expect("it is connected")
    }
}

impl Tcp {
    /// Keeps an error that the system reports only once.
    ///
    /// [`receive`](Transport::receive) fails with it, behind the bytes that came before.
    fn keep_error(&self, error: &io::Error) -> Poll<io::Result<()>> {
        self.0.error.store(error.raw_os_error().unwrap_or_default(), Relaxed);
        self.mark_readable();
        Poll::Ready(Ok(()))
    }
}

impl Transport for Tcp {
    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.0.may_receive.swap(false, Relaxed) { Poll::Ready(Ok(())) } else { self.0.stream.poll_readable(cx) }
    }

    fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.0.is_full.load(Relaxed) {
            ready!(self.0.stream.poll_writable(cx))?;
            self.0.is_full.store(false, Relaxed);
        }
        Poll::Ready(Ok(()))
    }

    /// Behind unread bytes this sees no end, as no call of every system tells it.
    ///
    /// It sees a reset there, whenever it is asked: at the next beat, as no event tells it.
    fn poll_ended(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Bytes that were seen are there until they are received, and waiting for others would not wait.
        while !self.0.has_bytes.load(Relaxed) {
            match self.0.stream.get_ref().peek(&mut [0]) {
                Ok(0) => return Poll::Ready(Ok(())),
                Ok(_) => self.0.has_bytes.store(true, Relaxed),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready!(self.0.stream.poll_readable(cx))?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return self.keep_error(&error),
            }
        }
        match self.0.stream.get_ref().take_error() {
            Ok(Some(error)) => self.keep_error(&error),
            _ => Poll::Pending,
        }
    }

    fn mark_readable(&self) {
        self.0.may_receive.store(true, Relaxed);
    }

    fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.has_bytes.store(false, Relaxed);
        let result = self.0.stream.get_ref().read(buffer);
        match result {
            Ok(0) if !buffer.is_empty() => match self.0.error.swap(0, Relaxed) {
                0 => result,
                error => Err(io::Error::from_raw_os_error(error)),
            },
            _ => result,
        }
    }

    fn send(&self, bytes: &[u8], _ends: bool) -> io::Result<usize> {
        let result = self.0.stream.get_ref().write(bytes);
        let is_full = would_block(&result) || result.as_ref().is_ok_and(|&count| count < bytes.len());
        self.0.is_full.store(is_full, Relaxed);
        result
    }

    /// Nothing: sent bytes count as gone when the system has taken them.
    ///
    /// Then a closing handshake begins to count a little early. The time that it gives is by the bytes that the client
    /// has not confirmed, and those are among them.
    fn report_when_sent(&self) {}

    fn report_room(&self) {}

    /// Nothing. A client that acknowledges nothing is found by the write timeout and by pings.
    fn set_ack_timeout(&self, _timeout: Duration) {}

    /// Nothing. A sender's own pings wait behind what its system and the relay's have taken.
    fn bound_receive_buffer(&self, _is_bounded: bool) {}

    fn shut_down(&self) -> io::Result<()> {
        self.0.stream.get_ref().shutdown(Shutdown::Write)
    }

    /// All threads share the reactor, so a move costs nothing.
    fn deregister(self) -> Self {
        self
    }
}

#[cfg(test)]
impl From<TcpStream> for Tcp {
    fn from(stream: TcpStream) -> Self {
        Async::new(stream).expect("the reactor has room").into()
    }
}
