//! The pair table and its links, against a naive model: a list of seats that is searched linearly.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};

use arc_relay::internals::link::{CloseCause, End, Next, Pace, SpareChannels, link};
use arc_relay::internals::pair_code::PairCode;
use arc_relay::internals::pair_table::{Admission, ConnId, Departure, HasSide, PairTable, Refusal, Room};
use arc_relay::internals::side_id::SideId;

/// The pair TTL, short enough for a few steps in time to reach it.
const TTL: Duration = Duration::from_millis(100);

/// Few codes, so that many connections meet.
const CODES: u8 = 5;

/// Few side identities, so that many clients come again.
const SIDES: u8 = 2;

/// The number that stands for no side identity.
pub const NO_SIDE: u8 = SIDES;

/// Less room than there are codes, so that there is none at times.
const LIMITS: TableLimits = TableLimits { codes: 4, waiting: 3 };

/// The room for codes. The table has none of its own: its caller says whether there is room.
#[derive(Clone, Copy, Debug)]
pub struct TableLimits {
    /// Codes in use, those with one side waiting included.
    pub codes: usize,
    /// Codes with one side waiting.
    pub waiting: usize,
}

/// Something that happens to the relay.
///
/// Targets are picked by `nth % count`, so that every sequence is legal.
#[derive(Clone, Copy, Debug)]
pub enum Operation {
    /// A client connects with this code, as this side.
    Connect(u8, u8),
    /// A connection reads a message from its client, and sends it to the link if there is credit.
    Send(u8),
    /// A connection takes a batch from the link, writes it, and gives the credit back.
    Receive(u8),
    /// A connection takes a batch that its client does not read: no credit until the next `Receive`.
    Stall(u8),
    /// A client closes, and the flag says whether its connection still holds a last batch.
    Leave(u8, bool),
    /// A connection is dropped without reporting a close cause.
    Vanish(u8),
    /// Time passes, in milliseconds, and the flag says whether the relay's tick follows.
    Wait(u8, bool),
    /// The relay stops admitting.
    Drain,
}

impl Operation {
    /// Decodes an operation; every two bytes are one.
    pub fn from_bytes([kind, argument]: [u8; 2]) -> Self {
        match kind % 16 {
            // Half of the clients have no side identity.
            0..=3 => Self::Connect(argument, if kind & 16 == 0 { NO_SIDE } else { kind >> 5 }),
            4..=6 => Self::Send(argument),
            7..=9 => Self::Receive(argument),
            10 => Self::Stall(argument),
            11 => Self::Leave(argument, kind & 16 == 0),
            12 => Self::Vanish(argument),
            13 | 14 => Self::Wait(argument, kind & 16 == 0),
            _ => Self::Drain,
        }
    }
}

/// Runs operations on the real table and the model, and compares them after each operation.
///
/// # Panics
///
/// If they differ.
pub fn run(operations: impl IntoIterator<Item = Operation>) {
    let mut world = World::new(LIMITS);
    for operation in operations {
        world.apply(operation);
        world.check();
    }
    world.end();
}

/// Runs every sequence of `length` operations in a small world, and returns their number.
///
/// A small world has up to four connections, each with one of these codes and side identities, and room within these limits.
/// All processors share the work.
/// Sequences that cannot make a difference are left out:
///
/// - operations of departed connections, other than departing again;
/// - a tick without waiting for it;
/// - sequences that differ only in which of two codes is called the first.
///
/// # Panics
///
/// If the table and the model differ.
pub fn run_all(length: usize, limits: TableLimits, clients: &[[u8; 2]]) -> u64 {
    let mut begun = Vec::new();
    let world = (limits, clients);
    extend(&mut Vec::new(), length.min(3), world, &mut |_, sequence| begun.push(sequence.to_vec()));
    let (next, count) = (AtomicUsize::new(0), AtomicU64::new(0));
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while let Some(begin) = begun.get(next.fetch_add(1, Relaxed)) {
                    extend(&mut begin.clone(), length, world, &mut |world, _| {
                        world.end();
                        count.fetch_add(1, Relaxed);
                    });
                }
            });
        }
    });
    count.into_inner()
}

/// Visits every continuation of a sequence to `length` operations, and checks each world once.
fn extend(
    sequence: &mut Vec<Operation>,
    length: usize,
    (limits, clients): (TableLimits, &[[u8; 2]]),
    visit: &mut impl FnMut(World, &[Operation]),
) {
    let mut world = World::new(limits);
    sequence.iter().for_each(|&operation| world.apply(operation));
    world.check();
    if sequence.len() == length {
        return visit(world, sequence);
    }
    for operation in world.possible(clients) {
        sequence.push(operation);
        extend(sequence, length, (limits, clients), visit);
        sequence.pop();
    }
}

/// The occupant of a seat: the index of its connection in `World::sides`, and its side identity.
#[derive(Clone, Copy, Debug)]
struct Occupant(usize, u8);

impl HasSide for Occupant {
    fn side(&self) -> Option<&SideId> {
        static ALL: LazyLock<[Option<SideId>; SIDES as usize]> = LazyLock::new(|| {
            std::array::from_fn(|digit| SideId::from_target(&format!("/?side={digit}")).expect("a digit is a side"))
        });
        ALL.get(usize::from(self.1))?.as_ref()
    }
}

/// The handle parked in the table, which names its owner.
#[derive(Debug, PartialEq)]
struct Handle {
    owner: usize,
}

/// The naive model of a seat: two seats with the same code are a pair.
#[derive(Clone, Copy, Debug)]
struct Seat {
    code: u8,
    /// The index of the connection in `World::sides`.
    side: usize,
    /// Its side identity, if it is less than [`SIDES`].
    identity: u8,
    deadline: Instant,
}

/// A connection that was admitted.
struct Side {
    id: ConnId,
    code: u8,
    peer: Option<usize>,
    near: Option<End<u32>>,
    /// The link's far end, until the peer takes it. The table holds only a handle that names it.
    far: Option<End<u32>>,
    sent: Vec<u32>,
    received: Vec<u32>,
    owes_credit: bool,
    /// How this side departed, by the model. Its peer must get the same.
    cause: Option<CloseCause>,
    /// The close cause that the link has reported to this side.
    reported: Option<CloseCause>,
}

struct World {
    table: PairTable<Handle, Occupant>,
    /// How many codes there may be.
    limits: TableLimits,
    now: Instant,
    seats: Vec<Seat>,
    sides: Vec<Side>,
    messages: u32,
    channels: SpareChannels<u32>,
    /// The number of connections so far, including refused ones.
    connects: usize,
}

fn code(number: u8) -> &'static PairCode {
    static ALL: LazyLock<[PairCode; CODES as usize]> = LazyLock::new(|| {
        std::array::from_fn(|digit| PairCode::from_target(&format!("/?pair={digit}")).expect("a digit is a code"))
    });
    &ALL[usize::from(number)]
}

fn context() -> Context<'static> {
    Context::from_waker(Waker::noop())
}

impl World {
    fn new(limits: TableLimits) -> Self {
        Self {
            table: PairTable::new(TTL),
            limits,
            now: Instant::now(),
            seats: Vec::new(),
            sides: Vec::new(),
            messages: 0,
            channels: SpareChannels::default(),
            connects: 0,
        }
    }

    /// The next operations in a small world.
    fn possible(&self, clients: &[[u8; 2]]) -> Vec<Operation> {
        let mut possible = Vec::new();
        if self.connects < 4 {
            let may_come = clients.iter().filter(|[code, _]| *code == 0 || self.connects > 0);
            possible.extend(may_come.map(|&[code, identity]| Operation::Connect(code, identity)));
        }
        for (nth, side) in (0..).zip(&self.sides) {
            possible.push(Operation::Leave(nth, false));
            if side.near.is_some() {
                possible.extend([Operation::Send(nth), Operation::Receive(nth), Operation::Stall(nth)]);
                possible.extend([Operation::Leave(nth, true), Operation::Vanish(nth)]);
            }
        }
        if self.connects > 0 {
            // One wait stays within the TTL, and two exceed it.
            possible.extend([Operation::Wait(60, true), Operation::Drain]);
        }
        possible
    }

    fn apply(&mut self, operation: Operation) {
        match operation {
            Operation::Connect(number, identity) => self.connect(number % CODES, identity.min(NO_SIDE)),
            Operation::Send(nth) => self.pick(nth, Self::send),
            Operation::Receive(nth) => self.pick(nth, |world, at| world.receive(at, true)),
            Operation::Stall(nth) => self.pick(nth, |world, at| world.receive(at, false)),
            Operation::Leave(nth, has_last) => self.pick(nth, |world, at| {
                world.messages += 1;
                let last = has_last.then_some(world.messages);
                world.depart(at, last, CloseCause::Left);
            }),
            Operation::Vanish(nth) => self.pick(nth, |world, at| world.depart(at, None, CloseCause::Lost)),
            Operation::Wait(milliseconds, tick) => {
                self.now += Duration::from_millis(milliseconds.into());
                if tick {
                    self.expire();
                }
            }
            Operation::Drain => self.drain(),
        }
    }

    fn pick(&mut self, nth: u8, operation: impl FnOnce(&mut Self, usize)) {
        if !self.sides.is_empty() {
            operation(self, usize::from(nth) % self.sides.len());
        }
    }

    fn connect(&mut self, number: u8, identity: u8) {
        self.connects += 1;
        let new = self.sides.len();
        let there: Vec<_> = self.seats.iter().filter(|seat| seat.code == number).copied().collect();
        let same = there.iter().find(|seat| seat.identity == identity && identity < SIDES);
        let codes = self.waiting().len() + (self.seats.len() - self.waiting().len()) / 2;
        let (has_code, may_wait) = (codes < self.limits.codes, self.waiting().len() < self.limits.waiting);
        let (room, has_room) = match (there.len(), same) {
            (0, _) => (Some(Room::CodeAndWait), has_code && may_wait),
            (1, Some(_)) => (Some(Room::Nothing), true),
            (2, Some(_)) => (Some(Room::Wait), may_wait),
            _ => (None, false),
        };
        let mut asked = None;
        let park = |room| {
            asked = Some(room);
            has_room.then_some(Handle { owner: new })
        };
        let result = self.table.connect(code(number), Occupant(new, identity), park, self.now);
        assert_eq!(asked, room, "a first side parks, and no other");
        let (id, peer) = match (result, &there[..], same) {
            (Err(Refusal::Full), _, _) if room.is_some() && !has_room => return,
            (Err(Refusal::Occupied), [_, _], None) => return,
            (Ok(Admission::Waiting { id }), [], _) if has_room => (id, None),
            (Ok(Admission::Paired { id, peer, handle }), [waits], None) => {
                assert_eq!(peer, self.sides[waits.side].id);
                assert_eq!(handle.owner, waits.side);
                (id, Some(waits.side))
            }
            (Ok(Admission::Replacing { id, replaced, departure }), _, Some(same)) if has_room => {
                assert_eq!((replaced.id, replaced.occupant.0), (self.sides[same.side].id, same.side));
                self.seats.retain(|seat| seat.code != number);
                self.end_replaced(same.side, there.iter().find(|seat| seat.side != same.side).copied(), departure);
                (id, None)
            }
            (result, there, same) => panic!("{result:?} with {there:?}, {same:?} and {codes} codes in use"),
        };
        assert!(self.sides.last().is_none_or(|last| last.id < id), "ids must increase");
        self.seats.push(Seat { code: number, side: new, identity, deadline: self.now + TTL });
        let (near, far) = match peer {
            None => {
                let (near, far) = link();
                (near, Some(far))
            }
            Some(peer) => {
                self.sides[peer].peer = Some(new);
                (self.sides[peer].far.take().expect("the far end is parked once"), None)
            }
        };
        self.sides.push(Side {
            id,
            code: number,
            peer,
            near: Some(near),
            far,
            sent: Vec::new(),
            received: Vec::new(),
            owes_credit: false,
            cause: None,
            reported: None,
        });
    }

    /// Ends a connection whose place a newcomer has, as the relay does.
    fn end_replaced(&mut self, at: usize, peer: Option<Seat>, departure: Departure<Handle>) {
        match (departure, peer) {
            (Departure::Waiting(handle), None) => {
                assert_eq!(handle.owner, at);
                let far = self.sides[at].far.take().expect("a parked handle leads to a far end");
                far.outgoing.finish(None, CloseCause::Replaced);
            }
            (Departure::Paired { peer }, Some(other)) => {
                assert_eq!(peer, self.sides[other.side].id);
                self.depart(at, None, CloseCause::Lost);
            }
            (departure, peer) => panic!("{departure:?}, but the peer is {peer:?}"),
        }
    }

    fn send(&mut self, at: usize) {
        let side = &mut self.sides[at];
        let Some(near) = &mut side.near else { return };
        if near.outgoing.poll_ready(&mut context()).is_ready() {
            assert!(near.outgoing.poll_ready(&mut context()).is_ready(), "the link stays ready until a batch is sent");
            self.messages += 1;
            near.outgoing.send(self.messages, &self.channels);
            side.sent.push(self.messages);
        }
    }

    fn receive(&mut self, at: usize, reads: bool) {
        let side = &mut self.sides[at];
        let Some(near) = &mut side.near else { return };
        if side.owes_credit && reads {
            side.owes_credit = false;
            near.incoming.give_credit(Pace::Fast);
        }
        if side.owes_credit {
            return;
        }
        match near.incoming.poll_next(&mut context(), &self.channels) {
            Poll::Pending => {
                let peer = side.peer.map(|peer| &self.sides[peer]);
                let side = &self.sides[at];
                // A receiver waits only if it has every message of its peer, and the peer has not departed.
                assert!(peer.is_none_or(|peer| peer.sent.len() == side.received.len() && peer.cause.is_none()));
            }
            Poll::Ready(Next::Batch(message)) => {
                side.received.push(message);
                if reads {
                    near.incoming.give_credit(Pace::Fast);
                } else {
                    side.owes_credit = true;
                }
            }
            Poll::Ready(Next::End(cause)) => {
                side.reported = Some(cause);
                self.check_end(at, cause);
            }
        }
    }

    fn receive_all(&mut self, at: usize) {
        while self.sides[at].near.is_some() && self.sides[at].reported.is_none() {
            self.receive(at, true);
        }
    }

    /// Asserts that the end comes after all messages, with the cause of the peer's departure.
    fn check_end(&self, at: usize, cause: CloseCause) {
        let expected = match cause {
            CloseCause::Left => (1000, "peer disconnected"),
            CloseCause::Lost => (1011, "peer connection lost"),
            CloseCause::Expired => (1001, "pair expired"),
            CloseCause::Stopping => (1001, "relay stopping"),
            CloseCause::Recalled => (1012, "service restart"),
            CloseCause::Replaced => (4001, "replaced"),
        };
        assert_eq!((cause.code(), cause.reason()), expected);
        let side = &self.sides[at];
        match side.peer {
            Some(peer) => {
                assert_eq!(Some(cause), self.sides[peer].cause);
                assert_eq!(side.received, self.sides[peer].sent, "a message was lost");
            }
            None => {
                assert!(!matches!(cause, CloseCause::Left | CloseCause::Lost), "{cause:?} without a peer");
            }
        }
    }

    fn depart(&mut self, at: usize, last: Option<u32>, cause: CloseCause) {
        let seated = self.seats.iter().position(|seat| seat.side == at).map(|position| self.seats[position]);
        let departure = self.table.disconnect(code(self.sides[at].code), self.sides[at].id);
        let others: Vec<_> =
            self.seats.iter().filter(|seat| Some(seat.code) == seated.map(|s| s.code) && seat.side != at).collect();
        match (departure, seated, &others[..]) {
            (Departure::Absent, None, _) => {}
            (Departure::Waiting(handle), Some(_), []) => {
                assert_eq!(handle.owner, at);
                self.sides[at].far = None;
            }
            (Departure::Paired { peer }, Some(_), [other]) => assert_eq!(peer, self.sides[other.side].id),
            (departure, seated, others) => panic!("{departure:?}, but seated at {seated:?} with {others:?}"),
        }
        if let Some(seated) = seated {
            self.seats.retain(|seat| seat.code != seated.code);
        }
        let side = &mut self.sides[at];
        let Some(near) = side.near.take() else { return };
        side.cause = Some(cause);
        match cause {
            CloseCause::Lost => drop(near), // without reporting a cause
            _ => {
                side.sent.extend(last);
                near.outgoing.finish(last, cause);
            }
        }
    }

    /// The seats of waiting clients by the model, in the order in which they expire.
    fn waiting(&self) -> Vec<Seat> {
        let alone = |seat: &&Seat| self.seats.iter().filter(|other| other.code == seat.code).count() == 1;
        let mut waiting: Vec<_> = self.seats.iter().filter(alone).copied().collect();
        waiting.sort_by_key(|seat| (seat.deadline, self.sides[seat.side].id));
        waiting
    }

    fn expire(&mut self) {
        let now = self.now;
        let due = self.waiting().into_iter().filter(|seat| seat.deadline <= now).collect();
        let expired = self.table.expire(now, usize::MAX);
        self.close_waiting(due, expired, CloseCause::Expired);
        assert!(self.table.next_deadline().is_none_or(|next| next > now));
    }

    fn drain(&mut self) {
        let due = self.waiting();
        let drained = self.table.drain(usize::MAX);
        self.close_waiting(due, drained, CloseCause::Stopping);
        assert_eq!(self.table.waiting(), 0);
    }

    fn close_waiting(&mut self, due: Vec<Seat>, returned: Vec<(ConnId, Handle)>, cause: CloseCause) {
        let expected: Vec<_> = due.iter().map(|seat| (self.sides[seat.side].id, Handle { owner: seat.side })).collect();
        assert_eq!(returned, expected, "oldest first, and each with its own handle");
        self.seats.retain(|seat| !due.iter().any(|gone| gone.side == seat.side));
        for (_, Handle { owner }) in returned {
            let far = self.sides[owner].far.take().expect("a parked handle leads to a far end");
            far.outgoing.finish(None, cause);
        }
    }

    /// Lets all remaining sides depart, and receive everything up to the end.
    fn end(mut self) {
        for at in 0..self.sides.len() {
            self.depart(at, None, CloseCause::Left);
            self.check();
        }
        assert_eq!(self.table.codes(), 0, "all are gone, but the table is not empty");
        for at in 0..self.sides.len() {
            self.receive_all(at);
        }
    }

    /// The invariants that hold after every step.
    fn check(&self) {
        let waiting = self.waiting();
        let pairs = (self.seats.len() - waiting.len()) / 2;
        assert_eq!(self.table.waiting(), waiting.len());
        assert_eq!(self.table.codes(), waiting.len() + pairs);
        assert!(self.table.codes() <= self.limits.codes && self.table.waiting() <= self.limits.waiting);
        assert_eq!(self.table.next_deadline(), waiting.first().map(|seat| seat.deadline));
        for number in 0..CODES {
            let seated = self.seats.iter().filter(|seat| seat.code == number);
            let seated: Vec<_> = seated.map(|seat| (self.sides[seat.side].id, seat.side)).collect();
            let pair = self.table.pair(code(number)).map(|pair| pair.map(|side| (side.id, side.occupant.0)));
            assert_eq!(pair, <[_; 2]>::try_from(seated).ok());
            let identities = self.seats.iter().filter(|seat| seat.code == number && seat.identity < SIDES);
            let identities: Vec<_> = identities.map(|seat| seat.identity).collect();
            assert!(!matches!(identities[..], [one, other] if one == other), "a client is paired with itself");
        }
        for side in &self.sides {
            if let Some(peer) = side.peer {
                assert!(self.sides[peer].sent.starts_with(&side.received), "not a prefix of what the peer sent");
            } else {
                assert!(side.received.is_empty());
            }
        }
    }
}
