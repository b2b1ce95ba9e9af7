//! What a thread waits for when none of its tasks is ready: its sockets, its timers, and other threads.
//!
//! A relay that receives one message and sends it on needs two system calls, and one more to learn that there is a
//! message. A reactor for everybody cannot stop there: it arms each socket anew for each wait. This one is told by the
//! system of changes only (edge-triggered epoll), so a socket is registered once, for all that can happen to it, and
//! what it was last said to be ready for is remembered here.
//!
//! The rules of that: who was told that a socket is readable reads until less comes than there is room for; who was
//! told that it is writable writes until less is taken. Only then the system has something new to tell. (A read stops at
//! urgent data, which WebSocket does not know: what a client sends behind it may wait until it sends more.)

use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::pin;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::io::Errno;
use slab::Slab;

use super::notifier::Notifier;
use super::sync::lock;
use super::timers::Timers;

/// What a source can be ready for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Readiness {
    /// There is something to read or to accept, or the stream has ended.
    Read,
    /// There is room to write, or nothing can be written any more.
    Write,
    /// The other side's stream has ended, or was reset, though there may be more to read.
    End,
}

impl Readiness {
    fn flag(self) -> EventFlags {
        match self {
            Self::Read => EventFlags::IN,
            Self::Write => EventFlags::OUT,
            Self::End => EventFlags::RDHUP,
        }
    }
}

/// How many events are taken at once. There may be more, which are taken in the next turn.
const EVENTS: usize = 1024;

/// The longest wait. Systems before Linux 5.11 know no waits of more than 24 days; one in an hour costs nothing.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);

/// How often it takes as many as there is room for before timers have their turn: for what has come to all sockets that there
/// can be while the process was stopped, but not for a flood without an end.
const ROUNDS: usize = 64;

/// The notifier's place, where no source will ever be.
const NOTIFIER: SourceId = SourceId { index: u32::MAX, serial: 0 };

/// The one thing that a thread waits for.
#[derive(Debug)]
pub(crate) struct Reactor {
    epoll: OwnedFd,
    notifier: Arc<Notifier>,
    timers: Timers,
    /// Never locked while a waker runs or is dropped, which may do anything.
    sources: Mutex<Slab<Source>>,
    /// How many sources there have been.
    issued: AtomicU32,
}

/// A socket as the reactor sees it.
#[derive(Debug, Default)]
struct Source {
    serial: u32,
    /// What has happened and was not yet told.
    ready: EventFlags,
    /// What it will always be ready for.
    forever: EventFlags,
    /// What is waited for.
    awaited: EventFlags,
    /// The task that waits. There is but one: it is the same that reads and that writes.
    task: Option<Waker>,
}

impl Source {
    /// Takes in what has happened, and says whether somebody waits for it.
    fn update(&mut self, happened: EventFlags) -> bool {
        if happened.intersects(EventFlags::HUP | EventFlags::ERR) {
            self.forever = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP;
        } else if happened.contains(EventFlags::RDHUP) {
            self.forever |= EventFlags::IN | EventFlags::RDHUP;
        }
        let ready = happened | self.forever;
        self.ready |= ready;
        let is_awaited = self.awaited.intersects(ready);
        self.awaited.remove(ready);
        is_awaited
    }
}

/// A socket's place in the reactor.
#[derive(Debug)]
pub(crate) struct Registration {
    reactor: Arc<Reactor>,
    place: SourceId,
}

/// Where a source is. The serial number tells it from those that had its place before: an event may come late.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct SourceId {
    index: u32,
    serial: u32,
}

impl SourceId {
    fn to_data(self) -> EventData {
        EventData::new_u64(u64::from(self.serial) << 32 | u64::from(self.index))
    }

    fn from_data(data: EventData) -> Self {
        Self { index: data.u64() as u32, serial: (data.u64() >> 32) as u32 }
    }
}

thread_local! {
    /// The reactor that runs on this thread.
    static CURRENT: RefCell<Option<Arc<Reactor>>> = const { RefCell::new(None) };
}

impl Reactor {
    /// A reactor with nothing to wait for.
    ///
    /// # Errors
    ///
    /// If the system has no file descriptors left.
    pub(crate) fn new() -> io::Result<Arc<Self>> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let notifier = Arc::new(Notifier::new()?);
        epoll::add(&epoll, notifier.as_fd(), NOTIFIER.to_data(), EventFlags::IN | EventFlags::ET)?;
        Ok(Arc::new(Self {
            epoll,
            notifier,
            timers: Timers::default(),
            sources: Mutex::default(),
            issued: AtomicU32::new(0),
        }))
    }

    /// The one that runs on this thread.
    ///
    /// # Panics
    ///
    /// If there is none.
    pub(super) fn current() -> Arc<Self> {
        CURRENT.with_borrow(|current| Arc::clone(current.as_ref().expect("sockets and timers run in `block_on`")))
    }

    /// The timers of this thread.
    pub(super) fn timers(&self) -> &Timers {
        &self.timers
    }

    /// Runs a future on this thread, with all that it waits for.
    pub(crate) fn block_on<T>(self: &Arc<Self>, future: impl Future<Output = T>) -> T {
        /// Puts back what was current before.
        struct RestoreCurrent(Option<Arc<Reactor>>);
        impl Drop for RestoreCurrent {
            fn drop(&mut self) {
                CURRENT.set(self.0.take());
            }
        }
        let _leave = RestoreCurrent(CURRENT.replace(Some(Arc::clone(self))));
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

    /// Waits until something has happened, unless the notifier has rung already, and wakes whom it concerns.
    ///
    /// A timer's time has come when it had come before the sockets were looked at. So whatever had happened to them by then is
    /// told first, also to a process that was stopped meanwhile: nobody is given up for an answer that is there.
    fn turn(&self, events: &mut Vec<Event>) {
        let now = Instant::now();
        let until = |deadline: Instant| deadline.saturating_duration_since(now).min(LONGEST_WAIT);
        let mut wait = if self.notifier.listen() { self.timers.next().map(until) } else { Some(Duration::ZERO) };
        for _ in 0..ROUNDS {
            let timeout =
                wait.map(|wait| Timespec { tv_sec: wait.as_secs() as i64, tv_nsec: wait.subsec_nanos().into() });
            let result = epoll::wait(&self.epoll, spare_capacity(events), timeout.as_ref());
            self.notifier.ignore(); // or each task that is woken here would ring it for a sleeper
            debug_assert!(matches!(result, Ok(_) | Err(Errno::INTR)), "nothing else can happen to a wait");
            let are_all = events.len() < events.capacity();
            for event in events.drain(..) {
                self.report(event);
            }
            if are_all {
                break;
            }
            wait = Some(Duration::ZERO);
        }
        self.timers.fire(now);
        self.notifier.ignore(); // the tasks have their turn now, and no other one before the next wait
    }

    fn report(&self, event: Event) {
        let SourceId { index, serial } = SourceId::from_data(event.data);
        let mut sources = lock(&self.sources);
        if let Some(source) = sources.get_mut(index as usize)
            && source.serial == serial
            && source.update(event.flags)
            && let Some(task) = source.task.clone()
        {
            drop(sources);
            task.wake();
        }
    }

    fn register(self: &Arc<Self>, socket: impl AsFd) -> io::Result<Registration> {
        let serial = self.issued.fetch_add(1, Relaxed);
        let index = lock(&self.sources).insert(Source { serial, ..Source::default() });
        let index = u32::try_from(index).expect("file descriptors are 31 bits wide");
        let registration = Registration { reactor: Arc::clone(self), place: SourceId { index, serial } };
        epoll::add(&self.epoll, socket, registration.place.to_data(), ALL)?;
        Ok(registration)
    }
}

/// All that can happen to a socket, told when it happens.
const ALL: EventFlags = EventFlags::IN.union(EventFlags::OUT).union(EventFlags::RDHUP).union(EventFlags::ET);

impl Registration {
    /// Registers a socket with the reactor of this thread. Closing the socket ends its registration in the system, so it
    /// must not have been duplicated.
    ///
    /// # Errors
    ///
    /// If the system has no room left for it.
    pub(crate) fn new(socket: impl AsFd) -> io::Result<Self> {
        Reactor::current().register(socket)
    }

    /// Ready if the socket has become so since the last time that this was said; otherwise the task is woken when it does.
    /// One that is broken is always ready; one whose stream has ended is, for reading.
    pub(crate) fn poll(&self, readiness: Readiness, cx: &mut Context<'_>) -> Poll<()> {
        let flag = readiness.flag();
        let mut sources = lock(&self.reactor.sources);
        let source = &mut sources[self.place.index as usize];
        if source.ready.intersects(flag) {
            source.ready.remove(flag);
            source.ready |= source.forever;
            return Poll::Ready(());
        }
        source.awaited |= flag;
        if !source.task.as_ref().is_some_and(|task| task.will_wake(cx.waker())) {
            let previous = source.task.replace(cx.waker().clone());
            drop(sources);
            drop(previous);
        }
        Poll::Pending
    }

    /// Says that the socket is still ready: it was not read, or written, until there was no more.
    pub(crate) fn set_ready(&self, readiness: Readiness) {
        lock(&self.reactor.sources)[self.place.index as usize].ready.insert(readiness.flag());
    }

    /// Says that the socket is not ready, whatever was told before.
    pub(crate) fn set_pending(&self, readiness: Readiness) {
        let source = &mut lock(&self.reactor.sources)[self.place.index as usize];
        source.ready.remove(readiness.flag());
        source.ready |= source.forever;
    }

    /// Has the system look at the socket again, because what it means by ready has changed.
    pub(crate) fn look_again(&self, socket: impl AsFd) -> io::Result<()> {
        Ok(epoll::modify(&self.reactor.epoll, socket, self.place.to_data(), ALL)?)
    }

    /// Ends the registration of a socket that stays open.
    pub(crate) fn end(self, socket: impl AsFd) {
        let _ = epoll::delete(&self.reactor.epoll, socket);
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let source = lock(&self.reactor.sources).remove(self.place.index as usize);
        drop(source); // and its waker, when nothing is locked any more
    }
}

#[cfg(test)]
mod tests {
    use super::*;
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

    /// Whether a wait that begins now would go on after the reactor has looked at everything.
    async fn is_pending(registration: &Registration, readiness: Readiness) -> bool {
        let waits = async {
            wait(registration, readiness).await;
            false
        };
        waits
            .or(async {
                Timer::at(Instant::now() + MOMENT).await;
                true
            })
            .await
    }

    #[test]
    fn what_arrives_is_told_once() {
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
            assert!(!is_pending(&registration, Readiness::Read).await, "there is more, as somebody says");
        });
    }

    #[test]
    fn what_arrived_before_is_told_too() {
        block_on(async {
            let (near, mut far) = sockets();
            far.write_all(b"early").unwrap();
            wait(&Registration::new(&near).unwrap(), Readiness::Read).await;
        });
    }

    /// The end may come in one event with the data before it, which is not all that there is to read then.
    #[test]
    fn an_end_is_told_for_ever() {
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
    fn who_can_write_no_more_is_told_when_there_is_room() {
        block_on(async {
            let (mut near, mut far) = sockets();
            let registration = Registration::new(&near).unwrap();
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
    fn a_reset_makes_ready_for_everything() {
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
    fn an_event_for_one_that_is_gone_is_not_told_to_who_has_its_place() {
        let reactor = Reactor::new().unwrap();
        let place = |reactor: &Arc<Reactor>| {
            let (near, _far) = sockets();
            let registration = reactor.register(&near).unwrap();
            (registration.place, registration)
        };
        let (gone, registration) = place(&reactor);
        drop(registration);
        let (new, _registration) = place(&reactor);
        assert_eq!(gone.index, new.index);
        reactor.report(Event { flags: EventFlags::HUP, data: gone.to_data() });
        assert!(lock(&reactor.sources)[new.index as usize].forever.is_empty());
        reactor.report(Event { flags: EventFlags::HUP, data: new.to_data() });
        assert!(!lock(&reactor.sources)[new.index as usize].forever.is_empty());
    }

    #[test]
    fn another_thread_can_wake_it() {
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

    /// Otherwise, each event would be followed by a wait that can only say that there was nothing.
    #[test]
    fn what_an_event_has_woken_does_not_keep_the_thread_from_sleeping_afterwards() {
        let reactor = Reactor::new().unwrap();
        let (near, mut far) = sockets();
        let registration = reactor.register(&near).unwrap();
        let waker = Waker::from(Arc::clone(&reactor.notifier));
        assert!(registration.poll(Readiness::Read, &mut Context::from_waker(&waker)).is_pending());
        far.write_all(b"message").unwrap();
        reactor.turn(&mut Vec::with_capacity(EVENTS));
        assert!(registration.poll(Readiness::Read, &mut Context::from_waker(&waker)).is_ready());
        assert!(reactor.notifier.listen());
    }

    #[test]
    fn who_wakes_itself_does_not_keep_events_from_others() {
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

    /// A waker that notes whom it has woken, and when.
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
            assert!(reactor.timers.next().is_some());
        });
        let notes = lock(&notes);
        assert_eq!(notes.iter().map(|&(number, _)| number).collect::<Vec<_>>(), [1, 2, 3]);
        assert!(notes.iter().all(|&(number, at)| at >= start + number * MOMENT), "early");
        assert_eq!(reactor.timers.next(), None, "a timer that is dropped is not waited for");
    }

    /// As after a stop of the process: more has happened than fits into one wait, and a timer's time is over.
    #[test]
    fn all_that_has_happened_is_told_before_a_timer_is_ready() {
        let reactor = Reactor::new().unwrap();
        let notes = Arc::new(Mutex::new(vec![]));
        let waker =
            |number| Waker::from(Arc::new(Note { number, notes: Arc::clone(&notes), task: Waker::noop().clone() }));
        let mut pairs: Vec<_> = (0..10).map(|_| sockets()).collect();
        let registrations: Vec<_> = pairs.iter().map(|(near, _)| reactor.register(near).unwrap()).collect();
        reactor.block_on(async {
            let mut timer = Timer::at(Instant::now());
            let mut poll = || Pin::new(&mut timer).poll(&mut Context::from_waker(&waker(0)));
            assert!(poll().is_pending());
            for (registration, (_, far)) in registrations.iter().zip(&mut pairs) {
                assert!(registration.poll(Readiness::Read, &mut Context::from_waker(&waker(1))).is_pending());
                far.write_all(b"meanwhile").unwrap();
            }
            thread::sleep(MOMENT);
            assert!(poll().is_pending(), "nobody has looked at the sockets yet");
            reactor.turn(&mut Vec::with_capacity(4));
            let told: Vec<_> = lock(&notes).iter().map(|&(number, _)| number).collect();
            assert_eq!(told, [&[1; 10][..], &[0]].concat());
            assert!(poll().is_ready());
        });
    }
}
