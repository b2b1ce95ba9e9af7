//! Clients with different addresses, as all of 127.0.0.0/8 is the loopback interface.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream};

use socket2::{Domain, Socket, Type};

use crate::support::raw::upgrade;
use crate::support::{PATIENCE, Relay};

/// Connects from 127.0.0.`from`.
pub(crate) fn connect(relay: &Relay, from: u8) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let address = SocketAddrV4::new(Ipv4Addr::new(127, 0, 0, from), 0);
    socket.bind(&SocketAddr::from(address).into()).unwrap();
    socket.connect(&relay.address.into()).unwrap();
    let socket = TcpStream::from(socket);
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// The answer to a request, and its connection.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// In lower case.
    pub(crate) head: String,
    pub(crate) body: String,
    pub(crate) socket: TcpStream,
}

impl Answer {
    /// Reads an answer, and its body unless the status is 101.
    pub(crate) fn read(mut socket: TcpStream) -> Self {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            socket.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).unwrap().to_lowercase();
        let status = head[9..12].parse().unwrap();
        let mut body = String::new();
        if status != 101 {
            socket.read_to_string(&mut body).unwrap();
        }
        Self { status, head, body, socket }
    }

    /// The value of `Retry-After`, in seconds.
    pub(crate) fn retry_after(&self) -> Option<u64> {
        let (_, rest) = self.head.split_once("\r\nretry-after: ")?;
        Some(rest.split_once("\r\n").unwrap().0.parse().unwrap())
    }
}

/// Sends a request on this connection, and reads the answer.
pub(crate) fn ask(mut socket: TcpStream, request: &str) -> Answer {
    socket.write_all(request.as_bytes()).unwrap();
    Answer::read(socket)
}

/// Sends an upgrade request from 127.0.0.`from`, and reads the answer.
pub(crate) fn join(relay: &Relay, from: u8, target: &str) -> Answer {
    ask(connect(relay, from), &upgrade(target, ""))
}
