//! Limits of each client: how many connections it has, and how often it asks to join.
//!
//! [`Clients`] is pure and decides: time is an argument. [`ClientLimits`] is the table that all connections share. A
//! connection counts until its [`ClientGuard`] is dropped, so no path out of it can forget that. The mutex is a plain one:
//! it is held when a connection comes, asks to join, or ends, never for a message and never across an await.

#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::limits::token_bucket::TokenBucket;
use crate::runtime::clock::Clock;
use crate::runtime::sync::{Mutex, lock};

/// The time in which a client may make as many requests to join as its limit says.
const MINUTE: Duration = Duration::from_secs(60);

/// The most that the rate of requests can be limited to, per minute.
pub(crate) const MOST_JOINS: u32 = 60_000;

/// The most clients that are remembered: with 180 bytes for each, that is 11.3 MiB.
const CAPACITY: usize = 65_536;

/// What counts as one client: an IPv4 address, or a network of 64 bits in IPv6.
///
/// The owner of such a network chooses the other bits of its addresses at will.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Client {
    V4(u32),
    V6Network(u64),
}

impl From<IpAddr> for Client {
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self::V4(address.into()),
            IpAddr::V6(address) => Self::V6Network((u128::from(address) >> 64) as u64),
        }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Client(..)") // no log may hold an address
    }
}

/// The limits of each client. Zero: none.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Limits {
    pub(crate) connections: usize,
    pub(crate) joins_per_minute: u32,
}

/// What a client has too much of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Excess {
    Connections,
    /// Requests to join; the next one is allowed after this time.
    Joins {
        wait: Duration,
    },
}

/// The shared table.
///
/// A limit that is off takes no lock: the table would be the one thing that each handshake on any worker writes to.
#[derive(Debug)]
pub(crate) struct ClientLimits {
    limits: Limits,
    clients: Mutex<Clients>,
    clock: Arc<dyn Clock>,
}

impl ClientLimits {
    pub(crate) fn new(limits: Limits, clock: Arc<dyn Clock>) -> Self {
        Self { limits, clients: Mutex::new(Clients::new(limits, CAPACITY)), clock }
    }

    /// Counts a request to join.
    pub(crate) fn ask(&self, client: Client) -> Result<(), Excess> {
        if self.limits.joins_per_minute == 0 {
            return Ok(());
        }
        lock(&self.clients).ask(client, self.clock.now())
    }

    /// Counts a connection, if connections are counted. The guard is boxed, as mostly they are not.
    pub(crate) fn arrive(self: &Arc<Self>, client: Client) -> Result<Option<Box<ClientGuard>>, Excess> {
        if self.limits.connections == 0 {
            return Ok(None);
        }
        let is_counted = lock(&self.clients).arrive(client, self.clock.now())?;
        Ok(is_counted.then(|| Box::new(ClientGuard { limits: Arc::clone(self), client })))
    }

    /// The number of connections that are counted.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn connections(&self) -> usize {
        lock(&self.clients).connections()
    }
}

/// Counts a connection among those of its client, for as long as it lives.
pub(crate) struct ClientGuard {
    limits: Arc<ClientLimits>,
    client: Client,
}

impl Drop for ClientGuard {
    fn drop(&mut self) {
        lock(&self.limits.clients).leave(self.client, self.limits.clock.now());
    }
}

impl fmt::Debug for ClientGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientGuard")
    }
}

/// What is remembered of a client.
#[derive(Debug)]
struct Entry {
    connections: usize,
    /// Requests to join. The bucket is a minute deep.
    joins: TokenBucket,
}

/// All clients that are remembered, never more than there is room for.
///
/// A client without connections is remembered until its bucket is full again: then nothing is left to know of it.
#[derive(Debug)]
struct Clients {
    limits: Limits,
    capacity: usize,
    // Strangers choose their addresses: the standard library's hash has a key that they do not know.
    entries: HashMap<Client, Entry>,
    /// The clients without connections, in the order in which their buckets are full.
    idle: BTreeSet<(TokenBucket, Client)>,
}

impl Clients {
    fn new(limits: Limits, capacity: usize) -> Self {
        let joins_per_minute = limits.joins_per_minute.min(MOST_JOINS);
        let limits = Limits { joins_per_minute, ..limits };
        Self { limits, capacity, entries: HashMap::new(), idle: BTreeSet::new() }
    }

    /// Counts a request to join, unless it is one too many: then it changes nothing.
    fn ask(&mut self, client: Client, now: Instant) -> Result<(), Excess> {
        if self.limits.joins_per_minute == 0 {
            return Ok(());
        }
        let price = MINUTE / self.limits.joins_per_minute;
        let mut joins = self.entries.get(&client).map_or(TokenBucket::full(now), |entry| entry.joins);
        joins.take(price, MINUTE, now).map_err(|wait| Excess::Joins { wait })?;
        if let Some(entry) = self.see(client, now) {
            entry.joins = joins;
        }
        self.rest(client, now);
        Ok(())
    }

    /// Counts a connection, unless it is one too many.
    ///
    /// Returns whether it was counted: then it has to [leave](Self::leave).
    fn arrive(&mut self, client: Client, now: Instant) -> Result<bool, Excess> {
        let limit = self.limits.connections;
        if limit == 0 {
            return Ok(false);
        }
        if self.entries.get(&client).is_some_and(|entry| entry.connections >= limit) {
            return Err(Excess::Connections);
        }
        let Some(entry) = self.see(client, now) else { return Ok(false) };
        entry.connections += 1;
        Ok(true)
    }

    /// A connection that was counted has ended.
    fn leave(&mut self, client: Client, now: Instant) {
        let Some(entry) = self.see(client, now) else { return };
        debug_assert!(entry.connections > 0, "it has arrived");
        entry.connections = entry.connections.saturating_sub(1);
        self.rest(client, now);
    }

    /// The number of connections that are counted.
    #[cfg(any(test, fuzzing))]
    fn connections(&self) -> usize {
        self.entries.values().map(|entry| entry.connections).sum()
    }

    /// The entry of a client that is seen now. It is not idle until it [rests](Self::rest).
    ///
    /// A full table forgets the client without connections that owes least. If all clients have connections, a new one is
    /// not counted. To refuse it would let a stranger with that many addresses keep all others out, and these limits do not
    /// bind such a stranger anyway.
    fn see(&mut self, client: Client, now: Instant) -> Option<&mut Entry> {
        self.sweep(now);
        if let Some(entry) = self.entries.get(&client) {
            self.idle.remove(&(entry.joins, client));
        } else if self.entries.len() >= self.capacity {
            let (_, forgotten) = self.idle.pop_first()?;
            self.entries.remove(&forgotten);
        }
        Some(self.entries.entry(client).or_insert_with(|| Entry { connections: 0, joins: TokenBucket::full(now) }))
    }

    /// Lets a client be forgotten from now on if it has no connections, at once if it owes nothing.
    fn rest(&mut self, client: Client, now: Instant) {
        if let Some(Entry { connections: 0, joins }) = self.entries.get(&client) {
            self.idle.insert((*joins, client));
            self.sweep(now);
        }
    }

    /// Forgets the clients without connections that owe nothing any more.
    fn sweep(&mut self, now: Instant) {
        while let Some((joins, client)) = self.idle.first().copied()
            && joins.is_full(now)
        {
            self.idle.pop_first();
            self.entries.remove(&client);
        }
    }
}
