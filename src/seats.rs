//! The one [`PairTable`] that all connections share, and their seats in it.
//!
//! A seat is claimed together with the decision to admit, never checked first and taken later, and is freed when it
//! is dropped, so that no path out of a connection can forget it. The mutex is a plain one: it is held for a table
//! operation on connect, on departure and on expiry, never for a message and never across an await.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::Waker;
use std::time::{Duration, Instant};

use async_channel::{Receiver, Sender};
use futures_lite::FutureExt;

use crate::buffer::Buffer;
use crate::capacity::Capacity;
use crate::clock::Clock;
use crate::events::Visit;
use crate::link::{End, Farewell, link};
use crate::occupants::{Asked, Occupants, Question};
use crate::pair_code::PairCode;
use crate::pair_table::{Admission, ConnId, Departure, PairTable, Refusal};
use crate::rate::{Rates, SharedBudget};
use crate::stop::Stop;
use crate::tickets::{Ticket, Tickets};

/// How long whoever gets the seat of somebody who is lost waits for that to be gone. It is a matter of a turn of its
/// executor.
const FAREWELL: Duration = Duration::from_millis(100);

/// What the first side leaves for the second.
#[derive(Debug)]
struct Parked {
    far: End<Box<Buffer>>,
    /// To be told when the second side comes.
    met: Arc<OnceLock<Instant>>,
    /// Where the first side runs: the second is to run there too, so that their batches stay in one cache.
    worker: usize,
    /// What the pair spends from.
    budgets: Vec<SharedBudget>,
}

#[derive(Debug)]
struct State {
    // Boxed, as a slot is as large as what it may hold, and most hold nothing.
    table: PairTable<Box<Parked>>,
    occupants: Occupants,
    open: bool,
}

/// The shared table.
#[derive(Debug)]
pub(crate) struct Seats {
    state: Mutex<State>,
    /// Tells [`expire`](Self::expire) that somebody waits after nobody did.
    first_waits: (Sender<()>, Receiver<()>),
    /// Counts what occupants were asked or told, so that most of the time they need not look.
    questions: AtomicU32,
    tickets: Arc<Tickets>,
    /// How long they have for an answer. If none, nobody is asked.
    probe_timeout: Duration,
    rates: Rates,
    clock: Arc<dyn Clock>,
}

/// A seat taken: everything that a connection needs to begin.
#[derive(Debug)]
pub(crate) struct Claim {
    pub(crate) seat: Seat,
    pub(crate) end: End<Box<Buffer>>,
    /// What is told of it when it ends.
    pub(crate) visit: Visit,
    /// What it spends from when its client sends something.
    pub(crate) budgets: Vec<SharedBudget>,
    /// The worker that the connection is to run on.
    pub(crate) worker: usize,
    /// Counts the connection, for as long as it lives.
    pub(crate) ticket: Ticket,
}

/// Why no seat could be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoSeat {
    /// Both seats of this code are taken, by these.
    Occupied([ConnId; 2]),
    /// There are as many connections, codes or waiting sides as there may be.
    Full,
    /// The relay stops.
    Stopping,
}

/// A connection's place in the table, for as long as it lives.
#[derive(Debug)]
pub(crate) struct Seat {
    seats: Arc<Seats>,
    id: ConnId,
    /// How many of the questions it has looked at.
    seen: u32,
}

impl Seat {
    /// Says what wakes the connection that has this seat.
    pub(crate) fn attend(&self, task: Waker) {
        self.seats.lock().occupants.attend(self.id, task);
    }

    /// What the connection was asked or told since the last time, if anything.
    pub(crate) fn question(&mut self) -> Option<Question> {
        let questions = self.seats.questions.load(Ordering::Acquire);
        if self.seen == questions {
            return None;
        }
        self.seen = questions;
        self.seats.lock().occupants.question(self.id)
    }

    /// Its client is there.
    pub(crate) fn answer(&self) {
        let asked = self.seats.lock().occupants.answer(self.id);
        drop(asked); // when nothing is locked any more
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut state = self.seats.lock();
        let departure = state.table.disconnect(self.id);
        let occupant = state.occupants.go(self.id);
        drop(state);
        drop(occupant);
        match departure {
            // It leads back to the connection that departs, which will not listen any more.
            Departure::Waiting(_) => {}
            // The peer learns it from the link, after everything that was sent before.
            Departure::Paired { .. } | Departure::Absent => {}
        }
    }
}

impl Seats {
    pub(crate) fn new(
        pair_ttl: Duration,
        capacity: Capacity,
        probe_timeout: Duration,
        rates: Rates,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let table = PairTable::new(pair_ttl, capacity.table);
        Self {
            state: Mutex::new(State { table, occupants: Occupants::default(), open: true }),
            first_waits: async_channel::bounded(1),
            questions: AtomicU32::default(),
            tickets: Tickets::new(capacity.connections),
            probe_timeout,
            rates,
            clock,
        }
    }

    /// Seats for tests: enough of them, and nobody is asked anything or limited.
    #[cfg(test)]
    pub(crate) fn roomy(clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Self::new(Duration::from_secs(60), Capacity::ROOMY, Duration::ZERO, Rates::default(), clock))
    }

    /// Takes a seat at `code`. If both are taken, their clients are asked whether they are still there, and whoever does
    /// not answer in time loses it. So the owner of a code whose connection has silently died need not wait until that
    /// is noticed.
    pub(crate) async fn join(self: &Arc<Self>, code: PairCode, worker: usize) -> Result<Claim, NoSeat> {
        match self.claim(code.clone(), worker) {
            Err(occupied @ NoSeat::Occupied(sides)) => {
                let Some(probe) = self.probe(sides) else { return Err(occupied) };
                probe.settle().await;
                self.claim(code, worker)
            }
            result => result,
        }
    }

    /// How long it may take to [join](Self::join).
    pub(crate) fn probe_timeout(&self) -> Duration {
        self.probe_timeout
    }

    /// Takes a seat at `code` for a connection that is being admitted on `worker`.
    pub(crate) fn claim(self: &Arc<Self>, code: PairCode, worker: usize) -> Result<Claim, NoSeat> {
        let (near, far) = link();
        let ticket = self.tickets.take();
        let (now, met) = (self.clock.now(), Arc::default());
        let budgets = self.rates.of_pair(now);
        let parked = Box::new(Parked { far, met: Arc::clone(&met), worker, budgets: budgets.clone() });
        let mut state = self.lock();
        if !state.open {
            return Err(NoSeat::Stopping);
        }
        let Some(ticket) = ticket else {
            // If these are gone there are tickets, too.
            return Err(state.table.pair(&code).map_or(NoSeat::Full, NoSeat::Occupied));
        };
        let admission = state.table.connect(code, parked, now);
        if let Ok(Admission::Waiting { id, .. } | Admission::Paired { id, .. }) = admission {
            state.occupants.come(id);
        }
        let first_waits = state.table.waiting() == 1;
        drop(state);
        match admission {
            Ok(Admission::Waiting { id, .. }) => {
                if first_waits {
                    let _ = self.first_waits.0.try_send(()); // full: it is told already
                }
                let visit = Visit::first(id.number(), now, met);
                Ok(Claim { seat: self.seat(id), end: near, visit, worker, budgets, ticket })
            }
            Ok(Admission::Paired { id, handle, .. }) => {
                let Parked { far, met, worker, budgets } = *handle;
                let visit = Visit::second(id.number(), now, met);
                Ok(Claim { seat: self.seat(id), end: far, visit, worker, budgets, ticket })
            }
            Err(Refusal::Occupied { sides, .. }) => Err(NoSeat::Occupied(sides)),
            Err(Refusal::Full { .. }) => Err(NoSeat::Full),
        }
    }

    /// The number of codes in use, those with one side waiting included.
    pub(crate) fn pairs(&self) -> usize {
        self.lock().table.len()
    }

    /// The number of codes with one side and with two, and how often pairs were asked whether they are there.
    pub(crate) fn counts(&self) -> (usize, usize, u64) {
        let State { table, occupants, .. } = &*self.lock();
        (table.waiting(), table.len() - table.waiting(), occupants.questions_asked())
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

    /// Asks both sides of a pair, unless that is not to be done, or done already, or being done too often.
    fn probe(self: &Arc<Self>, sides: [ConnId; 2]) -> Option<Probe> {
        if self.probe_timeout.is_zero() {
            return None;
        }
        let mut state = self.lock();
        if !state.table.has_room_to_wait() {
            return None; // nobody is to lose its seat for somebody who cannot have it
        }
        let (asked, answered, tasks) = state.occupants.ask(sides)?;
        drop(state);
        self.tell(tasks);
        Some(Probe { seats: Arc::clone(self), asked, answered })
    }

    /// Has these tasks look what they are asked.
    fn tell(&self, tasks: impl IntoIterator<Item = Waker>) {
        self.questions.fetch_add(1, Ordering::Release);
        tasks.into_iter().for_each(Waker::wake);
    }

    fn seat(self: &Arc<Self>, id: ConnId) -> Seat {
        // It may have been asked already: it looks once.
        Seat { seats: Arc::clone(self), id, seen: self.questions.load(Ordering::Acquire).wrapping_sub(1) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // The table has no half-done states to protect from: a panic in it leaves it total.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A question to both sides of a pair, for as long as somebody waits for their answers.
struct Probe {
    seats: Arc<Seats>,
    asked: Asked,
    answered: Stop,
}

impl Probe {
    /// Waits until both have answered or departed. Whoever has done neither in time has no seat any more.
    async fn settle(mut self) {
        self.wait(self.seats.probe_timeout).await;
        if self.give_up() {
            // Their tickets may be the last ones, and come back with their tasks, whose last act it is to leave their seats.
            self.wait(FAREWELL).await;
        }
    }

    /// Waits for all who were asked, but no longer than this.
    async fn wait(&mut self, time: Duration) {
        let clock = &self.seats.clock;
        self.answered.wait().or(clock.sleep_until(clock.now() + time)).await;
    }

    /// Takes their seats from those who have not answered. Whether there are any.
    fn give_up(&self) -> bool {
        let mut state = self.seats.lock();
        if !state.table.has_room_to_wait() {
            return false; // any more
        }
        let lost = state.occupants.give_up(&self.asked);
        let departures: Vec<_> = lost.iter().map(|&(id, _)| state.table.disconnect(id)).collect();
        drop(state);
        drop(departures);
        let is_anybody = !lost.is_empty();
        if is_anybody {
            self.seats.tell(lost.into_iter().filter_map(|(_, task)| task));
        }
        is_anybody
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        let unanswered = self.seats.lock().occupants.end(&self.asked);
        drop(unanswered); // when nothing is locked any more
    }
}
