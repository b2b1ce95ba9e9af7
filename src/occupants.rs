//! Who has a seat, to be asked whether they are still there when somebody else wants it.
//!
//! Each of the two is asked once, and each answers or departs, which ends its part of the question; whoever asked hears
//! when both have. Those who have not after a while are lost.

use std::collections::HashMap;
use std::task::Waker;

use crate::pair_table::ConnId;
use crate::stop::{Stop, StopOnDrop, stop};

/// How many pairs may be asked at a time. More thirds are refused without a question.
const QUESTIONS: usize = 256;

/// An answer that is owed.
#[derive(Debug)]
struct Debt {
    /// To which question.
    number: u64,
    /// Tells of the answer by its drop.
    _asker: StopOnDrop,
    /// Whether it is owed for too long.
    is_overdue: bool,
}

/// What an occupant is asked, or told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Question {
    /// Whether its client is there.
    IsThere,
    /// Nothing more: it has not answered.
    Lost,
}

/// A question to both sides of a pair.
#[derive(Debug)]
pub(crate) struct Asked {
    /// Which question it is: the next one may be asked before this one is [ended](Occupants::end).
    number: u64,
    sides: [ConnId; 2],
}

/// All who have a seat. What wakes or drops something is returned, for when nothing is locked any more.
#[derive(Debug, Default)]
pub(crate) struct Occupants {
    /// All of them, and what wakes the task of each, once it runs.
    tasks: HashMap<ConnId, Option<Waker>>,
    /// The answers that they owe. Few do, and the map of all is large enough.
    debts: HashMap<ConnId, Debt>,
    /// How many questions there are, and have been.
    questions: usize,
    issued: u64,
}

impl Occupants {
    pub(crate) fn come(&mut self, id: ConnId) {
        self.tasks.insert(id, None);
    }

    /// Whatever it was asked, its absence is an answer.
    #[must_use]
    pub(crate) fn go(&mut self, id: ConnId) -> Option<impl Sized + use<>> {
        Some((self.tasks.remove(&id)?, self.debts.remove(&id)))
    }

    /// Says what wakes an occupant.
    pub(crate) fn attend(&mut self, id: ConnId, task: Waker) {
        if let Some(known) = self.tasks.get_mut(&id) {
            *known = Some(task);
        }
    }

    /// Asks both sides of a pair, unless they are being asked or too many others are. The signal is given when both have
    /// answered.
    #[must_use]
    pub(crate) fn ask(&mut self, sides: [ConnId; 2]) -> Option<(Asked, Stop, Vec<Waker>)> {
        if self.questions >= QUESTIONS || sides.iter().any(|id| self.debts.contains_key(id)) {
            return None;
        }
        self.questions += 1;
        self.issued += 1;
        let number = self.issued;
        let (asked, answered) = stop();
        let mut tasks = Vec::new();
        for id in sides {
            if let Some(task) = self.tasks.get(&id) {
                self.debts.insert(id, Debt { number, _asker: asked.clone(), is_overdue: false });
                tasks.extend(task.clone());
            }
        }
        Some((Asked { number, sides }, answered, tasks))
    }

    /// How many questions there have been.
    pub(crate) fn questions_asked(&self) -> u64 {
        self.issued
    }

    /// What an occupant has not answered yet.
    pub(crate) fn question(&self, id: ConnId) -> Option<Question> {
        Some(if self.debts.get(&id)?.is_overdue { Question::Lost } else { Question::IsThere })
    }

    /// Its client is there. An answer that comes too late changes nothing.
    #[must_use]
    pub(crate) fn answer(&mut self, id: ConnId) -> Option<impl Sized + use<>> {
        self.settle(id, |debt| !debt.is_overdue)
    }

    /// Takes those for lost who have not answered this question. Returns who they are.
    #[must_use]
    pub(crate) fn give_up(&mut self, asked: &Asked) -> Vec<(ConnId, Option<Waker>)> {
        let mut lost = Vec::new();
        for id in asked.sides {
            if let Some(debt) = self.debts.get_mut(&id)
                && debt.number == asked.number
            {
                debt.is_overdue = true;
                lost.push((id, self.tasks.get(&id).cloned().flatten()));
            }
        }
        lost
    }

    /// Nobody waits for an answer to this question any more.
    #[must_use]
    pub(crate) fn end(&mut self, asked: &Asked) -> [Option<impl Sized + use<>>; 2] {
        self.questions -= 1;
        asked.sides.map(|id| self.settle(id, |debt| debt.number == asked.number && !debt.is_overdue))
    }

    fn settle(&mut self, id: ConnId, is_it: impl FnOnce(&Debt) -> bool) -> Option<Debt> {
        if is_it(self.debts.get(&id)?) { self.debts.remove(&id) } else { None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pair_code::PairCode;
    use crate::pair_table::{Admission, Capacity, PairTable};
    use futures_lite::future::{block_on, poll_once};
    use std::time::{Duration, Instant};

    /// So many pairs, and all of them are here.
    fn pairs(count: usize) -> (Occupants, Vec<[ConnId; 2]>) {
        let (mut table, mut occupants) =
            (PairTable::new(Duration::ZERO, Capacity { codes: count, waiting: count }), Occupants::default());
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
    fn a_question_is_over_when_both_have_answered_or_are_gone() {
        let (mut occupants, pairs) = pairs(1);
        let [a, b] = pairs[0];
        for leaves in [false, true] {
            assert_eq!(occupants.question(a), None);
            let (asked, mut answered, _) = occupants.ask([a, b]).unwrap();
            assert_eq!([a, b].map(|id| occupants.question(id)), [Some(Question::IsThere); 2]);
            assert!(occupants.ask([a, b]).is_none(), "they are being asked");
            drop(occupants.answer(a));
            assert!(!is_settled(&mut answered) && occupants.question(a).is_none());
            match leaves {
                true => drop(occupants.go(b)),
                false => drop(occupants.answer(b)),
            }
            assert!(is_settled(&mut answered));
            assert!(occupants.give_up(&asked).is_empty());
            drop(occupants.end(&asked));
        }
        assert_eq!(occupants.questions_asked(), 2);
        assert!(occupants.go(b).is_none() && occupants.go(a).is_some());
    }

    #[test]
    fn who_has_not_answered_is_lost_and_stays_so() {
        let (mut occupants, pairs) = pairs(1);
        let [a, b] = pairs[0];
        let (asked, _answered, _) = occupants.ask([a, b]).unwrap();
        drop(occupants.answer(a));
        let lost: Vec<_> = occupants.give_up(&asked).into_iter().map(|(id, _)| id).collect();
        assert_eq!(lost, [b]);
        drop(occupants.answer(b));
        drop(occupants.end(&asked));
        assert_eq!([a, b].map(|id| occupants.question(id)), [None, Some(Question::Lost)], "it is too late");
    }

    #[test]
    fn the_end_of_a_question_ends_no_other() {
        let (mut occupants, pairs) = pairs(1);
        let [a, b] = pairs[0];
        let (first, _answered, _) = occupants.ask([a, b]).unwrap();
        [a, b].into_iter().for_each(|id| drop(occupants.answer(id)));
        let (second, _answered, _) = occupants.ask([a, b]).unwrap();
        assert!(occupants.give_up(&first).is_empty());
        drop(occupants.end(&first));
        assert_eq!(occupants.question(a), Some(Question::IsThere));
        drop(occupants.end(&second));
        assert_eq!([a, b].map(|id| occupants.question(id)), [None; 2], "nobody waits for their answers");
    }

    #[test]
    fn so_many_are_asked_at_a_time_and_no_more() {
        let (mut occupants, pairs) = pairs(QUESTIONS + 1);
        let mut asked: Vec<_> = pairs[..QUESTIONS].iter().map(|&sides| occupants.ask(sides).unwrap()).collect();
        assert!(occupants.ask(pairs[QUESTIONS]).is_none());
        drop(occupants.end(&asked.pop().unwrap().0));
        assert!(occupants.ask(pairs[QUESTIONS]).is_some());
        assert!(occupants.ask(pairs[QUESTIONS - 1]).is_none());
    }

    #[test]
    fn who_runs_is_woken_and_who_is_not_here_is_not_asked() {
        let (mut occupants, pairs) = pairs(1);
        let [a, b] = pairs[0];
        occupants.attend(a, Waker::noop().clone());
        drop(occupants.go(b));
        occupants.attend(b, Waker::noop().clone());
        let (asked, _answered, tasks) = occupants.ask([a, b]).unwrap();
        assert_eq!((tasks.len(), occupants.question(b)), (1, None));
        let lost = occupants.give_up(&asked);
        assert!(matches!(lost[..], [(id, Some(_))] if id == a));
    }
}
