//! How many connections each client has, and how often it asks to join.
//!
//! This file decides what is too much, and whom it remembers: never more than it has room for, and nobody for longer than
//! it matters. Time is an argument. That connections which have ended are counted no more is
//! [`client_limits`](crate::limits::client_limits)'s duty.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// What the rate of requests is counted in.
const MINUTE: Duration = Duration::from_secs(60);

/// The most that a rate can be limited to, per minute.
pub(crate) const MOST_JOINS: u32 = 60_000;

/// How many clients are remembered at most: with 180 bytes for each, that is 11.3 MiB.
pub(crate) const CAPACITY: usize = 65_536;

/// Whoever counts as one: an IPv4 address, or the 64 bits that all addresses of an IPv6 network have in common, as its
/// owner can choose the others at will.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
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
        f.write_str("Client(..)") // it is nobody's business, and must get into no log
    }
}

/// What one client may do. Zero: as it likes.
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

/// What is remembered of a client.
#[derive(Debug)]
struct Entry {
    connections: usize,
    /// Until when its requests use up what is allowed, if the next one is allowed as soon as the one before it is over.
    /// It may be a minute ahead.
    paid_at: Instant,
    /// When it was seen last: its key among those without connections.
    seen: u64,
}

/// All clients that are remembered.
#[derive(Debug)]
pub(crate) struct Clients {
    limits: Limits,
    capacity: usize,
    // Strangers choose their addresses: the standard library's hash has a key that they do not know.
    entries: HashMap<Client, Entry>,
    /// Those without connections, the one that was seen least recently first, and when that was.
    idle: BTreeMap<u64, (Instant, Client)>,
    /// How often anybody was seen.
    sights: u64,
}

impl Clients {
    pub(crate) fn new(limits: Limits, capacity: usize) -> Self {
        let joins_per_minute = limits.joins_per_minute.min(MOST_JOINS);
        let limits = Limits { joins_per_minute, ..limits };
        Self { limits, capacity, entries: HashMap::new(), idle: BTreeMap::new(), sights: 0 }
    }

    /// Counts a request to join, unless it is one too many: then it changes nothing.
    pub(crate) fn ask(&mut self, client: Client, now: Instant) -> Result<(), Excess> {
        if self.limits.joins_per_minute == 0 {
            return Ok(());
        }
        let price = MINUTE / self.limits.joins_per_minute;
        let paid_at = self.entries.get(&client).map_or(now, |entry| entry.paid_at.max(now)) + price;
        let wait = paid_at.saturating_duration_since(now + MINUTE);
        if !wait.is_zero() {
            return Err(Excess::Joins { wait });
        }
        if let Some(entry) = self.see(client, now) {
            entry.paid_at = paid_at;
        }
        self.rest(client, now);
        Ok(())
    }

    /// Counts a connection, unless it is one too many. Says whether it was counted: then it has to [leave](Self::leave).
    pub(crate) fn arrive(&mut self, client: Client, now: Instant) -> Result<bool, Excess> {
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
    pub(crate) fn leave(&mut self, client: Client, now: Instant) {
        let Some(entry) = self.see(client, now) else { return };
        debug_assert!(entry.connections > 0, "it has arrived");
        entry.connections = entry.connections.saturating_sub(1);
        self.rest(client, now);
    }

    /// How many connections are counted.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn connections(&self) -> usize {
        self.entries.values().map(|entry| entry.connections).sum()
    }

    /// What is remembered of this client, who is seen now: for the moment it cannot be forgotten. If there is room for
    /// nobody else, since all have connections, whoever is new is not counted. To turn it away would let a stranger with
    /// that many addresses, whom these limits do not bind anyway, keep everybody out.
    fn see(&mut self, client: Client, now: Instant) -> Option<&mut Entry> {
        self.forget(now);
        self.sights += 1;
        if let Some(entry) = self.entries.get(&client) {
            self.idle.remove(&entry.seen);
        } else if self.entries.len() >= self.capacity {
            let (_, (_, forgotten)) = self.idle.pop_first()?;
            self.entries.remove(&forgotten);
        }
        let new = || Entry { connections: 0, paid_at: now, seen: 0 };
        let entry = self.entries.entry(client).or_insert_with(new);
        entry.seen = self.sights;
        Some(entry)
    }

    /// If this client has no connections, it may be forgotten from now on, at once if it owes nothing.
    fn rest(&mut self, client: Client, now: Instant) {
        match self.entries.get(&client) {
            Some(Entry { connections: 0, paid_at, seen }) if *paid_at > now => {
                self.idle.insert(*seen, (now, client));
            }
            Some(Entry { connections: 0, .. }) => {
                self.entries.remove(&client);
            }
            _ => {}
        }
    }

    /// Forgets those who have not been seen for a minute and have no connections: they owe nothing any more.
    fn forget(&mut self, now: Instant) {
        while let Some(oldest) = self.idle.first_entry()
            && oldest.get().0 + MINUTE <= now
        {
            let (_, client) = oldest.remove();
            self.entries.remove(&client);
        }
    }
}
