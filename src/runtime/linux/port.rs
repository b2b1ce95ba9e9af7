//! The listener on the system's sockets: a TCP port on all addresses of a host.

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::task::{Context, Poll};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::SocketFlags;
use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};

use super::tcp::{Registered, Tcp, ack_timeout};
use crate::runtime::io_error::context;
use crate::runtime::reactor::Readiness;
use crate::runtime::transport::Listener;

/// The length of the accept queue. The system may have a lower limit (`net.core.somaxconn`).
const BACKLOG: i32 = 4096;

/// How long a connection may be quiet before the system probes it, and how often it does so then.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(30);
const KEEPALIVE_EVERY: Duration = Duration::from_secs(10);

/// The number of ports to try if the system chooses one: it may be taken on the host's second address.
const PORT_TRIES: usize = 16;

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
        // Brackets are customary around an IPv6 address in front of a port.
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let cannot_resolve = || context(format!("cannot resolve {host:?}"));
        let mut addresses: Vec<_> = Vec::new();
        for address in (host, port).to_socket_addrs().map_err(cannot_resolve())? {
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        if addresses.is_empty() {
            return Err(cannot_resolve()(io::Error::new(io::ErrorKind::NotFound, "it has no address")));
        }
        let mut tries = if port == 0 { PORT_TRIES } else { 1 };
        let listeners = loop {
            tries -= 1;
            match listen_on_all(&addresses, write_timeout) {
                Err(error) if error.kind() == io::ErrorKind::AddrInUse && tries > 0 => {}
                result => break result?,
            }
        };
        Ok(Self { listeners: listeners.into_iter().map(Registered::from).collect(), next: Cell::new(0) })
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

/// Listens on those of the addresses that this system has.
///
/// If the system chooses a port, it is the same for all.
fn listen_on_all(addresses: &[SocketAddr], write_timeout: Duration) -> io::Result<Vec<TcpListener>> {
    let (mut listeners, mut absent): (Vec<TcpListener>, _) = (Vec::new(), None);
    for &(mut address) in addresses {
        if let (0, Some(first)) = (address.port(), listeners.first()) {
            address.set_port(first.local_addr()?.port());
        }
        match listen_on(address, write_timeout) {
            Ok(listener) => listeners.push(listener),
            Err(error) => {
                let is_absent = matches!(Errno::from_io_error(&error), Some(Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL));
                let error = context(format!("cannot listen on {address}"))(error);
                if !is_absent {
                    return Err(error);
                }
                absent.get_or_insert(error);
            }
        }
    }
    match absent {
        Some(error) if listeners.is_empty() => Err(error),
        _ => Ok(listeners),
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

/// Sets the options of all connections: an accepted socket inherits them.
fn configure(socket: &Socket, write_timeout: Duration) -> io::Result<()> {
    socket.set_nonblocking(true)?;
    // Batches are written whole, so nothing is gained by waiting for more.
    socket.set_tcp_nodelay(true)?;
    // A client that vanished would keep its code. So the system probes quiet clients, and gives up those that do not answer
    // or do not take what is sent to them.
    let probes = TcpKeepalive::new().with_time(KEEPALIVE_AFTER).with_interval(KEEPALIVE_EVERY);
    socket.set_tcp_keepalive(&probes)?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::reactor::Reactor;

    const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

    fn addresses(given: &[&str]) -> Vec<SocketAddr> {
        given.iter().map(|address| address.parse().unwrap()).collect()
    }

    #[test]
    fn all_addresses_have_the_same_port_and_all_accept() {
        let listeners = listen_on_all(&addresses(&["127.0.0.1:0", "127.0.0.2:0"]), WRITE_TIMEOUT).unwrap();
        let port = Port { listeners: listeners.into_iter().map(Registered::from).collect(), next: Cell::new(0) };
        let local = port.local_addrs().unwrap();
        assert_eq!((local.len(), local[0].port()), (2, local[1].port()));
        Reactor::new().unwrap().block_on(async {
            for nth in [0, 1, 1, 1, 0, 0, 1] {
                let client = TcpStream::connect(local[nth]).unwrap();
                let (_, peer) = port.accept().await.unwrap();
                assert_eq!(peer, client.local_addr().unwrap().ip());
            }
            // A crowd on one address does not keep the other waiting.
            let crowd: Vec<_> = (0..9).map(|_| TcpStream::connect(local[0]).unwrap()).collect();
            let other = TcpStream::connect(local[1]).unwrap();
            let first_two = [port.accept().await.unwrap().1, port.accept().await.unwrap().1];
            assert!(first_two.contains(&other.local_addr().unwrap().ip()), "{first_two:?}");
            drop(crowd);
        });
    }

    #[test]
    fn addresses_that_this_system_does_not_have_are_skipped_unless_there_is_no_other() {
        let listeners = listen_on_all(&addresses(&["203.0.113.1:0", "127.0.0.1:0"]), WRITE_TIMEOUT).unwrap();
        assert_eq!(listeners.len(), 1);
        let error = listen_on_all(&addresses(&["203.0.113.1:0", "203.0.113.2:0"]), WRITE_TIMEOUT).unwrap_err();
        assert!(error.to_string().starts_with("cannot listen on 203.0.113.1:0: "), "{error}");
        assert_eq!(error.kind(), io::ErrorKind::AddrNotAvailable);
    }

    #[test]
    fn address_in_use_fails_even_beside_one_that_is_free() {
        let taken = listen_on_all(&addresses(&["127.0.0.1:0"]), WRITE_TIMEOUT).unwrap()[0].try_clone().unwrap();
        let mut addresses = addresses(&["127.0.0.2:0", "127.0.0.1:0"]);
        addresses.iter_mut().for_each(|address| address.set_port(taken.local_addr().unwrap().port()));
        let error = listen_on_all(&addresses, WRITE_TIMEOUT).unwrap_err();
        assert!(error.to_string().starts_with(&format!("cannot listen on {}: ", addresses[1])), "{error}");
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn error_of_a_name_says_that_it_cannot_be_resolved() {
        for host in ["nowhere.invalid", "", "["] {
            let error = Port::listen(host, 0, WRITE_TIMEOUT).unwrap_err();
            assert!(error.to_string().starts_with(&format!("cannot resolve {host:?}: ")), "{error}");
        }
    }
}
