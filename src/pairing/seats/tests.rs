use std::collections::HashSet;
use std::future::{Future, poll_fn, ready};
use std::pin::{Pin, pin};
use std::sync::Mutex;
use std::task::{Context, Poll};
use std::time::Instant;

use futures_lite::future::{block_on, poll_once, zip};
use proptest::prelude::*;

use super::*;
use crate::pairing::link::{Next, SpareChannels};
use crate::runtime::clock::{Sleep, SystemClock};
use crate::runtime::reactor::Reactor;

/// Polls `future` again and again, and returns the number of waits that have ended after each poll.
async fn ended(future: impl Future, claims: &mut [Claim], close_cause: CloseCause) -> Vec<usize> {
    let (mut future, mut cx) = (pin!(future), Context::from_waker(Waker::noop()));
    let mut ended = vec![0];
    while ended.last() != Some(&claims.len()) {
        yield_now().await; // to the reactor, for a timer
        let _ = future.as_mut().poll(&mut cx);
        let mut has_ended = |claim: &mut Claim| match claim.end.incoming.poll_next(&mut cx, &SpareChannels::default()) {
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
    for close_cause in [CloseCause::Expired, CloseCause::Stopping, CloseCause::Recalled] {
        let expires = close_cause == CloseCause::Expired;
        let ttl = if expires { Duration::ZERO } else { Duration::from_secs(60) };
        let clock = Arc::new(SystemClock);
        let limits = EffectiveLimits { connections: WAITS, codes: WAITS, waiting: WAITS, ..EffectiveLimits::ROOMY };
        let workers = if expires { 1 } else { 3 }; // each worker expires its own shards
        let seats = Arc::new(Seats::new(workers, ttl, limits, Duration::ZERO, Rates::default(), clock));
        let claim = |nth| seats.claim(Join::from_target(&format!("/?pair={nth}")).unwrap(), 0).unwrap();
        let mut claims: Vec<_> = (0..WAITS).map(claim).collect();
        let ended = Reactor::new().unwrap().block_on(async {
            match close_cause {
                CloseCause::Expired => ended(seats.expire(0), &mut claims, close_cause).await,
                CloseCause::Stopping => ended(seats.close(), &mut claims, close_cause).await,
                _ => ended(seats.recall(), &mut claims, close_cause).await,
            }
        });
        assert_eq!(ended, [0, ENDS, 2 * ENDS, WAITS]);
    }
}

/// A recall ends though every client that is told comes again at once.
#[test]
fn recall_leaves_out_clients_that_come_again() {
    const WAITS: usize = 3 * ENDS;
    let now = Arc::new(Mutex::new(Instant::now()));
    let (clock, most) = (Arc::new(ManualClock(Arc::clone(&now))), 20 * ENDS);
    let limits = EffectiveLimits { connections: most, codes: most, waiting: most, ..EffectiveLimits::ROOMY };
    let seats = Arc::new(Seats::new(2, Duration::from_secs(60), limits, Duration::ZERO, Rates::default(), clock));
    let claim = |nth: usize| seats.claim(Join::from_target(&format!("/?pair={nth}")).unwrap(), 0).unwrap();
    let mut claims: Vec<_> = (0..WAITS).map(claim).collect();
    let mut recall = pin!(seats.recall());
    let recalled = block_on(async {
        loop {
            if let Some(count) = poll_once(recall.as_mut()).await {
                return count;
            }
            *now.lock().unwrap() += Duration::from_millis(1);
            let first = claims.len();
            claims.extend((first..first + ENDS).map(claim));
        }
    });
    assert_eq!((recalled, seats.pairs()), (WAITS, claims.len() - WAITS));
}

/// Seats for `connections`, in which clients can be probed, and the two sides of a pair.
fn a_pair(connections: usize, clock: Arc<dyn Clock>) -> (Arc<Seats>, Join, [Claim; 2]) {
    let limits = EffectiveLimits { connections, ..EffectiveLimits::ROOMY };
    let ttl = Duration::from_secs(60);
    let seats = Arc::new(Seats::new(3, ttl, limits, Duration::from_secs(2), Rates::default(), clock));
    let join = Join::from_target("/?pair=x").unwrap();
    let sides = [0, 1].map(|worker| seats.claim(join.clone(), worker).unwrap());
    (seats, join, sides)
}

/// A clock with timers that fire at once, as after a long suspension (SIGSTOP).
#[derive(Debug)]
struct AfterSuspension;

impl Clock for AfterSuspension {
    fn now(&self) -> Instant {
        Instant::now()
    }

    fn sleep_until(&self, _: Instant) -> Sleep {
        Box::pin(ready(()))
    }

    fn since_epoch(&self) -> Duration {
        Duration::ZERO
    }
}

/// The prober's timer may fire on its worker before the pair's worker reads the answers.
#[test]
fn probe_that_is_over_takes_no_seat() {
    let (seats, join, mut sides) = a_pair(100, Arc::new(AfterSuspension));
    for _ in 0..2 {
        assert_eq!(block_on(seats.join(join.clone(), 2)).unwrap_err(), Rejection::PairFull);
        let mut cx = Context::from_waker(Waker::noop());
        for side in &mut sides {
            assert!(side.end.incoming.poll_next(&mut cx, &SpareChannels::default()).is_pending(), "the link lives");
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
    let (seats, join, [departs, stays]) = a_pair(2, Arc::new(SystemClock));
    let Claim { seat, permit, .. } = departs;
    let joined = Reactor::new().unwrap().block_on(zip(seats.join(join, 2), async {
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
    let (seats, join, sides) = a_pair(2, Arc::new(SystemClock));
    let joined = Reactor::new().unwrap().block_on(zip(seats.join(join, 2), async {
        sides.iter().for_each(|side| side.seat.answer());
    }));
    assert_eq!(joined.0.unwrap_err(), Rejection::PairFull);
}

#[test]
fn probe_of_one_pair_leaves_other_pairs_alone() {
    let (seats, join, sides) = a_pair(100, Arc::new(SystemClock));
    let other = Join::from_target("/?pair=y").unwrap();
    let others = [0, 1].map(|worker| seats.claim(other.clone(), worker).unwrap());
    let mut joins = pin!(seats.join(join, 2));
    assert!(Reactor::new().unwrap().block_on(poll_once(joins.as_mut())).is_none());
    assert!(sides.iter().all(|side| side.seat.is_asked()));
    assert!(others.iter().all(|side| !side.seat.is_asked()));
}

/// The relay has as many connections as it may have.
#[test]
fn earlier_connection_of_a_client_makes_room_for_it() {
    let clock = Arc::new(SystemClock);
    let join = |side: &str| Join::from_target(&format!("/?pair=x{side}")).unwrap();
    for count in [1, 2] {
        let limits = EffectiveLimits { connections: count, codes: 1, waiting: 1, ..EffectiveLimits::ROOMY };
        let seats = Seats::new(1, Duration::from_secs(60), limits, Duration::ZERO, Rates::default(), clock.clone());
        let seats = Arc::new(seats);
        let mut claims: Vec<_> =
            ["&side=a", "&side=b"].into_iter().take(count).map(|side| seats.claim(join(side), 0).unwrap()).collect();
        let rejection = if count == 1 { Rejection::RelayFull } else { Rejection::PairFull };
        assert_eq!(block_on(seats.join(join("&side=c"), 0)).unwrap_err(), rejection, "another side makes none");
        let Claim { seat, end: mut near, permit, .. } = claims.remove(0);
        let joined = Reactor::new().unwrap().block_on(zip(seats.join(join("&side=a"), 0), async {
            if count == 2 {
                assert!(seat.is_replaced() && !claims[0].seat.is_replaced());
            } else {
                let mut cx = Context::from_waker(Waker::noop());
                let next = near.incoming.poll_next(&mut cx, &SpareChannels::default());
                assert_eq!(next.map(|next| matches!(next, Next::End(CloseCause::Replaced))), Poll::Ready(true));
            }
            // Its closing handshake lingers, and is cut short.
            let slot = seats.lingering().take(0, Instant::now());
            slot.revoked().await;
            drop((seat, near, permit));
        }));
        assert!(joined.0.is_ok());
        assert_eq!(seats.counts().waiting, 1);
    }
}

#[test]
fn no_pair_ends_for_a_newcomer_that_could_not_wait() {
    let (join, clock) = (|target| Join::from_target(target).unwrap(), Arc::new(SystemClock));
    for connections in [3, 4] {
        let limits = EffectiveLimits { connections, waiting: 1, ..EffectiveLimits::ROOMY };
        let seats = Seats::new(1, Duration::from_secs(60), limits, Duration::ZERO, Rates::default(), clock.clone());
        let (seats, targets) = (Arc::new(seats), ["/?pair=x&side=a", "/?pair=x&side=b", "/?pair=y"]);
        let claims = targets.map(|target| seats.claim(join(target), 0).unwrap());
        assert_eq!(block_on(seats.join(join(targets[0]), 0)).unwrap_err(), Rejection::RelayFull);
        assert!(claims.iter().all(|claim| !claim.seat.is_called()));
        assert_eq!((seats.counts().waiting, seats.counts().paired), (1, 1));
    }
}

/// A clock that is set by hand.
#[derive(Debug)]
struct ManualClock(Arc<Mutex<Instant>>);

impl Clock for ManualClock {
    fn now(&self) -> Instant {
        *self.0.lock().unwrap()
    }

    fn sleep_until(&self, due: Instant) -> Sleep {
        let now = Arc::clone(&self.0);
        Box::pin(poll_fn(move |_| if *now.lock().unwrap() >= due { Poll::Ready(()) } else { Poll::Pending }))
    }

    fn since_epoch(&self) -> Duration {
        Duration::ZERO
    }
}

/// Something that happens to the seats. Connections are picked by `nth % count`.
#[derive(Clone, Copy, Debug)]
enum Operation {
    /// A client joins with this code and side identity, on this worker. Side identities from 2 are none.
    Join(u8, u8, usize),
    /// The connection frees its seat, and goes on closing.
    Depart(usize),
    /// The connection ends.
    End(usize),
    /// Time passes, in milliseconds.
    Pass(u64),
    Recall,
    Close,
}

fn operations() -> impl Strategy<Value = Vec<Operation>> {
    let operation = prop_oneof![
        8 => (0..6_u8, 0..4_u8, 0..4_usize).prop_map(|(code, side, worker)| Operation::Join(code, side, worker)),
        3 => any::<usize>().prop_map(Operation::Depart),
        3 => any::<usize>().prop_map(Operation::End),
        3 => (0..80_u64).prop_map(Operation::Pass),
        1 => Just(Operation::Recall),
        // Rarely, as nothing new begins after it.
        1 => prop_oneof![9 => Just(Operation::Pass(0)), 1 => Just(Operation::Close)],
    ];
    prop::collection::vec(operation, 0..100)
}

const TTL: Duration = Duration::from_millis(100);

/// A connection, as the naive model knows it.
struct Modelled {
    code: u8,
    side: u8,
    worker: usize,
    deadline: Instant,
    /// None when it has departed, or was taken out.
    seat: Option<Seat>,
    is_seated: bool,
    /// Whether it is to be told to depart.
    is_replaced: bool,
    peer: Option<usize>,
    end: End<Box<Buffer>>,
    /// The end of the link that it is to be told, and whether it was.
    cause: Option<CloseCause>,
    permit: Option<Permit>,
}

/// What a join leads to.
#[derive(Clone, Copy, Debug)]
enum Joined {
    Waiting,
    Paired(usize),
    Replacing(usize),
}

/// The naive model: a list of all connections so far, which is searched linearly.
struct Model {
    limits: EffectiveLimits,
    connections: Vec<Modelled>,
    is_closed: bool,
}

impl Model {
    fn seated(&self, code: u8) -> Vec<usize> {
        (0..self.connections.len()).filter(|&nth| self.connections[nth].sits_at(code)).collect()
    }

    /// The numbers of codes with one side and with two.
    fn counts(&self) -> [usize; 2] {
        [1, 2].map(|sides| (0..6).filter(|&code| self.seated(code).len() == sides).count())
    }

    /// What a join has to lead to: the peer or the earlier connection, if there is one.
    fn join(&self, code: u8, side: u8) -> Result<Joined, Rejection> {
        let connections = self.connections.iter().filter(|connection| connection.permit.is_some()).count();
        let [waiting, paired] = self.counts();
        let (has_permit, may_wait) = (connections < self.limits.connections, waiting < self.limits.waiting);
        let seated = self.seated(code);
        let earlier = seated.iter().copied().find(|&nth| side < 2 && self.connections[nth].side == side);
        match (&seated[..], earlier) {
            _ if self.is_closed => Err(Rejection::Stopping),
            ([_, _], None) => Err(Rejection::PairFull),
            _ if !has_permit => Err(Rejection::RelayFull),
            ([_], Some(earlier)) => Ok(Joined::Replacing(earlier)),
            ([_, _], Some(earlier)) if may_wait => Ok(Joined::Replacing(earlier)),
            ([waits], None) => Ok(Joined::Paired(*waits)),
            ([], _) if may_wait && waiting + paired < self.limits.codes => Ok(Joined::Waiting),
            _ => Err(Rejection::RelayFull),
        }
    }

    /// A newcomer has the place of this connection.
    fn replace(&mut self, nth: usize) {
        self.connections[nth].is_seated = false;
        match self.connections[nth].peer {
            None => self.connections[nth].cause = Some(CloseCause::Replaced),
            // The table forgets both. Their link lives until the connection departs.
            Some(peer) => {
                self.connections[nth].is_replaced = true;
                self.connections[peer].is_seated = false;
            }
        }
    }

    /// Ends the waits of sides that are due.
    fn end_waits(&mut self, is_due: impl Fn(&Modelled) -> bool, cause: CloseCause) {
        for connection in &mut self.connections {
            if connection.is_seated && connection.peer.is_none() && is_due(connection) {
                (connection.is_seated, connection.cause) = (false, Some(cause));
            }
        }
    }
}

impl Modelled {
    fn sits_at(&self, code: u8) -> bool {
        self.is_seated && self.code == code
    }

    /// The connection departs, and then its peer is to be told.
    fn depart(&mut self) -> Option<usize> {
        self.seat = None;
        let was_paired = std::mem::take(&mut self.is_seated) | std::mem::take(&mut self.is_replaced);
        was_paired.then_some(self.peer).flatten()
    }
}

/// Runs operations on seats for this many workers, and compares with the model after each.
fn compare(operations: &[Operation], workers: usize, limits: EffectiveLimits) {
    let now = Arc::new(Mutex::new(Instant::now()));
    let clock = Arc::new(ManualClock(Arc::clone(&now)));
    let seats = Arc::new(Seats::new(workers, TTL, limits, Duration::ZERO, Rates::default(), clock));
    let mut expire: Vec<Pin<Box<dyn Future<Output = ()>>>> = Vec::new();
    for worker in 0..workers {
        let seats = Arc::clone(&seats);
        expire.push(Box::pin(async move { seats.expire(worker).await }));
    }
    let mut model = Model { limits, connections: Vec::new(), is_closed: false };
    let (mut numbers, mut cx) = (HashSet::new(), Context::from_waker(Waker::noop()));
    for &operation in operations {
        let count = model.connections.len();
        let at = *now.lock().unwrap();
        match operation {
            Operation::Join(code, side, worker) => {
                let worker = worker % workers;
                let side_field = if side < 2 { format!("&side={side}") } else { String::new() };
                let claim = seats.claim(Join::from_target(&format!("/?pair={code}{side_field}")).unwrap(), worker);
                let expected = model.join(code, side);
                assert_eq!(claim.as_ref().map(drop).map_err(|rejection| *rejection), expected.map(drop));
                if let (Ok(claim), Ok(joined)) = (claim, expected) {
                    let peer = if let Joined::Paired(peer) = joined { Some(peer) } else { None };
                    if let Joined::Replacing(earlier) = joined {
                        model.replace(earlier);
                    }
                    let Claim { seat, end, permit, worker: runs_on, .. } = claim;
                    assert!(numbers.insert(seat.number()), "a number was issued twice");
                    assert_eq!(runs_on, peer.map_or(worker, |peer| model.connections[peer].worker));
                    if let Some(peer) = peer {
                        model.connections[peer].peer = Some(count);
                    }
                    let (seat, permit) = (Some(seat), Some(permit));
                    let (deadline, is_seated, is_replaced, cause) = (at + TTL, true, false, None);
                    model.connections.push(Modelled {
                        code,
                        side,
                        worker,
                        deadline,
                        seat,
                        is_seated,
                        is_replaced,
                        peer,
                        end,
                        cause,
                        permit,
                    });
                }
            }
            Operation::Depart(nth) | Operation::End(nth) if count > 0 => {
                let connection = &mut model.connections[nth % count];
                let peer = connection.depart();
                if matches!(operation, Operation::End(_)) {
                    connection.permit = None;
                }
                if let Some(peer) = peer {
                    // The link is another value than the seat, and tells by its drop.
                    connection.end = link().0;
                    (model.connections[peer].is_seated, model.connections[peer].cause) =
                        (false, Some(CloseCause::Lost));
                }
            }
            Operation::Depart(_) | Operation::End(_) => {}
            Operation::Pass(milliseconds) => {
                *now.lock().unwrap() += Duration::from_millis(milliseconds);
                let at = *now.lock().unwrap();
                model.end_waits(|connection| connection.deadline <= at, CloseCause::Expired);
            }
            Operation::Recall => {
                let [waiting, _] = model.counts();
                assert_eq!(block_on(seats.recall()), waiting);
                model.end_waits(|_| true, CloseCause::Recalled);
            }
            Operation::Close => {
                block_on(seats.close());
                model.is_closed = true;
                model.end_waits(|_| true, CloseCause::Stopping);
            }
        }
        expire.iter_mut().for_each(|expire| assert!(expire.as_mut().poll(&mut cx).is_pending()));
        let [waiting, paired] = model.counts();
        let counts = seats.counts();
        assert_eq!([counts.waiting, counts.paired, seats.pairs()], [waiting, paired, waiting + paired]);
        for connection in model.connections.iter_mut().filter(|connection| connection.seat.is_some()) {
            let told = match connection.end.incoming.poll_next(&mut cx, &SpareChannels::default()) {
                Poll::Ready(Next::End(cause)) => Some(cause),
                _ => None,
            };
            assert_eq!(told, connection.cause);
            let is_replaced = connection.seat.as_ref().is_some_and(Seat::is_replaced);
            assert_eq!(is_replaced, connection.is_replaced);
        }
    }
}

proptest! {
    /// A number of shards that depends on the number of workers makes no difference.
    #[test]
    fn shards_together_are_one_table(
        operations in operations(),
        (connections, codes, waiting) in (2..12_usize, 1..6_usize, 1..6_usize),
    ) {
        let limits = EffectiveLimits { connections, codes, waiting, ..EffectiveLimits::ROOMY };
        for workers in 1..=4 {
            compare(&operations, workers, limits);
        }
    }
}

#[test]
fn codes_are_spread_over_four_shards_or_more_for_each_worker_unless_it_is_alone() {
    let limits = EffectiveLimits::ROOMY;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    for (workers, shards) in [(1, 1), (2, 8), (3, 16), (4, 16), (16, 64)] {
        let seats = Seats::new(workers, TTL, limits, Duration::ZERO, Rates::default(), Arc::clone(&clock));
        let code = |nth| PairCode::from_target(&format!("/?pair={nth}")).unwrap();
        let hit: HashSet<_> = (0..1000).map(|nth| seats.shard(&code(nth)).nth()).collect();
        assert_eq!((seats.shards.len(), hit.len()), (shards, shards));
        assert!((0..1000).all(|nth| seats.shard(&code(nth)).nth() == seats.shard(&code(nth)).nth()));
    }
}
