//! The listener on the system's sockets: a TCP port on all addresses of a host.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use smol::Async;
use socket2::{SockRef, Socket};

use super::tcp::Tcp;
use crate::runtime::addresses::{self, SocketConfig};
use crate::runtime::transport::Listener;

/// A socket that any number of workers wait for.
type Shared = Arc<Async<TcpListener>>;

/// A wait until a connection may have come.
type Wait = Pin<Box<dyn Future<Output = io::Result<()>> + Send>>;

/// A worker's handle to a port that is listened on, on one or more addresses.
///
/// A connection wakes all idle workers, and one of them accepts it.
pub(crate) struct Port {
    listeners: Arc<[Shared]>,
    /// The wait of this worker for each listener, while there is one.
    waits: RefCell<Vec<Option<Wait>>>,
    /// The index of the listener that is asked next, so that no address keeps another one waiting.
    next: Cell<usize>,
    is_inherited: bool,
}

impl fmt::Debug for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Port").field("listeners", &self.listeners.len()).finish_non_exhaustive()
    }
}

impl From<Arc<[Shared]>> for Port {
    fn from(listeners: Arc<[Shared]>) -> Self {
        let waits = listeners.iter().map(|_| None).collect();
        Self { listeners, waits: RefCell::new(waits), next: Cell::new(0), is_inherited: false }
    }
}

impl Port {
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

    /// A port with these listeners, which do not block.
    pub(crate) fn new(listeners: Vec<TcpListener>) -> io::Result<Self> {
        let shared = |listener| Async::new_nonblocking(listener).map(Arc::new);
        let listeners: Arc<[_]> = listeners.into_iter().map(shared).collect::<io::Result<_>>()?;
        Ok(Self::from(listeners))
    }

    /// The addresses, with the port that the system chose if it was asked to.
    pub(crate) fn local_addrs(&self) -> io::Result<Vec<SocketAddr>> {
        self.listeners.iter().map(|listener| listener.get_ref().local_addr()).collect()
    }
}

/// Sets the options of a listener.
fn configure(socket: &Socket, config: SocketConfig) -> io::Result<()> {
    addresses::configure(socket)?;
    addresses::bound_segments(socket, config)
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
        for (wait, listener) in self.waits.borrow_mut().iter_mut().zip(&*self.listeners) {
            let begun = wait.get_or_insert_with(|| Box::pin(Arc::clone(listener).readable_owned()));
            if let Poll::Ready(result) = begun.as_mut().poll(cx) {
                *wait = None;
                result?;
                polled = Poll::Ready(Ok(()));
            }
        }
        polled
    }

    fn accept(&self) -> io::Result<(Tcp, IpAddr)> {
        addresses::accept_in_turn(&self.listeners, &self.next, |listener| {
            let (stream, peer) = listener.get_ref().accept()?;
            // Not every system has a connection inherit them. An error says that it is gone already, and so will the first
            // read.
            let _ = addresses::configure(&SockRef::from(&stream));
            Ok((Async::new(stream)?.into(), peer.ip()))
        })
    }
}
