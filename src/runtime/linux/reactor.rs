//! A worker's reactor: waits for events of sockets, timers and other threads while no task is ready.
//!
//! It uses edge-triggered epoll: the kernel reports changes only. A socket is registered once, and the reactor remembers
//! which events have come. So a relayed message costs three system calls (wait, receive, send). A level-triggered or
//! one-shot reactor arms the socket again for each wait.
//!
//! Room to write is an event of a socket only from the first wait for it on. It would be the first event of each new
//! socket, and wake a task that has nothing to write. Most sockets are never full.
//!
//! The rule of edge-triggered I/O: after an event, a task reads until a read is short, or writes until a write is. Only
//! then does the kernel report another change. (A read stops at urgent data, which WebSocket does not have. Bytes
//! behind it may wait until the client sends more.)

use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventFlags};
use rustix::io::Errno;

use super::notifier::Notifier;
use super::sources::{Source, SourceId};
use super::timers;

pub(crate) use super::sources::Readiness;

/// The most events that one wait returns.
const EVENTS: usize = 1024;

/// The longest wait.
///
/// Before version 5.11, Linux has no waits of more than 24 days, and one wait an hour costs nothing.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);

/// The most waits before timers fire.
///
/// They take the events that came to all sockets while the process was stopped, but not an endless flood.
const ROUNDS: usize = 64;

/// The id of the notifier, which no source ever has.
const NOTIFIER: SourceId = SourceId { index: u32::MAX, serial: 0 };

/// The event loop of a thread. Its sockets and timers are in tables of the thread.
#[derive(Debug)]
pub(crate) struct Reactor {
    epoll: OwnedFd,
    notifier: Arc<Notifier>,
}

/// A socket's registration with the reactor of a thread. Only that thread can wait for it.
#[derive(Debug)]
pub(crate) struct Registration {
    id: SourceId,
}

thread_local! {
    /// The reactor that runs on this thread.
    static CURRENT: RefCell<Option<Arc<Reactor>>> = const { RefCell::new(None) };
}

impl Reactor {
    /// A reactor without sockets and timers.
    ///
    /// # Errors
    ///
    /// If the system has no file descriptors left.
    pub(crate) fn new() -> io::Result<Arc<Self>> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let notifier = Arc::new(Notifier::new()?);
        epoll::add(&epoll, notifier.as_fd(), NOTIFIER.to_data(), EventFlags::IN | EventFlags::ET)?;
        Ok(Arc::new(Self { epoll, notifier }))
    }

    /// The reactor that runs on this thread.
    ///
    /// # Panics
    ///
    /// Outside of [`block_on`](Self::block_on).
    fn with_current<R>(act: impl FnOnce(&Self) -> R) -> R {
        CURRENT.with_borrow(|current| act(current.as_ref().expect("sockets and timers run in `block_on`")))
    }

    /// Asserts that a reactor runs on this thread.
    pub(super) fn assert_running() {
        Self::with_current(|_| ());
    }

    /// Runs a future on this thread, with the sockets and timers that it waits for.
    pub(crate) fn block_on<T>(self: &Arc<Self>, future: impl Future<Output = T>) -> T {
        /// Restores the previous reactor of the thread.
        struct RestoreCurrent(Option<Arc<Reactor>>);
        impl Drop for RestoreCurrent {
            fn drop(&mut self) {
                CURRENT.set(self.0.take());
            }
        }
        let _restore = RestoreCurrent(CURRENT.replace(Some(Arc::clone(self))));
        let mut events = Vec::with_capacity(EVENTS);
        let mut future = pin!(future);
        let waker = Waker::from(Arc::clone(&self.notifier));
        loop {
            if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
                return output;
            }
            self.turn(&mut events);
        }
    }

    /// Waits for events, unless the notifier was notified already, and wakes the tasks that await them.
    ///
    /// A timer fires if its deadline had passed before this looked at the sockets. So events that came by then are
    /// reported first, also after the process was stopped: no client is given up although its answer has arrived.
    fn turn(&self, events: &mut Vec<Event>) {
        let now = Instant::now();
        let until = |deadline: Instant| deadline.saturating_duration_since(now).min(LONGEST_WAIT);
        let mut wait = if self.notifier.try_sleep() { timers::next().map(until) } else { Some(Duration::ZERO) };
        for _ in 0..ROUNDS {
            let timeout =
                wait.map(|wait| Timespec { tv_sec: wait.as_secs() as i64, tv_nsec: wait.subsec_nanos().into() });
            let result = epoll::wait(&self.epoll, spare_capacity(events), timeout.as_ref());
            self.notifier.set_awake(); // before tasks are woken: they need not end a wait
            debug_assert!(matches!(result, Ok(_) | Err(Errno::INTR)), "a wait cannot fail otherwise");
            let is_last = events.len() < events.capacity();
            for event in events.drain(..) {
                SourceId::from_data(event.data).report(event.flags);
            }
            if is_last {
                break;
            }
            wait = Some(Duration::ZERO);
        }
        timers::fire(now);
        self.notifier.set_awake(); // all tasks that are woken so far run before the next wait
    }

    fn register(&self, socket: impl AsFd, events: EventFlags) -> io::Result<Registration> {
        let registration = Registration { id: SourceId::insert() };
        epoll::add(&self.epoll, socket, registration.id.to_data(), events)?;
        Ok(registration)
    }
}

/// The events of a socket whose task has never waited for room to write, edge-triggered.
const WITHOUT_ROOM: EventFlags = EventFlags::IN.union(EventFlags::RDHUP).union(EventFlags::ET);

/// All events of a socket, edge-triggered.
const ALL: EventFlags = WITHOUT_ROOM.union(EventFlags::OUT);

/// The events of a socket that several reactors wait for.
///
/// The kernel queues an event for reactors that do not sleep, and wakes one that does.
const SHARED: EventFlags = EventFlags::IN.union(EventFlags::ET).union(EventFlags::EXCLUSIVE);

impl Registration {
    /// Registers a socket with the reactor of this thread.
    ///
    /// Closing the socket ends its registration in the kernel, so the socket must not have been duplicated.
    ///
    /// # Errors
    ///
    /// If the kernel has no memory left for it.
    pub(crate) fn new(socket: impl AsFd) -> io::Result<Self> {
        Reactor::with_current(|reactor| reactor.register(socket, WITHOUT_ROOM))
    }

    /// Registers a socket that other reactors wait for, too.
    ///
    /// It stays open when this registration ends. Only [`Readiness::Read`] is reported.
    ///
    /// # Errors
    ///
    /// If the kernel has no memory left for it.
    pub(crate) fn shared(socket: impl AsFd) -> io::Result<Self> {
        Reactor::with_current(|reactor| reactor.register(socket, SHARED))
    }

    /// Ready if the event has come since this was ready last. Otherwise the task is woken when it comes.
    ///
    /// [`Readiness::Write`] comes only if [`watch_room`](Self::watch_room) was called before. A broken socket is always ready for everything. After the end of its stream, a socket is always ready for
    /// reading.
    pub(crate) fn poll(&self, readiness: Readiness, cx: &mut Context<'_>) -> Poll<()> {
        let waits = self.look(|source| (!source.take_ready(readiness)).then(|| source.wait_for(readiness, cx.waker())));
        if waits.is_some() { Poll::Pending } else { Poll::Ready(()) }
    }

    /// Notes that the socket is still ready: the last read or write was not short.
    pub(crate) fn set_ready(&self, readiness: Readiness) {
        self.look(|source| source.set_ready(readiness));
    }

    /// Notes that the socket is not ready, whatever was reported before.
    pub(crate) fn set_pending(&self, readiness: Readiness) {
        self.look(|source| source.set_pending(readiness));
    }

    /// Has the kernel report room to write, too. The first call costs a system call.
    ///
    /// # Errors
    ///
    /// If the kernel has no memory left for it.
    pub(crate) fn watch_room(&self, socket: impl AsFd) -> io::Result<()> {
        if self.look(|source| source.has_room_watched) { Ok(()) } else { self.look_again(socket) }
    }

    /// Has the kernel report the socket's state anew, room to write included.
    ///
    /// Its definition of ready has changed.
    ///
    /// # Errors
    ///
    /// If the kernel has no memory left for it.
    pub(crate) fn look_again(&self, socket: impl AsFd) -> io::Result<()> {
        Reactor::with_current(|reactor| epoll::modify(&reactor.epoll, socket, self.id.to_data(), ALL))?;
        self.look(|source| source.has_room_watched = true);
        Ok(())
    }

    /// Ends the registration of a socket that stays open.
    pub(crate) fn end(self, socket: impl AsFd) {
        Reactor::with_current(|reactor| {
            let _ = epoll::delete(&reactor.epoll, socket);
        });
    }

    fn look<R>(&self, look: impl FnOnce(&mut Source) -> R) -> R {
        self.id.look(look).expect("a socket is used on the thread that has registered it")
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.id.remove();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::linux::sources::Ending;
    use crate::runtime::sync::{Mutex, lock};
    use crate::runtime::tests::outlasts_a_moment;
    use crate::runtime::timer::Timer;
    use std::future::poll_fn;
    use std::io::{Read, Write};
    use std::net::{Shutdown, TcpListener, TcpStream};
    use std::pin::Pin;
    use std::task::Wake;
    use std::thread;

    use futures_lite::FutureExt;
    use futures_lite::future::yield_now;

    const MOMENT: Duration = Duration::from_millis(20);

    /// Both ends of a connection, the first of which does not block.
    fn sockets() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        near.set_nonblocking(true).unwrap();
        (near, listener.accept().unwrap().0)
    }

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        let overdue = async {
            Timer::at(Instant::now() + Duration::from_secs(60)).await;
            panic!("it hangs");
        };
        Reactor::new().unwrap().block_on(future.or(overdue))
    }

    async fn wait(registration: &Registration, readiness: Readiness) {
        poll_fn(|cx| registration.poll(readiness, cx)).await;
    }

    async fn is_pending(registration: &Registration, readiness: Readiness) -> bool {
        outlasts_a_moment(wait(registration, readiness)).await
    }

    #[test]
    fn an_event_is_reported_once() {
        block_on(async {
            let (mut near, mut far) = sockets();
            let registration = Registration::new(&near).unwrap();
            assert!(is_pending(&registration, Readiness::Read).await);
            far.write_all(b"one").unwrap();
            wait(&registration, Readiness::Read).await;
            assert_eq!(near.read(&mut [0; 8]).unwrap(), 3);
            assert!(is_pending(&registration, Readiness::Read).await);
            far.write_all(b"two").unwrap();
            wait(&registration, Readiness::Read).await;
            registration.set_ready(Readiness::Read);
            assert!(!is_pending(&registration, Readiness::Read).await, "set_ready says that there is more");
        });
    }

    #[test]
    fn bytes_that_arrived_before_the_registration_are_reported() {
        block_on(async {
            let (near, mut far) = sockets();
            far.write_all(b"early").unwrap();
            wait(&Registration::new(&near).unwrap(), Readiness::Read).await;
        });
    }

    /// The end may come in one event with the bytes before it, and a read takes only these.
    #[test]
    fn an_end_is_reported_for_ever() {
        block_on(async {
            let (mut near, mut far) = sockets();
            let registration = Registration::new(&near).unwrap();
            far.write_all(b"last").unwrap();
            far.shutdown(Shutdown::Write).unwrap();
            wait(&registration, Readiness::End).await;
            wait(&registration, Readiness::Read).await;
            assert_eq!(near.read(&mut [0; 8]).unwrap(), 4);
            wait(&registration, Readiness::Read).await;
            assert_eq!(near.read(&mut [0; 8]).unwrap(), 0);
            wait(&registration, Readiness::Read).await;
            wait(&registration, Readiness::End).await;
        });
    }

    #[test]
    fn room_to_write_is_no_event_until_a_task_waits_for_it() {
        let events = || {
            let mut events = Vec::with_capacity(EVENTS);
            let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
            Reactor::with_current(|reactor| {
                epoll::wait(&reactor.epoll, spare_capacity(&mut events), Some(&at_once)).unwrap();
            });
            events.into_iter().map(|event| event.flags).collect::<Vec<_>>()
        };
        block_on(async {
            let (near, _far) = sockets();
            let registration = Registration::new(&near).unwrap();
            assert_eq!(events(), []);
            registration.watch_room(&near).unwrap();
            assert_eq!(events(), [EventFlags::OUT]);
            registration.watch_room(&near).unwrap();
            assert_eq!(events(), [], "it is watched already");
            registration.look_again(&near).unwrap();
            assert_eq!(events(), [EventFlags::OUT]);
        });
    }

    #[test]
    fn room_to_write_is_reported_after_a_full_socket() {
        block_on(async {
            let (mut near, mut far) = sockets();
            let registration = Registration::new(&near).unwrap();
            registration.watch_room(&near).unwrap();
            let mut sent = 0;
            while let Ok(count) = near.write(&[0; 65536]) {
                sent += count;
            }
            registration.set_pending(Readiness::Write);
            assert!(is_pending(&registration, Readiness::Write).await);
            let reader = thread::spawn(move || far.read_exact(&mut vec![0; sent]).unwrap());
            wait(&registration, Readiness::Write).await;
            assert!(near.write(b"more").is_ok());
            reader.join().unwrap();
        });
    }

    #[test]
    fn a_reset_socket_is_ready_for_everything() {
        block_on(async {
            let (near, far) = sockets();
            let registration = Registration::new(&near).unwrap();
            socket2::SockRef::from(&far).set_linger(Some(Duration::ZERO)).unwrap();
            drop(far);
            for readiness in [Readiness::End, Readiness::Read, Readiness::Write, Readiness::Read, Readiness::Write] {
                wait(&registration, readiness).await;
                registration.set_pending(readiness);
            }
        });
    }

    #[test]
    fn a_socket_can_move_to_another_thread() {
        let (near, mut far) = sockets();
        block_on(async { Registration::new(&near).unwrap().end(&near) });
        far.write_all(b"late").unwrap();
        block_on(async { wait(&Registration::new(&near).unwrap(), Readiness::Read).await });
    }

    #[test]
    fn a_late_event_does_not_reach_the_next_source_in_the_slot() {
        let reactor = Reactor::new().unwrap();
        let register = |reactor: &Arc<Reactor>| {
            let (near, _far) = sockets();
            let registration = reactor.register(&near, ALL).unwrap();
            (registration.id, registration)
        };
        let (gone, registration) = register(&reactor);
        drop(registration);
        let (new, _registration) = register(&reactor);
        assert_eq!(gone.index, new.index);
        gone.report(EventFlags::HUP);
        assert_eq!(new.look(|source| source.ending), Some(Ending::None));
        new.report(EventFlags::HUP);
        assert_eq!(new.look(|source| source.ending), Some(Ending::Broken));
    }

    #[test]
    fn another_thread_can_wake_the_reactor() {
        let (sender, receiver) = async_channel::bounded(1);
        let other = thread::spawn(move || {
            for number in 0..1000 {
                sender.send_blocking(number).unwrap();
            }
        });
        block_on(async {
            for number in 0..1000 {
                assert_eq!(receiver.recv().await, Ok(number));
            }
        });
        other.join().unwrap();
    }

    /// Otherwise, a wait without a result would follow each event.
    #[test]
    fn a_wake_up_by_an_event_does_not_prevent_the_next_sleep() {
        let reactor = Reactor::new().unwrap();
        let (near, mut far) = sockets();
        let registration = reactor.register(&near, ALL).unwrap();
        let waker = Waker::from(Arc::clone(&reactor.notifier));
        assert!(registration.poll(Readiness::Read, &mut Context::from_waker(&waker)).is_pending());
        far.write_all(b"message").unwrap();
        reactor.turn(&mut Vec::with_capacity(EVENTS));
        assert!(registration.poll(Readiness::Read, &mut Context::from_waker(&waker)).is_ready());
        assert!(reactor.notifier.try_sleep());
    }

    #[test]
    fn a_busy_task_does_not_keep_events_from_others() {
        block_on(async {
            let (near, mut far) = sockets();
            let registration = Registration::new(&near).unwrap();
            far.write_all(b"message").unwrap();
            let busy = async {
                loop {
                    yield_now().await;
                }
            };
            wait(&registration, Readiness::Read).or(busy).await;
        });
    }

    /// A waker that notes its number and the time of each wake-up.
    struct Note {
        number: u32,
        notes: Arc<Mutex<Vec<(u32, Instant)>>>,
        task: Waker,
    }

    impl Wake for Note {
        fn wake(self: Arc<Self>) {
            lock(&self.notes).push((self.number, Instant::now()));
            self.task.wake_by_ref();
        }
    }

    #[test]
    fn timers_wake_in_the_order_of_their_deadlines_and_never_early() {
        let start = Instant::now() + 10 * MOMENT;
        let notes = Arc::new(Mutex::new(vec![]));
        let mut timers = [3, 1, 2].map(|number| (number, Timer::at(start + number * MOMENT)));
        let reactor = Reactor::new().unwrap();
        reactor.block_on(async {
            poll_fn(|cx| {
                if lock(&notes).is_empty() {
                    for (number, timer) in &mut timers {
                        let note = Note { number: *number, notes: Arc::clone(&notes), task: cx.waker().clone() };
                        let waker = Waker::from(Arc::new(note));
                        assert!(Pin::new(timer).poll(&mut Context::from_waker(&waker)).is_pending());
                    }
                }
                if lock(&notes).len() < timers.len() { Poll::Pending } else { Poll::Ready(()) }
            })
            .await;
            let mut gone = Box::pin(Timer::at(Instant::now() + LONGEST_WAIT));
            assert!(poll_fn(|cx| Poll::Ready(gone.as_mut().poll(cx))).await.is_pending());
            assert!(timers::next().is_some());
        });
        let notes = lock(&notes);
        assert_eq!(notes.iter().map(|&(number, _)| number).collect::<Vec<_>>(), [1, 2, 3]);
        assert!(notes.iter().all(|&(number, at)| at >= start + number * MOMENT), "early");
        assert_eq!(timers::next(), None, "a dropped timer is not waited for");
    }

    /// As after a stop of the process.
    ///
    /// There are more events than one wait returns, and a deadline has passed.
    #[test]
    fn all_events_are_reported_before_a_timer_fires() {
        let reactor = Reactor::new().unwrap();
        let notes = Arc::new(Mutex::new(vec![]));
        let waker =
            |number| Waker::from(Arc::new(Note { number, notes: Arc::clone(&notes), task: Waker::noop().clone() }));
        let mut pairs: Vec<_> = (0..10).map(|_| sockets()).collect();
        let registrations: Vec<_> = pairs.iter().map(|(near, _)| reactor.register(near, ALL).unwrap()).collect();
        reactor.block_on(async {
            let mut timer = Timer::at(Instant::now());
            let mut poll = || Pin::new(&mut timer).poll(&mut Context::from_waker(&waker(0)));
            assert!(poll().is_pending());
            for (registration, (_, far)) in registrations.iter().zip(&mut pairs) {
                assert!(registration.poll(Readiness::Read, &mut Context::from_waker(&waker(1))).is_pending());
                far.write_all(b"meanwhile").unwrap();
            }
            thread::sleep(MOMENT);
            assert!(poll().is_pending(), "the reactor has not looked at the sockets yet");
            reactor.turn(&mut Vec::with_capacity(4));
            let reported: Vec<_> = lock(&notes).iter().map(|&(number, _)| number).collect();
            assert_eq!(reported, [&[1; 10][..], &[0]].concat());
            assert!(poll().is_ready());
        });
    }
}
