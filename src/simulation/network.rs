//! Sockets in memory, with edge-triggered readiness as in the reactor.
//!
//! Sent bytes are in flight until the scheduler delivers them, in pieces of any size, and sometimes late. Each change
//! is reported by one event.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures_lite::{AsyncRead, AsyncWrite};

use super::executor::Random;
use super::trace::trace;
use crate::runtime::stream;
use crate::runtime::transport::{Listener, Transport};

/// The queue of connections, and of errors, in front of the relay.
#[derive(Default)]
struct Queue {
    arrivals: VecDeque<io::Result<Socket>>,
    /// The number of arrivals so far.
    arrived: usize,
    /// The interest of each handle, in the order in which they were made.
    handles: Vec<Interest>,
    /// The number of handles that are open.
    open: usize,
    /// Whether arrivals are told to the same worker first, as long as it is idle.
    has_favourite: bool,
}

/// The network's side of the queue.
#[derive(Default)]
pub(super) struct Door(Rc<RefCell<Queue>>);

/// A worker's handle to the relay's listener.
pub(super) struct Arrivals {
    queue: Rc<RefCell<Queue>>,
    handle: usize,
}

impl Door {
    /// The first handle to the listener.
    pub(super) fn listener(&self) -> Arrivals {
        let Queue { handles, open, .. } = &mut *self.0.borrow_mut();
        handles.push(Interest::default());
        *open += 1;
        Arrivals { queue: Rc::clone(&self.0), handle: handles.len() - 1 }
    }

    /// From now on, arrivals are told to the same worker first, as long as it is idle.
    pub(super) fn have_a_favourite(&self) {
        self.0.borrow_mut().has_favourite = true;
    }

    /// Adds a socket or an error to the queue. It is dropped if the listener is closed.
    ///
    /// Like Linux with `EPOLLEXCLUSIVE`: from some worker on, it tells each busy worker and the first idle one.
    pub(super) fn deliver(&self, arrival: io::Result<Socket>) {
        let Queue { arrivals, arrived, handles, open, has_favourite } = &mut *self.0.borrow_mut();
        if *open == 0 {
            return;
        }
        arrivals.push_back(arrival);
        *arrived += usize::from(!*has_favourite);
        for nth in 0..handles.len() {
            let handle = (*arrived + nth) % handles.len();
            let interest = &mut handles[handle];
            let is_idle = interest.task.is_some();
            interest.happen();
            if is_idle {
                break;
            }
        }
    }
}

impl Drop for Arrivals {
    fn drop(&mut self) {
        let queue = &mut *self.queue.borrow_mut();
        queue.open -= 1;
        queue.handles[self.handle] = Interest::default();
        // A kernel resets the connections that are in the queue of a closed listener.
        let is_lost = queue.open == 0 && !queue.arrivals.is_empty();
        assert!(!is_lost || std::thread::panicking(), "a stop resets connections in the queue");
    }
}

impl Listener for Arrivals {
    type Socket = Socket;

    fn share(&self) -> Self {
        Door(Rc::clone(&self.queue)).listener()
    }

    fn poll_acceptable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.queue.borrow_mut().handles[self.handle].poll(cx, false)
    }

    fn accept(&self) -> io::Result<(Socket, IpAddr)> {
        let arrival = self.queue.borrow_mut().arrivals.pop_front();
        arrival.unwrap_or_else(|| Err(io::ErrorKind::WouldBlock.into())).map(|socket| {
            let peer = socket.address();
            (socket, peer)
        })
    }
}

/// One direction of a connection.
#[derive(Default)]
struct Stream {
    /// The bytes in flight. The first `arrived` ones are at the receiver.
    bytes: VecDeque<u8>,
    arrived: usize,
    capacity: usize,
    /// The number of last bytes that are held back for the end of the stream.
    waiting: usize,
    /// The sender has ended the stream.
    ended: bool,
    end_arrived: bool,
    end_is_read: bool,
    /// Whether "writable" means that all bytes have arrived.
    until_sent: bool,
    /// The receiver has closed its socket.
    abandoned: bool,
    /// Whether a write was refused, so that the writer must be told of new room.
    refused: bool,
    reader: Interest,
    writer: Interest,
    /// Notifies the task that waits for the end of the stream.
    ended_watcher: Interest,
}

/// A readiness event, and the task that waits for it.
#[derive(Default)]
struct Interest {
    has_come: bool,
    task: Option<Waker>,
}

impl Interest {
    /// Ready if the event has happened since the last call, or if it holds `forever`.
    fn poll(&mut self, cx: &mut Context<'_>, forever: bool) -> Poll<io::Result<()>> {
        if std::mem::take(&mut self.has_come) || forever {
            return Poll::Ready(Ok(()));
        }
        self.task = Some(cx.waker().clone());
        Poll::Pending
    }

    fn happen(&mut self) {
        self.has_come = true;
        self.task.take().into_iter().for_each(Waker::wake);
    }
}

impl Stream {
    /// The number of bytes that fit into the receiver's window, which is a quarter of the capacity.
    fn can_arrive(&self) -> usize {
        let window = if self.abandoned { usize::MAX } else { self.capacity / 4 };
        let sent = self.bytes.len() - if self.ended { 0 } else { self.waiting };
        sent.min(window).saturating_sub(self.arrived)
    }

    fn end_can_arrive(&self) -> bool {
        self.ended && !self.end_arrived && self.bytes.len() == self.arrived
    }

    fn is_writable(&self) -> bool {
        let room = if self.until_sent { self.bytes.len() == self.arrived } else { self.bytes.len() < self.capacity };
        room || self.ended
    }

    /// Reports writability anew under a changed condition, as Linux does for `TCP_NOTSENT_LOWAT`.
    fn look_again(&mut self) {
        self.writer.has_come = false;
        self.refused = true;
        self.tell_writer();
    }

    /// Tells the writer of room after a refused write. A kernel has no other reason to report room.
    fn tell_writer(&mut self) {
        if self.is_writable() && std::mem::take(&mut self.refused) {
            self.writer.happen();
        }
    }

    /// Tells the reader of arrived bytes, and the writer of room.
    fn tell(&mut self) {
        self.reader.happen();
        self.tell_writer();
        if self.end_arrived {
            self.ended_watcher.happen();
        }
    }
}

/// Longer acknowledgement timeouts are not simulated.
///
/// Clients that vanish end their connection themselves.
const LONGEST_ACK_TIMEOUT: Duration = Duration::from_secs(10);

/// The maximum number of stalls of a connection.
const MOST_STALLS: usize = 5;

/// Both directions of a connection, and its faults.
struct Wire {
    /// The client's number and the names of both ends, for the trace.
    client: usize,
    between: [&'static str; 2],
    streams: [Stream; 2],
    reset: bool,
    /// Nothing arrives: for a while, or never again.
    stalled: bool,
    cut: bool,
    /// The number of stalls, and their total time.
    stalls: usize,
    stalled_for: Duration,
    /// Whether the network has reset the connection.
    broken: bool,
    /// The sides that have closed their sockets.
    closed: [bool; 2],
    /// The acknowledgement timeout that the relay has set, until the scheduler takes it.
    ack_timeout: Option<Duration>,
    /// The number of deliveries to the client.
    arrivals: usize,
    /// The error that each side's next call returns.
    error: [Option<io::ErrorKind>; 2],
    /// The task of each side that waits for a reset, independently of readiness.
    reset_watchers: [Option<Waker>; 2],
    random: Random,
}

/// One side's socket.
#[derive(Clone)]
pub(super) struct Socket {
    side: usize,
    wire: Rc<RefCell<Wire>>,
    /// Closes this side when the last clone is dropped.
    _open: Rc<Closer>,
}

struct Closer {
    side: usize,
    wire: Rc<RefCell<Wire>>,
}

/// The scheduler's handle to a connection.
#[derive(Clone)]
pub(super) struct Cable(Rc<RefCell<Wire>>);

/// Creates the connection of a client `between` two ends, with this much room in each direction.
pub(super) fn connection(
    client: usize,
    between: [&'static str; 2],
    capacity: usize,
    random: Random,
) -> (Socket, Socket, Cable) {
    let stream = || Stream { capacity, ..Stream::default() };
    let mut streams = [stream(), stream()];
    streams[0].reader.has_come = true; // an accepted socket is ready once
    let wire = Wire {
        client,
        between,
        streams,
        reset: false,
        stalled: false,
        cut: false,
        stalls: 0,
        stalled_for: Duration::ZERO,
        broken: false,
        closed: [false; 2],
        ack_timeout: None,
        arrivals: 0,
        error: [None; 2],
        reset_watchers: [None, None],
        random,
    };
    let wire = Rc::new(RefCell::new(wire));
    let socket =
        |side| Socket { side, wire: Rc::clone(&wire), _open: Rc::new(Closer { side, wire: Rc::clone(&wire) }) };
    (socket(0), socket(1), Cable(Rc::clone(&wire)))
}

impl Cable {
    /// Whether a delivery is possible.
    pub(super) fn is_busy(&self) -> bool {
        let wire = self.0.borrow();
        let still = wire.stalled || wire.cut;
        !still && wire.streams.iter().any(|stream| stream.can_arrive() > 0 || stream.end_can_arrive())
    }

    /// Delivers bytes or an end. Returns the duration of a stall, if one begins.
    ///
    /// After a stall, the cable has to be [resumed](Self::resume).
    pub(super) fn deliver(&self) -> Option<Duration> {
        let wire = &mut *self.0.borrow_mut();
        let nth = wire.random.below(2);
        if !wire.deliver(nth) {
            wire.deliver(1 - nth);
        }
        // Stalls are rare, because a transfer in many pieces would take for ever.
        wire.stalled = wire.stalls < MOST_STALLS && wire.random.once_in(60);
        wire.stalls += usize::from(wire.stalled);
        let stall = wire.stalled.then(|| Duration::from_millis(wire.random.below(2500) as u64));
        wire.stalled_for += stall.unwrap_or_default();
        stall
    }

    /// Resets both sides, as a middlebox does that has lost its state.
    pub(super) fn break_down(&self) {
        let wire = &mut *self.0.borrow_mut();
        if !wire.reset {
            trace(|| format!("client {}: reset by the network", wire.client));
            wire.broken = true;
            wire.error = [Some(io::ErrorKind::ConnectionReset); 2];
            wire.end();
        }
    }

    /// Takes a short acknowledgement timeout that the relay has set, with the number of deliveries so far.
    pub(super) fn take_ack_timeout(&self) -> Option<(Duration, usize)> {
        let wire = &mut *self.0.borrow_mut();
        let timeout = wire.ack_timeout.take_if(|timeout| *timeout < LONGEST_ACK_TIMEOUT)?;
        Some((timeout, wire.arrivals))
    }

    /// Times out, like a kernel, if nothing was acknowledged since that number of deliveries.
    pub(super) fn check_ack(&self, arrivals: usize) {
        let wire = &mut *self.0.borrow_mut();
        let Stream { bytes, arrived, .. } = &wire.streams[1];
        let is_silent = wire.arrivals == arrivals && *arrived < bytes.len() && wire.ack_timeout.is_none();
        if is_silent && !wire.reset && (wire.cut || wire.stalled) {
            trace(|| format!("client {}: acknowledgements timed out", wire.client));
            wire.error[1] = Some(io::ErrorKind::TimedOut);
            wire.end();
        }
    }

    /// Whether the network has reset the connection.
    pub(super) fn was_broken(&self) -> bool {
        self.0.borrow().broken
    }

    /// Whether the relay has read everything that the client sent.
    pub(super) fn is_read(&self) -> bool {
        self.0.borrow().streams[0].bytes.is_empty()
    }

    /// Whether the relay has read the end of the client's stream.
    pub(super) fn end_is_read(&self) -> bool {
        self.0.borrow().streams[0].end_is_read
    }

    /// Disables all further stalls.
    pub(super) fn hold_steady(&self) {
        self.0.borrow_mut().stalls = MOST_STALLS;
    }

    /// Ends a stall.
    pub(super) fn resume(&self) {
        self.0.borrow_mut().stalled = false;
    }

    /// The total time of all stalls.
    pub(super) fn stalled_for(&self) -> Duration {
        self.0.borrow().stalled_for
    }

    /// Whether the connection stalls.
    pub(super) fn is_stalled(&self) -> bool {
        self.0.borrow().stalled
    }

    /// Whether the relay has closed its socket.
    pub(super) fn is_closed_by_relay(&self) -> bool {
        self.0.borrow().closed[1]
    }
}

impl Wire {
    /// Delivers bytes or the end in this direction. Returns false if there is nothing to deliver.
    fn deliver(&mut self, direction: usize) -> bool {
        let answered = self.streams[1 - direction].end_arrived;
        let (client, to) = (self.client, self.between[1 - direction]);
        let stream = &mut self.streams[direction];
        let can_arrive = stream.can_arrive();
        if can_arrive > 0 {
            let all = self.random.once_in(2);
            let count = if all { can_arrive } else { 1 + self.random.below(can_arrive.min(3000)) };
            stream.arrived += count;
            self.arrivals += direction;
            trace(|| format!("client {client}: {count} bytes arrive at {to}"));
        } else if stream.end_can_arrive() {
            stream.end_arrived = true;
            trace(|| format!("client {client}: the end arrives at {to}"));
        } else {
            return false;
        }
        let lost = stream.abandoned && stream.arrived > 0;
        if lost {
            stream.bytes.clear();
            stream.arrived = 0;
        }
        stream.tell();
        if lost && answered {
            // A closed socket answers with a reset, which arrives after the end of its own stream.
            self.reset(1 - direction);
            self.error[direction] = Some(io::ErrorKind::BrokenPipe);
        }
        true
    }

    /// Resets the connection. Arrived bytes can still be read; the others are lost.
    ///
    /// A reset does not pass a cable that is cut.
    fn reset(&mut self, by: usize) {
        if !self.reset && !self.cut {
            trace(|| format!("client {}: reset by {}", self.client, self.between[by]));
            self.error[1 - by] = Some(io::ErrorKind::ConnectionReset);
            self.end();
        }
    }

    /// Ends both directions for all remaining sockets.
    fn end(&mut self) {
        self.reset = true;
        for stream in &mut self.streams {
            stream.bytes.truncate(stream.arrived);
            stream.ended = true;
            stream.end_arrived = true;
            stream.abandoned = true;
            stream.tell();
        }
        self.reset_watchers.iter_mut().filter_map(Option::take).for_each(Waker::wake);
    }
}

impl Socket {
    /// The client's address, which is unique.
    fn address(&self) -> IpAddr {
        Ipv4Addr::from_bits(self.wire.borrow().client as u32).into()
    }

    /// Ends the connection with a reset.
    pub(super) fn reset(&self) {
        self.wire.borrow_mut().reset(self.side);
    }

    /// Ready after a reset or a timeout, even if there is something left to read.
    pub(super) fn poll_reset(&self, cx: &mut Context<'_>) -> Poll<()> {
        let wire = &mut *self.wire.borrow_mut();
        if wire.reset {
            return Poll::Ready(());
        }
        wire.reset_watchers[self.side] = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Cuts the cable: nothing arrives any more, and neither side is told.
    pub(super) fn cut(&self) {
        self.wire.borrow_mut().cut = true;
    }

    /// Ends both sides with a timeout, as kernels do after a long silence.
    pub(super) fn time_out(&self) {
        let wire = &mut *self.wire.borrow_mut();
        if !wire.reset {
            trace(|| format!("client {}: timed out", wire.client));
            wire.error = [Some(io::ErrorKind::TimedOut); 2];
            wire.end();
        }
    }
}

impl Drop for Closer {
    fn drop(&mut self) {
        let mut wire = self.wire.borrow_mut();
        let unread = !wire.streams[1 - self.side].bytes.is_empty();
        wire.closed[self.side] = true;
        wire.streams[self.side].ended = true;
        wire.streams[1 - self.side].abandoned = true;
        if unread {
            // Like TCP: closing a socket with unread bytes sends a reset.
            wire.reset(self.side);
        }
    }
}

impl Transport for Socket {
    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let stream = &mut self.wire.borrow_mut().streams[1 - self.side];
        stream.reader.poll(cx, stream.end_arrived)
    }

    fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Wire { streams, reset, .. } = &mut *self.wire.borrow_mut();
        streams[self.side].writer.poll(cx, *reset)
    }

    fn poll_ended(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let stream = &mut self.wire.borrow_mut().streams[1 - self.side];
        stream.ended_watcher.poll(cx, stream.end_arrived)
    }

    fn mark_readable(&self) {
        self.wire.borrow_mut().streams[1 - self.side].reader.has_come = true;
    }

    fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let Wire { streams, error, .. } = &mut *self.wire.borrow_mut();
        let stream = &mut streams[1 - self.side];
        if stream.arrived > 0 {
            // All arrived bytes that fit are returned. So a short read means that nothing is left.
            let count = buffer.len().min(stream.arrived);
            for (to, from) in buffer.iter_mut().zip(stream.bytes.drain(..count)) {
                *to = from;
            }
            stream.arrived -= count;
            stream.tell_writer();
            return Ok(count);
        }
        match error[self.side].take() {
            Some(kind) => Err(kind.into()),
            None if stream.end_arrived => {
                stream.end_is_read = true;
                Ok(0)
            }
            None => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    fn send(&self, bytes: &[u8], ends: bool) -> io::Result<usize> {
        let Wire { streams, random, error, reset, .. } = &mut *self.wire.borrow_mut();
        if let Some(kind) = error[self.side].take() {
            return Err(kind.into());
        }
        let stream = &mut streams[self.side];
        if stream.ended || *reset {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let room = stream.capacity.saturating_sub(stream.bytes.len());
        let most = bytes.len().min(room);
        let count = if most > 1 && random.once_in(4) { 1 + random.below(most) } else { most };
        stream.bytes.extend(&bytes[..count]);
        // If more bytes follow, the earlier ones are sent. A kernel holds bytes back for the end of the stream only if
        // the end can follow directly.
        stream.waiting = if ends && count == bytes.len() { count } else { 0 };
        if count == bytes.len() {
            return Ok(count);
        }
        stream.writer.has_come = false; // the next event comes after a delivery
        stream.refused = true;
        if count > 0 { Ok(count) } else { Err(io::ErrorKind::WouldBlock.into()) }
    }

    fn report_when_sent(&self) {
        let stream = &mut self.wire.borrow_mut().streams[self.side];
        stream.until_sent = true;
        stream.look_again();
    }

    fn report_room(&self) {
        let stream = &mut self.wire.borrow_mut().streams[self.side];
        stream.until_sent = false;
        stream.look_again();
    }

    fn set_ack_timeout(&self, timeout: Duration) {
        self.wire.borrow_mut().ack_timeout = Some(timeout);
    }

    fn bound_receive_buffer(&self, _: bool) {}

    fn shut_down(&self) -> io::Result<()> {
        self.wire.borrow_mut().streams[self.side].ended = true;
        Ok(())
    }

    fn deregister(self) -> Self {
        self
    }
}

// The clients of the simulation read and write as the relay's opening handshake does.

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut stream::Stream(self.clone())).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut stream::Stream(self.clone())).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut stream::Stream(self.clone())).poll_flush(cx)
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut stream::Stream(self.clone())).poll_close(cx)
    }
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Socket(side {})", self.side)
    }
}
