//! The system's sockets: a port to listen on, and the connections that come to it.

use std::fmt;
use std::future::poll_fn;
use std::io::{self, Read};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::os::fd::AsFd;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_lite::{AsyncRead, AsyncWrite};
use rustix::io::Errno;
use rustix::net::{SendFlags, SocketFlags};
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};

use crate::runtime::reactor::{Readiness, Registration};
use crate::runtime::transport::{Listener, Transport};

/// How many connections may wait to be accepted. The system may allow fewer (`net.core.somaxconn`).
const BACKLOG: i32 = 4096;

/// How long a connection may be quiet before the system asks whether the client is still there, and how often then.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(30);
const KEEPALIVE_EVERY: Duration = Duration::from_secs(10);

/// A port that is listened on.
#[derive(Debug)]
pub(crate) struct Port(Registered<TcpListener>);

impl Port {
    /// Listens on the first address of `host` that can be listened on. A client that acknowledges or accepts nothing for
    /// `write_timeout` is dead.
    pub(crate) fn listen(host: &str, port: u16, write_timeout: Duration) -> io::Result<Self> {
        let mut failure = io::Error::new(io::ErrorKind::NotFound, "no address of that name");
        // Brackets are customary around an IPv6 address that a port follows.
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        for address in (host, port).to_socket_addrs()? {
            match listen_on(address, write_timeout) {
                Ok(listener) => return Ok(Self(listener.into())),
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    /// The address, with the port that the system chose if it was asked to.
    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.socket.local_addr()
    }
}

fn listen_on(address: SocketAddr, write_timeout: Duration) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // Connections of an earlier relay that are still closing must not keep a new one from its port.
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    configure(&socket, write_timeout)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Sets what every connection has in common: an accepted socket inherits it.
fn configure(socket: &Socket, write_timeout: Duration) -> io::Result<()> {
    socket.set_nonblocking(true)?;
    // Batches are written whole: there is nothing to be gained from waiting for more.
    socket.set_tcp_nodelay(true)?;
    // Who vanished without a word would keep its code for ever: ask those who are quiet, and give up on those who do
    // not answer, or who let what is sent to them lie.
    let probes = TcpKeepalive::new().with_time(KEEPALIVE_AFTER).with_interval(KEEPALIVE_EVERY);
    socket.set_tcp_keepalive(&probes)?;
    socket.set_tcp_user_timeout(Some(ack_timeout(write_timeout)))
}

/// A `TCP_USER_TIMEOUT`: the system counts in milliseconds, and takes none for its own much longer time.
fn ack_timeout(timeout: Duration) -> Duration {
    timeout.clamp(Duration::from_millis(1), Duration::from_millis(i32::MAX as u64))
}

impl Listener for Port {
    type Socket = Tcp;

    async fn accept(&self) -> io::Result<(Tcp, IpAddr)> {
        loop {
            match rustix::net::acceptfrom_with(&self.0.socket, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
                Ok((socket, peer)) => {
                    let peer = SocketAddr::try_from(peer.ok_or(Errno::AFNOSUPPORT)?)?;
                    return Ok((Tcp(Arc::new(TcpStream::from(socket).into())), peer.ip()));
                }
                Err(Errno::WOULDBLOCK) => poll_fn(|cx| self.0.poll(Readiness::Read, cx)).await?,
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// A socket, registered with the reactor of the thread that is the first to wait for it.
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
        // The standard library's would tell the addresses, too.
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
            // Whatever was told before, there is no room now. An event will tell when there is again.
            registration.set_pending(Readiness::Write);
        }
        result
    }

    fn report_when_sent(&self) {
        // The system's queue may hold megabytes, and closing the socket can throw them away (the next byte from the
        // client is then answered with a reset). Without the option it is known only that they are queued.
        let _ = SockRef::from(&self.0.socket).set_tcp_notsent_lowat(1);
        if let Some(registration) = self.0.registration.get() {
            registration.set_pending(Readiness::Write);
            let _ = registration.look_again(&self.0.socket);
        }
    }

    fn report_room(&self) {
        // Zero is what it was: the system's own limit.
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
                Self(Arc::new(socket.into()))
            }
            // Both threads would say what it is ready for, and one of them could miss it.
            Err(_) => unreachable!("hyper has let go of it"),
        }
    }
}

impl AsyncRead for Tcp {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.poll_readable(cx))?;
            match self.receive(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => {
                    if result.as_ref().is_ok_and(|&count| count == buffer.len()) || result.is_err() {
                        self.mark_readable();
                    }
                    return Poll::Ready(result);
                }
            }
        }
    }
}

impl AsyncWrite for Tcp {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            match self.send(bytes, false) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready!(self.poll_writable(cx))?,
                result => return Poll::Ready(result),
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(())) // a socket has no buffer of ours
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.shut_down())
    }
}
