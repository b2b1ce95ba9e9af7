//! A thread that waits for events: by smol's reactor, which all threads share.
//!
//! Its counterpart is `linux/reactor.rs`, of which each worker has its own.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::sync::Arc;

thread_local! {
    /// The number of looks at events on this thread.
    static LOOKS: Cell<u32> = const { Cell::new(0) };
}

/// The event loop of a thread.
#[derive(Debug)]
pub(crate) struct Reactor;

impl Reactor {
    /// An event loop.
    ///
    /// # Errors
    ///
    /// None here. The shared reactor begins with the first socket, and panics if the system has no file descriptors left.
    pub(crate) fn new() -> io::Result<Arc<Self>> {
        Ok(Arc::new(Self))
    }

    /// Runs a future on this thread, with the sockets and timers that it waits for.
    pub(crate) fn block_on<T>(self: &Arc<Self>, future: impl Future<Output = T>) -> T {
        let mut future = pin!(future);
        smol::block_on(poll_fn(|cx| {
            LOOKS.set(LOOKS.get().wrapping_add(1));
            future.as_mut().poll(cx)
        }))
    }
}

/// The number of looks at events on this thread. Tasks that an event has woken run before the next look.
pub(super) fn looks() -> u32 {
    LOOKS.get()
}
