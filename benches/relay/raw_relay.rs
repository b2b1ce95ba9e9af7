//! The yardstick: a TCP relay that knows no frames.
//!
//! It has one thread, level-triggered epoll, and a buffer of 256 KiB. It pairs connections in the order in which they
//! come. Unwritten bytes are kept, and their source is not read meanwhile. The end of a stream is passed on. A pair is
//! removed when both streams have ended, or one connection is lost.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::OwnedFd;

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::io::Errno;
use slab::Slab;

/// The listener's event. Other events have twice the pair's key, plus the side as the last bit.
const LISTENER: u64 = u64::MAX;

struct Side {
    socket: TcpStream,
    /// Bytes for this side, and the number of those that were written.
    unwritten: Vec<u8>,
    written: usize,
    /// Its stream has ended, and its peer was told.
    ended: bool,
}

pub(crate) fn run() -> io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    println!("ws://{} ", listener.local_addr()?);
    let poll = epoll::create(CreateFlags::CLOEXEC)?;
    epoll::add(&poll, &listener, EventData::new_u64(LISTENER), EventFlags::IN)?;
    let mut waiting = None;
    let mut pairs: Slab<[Side; 2]> = Slab::new();
    let mut buffer = vec![0; 256 * 1024];
    let mut events = Vec::with_capacity(256);
    loop {
        match epoll::wait(&poll, spare_capacity(&mut events), None) {
            Err(Errno::INTR) => continue, // it was stopped and goes on
            result => result?,
        };
        for event in events.drain(..) {
            let key = event.data.u64();
            if key == LISTENER {
                let (socket, _) = listener.accept()?;
                socket.set_nonblocking(true)?;
                socket.set_nodelay(true)?;
                let Some(first) = waiting.take() else {
                    waiting = Some(socket);
                    continue;
                };
                let pair = pairs.insert([first, socket].map(Side::new));
                for (side, Side { socket, .. }) in pairs[pair].iter().enumerate() {
                    epoll::add(&poll, socket, EventData::new_u64((2 * pair + side) as u64), EventFlags::IN)?;
                }
                continue;
            }
            // A stale event of an earlier pair does no harm: there is nothing to read.
            let Some(pair) = pairs.get_mut(key as usize / 2) else { continue };
            let gone = match advance(&poll, pair, key, event.flags, &mut buffer) {
                Ok(()) => pair.iter().all(|side| side.ended),
                Err(_) => true,
            };
            if gone {
                pairs.remove(key as usize / 2);
            }
        }
    }
}

/// Handles an event. An error means that the pair is lost.
fn advance(poll: &OwnedFd, pair: &mut [Side; 2], key: u64, flags: EventFlags, buffer: &mut [u8]) -> io::Result<()> {
    let at = key as usize & 1;
    if flags.contains(EventFlags::ERR)
        && let Some(error) = pair[at].socket.take_error()?
    {
        return Err(error);
    }
    if flags.contains(EventFlags::OUT) && !pair[at].unwritten.is_empty() {
        let side = &mut pair[at];
        side.written += none_if_blocked(side.socket.write(&side.unwritten[side.written..]))?.unwrap_or(0);
        if side.written == side.unwritten.len() {
            side.unwritten.clear();
            side.written = 0;
            update_interest(poll, pair, key)?;
        }
    }
    if flags.intersects(EventFlags::IN | EventFlags::HUP) && pair[at ^ 1].unwritten.is_empty() && !pair[at].ended {
        let Some(count) = none_if_blocked(pair[at].socket.read(buffer))? else { return Ok(()) };
        if count == 0 {
            pair[at].ended = true;
            pair[at ^ 1].socket.shutdown(Shutdown::Write)?;
            return update_interest(poll, pair, key);
        }
        let peer = &mut pair[at ^ 1];
        let written = none_if_blocked(peer.socket.write(&buffer[..count]))?.unwrap_or(0);
        if written < count {
            peer.unwritten.extend(&buffer[written..count]);
            update_interest(poll, pair, key)?;
        }
    }
    Ok(())
}

fn update_interest(poll: &OwnedFd, pair: &[Side; 2], key: u64) -> io::Result<()> {
    for (at, side) in pair.iter().enumerate() {
        let mut flags = EventFlags::empty();
        flags.set(EventFlags::IN, !side.ended && pair[at ^ 1].unwritten.is_empty());
        flags.set(EventFlags::OUT, !side.unwritten.is_empty());
        epoll::modify(poll, &side.socket, EventData::new_u64(key & !1 | at as u64), flags)?;
    }
    Ok(())
}

fn none_if_blocked(result: io::Result<usize>) -> io::Result<Option<usize>> {
    match result {
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
        result => result.map(Some),
    }
}

impl Side {
    fn new(socket: TcpStream) -> Self {
        Self { socket, unwritten: Vec::new(), written: 0, ended: false }
    }
}
