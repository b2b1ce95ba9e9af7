//! The one table of [`Clients`] that all connections share, and their presences in it.
//!
//! A connection is counted no more when its [`ClientGuard`] is dropped, so that no path out of it can forget that. The mutex
//! is a plain one: it is held for an operation on the table when a connection comes, asks to join, or ends, never for a
//! message and never across an await.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::limits::clients::{CAPACITY, Client, Clients, Excess, Limits};
use crate::runtime::clock::Clock;

/// The shared table.
#[derive(Debug)]
pub(crate) struct ClientLimits {
    clients: Mutex<Clients>,
    clock: Arc<dyn Clock>,
}

/// A connection's place among those of its client, for as long as it lives.
pub(crate) struct ClientGuard {
    limits: Arc<ClientLimits>,
    client: Client,
}

impl ClientLimits {
    pub(crate) fn new(limits: Limits, clock: Arc<dyn Clock>) -> Self {
        Self { clients: Mutex::new(Clients::new(limits, CAPACITY)), clock }
    }

    /// Counts a request to join.
    pub(crate) fn ask(&self, client: Client) -> Result<(), Excess> {
        self.lock().ask(client, self.clock.now())
    }

    /// Counts a connection, if connections are counted. What says so is boxed, as mostly they are not.
    pub(crate) fn arrive(self: &Arc<Self>, client: Client) -> Result<Option<Box<ClientGuard>>, Excess> {
        let is_counted = self.lock().arrive(client, self.clock.now())?;
        Ok(is_counted.then(|| Box::new(ClientGuard { limits: Arc::clone(self), client })))
    }

    /// How many connections are counted.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn connections(&self) -> usize {
        self.lock().connections()
    }

    fn lock(&self) -> MutexGuard<'_, Clients> {
        // Each step leaves it whole.
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for ClientGuard {
    fn drop(&mut self) {
        self.limits.lock().leave(self.client, self.limits.clock.now());
    }
}

impl fmt::Debug for ClientGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientGuard")
    }
}
