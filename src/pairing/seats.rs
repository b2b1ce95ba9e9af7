//! The one [`PairTable`] that all connections share, and their seats in it.
//!
//! A seat is claimed together with the decision to admit, never checked first and taken later. The drop of a [`Seat`]
//! frees it, so no path out of a connection can forget that. The mutex is a plain one: it is held for a table operation
//! on connect, on departure and on expiry, never for a message and never across an await.

use std::sync::{Arc, Mutex};
use std::task::Waker;
use std::time::Duration;

use async_channel::{Receiver, Sender};
use futures_lite::future::yield_now;

use crate::buffers::buffer::Buffer;
use crate::limits::capacity::EffectiveLimits;
use crate::limits::pair_rate::{Allowance, Rates};
use crate::limits::permits::{Permit, Permits};
use crate::limits::slots::Slots;
use crate::pairing::link::{CloseCause, End, link};
use crate::pairing::occupants::{Occupant, Probes};
use crate::pairing::pair_code::PairCode;
use crate::pairing::pair_table::{Admission, ConnId, PairTable, TableLimits};
use crate::runtime::clock::Clock;
use crate::runtime::sync::{lock, with_lock};
use crate::telemetry::counters::Counts;
use crate::telemetry::records::{ConnectionRecord, Meeting};
use crate::telemetry::rejection::Rejection;

/// How long a client waits for the permit of a connection that is ending, between two tries.
///
/// The end is a matter of a turn of an executor.
const TRY_AGAIN: Duration = Duration::from_millis(10);
const TRIES: usize = 10;

/// How much longer than twice the probe timeout a third client waits.
///
/// The kernel's timeout begins with its first retransmission, which comes after a round trip or two.
const RETRANSMISSION: Duration = Duration::from_secs(1);

/// How many waits end in a turn of the executor.
///
/// Each wakes a connection, which takes some microseconds to write its close frame.
const ENDS: usize = 256;

/// What the first side leaves for the second.
#[derive(Debug)]
struct ParkedSide {
    far: End<Box<Buffer>>,
    /// The second side's record completes it.
    meeting: Arc<Meeting>,
    /// The worker of the first side.
    ///
    /// The second side runs there too, so that their batches stay in one cache.
    worker: usize,
    /// What the pair spends from.
    allowance: Allowance,
}

// Handles are boxed, as a slot is as large as what it may hold, and most hold nothing.
type Table = PairTable<Box<ParkedSide>, Arc<Occupant>>;

/// What the mutex guards.
#[derive(Debug)]
struct SharedTable {
    table: Table,
    probes: Probes,
    /// Whether clients are admitted.
    is_open: bool,
}

/// The shared table.
#[derive(Debug)]
pub(crate) struct Seats {
    shared: Mutex<SharedTable>,
    /// Tells [`expire`](Self::expire) that a side waits where none did.
    first_waits: (Sender<()>, Receiver<()>),
    /// For connections. Each worker has a share.
    permits: Permits,
    /// Connections that linger in their closing handshake. They make room when there are no permits left.
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
    /// What is told of the connection when it ends.
    pub(crate) record: ConnectionRecord,
    /// What the connection spends from when its client sends something.
    pub(crate) allowance: Allowance,
    /// The worker that the connection is to run on.
    pub(crate) worker: usize,
    /// Counts the connection, for as long as it lives.
    pub(crate) permit: Permit,
}

/// A connection's place in the table, for as long as it lives.
#[derive(Debug)]
pub(crate) struct Seat {
    seats: Arc<Seats>,
    id: ConnId,
    occupant: Arc<Occupant>,
}

impl Seat {
    /// Sets the waker of the connection that has this seat.
    pub(crate) fn attend(&self, task: Waker) {
        self.occupant.attend(task);
    }

    /// Whether a takeover probe waits for the connection's answer.
    pub(crate) fn is_asked(&self) -> bool {
        self.occupant.is_asked()
    }

    /// The number of the connection.
    pub(crate) fn number(&self) -> u64 {
        self.id.number()
    }

    /// Answers a takeover probe: the client is there.
    pub(crate) fn answer(&self) {
        self.occupant.answer(self.seats.clock.now());
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        // The peer learns of it from the link, after everything that was sent before.
        let _departure = with_lock(&self.seats.shared, |shared| shared.table.disconnect(self.occupant.code(), self.id));
        self.occupant.depart();
    }
}

impl Seats {
    pub(crate) fn new(
        workers: usize,
        pair_ttl: Duration,
        limits: EffectiveLimits,
        probe_timeout: Duration,
        rates: Rates,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let table = PairTable::new(pair_ttl, TableLimits { codes: limits.codes, waiting: limits.waiting });
        Self {
            shared: Mutex::new(SharedTable { table, probes: Probes::default(), is_open: true }),
            first_waits: async_channel::bounded(1),
            permits: Permits::new(limits.connections, workers),
            lingering: Arc::new(Slots::new(limits.lingering)),
            probe_timeout,
            rates,
            clock,
        }
    }

    /// Seats for tests: enough of them, without probes and rates.
    #[cfg(test)]
    pub(crate) fn roomy(clock: Arc<dyn Clock>) -> Arc<Self> {
        let limits = EffectiveLimits::ROOMY;
        Arc::new(Self::new(1, Duration::from_secs(60), limits, Duration::ZERO, Rates::default(), clock))
    }

    /// Takes a seat at `code`. If both seats are taken, their clients are probed.
    ///
    /// So the owner of a code need not wait until a keepalive ping finds out that its connection has silently died.
    pub(crate) async fn join(self: &Arc<Self>, code: PairCode, worker: usize) -> Result<Claim, Rejection> {
        match self.claim_with_room(&code, worker, false).await {
            Err(Rejection::PairFull) => match self.probe(&code).await {
                true => self.claim_with_room(&code, worker, true).await,
                false => Err(Rejection::PairFull),
            },
            result => result,
        }
    }

    /// [Claims](Self::claim) a seat. If there is no permit left, a lingering connection makes room.
    ///
    /// A connection that has just departed returns its permit a moment after its seat.
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

    /// How long a third client waits for the answers of a pair, at most.
    fn longest_probe(&self) -> Duration {
        self.probe_timeout * 2 + RETRANSMISSION
    }

    /// Slots for connections that linger in their closing handshake.
    pub(crate) fn lingering(&self) -> Arc<Slots> {
        Arc::clone(&self.lingering)
    }

    /// Takes a seat at `code` for a connection that is being admitted on `worker`.
    pub(crate) fn claim(self: &Arc<Self>, code: PairCode, worker: usize) -> Result<Claim, Rejection> {
        let permit = self.permits.take(worker);
        let (now, occupant) = (self.clock.now(), Occupant::new(code));
        let meeting = Meeting::new(now);
        let allowance = self.rates.of_pair(now);
        let mut near = None;
        let park = || {
            let (end, far) = link();
            near = Some(end);
            Box::new(ParkedSide { far, meeting: Arc::clone(&meeting), worker, allowance: allowance.clone() })
        };
        let mut shared = lock(&self.shared);
        if !shared.is_open {
            return Err(Rejection::Stopping);
        }
        let Some(permit) = permit else { return Err(no_seat(&shared.table, occupant.code())) };
        let Ok(admission) = shared.table.connect(occupant.code(), Arc::clone(&occupant), park, now) else {
            return Err(no_seat(&shared.table, occupant.code()));
        };
        let is_first_wait = shared.table.waiting() == 1;
        drop(shared);
        let seat = |id| Seat { seats: Arc::clone(self), id, occupant };
        match admission {
            Admission::Waiting { id } => {
                if is_first_wait {
                    let _ = self.first_waits.0.try_send(()); // full: it is told already
                }
                let end = near.expect("a first side parks the far end of its link");
                let record = ConnectionRecord::first(id.number(), meeting);
                Ok(Claim { seat: seat(id), end, record, worker, allowance, permit })
            }
            Admission::Paired { id, peer, handle } => {
                let ParkedSide { far, meeting, worker, allowance } = *handle;
                allowance.meet();
                let record = ConnectionRecord::second(id.number(), peer.number(), now, meeting);
                Ok(Claim { seat: seat(id), end: far, record, worker, allowance, permit })
            }
        }
    }

    /// The number of codes in use, those with one side waiting included.
    pub(crate) fn pairs(&self) -> usize {
        lock(&self.shared).table.codes()
    }

    /// The numbers of codes with one side and with two, of takeover probes and lingering connections.
    pub(crate) fn counts(&self) -> Counts {
        let SharedTable { table, probes, .. } = &*lock(&self.shared);
        let waiting = table.waiting();
        Counts { waiting, paired: table.codes() - waiting, probes: probes.begun(), lingering: self.lingering.len() }
    }

    /// Ends the wait of every side at its deadline, for as long as it runs.
    ///
    /// One timer serves all. The time to live is the same for all sides, so the earliest deadline only moves later, except
    /// when no side waited.
    pub(crate) async fn expire(&self) {
        loop {
            let next = lock(&self.shared).table.next_deadline();
            match next {
                None => {
                    let _ = self.first_waits.1.recv().await; // never closed: the sender is beside it
                }
                Some(deadline) => {
                    self.clock.sleep_until(deadline).await;
                    let now = self.clock.now();
                    end_waits(|most| lock(&self.shared).table.expire(now, most), CloseCause::Expired).await;
                }
            }
        }
    }

    /// Admits no client any more, and tells the sides that wait that the relay stops.
    pub(crate) async fn close(&self) {
        lock(&self.shared).is_open = false;
        end_waits(|most| lock(&self.shared).table.drain(most), CloseCause::Stopping).await;
    }

    /// Probes the pair at `code`, and waits for its answers. Whether its seats may be free then.
    async fn probe(&self, code: &PairCode) -> bool {
        if self.probe_timeout.is_zero() {
            return false;
        }
        let (probe, tasks) = {
            let now = self.clock.now();
            let SharedTable { table, probes, .. } = &mut *lock(&self.shared);
            if !table.has_room_to_wait() {
                return false; // the third client could not have the seat
            }
            let Some(pair) = table.pair(code) else { return true };
            let Some(begun) = probes.begin(pair.map(|side| &side.occupant), now) else { return false };
            begun
        };
        tasks.into_iter().for_each(Waker::wake);
        probe.settle(self.clock.sleep_until(self.clock.now() + self.longest_probe())).await;
        true
    }
}

/// Why no seat could be had at `code`. If a pair has it, a permit will be there when the pair has gone.
fn no_seat(table: &Table, code: &PairCode) -> Rejection {
    if table.pair(code).is_some() { Rejection::PairFull } else { Rejection::RelayFull }
}

/// Ends the waits that `take` takes out of the table, in [portions](ENDS), and yields between them.
async fn end_waits(take: impl Fn(usize) -> Vec<(ConnId, Box<ParkedSide>)>, close_cause: CloseCause) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pairing::link::Next;
    use crate::runtime::clock::{Sleep, SystemClock};
    use crate::runtime::reactor::Reactor;
    use futures_lite::future::{block_on, poll_once, zip};
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Poll};
    use std::time::Instant;

    /// Polls `future` again and again, and returns the number of waits that have ended after each poll.
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
            let seats = Arc::new(Seats::new(3, ttl, limits, Duration::ZERO, Rates::default(), clock));
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

    /// Seats for `connections`, in which clients can be probed, and the two sides of a pair.
    fn a_pair(connections: usize, clock: Arc<dyn Clock>) -> (Arc<Seats>, PairCode, [Claim; 2]) {
        let limits = EffectiveLimits { connections, ..EffectiveLimits::ROOMY };
        let ttl = Duration::from_secs(60);
        let seats = Arc::new(Seats::new(3, ttl, limits, Duration::from_secs(2), Rates::default(), clock));
        let code = PairCode::from_target("/?pair=x").unwrap();
        let sides = [0, 1].map(|worker| seats.claim(code.clone(), worker).unwrap());
        (seats, code, sides)
    }

    /// A clock with timers that fire at once, as after a long suspension (SIGSTOP).
    #[derive(Debug)]
    struct AfterSuspension;

    impl Clock for AfterSuspension {
        fn now(&self) -> Instant {
            Instant::now()
        }

        fn sleep_until(&self, _: Instant) -> Sleep {
            Box::pin(std::future::ready(()))
        }
    }

    /// The prober's timer may fire on its worker before the pair's worker reads the answers.
    #[test]
    fn probe_that_is_over_takes_no_seat() {
        let (seats, code, mut sides) = a_pair(100, Arc::new(AfterSuspension));
        for _ in 0..2 {
            assert_eq!(block_on(seats.join(code.clone(), 2)).unwrap_err(), Rejection::PairFull);
            let mut cx = Context::from_waker(Waker::noop());
            for side in &mut sides {
                assert!(side.end.incoming.poll_next(&mut cx).is_pending(), "the link lives");
                assert!(!side.seat.is_asked());
            }
        }
        assert_eq!((seats.pairs(), seats.counts().probes), (1, 2));
        let [first, second] = sides;
        drop(first);
        drop(second);
        assert_eq!(seats.pairs(), 0);
    }

    /// A seat is free before the permit of its connection is.
    #[test]
    fn third_client_waits_for_the_permit_of_the_side_that_departs() {
        let (seats, code, [departs, stays]) = a_pair(2, Arc::new(SystemClock));
        let Claim { seat, permit, .. } = departs;
        let joined = Reactor::new().unwrap().block_on(zip(seats.join(code, 2), async {
            assert!(seat.is_asked() && stays.seat.is_asked());
            drop(seat);
            stays.seat.answer();
            for _ in 0..3 {
                yield_now().await;
            }
            drop(permit);
        }));
        assert!(joined.0.is_ok());
    }

    #[test]
    fn third_client_is_refused_when_no_side_departs() {
        let (seats, code, sides) = a_pair(2, Arc::new(SystemClock));
        let joined = Reactor::new().unwrap().block_on(zip(seats.join(code, 2), async {
            sides.iter().for_each(|side| side.seat.answer());
        }));
        assert_eq!(joined.0.unwrap_err(), Rejection::PairFull);
    }

    #[test]
    fn probe_of_one_pair_leaves_other_pairs_alone() {
        let (seats, code, sides) = a_pair(100, Arc::new(SystemClock));
        let other = PairCode::from_target("/?pair=y").unwrap();
        let others = [0, 1].map(|worker| seats.claim(other.clone(), worker).unwrap());
        let mut joins = pin!(seats.join(code, 2));
        assert!(Reactor::new().unwrap().block_on(poll_once(joins.as_mut())).is_none());
        assert!(sides.iter().all(|side| side.seat.is_asked()));
        assert!(others.iter().all(|side| !side.seat.is_asked()));
    }
}
