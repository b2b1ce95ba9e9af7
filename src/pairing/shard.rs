//! A shard of the seats: the pair table of a part of the codes, behind a mutex.
//!
//! Two clients with one code come to one shard, whatever their workers are. The mutex is a plain one: it is held for a table
//! operation on connect, on departure and on expiry, never for a message and never across an await.
//!
//! The shards of a relay share its limits of codes and of waiting sides, as [`Permits`].

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::buffers::buffer::Buffer;
use crate::limits::capacity::EffectiveLimits;
use crate::limits::pair_rate::Allowance;
use crate::limits::permits::Permits;
use crate::pairing::join::Join;
use crate::pairing::link::End;
use crate::pairing::occupants::Occupant;
use crate::pairing::pair_code::PairCode;
use crate::pairing::pair_table::{Admission, ConnId, Departure, HasSide, PairTable, Refusal, Room};
use crate::runtime::clock::Clock;
use crate::runtime::sync::{Mutex, with_lock};
use crate::telemetry::records::Meeting;
use crate::telemetry::rejection::Rejection;

/// What the first side leaves for the second.
#[derive(Debug)]
pub(super) struct ParkedSide {
    pub(super) far: End<Box<Buffer>>,
    /// The second side's record completes it.
    pub(super) meeting: Arc<Meeting>,
    /// The worker of the first side.
    ///
    /// The second side runs there too, so that their batches stay in one cache.
    pub(super) worker: usize,
    /// What the pair spends from.
    pub(super) allowance: Allowance,
    /// Whether the first side speaks `arc-relay.v1`. Then the second one tells it that it is there.
    pub(super) speaks_v1: bool,
}

// Handles are boxed, as a slot is as large as what it may hold, and most hold nothing.
type Table = PairTable<Box<ParkedSide>, Arc<Occupant>>;

/// An admission by such a table.
pub(super) type Admitted = Admission<Box<ParkedSide>, Arc<Occupant>>;

/// The limits that all shards share. Each shard has a share of the permits.
#[derive(Debug)]
pub(super) struct CodeLimits {
    /// For codes in use, those with one side waiting included.
    codes: Permits,
    /// For sides that wait.
    waiting: Permits,
}

impl CodeLimits {
    pub(super) fn new(limits: EffectiveLimits, shards: usize) -> Self {
        Self { codes: Permits::new(limits.codes, shards), waiting: Permits::new(limits.waiting, shards) }
    }

    /// Whether one more side may wait for a second one.
    pub(super) fn have_room_to_wait(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Takes the permits of a first side, if they are there.
    fn take(&self, shard: usize, room: Room) -> bool {
        match room {
            Room::Nothing => true,
            Room::Wait => self.waiting.withdraw(shard),
            Room::CodeAndWait => self.take_both(shard),
        }
    }

    fn take_both(&self, shard: usize) -> bool {
        if !self.waiting.withdraw(shard) {
            return false;
        }
        let is_taken = self.codes.withdraw(shard);
        if !is_taken {
            self.waiting.deposit(shard, 1);
        }
        is_taken
    }
}

/// A shard.
///
/// No two are in a cache line (of 128 bytes, as the processor may fetch two lines of 64 together).
#[derive(Debug)]
#[repr(align(128))]
pub(super) struct Shard {
    guarded: Mutex<Guarded>,
    nth: usize,
    ttl: Duration,
    limits: Arc<CodeLimits>,
    clock: Arc<dyn Clock>,
}

/// What the mutex guards.
#[derive(Debug)]
struct Guarded {
    table: Table,
    /// Whether clients are admitted.
    is_open: bool,
}

impl Shard {
    /// The `nth` of `count` shards.
    pub(super) fn new([nth, count]: [usize; 2], ttl: Duration, limits: Arc<CodeLimits>, clock: Arc<dyn Clock>) -> Self {
        let table = PairTable::numbered(ttl, nth as u64, count as u64);
        Self { guarded: Mutex::new(Guarded { table, is_open: true }), nth, ttl, limits, clock }
    }

    pub(super) fn nth(&self) -> usize {
        self.nth
    }

    pub(super) fn now(&self) -> Instant {
        self.clock.now()
    }

    /// Seats a new connection at the code of its occupant.
    ///
    /// It also returns the number of sides that wait in this shard then. Without a permit for the connection, it only tells
    /// the reason to reject it.
    pub(super) fn connect(
        &self,
        occupant: &Arc<Occupant>,
        has_permit: bool,
        park: impl FnOnce() -> Box<ParkedSide>,
        now: Instant,
    ) -> Result<(Admitted, usize), Rejection> {
        self.change(|Guarded { table, is_open }| {
            if !*is_open {
                return Err(Rejection::Stopping);
            }
            if !has_permit {
                // If a pair has the code, there is a permit when the pair has gone.
                let replaces = table.seat_of(occupant.code(), occupant.side()).is_some();
                let is_occupied = !replaces && table.pair(occupant.code()).is_some();
                return Err(if is_occupied { Rejection::PairFull } else { Rejection::RelayFull });
            }
            let park = |room| self.limits.take(self.nth, room).then(park);
            match table.connect(occupant.code(), Arc::clone(occupant), park, now) {
                Ok(admission) => Ok((admission, table.waiting())),
                Err(Refusal::Occupied) => Err(Rejection::PairFull),
                Err(Refusal::Full) => Err(Rejection::RelayFull),
            }
        })
    }

    /// Takes out the connection that this newcomer would replace, if there is one.
    ///
    /// It stays if the newcomer could not wait then.
    pub(super) fn evict(&self, newcomer: &Join) -> Option<(Arc<Occupant>, Departure<Box<ParkedSide>>)> {
        let Join { code, side, .. } = newcomer;
        self.change(|Guarded { table, is_open }| {
            let seated = table.seat_of(code, side.as_ref())?;
            let (id, occupant) = (seated.id, Arc::clone(&seated.occupant));
            let is_paired = table.pair(code).is_some();
            let may_wait = *is_open && !(is_paired && self.limits.waiting.is_empty());
            may_wait.then(|| (occupant, table.disconnect(code, id)))
        })
    }

    /// Takes a connection out and frees its code.
    pub(super) fn disconnect(&self, code: &PairCode, id: ConnId) -> Departure<Box<ParkedSide>> {
        self.change(|guarded| guarded.table.disconnect(code, id))
    }

    /// Takes out the sides that have waited until `now` or longer, `most` at a time.
    ///
    /// Returns the far ends of their links.
    pub(super) fn expire(&self, now: Instant, most: usize) -> Vec<End<Box<Buffer>>> {
        self.change(|guarded| guarded.table.expire(now, most)).into_iter().map(|(_, parked)| parked.far).collect()
    }

    /// Takes out the sides that have waited since `began` or longer, `most` at a time.
    ///
    /// Returns the far ends of their links.
    pub(super) fn recall(&self, began: Instant, most: usize) -> Vec<End<Box<Buffer>>> {
        self.expire(began + self.ttl, most)
    }

    /// Takes out sides that wait, `most` at a time.
    ///
    /// Returns the far ends of their links.
    pub(super) fn drain(&self, most: usize) -> Vec<End<Box<Buffer>>> {
        self.change(|guarded| guarded.table.drain(most)).into_iter().map(|(_, parked)| parked.far).collect()
    }

    /// Admits no client any more.
    pub(super) fn close(&self) {
        with_lock(&self.guarded, |guarded| guarded.is_open = false);
    }

    /// The earliest time at which [`expire`](Self::expire) has something to return, if a side waits.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        with_lock(&self.guarded, |guarded| guarded.table.next_deadline())
    }

    /// Looks at the occupants of a pair, if there is one at `code`. Neither of them departs meanwhile.
    pub(super) fn with_pair<R>(&self, code: &PairCode, look: impl FnOnce(Option<[&Arc<Occupant>; 2]>) -> R) -> R {
        with_lock(&self.guarded, |guarded| look(guarded.table.pair(code).map(|pair| pair.map(|side| &side.occupant))))
    }

    /// The numbers of codes in use and of sides that wait.
    pub(super) fn codes_and_waiting(&self) -> [usize; 2] {
        with_lock(&self.guarded, |guarded| guarded.codes_and_waiting())
    }

    /// Makes a change, and returns the permits of codes and waiting sides that it has ended.
    ///
    /// So no path out of the table can forget them. Only a first side [takes](CodeLimits::take) permits.
    fn change<R>(&self, change: impl FnOnce(&mut Guarded) -> R) -> R {
        with_lock(&self.guarded, |guarded| {
            let before = guarded.codes_and_waiting();
            let result = change(guarded);
            let after = guarded.codes_and_waiting();
            for (permits, nth) in [(&self.limits.codes, 0), (&self.limits.waiting, 1)] {
                if after[nth] < before[nth] {
                    permits.deposit(self.nth, before[nth] - after[nth]);
                }
            }
            result
        })
    }
}

impl Guarded {
    fn codes_and_waiting(&self) -> [usize; 2] {
        [self.table.codes(), self.table.waiting()]
    }
}
