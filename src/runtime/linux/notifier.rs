//! Wakes a reactor's thread from other threads, by an eventfd.
//!
//! That costs a system call only if the thread sleeps.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::task::Wake;

use rustix::event::{EventfdFlags, eventfd};

use crate::runtime::sync::atomic::{AtomicU8, Ordering::SeqCst};

/// The thread runs tasks, and looks at all of them before it sleeps.
const AWAKE: u8 = 0;
/// The thread runs tasks, and has to look once more before it sleeps.
const NOTIFIED: u8 = 1;
/// The thread sleeps, or is about to.
const ASLEEP: u8 = 2;

/// A waker that also ends the reactor's wait for events.
#[derive(Debug)]
pub(crate) struct Notifier {
    state: AtomicU8,
    /// An eventfd that is written and never read: with edge-triggered epoll, each write is an event.
    event: OwnedFd,
}

impl Notifier {
    pub(crate) fn new() -> io::Result<Self> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self { state: AtomicU8::new(AWAKE), event })
    }

    /// Notes that the thread is about to sleep. False if it must not, because it was notified.
    pub(crate) fn try_sleep(&self) -> bool {
        self.state.compare_exchange(AWAKE, ASLEEP, SeqCst, SeqCst).is_ok()
    }

    /// Notes that the thread is awake and looks at all tasks from here on.
    ///
    /// (A swap acquires what notifying threads wrote before.)
    pub(crate) fn set_awake(&self) {
        self.state.swap(AWAKE, SeqCst);
    }
}

impl Wake for Notifier {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.state.swap(NOTIFIED, SeqCst) == ASLEEP {
            // It fails only when the counter is full, after 2^64 writes.
            let _ = rustix::io::write(&self.event, &1_u64.to_ne_bytes());
        }
    }
}

impl AsFd for Notifier {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(notifier: &Notifier) -> u64 {
        let mut count = [0; 8];
        rustix::io::read(&notifier.event, &mut count).map_or(0, |_| u64::from_ne_bytes(count))
    }

    #[test]
    fn only_waking_a_sleeping_thread_costs_a_system_call() {
        let notifier = Arc::new(Notifier::new().unwrap());
        notifier.wake_by_ref();
        assert!(!notifier.try_sleep(), "it was notified");
        notifier.set_awake();
        assert_eq!(written(&notifier), 0);
        assert!(notifier.try_sleep());
        notifier.wake_by_ref();
        notifier.wake_by_ref();
        assert_eq!(written(&notifier), 1);
    }
}
