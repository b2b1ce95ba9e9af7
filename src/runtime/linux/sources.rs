//! Sockets as the reactor sees them: which events have come, and which task waits for which.

use std::task::Waker;

use rustix::event::epoll::{EventData, EventFlags};

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

impl Readiness {
    fn flag(self) -> EventFlags {
        match self {
            Self::Read => EventFlags::IN,
            Self::Write => EventFlags::OUT,
            Self::End => EventFlags::RDHUP,
        }
    }
}

/// The state of a registered socket.
#[derive(Debug, Default)]
pub(super) struct Source {
    /// The serial number of its [`SourceId`].
    pub(super) serial: u32,
    /// Events that have come and that no task has taken yet.
    ready: EventFlags,
    /// Events that stay: after an end or a reset, the socket is always ready.
    pub(super) forever: EventFlags,
    /// Events that the task waits for.
    awaited: EventFlags,
    /// The task that waits. There is only one, which both reads and writes.
    pub(super) task: Option<Waker>,
}

impl Source {
    /// A new source, to which nothing has happened yet.
    pub(super) fn new(serial: u32) -> Self {
        Self { serial, ..Self::default() }
    }

    /// Adds events that have come. True if the task waits for one of them.
    pub(super) fn update(&mut self, events: EventFlags) -> bool {
        if events.intersects(EventFlags::HUP | EventFlags::ERR) {
            self.forever = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP;
        } else if events.contains(EventFlags::RDHUP) {
            self.forever |= EventFlags::IN | EventFlags::RDHUP;
        }
        let ready = events | self.forever;
        self.ready |= ready;
        let is_awaited = self.awaited.intersects(ready);
        self.awaited.remove(ready);
        is_awaited
    }

    /// Takes an event, if it has come.
    pub(super) fn take_ready(&mut self, readiness: Readiness) -> bool {
        let is_ready = self.ready.intersects(readiness.flag());
        if is_ready {
            self.set_pending(readiness);
        }
        is_ready
    }

    /// Has the task wait for an event, and returns the waker that this replaces.
    pub(super) fn wait_for(&mut self, readiness: Readiness, waker: &Waker) -> Option<Waker> {
        self.awaited |= readiness.flag();
        if self.task.as_ref().is_some_and(|task| task.will_wake(waker)) {
            return None;
        }
        self.task.replace(waker.clone())
    }

    pub(super) fn set_ready(&mut self, readiness: Readiness) {
        self.ready.insert(readiness.flag());
    }

    pub(super) fn set_pending(&mut self, readiness: Readiness) {
        self.ready.remove(readiness.flag());
        self.ready |= self.forever;
    }
}

/// A source's slot in the reactor's slab, and a serial number.
///
/// The serial number tells the source from earlier ones in the same slot: an event may come late.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct SourceId {
    pub(super) index: u32,
    pub(super) serial: u32,
}

impl SourceId {
    pub(super) fn to_data(self) -> EventData {
        EventData::new_u64(u64::from(self.serial) << 32 | u64::from(self.index))
    }

    pub(super) fn from_data(data: EventData) -> Self {
        Self { index: data.u64() as u32, serial: (data.u64() >> 32) as u32 }
    }
}
