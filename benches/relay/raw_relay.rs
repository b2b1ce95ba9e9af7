//! The limit: a TCP relay that knows no frames. One thread, level-triggered epoll, 256 KiB at a time; connections are
//! joined two by two in the order in which they come. What cannot be written is kept, and its source not read from
//! meanwhile.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};

struct Connection {
    socket: TcpStream,
    /// What this connection is still to be written, and from where.
    unwritten: Vec<u8>,
    closed: bool,
}

pub(crate) fn run() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("there is a free port");
    println!("ws://{} ", listener.local_addr().expect("it is bound"));
    let poll = epoll::create(CreateFlags::CLOEXEC).expect("the system can poll");
    epoll::add(&poll, &listener, EventData::new_u64(u64::MAX), EventFlags::IN).expect("it is new");
    let mut connections: Vec<Connection> = Vec::new();
    let mut buffer = vec![0; 256 * 1024];
    let mut events = Vec::with_capacity(256);
    loop {
        epoll::wait(&poll, spare_capacity(&mut events), None).expect("the system can poll");
        for event in events.drain(..) {
            if event.data.u64() == u64::MAX {
                let (socket, _) = listener.accept().expect("there is a connection");
                socket.set_nonblocking(true).expect("a socket takes options");
                socket.set_nodelay(true).expect("a socket takes options");
                let key = EventData::new_u64(connections.len() as u64);
                epoll::add(&poll, &socket, key, EventFlags::IN).expect("it is new");
                connections.push(Connection { socket, unwritten: Vec::new(), closed: false });
                continue;
            }
            let (at, flags) = (event.data.u64() as usize, event.flags);
            let interest = |connections: &[Connection], at: usize| {
                let (this, peer) = (&connections[at], connections.get(at ^ 1));
                let mut flags = EventFlags::empty();
                flags.set(EventFlags::IN, !this.closed && peer.is_some_and(|peer| peer.unwritten.is_empty()));
                flags.set(EventFlags::OUT, !this.unwritten.is_empty());
                epoll::modify(&poll, &this.socket, EventData::new_u64(at as u64), flags).expect("it is there");
            };
            if flags.intersects(EventFlags::HUP | EventFlags::ERR) {
                return; // the clients have gone: there is nothing left to measure
            }
            if flags.contains(EventFlags::OUT) {
                let Connection { socket, unwritten, .. } = &mut connections[at];
                if let Ok(count) = socket.write(unwritten) {
                    unwritten.drain(..count);
                }
                if unwritten.is_empty() {
                    interest(&connections, at);
                    interest(&connections, at ^ 1);
                }
            }
            if flags.contains(EventFlags::IN) && connections.len() > (at ^ 1) {
                let count = match connections[at].socket.read(&mut buffer) {
                    Ok(0) => {
                        connections[at].closed = true;
                        interest(&connections, at);
                        continue;
                    }
                    Ok(count) => count,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
                    Err(_) => return,
                };
                let peer = &mut connections[at ^ 1];
                let written = peer.socket.write(&buffer[..count]).unwrap_or(0);
                if written < count {
                    peer.unwritten.extend(&buffer[written..count]);
                    interest(&connections, at);
                    interest(&connections, at ^ 1);
                }
            }
        }
    }
}
