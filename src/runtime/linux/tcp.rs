//! Connections on the system's sockets. The listener is in [`port`](super::port).

use std::fmt;
use std::io;
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use rustix::net::{RecvFlags, SendFlags};
use socket2::SockRef;

use super::receive_buffer;
use crate::runtime::reactor::{Readiness, Registration};
use crate::runtime::transport::Transport;

/// A value for `TCP_USER_TIMEOUT`.
///
/// The system counts milliseconds, and zero stands for its own, much longer time.
pub(super) fn ack_timeout(timeout: Duration) -> Duration {
    timeout.clamp(Duration::from_millis(1), Duration::from_millis(i32::MAX as u64))
}

/// A TCP connection.
#[derive(Clone)]
pub(crate) struct Tcp(Arc<Inner>);

/// A socket, and its registration with a reactor.
///
/// The first wait registers it with the reactor of its thread. A new socket is ready for reading without that: most clients
/// have sent their head when they are accepted. So a connection is registered once, on the worker where it stays.
struct Inner {
    socket: TcpStream,
    registration: OnceLock<Registration>,
    /// Whether there may be bytes to receive, as long as there is no registration that would know.
    may_be_readable: AtomicBool,
}

impl Inner {
    fn new(socket: TcpStream, may_be_readable: bool) -> Self {
        Self { socket, registration: OnceLock::new(), may_be_readable: AtomicBool::new(may_be_readable) }
    }

    fn poll(&self, readiness: Readiness, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let registration = match self.registration.get() {
            Some(registration) => registration,
            None => {
                let registration = Registration::new(&self.socket)?;
                self.registration.get_or_init(|| registration)
            }
        };
        if readiness == Readiness::Write {
            registration.watch_room(&self.socket)?;
        }
        registration.poll(readiness, cx).map(Ok)
    }

    /// Whether a task should try to receive before it waits.
    fn take_may_be_readable(&self) -> bool {
        // One task polls at a time, so two steps are enough.
        let may_be = self.registration.get().is_none() && self.may_be_readable.load(Relaxed);
        if may_be {
            self.may_be_readable.store(false, Relaxed);
        }
        may_be
    }
}

impl From<TcpStream> for Tcp {
    fn from(socket: TcpStream) -> Self {
        Self(Arc::new(Inner::new(socket, true)))
    }
}

impl fmt::Debug for Tcp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The standard library's implementation has the addresses, too.
        f.debug_tuple("Tcp").field(&self.0.socket.as_fd()).finish()
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
        if self.0.take_may_be_readable() {
            return Poll::Ready(Ok(()));
        }
        self.0.poll(Readiness::Read, cx)
    }

    fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.poll(Readiness::Write, cx)
    }

    fn poll_ended(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.poll(Readiness::End, cx)
    }

    fn mark_readable(&self) {
        match self.0.registration.get() {
            Some(registration) => registration.set_ready(Readiness::Read),
            None => self.0.may_be_readable.store(true, Relaxed),
        }
    }

    fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        // Not by libc's `recv`, which is a cancellation point and so has two locked instructions.
        Ok(rustix::net::recv(&self.0.socket, buffer, RecvFlags::empty())?.0)
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

    fn bound_receive_buffer(&self, is_bounded: bool) {
        let socket = &self.0.socket;
        let _ = if is_bounded { receive_buffer::bound(socket) } else { receive_buffer::unbound(socket) };
    }

    fn shut_down(&self) -> io::Result<()> {
        self.0.socket.shutdown(Shutdown::Write)
    }

    fn deregister(self) -> Self {
        if self.0.registration.get().is_none() {
            return self;
        }
        match Arc::try_unwrap(self.0) {
            Ok(Inner { socket, registration, .. }) => {
                registration.into_inner().into_iter().for_each(|registration| registration.end(&socket));
                // The next registration reports what has arrived.
                Self(Arc::new(Inner::new(socket, false)))
            }
            // With two clones, two threads would consume its readiness, and one could miss it.
            Err(_) => unreachable!("the opening handshake has dropped its clones"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::reactor::Reactor;
    use crate::runtime::timer::Timer;
    use futures_lite::FutureExt;
    use std::future::poll_fn;
    use std::io::Write;
    use std::net::TcpListener;
    use std::time::Instant;

    /// A new connection, and the client's side.
    fn accepted() -> (Tcp, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (socket, _) = listener.accept().unwrap();
        socket.set_nonblocking(true).unwrap();
        (Tcp::from(socket), client)
    }

    fn is_registered(socket: &Tcp) -> bool {
        socket.0.registration.get().is_some()
    }

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        let overdue = async {
            Timer::at(Instant::now() + Duration::from_secs(60)).await;
            panic!("it hangs");
        };
        Reactor::new().unwrap().block_on(future.or(overdue))
    }

    async fn readable(socket: &Tcp) {
        poll_fn(|cx| socket.poll_readable(cx)).await.unwrap();
    }

    #[test]
    fn new_socket_is_read_before_it_is_registered() {
        block_on(async {
            let (socket, mut client) = accepted();
            client.write_all(b"head").unwrap();
            readable(&socket).await;
            assert_eq!(socket.receive(&mut [0; 8]).unwrap(), 4);
            assert_eq!(socket.send(b"answer", false).unwrap(), 6);
            // There is more than was read, and another task is to read it.
            socket.mark_readable();
            readable(&socket).await;
            assert!(!is_registered(&socket));
            // It may move to another thread as it is.
            let socket = socket.deregister();
            client.write_all(b"more").unwrap();
            readable(&socket).await;
            assert!(is_registered(&socket));
        });
    }

    #[test]
    fn silent_socket_is_registered_when_nothing_was_received() {
        block_on(async {
            let (socket, mut client) = accepted();
            readable(&socket).await;
            assert_eq!(socket.receive(&mut [0; 8]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
            let mut polled = poll_fn(|cx| Poll::Ready(socket.poll_readable(cx))).await;
            assert!(polled.is_pending() && is_registered(&socket));
            client.write_all(b"late").unwrap();
            readable(&socket).await;
            // After a move, bytes that are there are reported by the new registration.
            let socket = socket.deregister();
            polled = poll_fn(|cx| Poll::Ready(socket.poll_readable(cx))).await;
            assert!(polled.is_pending() && is_registered(&socket));
            readable(&socket).await;
            assert_eq!(socket.receive(&mut [0; 8]).unwrap(), 4);
        });
    }
}
