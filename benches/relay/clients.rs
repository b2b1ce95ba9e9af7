//! Load generators that cost much less than any relay.
//!
//! One thread writes from prepared buffers, and mostly only counts what arrives.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, timerfd_create, timerfd_settime};

use crate::frame::{MASK, frame};
use crate::messages::{Receiving, Sending, Traffic};
use crate::servers::{Server, Target};
use crate::window::Window;

/// The timeout of every wait.
const BOUND: Duration = Duration::from_secs(10);

/// The size of a relay's largest read.
const BUFFER: usize = 256 * 1024;

/// A client. Its peer's number differs in the last bit.
pub(crate) struct Side {
    pub(crate) socket: TcpStream,
    pub(crate) sending: Sending,
    pub(crate) receiving: Receiving,
}

/// The number of connections opened at once. Servers may refuse or delay more.
const AT_ONCE: usize = 20;

/// Opens both clients of each pair, including their opening handshakes.
pub(crate) fn open(server: &Server, traffic: &Traffic, first: usize, pairs: usize) -> io::Result<Vec<Side>> {
    let mut sides = Vec::with_capacity(2 * pairs);
    while sides.len() < 2 * pairs {
        let new = sides.len()..(sides.len() + AT_ONCE).min(2 * pairs);
        for number in new.clone().map(|number| 2 * first + number) {
            let socket = TcpStream::connect(server.address)?;
            socket.set_nodelay(true)?;
            socket.set_read_timeout(Some(BOUND))?;
            socket.set_write_timeout(Some(BOUND))?;
            if server.target != Target::Raw {
                ask(&socket, number / 2)?;
            }
            sides.push(Side { socket, sending: traffic.sending(number), receiving: traffic.receiving(number) });
        }
        if server.target != Target::Raw {
            sides[new].iter().try_for_each(|side| expect_switch(&side.socket))?;
        }
    }
    Ok(sides)
}

/// Each client sends a short message to its peer.
pub(crate) fn exchange(sides: &mut [Side]) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    for sides in sides.chunks_mut(AT_ONCE) {
        sides.iter_mut().try_for_each(Side::send)?;
        for side in sides {
            while side.read(&mut buffer)? == 0 {}
        }
    }
    Ok(())
}

fn ask(mut socket: &TcpStream, code: usize) -> io::Result<()> {
    let request = format!(
        "GET /?pair={code} HTTP/1.1\r\nHost: bench\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    socket.write_all(request.as_bytes())
}

/// Expects a 101 response. Nothing follows its head, because no client sends before both have it.
fn expect_switch(mut socket: &TcpStream) -> io::Result<()> {
    let (mut head, mut length) = ([0; 1024], 0);
    while !head[..length].ends_with(b"\r\n\r\n") {
        match socket.read(&mut head[length..])? {
            0 => return Err(io::Error::other("the relay refused the connection")),
            count => length += count,
        }
    }
    if head.starts_with(b"HTTP/1.1 101 ") { Ok(()) } else { Err(io::Error::other("the relay refused the connection")) }
}

/// Closes all pairs: the first client of each leaves, the second is told and leaves, too.
///
/// WebSocket clients wait for the relay to close first, so that no client ports stay in TIME_WAIT.
pub(crate) fn close(target: Target, sides: &[Side]) -> io::Result<()> {
    for [a, _] in sides.as_chunks().0 {
        leave(target, &a.socket)?;
    }
    for [a, b] in sides.as_chunks().0 {
        if target == Target::Raw {
            expect_end(&b.socket)?;
            expect_end(&a.socket)?;
        } else {
            expect_close(&a.socket)?;
            expect_end(&a.socket)?;
        }
    }
    for [_, b] in sides.as_chunks().0.iter().filter(|_| target != Target::Raw) {
        expect_close(&b.socket)?;
        leave(target, &b.socket)?;
        expect_end(&b.socket)?;
    }
    Ok(())
}

fn leave(target: Target, mut socket: &TcpStream) -> io::Result<()> {
    if target == Target::Raw {
        return socket.shutdown(Shutdown::Write);
    }
    let mut close = frame(&1000_u16.to_be_bytes(), Some(MASK));
    close[0] = 0x88;
    socket.write_all(&close)
}

/// Expects a close frame with code 1000 or no code. Pings may come before it.
fn expect_close(mut socket: &TcpStream) -> io::Result<()> {
    socket.set_nonblocking(false)?;
    let (mut header, mut payload) = ([0x89, 0], [0; 125]);
    let mut length = 0;
    while header[0] == 0x89 {
        socket.read_exact(&mut header)?;
        length = usize::from(header[1]).min(125);
        socket.read_exact(&mut payload[..length])?;
    }
    let payload = &payload[..length];
    let fine = header[0] == 0x88 && (payload.is_empty() || payload.starts_with(&1000_u16.to_be_bytes()));
    if fine {
        Ok(())
    } else {
        Err(io::Error::other(format!("{header:x?} {payload:x?} is not the expected close frame")))
    }
}

/// Expects the end of the stream, and ends the other direction, for which a server may wait.
fn expect_end(mut socket: &TcpStream) -> io::Result<()> {
    match socket.read(&mut [0])? {
        0 => _ = socket.shutdown(Shutdown::Write),
        _ => return Err(io::Error::other("bytes follow the close frame")),
    }
    Ok(())
}

/// The first client of each pair, or each client, sends as fast as it can until `is_over`.
///
/// Returns the number of arrived messages.
pub(crate) fn stream(
    sides: &mut [Side],
    both: bool,
    mut is_over: impl FnMut(u64) -> io::Result<bool>,
) -> io::Result<u64> {
    let poll = Poll::new(sides, |number| both || number % 2 == 0)?;
    let (mut events, mut buffer) = (Vec::with_capacity(sides.len()), vec![0; BUFFER]);
    let mut messages = 0;
    while !is_over(messages)? {
        poll.wait(&mut events)?;
        for event in events.drain(..) {
            let (number, flags) = (event.data.u64() as usize, event.flags);
            let side = &mut sides[number];
            if flags.contains(EventFlags::OUT) {
                unless_blocked(side.sending.write(&side.socket))?;
                if side.sending.blocks == 0 {
                    epoll::modify(&poll.0, &side.socket, event.data, EventFlags::IN)?;
                }
            }
            if flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR) {
                messages += unless_blocked(side.read(&mut buffer))?.unwrap_or(0);
            }
        }
    }
    Ok(messages)
}

/// Messages go there and back, at most one at a time in each pair.
///
/// `under_way` messages are in flight. After a round trip, the next pair has its turn.
pub(crate) fn round_trips(sides: &mut [Side], under_way: usize, window: &mut Window<'_>) -> io::Result<u64> {
    let poll = Poll::new(sides, |_| false)?;
    let (mut events, mut buffer) = (Vec::with_capacity(sides.len()), vec![0; BUFFER]);
    let mut begun = vec![Instant::now(); sides.len() / 2];
    let mut resting: VecDeque<_> = (0..sides.len() / 2).collect();
    for pair in resting.drain(..under_way.min(sides.len() / 2)) {
        sides[2 * pair].send()?;
    }
    let mut messages = 0;
    while !window.is_over(messages)? {
        poll.wait(&mut events)?;
        for event in events.drain(..) {
            let number = event.data.u64() as usize;
            let side = &mut sides[number];
            if unless_blocked(side.read(&mut buffer))?.unwrap_or(0) == 0 {
                continue;
            }
            messages += 1;
            if number % 2 == 1 {
                side.send()?;
                continue;
            }
            window.latency(begun[number / 2].elapsed());
            resting.push_back(number / 2);
            let next = resting.pop_front().expect("one has just been pushed");
            begun[next] = Instant::now();
            sides[2 * next].send()?;
        }
    }
    Ok(messages)
}

/// One-way messages at a fixed rate: at each interval, the first client of the next pair sends one.
///
/// It does not wait for earlier messages. The latency is one way.
pub(crate) fn whisper(sides: &mut [Side], interval: Duration, window: &mut Window<'_>) -> io::Result<u64> {
    const TIMER: usize = usize::MAX;
    let poll = Poll::new(sides, |_| false)?;
    let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK)?;
    let interval = Timespec { tv_sec: 0, tv_nsec: interval.subsec_nanos().into() };
    let interval = Itimerspec { it_interval: interval, it_value: interval };
    timerfd_settime(&timer, TimerfdTimerFlags::empty(), &interval)?;
    poll.add(&timer, TIMER, EventFlags::IN)?;

    let (mut events, mut buffer) = (Vec::with_capacity(sides.len()), vec![0; BUFFER]);
    let mut under_way: Vec<_> = sides.iter().map(|_| VecDeque::new()).collect();
    let (mut next, mut messages) = (0, 0);
    while !window.is_over(messages)? {
        poll.wait(&mut events)?;
        for event in events.drain(..) {
            let number = event.data.u64() as usize;
            if number == TIMER {
                let mut times = [0; 8];
                rustix::io::read(&timer, &mut times)?;
                for _ in 0..u64::from_ne_bytes(times) {
                    under_way[next + 1].push_back(Instant::now());
                    sides[next].send()?;
                    next = (next + 2) % sides.len();
                }
                continue;
            }
            let side = &mut sides[number];
            for _ in 0..unless_blocked(side.read(&mut buffer))?.unwrap_or(0) {
                let sent = under_way[number]
                    .pop_front()
                    .ok_or_else(|| io::Error::other("a message arrived that was not sent"))?;
                window.latency(sent.elapsed());
                messages += 1;
            }
        }
    }
    Ok(messages)
}

/// 64 messages of 16 KiB with one of 64 B behind them, again and again.
///
/// The latency is from the write of the first byte to the arrival of the small message.
pub(crate) fn behind_bulk(sides: &[Side], target: Target, window: &mut Window<'_>) -> io::Result<u64> {
    let [sender, receiver] = sides else { return Err(io::Error::other("it takes a pair")) };
    let mut sent = frame(&[7; 16 << 10], Some(MASK)).repeat(64);
    sent.extend(frame(&[7; 64], Some(MASK)));
    // Without their masks, if the relay takes them off.
    let arrives = if target.knows_frames() { sent.len() - 65 * MASK.len() } else { sent.len() };
    // While nothing can be written, there is something to come.
    let poll = Poll::new(sides, |_| false)?;
    let (mut events, mut buffer) = (Vec::with_capacity(2), vec![0; BUFFER]);
    let mut messages = 0;
    while !window.is_over(messages)? {
        let begun = Instant::now();
        let (mut written, mut arrived) = (0, 0);
        while arrived < arrives {
            if written < sent.len() {
                written += unless_blocked((&sender.socket).write(&sent[written..]))?.unwrap_or(0);
            }
            match unless_blocked((&receiver.socket).read(&mut buffer))? {
                Some(0) => return Err(io::Error::other("the relay closed the connection")),
                Some(count) => arrived += count,
                None => poll.wait(&mut events)?,
            }
            events.clear();
        }
        window.latency(begun.elapsed());
        messages += 1;
    }
    Ok(messages)
}

/// The first client sends to a second client that does not read.
///
/// Ends when no byte was accepted for a while, or after `most` bytes. Returns the number of accepted bytes.
pub(crate) fn stop_reading(sides: &mut [Side], most: usize) -> io::Result<usize> {
    let side = &mut sides[0];
    side.socket.set_nonblocking(true)?;
    let (mut sent, mut last) = (0, Instant::now());
    while sent < most && last.elapsed() < Duration::from_millis(300) {
        match unless_blocked(side.sending.write(&side.socket))? {
            Some(count) => (sent, last) = (sent + count, Instant::now()),
            None => std::thread::sleep(Duration::from_millis(1)),
        }
    }
    Ok(sent)
}

impl Side {
    /// Reads once, answers pings, and returns the number of messages that this read completes.
    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> io::Result<u64> {
        let messages = self.receiving.read(&self.socket, buffer)?;
        if let Some(pongs) = self.receiving.pongs() {
            self.sending.add_pongs(pongs);
            unless_blocked(self.sending.write_pongs(&self.socket))?;
        }
        Ok(messages)
    }

    fn send(&mut self) -> io::Result<()> {
        self.sending.write_message(&self.socket)
    }
}

struct Poll(OwnedFd);

impl Poll {
    /// Polls all clients for arriving bytes, and those that stream for room.
    fn new(sides: &[Side], streams: impl Fn(usize) -> bool) -> io::Result<Self> {
        let poll = Self(epoll::create(CreateFlags::CLOEXEC)?);
        for (number, side) in sides.iter().enumerate() {
            side.socket.set_nonblocking(true)?;
            let mut flags = EventFlags::IN;
            flags.set(EventFlags::OUT, streams(number));
            poll.add(&side.socket, number, flags)?;
        }
        Ok(poll)
    }

    fn add(&self, source: impl AsFd, number: usize, flags: EventFlags) -> io::Result<()> {
        Ok(epoll::add(&self.0, source, EventData::new_u64(number as u64), flags)?)
    }

    fn wait(&self, events: &mut Vec<Event>) -> io::Result<()> {
        let bound = Timespec { tv_sec: BOUND.as_secs() as i64, tv_nsec: 0 };
        epoll::wait(&self.0, spare_capacity(events), Some(&bound))?;
        if events.is_empty() {
            return Err(io::Error::new(ErrorKind::TimedOut, format!("no event for {BOUND:?}")));
        }
        Ok(())
    }
}

fn unless_blocked<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
        result => result.map(Some),
    }
}
