//! Sockets as the reactor sees them: which events have come, and which task waits for which.
//!
//! Each thread has a table of its own, so it takes no lock. A [`SourceId`] means nothing on another thread.

use std::cell::RefCell;
use std::task::Waker;

use rustix::event::epoll::{EventData, EventFlags};
use slab::Slab;

use super::serials;

/// An event that a task can wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Readiness {
    /// There are bytes to read or a connection to accept, or the stream has ended.
    Read,
    /// There is room to write, or nothing can be written any more.
    Write,
    /// The other side's stream has ended or was reset, though there may be more to read.
    End,
}

/// A set of [`Readiness`], in one byte.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct ReadySet(u8);

impl ReadySet {
    const ALL: Self = Self::of(Readiness::Read).and(Readiness::Write).and(Readiness::End);

    const fn of(readiness: Readiness) -> Self {
        Self(1 << readiness as u8)
    }

    const fn and(self, readiness: Readiness) -> Self {
        Self(self.0 | Self::of(readiness).0)
    }

    fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    fn insert(&mut self, other: Self) {
        self.0 |= other.0;
    }

    fn remove(&mut self, other: Self) {
        self.0 &= !other.0;
    }
}

impl From<EventFlags> for ReadySet {
    fn from(flags: EventFlags) -> Self {
        let readiness = [
            (EventFlags::IN, Readiness::Read),
            (EventFlags::OUT, Readiness::Write),
            (EventFlags::RDHUP, Readiness::End),
        ];
        let mut set = Self::default();
        for (flag, readiness) in readiness {
            if flags.contains(flag) {
                set.insert(Self::of(readiness));
            }
        }
        set
    }
}

/// How a socket's stream has ended. Its events then stay: the socket is always ready for them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Ending {
    #[default]
    None,
    /// The other side's stream has ended.
    Ended,
    /// The socket is broken.
    Broken,
}

impl Ending {
    fn ready(self) -> ReadySet {
        match self {
            Self::None => ReadySet::default(),
            Self::Ended => ReadySet::of(Readiness::Read).and(Readiness::End),
            Self::Broken => ReadySet::ALL,
        }
    }
}

/// The state of a registered socket.
#[derive(Debug, Default)]
pub(super) struct Source {
    /// The serial number of its [`SourceId`].
    serial: u32,
    /// Events that have come and that no task has taken yet.
    ready: ReadySet,
    /// Events that the task waits for.
    awaited: ReadySet,
    pub(super) ending: Ending,
    /// Whether the kernel reports room to write.
    pub(super) has_room_watched: bool,
    /// The task that waits. There is only one, which both reads and writes.
    task: Option<Waker>,
}

impl Source {
    /// Adds events that have come. True if the task waits for one of them.
    fn update(&mut self, events: EventFlags) -> bool {
        if events.intersects(EventFlags::HUP | EventFlags::ERR) {
            self.ending = Ending::Broken;
        } else if events.contains(EventFlags::RDHUP) && self.ending == Ending::None {
            self.ending = Ending::Ended;
        }
        let mut ready = self.ending.ready();
        ready.insert(events.into());
        self.ready.insert(ready);
        let is_awaited = self.awaited.intersects(ready);
        self.awaited.remove(ready);
        is_awaited
    }

    /// Takes an event, if it has come.
    pub(super) fn take_ready(&mut self, readiness: Readiness) -> bool {
        let is_ready = self.ready.intersects(ReadySet::of(readiness));
        if is_ready {
            self.set_pending(readiness);
        }
        is_ready
    }

    /// Has the task wait for an event, and returns the waker that this replaces.
    pub(super) fn wait_for(&mut self, readiness: Readiness, waker: &Waker) -> Option<Waker> {
        self.awaited.insert(ReadySet::of(readiness));
        if self.task.as_ref().is_some_and(|task| task.will_wake(waker)) {
            return None;
        }
        self.task.replace(waker.clone())
    }

    pub(super) fn set_ready(&mut self, readiness: Readiness) {
        self.ready.insert(ReadySet::of(readiness));
    }

    pub(super) fn set_pending(&mut self, readiness: Readiness) {
        self.ready.remove(ReadySet::of(readiness));
        self.ready.insert(self.ending.ready());
    }
}

thread_local! {
    /// The sources of this thread.
    static SOURCES: RefCell<Slab<Source>> = const { RefCell::new(Slab::new()) };
}

/// A source's slot in its thread's table, and a serial number.
///
/// The serial number tells the source from earlier ones in the same slot, as an event may come late, and from those of
/// other threads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct SourceId {
    pub(super) index: u32,
    pub(super) serial: u32,
}

impl SourceId {
    /// Adds a source to this thread's table. Nothing has happened to it yet.
    pub(super) fn insert() -> Self {
        let serial = serials::next() as u32; // wraps: the source of 2^32 numbers ago has no event under way
        let index = SOURCES.with_borrow_mut(|sources| sources.insert(Source { serial, ..Source::default() }));
        Self { index: u32::try_from(index).expect("file descriptors are 31 bits wide"), serial }
    }

    /// Looks at the source, if this thread has it.
    pub(super) fn look<R>(self, look: impl FnOnce(&mut Source) -> R) -> Option<R> {
        SOURCES.with_borrow_mut(|sources| {
            let source = sources.get_mut(self.index as usize).filter(|source| source.serial == self.serial);
            source.map(look)
        })
    }

    /// Adds events that have come to the source, and wakes the task that waits for one of them.
    pub(super) fn report(self, events: EventFlags) {
        let task = self.look(|source| if source.update(events) { source.task.take() } else { None });
        if let Some(mut task @ Some(_)) = task {
            // By reference, which costs a locked instruction less than to wake a clone.
            task.as_ref().inspect(|task| task.wake_by_ref());
            self.look(|source| source.task = source.task.take().or_else(|| task.take()));
        }
    }

    /// Removes the source. That of another thread stays, as its reactor has ended.
    pub(super) fn remove(self) {
        let _removed = SOURCES.try_with(|sources| {
            let mut sources = sources.borrow_mut();
            let is_there = sources.get(self.index as usize).is_some_and(|source| source.serial == self.serial);
            is_there.then(|| sources.remove(self.index as usize))
        });
    }

    pub(super) fn to_data(self) -> EventData {
        EventData::new_u64(u64::from(self.serial) << 32 | u64::from(self.index))
    }

    pub(super) fn from_data(data: EventData) -> Self {
        Self { index: data.u64() as u32, serial: (data.u64() >> 32) as u32 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_known_to_its_own_thread_only() {
        let id = SourceId::insert();
        let other = std::thread::spawn(move || {
            let there = SourceId::insert();
            (id.look(|_| ()), there, there.look(|_| ()))
        });
        let (here, there, own) = other.join().unwrap();
        assert_eq!((here, own, there.look(|_| ())), (None, Some(()), None));
        assert_eq!(id.look(|_| ()), Some(()));
        id.remove();
        assert_eq!(id.look(|_| ()), None);
    }

    #[test]
    #[cfg(target_pointer_width = "64")]
    fn a_source_has_24_bytes_in_the_table() {
        assert_eq!(size_of::<Source>(), 24);
        assert_eq!(size_of::<Option<Source>>(), 24, "the slab's free slots need a niche");
    }
}
