//! The occupants of seats, for takeover probes: a third client comes with the code of a pair, and both clients of the pair are
//! asked whether they are there.
//!
//! Each of the two is asked once, and each answers or departs, which ends its part of the probe. The prober is told when both
//! have. An occupant decides by itself when it has been silent for too long, and departs; a probe takes no seat from it.

use std::collections::HashMap;
use std::task::Waker;
use std::time::{Duration, Instant};

use crate::pairing::pair_table::ConnId;
use crate::runtime::stop::{Stop, StopOnDrop, stop};

/// The most pairs that are probed at a time. Further third clients are refused without a probe.
const PROBES: usize = 256;

/// How long an answer counts. A flood of third clients costs an occupant one ping in this time, which spares the battery of a
/// phone.
const ANSWER_COUNTS: Duration = Duration::from_secs(1);

/// An answer that is owed.
#[derive(Debug)]
struct Debt {
    /// The probe that it is owed to.
    number: u64,
    /// Tells the prober of the answer by its drop.
    _asker: StopOnDrop,
}

/// A probe of both sides of a pair.
#[derive(Debug)]
pub(crate) struct Asked {
    /// The number of the probe: the next one may begin before this one is [ended](Occupants::end).
    number: u64,
    sides: [ConnId; 2],
}

/// All occupants. What wakes or drops something is returned, for when nothing is locked any more.
#[derive(Debug, Default)]
pub(crate) struct Occupants {
    /// The waker of each one's task, once it runs.
    tasks: HashMap<ConnId, Option<Waker>>,
    /// The answers that they owe. Few do, and the map of all is large enough.
    debts: HashMap<ConnId, Debt>,
    /// When an occupant has answered last, if it was ever asked.
    answers: HashMap<ConnId, Instant>,
    /// Probes that have not ended, and all that have begun.
    probes: usize,
    issued: u64,
}

impl Occupants {
    pub(crate) fn come(&mut self, id: ConnId) {
        self.tasks.insert(id, None);
    }

    /// Takes an occupant out. Its absence answers whatever it was asked.
    #[must_use]
    pub(crate) fn go(&mut self, id: ConnId) -> Option<impl Sized + use<>> {
        self.answers.remove(&id);
        Some((self.tasks.remove(&id)?, self.debts.remove(&id)))
    }

    /// Notes the waker of an occupant's task.
    pub(crate) fn attend(&mut self, id: ConnId, task: Waker) {
        if let Some(known) = self.tasks.get_mut(&id) {
            *known = Some(task);
        }
    }

    /// Asks those sides of a pair that have not answered a moment ago. The signal is given when all of them have answered. None
    /// if both have answered a moment ago, if they are being asked, or if too many others are.
    #[must_use]
    pub(crate) fn ask(&mut self, sides: [ConnId; 2], now: Instant) -> Option<(Asked, Stop, Vec<Waker>)> {
        let has_answered = |id: &ConnId| self.answers.get(id).is_some_and(|&at| now < at + ANSWER_COUNTS);
        if self.probes >= PROBES || sides.iter().any(|id| self.debts.contains_key(id)) || sides.iter().all(has_answered)
        {
            return None;
        }
        let asked_sides: Vec<_> = sides.into_iter().filter(|id| !has_answered(id)).collect();
        self.probes += 1;
        self.issued += 1;
        let number = self.issued;
        let (asker, answered) = stop();
        let mut tasks = Vec::new();
        for id in asked_sides {
            if let Some(task) = self.tasks.get(&id) {
                self.debts.insert(id, Debt { number, _asker: asker.clone() });
                tasks.extend(task.clone());
            }
        }
        Some((Asked { number, sides }, answered, tasks))
    }

    /// The number of probes so far.
    pub(crate) fn probes_so_far(&self) -> u64 {
        self.issued
    }

    /// Whether an occupant owes an answer.
    pub(crate) fn is_asked(&self, id: ConnId) -> bool {
        self.debts.contains_key(&id)
    }

    /// Notes that an occupant's client is there.
    #[must_use]
    pub(crate) fn answer(&mut self, id: ConnId, now: Instant) -> Option<impl Sized + use<>> {
        let debt = self.debts.remove(&id)?;
        self.answers.insert(id, now);
        Some(debt)
    }

    /// Ends a probe. Nothing waits for its answers any more.
    #[must_use]
    pub(crate) fn end(&mut self, asked: &Asked) -> [Option<impl Sized + use<>>; 2] {
        self.probes -= 1;
        asked.sides.map(|id| if self.debts.get(&id)?.number == asked.number { self.debts.remove(&id) } else { None })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pairing::pair_code::PairCode;
    use crate::pairing::pair_table::{Admission, PairTable, TableLimits};
    use futures_lite::future::{block_on, poll_once};

    /// So many pairs, all of whose sides are occupants.
    fn pairs(count: usize) -> (Occupants, Vec<[ConnId; 2]>) {
        let (mut table, mut occupants) =
            (PairTable::new(Duration::ZERO, TableLimits { codes: count, waiting: count }), Occupants::default());
        let mut enter = |code: &str| match table.connect(PairCode::from_target(code).unwrap(), (), Instant::now()) {
            Ok(Admission::Waiting { id, .. } | Admission::Paired { id, .. }) => id,
            Err(refusal) => panic!("{refusal:?}"),
        };
        let pairs: Vec<_> = (0..count).map(|code| [0, 1].map(|_| enter(&format!("/?pair={code}")))).collect();
        pairs.iter().flatten().for_each(|&id| occupants.come(id));
        (occupants, pairs)
    }

    fn is_settled(answered: &mut Stop) -> bool {
        block_on(poll_once(answered.wait())).is_some()
    }

    #[test]
    fn a_probe_is_over_when_both_have_answered_or_are_gone() {
        let (mut occupants, pairs) = pairs(1);
        let ([a, b], mut now) = (pairs[0], Instant::now());
        for leaves in [false, true] {
            now += ANSWER_COUNTS;
            assert!(!occupants.is_asked(a));
            let (asked, mut answered, _) = occupants.ask([a, b], now).unwrap();
            assert_eq!([a, b].map(|id| occupants.is_asked(id)), [true; 2]);
            assert!(occupants.ask([a, b], now).is_none(), "they are being asked");
            drop(occupants.answer(a, now));
            assert!(!is_settled(&mut answered) && !occupants.is_asked(a));
            match leaves {
                true => drop(occupants.go(b)),
                false => drop(occupants.answer(b, now)),
            }
            assert!(is_settled(&mut answered));
            drop(occupants.end(&asked));
        }
        assert_eq!(occupants.probes_so_far(), 2);
        assert!(occupants.go(b).is_none() && occupants.go(a).is_some());
        assert!(occupants.answers.is_empty(), "nothing is left of them");
    }

    #[test]
    fn an_answer_counts_for_a_second() {
        let (mut occupants, pairs) = pairs(1);
        let ([a, b], now) = (pairs[0], Instant::now());
        let (asked, _answered, _) = occupants.ask([a, b], now).unwrap();
        drop(occupants.answer(a, now));
        drop(occupants.end(&asked));
        // The other one has not answered, and is asked alone.
        let soon = now + ANSWER_COUNTS - Duration::from_nanos(1);
        let (asked, mut answered, _) = occupants.ask([a, b], soon).unwrap();
        assert_eq!([a, b].map(|id| occupants.is_asked(id)), [false, true]);
        drop(occupants.answer(b, soon));
        assert!(is_settled(&mut answered));
        drop(occupants.end(&asked));
        assert!(occupants.ask([a, b], soon).is_none(), "both have just answered");
        let (asked, ..) = occupants.ask([a, b], now + ANSWER_COUNTS).unwrap();
        assert_eq!([a, b].map(|id| occupants.is_asked(id)), [true, false]);
        drop(occupants.end(&asked));
    }

    #[test]
    fn the_end_of_a_probe_ends_no_other() {
        let (mut occupants, pairs) = pairs(1);
        let ([a, b], now) = (pairs[0], Instant::now());
        let (first, _answered, _) = occupants.ask([a, b], now).unwrap();
        [a, b].into_iter().for_each(|id| drop(occupants.answer(id, now)));
        let (second, _answered, _) = occupants.ask([a, b], now + ANSWER_COUNTS).unwrap();
        drop(occupants.end(&first));
        assert!(occupants.is_asked(a));
        drop(occupants.end(&second));
        assert_eq!([a, b].map(|id| occupants.is_asked(id)), [false; 2], "nothing waits for their answers");
    }

    #[test]
    fn so_many_pairs_are_probed_at_a_time_and_no_more() {
        let ((mut occupants, pairs), now) = (pairs(PROBES + 1), Instant::now());
        let mut asked: Vec<_> = pairs[..PROBES].iter().map(|&sides| occupants.ask(sides, now).unwrap()).collect();
        assert!(occupants.ask(pairs[PROBES], now).is_none());
        drop(occupants.end(&asked.pop().unwrap().0));
        assert!(occupants.ask(pairs[PROBES], now).is_some());
        assert!(occupants.ask(pairs[PROBES - 1], now).is_none());
    }

    #[test]
    fn a_task_that_runs_is_woken_and_an_absent_occupant_is_not_asked() {
        let (mut occupants, pairs) = pairs(1);
        let [a, b] = pairs[0];
        occupants.attend(a, Waker::noop().clone());
        drop(occupants.go(b));
        occupants.attend(b, Waker::noop().clone());
        let (_asked, _answered, tasks) = occupants.ask([a, b], Instant::now()).unwrap();
        assert_eq!((tasks.len(), occupants.is_asked(b)), (1, false));
    }
}
