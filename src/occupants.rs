//! Who has a seat, to be asked whether they are still there when somebody else wants it.
//!
//! Each of the two is asked once, and each answers or departs, which ends its part of the question; whoever asked hears
//! when both have. Those who have not after a while are lost.

use std::collections::HashMap;
use std::task::Waker;

use crate::pair_table::ConnId;
use crate::stop::{Stop, StopOnDrop, stop};

/// How many pairs may be asked at a time. More are refused without a question, which is what happened to them before.
const QUESTIONS: usize = 64;

/// Somebody who has a seat.
#[derive(Debug, Default)]
struct Occupant {
    /// What wakes its task, once it runs.
    task: Option<Waker>,
    /// The question that it owes an answer to, and what tells of the answer by its drop.
    asked: Option<(u64, StopOnDrop)>,
    /// It owed an answer for too long.
    lost: bool,
}

impl Occupant {
    fn owes(&self, question: &Asked) -> bool {
        self.asked.as_ref().is_some_and(|(number, _)| *number == question.number)
    }
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
    occupants: HashMap<ConnId, Occupant>,
    /// How many questions there are, and have been.
    questions: usize,
    issued: u64,
}

impl Occupants {
    pub(crate) fn come(&mut self, id: ConnId) {
        self.occupants.insert(id, Occupant::default());
    }

    /// Whatever it was asked, its absence is an answer.
    #[must_use]
    pub(crate) fn go(&mut self, id: ConnId) -> Option<impl Sized + use<>> {
        self.occupants.remove(&id)
    }

    /// Says what wakes an occupant.
    pub(crate) fn attend(&mut self, id: ConnId, task: Waker) {
        if let Some(occupant) = self.occupants.get_mut(&id) {
            occupant.task = Some(task);
        }
    }

    /// Asks both sides of a pair, unless they are being asked or too many others are. The signal is given when both have
    /// answered.
    #[must_use]
    pub(crate) fn ask(&mut self, sides: [ConnId; 2]) -> Option<(Asked, Stop, Vec<Waker>)> {
        let is_asked = |id| self.occupants.get(&id).is_some_and(|occupant| occupant.asked.is_some());
        if self.questions >= QUESTIONS || sides.into_iter().any(is_asked) {
            return None;
        }
        self.questions += 1;
        self.issued += 1;
        let number = self.issued;
        let (asked, answered) = stop();
        let mut tasks = Vec::new();
        for id in sides {
            if let Some(occupant) = self.occupants.get_mut(&id) {
                occupant.asked = Some((number, asked.clone()));
                tasks.extend(occupant.task.clone());
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
        match self.occupants.get(&id)? {
            Occupant { lost: true, .. } => Some(Question::Lost),
            Occupant { asked: Some(_), .. } => Some(Question::IsThere),
            _ => None,
        }
    }

    /// Its client is there.
    #[must_use]
    pub(crate) fn answer(&mut self, id: ConnId) -> Option<impl Sized + use<>> {
        self.occupants.get_mut(&id)?.asked.take()
    }

    /// Takes those for lost who have not answered this question. Returns who they are.
    #[must_use]
    pub(crate) fn give_up(&mut self, asked: &Asked) -> Vec<(ConnId, Option<Waker>)> {
        let mut lost = Vec::new();
        for id in asked.sides {
            if let Some(occupant) = self.occupants.get_mut(&id)
                && occupant.owes(asked)
            {
                occupant.lost = true;
                lost.push((id, occupant.task.clone()));
            }
        }
        lost
    }

    /// Nobody waits for an answer to this question any more.
    #[must_use]
    pub(crate) fn end(&mut self, asked: &Asked) -> [Option<impl Sized + use<>>; 2] {
        self.questions -= 1;
        asked.sides.map(|id| self.occupants.get_mut(&id).filter(|occupant| occupant.owes(asked))?.asked.take())
    }
}
