//! The addresses that a relay listens on: all those of a host.

use std::cell::Cell;
use std::io;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};

use super::io_error::{context, is_absent_address};

/// The length of the accept queue. The system may have a lower limit (`net.core.somaxconn`).
const BACKLOG: i32 = 4096;

/// How long a connection may be quiet before the system probes it, and how often it does so then.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(30);
const KEEPALIVE_EVERY: Duration = Duration::from_secs(10);

/// The number of ports to try if the system chooses one: it may be taken on the host's second address.
const PORT_TRIES: usize = 16;

/// The options of all sockets.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SocketConfig {
    /// How long a client may acknowledge or accept nothing.
    #[cfg_attr(
        not(all(target_os = "linux", not(feature = "portable"))),
        expect(dead_code, reason = "the portable runtime asks no kernel to end a connection")
    )]
    pub(crate) write_timeout: Duration,
    /// The most bytes of a segment, or 0 for the system's choice. Windows has no such option.
    ///
    /// A client on the same host queues 20 to 30 segments of 64 KiB each.
    #[cfg_attr(not(unix), expect(dead_code, reason = "Windows has no such option"))]
    pub(crate) max_segment: u16,
}

/// Listens on all addresses of `host`, with sockets that do not block.
///
/// `configure` sees each socket before it listens.
///
/// # Errors
///
/// If the host has no address, or one of them cannot be listened on for another reason than that this system does not
/// have the address or its family. The error says which.
pub(super) fn listen(
    host: &str,
    port: u16,
    configure: impl Fn(&Socket) -> io::Result<()>,
) -> io::Result<Vec<TcpListener>> {
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
    loop {
        tries -= 1;
        match listen_on_all(&addresses, &configure) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && tries > 0 => {}
            result => return result,
        }
    }
}

/// Listens on those of the addresses that this system has.
///
/// If the system chooses a port, it is the same for all.
pub(super) fn listen_on_all(
    addresses: &[SocketAddr],
    configure: impl Fn(&Socket) -> io::Result<()>,
) -> io::Result<Vec<TcpListener>> {
    let (mut listeners, mut absent): (Vec<TcpListener>, _) = (Vec::new(), None);
    for &(mut address) in addresses {
        if let (0, Some(first)) = (address.port(), listeners.first()) {
            address.set_port(first.local_addr()?.port());
        }
        match listen_on(address, &configure) {
            Ok(listener) => listeners.push(listener),
            Err(error) => {
                let is_absent = is_absent_address(&error);
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

/// Takes sockets over that another process listens with, and that it keeps.
///
/// # Errors
///
/// If there is none, or one of them does not listen.
pub(super) fn inherit(
    listeners: Vec<TcpListener>,
    configure: impl Fn(&Socket) -> io::Result<()>,
) -> io::Result<Vec<TcpListener>> {
    if listeners.is_empty() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "there is no socket to accept connections from"));
    }
    let prepare = |listener: TcpListener| {
        let socket = Socket::from(listener);
        if !listens(&socket) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "a socket to accept connections from does not listen",
            ));
        }
        socket.set_nonblocking(true)?;
        configure(&socket)?;
        Ok(socket.into())
    };
    listeners.into_iter().map(prepare).collect()
}

/// Whether connections can be accepted from the socket, as far as the system tells.
#[cfg(target_os = "linux")]
fn listens(socket: &Socket) -> bool {
    socket.is_listener().unwrap_or(true)
}

/// Other systems do not tell it all in the same way. There, accepting fails.
#[cfg(not(target_os = "linux"))]
fn listens(_: &Socket) -> bool {
    true
}

fn listen_on(address: SocketAddr, configure: impl Fn(&Socket) -> io::Result<()>) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    // Connections of an earlier relay that are still closing must not keep a new one from its port.
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    configure(&socket)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Bounds the segments of a listener's connections, if the operator asks for that.
///
/// The opening handshake of TCP tells the bound to the client.
#[cfg(unix)]
pub(super) fn bound_segments(socket: &Socket, config: SocketConfig) -> io::Result<()> {
    if config.max_segment > 0 {
        socket.set_tcp_mss(config.max_segment.into())?;
    }
    Ok(())
}

/// Does nothing: Windows has no such option.
#[cfg(not(unix))]
pub(super) fn bound_segments(_: &Socket, _: SocketConfig) -> io::Result<()> {
    Ok(())
}

/// Sets the options of a connection, or of a listener for its connections to inherit.
pub(super) fn configure(socket: &Socket) -> io::Result<()> {
    // Batches are written whole, so nothing is gained by waiting for more.
    socket.set_tcp_nodelay(true)?;
    // A client that vanished would keep its code. So the system probes quiet clients, and gives up those that do not answer
    // or do not take what is sent to them.
    let probes = TcpKeepalive::new().with_time(KEEPALIVE_AFTER).with_interval(KEEPALIVE_EVERY);
    socket.set_tcp_keepalive(&probes)
}

/// Accepts from the first listener that has a connection, beginning behind the one that was asked last.
///
/// So a crowd on one address keeps no other address waiting. With [`io::ErrorKind::WouldBlock`], no listener has one.
pub(super) fn accept_in_turn<L, T>(
    listeners: &[L],
    next: &Cell<usize>,
    accept: impl Fn(&L) -> io::Result<T>,
) -> io::Result<T> {
    for _ in listeners {
        let listener = &listeners[next.get()];
        next.set((next.get() + 1) % listeners.len());
        match accept(listener) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            accepted => return accepted,
        }
    }
    Err(io::ErrorKind::WouldBlock.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(given: &[&str]) -> Vec<SocketAddr> {
        given.iter().map(|address| address.parse().unwrap()).collect()
    }

    #[test]
    fn addresses_that_this_system_does_not_have_are_skipped_unless_there_is_no_other() {
        let listeners = listen_on_all(&addresses(&["203.0.113.1:0", "127.0.0.1:0"]), configure).unwrap();
        assert_eq!(listeners.len(), 1);
        let error = listen_on_all(&addresses(&["203.0.113.1:0", "203.0.113.2:0"]), configure).unwrap_err();
        assert!(error.to_string().starts_with("cannot listen on 203.0.113.1:0: "), "{error}");
        assert_eq!(error.kind(), io::ErrorKind::AddrNotAvailable);
    }

    #[test]
    fn address_in_use_fails_even_beside_one_that_is_free() {
        let taken = listen_on_all(&addresses(&["127.0.0.1:0"]), configure).unwrap()[0].try_clone().unwrap();
        let mut addresses = addresses(&["127.0.0.2:0", "127.0.0.1:0"]);
        addresses.iter_mut().for_each(|address| address.set_port(taken.local_addr().unwrap().port()));
        let error = listen_on_all(&addresses, configure).unwrap_err();
        assert!(error.to_string().starts_with(&format!("cannot listen on {}: ", addresses[1])), "{error}");
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn only_sockets_that_listen_are_inherited() {
        let bound = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        bound.bind(&addresses(&["127.0.0.1:0"])[0].into()).unwrap();
        let error = |sockets: Vec<TcpListener>| inherit(sockets, configure).unwrap_err().to_string();
        assert_eq!(error(Vec::new()), "there is no socket to accept connections from");
        #[cfg(target_os = "linux")]
        assert_eq!(error(vec![bound.into()]), "a socket to accept connections from does not listen");
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, inherited) = (listener.local_addr().unwrap(), inherit(vec![listener], configure).unwrap());
        assert_eq!(inherited[0].local_addr().unwrap(), address);
        assert_eq!(inherited[0].accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    #[cfg(unix)]
    fn segments_are_bounded_only_if_that_is_asked_for() {
        let segment = |max_segment| {
            let config = SocketConfig { write_timeout: Duration::MAX, max_segment };
            let bound = |socket: &Socket| bound_segments(socket, config);
            let listeners = listen_on_all(&addresses(&["127.0.0.1:0"]), bound).unwrap();
            socket2::SockRef::from(&listeners[0]).tcp_mss().unwrap()
        };
        assert_eq!(segment(1200), 1200);
        assert_ne!(segment(0), 1200);
    }

    #[test]
    fn error_of_a_name_says_that_it_cannot_be_resolved() {
        for host in ["nowhere.invalid", "", "["] {
            let error = listen(host, 0, configure).unwrap_err();
            assert!(error.to_string().starts_with(&format!("cannot resolve {host:?}: ")), "{error}");
        }
    }
}
