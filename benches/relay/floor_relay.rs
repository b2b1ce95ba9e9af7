//! The least that opening and closing a WebSocket pair costs on epoll.
//!
//! It sends the segments of a WebSocket relay: two responses and two close frames. Everything else is left out: it parses
//! and hashes nothing, pairs connections in the order of their requests, and forwards bytes unchanged. The workloads
//! send each step into silence, so a read has a whole head, message or close frame.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::net::{SendFlags, SocketFlags, accept_with, send};
use slab::Slab;
use socket2::SockRef;

const LISTENER: u64 = u64::MAX;

/// The response to the clients' request. Its key is always the same.
const SWITCH: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
    sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

/// A close frame with code 1000.
const CLOSE: &[u8] = &[0x88, 2, 0x03, 0xE8];

enum Phase {
    /// Its request has not come.
    New,
    /// It has no peer yet.
    Waiting,
    /// It has this peer.
    Paired(usize),
    /// Its peer has closed, and it was told.
    Left,
}

struct Connection {
    socket: TcpStream,
    phase: Phase,
}

struct Relay {
    poll: OwnedFd,
    connections: Slab<Connection>,
    waiting: Option<usize>,
}

pub(crate) fn run() -> io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    // Accepted sockets inherit it.
    SockRef::from(&listener).set_tcp_nodelay(true)?;
    println!("ws://{} ", listener.local_addr()?);
    let poll = epoll::create(CreateFlags::CLOEXEC)?;
    epoll::add(&poll, &listener, EventData::new_u64(LISTENER), EventFlags::IN)?;
    let mut relay = Relay { poll, connections: Slab::new(), waiting: None };
    let mut buffer = vec![0; 64 * 1024];
    let mut events = Vec::with_capacity(256);
    loop {
        epoll::wait(&relay.poll, spare_capacity(&mut events), None)?;
        for event in events.drain(..) {
            match event.data.u64() {
                LISTENER => {
                    let socket = accept_with(&listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?;
                    relay.add(socket.into())?;
                }
                key => relay.advance(key as usize, &mut buffer)?,
            }
        }
    }
}

impl Relay {
    fn add(&mut self, socket: TcpStream) -> io::Result<()> {
        let entry = self.connections.vacant_entry();
        epoll::add(&self.poll, &socket, EventData::new_u64(entry.key() as u64), EventFlags::IN)?;
        entry.insert(Connection { socket, phase: Phase::New });
        Ok(())
    }

    /// Handles what has come from a connection: a request, a message, or a close frame.
    fn advance(&mut self, key: usize, buffer: &mut [u8]) -> io::Result<()> {
        // The event may be a stale one of an earlier connection.
        let Some(connection) = self.connections.get_mut(key) else { return Ok(()) };
        let count = match connection.socket.read(buffer) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            result => result?,
        };
        let bytes = &buffer[..count];
        match connection.phase {
            Phase::New => {
                connection.socket.write_all(SWITCH)?;
                connection.phase = Phase::Waiting;
                match self.waiting.take() {
                    None => self.waiting = Some(key),
                    Some(peer) => {
                        connection.phase = Phase::Paired(peer);
                        self.connections[peer].phase = Phase::Paired(key);
                    }
                }
            }
            Phase::Paired(peer) if bytes.first() == Some(&0x88) => {
                // The end of the stream goes in the same segment.
                send(&connection.socket, CLOSE, SendFlags::NOSIGNAL | SendFlags::MORE)?;
                self.connections.remove(key);
                self.connections[peer].socket.write_all(CLOSE)?;
                self.connections[peer].phase = Phase::Left;
            }
            Phase::Paired(peer) => self.connections[peer].socket.write_all(bytes)?,
            Phase::Waiting | Phase::Left => _ = self.connections.remove(key),
        }
        Ok(())
    }
}
