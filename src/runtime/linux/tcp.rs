//! Connections on the system's sockets. The listener is in [`port`](super::port).

use std::fmt;
use std::io::{self, Read};
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsFd;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use rustix::net::SendFlags;
use socket2::SockRef;

use crate::runtime::reactor::{Readiness, Registration};
use crate::runtime::transport::Transport;

/// A value for `TCP_USER_TIMEOUT`.
///
/// The system counts milliseconds, and zero stands for its own, much longer time.
pub(super) fn ack_timeout(timeout: Duration) -> Duration {
    timeout.clamp(Duration::from_millis(1), Duration::from_millis(i32::MAX as u64))
}

/// A socket. The first thread that waits for it registers it with its reactor.
struct Registered<S> {
    socket: S,
    registration: OnceLock<Registration>,
}

impl<S> From<S> for Registered<S> {
    fn from(socket: S) -> Self {
        Self { socket, registration: OnceLock::new() }
    }
}

impl<S: AsFd> fmt::Debug for Registered<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The standard library's implementation has the addresses, too.
        f.debug_tuple("Registered").field(&self.socket.as_fd()).finish()
    }
}

impl<S: AsFd> Registered<S> {
    fn poll(&self, readiness: Readiness, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let registration = match self.registration.get() {
            Some(registration) => registration,
            None => {
                let registration = Registration::new(&self.socket)?;
                self.registration.get_or_init(|| registration)
            }
        };
        registration.poll(readiness, cx).map(Ok)
    }
}

/// A TCP connection.
#[derive(Clone, Debug)]
pub(crate) struct Tcp(Arc<Registered<TcpStream>>);

impl From<TcpStream> for Tcp {
    fn from(socket: TcpStream) -> Self {
        Self(Arc::new(socket.into()))
    }
}

#[cfg(test)]
impl Tcp {
    /// The address of the other side.
    pub(crate) fn peer(&self) -> std::net::SocketAddr {
        self.0.socket.peer_addr().expect("it is connected")
    }
}

impl Transport for Tcp {
    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.poll(Readiness::Read, cx)
    }

    fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.poll(Readiness::Write, cx)
    }

    fn poll_ended(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.poll(Readiness::End, cx)
    }

    fn mark_readable(&self) {
        if let Some(registration) = self.0.registration.get() {
            registration.set_ready(Readiness::Read);
        }
    }

    fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        (&self.0.socket).read(buffer)
    }

    fn send(&self, bytes: &[u8], ends: bool) -> io::Result<usize> {
        // The end then goes in the same segment.
        let flags = if ends { SendFlags::NOSIGNAL.union(SendFlags::MORE) } else { SendFlags::NOSIGNAL };
        let result = rustix::net::send(&self.0.socket, bytes, flags).map_err(io::Error::from);
        let is_full = match &result {
            Ok(count) => *count < bytes.len(),
            Err(error) => error.kind() == io::ErrorKind::WouldBlock,
        };
        if let (true, Some(registration)) = (is_full, self.0.registration.get()) {
            // There is no room now, whatever an earlier event said. Another one will come when there is.
            registration.set_pending(Readiness::Write);
        }
        result
    }

    fn report_when_sent(&self) {
        // The system's queue may hold megabytes, and closing the socket can discard them: the client's next byte is then
        // answered with a reset. Without the option, writability says only that bytes are queued.
        let _ = SockRef::from(&self.0.socket).set_tcp_notsent_lowat(1);
        if let Some(registration) = self.0.registration.get() {
            registration.set_pending(Readiness::Write);
            let _ = registration.look_again(&self.0.socket);
        }
    }

    fn report_room(&self) {
        // Zero stands for the system's own limit, as before.
        let _ = SockRef::from(&self.0.socket).set_tcp_notsent_lowat(0);
    }

    fn set_ack_timeout(&self, timeout: Duration) {
        let _ = SockRef::from(&self.0.socket).set_tcp_user_timeout(Some(ack_timeout(timeout)));
    }

    fn shut_down(&self) -> io::Result<()> {
        self.0.socket.shutdown(Shutdown::Write)
    }

    fn deregister(self) -> Self {
        match Arc::try_unwrap(self.0) {
            Ok(Registered { socket, registration }) => {
                if let Some(registration) = registration.into_inner() {
                    registration.end(&socket);
                }
                Self::from(socket)
            }
            // With two clones, two threads would consume its readiness, and one could miss it.
            Err(_) => unreachable!("the opening handshake has dropped its clones"),
        }
    }
}
