//! The occupants of seats, as takeover probes and newcomers with the same side identity see them.
//!
//! A third client comes with the code of a pair, and both clients of the pair are asked for a sign of life. Each of them
//! answers or departs, which ends its part of the probe. The prober is told when both parts have ended.
//!
//! An occupant decides by itself when its client has been silent for too long, and departs. A probe takes no seat from it.
//!
//! A newcomer with the side identity of an occupant has its place in the table already. The occupant is told, and departs.

use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};

use futures_lite::FutureExt;

use crate::limits::permits::{Permit, Permits};
use crate::pairing::join::Join;
use crate::pairing::pair_code::PairCode;
use crate::pairing::pair_table::HasSide;
use crate::pairing::side_id::SideId;
use crate::runtime::clock::Sleep;
use crate::runtime::stop::{Stop, StopOnDrop, stop};
use crate::runtime::sync::atomic::{
    AtomicU8, AtomicU64,
    Ordering::{self, Relaxed},
};
use crate::runtime::sync::{Mutex, lock, with_lock};

/// The most pairs that are probed at a time. Further third clients are refused without a probe.
const MOST_PROBES: usize = 256;

/// How long an answer counts.
///
/// A flood of third clients costs an occupant one ping in this time, which spares the battery of a phone.
const ANSWER_COUNTS: Duration = Duration::from_secs(1);

/// The client that has a seat. The seat and the table share it.
#[derive(Debug)]
pub(crate) struct Occupant {
    /// The code of the seat, by which the table finds it.
    code: PairCode,
    /// The identity by which a newcomer finds it.
    side: Option<SideId>,
    /// [`ASKED`] and [`REPLACED`]. Each step of the connection looks at this, so it is outside of the lock.
    ///
    /// It is changed within the lock.
    calls: AtomicU8,
    state: Mutex<OccupantState>,
}

/// An answer to a takeover probe is owed.
const ASKED: u8 = 1;

/// A newcomer has the place of the occupant.
const REPLACED: u8 = 2;

#[derive(Debug, Default)]
struct OccupantState {
    /// The waker of the connection's task, once it runs.
    task: Option<Waker>,
    /// The part of a probe. Boxed, as few occupants are ever asked.
    part: Option<Box<ProbePart>>,
}

/// An occupant's part of a probe.
#[derive(Debug)]
enum ProbePart {
    /// An answer is owed to the probe of this number. The drop of the signal tells the prober.
    Owed { number: u64, _told: StopOnDrop },
    /// The occupant has answered at this time.
    Answered(Instant),
}

impl Occupant {
    /// An occupant of the seat that it asked for.
    pub(crate) fn new(join: Join) -> Arc<Self> {
        let Join { code, side, .. } = join;
        Arc::new(Self { code, side, calls: AtomicU8::default(), state: Mutex::default() })
    }

    pub(crate) fn code(&self) -> &PairCode {
        &self.code
    }

    /// Sets the waker of the connection's task.
    pub(crate) fn attend(&self, task: Waker) {
        with_lock(&self.state, |state| state.task.replace(task));
    }

    /// Whether anything is wanted of the connection.
    pub(crate) fn is_called(&self) -> bool {
        self.calls.load(Ordering::Acquire) != 0
    }

    /// Whether a takeover probe waits for an answer.
    pub(crate) fn is_asked(&self) -> bool {
        self.calls.load(Ordering::Acquire) & ASKED != 0
    }

    /// Whether a newcomer has its place, so that it has to depart.
    pub(crate) fn is_replaced(&self) -> bool {
        self.calls.load(Ordering::Acquire) & REPLACED != 0
    }

    /// Tells the connection that a newcomer has its place.
    ///
    /// A task that begins later looks by itself.
    pub(crate) fn replace(&self) {
        let task = with_lock(&self.state, |state| {
            self.calls.fetch_or(REPLACED, Ordering::Release);
            state.task.clone()
        });
        if let Some(task) = task {
            task.wake();
        }
    }

    /// Answers a takeover probe, if there is one: the client is there.
    pub(crate) fn answer(&self, now: Instant) {
        self.end_part(|_| true, Some(ProbePart::Answered(now)));
    }

    /// Ends everything, as the seat is free: an absent occupant owes no answer.
    pub(crate) fn depart(&self) {
        self.end_part(|_| true, None);
        with_lock(&self.state, |state| state.task.take());
    }

    /// Asks for an answer, and returns the task that is to be woken for it.
    fn ask(&self, number: u64, told: StopOnDrop) -> Option<Waker> {
        let mut state = lock(&self.state);
        state.part = Some(Box::new(ProbePart::Owed { number, _told: told }));
        self.calls.fetch_or(ASKED, Ordering::Release);
        state.task.clone()
    }

    /// Ends the part of a probe in which an answer is owed, if it is one of these.
    fn end_part(&self, is_it: impl FnOnce(u64) -> bool, then: Option<ProbePart>) {
        with_lock(&self.state, |state| match state.part.as_deref() {
            Some(ProbePart::Owed { number, .. }) if is_it(*number) => {
                self.calls.fetch_and(!ASKED, Ordering::Release);
                std::mem::replace(&mut state.part, then.map(Box::new))
            }
            _ => None,
        });
    }

    /// Whether the occupant has answered a moment ago.
    fn has_answered(&self, now: Instant) -> bool {
        match lock(&self.state).part.as_deref() {
            Some(ProbePart::Answered(at)) => now < *at + ANSWER_COUNTS,
            _ => false,
        }
    }
}

impl HasSide for Arc<Occupant> {
    fn side(&self) -> Option<&SideId> {
        self.side.as_ref()
    }
}

/// The takeover probes of a relay.
#[derive(Debug)]
pub(crate) struct Probes {
    /// For the probes that may run at a time, divided among the shards.
    permits: Permits,
    begun: AtomicU64,
}

impl Probes {
    /// No probes yet, of pairs in this many shards.
    pub(crate) fn new(shards: usize) -> Self {
        Self { permits: Permits::new(MOST_PROBES, shards), begun: AtomicU64::new(0) }
    }

    /// Asks the sides of a pair that have not answered a moment ago.
    ///
    /// It returns the tasks that are to be woken for it. None if both have answered a moment ago, if they are being asked,
    /// or if too many other pairs are.
    ///
    /// The caller has locked the pair's shard. So no other probe of the pair begins, and none of the sides has departed.
    pub(crate) fn begin(
        &self,
        shard: usize,
        pair: [&Arc<Occupant>; 2],
        now: Instant,
    ) -> Option<(TakeoverProbe, Vec<Waker>)> {
        let is_running = pair.iter().any(|occupant| occupant.is_asked());
        let silent: Vec<_> = pair.into_iter().filter(|occupant| !occupant.has_answered(now)).collect();
        if is_running || silent.is_empty() {
            return None;
        }
        let permit = self.permits.take(shard)?;
        let number = self.begun.fetch_add(1, Relaxed) + 1;
        let (told, answered) = stop();
        let tasks = silent.iter().filter_map(|occupant| occupant.ask(number, told.clone())).collect();
        Some((TakeoverProbe { number, pair: pair.map(Arc::clone), answered, _permit: permit }, tasks))
    }

    /// The number of probes so far.
    pub(crate) fn begun(&self) -> u64 {
        self.begun.load(Relaxed)
    }
}

/// A takeover probe, for as long as a third client waits for its answers.
#[derive(Debug)]
pub(crate) struct TakeoverProbe {
    /// The number of the probe. The next one of the pair may begin before this one is dropped.
    number: u64,
    pair: [Arc<Occupant>; 2],
    answered: Stop,
    _permit: Permit,
}

impl TakeoverProbe {
    /// Waits until both sides have answered or departed, or until the time is over.
    pub(crate) async fn settle(mut self, over: Sleep) {
        self.answered.wait().or(over).await;
    }
}

impl Drop for TakeoverProbe {
    fn drop(&mut self) {
        for occupant in &self.pair {
            occupant.end_part(|number| number == self.number, None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_lite::future::{block_on, poll_once};

    type Pair = [Arc<Occupant>; 2];

    fn pair() -> Pair {
        [(); 2].map(|()| Occupant::new(Join::from_target("/?pair=x").unwrap()))
    }

    fn begin(probes: &Probes, pair: &Pair, now: Instant) -> Option<TakeoverProbe> {
        probes.begin(0, pair.each_ref(), now).map(|(probe, _)| probe)
    }

    fn is_asked(pair: &Pair) -> [bool; 2] {
        pair.each_ref().map(|occupant| occupant.is_asked())
    }

    fn is_settled(probe: &mut TakeoverProbe) -> bool {
        block_on(poll_once(probe.answered.wait())).is_some()
    }

    #[test]
    fn probe_settles_when_both_sides_have_answered_or_departed() {
        let (probes, pair, mut now) = (Probes::new(1), pair(), Instant::now());
        for departs in [false, true] {
            now += ANSWER_COUNTS;
            assert_eq!(is_asked(&pair), [false; 2]);
            let mut probe = begin(&probes, &pair, now).unwrap();
            assert_eq!(is_asked(&pair), [true; 2]);
            assert!(begin(&probes, &pair, now).is_none(), "they are being asked");
            pair[0].answer(now);
            assert!(!is_settled(&mut probe));
            assert_eq!(is_asked(&pair), [false, true]);
            match departs {
                true => pair[1].depart(),
                false => pair[1].answer(now),
            }
            assert!(is_settled(&mut probe));
            assert_eq!(is_asked(&pair), [false; 2]);
        }
        assert_eq!(probes.begun(), 2);
    }

    #[test]
    fn answer_counts_for_a_second() {
        let (probes, pair, now) = (Probes::new(1), pair(), Instant::now());
        let probe = begin(&probes, &pair, now).unwrap();
        pair[0].answer(now);
        drop(probe);
        // The other side has not answered, and is asked alone.
        let soon = now + ANSWER_COUNTS - Duration::from_nanos(1);
        let mut probe = begin(&probes, &pair, soon).unwrap();
        assert_eq!(is_asked(&pair), [false, true]);
        pair[1].answer(soon);
        assert!(is_settled(&mut probe));
        drop(probe);
        assert!(begin(&probes, &pair, soon).is_none(), "both have just answered");
        let _probe = begin(&probes, &pair, now + ANSWER_COUNTS).unwrap();
        assert_eq!(is_asked(&pair), [true, false]);
    }

    #[test]
    fn end_of_a_probe_withdraws_its_own_questions_only() {
        let (probes, pair, now) = (Probes::new(1), pair(), Instant::now());
        let first = begin(&probes, &pair, now).unwrap();
        pair.iter().for_each(|occupant| occupant.answer(now));
        let second = begin(&probes, &pair, now + ANSWER_COUNTS).unwrap();
        drop(first);
        assert_eq!(is_asked(&pair), [true; 2]);
        drop(second);
        assert_eq!(is_asked(&pair), [false; 2]);
        pair[0].answer(now + ANSWER_COUNTS);
        let _probe = begin(&probes, &pair, now + ANSWER_COUNTS).unwrap();
        assert_eq!(is_asked(&pair), [true; 2], "an answer to no question does not count");
    }

    #[test]
    fn number_of_probes_at_a_time_is_limited() {
        let (probes, now) = (Probes::new(1), Instant::now());
        let pairs: Vec<Pair> = (0..=MOST_PROBES).map(|_| pair()).collect();
        let mut running: Vec<_> = pairs[..MOST_PROBES].iter().map(|pair| begin(&probes, pair, now).unwrap()).collect();
        assert!(begin(&probes, &pairs[MOST_PROBES], now).is_none());
        drop(running.pop());
        running.extend(begin(&probes, &pairs[MOST_PROBES], now));
        assert!(begin(&probes, &pairs[MOST_PROBES - 1], now).is_none());
        assert_eq!(running.len(), MOST_PROBES);
    }

    #[test]
    fn probe_returns_the_tasks_that_attend() {
        let (probes, pair) = (Probes::new(1), pair());
        pair[1].attend(Waker::noop().clone());
        let (_probe, tasks) = probes.begin(0, pair.each_ref(), Instant::now()).unwrap();
        assert_eq!(tasks.len(), 1);
        assert_eq!(is_asked(&pair), [true; 2], "a task that begins later looks by itself");
    }
}
