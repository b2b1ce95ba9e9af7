//! Seats of connections, in [shards](Shard) by pair code.
//!
//! A seat is claimed together with the decision to admit, never checked first and taken later. The drop of a [`Seat`]
//! frees it, so no path out of a connection can forget that.

#[cfg(test)]
mod tests;

use std::collections::hash_map::{DefaultHasher, RandomState};
use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use async_channel::{Receiver, Sender};
use futures_lite::future::yield_now;

use crate::buffers::buffer::Buffer;
use crate::limits::capacity::EffectiveLimits;
use crate::limits::pair_rate::{Allowance, Rates};
use crate::limits::permits::{Permit, Permits};
use crate::limits::slots::Slots;
use crate::pairing::join::Join;
use crate::pairing::link::{CloseCause, End, link};
use crate::pairing::occupants::{Occupant, Probes};
use crate::pairing::pair_code::PairCode;
use crate::pairing::pair_table::{Admission, ConnId, Departure};
use crate::pairing::shard::{CodeLimits, ParkedSide, Shard};
use crate::runtime::clock::Clock;
use crate::telemetry::counters::Counts;
use crate::telemetry::records::{ConnectionRecord, Meeting};
use crate::telemetry::rejection::Rejection;

/// The number of shards for each worker.
///
/// With a single worker there is one shard, as no thread could wait for another. Otherwise a worker finds the lock that it
/// needs taken at most once in four times, even if each other worker always holds one.
const SHARDS_OF_A_WORKER: usize = 4;

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

/// The seats of all connections.
#[derive(Debug)]
pub(crate) struct Seats {
    shards: Box<[Arc<Shard>]>,
    /// Decides on the shard of a code.
    hasher: DefaultHasher,
    /// Tells each worker's [`expire`](Self::expire) that a side waits where none did.
    first_waits: Box<[(Sender<()>, Receiver<()>)]>,
    code_limits: Arc<CodeLimits>,
    probes: Probes,
    /// For connections, divided among the workers.
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
    /// Whether the client speaks `arc-relay.v1`.
    pub(crate) speaks_v1: bool,
    /// Whether the waiting client speaks it, and has to be told of this one. `None`: this one is the first.
    pub(crate) first_speaks_v1: Option<bool>,
}

/// A connection's place in the table, for as long as it lives.
#[derive(Debug)]
pub(crate) struct Seat {
    shard: Arc<Shard>,
    id: ConnId,
    occupant: Arc<Occupant>,
}

impl Seat {
    /// Sets the waker of the connection that has this seat.
    pub(crate) fn attend(&self, task: Waker) {
        self.occupant.attend(task);
    }

    /// Whether anything is wanted of the connection: an answer, or its departure.
    pub(crate) fn is_called(&self) -> bool {
        self.occupant.is_called()
    }

    /// Whether a takeover probe waits for the connection's answer.
    #[cfg(test)]
    pub(crate) fn is_asked(&self) -> bool {
        self.occupant.is_asked()
    }

    /// Whether a newcomer has the place of the connection, so that it has to depart.
    pub(crate) fn is_replaced(&self) -> bool {
        self.occupant.is_replaced()
    }

    /// The number of the connection.
    pub(crate) fn number(&self) -> u64 {
        self.id.number()
    }

    /// Answers a takeover probe: the client is there.
    pub(crate) fn answer(&self) {
        self.occupant.answer(self.shard.now());
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        // The peer learns of it from the link, after everything that was sent before.
        let _departure = self.shard.disconnect(self.occupant.code(), self.id);
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
        let count = if workers == 1 { 1 } else { (SHARDS_OF_A_WORKER * workers).next_power_of_two() };
        let code_limits = Arc::new(CodeLimits::new(limits, count));
        let shard = |nth| Shard::new([nth, count], pair_ttl, Arc::clone(&code_limits), Arc::clone(&clock));
        Self {
            shards: (0..count).map(|nth| Arc::new(shard(nth))).collect(),
            hasher: hasher(),
            first_waits: (0..workers).map(|_| async_channel::bounded(1)).collect(),
            code_limits,
            probes: Probes::new(count),
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

    /// Takes a seat. If both seats of the code are taken, their clients are probed.
    ///
    /// So the owner of a code need not wait until a keepalive ping finds out that its connection has silently died.
    pub(crate) async fn join(self: &Arc<Self>, join: Join, worker: usize) -> Result<Claim, Rejection> {
        match self.claim_with_room(&join, worker, false).await {
            Err(Rejection::PairFull) => {}
            result => return result,
        }
        // In a box, as few handshakes come to this.
        if !Box::pin(self.probe(&join.code)).await {
            return Err(Rejection::PairFull);
        }
        self.claim_with_room(&join, worker, true).await
    }

    /// [Claims](Self::claim) a seat. If there is no permit left, a lingering connection makes room.
    ///
    /// If there is none, an earlier connection with the side identity of this one does.
    ///
    /// A connection that has just departed returns its permit a moment after its seat.
    async fn claim_with_room(
        self: &Arc<Self>,
        join: &Join,
        worker: usize,
        has_departed: bool,
    ) -> Result<Claim, Rejection> {
        let (mut waits, mut has_revoked) = (has_departed, false);
        for _ in 0..TRIES {
            match self.claim(join.clone(), worker) {
                Err(Rejection::RelayFull) if self.permits.is_empty() => {}
                result => return result,
            }
            // One is enough, and takes a moment to end.
            has_revoked = has_revoked || self.lingering.revoke_oldest();
            waits = waits || has_revoked || self.evict(join);
            if !waits {
                return Err(Rejection::RelayFull);
            }
            self.clock.sleep_until(self.clock.now() + TRY_AGAIN).await;
        }
        self.claim(join.clone(), worker)
    }

    /// Ends the connection that this newcomer would replace, for its permit. False if there is none.
    ///
    /// It lingers at once in its closing handshake, so a later try can revoke it.
    fn evict(&self, newcomer: &Join) -> bool {
        let evicted = self.shard(&newcomer.code).evict(newcomer);
        let is_there = evicted.is_some();
        if let Some((occupant, departure)) = evicted {
            tell_replaced(&occupant, departure);
        }
        is_there
    }

    /// How long a third client waits for the answers of a pair, at most.
    fn longest_probe(&self) -> Duration {
        self.probe_timeout * 2 + RETRANSMISSION
    }

    /// Slots for connections that linger in their closing handshake.
    pub(crate) fn lingering(&self) -> Arc<Slots> {
        Arc::clone(&self.lingering)
    }

    /// Takes a seat for a connection that is being admitted on `worker`.
    pub(crate) fn claim(self: &Arc<Self>, join: Join, worker: usize) -> Result<Claim, Rejection> {
        let shard = self.shard(&join.code);
        let permit = self.permits.take(worker);
        let speaks_v1 = join.speaks_v1;
        let (now, occupant) = (self.clock.now(), Occupant::new(join));
        let meeting = Meeting::new(now);
        let allowance = self.rates.of_pair(now);
        let mut near = None;
        let park = || {
            let (end, far) = link();
            near = Some(end);
            Box::new(ParkedSide { far, meeting: Arc::clone(&meeting), worker, allowance: allowance.clone(), speaks_v1 })
        };
        let (admission, waiting) = shard.connect(&occupant, permit.is_some(), park, now)?;
        let permit = permit.expect("no connection is admitted without one");
        let seat = |id| Seat { shard: Arc::clone(shard), id, occupant };
        let id = match admission {
            Admission::Waiting { id } => id,
            Admission::Replacing { id, replaced, departure } => {
                tell_replaced(&replaced.occupant, departure);
                id
            }
            Admission::Paired { id, peer, handle } => {
                let ParkedSide { far: end, meeting, worker, allowance, speaks_v1: first } = *handle;
                allowance.meet();
                let record = ConnectionRecord::second(id.number(), peer.number(), now, meeting);
                let (seat, first_speaks_v1) = (seat(id), Some(first));
                return Ok(Claim { seat, end, record, worker, allowance, permit, speaks_v1, first_speaks_v1 });
            }
        };
        if waiting == 1 {
            let timer = &self.first_waits[shard.nth() % self.first_waits.len()].0;
            let _ = timer.try_send(()); // full: it is told already
        }
        let end = near.expect("a first side parks the far end of its link");
        let record = ConnectionRecord::first(id.number(), meeting);
        let (seat, first_speaks_v1) = (seat(id), None);
        Ok(Claim { seat, end, record, worker, allowance, permit, speaks_v1, first_speaks_v1 })
    }

    /// The shard of a code.
    fn shard(&self, code: &PairCode) -> &Arc<Shard> {
        if let [only] = &*self.shards {
            return only;
        }
        let mut hasher = self.hasher.clone();
        code.hash(&mut hasher);
        // The number of shards is a power of two.
        &self.shards[hasher.finish() as usize & (self.shards.len() - 1)]
    }

    /// The number of codes in use, those with one side waiting included.
    pub(crate) fn pairs(&self) -> usize {
        self.shards.iter().map(|shard| shard.codes_and_waiting()[0]).sum()
    }

    /// The numbers of codes with one side and with two, of takeover probes and lingering connections.
    ///
    /// The shards are looked at one after the other. What changes meanwhile may count or not.
    pub(crate) fn counts(&self) -> Counts {
        let sum = |[codes, waiting]: [usize; 2], shard: &Arc<Shard>| {
            let [more_codes, more_waiting] = shard.codes_and_waiting();
            [codes + more_codes, waiting + more_waiting]
        };
        let [codes, waiting] = self.shards.iter().fold([0, 0], sum);
        let (probes, lingering) = (self.probes.begun(), self.lingering.len());
        Counts { waiting, paired: codes - waiting, probes, lingering }
    }

    /// Ends the wait of every side at its deadline, in the shards of this worker, for as long as it runs.
    ///
    /// One timer serves all of them. The time to live is the same for all sides, so the earliest deadline only moves later,
    /// except when no side waited.
    pub(crate) async fn expire(&self, worker: usize) {
        let shards = || self.shards.iter().skip(worker).step_by(self.first_waits.len());
        loop {
            match shards().filter_map(|shard| shard.next_deadline()).min() {
                None => {
                    let _ = self.first_waits[worker].1.recv().await; // never closed: the sender is beside it
                }
                Some(deadline) => {
                    self.clock.sleep_until(deadline).await;
                    let now = self.clock.now();
                    end_waits(|most| take(shards(), most, |shard, most| shard.expire(now, most)), CloseCause::Expired)
                        .await;
                }
            }
        }
    }

    /// Tells the sides that wait to come again, and returns their number. Pairs go on.
    ///
    /// Sides that begin to wait meanwhile are not told. Otherwise this might never end, as some come again at once.
    pub(crate) async fn recall(&self) -> usize {
        let began = self.clock.now();
        end_waits(|most| take(self.shards.iter(), most, |shard, most| shard.recall(began, most)), CloseCause::Recalled)
            .await
    }

    /// Admits no client any more, and tells the sides that wait that the relay stops.
    pub(crate) async fn close(&self) {
        // All of them first, so that no side is told while another one is admitted.
        self.shards.iter().for_each(|shard| shard.close());
        end_waits(|most| take(self.shards.iter(), most, |shard, most| shard.drain(most)), CloseCause::Stopping).await;
    }

    /// Probes the pair at `code`, and waits for its answers. Whether its seats may be free then.
    async fn probe(&self, code: &PairCode) -> bool {
        if self.probe_timeout.is_zero() || !self.code_limits.have_room_to_wait() {
            return false; // without room, the third client could not have the seat
        }
        let (shard, now) = (self.shard(code), self.clock.now());
        let begun = shard.with_pair(code, |pair| pair.map(|pair| self.probes.begin(shard.nth(), pair, now)));
        let Some(begun) = begun else { return true };
        let Some((probe, tasks)) = begun else { return false };
        tasks.into_iter().for_each(Waker::wake);
        probe.settle(self.clock.sleep_until(self.clock.now() + self.longest_probe())).await;
        true
    }
}

/// Tells a connection that a newcomer has its place, when nothing is locked.
///
/// One that waited learns of it from its link. A pair has both ends of its link, so one of its connections is told by its
/// occupant, and tells its peer.
fn tell_replaced(occupant: &Occupant, departure: Departure<Box<ParkedSide>>) {
    match departure {
        Departure::Waiting(parked) => parked.far.outgoing.finish(None, CloseCause::Replaced),
        Departure::Paired { .. } | Departure::Absent => occupant.replace(),
    }
}

/// The hash that decides on the shard of a code.
///
/// Codes are chosen by strangers: without a key, these could have all of theirs in one shard. The simulation has a fixed
/// key, so that a seed replays.
fn hasher() -> DefaultHasher {
    if cfg!(any(test, fuzzing)) { DefaultHasher::new() } else { RandomState::new().build_hasher() }
}

/// Takes up to `most` sides that wait out of shards, and returns the far ends of their links.
fn take<'a>(
    shards: impl Iterator<Item = &'a Arc<Shard>>,
    most: usize,
    take: impl Fn(&Shard, usize) -> Vec<End<Box<Buffer>>>,
) -> Vec<End<Box<Buffer>>> {
    shards.fold(Vec::new(), |mut taken, shard| {
        if taken.len() < most {
            taken.extend(take(shard, most - taken.len()));
        }
        taken
    })
}

/// Ends the waits that `take` takes out of the shards, in [portions](ENDS), and yields between them.
///
/// Returns their number.
async fn end_waits(take: impl Fn(usize) -> Vec<End<Box<Buffer>>>, close_cause: CloseCause) -> usize {
    let mut count = 0;
    loop {
        let taken = take(ENDS);
        let is_all = taken.len() < ENDS;
        count += taken.len();
        for end in taken {
            end.outgoing.finish(None, close_cause);
        }
        if is_all {
            return count;
        }
        yield_now().await;
    }
}
