//! The one [`PairTable`] that all connections share, and their seats in it.
//!
//! A seat is claimed together with the decision to admit, never checked first and taken later, and is freed when it
//! is dropped, so that no path out of a connection can forget it. The mutex is a plain one: it is held for a table
//! operation on connect, on departure and on expiry, never for a message and never across an await.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_channel::{Receiver, Sender};

use crate::buffer::Buffer;
use crate::clock::Clock;
use crate::link::{End, Farewell, link};
use crate::pair_code::PairCode;
use crate::pair_table::{Admission, ConnId, Departure, PairTable, Refusal};

/// What the first side leaves for the second.
#[derive(Debug)]
struct Parked {
    far: End<Buffer>,
    /// Where the first side runs: the second is to run there too, so that their batches stay in one cache.
    worker: usize,
}

#[derive(Debug)]
struct State {
    // Boxed, as a slot is as large as what it may hold, and most hold nothing.
    table: PairTable<Box<Parked>>,
    open: bool,
}

/// The shared table.
#[derive(Debug)]
pub(crate) struct Seats {
    state: Mutex<State>,
    /// Tells [`expire`](Self::expire) that somebody waits after nobody did.
    first_waits: (Sender<()>, Receiver<()>),
    clock: Arc<dyn Clock>,
}

/// A seat taken: everything that a connection needs to begin.
#[derive(Debug)]
pub(crate) struct Claim {
    pub(crate) seat: Seat,
    pub(crate) end: End<Buffer>,
    /// The worker that the connection is to run on.
    pub(crate) worker: usize,
}

/// Why no seat could be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoSeat {
    /// Both seats of this code are taken.
    Occupied,
    /// No more codes are accepted.
    Full,
    /// The relay stops.
    Stopping,
}

/// A connection's place in the table, for as long as it lives.
#[derive(Debug)]
pub(crate) struct Seat {
    seats: Arc<Seats>,
    id: ConnId,
}

impl Drop for Seat {
    fn drop(&mut self) {
        let departure = self.seats.lock().table.disconnect(self.id);
        match departure {
            // It leads back to the connection that departs, which will not listen any more.
            Departure::Waiting(_) => {}
            // The peer learns it from the link, after everything that was sent before.
            Departure::Paired { .. } | Departure::Absent => {}
        }
    }
}

impl Seats {
    pub(crate) fn new(pair_ttl: Duration, max_pairs: usize, clock: Arc<dyn Clock>) -> Self {
        let state = State { table: PairTable::new(pair_ttl, max_pairs), open: true };
        Self { state: Mutex::new(state), first_waits: async_channel::bounded(1), clock }
    }

    /// Takes a seat at `code` for a connection that is being admitted on `worker`.
    pub(crate) fn claim(self: &Arc<Self>, code: PairCode, worker: usize) -> Result<Claim, NoSeat> {
        let (near, far) = link();
        let mut state = self.lock();
        if !state.open {
            return Err(NoSeat::Stopping);
        }
        let admission = state.table.connect(code, Box::new(Parked { far, worker }), self.clock.now());
        let first_waits = state.table.waiting() == 1;
        drop(state);
        match admission {
            Ok(Admission::Waiting { id, .. }) => {
                if first_waits {
                    let _ = self.first_waits.0.try_send(()); // full: it is told already
                }
                Ok(Claim { seat: self.seat(id), end: near, worker })
            }
            Ok(Admission::Paired { id, handle, .. }) => {
                let Parked { far, worker } = *handle;
                Ok(Claim { seat: self.seat(id), end: far, worker })
            }
            Err(Refusal::Occupied { .. }) => Err(NoSeat::Occupied),
            Err(Refusal::Full { .. }) => Err(NoSeat::Full),
        }
    }

    /// The number of codes in use, those with one side waiting included.
    pub(crate) fn pairs(&self) -> usize {
        self.lock().table.len()
    }

    /// Ends the wait of every side whose time is over, for as long as it runs. One timer serves all: the time to live
    /// is the same for everyone, so the earliest deadline only ever moves later, except when nobody waited at all.
    pub(crate) async fn expire(&self) {
        loop {
            let next = self.lock().table.next_deadline();
            match next {
                None => {
                    let _ = self.first_waits.1.recv().await; // never closed: the sender is beside it
                }
                Some(deadline) => {
                    self.clock.sleep_until(deadline).await;
                    let expired = self.lock().table.expire(self.clock.now());
                    for (_, parked) in expired {
                        parked.far.outgoing.finish(None, Farewell::Expired);
                    }
                }
            }
        }
    }

    /// Admits nobody any more, and tells those who wait that the relay stops.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        state.open = false;
        let waiting = state.table.drain();
        drop(state);
        for (_, parked) in waiting {
            parked.far.outgoing.finish(None, Farewell::Stopping);
        }
    }

    fn seat(self: &Arc<Self>, id: ConnId) -> Seat {
        Seat { seats: Arc::clone(self), id }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // The table has no half-done states to protect from: a panic in it leaves it total.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
