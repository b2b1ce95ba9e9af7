//! Start-time fair queueing for a rate that all clients share. [`FairQueue`] is pure: time is an argument.
//!
//! A flow is a pair, its two sides together. All sides that wait alone are one flow, so a thousand strangers without a
//! peer compete as one client.
//!
//! 1. Each flow has a tag: what it has used so far, in bytes. The waiting flow with the least tag is served next, and the
//!    virtual time is the tag of the flow that was served last.
//! 2. A flow that comes back after a pause goes on at the virtual time, less [one portion](FairQueue::portion): what it has
//!    not used before is lost, but for that. So a flow that uses less than its share is served before all backlogged flows.
//! 3. Within a flow the side that has waited longest is served first.
//! 4. At most [`BURST`] is owed, as what a read brings is paid for afterwards; backlogged flows use half of it. A flow that
//!    is ahead of the virtual time can use the other half, and mostly need not wait at all.
//! 5. Only the first waiter sets a timer. It takes its portion, pays for it, and wakes the waiter that is first then.
//! 6. Bytes of dropped text [weigh more](FairQueue::weigh) in the tag. They cost the rate no more than others.
//!
//! The rate itself is kept by a [`TokenBucket`]. `connection/throttle.rs` is the user of this file.

use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::{Duration, Instant};

use slab::Slab;

use crate::limits::token_bucket::{BURST, TokenBucket};

/// What a read takes at most, as time of the rate. A short message of a flow that is not backlogged waits for about so long.
const PORTION: Duration = Duration::from_millis(4);

/// What of the credit is left to flows that are ahead of the virtual time.
const RESERVE: Duration = Duration::from_millis(50);

/// What a byte of dropped text weighs. It reaches no peer, so text is slowed first.
const DROPPED_WEIGHT: u64 = 8;

/// A shared rate.
#[derive(Debug)]
pub(crate) struct FairRate(Mutex<FairQueue<Waker>>);

/// A pair's flow at a shared rate. Both sides hold it.
#[derive(Debug)]
pub(crate) struct Flow {
    rate: Arc<FairRate>,
    key: FlowKey,
}

impl FairRate {
    /// A rate in bytes per second.
    pub(crate) fn new(rate: NonZeroU64, now: Instant) -> Arc<Self> {
        Arc::new(Self(Mutex::new(FairQueue::new(rate, now))))
    }

    /// A new flow, which has one side at first.
    pub(crate) fn open(self: &Arc<Self>) -> Arc<Flow> {
        let key = self.lock().open();
        Arc::new(Flow { rate: Arc::clone(self), key })
    }

    fn lock(&self) -> MutexGuard<'_, FairQueue<Waker>> {
        // A panic in the queue would be a bug in it; it has no invariant that the next call could not restore.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the queue, and wakes the waiter that is first then.
    fn change<R>(&self, change: impl FnOnce(&mut FairQueue<Waker>) -> R) -> R {
        let mut queue = self.lock();
        let result = change(&mut queue);
        let first = queue.arm();
        drop(queue);
        if let Some(first) = first {
            first.wake(); // when nothing is locked any more
        }
        result
    }
}

impl Flow {
    /// How many bytes should pass at once at most.
    pub(crate) fn portion(&self) -> usize {
        self.rate.lock().portion()
    }

    /// The second side has come.
    pub(crate) fn meet(&self) {
        self.rate.change(|queue| queue.meet(self.key));
    }

    /// Asks for a portion. A side that has one has to [spend](Self::spend) it in the same step, be it 0 bytes.
    pub(crate) fn ask(&self, place: &mut Option<Place>, waker: &Waker, now: Instant) -> Answer {
        let mut queue = self.rate.lock();
        let answer = queue.ask(self.key, place, waker.clone(), now);
        // What passes is paid for first: until then it is open which waiter is the next one.
        let first = if answer == Answer::Pass { None } else { queue.arm() };
        drop(queue);
        if let Some(first) = first {
            first.wake(); // when nothing is locked any more
        }
        answer
    }

    /// Gives up the place in the queue.
    pub(crate) fn leave(&self, place: Place) {
        let waker = self.rate.change(|queue| queue.leave(self.key, place));
        drop(waker);
    }

    /// Leaves a portion unused, so that the next waiter has its turn.
    pub(crate) fn pass_on(&self) {
        self.rate.change(|_| {});
    }

    /// Pays for what has passed.
    pub(crate) fn spend(&self, bytes: usize, now: Instant) {
        self.rate.change(|queue| queue.spend(self.key, bytes, now));
    }

    /// So many of the bytes that have passed were dropped.
    pub(crate) fn weigh(&self, dropped: u64) {
        self.rate.change(|queue| queue.weigh(self.key, dropped));
    }
}

impl Drop for Flow {
    fn drop(&mut self) {
        self.rate.lock().close(self.key);
    }
}

/// Which flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct FlowKey(usize);

/// A waiter's or a flow's place among its like: a number that is never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place(u64);

/// Whether a portion may pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Now.
    Pass,
    /// The asker is first, and may ask again at this time.
    At(Instant),
    /// Others are first. The asker is woken when it is.
    Behind,
}

/// The flows, and what waits in each of them. `W` wakes a waiter.
#[derive(Debug)]
pub(crate) struct FairQueue<W> {
    budget: TokenBucket,
    virtual_time: u64,
    flows: Slab<State<W>>,
    /// The flow of all sides that are alone.
    alone: FlowKey,
    /// The flows that wait, by their tags. Of equal ones, the flow that began to wait first is first.
    waiting: BTreeMap<(u64, Place), FlowKey>,
    /// The waiter that knows that it is first.
    armed: Option<Place>,
    issued: u64,
}

/// What there is of a flow.
#[derive(Debug)]
struct State<W> {
    /// In bytes.
    tag: u64,
    /// Whether both sides have come.
    met: bool,
    /// In the order in which they came.
    waiters: BTreeMap<Place, W>,
    /// Where the flow is in [`FairQueue::waiting`], if it waits.
    since: Option<Place>,
    /// The side that waits in the flow of all that are alone.
    lone_waiter: Option<Place>,
}

impl<W> State<W> {
    fn new() -> Self {
        Self { tag: 0, met: false, waiters: BTreeMap::new(), since: None, lone_waiter: None }
    }
}

impl<W: Clone> FairQueue<W> {
    /// Nothing is owed at first. The rate is in bytes per second.
    pub(crate) fn new(rate: NonZeroU64, now: Instant) -> Self {
        let budget = TokenBucket::new(rate, PORTION, now);
        let mut flows = Slab::new();
        let alone = FlowKey(flows.insert(State::new()));
        // A first flow has a portion that it has not used, too.
        let virtual_time = budget.portion() as u64;
        Self { budget, virtual_time, flows, alone, waiting: BTreeMap::new(), armed: None, issued: 0 }
    }

    /// How many bytes should pass at once at most.
    pub(crate) fn portion(&self) -> usize {
        self.budget.portion()
    }

    /// A new pair's flow, one side of which has come.
    pub(crate) fn open(&mut self) -> FlowKey {
        FlowKey(self.flows.insert(State::new()))
    }

    /// Forgets a flow in which nothing waits.
    pub(crate) fn close(&mut self, flow: FlowKey) {
        let state = self.flows.remove(flow.0);
        debug_assert!(state.waiters.is_empty() && state.lone_waiter.is_none(), "a waiter has a flow");
    }

    /// The other side of this pair has come: what waits of it, waits in the pair's own flow from now on.
    pub(crate) fn meet(&mut self, flow: FlowKey) {
        self.flows[flow.0].met = true;
        if let Some(place) = self.flows[flow.0].lone_waiter.take()
            && let Some(waiter) = self.remove(self.alone, place)
        {
            self.insert(flow, place, waiter);
        }
    }

    /// Asks for a portion for a side of this pair. Unless it may pass, it has a place in the queue from then on.
    pub(crate) fn ask(&mut self, pair: FlowKey, place: &mut Option<Place>, waiter: W, now: Instant) -> Answer {
        let flow = self.flow_of(pair);
        let asker = *place.get_or_insert_with(|| self.next_place());
        self.insert(flow, asker, waiter);
        if flow == self.alone {
            self.flows[pair.0].lone_waiter = Some(asker);
        }
        if self.first() != Some(asker) {
            self.armed.take_if(|armed| *armed == asker);
            return Answer::Behind;
        }
        let tag = self.flows[flow.0].tag;
        let credit = if tag < self.virtual_time { BURST } else { BURST - RESERVE };
        if let Some(until) = self.budget.wait_for_credit(credit, now) {
            self.armed = Some(asker);
            return Answer::At(until);
        }
        self.virtual_time = self.virtual_time.max(tag);
        self.leave(pair, asker);
        *place = None;
        Answer::Pass
    }

    /// Takes a waiter out.
    pub(crate) fn leave(&mut self, pair: FlowKey, place: Place) -> Option<W> {
        self.flows[pair.0].lone_waiter.take_if(|waiter| *waiter == place);
        self.remove(self.flow_of(pair), place)
    }

    /// Pays for what has passed.
    pub(crate) fn spend(&mut self, pair: FlowKey, bytes: usize, now: Instant) {
        self.budget.spend(bytes, now);
        self.charge(self.flow_of(pair), bytes as u64);
    }

    /// So many of the bytes that were paid for were dropped.
    pub(crate) fn weigh(&mut self, pair: FlowKey, dropped: u64) {
        self.charge(self.flow_of(pair), dropped.saturating_mul(DROPPED_WEIGHT - 1));
    }

    /// The first waiter, if it does not know yet that it is first. It has to ask again.
    pub(crate) fn arm(&mut self) -> Option<W> {
        let first = self.first();
        if first == self.armed {
            return None;
        }
        self.armed = first;
        let (_, flow) = self.waiting.first_key_value()?;
        self.flows[flow.0].waiters.values().next().cloned()
    }

    fn first(&self) -> Option<Place> {
        let (_, flow) = self.waiting.first_key_value()?;
        self.flows[flow.0].waiters.keys().next().copied()
    }

    /// The flow that a side of this pair is in.
    fn flow_of(&self, pair: FlowKey) -> FlowKey {
        if self.flows[pair.0].met { pair } else { self.alone }
    }

    fn next_place(&mut self) -> Place {
        self.issued += 1;
        Place(self.issued)
    }

    /// Puts a waiter into a flow, or the new one in the place of the one that is there.
    fn insert(&mut self, flow: FlowKey, place: Place, waiter: W) {
        let since = self.next_place();
        let least = self.virtual_time.saturating_sub(self.portion() as u64);
        let state = &mut self.flows[flow.0];
        state.waiters.insert(place, waiter);
        if state.since.is_none() {
            state.tag = state.tag.max(least);
            state.since = Some(since);
            self.waiting.insert((state.tag, since), flow);
        }
    }

    fn remove(&mut self, flow: FlowKey, place: Place) -> Option<W> {
        let state = &mut self.flows[flow.0];
        let waiter = state.waiters.remove(&place)?;
        if state.waiters.is_empty()
            && let Some(since) = state.since.take()
        {
            self.waiting.remove(&(state.tag, since));
        }
        self.armed.take_if(|armed| *armed == place);
        Some(waiter)
    }

    fn charge(&mut self, flow: FlowKey, weight: u64) {
        let state = &mut self.flows[flow.0];
        let before = state.tag;
        state.tag = before.saturating_add(weight);
        if let Some(since) = state.since {
            self.waiting.remove(&(before, since));
            self.waiting.insert((state.tag, since), flow);
        }
    }
}

#[cfg(test)]
mod tests;
