//! The listener on the system's sockets: a TCP port on all addresses of a host.

use std::cell::{Cell, OnceCell};
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::task::{Context, Poll};

use rustix::io::Errno;
use rustix::net::SocketFlags;
use socket2::Socket;

use super::receive_buffer;
use super::tcp::{Tcp, ack_timeout};
use crate::runtime::addresses::{self, SocketConfig};
use crate::runtime::reactor::{Readiness, Registration};
use crate::runtime::transport::Listener;

/// A worker's handle to a port that is listened on, on one or more addresses.
///
/// All workers share one socket for each address, and each registers it with its own reactor.
#[derive(Debug)]
pub(crate) struct Port {
    listeners: Arc<[TcpListener]>,
    /// The registration of each listener with the reactor of this worker, from the first wait on.
    registrations: Box<[OnceCell<Registration>]>,
    /// The index of the listener that is asked next, so that no address keeps another one waiting.
    next: Cell<usize>,
    is_inherited: bool,
}

impl From<Arc<[TcpListener]>> for Port {
    fn from(listeners: Arc<[TcpListener]>) -> Self {
        let registrations = listeners.iter().map(|_| OnceCell::new()).collect();
        Self { listeners, registrations, next: Cell::new(0), is_inherited: false }
    }
}

impl Port {
    /// A port with these listeners, which do not block.
    pub(crate) fn new(listeners: Vec<TcpListener>) -> io::Result<Self> {
        Ok(Self::from(Arc::<[_]>::from(listeners)))
    }

    /// Listens on all addresses of `host`.
    ///
    /// # Errors
    ///
    /// If the host has no address, or one of them cannot be listened on for another reason than that this system does not
    /// have the address or its family. The error says which.
    pub(crate) fn listen(host: &str, port: u16, config: SocketConfig) -> io::Result<Self> {
        Self::new(addresses::listen(host, port, |socket| configure(socket, config))?)
    }

    /// Accepts from sockets that another process listens with, and that it keeps.
    ///
    /// # Errors
    ///
    /// If there is none, or one of them does not listen.
    pub(crate) fn inherit(listeners: Vec<TcpListener>, config: SocketConfig) -> io::Result<Self> {
        let listeners = addresses::inherit(listeners, |socket| configure(socket, config))?;
        let mut port = Self::new(listeners)?;
        port.is_inherited = true;
        Ok(port)
    }

    /// The addresses, with the port that the system chose if it was asked to.
    pub(crate) fn local_addrs(&self) -> io::Result<Vec<SocketAddr>> {
        self.listeners.iter().map(TcpListener::local_addr).collect()
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        // The sockets stay open as long as another worker has a handle.
        for (registration, listener) in self.registrations.iter_mut().zip(&*self.listeners) {
            registration.take().into_iter().for_each(|registration| registration.end(listener));
        }
    }
}

/// Sets the options of all connections: an accepted socket inherits them.
fn configure(socket: &Socket, config: SocketConfig) -> io::Result<()> {
    addresses::configure(socket)?;
    addresses::bound_segments(socket, config)?;
    let _ = receive_buffer::begin_at_bound(socket); // older than Linux 5.14
    socket.set_tcp_user_timeout(Some(ack_timeout(config.write_timeout)))
}

impl Listener for Port {
    type Socket = Tcp;

    fn share(&self) -> Self {
        let mut port = Self::from(Arc::clone(&self.listeners));
        port.is_inherited = self.is_inherited;
        port
    }

    fn is_inherited(&self) -> bool {
        self.is_inherited
    }

    fn poll_acceptable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut polled = Poll::Pending;
        for (registered, listener) in self.registrations.iter().zip(&*self.listeners) {
            let registration = match registered.get() {
                Some(registration) => registration,
                None => {
                    let registration = Registration::shared(listener)?;
                    registered.get_or_init(|| registration)
                }
            };
            if registration.poll(Readiness::Read, cx).is_ready() {
                polled = Poll::Ready(Ok(()));
            }
        }
        polled
    }

    fn accept(&self) -> io::Result<(Tcp, IpAddr)> {
        addresses::accept_in_turn(&self.listeners, &self.next, |listener| {
            let (socket, peer) = rustix::net::acceptfrom_with(listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?;
            let peer = SocketAddr::try_from(peer.ok_or(Errno::AFNOSUPPORT)?)?;
            Ok((Tcp::from(TcpStream::from(socket)), peer.ip()))
        })
    }
}
