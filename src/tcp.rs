//! The system's sockets: a port to listen on, and the connections that come to it.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_lite::{AsyncRead, AsyncWrite};
use rustix::event::{PollFd, PollFlags, Timespec};
use smol::Async;
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};

use crate::transport::{Listener, Transport};

/// How many connections may wait to be accepted. The system may allow fewer (`net.core.somaxconn`).
const BACKLOG: i32 = 4096;

/// How long a connection may be quiet before the system asks whether the client is still there, and how often then.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(30);
const KEEPALIVE_EVERY: Duration = Duration::from_secs(10);

/// How long the system waits for a client to acknowledge or to accept anything: beyond it, the client is dead. Longer
/// than a phone takes between two networks, or a stopped process to be started again.
const DEAD_AFTER: Duration = Duration::from_secs(90);

/// A port that is listened on.
#[derive(Debug)]
pub(crate) struct Port(async_net::TcpListener);

impl Port {
    /// Listens on the first address of `host` that can be listened on.
    pub(crate) fn listen(host: &str, port: u16) -> io::Result<Self> {
        let mut failure = io::Error::new(io::ErrorKind::NotFound, "no address of that name");
        // Brackets are customary around an IPv6 address that a port follows.
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        for address in (host, port).to_socket_addrs()? {
            match listen_on(address) {
                Ok(listener) => return Ok(Self(listener.try_into()?)),
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    /// The address, with the port that the system chose if it was asked to.
    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

fn listen_on(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // Connections of an earlier relay that are still closing must not keep a new one from its port.
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

impl Listener for Port {
    type Socket = Tcp;

    async fn accept(&self) -> io::Result<Tcp> {
        let (stream, _) = self.0.accept().await?;
        configure(&stream);
        Ok(Tcp(stream.into()))
    }
}

/// Sets what every connection has in common. None of it can fail but on a socket that is gone already.
fn configure(stream: &async_net::TcpStream) {
    let socket = SockRef::from(stream);
    // Batches are written whole: there is nothing to be gained from waiting for more.
    let _ = socket.set_tcp_nodelay(true);
    // Who vanished without a word would keep its code for ever: ask those who are quiet, and give up on those who do
    // not answer, or who let what is sent to them lie.
    let probes = TcpKeepalive::new().with_time(KEEPALIVE_AFTER).with_interval(KEEPALIVE_EVERY);
    let _ = socket.set_tcp_keepalive(&probes);
    let _ = socket.set_tcp_user_timeout(Some(DEAD_AFTER));
}

/// A TCP connection.
#[derive(Clone, Debug)]
pub(crate) struct Tcp(Arc<Async<TcpStream>>);

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
