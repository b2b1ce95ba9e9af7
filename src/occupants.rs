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
