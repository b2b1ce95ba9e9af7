//! A relay on threads of shuttle: its own workers and supervisor, with sockets in memory.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future::{Future, pending, poll_fn, ready};
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use super::block_on;
use crate::runtime::clock::{Clock, Sleep};
use crate::runtime::spawn::Spawn;
use crate::runtime::sync::{Mutex, with_lock};
use crate::runtime::transport::{Listener, Transport};

/// A clock that stands still: only what has a deadline of now is over.
#[derive(Debug)]
pub(super) struct Still(pub(super) Instant);

impl Clock for Still {
    fn now(&self) -> Instant {
        self.0
    }

    fn sleep_until(&self, deadline: Instant) -> Sleep {
        if deadline <= self.0 { Box::pin(ready(())) } else { Box::pin(pending()) }
    }

    fn since_epoch(&self) -> Duration {
        Duration::ZERO
    }
}

type Task = Pin<Box<dyn Future<Output = ()>>>;

/// The tasks of a thread.
///
/// Its wakers are no points at which shuttle goes on with another thread: a channel wakes under a lock of its own, which
/// shuttle does not know.
#[derive(Default)]
pub(super) struct Tasks {
    futures: RefCell<BTreeMap<usize, Task>>,
    next: Cell<usize>,
    woken: Arc<std::sync::Mutex<Woken>>,
    turn: Rc<Cell<u32>>,
}

#[derive(Default)]
struct Woken {
    tasks: BTreeSet<usize>,
    thread: Option<Waker>,
}

struct TaskWaker(usize, Arc<std::sync::Mutex<Woken>>);

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        let mut woken = self.1.lock().unwrap();
        woken.tasks.insert(self.0);
        woken.thread.iter().for_each(Waker::wake_by_ref);
    }
}

impl Tasks {
    /// Runs the tasks until this future is ready.
    pub(super) fn run(&self, until: impl Future<Output = ()>) {
        let mut until = pin!(until);
        block_on(poll_fn(|cx| {
            self.woken.lock().unwrap().thread = Some(cx.waker().clone());
            if until.as_mut().poll(cx).is_ready() {
                return Poll::Ready(());
            }
            self.turn.set(self.turn.get() + 1);
            let woken = std::mem::take(&mut self.woken.lock().unwrap().tasks);
            if !woken.is_empty() {
                cx.waker().wake_by_ref();
            }
            woken.into_iter().for_each(|id| self.step(id));
            Poll::Pending
        }));
    }

    fn step(&self, id: usize) {
        // The task is taken out while it runs, because it may spawn others.
        let Some(mut task) = self.futures.borrow_mut().remove(&id) else { return };
        let waker = Waker::from(Arc::new(TaskWaker(id, Arc::clone(&self.woken))));
        if task.as_mut().poll(&mut Context::from_waker(&waker)).is_pending() {
            self.futures.borrow_mut().insert(id, task);
        }
    }
}

impl Spawn for Tasks {
    fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        let id = self.next.replace(self.next.get() + 1);
        self.futures.borrow_mut().insert(id, Box::pin(task));
        Arc::new(TaskWaker(id, Arc::clone(&self.woken))).wake();
    }

    fn wake(&self, share: usize, shares: usize) {
        let all: Vec<_> = self.futures.borrow().keys().copied().filter(|id| id % shares == share).collect();
        all.into_iter().for_each(|id| Arc::new(TaskWaker(id, Arc::clone(&self.woken))).wake());
    }

    fn turn(&self) -> Rc<Cell<u32>> {
        Rc::clone(&self.turn)
    }
}

/// A listening socket. Each worker has a handle to it.
#[derive(Clone, Default)]
pub(super) struct Door(Arc<Mutex<Queue>>);

#[derive(Default)]
struct Queue {
    sockets: VecDeque<Socket>,
    tasks: Vec<Waker>,
    handles: usize,
}

/// A worker's handle to the listening socket. The drop of the last one closes what is in the queue.
pub(super) struct Handle(Door);

impl Door {
    pub(super) fn listen(&self) -> Handle {
        with_lock(&self.0, |queue| queue.handles += 1);
        Handle(self.clone())
    }

    /// A client connects and sends its request. Its socket is closed if no worker listens any more.
    pub(super) fn connect(&self, code: &str) -> Client {
        let wire = Arc::new(Mutex::new(Wire { to_relay: request(code), ..Wire::default() }));
        let socket = Socket(Arc::new(RelaySide(Arc::clone(&wire))));
        let client = Client { wire, relay_side: Arc::downgrade(&socket.0) };
        let (tasks, _closed) = with_lock(&self.0, |queue| match queue.handles {
            0 => (vec![], Some(socket)),
            _ => {
                queue.sockets.push_back(socket);
                (std::mem::take(&mut queue.tasks), None)
            }
        });
        tasks.into_iter().for_each(Waker::wake);
        client
    }
}

impl Listener for Handle {
    type Socket = Socket;

    fn share(&self) -> Self {
        self.0.listen()
    }

    fn poll_acceptable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        with_lock(&self.0.0, |queue| {
            if queue.sockets.is_empty() {
                queue.tasks.push(cx.waker().clone());
                return Poll::Pending;
            }
            Poll::Ready(Ok(()))
        })
    }

    fn accept(&self) -> io::Result<(Socket, IpAddr)> {
        let socket = with_lock(&self.0.0, |queue| queue.sockets.pop_front());
        socket.iter().for_each(|Socket(side)| with_lock(&side.0, |wire| wire.is_accepted = true));
        socket.map(|socket| (socket, Ipv4Addr::LOCALHOST.into())).ok_or_else(|| io::ErrorKind::WouldBlock.into())
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        let _closed = with_lock(&self.0.0, |queue| {
            queue.handles -= 1;
            if queue.handles == 0 { std::mem::take(&mut queue.sockets) } else { VecDeque::new() }
        });
    }
}

/// What is between a client and the relay.
#[derive(Debug, Default)]
struct Wire {
    is_accepted: bool,
    to_relay: Vec<u8>,
    /// Whether the client's stream has ended.
    is_ended: bool,
    from_relay: Vec<u8>,
    /// The task of the relay that waits for the client.
    task: Option<Waker>,
}

/// The relay's end of a connection.
#[derive(Clone, Debug)]
pub(super) struct Socket(Arc<RelaySide>);

#[derive(Debug)]
struct RelaySide(Arc<Mutex<Wire>>);

/// A client. It answers a close frame, and ends its stream after that or a refusal.
pub(super) struct Client {
    wire: Arc<Mutex<Wire>>,
    relay_side: Weak<RelaySide>,
}

impl Client {
    /// Ends its stream, without a close frame.
    pub(super) fn leave(&self) {
        let task = with_lock(&self.wire, |wire| {
            wire.is_ended = true;
            wire.task.take()
        });
        task.into_iter().for_each(Waker::wake);
    }

    /// Whether the relay has closed its socket.
    pub(super) fn is_closed(&self) -> bool {
        self.relay_side.strong_count() == 0
    }

    /// Whether a worker has taken it out of the queue.
    pub(super) fn is_accepted(&self) -> bool {
        with_lock(&self.wire, |wire| wire.is_accepted)
    }

    /// The status of the answer, if there was one, and whether a close frame came behind it.
    pub(super) fn told(&self) -> (Option<u16>, bool) {
        with_lock(&self.wire, |wire| {
            let head = String::from_utf8_lossy(&wire.from_relay);
            let status = head.split(' ').nth(1).map(|status| status.parse().unwrap());
            let behind = wire.from_relay.windows(4).position(|end| end == b"\r\n\r\n").map(|at| at + 4);
            (status, behind.is_some_and(|behind| wire.from_relay.get(behind) == Some(&CLOSE)))
        })
    }
}

/// The first byte of a close frame.
const CLOSE: u8 = 0x88;

fn request(code: &str) -> Vec<u8> {
    let lines = [
        &format!("GET /?pair={code} HTTP/1.1"),
        "Host: test",
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        "\r\n",
    ];
    lines.join("\r\n").into()
}

impl Socket {
    fn poll(&self, cx: &mut Context<'_>, is_ready: impl FnOnce(&Wire) -> bool) -> Poll<io::Result<()>> {
        let (is_ready, _previous) = with_lock(&self.0.0, |wire| match is_ready(wire) {
            true => (true, None),
            false => (false, wire.task.replace(cx.waker().clone())),
        });
        if is_ready { Poll::Ready(Ok(())) } else { Poll::Pending }
    }
}

impl Transport for Socket {
    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll(cx, |wire| wire.is_ended || !wire.to_relay.is_empty())
    }

    fn poll_writable(&self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_ended(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll(cx, |wire| wire.is_ended)
    }

    fn mark_readable(&self) {}

    fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        with_lock(&self.0.0, |wire| {
            if wire.to_relay.is_empty() {
                return if wire.is_ended { Ok(0) } else { Err(io::ErrorKind::WouldBlock.into()) };
            }
            let count = buffer.len().min(wire.to_relay.len());
            buffer[..count].copy_from_slice(&wire.to_relay[..count]);
            wire.to_relay.drain(..count);
            Ok(count)
        })
    }

    fn send(&self, bytes: &[u8], _ends: bool) -> io::Result<usize> {
        let task = with_lock(&self.0.0, |wire| {
            wire.from_relay.extend_from_slice(bytes);
            let is_last = if bytes[0] == CLOSE {
                wire.to_relay.extend_from_slice(&[CLOSE, 0x80, 0, 0, 0, 0]);
                true
            } else {
                !wire.from_relay.starts_with(b"HTTP/1.1 101 ")
            };
            wire.is_ended |= is_last;
            wire.task.take_if(|_| is_last)
        });
        task.into_iter().for_each(Waker::wake);
        Ok(bytes.len())
    }

    fn report_when_sent(&self) {}

    fn report_room(&self) {}

    fn set_ack_timeout(&self, _: Duration) {}

    fn bound_receive_buffer(&self, _: bool) {}

    fn shut_down(&self) -> io::Result<()> {
        Ok(())
    }

    fn deregister(self) -> Self {
        self
    }
}
