//! Rung by anybody who has something for a thread to do. It costs a system call only if the thread sleeps.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering::SeqCst};
use std::task::Wake;

use rustix::event::{EventfdFlags, eventfd};

/// The thread works, and will look at everything before it sleeps.
const AWAKE: u8 = 0;
/// It works, and has to look once more before it sleeps.
const RUNG: u8 = 1;
/// It sleeps, or is about to.
const ASLEEP: u8 = 2;

/// A waker that also ends a wait for events.
#[derive(Debug)]
pub(super) struct Notifier {
    state: AtomicU8,
    /// It is written to and never read: each write is an event of its own to whoever is told of changes only.
    event: OwnedFd,
}

impl Notifier {
    pub(super) fn new() -> io::Result<Self> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self { state: AtomicU8::new(AWAKE), event })
    }

    /// The thread is about to sleep. False if it must not, because the notifier has rung.
    pub(super) fn listen(&self) -> bool {
        self.state.compare_exchange(AWAKE, ASLEEP, SeqCst, SeqCst).is_ok()
    }

    /// The thread is awake, and looks at everything from here on. (A swap, so that it sees what a ringer did before.)
    pub(super) fn ignore(&self) {
        self.state.swap(AWAKE, SeqCst);
    }
}

impl Wake for Notifier {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.state.swap(RUNG, SeqCst) == ASLEEP {
            // It can fail only when it is full, after 2^64 events that nobody has read.
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
    fn only_a_sleeper_costs_a_system_call() {
        let notifier = Arc::new(Notifier::new().unwrap());
        notifier.wake_by_ref();
        assert!(!notifier.listen(), "it has rung");
        notifier.ignore();
        assert_eq!(written(&notifier), 0);
        assert!(notifier.listen());
        notifier.wake_by_ref();
        notifier.wake_by_ref();
        assert_eq!(written(&notifier), 1);
    }
}
