//! Who waits, who is paired, and until when: a pure state machine.
//!
//! It is synchronous and total (every call is legal in every state), does no I/O and never reads a clock: time is an
//! argument. Every change of who is joined to whom is made in this file and nowhere else. `H` is whatever the first
//! side leaves for the second (in the relay, the far end of a [link]); the table moves it and never looks at it.
//!
//! The whole behaviour, for one code:
//!
//! | state             | `connect`                   | `disconnect`                  | `expire` at the deadline | `drain`        |
//! |-------------------|-----------------------------|-------------------------------|--------------------------|----------------|
//! | free              | waiting; `Waiting`          | free; `Absent`                | free                     | free           |
//! | waiting           | paired; `Paired`, takes `H` | free; `Waiting`, returns `H`  | free; returns `H`        | free; returns `H` |
//! | paired            | paired; `Occupied`          | free; `Paired`                | paired                   | paired         |
//! | free, no room     | free; `Full`                |                               |                          |                |
//!
//! Either side of a pair frees the code when it departs; its peer is then no longer known to the table, and the
//! peer's own `disconnect` finds it `Absent`.
//!
//! Memory: one entry for a code in use and one for each connection, bounded by the limits given to
//! [`PairTable::new`].
//!
//! [link]: crate::pairing::link

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use crate::pairing::pair_code::PairCode;

/// Names a connection that was admitted. Issued in strictly increasing order by one table and never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId(u64);

impl ConnId {
    /// The number by which people may tell it from others.
    pub fn number(self) -> u64 {
        self.0
    }
}

/// What became of a connection that was let in.
#[must_use = "the handle in it is the only way to the peer"]
#[derive(Debug, PartialEq, Eq)]
pub enum Admission<H> {
    /// Side A: the first with this code. Its handle is parked until a second comes or `deadline` passes.
    Waiting {
        /// The new connection.
        id: ConnId,
        /// When [`PairTable::expire`] will return the parked handle.
        deadline: Instant,
    },
    /// Side B: joined to the one that waited.
    Paired {
        /// The new connection.
        id: ConnId,
        /// The one that waited.
        peer: ConnId,
        /// What the one that waited had parked.
        handle: H,
        /// What the new connection had offered; nobody will need it.
        offered: H,
    },
}

/// Why a connection was not let in. The table is unchanged, and the offered handle comes back.
#[must_use = "it returns the handle that was offered"]
#[derive(Debug, PartialEq, Eq)]
pub enum Refusal<H> {
    /// Both seats of this code are taken.
    Occupied {
        /// Who has them, the first one first.
        sides: [ConnId; 2],
        /// What the refused connection had offered.
        offered: H,
    },
    /// The table already holds as many codes as it may, or as many with one side waiting. Whoever comes to somebody who
    /// waits is never refused so.
    Full {
        /// What the refused connection had offered.
        offered: H,
    },
}

/// What a connection left behind when it departed.
#[must_use = "the peer has to be told, or the handle dropped"]
#[derive(Debug, PartialEq, Eq)]
pub enum Departure<H> {
    /// It was alone; this is the handle it had parked.
    Waiting(H),
    /// It was paired, and `peer` is now on its own and unknown to the table.
    Paired {
        /// The one that stays behind.
        peer: ConnId,
    },
    /// The table does not know it: it expired, its peer departed before it, or it was never admitted.
    Absent,
}

/// A side of a code that is in use: one waiting or two paired. Neither an empty nor a three-sided slot can be written.
#[derive(Debug)]
enum Slot<H> {
    Waiting { id: ConnId, deadline: Instant, handle: H },
    Paired { a: ConnId, b: ConnId },
}

/// The limits of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableLimits {
    /// Codes in use, those with one side waiting included.
    pub codes: usize,
    /// Codes with one side waiting.
    pub waiting: usize,
}

/// The codes in use and the connections that use them.
///
/// # Examples
///
/// ```
/// use std::time::{Duration, Instant};
/// use arc_relay::internals::pair_code::PairCode;
/// use arc_relay::internals::pair_table::{Admission, TableLimits, Departure, PairTable};
///
/// let mut table = PairTable::new(Duration::from_secs(300), TableLimits { codes: 1000, waiting: 500 });
/// let code = PairCode::from_target("/?pair=abc").unwrap();
/// let now = Instant::now();
///
/// let Ok(Admission::Waiting { id: a, .. }) = table.connect(code.clone(), "far end of A", now) else { panic!() };
/// let Ok(Admission::Paired { id: b, handle, .. }) = table.connect(code, "not needed", now) else { panic!() };
/// assert_eq!(handle, "far end of A");
/// assert_eq!(table.peer(a), Some(b));
///
/// assert_eq!(table.disconnect(b), Departure::Paired { peer: a });
/// assert_eq!(table.disconnect(a), Departure::Absent);
/// assert!(table.is_empty());
/// ```
#[derive(Debug)]
pub struct PairTable<H> {
    // Codes are chosen by strangers: the standard library's keyed hash keeps them from choosing collisions.
    slots: HashMap<PairCode, Slot<H>>,
    // Each connection in `slots`, and the code it is seated at.
    codes: HashMap<ConnId, PairCode>,
    // Each waiting connection, in the order in which they expire: effects must not depend on hash order.
    deadlines: BTreeSet<(Instant, ConnId)>,
    next_id: u64,
    ttl: Duration,
    limits: TableLimits,
}

impl<H> PairTable<H> {
    /// An empty table, in which a side may wait alone for `ttl`.
    pub fn new(ttl: Duration, limits: TableLimits) -> Self {
        Self { slots: HashMap::new(), codes: HashMap::new(), deadlines: BTreeSet::new(), next_id: 0, ttl, limits }
    }

    /// Seats a new connection at `code`, offering `offered` to a second one that may come later.
    ///
    /// A side whose deadline has passed but that was not yet [expired](Self::expire) is still joined: it is there.
    ///
    /// # Errors
    ///
    /// [`Refusal`], and nothing is changed.
    ///
    /// # Panics
    ///
    /// If `now` plus the time to live is beyond what an [`Instant`] can hold (on Linux, billions of years).
    pub fn connect(&mut self, code: PairCode, offered: H, now: Instant) -> Result<Admission<H>, Refusal<H>> {
        let full = self.slots.len() >= self.limits.codes || !self.has_room_to_wait();
        let id = ConnId(self.next_id);
        let admission = match self.slots.entry(code.clone()) {
            Entry::Vacant(_) if full => return Err(Refusal::Full { offered }),
            Entry::Vacant(free) => {
                let deadline = now + self.ttl;
                free.insert(Slot::Waiting { id, deadline, handle: offered });
                self.deadlines.insert((deadline, id));
                Admission::Waiting { id, deadline }
            }
            Entry::Occupied(mut slot) => {
                let (peer, deadline) = match *slot.get() {
                    Slot::Waiting { id, deadline, .. } => (id, deadline),
                    Slot::Paired { a, b } => return Err(Refusal::Occupied { sides: [a, b], offered }),
                };
                let Slot::Waiting { handle, .. } = slot.insert(Slot::Paired { a: peer, b: id }) else {
                    unreachable!("it was waiting a line ago");
                };
                self.deadlines.remove(&(deadline, peer));
                Admission::Paired { id, peer, handle, offered }
            }
        };
        self.next_id += 1;
        self.codes.insert(id, code);
        Ok(admission)
    }

    /// Takes a connection out and frees its code. Idempotent: a second call finds it [absent](Departure::Absent).
    pub fn disconnect(&mut self, id: ConnId) -> Departure<H> {
        let Some(code) = self.codes.remove(&id) else { return Departure::Absent };
        match self.slots.remove(&code).expect("a connection's code is in use") {
            Slot::Waiting { deadline, handle, .. } => {
                self.deadlines.remove(&(deadline, id));
                Departure::Waiting(handle)
            }
            Slot::Paired { a, b } => {
                let peer = if id == a { b } else { a };
                self.codes.remove(&peer);
                Departure::Paired { peer }
            }
        }
    }

    /// Takes out every side that has waited until `now` or longer, and returns what each had parked, oldest first.
    pub fn expire(&mut self, now: Instant) -> Vec<(ConnId, H)> {
        self.expire_some(now, usize::MAX)
    }

    /// The same, but no more than `most` of them.
    pub fn expire_some(&mut self, now: Instant, most: usize) -> Vec<(ConnId, H)> {
        self.take_waiting(most, |deadline| deadline <= now)
    }

    /// Takes out every side that waits, whatever its deadline, oldest first. Pairs stay until they depart.
    pub fn drain(&mut self) -> Vec<(ConnId, H)> {
        self.drain_some(usize::MAX)
    }

    /// The same, but no more than `most` of them.
    pub fn drain_some(&mut self, most: usize) -> Vec<(ConnId, H)> {
        self.take_waiting(most, |_| true)
    }

    fn take_waiting(&mut self, most: usize, due: impl Fn(Instant) -> bool) -> Vec<(ConnId, H)> {
        let mut taken = Vec::new();
        while let Some(&(deadline, id)) = self.deadlines.first()
            && due(deadline)
            && taken.len() < most
        {
            let Departure::Waiting(handle) = self.disconnect(id) else { unreachable!("only who waits has a deadline") };
            taken.push((id, handle));
        }
        taken
    }

    /// The earliest time at which [`expire`](Self::expire) will have something to return, if anyone waits.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|&(deadline, _)| deadline)
    }

    /// Where a message of `id` goes: its peer while it is paired, else `None`.
    pub fn peer(&self, id: ConnId) -> Option<ConnId> {
        match self.slots.get(self.codes.get(&id)?)? {
            Slot::Waiting { .. } => None,
            Slot::Paired { a, b } => Some(if id == *a { *b } else { *a }),
        }
    }

    /// The two sides of the pair at this code, if there is one.
    pub fn pair(&self, code: &PairCode) -> Option<[ConnId; 2]> {
        match self.slots.get(code)? {
            Slot::Waiting { .. } => None,
            Slot::Paired { a, b } => Some([*a, *b]),
        }
    }

    /// Whether one more side may wait for a second one.
    pub fn has_room_to_wait(&self) -> bool {
        self.deadlines.len() < self.limits.waiting
    }

    /// The number of codes in use, those with one side waiting included.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether no code is in use.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// The number of connections that wait for a second one.
    pub fn waiting(&self) -> usize {
        self.deadlines.len()
    }

    /// The number of connections known to the table: those that wait, and two for each pair.
    pub fn connections(&self) -> usize {
        self.codes.len()
    }
}

#[cfg(test)]
mod tests {
    //! One test for each row of the transition table; sequences of them are in `tests/pair_table.rs`.

    use super::*;

    const TTL: Duration = Duration::from_secs(10);

    fn code(name: &str) -> PairCode {
        PairCode::from_target(&format!("/?pair={name}")).unwrap()
    }

    fn table() -> (PairTable<&'static str>, Instant) {
        (PairTable::new(TTL, TableLimits { codes: 2, waiting: 2 }), Instant::now())
    }

    fn waiting(table: &mut PairTable<&'static str>, name: &str, now: Instant) -> ConnId {
        match table.connect(code(name), "parked", now) {
            Ok(Admission::Waiting { id, deadline }) => {
                assert_eq!(deadline, now + TTL);
                id
            }
            other => panic!("{other:?}"),
        }
    }

    fn paired(table: &mut PairTable<&'static str>, name: &str, now: Instant) -> (ConnId, ConnId) {
        let a = waiting(table, name, now);
        match table.connect(code(name), "offered", now) {
            Ok(Admission::Paired { id: b, peer, handle: "parked", offered: "offered" }) => {
                assert_eq!(peer, a);
                (a, b)
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn free_connect_waits() {
        let (mut table, now) = table();
        let a = waiting(&mut table, "x", now);
        assert_eq!((table.len(), table.waiting(), table.connections()), (1, 1, 1));
        assert_eq!(table.next_deadline(), Some(now + TTL));
        assert_eq!(table.peer(a), None);
    }

    #[test]
    fn free_disconnect_is_absent() {
        let (mut table, now) = table();
        let a = waiting(&mut table, "x", now);
        let _ = table.disconnect(a);
        assert_eq!(table.disconnect(a), Departure::Absent);
    }

    #[test]
    fn waiting_sides_can_be_taken_out_in_portions() {
        let (mut table, now) = table();
        let [a, b] = ["x", "y"].map(|code| waiting(&mut table, code, now));
        let ids = |taken: Vec<(ConnId, _)>| taken.into_iter().map(|(id, _)| id).collect::<Vec<_>>();
        assert_eq!(ids(table.expire_some(now + TTL, 1)), [a]);
        assert_eq!(table.next_deadline(), Some(now + TTL));
        assert_eq!(ids(table.drain_some(1)), [b]);
        assert!(table.is_empty());
    }

    #[test]
    fn free_expire_and_drain_return_nothing() {
        let (mut table, now) = table();
        assert_eq!(table.expire(now + TTL), []);
        assert_eq!(table.drain(), []);
        assert_eq!(table.next_deadline(), None);
    }

    #[test]
    fn waiting_connect_pairs_and_takes_the_handle() {
        let (mut table, now) = table();
        let (a, b) = paired(&mut table, "x", now);
        assert!(a < b);
        assert_eq!((table.len(), table.waiting(), table.connections()), (1, 0, 2));
        assert_eq!((table.peer(a), table.peer(b)), (Some(b), Some(a)));
        assert_eq!(table.next_deadline(), None);
    }

    #[test]
    fn waiting_disconnect_frees_the_code_and_returns_the_handle() {
        let (mut table, now) = table();
        let a = waiting(&mut table, "x", now);
        assert_eq!(table.disconnect(a), Departure::Waiting("parked"));
        assert!(table.is_empty());
        assert_eq!(table.next_deadline(), None);
        assert!(waiting(&mut table, "x", now) > a);
    }

    #[test]
    fn waiting_expires_at_its_deadline_and_not_before() {
        let (mut table, now) = table();
        let a = waiting(&mut table, "x", now);
        let b = waiting(&mut table, "y", now + Duration::from_secs(1));
        assert_eq!(table.expire(now + TTL - Duration::from_nanos(1)), []);
        assert_eq!(table.expire(now + TTL), [(a, "parked")]);
        assert_eq!(table.next_deadline(), Some(now + TTL + Duration::from_secs(1)));
        assert_eq!(table.disconnect(a), Departure::Absent);
        assert_eq!(table.disconnect(b), Departure::Waiting("parked"));
    }

    #[test]
    fn waiting_is_drained_oldest_first() {
        let (mut table, now) = table();
        let late = waiting(&mut table, "x", now + Duration::from_secs(1));
        let early = waiting(&mut table, "y", now);
        assert_eq!(table.drain(), [(early, "parked"), (late, "parked")]);
        assert!(table.is_empty());
    }

    #[test]
    fn when_as_many_wait_as_may_another_one_is_refused_but_not_a_second_side() {
        let mut table = PairTable::new(TTL, TableLimits { codes: 9, waiting: 1 });
        let now = Instant::now();
        waiting(&mut table, "x", now);
        assert_eq!(table.connect(code("y"), "no room", now), Err(Refusal::Full { offered: "no room" }));
        assert!(matches!(table.connect(code("x"), "second", now), Ok(Admission::Paired { .. })));
        waiting(&mut table, "y", now);
    }

    #[test]
    fn paired_connect_is_occupied_and_changes_nothing() {
        let (mut table, now) = table();
        let (a, b) = paired(&mut table, "x", now);
        assert_eq!(table.connect(code("x"), "third", now), Err(Refusal::Occupied { sides: [a, b], offered: "third" }));
        assert_eq!((table.peer(a), table.peer(b), table.connections()), (Some(b), Some(a), 2));
        let _ = table.disconnect(a);
        assert_eq!(waiting(&mut table, "x", now), ConnId(2)); // the refused one took no identity
    }

    #[test]
    fn paired_disconnect_of_either_side_frees_the_code_at_once() {
        for first_leaves in [true, false] {
            let (mut table, now) = table();
            let (a, b) = paired(&mut table, "x", now);
            let (leaver, stayer) = if first_leaves { (a, b) } else { (b, a) };
            assert_eq!(table.disconnect(leaver), Departure::Paired { peer: stayer });
            assert!(table.is_empty());
            assert_eq!(table.connections(), 0);
            // A successor at the same code is none of the stayer's business.
            let successor = waiting(&mut table, "x", now);
            assert_eq!(table.disconnect(stayer), Departure::Absent);
            assert_eq!(table.disconnect(successor), Departure::Waiting("parked"));
        }
    }

    #[test]
    fn paired_never_expires_and_is_not_drained() {
        let (mut table, now) = table();
        let (a, b) = paired(&mut table, "x", now);
        assert_eq!(table.expire(now + TTL * 100), []);
        assert_eq!(table.drain(), []);
        assert_eq!(table.peer(a), Some(b));
    }

    #[test]
    fn full_refuses_new_codes_but_not_a_second_side() {
        let (mut table, now) = table();
        waiting(&mut table, "x", now);
        let y = waiting(&mut table, "y", now);
        assert_eq!(table.connect(code("z"), "third", now), Err(Refusal::Full { offered: "third" }));
        assert!(matches!(table.connect(code("x"), "second", now), Ok(Admission::Paired { .. })));
        let _ = table.disconnect(y);
        waiting(&mut table, "z", now);
    }
}
