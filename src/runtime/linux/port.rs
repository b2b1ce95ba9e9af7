//! The listener on the system's sockets: a TCP port on all addresses of a host.

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::task::{Context, Poll};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::SocketFlags;
use socket2::Socket;

use super::tcp::{Registered, Tcp, ack_timeout};
use crate::runtime::addresses;
use crate::runtime::reactor::Readiness;
use crate::runtime::transport::Listener;

/// A port that is listened on, on one or more addresses.
#[derive(Debug)]
pub(crate) struct Port {
    listeners: Vec<Registered<TcpListener>>,
    /// The index of the listener that is asked next, so that no address keeps another one waiting.
    next: Cell<usize>,
}

impl Port {
    /// Listens on all addresses of `host`.
    ///
    /// A client that acknowledges or accepts nothing for `write_timeout` is dead.
    ///
    /// # Errors
    ///
    /// If the host has no address, or one of them cannot be listened on for another reason than that this system does not
    /// have the address or its family. The error says which.
    pub(crate) fn listen(host: &str, port: u16, write_timeout: Duration) -> io::Result<Self> {
        addresses::listen(host, port, |socket| configure(socket, write_timeout)).map(Self::new)
    }

    /// A port with these listeners, which do not block.
    pub(crate) fn new(listeners: Vec<TcpListener>) -> Self {
        Self { listeners: listeners.into_iter().map(Registered::from).collect(), next: Cell::new(0) }
    }

    /// The addresses, with the port that the system chose if it was asked to.
    pub(crate) fn local_addrs(&self) -> io::Result<Vec<SocketAddr>> {
        self.listeners.iter().map(|listener| listener.socket.local_addr()).collect()
    }

    fn poll(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut polled = Poll::Pending;
        for listener in &self.listeners {
            if listener.poll(Readiness::Read, cx)?.is_ready() {
                polled = Poll::Ready(Ok(()));
            }
        }
        polled
    }
}

/// Sets the options of all connections: an accepted socket inherits them.
fn configure(socket: &Socket, write_timeout: Duration) -> io::Result<()> {
    addresses::configure(socket)?;
    socket.set_tcp_user_timeout(Some(ack_timeout(write_timeout)))
}

impl Listener for Port {
    type Socket = Tcp;

    async fn accept(&self) -> io::Result<(Tcp, IpAddr)> {
        loop {
            for _ in &self.listeners {
                let listener = &self.listeners[self.next.get()];
                self.next.set((self.next.get() + 1) % self.listeners.len());
                match rustix::net::acceptfrom_with(&listener.socket, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
                    Ok((socket, peer)) => {
                        let peer = SocketAddr::try_from(peer.ok_or(Errno::AFNOSUPPORT)?)?;
                        return Ok((Tcp::from(TcpStream::from(socket)), peer.ip()));
                    }
                    Err(Errno::WOULDBLOCK) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            poll_fn(|cx| self.poll(cx)).await?;
        }
    }
}
