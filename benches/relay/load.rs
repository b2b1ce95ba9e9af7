//! Clients that cost much less than any relay: frames are masked once, and written over and over from one buffer; what
//! arrives is counted. (That it is the right bytes is for the tests to say.)

use std::fmt;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::thread::{CpuSet, sched_setaffinity};

use crate::frame::frame;

/// What is loaded.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Target {
    /// The relay: an opening handshake, masked frames in, unmasked frames out.
    Relay,
    /// The raw relay: the same bytes, out as they came in.
    Raw,
}

/// What is done to it.
pub(crate) struct Workload {
    round_trips: bool,
    size: usize,
    pairs: usize,
}

/// How much a bulk workload sends in a round, in bytes, and at most how many messages.
const BULK_BYTES: usize = 1 << 30;
const BULK_MESSAGES: usize = 4_000_000;

/// How many round trips are made in a round, by all pairs together.
const ROUND_TRIPS: usize = 40_000;

impl Workload {
    pub(crate) fn bulk(size: usize, pairs: usize) -> Self {
        Self { round_trips: false, size, pairs }
    }

    pub(crate) fn round_trips(size: usize, pairs: usize) -> Self {
        Self { round_trips: true, size, pairs }
    }

    /// Does it, and returns the server's CPU time for each message in microseconds.
    pub(crate) fn run(&self, target: Target, address: SocketAddr, cpu: impl Fn() -> f64) -> f64 {
        let pairs: Vec<_> = (0..self.pairs).map(|number| [(); 2].map(|()| connect(target, address, number))).collect();
        if let Some(second) = thread::available_parallelism().ok().filter(|cores| cores.get() > 1).map(|_| 1) {
            let mut cores = CpuSet::new();
            cores.set(second);
            // Threads started from here on inherit it.
            sched_setaffinity(None, &cores).expect("there is a second core");
        }
        let before = cpu();
        let messages =
            if self.round_trips { self.run_round_trips(target, pairs) } else { self.run_bulk(target, pairs) };
        (cpu() - before) / messages as f64
    }

    /// All first sides send as fast as they can, and all second sides receive.
    fn run_bulk(&self, target: Target, pairs: Vec<[TcpStream; 2]>) -> usize {
        let frame = frame(self.size);
        let in_block = (256 * 1024 / frame.len()).max(1);
        let block = frame.repeat(in_block);
        let blocks = (BULK_BYTES / block.len()).min(BULK_MESSAGES / in_block) / self.pairs;
        let arrives = arrives(target, frame.len()) * in_block * blocks;
        thread::scope(|scope| {
            for [mut from, mut to] in pairs {
                let block = &block;
                scope.spawn(move || (0..blocks).for_each(|_| from.write_all(block).expect("the relay reads")));
                scope.spawn(move || {
                    let mut buffer = vec![0; 256 * 1024];
                    let mut left = arrives as isize;
                    while left > 0 {
                        let count = to.read(&mut buffer).expect("the relay writes");
                        assert_ne!(count, 0, "the relay has closed");
                        left -= count as isize;
                    }
                    // A large message may come in fragments, whose headers make it a little longer.
                    assert!(left > -(arrives as isize) / 1000, "more has arrived than was sent");
                });
            }
        });
        in_block * blocks * self.pairs
    }

    /// Each pair has one message under way, which goes there and back again.
    fn run_round_trips(&self, target: Target, pairs: Vec<[TcpStream; 2]>) -> usize {
        let frame = frame(self.size);
        let arrives = arrives(target, frame.len());
        let sockets: Vec<_> = pairs.into_iter().flatten().collect();
        let poll = epoll::create(CreateFlags::CLOEXEC).expect("the system can poll");
        for (key, socket) in sockets.iter().enumerate() {
            socket.set_nonblocking(true).expect("a socket takes options");
            epoll::add(&poll, socket, EventData::new_u64(key as u64), EventFlags::IN).expect("it is new");
        }
        for mut socket in sockets.iter().step_by(2) {
            socket.write_all(&frame).expect("there is room for a frame");
        }
        let mut received = vec![0; sockets.len()];
        let mut messages = 0;
        let mut events = Vec::with_capacity(sockets.len());
        let mut buffer = vec![0; 64 * 1024];
        while messages < 2 * ROUND_TRIPS {
            epoll::wait(&poll, spare_capacity(&mut events), None).expect("the system can poll");
            for event in events.drain(..) {
                let key = event.data.u64() as usize;
                let mut socket = &sockets[key];
                match socket.read(&mut buffer) {
                    Ok(0) => panic!("the relay has closed"),
                    Ok(count) => received[key] += count,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    Err(error) => panic!("{error}"),
                }
                if received[key] == arrives {
                    received[key] = 0;
                    messages += 1;
                    socket.write_all(&frame).expect("there is room for a frame");
                }
            }
        }
        messages
    }
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.round_trips { "round trips" } else { "bulk" };
        write!(f, "{kind}, {} B, {} pairs", self.size, self.pairs)
    }
}

/// A client, through its opening handshake.
pub(crate) fn connect(target: Target, address: SocketAddr, number: usize) -> TcpStream {
    let mut socket = TcpStream::connect(address).expect("the relay accepts");
    socket.set_nodelay(true).expect("a socket takes options");
    if target == Target::Relay {
        let request = format!(
            "GET /?pair={number} HTTP/1.1\r\nHost: bench\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        socket.write_all(request.as_bytes()).expect("the relay reads");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            socket.read_exact(&mut byte).expect("the relay answers");
            head.push(byte[0]);
        }
        assert!(head.starts_with(b"HTTP/1.1 101 "), "the relay refuses");
    }
    socket
}

/// How long a frame is when it arrives.
fn arrives(target: Target, length: usize) -> usize {
    match target {
        Target::Relay => length - 4,
        Target::Raw => length,
    }
}
