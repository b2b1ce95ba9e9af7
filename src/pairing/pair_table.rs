//! The pair table: a pure state machine of the connections that wait and those that are paired.
//!
//! It is synchronous and total (every call is legal in every state), does no I/O and never reads a clock: time is an
//! argument. No other file joins two connections or parts them.
//!
//! - `H` is the handle that the first side parks for the second: in the relay, the far end of a link.
//! - `O` is the occupant of a seat, which the table keeps for as long as the seat is taken: in the relay, where a takeover
//!   probe finds a client.
//!
//! The table moves both. It looks at nothing but the [side identity](HasSide) of an occupant. The whole behaviour, for one
//! code:
//!
//! | state         | `connect`          | ... as an occupant's side       | `disconnect`      | `expire` at the deadline | `drain`           |
//! |---------------|--------------------|---------------------------------|-------------------|--------------------------|-------------------|
//! | free          | waiting; parks `H` |                                 | free; `Absent`    | free                     | free              |
//! | waiting       | paired; takes `H`  | waiting; parks `H`, returns `H` | free; returns `H` | free; returns `H`        | free; returns `H` |
//! | paired        | paired; `Occupied` | waiting; parks `H`, `Paired`    | free; `Paired`    | paired                   | paired            |
//! | free, no room | free; `Full`       |                                 |                   |                          |                   |
//! | paired, no room to wait | paired; `Occupied` | paired; `Full`        |                   |                          |                   |
//!
//! A newcomer with the side identity of an occupant *replaces* it, and so the two sides of a pair are never the same client.
//! Occupants with other identities, or with none, are safe from it.
//!
//! Several tables share the limits of a relay, so the caller of `connect` says whether there is [room](Room) for a first
//! side: by the handle that it parks, or by none.
//!
//! When one side of a pair departs, its code is free. The table no longer knows the peer then, and the peer's own
//! `disconnect` returns `Absent`.
//!
//! Memory: one entry for each code in use and one for each side that waits.

use std::collections::hash_map;
use std::collections::{BTreeMap, HashMap};
use std::mem;
use std::time::{Duration, Instant};

use crate::pairing::pair_code::PairCode;
use crate::pairing::side_id::SideId;

/// An occupant that may have a side identity.
pub trait HasSide {
    /// The side identity, if there is one. It never changes.
    fn side(&self) -> Option<&SideId>;
}

/// The identity of an admitted connection.
///
/// A table issues them in increasing order and never reuses one. Tables that are [numbered](PairTable::numbered) in turn
/// never issue the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId(u64);

impl ConnId {
    /// The number that tells the connection from others in the log.
    pub fn number(self) -> u64 {
        self.0
    }
}

/// The result of a connection that was admitted.
#[must_use = "the handle in it is the only way to the peer"]
#[derive(Debug, PartialEq, Eq)]
pub enum Admission<H, O> {
    /// Side A: the first with this code.
    ///
    /// Its handle is parked until a second side comes or its deadline passes.
    Waiting {
        /// The new connection.
        id: ConnId,
    },
    /// Side B: joined to the side that waited.
    Paired {
        /// The new connection.
        id: ConnId,
        /// The side that waited.
        peer: ConnId,
        /// The handle that the first side had parked.
        handle: H,
    },
    /// Side A, in the place of an earlier connection with the same side identity.
    ///
    /// Its handle is parked, as that of any side that waits. The table does not know the earlier connection any more.
    Replacing {
        /// The new connection.
        id: ConnId,
        /// The earlier connection.
        replaced: Seated<O>,
        /// What the earlier connection left behind. Never [`Departure::Absent`].
        departure: Departure<H>,
    },
}

/// What a first side needs room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// For one more code in use, and for one more side that waits.
    CodeAndWait,
    /// For one more side that waits: it ends a pair with the same code.
    Wait,
    /// For nothing: it ends the wait of another side with the same code.
    Nothing,
}

/// The reason why a connection was not admitted. The table is unchanged, and nothing was parked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Both seats of this code are taken.
    Occupied,
    /// There is no [room](Room) for a first side. A second side is never refused so.
    Full,
}

/// What a connection left behind when it departed.
#[must_use = "a handle is best dropped when nothing is locked"]
#[derive(Debug, PartialEq, Eq)]
pub enum Departure<H> {
    /// It was alone; this is the handle it had parked.
    Waiting(H),
    /// It was paired, and the table does not know `peer` any more.
    Paired {
        /// The side that stays behind.
        peer: ConnId,
    },
    /// The table does not know it: it has expired, or it or its peer has departed before.
    Absent,
}

/// A connection that has a seat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seated<O> {
    /// The connection.
    pub id: ConnId,
    /// The occupant that it came with.
    pub occupant: O,
}

/// The seats of a code in use. Neither an empty nor a three-sided slot can be written.
#[derive(Debug)]
struct Occupancy<H, O> {
    first: Seated<O>,
    second: Second<H, O>,
}

/// The second seat of a code in use.
#[derive(Debug)]
enum Second<H, O> {
    Free { deadline: Instant, handle: H },
    Taken(Seated<O>),
}

/// The deadline of each side that waits, and its code.
type Deadlines = BTreeMap<(Instant, ConnId), PairCode>;

/// The codes in use and the connections that use them.
///
/// # Examples
///
/// ```
/// use std::time::{Duration, Instant};
/// use arc_relay::internals::pair_code::PairCode;
/// use arc_relay::internals::pair_table::{Admission, Departure, HasSide, PairTable};
/// use arc_relay::internals::side_id::SideId;
///
/// struct Client(&'static str);
///
/// impl HasSide for Client {
///     fn side(&self) -> Option<&SideId> {
///         None
///     }
/// }
///
/// let mut table = PairTable::new(Duration::from_secs(300));
/// let code = PairCode::from_target("/?pair=abc").unwrap();
/// let now = Instant::now();
///
/// let Ok(Admission::Waiting { id: a }) = table.connect(&code, Client("A"), |_| Some("far end of A"), now) else { panic!() };
/// let Ok(Admission::Paired { id: b, handle, .. }) = table.connect(&code, Client("B"), |_| None, now) else { panic!() };
/// assert_eq!(handle, "far end of A");
/// assert_eq!(table.pair(&code).unwrap().map(|side| side.id), [a, b]);
///
/// assert_eq!(table.disconnect(&code, b), Departure::Paired { peer: a });
/// assert_eq!(table.disconnect(&code, a), Departure::Absent);
/// assert_eq!(table.codes(), 0);
/// ```
#[derive(Debug)]
pub struct PairTable<H, O> {
    // Codes are chosen by strangers: the standard library's keyed hash keeps them from choosing collisions.
    slots: HashMap<PairCode, Occupancy<H, O>>,
    // Each side that waits, in the order in which they expire: effects must not depend on hash order.
    deadlines: Deadlines,
    next_id: u64,
    id_step: u64,
    ttl: Duration,
}

impl<H, O: HasSide> PairTable<H, O> {
    /// An empty table, in which a side may wait alone for `ttl`.
    pub fn new(ttl: Duration) -> Self {
        Self::numbered(ttl, 0, 1)
    }

    /// The `nth` of `count` tables that issue no identity twice.
    ///
    /// # Panics
    ///
    /// Unless `nth` is less than `count`.
    pub fn numbered(ttl: Duration, nth: u64, count: u64) -> Self {
        assert!(nth < count, "a table with the identities of another one");
        Self { slots: HashMap::new(), deadlines: BTreeMap::new(), next_id: nth, id_step: count, ttl }
    }

    /// Seats a new connection at `code`. The first side parks a handle for the second.
    ///
    /// `park` is called for a first side only, with the room that it needs. None means that there is none.
    ///
    /// A side past its deadline that was not yet [expired](Self::expire) is still joined or replaced: it is there.
    ///
    /// # Errors
    ///
    /// [`Refusal`], and nothing is changed.
    ///
    /// # Panics
    ///
    /// If `now` plus the time to live is beyond what an [`Instant`] can hold (on Linux, billions of years).
    pub fn connect(
        &mut self,
        code: &PairCode,
        occupant: O,
        park: impl FnOnce(Room) -> Option<H>,
        now: Instant,
    ) -> Result<Admission<H, O>, Refusal> {
        let (id, deadline) = (ConnId(self.next_id), now + self.ttl);
        let side = Seated { id, occupant };
        let admission = match self.slots.entry(code.clone()) {
            hash_map::Entry::Vacant(free) => {
                let Some(handle) = park(Room::CodeAndWait) else { return Err(Refusal::Full) };
                free.insert(Occupancy { first: side, second: Second::Free { deadline, handle } });
                self.deadlines.insert((deadline, id), code.clone());
                Admission::Waiting { id }
            }
            hash_map::Entry::Occupied(mut slot) => match slot.get().seat_of(side.occupant.side()) {
                None => {
                    let Occupancy { first, second } = slot.into_mut();
                    if matches!(second, Second::Taken(_)) {
                        return Err(Refusal::Occupied);
                    }
                    let Second::Free { deadline, handle } = mem::replace(second, Second::Taken(side)) else {
                        unreachable!("it was free a line ago");
                    };
                    self.deadlines.remove(&(deadline, first.id));
                    Admission::Paired { id, peer: first.id, handle }
                }
                Some(Seated { id: replaced, .. }) => {
                    let (replaced, room) = (*replaced, slot.get().room_of_a_successor());
                    let Some(handle) = park(room) else { return Err(Refusal::Full) };
                    let successor = Occupancy { first: side, second: Second::Free { deadline, handle } };
                    self.deadlines.insert((deadline, id), code.clone());
                    let (replaced, departure) = slot.insert(successor).without(replaced, &mut self.deadlines);
                    Admission::Replacing { id, replaced, departure }
                }
            },
        };
        self.next_id += self.id_step;
        Ok(admission)
    }

    /// The connection at `code` that a newcomer with this side identity would replace, if there is one.
    pub fn seat_of(&self, code: &PairCode, side: Option<&SideId>) -> Option<&Seated<O>> {
        self.slots.get(code)?.seat_of(side)
    }

    /// Takes a connection out and frees its code.
    ///
    /// Idempotent: a second call finds it [absent](Departure::Absent).
    pub fn disconnect(&mut self, code: &PairCode, id: ConnId) -> Departure<H> {
        // A successor may have the code.
        if self.slots.get(code).is_none_or(|slot| !slot.seats(id)) {
            return Departure::Absent;
        }
        match self.slots.remove(code) {
            Some(slot) => slot.without(id, &mut self.deadlines).1,
            None => Departure::Absent,
        }
    }

    /// Takes out the sides that have waited until `now` or longer, `most` at a time, the oldest first.
    ///
    /// It returns the handle that each had parked.
    pub fn expire(&mut self, now: Instant, most: usize) -> Vec<(ConnId, H)> {
        self.take_waiting(most, |deadline| deadline <= now)
    }

    /// Takes out sides that wait, whatever their deadline, `most` at a time, the oldest first. Pairs stay.
    pub fn drain(&mut self, most: usize) -> Vec<(ConnId, H)> {
        self.take_waiting(most, |_| true)
    }

    fn take_waiting(&mut self, most: usize, is_due: impl Fn(Instant) -> bool) -> Vec<(ConnId, H)> {
        let mut taken = Vec::new();
        while taken.len() < most
            && let Some(oldest) = self.deadlines.first_entry()
            && is_due(oldest.key().0)
        {
            let ((_, id), code) = oldest.remove_entry();
            let Some(Occupancy { second: Second::Free { handle, .. }, .. }) = self.slots.remove(&code) else {
                unreachable!("only a side that waits has a deadline");
            };
            taken.push((id, handle));
        }
        taken
    }

    /// The earliest time at which [`expire`](Self::expire) has something to return, if a side waits.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.first_key_value().map(|(&(deadline, _), _)| deadline)
    }

    /// The two sides of the pair at this code, if there is one, the first side first.
    pub fn pair(&self, code: &PairCode) -> Option<[&Seated<O>; 2]> {
        match self.slots.get(code)? {
            Occupancy { second: Second::Free { .. }, .. } => None,
            Occupancy { first, second: Second::Taken(second) } => Some([first, second]),
        }
    }

    /// The number of codes in use, those with one side waiting included.
    pub fn codes(&self) -> usize {
        self.slots.len()
    }

    /// The number of sides that wait for a second one.
    pub fn waiting(&self) -> usize {
        self.deadlines.len()
    }
}

impl<H, O: HasSide> Occupancy<H, O> {
    fn seats(&self, id: ConnId) -> bool {
        self.first.id == id || self.second().is_some_and(|second| second.id == id)
    }

    fn second(&self) -> Option<&Seated<O>> {
        match &self.second {
            Second::Free { .. } => None,
            Second::Taken(second) => Some(second),
        }
    }

    /// The connection with this side identity. Without one, no connection has it.
    fn seat_of(&self, side: Option<&SideId>) -> Option<&Seated<O>> {
        let side = side?;
        [Some(&self.first), self.second()].into_iter().flatten().find(|seated| seated.occupant.side() == Some(side))
    }

    /// What a side that waits needs room for if this ends for it.
    fn room_of_a_successor(&self) -> Room {
        match self.second {
            Second::Free { .. } => Room::Nothing,
            Second::Taken(_) => Room::Wait,
        }
    }

    /// Ends this, which is not in the table any more, by the departure of one of its sides.
    ///
    /// The side that departs has no deadline then.
    fn without(self, id: ConnId, deadlines: &mut Deadlines) -> (Seated<O>, Departure<H>) {
        match self {
            Self { first, second: Second::Free { deadline, handle } } => {
                deadlines.remove(&(deadline, first.id));
                (first, Departure::Waiting(handle))
            }
            Self { first, second: Second::Taken(second) } => {
                let (departed, stays) = if id == first.id { (first, second) } else { (second, first) };
                (departed, Departure::Paired { peer: stays.id })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    //! One test for each row of the transition table; sequences of them are in `tests/pair_table.rs`.

    use super::*;

    const TTL: Duration = Duration::from_secs(10);

    type Table = PairTable<&'static str, Client>;

    /// A client with a name, and a side identity if it has one.
    #[derive(Clone, Debug, PartialEq)]
    struct Client(&'static str, Option<SideId>);

    impl HasSide for Client {
        fn side(&self) -> Option<&SideId> {
            self.1.as_ref()
        }
    }

    fn client(name: &'static str, side: &str) -> Client {
        Client(name, SideId::from_target(&format!("/?{side}")).unwrap())
    }

    fn code(name: &str) -> PairCode {
        PairCode::from_target(&format!("/?pair={name}")).unwrap()
    }

    fn table() -> (Table, Instant) {
        (PairTable::new(TTL), Instant::now())
    }

    fn waiting(table: &mut Table, name: &str, now: Instant) -> ConnId {
        match table.connect(&code(name), client("first", ""), |_| Some("parked"), now) {
            Ok(Admission::Waiting { id }) => id,
            other => panic!("{other:?}"),
        }
    }

    fn join(table: &mut Table, name: &str, now: Instant) -> Result<Admission<&'static str, Client>, Refusal> {
        table.connect(&code(name), client("second", ""), |_| None, now)
    }

    /// Connects as this side, where there is any room but this.
    ///
    /// Returns the room that was asked for, too.
    fn come(
        table: &mut Table,
        name: &'static str,
        side: &str,
        full: Option<Room>,
        now: Instant,
    ) -> (Result<Admission<&'static str, Client>, Refusal>, Option<Room>) {
        let mut asked = None;
        let park = |room| {
            asked = Some(room);
            (full != Some(room)).then_some(name)
        };
        (table.connect(&code("x"), client(name, side), park, now), asked)
    }

    /// A pair of clients of which the first has the side identity `a`, and the second `b`.
    fn named_pair(now: Instant) -> (Table, [ConnId; 2]) {
        let mut table = PairTable::new(TTL);
        let Ok(Admission::Waiting { id: a }) = come(&mut table, "A", "side=a", None, now).0 else { panic!() };
        let Ok(Admission::Paired { id: b, .. }) = come(&mut table, "B", "side=b", None, now).0 else { panic!() };
        (table, [a, b])
    }

    fn paired(table: &mut Table, name: &str, now: Instant) -> (ConnId, ConnId) {
        let a = waiting(table, name, now);
        match join(table, name, now) {
            Ok(Admission::Paired { id: b, peer, handle: "parked" }) if peer == a => (a, b),
            other => panic!("{other:?}"),
        }
    }

    fn pair(table: &Table, name: &str) -> Option<[(ConnId, &'static str); 2]> {
        Some(table.pair(&code(name))?.map(|side| (side.id, side.occupant.0)))
    }

    #[test]
    fn first_side_waits_until_its_deadline() {
        let (mut table, now) = table();
        waiting(&mut table, "x", now);
        assert_eq!((table.codes(), table.waiting()), (1, 1));
        assert_eq!(table.next_deadline(), Some(now + TTL));
        assert_eq!(pair(&table, "x"), None);
    }

    #[test]
    fn disconnect_from_a_free_code_is_absent() {
        let (mut table, now) = table();
        let a = waiting(&mut table, "x", now);
        let _ = table.disconnect(&code("x"), a);
        assert_eq!(table.disconnect(&code("x"), a), Departure::Absent);
    }

    #[test]
    fn waiting_sides_can_be_taken_out_in_portions() {
        let (mut table, now) = table();
        let [a, b] = ["x", "y"].map(|code| waiting(&mut table, code, now));
        assert_eq!(table.expire(now + TTL, 1), [(a, "parked")]);
        assert_eq!(table.next_deadline(), Some(now + TTL));
        assert_eq!(table.drain(1), [(b, "parked")]);
        assert_eq!(table.codes(), 0);
    }

    #[test]
    fn expire_and_drain_of_an_empty_table_return_nothing() {
        let (mut table, now) = table();
        assert_eq!(table.expire(now + TTL, 9), []);
        assert_eq!(table.drain(9), []);
        assert_eq!(table.next_deadline(), None);
    }

    #[test]
    fn second_side_is_paired_and_takes_the_handle() {
        let (mut table, now) = table();
        let (a, b) = paired(&mut table, "x", now);
        assert!(a < b);
        assert_eq!((table.codes(), table.waiting()), (1, 0));
        assert_eq!(pair(&table, "x"), Some([(a, "first"), (b, "second")]));
        assert_eq!(table.next_deadline(), None);
    }

    #[test]
    fn departure_of_a_waiting_side_frees_the_code_and_returns_the_handle() {
        let (mut table, now) = table();
        let a = waiting(&mut table, "x", now);
        assert_eq!(table.disconnect(&code("x"), a), Departure::Waiting("parked"));
        assert_eq!((table.codes(), table.next_deadline()), (0, None));
        assert!(waiting(&mut table, "x", now) > a);
    }

    #[test]
    fn waiting_side_expires_at_its_deadline_and_not_before() {
        let (mut table, now) = table();
        let a = waiting(&mut table, "x", now);
        let b = waiting(&mut table, "y", now + Duration::from_secs(1));
        assert_eq!(table.expire(now + TTL - Duration::from_nanos(1), 9), []);
        assert_eq!(table.expire(now + TTL, 9), [(a, "parked")]);
        assert_eq!(table.next_deadline(), Some(now + TTL + Duration::from_secs(1)));
        assert_eq!(table.disconnect(&code("x"), a), Departure::Absent);
        assert_eq!(table.disconnect(&code("y"), b), Departure::Waiting("parked"));
    }

    #[test]
    fn waiting_sides_are_drained_oldest_first() {
        let (mut table, now) = table();
        let late = waiting(&mut table, "x", now + Duration::from_secs(1));
        let early = waiting(&mut table, "y", now);
        assert_eq!(table.drain(9), [(early, "parked"), (late, "parked")]);
        assert_eq!(table.codes(), 0);
    }

    #[test]
    fn first_side_without_room_is_refused_and_changes_nothing() {
        let (mut table, now) = table();
        waiting(&mut table, "x", now);
        assert_eq!(join(&mut table, "y", now), Err(Refusal::Full));
        assert_eq!((table.codes(), table.waiting()), (1, 1));
        assert!(matches!(join(&mut table, "x", now), Ok(Admission::Paired { .. })), "a second side needs no room");
        assert_eq!(waiting(&mut table, "y", now), ConnId(2), "the refused client took no identity");
    }

    #[test]
    fn tables_numbered_in_turn_issue_no_identity_twice() {
        let now = Instant::now();
        let ids = |nth| {
            let mut table = Table::numbered(TTL, nth, 3);
            ["x", "y", "z"].map(|code| waiting(&mut table, code, now).number())
        };
        assert_eq!([0, 1, 2].map(ids), [[0, 3, 6], [1, 4, 7], [2, 5, 8]]);
    }

    #[test]
    fn third_client_is_refused_and_changes_nothing() {
        let (mut table, now) = table();
        let (a, b) = paired(&mut table, "x", now);
        assert_eq!(join(&mut table, "x", now), Err(Refusal::Occupied));
        assert_eq!(pair(&table, "x"), Some([(a, "first"), (b, "second")]));
        let _ = table.disconnect(&code("x"), a);
        assert_eq!(waiting(&mut table, "x", now), ConnId(2), "the refused client took no identity");
    }

    #[test]
    fn departure_of_either_side_of_a_pair_frees_the_code() {
        for first_leaves in [true, false] {
            let (mut table, now) = table();
            let (a, b) = paired(&mut table, "x", now);
            let (leaver, stayer) = if first_leaves { (a, b) } else { (b, a) };
            assert_eq!(table.disconnect(&code("x"), leaver), Departure::Paired { peer: stayer });
            assert_eq!(table.codes(), 0);
            let successor = waiting(&mut table, "x", now);
            assert_eq!(table.disconnect(&code("x"), stayer), Departure::Absent, "the code has another owner");
            assert_eq!(table.disconnect(&code("x"), successor), Departure::Waiting("parked"));
        }
    }

    #[test]
    fn pair_neither_expires_nor_is_drained() {
        let (mut table, now) = table();
        let (a, b) = paired(&mut table, "x", now);
        assert_eq!(table.expire(now + TTL * 100, 9), []);
        assert_eq!(table.drain(9), []);
        assert_eq!(pair(&table, "x"), Some([(a, "first"), (b, "second")]));
    }

    #[test]
    fn newcomer_with_the_side_of_a_waiting_one_waits_in_its_place() {
        let (mut table, now) = table();
        let Ok(Admission::Waiting { id: old }) = come(&mut table, "old", "side=a", None, now).0 else { panic!() };
        let later = now + Duration::from_secs(1);
        let (result, room) = come(&mut table, "new", "side=a", Some(Room::CodeAndWait), later);
        let Ok(Admission::Replacing { id, replaced, departure }) = result else { panic!("{result:?}") };
        assert_eq!((replaced.id, replaced.occupant.0, departure), (old, "old", Departure::Waiting("old")));
        assert_eq!((room, id > old), (Some(Room::Nothing), true));
        assert_eq!((table.codes(), table.waiting(), table.next_deadline()), (1, 1, Some(later + TTL)));
        assert_eq!(table.disconnect(&code("x"), old), Departure::Absent);
        assert_eq!(table.expire(now + TTL, 9), []);
        assert_eq!(table.expire(later + TTL, 9), [(id, "new")]);
    }

    #[test]
    fn newcomer_with_the_side_of_a_paired_one_ends_the_pair_and_waits() {
        let now = Instant::now();
        for (nth, side) in [(0, "side=a"), (1, "side=b")] {
            let (mut table, ids) = named_pair(now);
            let (result, room) = come(&mut table, "new", side, Some(Room::CodeAndWait), now);
            let Ok(Admission::Replacing { id, replaced, departure }) = result else { panic!("{result:?}") };
            assert_eq!((replaced.id, departure), (ids[nth], Departure::Paired { peer: ids[1 - nth] }));
            assert_eq!((room, table.codes(), table.waiting()), (Some(Room::Wait), 1, 1));
            assert!(ids.iter().all(|&id| table.disconnect(&code("x"), id) == Departure::Absent));
            assert_eq!(table.disconnect(&code("x"), id), Departure::Waiting("new"));
        }
    }

    #[test]
    fn newcomer_without_room_to_wait_ends_no_pair() {
        let now = Instant::now();
        let (mut table, ids) = named_pair(now);
        assert_eq!(come(&mut table, "new", "side=a", Some(Room::Wait), now).0, Err(Refusal::Full));
        assert_eq!(pair(&table, "x"), Some([(ids[0], "A"), (ids[1], "B")]));
        assert_eq!((table.codes(), table.waiting()), (1, 0));
    }

    #[test]
    fn other_sides_replace_no_one() {
        let now = Instant::now();
        let (mut table, _) = named_pair(now);
        for side in ["side=c", "side=A", ""] {
            assert_eq!(come(&mut table, "C", side, None, now), (Err(Refusal::Occupied), None), "{side}");
        }
        for [first, second] in [["", ""], ["side=a", ""], ["", "side=a"], ["side=a", "side=b"]] {
            let mut table = PairTable::new(TTL);
            let _ = come(&mut table, "A", first, None, now).0.unwrap();
            assert!(matches!(come(&mut table, "B", second, None, now), (Ok(Admission::Paired { .. }), None)));
        }
    }

    #[test]
    fn side_is_told_from_that_at_another_code() {
        let now = Instant::now();
        let (table, [a, _]) = named_pair(now);
        let side = |name| SideId::from_target(&format!("/?side={name}")).unwrap();
        assert_eq!(table.seat_of(&code("x"), side("a").as_ref()).map(|seated| seated.id), Some(a));
        for (at, side) in [("x", side("c")), ("x", None), ("y", side("a"))] {
            assert_eq!(table.seat_of(&code(at), side.as_ref()), None);
        }
    }
}
