//! A driver that only does what wakers and timers allow.
//!
//! A waiter that is neither woken nor has a timer never asks again, so a lost wake-up shows as a wait without an end.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;

const RATE: u64 = 1 << 20;

/// The time of a portion.
const TIME: Duration = PORTION;

/// A side of a pair.
#[derive(Clone, Debug)]
struct Side {
    pair: FlowKey,
    number: Option<QueueNumber>,
    timer: Option<Instant>,
    /// The bytes that it wants to send, and since when.
    wants: u64,
    since: Instant,
    /// Whether it sends text, all of which is dropped.
    text: bool,
    /// The bytes that have passed.
    sent: u64,
    /// The longest wait of a portion.
    longest: Duration,
}

struct Driver {
    queue: FairQueue<usize>,
    begin: Instant,
    now: Instant,
    sides: Vec<Side>,
    woken: VecDeque<usize>,
}

impl Driver {
    fn new() -> Self {
        let now = Instant::now();
        let queue = FairQueue::new(RATE.try_into().unwrap(), now);
        Self { queue, begin: now, now, sides: vec![], woken: VecDeque::new() }
    }

    fn portion(&self) -> u64 {
        self.queue.portion() as u64
    }

    /// A side that is alone, or one of a pair.
    fn enter(&mut self, is_alone: bool, text: bool) -> usize {
        let pair = self.queue.open();
        if !is_alone {
            self.queue.meet(pair);
        }
        let (timer, since, longest) = (None, self.now, Duration::ZERO);
        self.sides.push(Side { pair, number: None, timer, wants: 0, since, text, sent: 0, longest });
        self.sides.len() - 1
    }

    fn wake_first(&mut self) {
        self.woken.extend(self.queue.arm());
    }

    fn want(&mut self, side: usize, bytes: u64) {
        if self.sides[side].wants == 0 {
            self.sides[side].since = self.now;
        }
        self.sides[side].wants += bytes;
        self.ask(side);
    }

    fn leave(&mut self, side: usize) {
        self.sides[side].wants = 0;
        self.sides[side].timer = None;
        if let Some(number) = self.sides[side].number.take() {
            assert_eq!(self.queue.leave(self.sides[side].pair, number), Some(side));
        }
        self.wake_first();
    }

    fn meet(&mut self, side: usize) {
        self.queue.meet(self.sides[side].pair);
        self.wake_first();
    }

    fn ask(&mut self, side: usize) {
        let portion = self.portion();
        let Side { pair, number, timer, wants, .. } = &mut self.sides[side];
        if *wants == 0 {
            return;
        }
        *timer = None;
        match self.queue.ask(*pair, number, side, self.now) {
            Turn::At(until) => {
                assert!(until > self.now);
                *timer = Some(until);
            }
            Turn::Behind => {}
            Turn::Pass => {
                let (pair, bytes) = (*pair, portion.min(*wants));
                self.queue.spend(pair, bytes as usize, self.now);
                let side = &mut self.sides[side];
                side.wants -= bytes;
                side.sent += bytes;
                side.longest = side.longest.max(self.now - side.since);
                side.since = self.now;
                if side.text {
                    self.queue.weigh(pair, bytes);
                }
                if side.wants > 0 {
                    self.woken.push_back(self.sides.iter().position(|other| other.pair == pair).unwrap());
                }
            }
        }
        self.wake_first();
    }

    /// Goes on until no side is woken, and then to the next timer. False if there is none up to `end`.
    fn step(&mut self, end: Instant) -> bool {
        while let Some(side) = self.woken.pop_front() {
            self.ask(side);
        }
        self.check();
        let Some(next) = self.sides.iter().filter_map(|side| side.timer).min() else { return false };
        if next > end {
            self.now = end;
            return false;
        }
        self.now = next;
        for side in 0..self.sides.len() {
            if self.sides[side].timer == Some(next) {
                self.woken.push_back(side);
            }
        }
        true
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.step(end) {}
        self.now = end;
    }

    /// While anything waits, the first waiter has a timer and is the one that is armed.
    fn check(&self) {
        let waiters = self.sides.iter().filter(|side| side.number.is_some()).count();
        assert_eq!(waiters > 0, self.queue.first().is_some());
        assert_eq!(self.queue.armed, self.queue.first());
        if let Some(first) = self.queue.first() {
            let side = self.sides.iter().find(|side| side.number == Some(first)).expect("a waiter is a side");
            assert!(side.timer.is_some(), "it is first, and does not know it");
        }
        let listed: usize = self.queue.flows.iter().map(|(_, flow)| flow.waiters.len()).sum();
        assert_eq!(listed, waiters);
        let waiting = self.queue.flows.iter().filter(|(_, flow)| flow.since.is_some()).count();
        assert_eq!(self.queue.waiting.len(), waiting);
    }

    fn sent(&self) -> u64 {
        self.sides.iter().map(|side| side.sent).sum()
    }
}

#[derive(Clone, Debug)]
enum Step {
    Want(usize, u64),
    Leave(usize),
    Meet(usize),
    Pass(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => (0..100_usize, 1..20_000_u64).prop_map(|(side, bytes)| Step::Want(side, bytes)),
        2 => (0..100_usize).prop_map(Step::Leave),
        1 => (0..100_usize).prop_map(Step::Meet),
        4 => (0..100_u64).prop_map(Step::Pass),
    ];
    prop::collection::vec(step, 1..200)
}

proptest! {
    #[test]
    fn rate_is_kept_and_no_wake_up_is_lost(
        sides in prop::collection::vec((any::<bool>(), any::<bool>()), 1..12),
        steps in steps(),
    ) {
        let mut driver = Driver::new();
        for (is_alone, text) in sides {
            driver.enter(is_alone, text);
        }
        for step in steps {
            let nth = |side| side % driver.sides.len();
            match step {
                Step::Want(side, bytes) => driver.want(nth(side), bytes),
                Step::Leave(side) => driver.leave(nth(side)),
                Step::Meet(side) => driver.meet(nth(side)),
                Step::Pass(time) => driver.run(Duration::from_millis(time)),
            }
            let elapsed = (driver.now - driver.begin + BURST).as_secs_f64();
            prop_assert!(driver.sent() as f64 <= RATE as f64 * elapsed + driver.portion() as f64 + 1.0);
        }
        driver.run(Duration::from_secs(10));
        prop_assert!(driver.sides.iter().all(|side| side.wants == 0 && side.number.is_none()), "a wait without an end");
        // All tags are above the least that a flow comes back with, or were not used.
        for side in driver.sides.clone() {
            driver.queue.close(side.pair);
        }
        prop_assert!(driver.queue.waiting.is_empty() && driver.queue.flows.len() == 1);
    }

    #[test]
    fn backlogged_flows_have_equal_shares_within_a_portion(flows in 2..60_usize, time in 100..5000_u64) {
        let mut driver = Driver::new();
        let sides: Vec<_> = (0..flows).map(|_| driver.enter(false, false)).collect();
        sides.iter().for_each(|&side| driver.want(side, 1 << 40));
        driver.run(Duration::from_millis(time));
        let sent = driver.sides.iter().map(|side| side.sent);
        let (least, most) = (sent.clone().min().unwrap(), sent.max().unwrap());
        prop_assert!(most - least <= driver.portion(), "{least} and {most} bytes");
        // The rate is used up.
        let elapsed = Duration::from_millis(time).as_secs_f64();
        prop_assert!(driver.sent() as f64 >= RATE as f64 * elapsed - driver.portion() as f64);
    }

    #[test]
    fn sparse_flow_waits_for_other_sparse_flows_only(
        backlogged in 0..60_usize,
        sparse in 1..20_usize,
        bytes in 1..2000_u64,
        pauses in prop::collection::vec(0..5000_u64, 1..20),
    ) {
        let mut driver = Driver::new();
        for _ in 0..backlogged {
            let side = driver.enter(false, false);
            driver.want(side, 1 << 40);
        }
        driver.run(Duration::from_secs(1)); // at first each of them is a flow that has used nothing
        let sparse: Vec<_> = (0..sparse).map(|_| driver.enter(false, false)).collect();
        for pause in pauses {
            // Long enough for all of them to stay below their share, at any time.
            let shares = (backlogged + sparse.len()) as u64 * bytes * 1000 / RATE;
            driver.run(Duration::from_millis(2 * shares + pause));
            sparse.iter().for_each(|&side| driver.want(side, bytes));
        }
        driver.run(Duration::from_secs(1));
        for &side in &sparse {
            let Side { wants, longest, .. } = driver.sides[side];
            let most = TIME * (sparse.len() as u32 + 1);
            prop_assert!(wants == 0 && longest <= most, "it has waited for {longest:?}");
        }
    }

    #[test]
    fn sides_that_are_alone_have_one_share_and_text_has_an_eighth(alone in 1..100_usize, text: bool) {
        let mut driver = Driver::new();
        for _ in 0..alone {
            let side = driver.enter(true, text);
            driver.want(side, 1 << 40);
        }
        let pair = driver.enter(false, false);
        driver.want(pair, 1 << 40);
        driver.run(Duration::from_secs(20));
        let (of_pair, all) = (driver.sides[pair].sent as f64, driver.sent() as f64);
        let expected = if text { 8.0 / 9.0 } else { 0.5 };
        prop_assert!((of_pair / all - expected).abs() < 0.01, "{of_pair} of {all}");
    }
}

#[test]
fn side_leaves_the_flow_of_lone_sides_when_its_peer_comes() {
    let mut driver = Driver::new();
    for _ in 0..100 {
        let side = driver.enter(true, true);
        driver.want(side, 1 << 40);
    }
    let side = driver.enter(true, false);
    driver.want(side, 10);
    driver.run(TIME * 50);
    assert_eq!(driver.sides[side].sent, 0, "it is one of a hundred");
    driver.meet(side);
    driver.run(TIME);
    assert_eq!(driver.sides[side].sent, 10);
}

#[test]
fn lone_message_does_not_wait_while_others_are_backlogged() {
    let mut driver = Driver::new();
    for _ in 0..1000 {
        let side = driver.enter(false, false);
        driver.want(side, 1 << 40);
    }
    driver.run(Duration::from_secs(60));
    let pair = driver.enter(false, false);
    driver.want(pair, 100);
    assert_eq!(driver.sides[pair].sent, 100, "the reserve is for it");
}
