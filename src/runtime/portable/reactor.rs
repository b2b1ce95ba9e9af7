//! A thread that waits for events: by smol's reactor, which all threads share.
//!
//! Its counterpart is `linux/reactor.rs`, of which each worker has its own.

use std::future::Future;
use std::io;
use std::sync::Arc;

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
        smol::block_on(future)
    }
}
