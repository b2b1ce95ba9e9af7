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
use futures_lite::future::yield_now;

use crate::buffers::buffer::Buffer;
use crate::limits::capacity::EffectiveLimits;
use crate::limits::pair_rate::{Allowance, Rates};
use crate::limits::permits::{ConnectionPermit, ConnectionPermits};
use crate::limits::slots::Slots;
use crate::pairing::link::{CloseCause, End, link};
use crate::pairing::occupants::{Asked, Occupants};
use crate::pairing::pair_code::PairCode;
use crate::pairing::pair_table::{Admission, ConnId, Departure, PairTable, Refusal, TableLimits};
use crate::runtime::clock::Clock;
use crate::runtime::stop::Stop;
use crate::telemetry::counters::Counts;
use crate::telemetry::records::ConnectionRecord;
use crate::telemetry::rejection::Rejection;

/// How long a client waits for the permit of a connection that is ending, and how often it tries. The end is a matter of a turn
/// of an executor.
const TRY_AGAIN: Duration = Duration::from_millis(10);
const TRIES: usize = 10;

/// How much longer than twice the probe timeout a third client waits. The kernel's timeout begins with its first retransmission,
/// which comes after a round trip or two.
const RETRANSMISSION: Duration = Duration::from_secs(1);

/// How many waits end in a turn of the executor. Each wakes a connection, which takes some microseconds to write its close
/// frame.
const ENDS: usize = 256;

/// What the first side leaves for the second.
#[derive(Debug)]
struct Parked {
    far: End<Box<Buffer>>,
    /// To be told when the second side comes.
    met: Arc<OnceLock<Instant>>,
    /// Where the first side runs: the second is to run there too, so that their batches stay in one cache.
    worker: usize,
    /// What the pair spends from.
    allowance: Allowance,
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
    /// Counts takeover probes, so that most of the time occupants need not look.
    probes: AtomicU32,
    permits: Arc<ConnectionPermits>,
    /// Connections whose closing handshake takes long. They make room when there are no permits left.
    lingering: Arc<Slots>,
    /// How long the kernel of a probed client may acknowledge nothing. Zero: there are no probes.
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
    pub(crate) record: ConnectionRecord,
    /// What it spends from when its client sends something.
    pub(crate) allowance: Allowance,
    /// The worker that the connection is to run on.
    pub(crate) worker: usize,
    /// Counts the connection, for as long as it lives.
    pub(crate) permit: ConnectionPermit,
}

/// A connection's place in the table, for as long as it lives.
#[derive(Debug)]
pub(crate) struct Seat {
    seats: Arc<Seats>,
    id: ConnId,
    /// The number of probes when it looked last.
    seen: u32,
}

impl Seat {
    /// Says what wakes the connection that has this seat.
    pub(crate) fn attend(&self, task: Waker) {
        self.seats.lock().occupants.attend(self.id, task);
    }

    /// Whether a takeover probe waits for the connection's answer. Asked once, until there is another probe.
    pub(crate) fn is_asked(&mut self) -> bool {
        let probes = self.seats.probes.load(Ordering::Acquire);
        if self.seen == probes {
            return false;
        }
        self.seen = probes;
        self.seats.lock().occupants.is_asked(self.id)
    }

    /// Answers a takeover probe: the client is there.
    pub(crate) fn answer(&self) {
        let now = self.seats.clock.now();
        let asker = self.seats.lock().occupants.answer(self.id, now);
        drop(asker); // when nothing is locked any more
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
        limits: EffectiveLimits,
        probe_timeout: Duration,
        rates: Rates,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let table = PairTable::new(pair_ttl, TableLimits { codes: limits.codes, waiting: limits.waiting });
        Self {
            state: Mutex::new(State { table, occupants: Occupants::default(), open: true }),
            first_waits: async_channel::bounded(1),
            probes: AtomicU32::default(),
            permits: ConnectionPermits::new(limits.connections),
            lingering: Arc::new(Slots::new(limits.lingering)),
            probe_timeout,
            rates,
            clock,
        }
    }

    /// Seats for tests: enough of them, and nobody is asked anything or limited.
    #[cfg(test)]
    pub(crate) fn roomy(clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Self::new(Duration::from_secs(60), EffectiveLimits::ROOMY, Duration::ZERO, Rates::default(), clock))
    }

    /// Takes a seat at `code`. If both are taken, their clients are asked whether they are still there: the owner of a code whose
    /// connection has silently died need not wait until a keepalive ping finds that out.
    pub(crate) async fn join(self: &Arc<Self>, code: PairCode, worker: usize) -> Result<Claim, Rejection> {
        match self.claim_with_room(&code, worker, false).await {
            Err(Rejection::PairFull) => {
                let Some(probe) = self.probe(&code) else { return Err(Rejection::PairFull) };
                probe.settle().await;
                self.claim_with_room(&code, worker, true).await
            }
            result => result,
        }
    }

    /// [Claims](Self::claim) a seat. If there is no permit left, a lingering connection makes room. One that has just departed
    /// gives its permit back a moment after its seat.
    async fn claim_with_room(
        self: &Arc<Self>,
        code: &PairCode,
        worker: usize,
        has_departed: bool,
    ) -> Result<Claim, Rejection> {
        let mut waits = has_departed;
        for nth in 0..TRIES {
            match self.claim(code.clone(), worker) {
                Err(Rejection::RelayFull) if self.permits.is_empty() => {
                    // One is enough, and takes a moment to end.
                    waits |= nth == 0 && self.lingering.revoke_oldest();
                    if !waits {
                        return Err(Rejection::RelayFull);
                    }
                    self.clock.sleep_until(self.clock.now() + TRY_AGAIN).await;
                }
                result => return result,
            }
        }
        self.claim(code.clone(), worker)
    }

    /// How long it may take to [join](Self::join), at most.
    pub(crate) fn longest_join(&self) -> Duration {
        self.longest_probe() + TRY_AGAIN * 2 * TRIES as u32
    }

    /// How long a third client waits for the answers of a pair, at most.
    fn longest_probe(&self) -> Duration {
        self.probe_timeout * 2 + RETRANSMISSION
    }

    /// Slots for connections whose closing handshake takes long.
    pub(crate) fn lingering(&self) -> Arc<Slots> {
        Arc::clone(&self.lingering)
    }

    /// Takes a seat at `code` for a connection that is being admitted on `worker`.
    pub(crate) fn claim(self: &Arc<Self>, code: PairCode, worker: usize) -> Result<Claim, Rejection> {
        let (near, far) = link();
        let permit = self.permits.take();
        let (now, met) = (self.clock.now(), Arc::default());
        let allowance = self.rates.of_pair(now);
        let parked = Box::new(Parked { far, met: Arc::clone(&met), worker, allowance: allowance.clone() });
        let mut state = self.lock();
        if !state.open {
            return Err(Rejection::Stopping);
        }
        let Some(permit) = permit else {
            // If these are gone there are permits, too.
            return Err(if state.table.pair(&code).is_some() { Rejection::PairFull } else { Rejection::RelayFull });
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
                let record = ConnectionRecord::first(id.number(), now, met);
                Ok(Claim { seat: self.seat(id), end: near, record, worker, allowance, permit })
            }
            Ok(Admission::Paired { id, handle, .. }) => {
                let Parked { far, met, worker, allowance } = *handle;
                allowance.meet();
                let record = ConnectionRecord::second(id.number(), now, met);
                Ok(Claim { seat: self.seat(id), end: far, record, worker, allowance, permit })
            }
            Err(Refusal::Occupied { .. }) => Err(Rejection::PairFull),
            Err(Refusal::Full { .. }) => Err(Rejection::RelayFull),
        }
    }

    /// The number of codes in use, those with one side waiting included.
    pub(crate) fn pairs(&self) -> usize {
        self.lock().table.len()
    }

    /// The number of codes with one side and with two, of takeover probes so far, and of lingering connections.
    pub(crate) fn counts(&self) -> Counts {
        let State { table, occupants, .. } = &*self.lock();
        let waiting = table.waiting();
        let (paired, probes) = (table.len() - waiting, occupants.probes_so_far());
        Counts { waiting, paired, probes, lingering: self.lingering.len() }
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
                    let now = self.clock.now();
                    end_waits(|most| self.lock().table.expire_some(now, most), CloseCause::Expired).await;
                }
            }
        }
    }

    /// Admits no client any more, and tells those that wait that the relay stops.
    pub(crate) async fn close(&self) {
        self.lock().open = false;
        end_waits(|most| self.lock().table.drain_some(most), CloseCause::Stopping).await;
    }

    /// Probes both sides of the pair with this code, unless there are no probes, one is under way, or both have just answered.
    fn probe(self: &Arc<Self>, code: &PairCode) -> Option<Probe> {
        if self.probe_timeout.is_zero() {
            return None;
        }
        let now = self.clock.now();
        let mut state = self.lock();
        if !state.table.has_room_to_wait() {
            return None; // the third could not have the seat
        }
        let sides = state.table.pair(code)?;
        let (asked, answered, tasks) = state.occupants.ask(sides, now)?;
        drop(state);
        self.probes.fetch_add(1, Ordering::Release);
        tasks.into_iter().for_each(Waker::wake);
        Some(Probe { seats: Arc::clone(self), asked, answered })
    }

    fn seat(self: &Arc<Self>, id: ConnId) -> Seat {
        // It may have been asked already: it looks once.
        Seat { seats: Arc::clone(self), id, seen: self.probes.load(Ordering::Acquire).wrapping_sub(1) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // The table has no half-done states to protect from: a panic in it leaves it total.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends the waits that `take` takes out of the table, in [portions](ENDS), and yields between them.
async fn end_waits(take: impl Fn(usize) -> Vec<(ConnId, Box<Parked>)>, close_cause: CloseCause) {
    loop {
        let taken = take(ENDS);
        let is_all = taken.len() < ENDS;
        for (_, parked) in taken {
            parked.far.outgoing.finish(None, close_cause);
        }
        if is_all {
            return;
        }
        yield_now().await;
    }
}

/// A takeover probe, for as long as a third client waits for its answers.
struct Probe {
    seats: Arc<Seats>,
    asked: Asked,
    answered: Stop,
}

impl Probe {
    /// Waits until both sides have answered or departed, but no longer than [`Seats::longest_probe`].
    async fn settle(mut self) {
        let clock = &self.seats.clock;
        let over = clock.sleep_until(clock.now() + self.seats.longest_probe());
        self.answered.wait().or(over).await;
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        let unanswered = self.seats.lock().occupants.end(&self.asked);
        drop(unanswered); // when nothing is locked any more
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pairing::link::Next;
    use crate::runtime::clock::SystemClock;
    use crate::runtime::reactor::Reactor;
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Poll};

    /// Polls `future` again and again, and returns how many of these waits have ended behind each poll.
    async fn ended(future: impl Future, claims: &mut [Claim], close_cause: CloseCause) -> Vec<usize> {
        let (mut future, mut cx) = (pin!(future), Context::from_waker(Waker::noop()));
        let mut ended = vec![0];
        while ended.last() != Some(&claims.len()) {
            yield_now().await; // to the reactor, for a timer
            let _ = future.as_mut().poll(&mut cx);
            let mut has_ended = |claim: &mut Claim| match claim.end.incoming.poll_next(&mut cx) {
                Poll::Ready(Next::End(told)) => told == close_cause,
                _ => false,
            };
            ended.push(claims.iter_mut().filter_map(|claim| has_ended(claim).then_some(())).count());
        }
        ended.dedup();
        ended
    }

    #[test]
    fn waits_end_in_portions() {
        const WAITS: usize = 2 * ENDS + 1;
        for stops in [false, true] {
            let ttl = if stops { Duration::from_secs(60) } else { Duration::ZERO };
            let clock = Arc::new(SystemClock);
            let limits = EffectiveLimits { connections: WAITS, codes: WAITS, waiting: WAITS, ..EffectiveLimits::ROOMY };
            let seats = Arc::new(Seats::new(ttl, limits, Duration::ZERO, Rates::default(), clock));
            let claim = |nth| seats.claim(PairCode::from_target(&format!("/?pair={nth}")).unwrap(), 0).unwrap();
            let mut claims: Vec<_> = (0..WAITS).map(claim).collect();
            let ended = Reactor::new().unwrap().block_on(async {
                match stops {
                    false => ended(seats.expire(), &mut claims, CloseCause::Expired).await,
                    true => ended(seats.close(), &mut claims, CloseCause::Stopping).await,
                }
            });
            assert_eq!(ended, [0, ENDS, 2 * ENDS, WAITS]);
        }
    }
}
