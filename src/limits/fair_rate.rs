//! Start-time fair queueing for a rate that all clients share.
//!
//! [`FairQueue`] is pure: time is an argument.
//!
//! A flow is a pair, its two sides together. All sides that wait alone are one flow, so a thousand strangers without a
//! peer compete as one client.
//!
//! 1. Each flow has a tag: what it has used so far, in bytes. The waiting flow with the least tag is served next. The
//!    virtual time is the tag of the flow that was served last.
//! 2. A flow that comes back after a pause goes on at the virtual time, less [one portion](FairQueue::portion). What else it
//!    has not used before is lost. So a flow that uses less than its share is served before all backlogged flows.
//! 3. Within a flow the side that has waited longest is served first.
//! 4. At most [`BURST`] is owed, as a read is paid for afterwards. Backlogged flows use half of it. A flow that is ahead of
//!    the virtual time can use the other half, and mostly need not wait at all.
//! 5. Only the first waiter sets a timer. It takes its portion, pays for it, and wakes the waiter that is first then.
//! 6. Bytes of dropped text [weigh more](FairQueue::weigh) in the tag. They cost the rate no more than others.
//!
//! A [`TokenBucket`] keeps the rate itself. `connection/throttle.rs` is the user of this file.

use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};

use slab::Slab;

use crate::limits::token_bucket::{BURST, ByteRate, TokenBucket};
use crate::runtime::sync::{Mutex, lock, with_lock};

/// The most that a read takes, as time of the rate.
///
/// A short message of a flow that is not backlogged waits for about so long.
const PORTION: Duration = Duration::from_millis(4);

/// The part of the burst that is left to flows that are ahead of the virtual time.
const RESERVE: Duration = Duration::from_millis(50);

/// The weight of a byte of dropped text. It reaches no peer, so text is slowed first.
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
        let key = lock(&self.0).open();
        Arc::new(Flow { rate: Arc::clone(self), key })
    }

    /// Changes the queue, and wakes the waiter that is first then.
    fn change<R>(&self, change: impl FnOnce(&mut FairQueue<Waker>) -> R) -> R {
        let (result, first) = with_lock(&self.0, |queue| (change(queue), queue.arm()));
        if let Some(first) = first {
            first.wake();
        }
        result
    }
}

impl Flow {
    /// The most bytes that should pass at once.
    pub(crate) fn portion(&self) -> usize {
        lock(&self.rate.0).portion()
    }

    /// The second side has come.
    pub(crate) fn meet(&self) {
        self.rate.change(|queue| queue.meet(self.key));
    }

    /// Asks for a portion.
    ///
    /// A side that gets one has to [spend](Self::spend) it in the same step, even 0 bytes.
    pub(crate) fn ask(&self, number: &mut Option<QueueNumber>, waker: &Waker, now: Instant) -> Turn {
        let (turn, first) = with_lock(&self.rate.0, |queue| {
            let turn = queue.ask(self.key, number, waker.clone(), now);
            // A portion that passes is paid for first: until then it is open which waiter is the next one.
            (turn, if turn == Turn::Pass { None } else { queue.arm() })
        });
        if let Some(first) = first {
            first.wake();
        }
        turn
    }

    /// Leaves the queue.
    pub(crate) fn leave(&self, number: QueueNumber) {
        let waker = self.rate.change(|queue| queue.leave(self.key, number));
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

    /// Adds the weight of those bytes of what has passed that were dropped.
    pub(crate) fn weigh(&self, dropped: u64) {
        self.rate.change(|queue| queue.weigh(self.key, dropped));
    }
}

impl Drop for Flow {
    fn drop(&mut self) {
        lock(&self.rate.0).close(self.key);
    }
}

/// The key of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct FlowKey(usize);

/// The number of a waiter or a flow in the order of arrival. No number is used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct QueueNumber(u64);

/// Whether a portion may pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// Now.
    Pass,
    /// At this time: the asker is first, and may ask again then.
    At(Instant),
    /// Later: others are first. The asker is woken when it is first.
    Behind,
}

/// The flows, and the waiters of each. `W` wakes a waiter.
#[derive(Debug)]
pub(crate) struct FairQueue<W> {
    rate: ByteRate,
    bucket: TokenBucket,
    virtual_time: u64,
    flows: Slab<FlowState<W>>,
    /// The flow of all sides that are alone.
    alone: FlowKey,
    /// The flows that wait, by their tags. Of equal ones, the flow that began to wait first is first.
    waiting: BTreeMap<(u64, QueueNumber), FlowKey>,
    /// The waiter that knows that it is first.
    armed: Option<QueueNumber>,
    issued: u64,
}

/// The state of a flow.
#[derive(Debug)]
struct FlowState<W> {
    /// In bytes.
    tag: u64,
    /// Whether both sides have come.
    met: bool,
    /// In the order of arrival.
    waiters: BTreeMap<QueueNumber, W>,
    /// The flow's number in [`FairQueue::waiting`], if it waits.
    since: Option<QueueNumber>,
    /// The side that waits in the flow of all that are alone.
    lone_waiter: Option<QueueNumber>,
}

impl<W> FlowState<W> {
    fn new() -> Self {
        Self { tag: 0, met: false, waiters: BTreeMap::new(), since: None, lone_waiter: None }
    }
}

impl<W: Clone> FairQueue<W> {
    /// Nothing is owed at first. The rate is in bytes per second.
    pub(crate) fn new(rate: NonZeroU64, now: Instant) -> Self {
        let (rate, bucket) = (ByteRate::new(rate, PORTION), TokenBucket::full(now));
        let mut flows = Slab::new();
        let alone = FlowKey(flows.insert(FlowState::new()));
        // A first flow has an unused portion, too.
        let virtual_time = rate.portion() as u64;
        Self { rate, bucket, virtual_time, flows, alone, waiting: BTreeMap::new(), armed: None, issued: 0 }
    }

    /// The most bytes that should pass at once.
    pub(crate) fn portion(&self) -> usize {
        self.rate.portion()
    }

    /// The flow of a new pair, one side of which has come.
    pub(crate) fn open(&mut self) -> FlowKey {
        FlowKey(self.flows.insert(FlowState::new()))
    }

    /// Forgets a flow in which nothing waits.
    pub(crate) fn close(&mut self, flow: FlowKey) {
        let state = self.flows.remove(flow.0);
        debug_assert!(state.waiters.is_empty() && state.lone_waiter.is_none(), "a waiter has a flow");
    }

    /// The second side of this pair has come: the first one waits in the pair's own flow from now on.
    pub(crate) fn meet(&mut self, flow: FlowKey) {
        self.flows[flow.0].met = true;
        if let Some(number) = self.flows[flow.0].lone_waiter.take()
            && let Some(waiter) = self.remove(self.alone, number)
        {
            self.insert(flow, number, waiter);
        }
    }

    /// Asks for a portion for a side of this pair.
    ///
    /// Unless it may pass, the side is in the queue from then on.
    pub(crate) fn ask(&mut self, pair: FlowKey, number: &mut Option<QueueNumber>, waiter: W, now: Instant) -> Turn {
        let flow = self.flow_of(pair);
        let asker = *number.get_or_insert_with(|| self.next_number());
        self.insert(flow, asker, waiter);
        if flow == self.alone {
            self.flows[pair.0].lone_waiter = Some(asker);
        }
        if self.first() != Some(asker) {
            self.armed.take_if(|armed| *armed == asker);
            return Turn::Behind;
        }
        let tag = self.flows[flow.0].tag;
        let debt = if tag < self.virtual_time { BURST } else { BURST - RESERVE };
        if let Some(until) = self.bucket.wait(debt, now) {
            self.armed = Some(asker);
            return Turn::At(until);
        }
        self.virtual_time = self.virtual_time.max(tag);
        self.leave(pair, asker);
        *number = None;
        Turn::Pass
    }

    /// Takes a waiter out.
    pub(crate) fn leave(&mut self, pair: FlowKey, number: QueueNumber) -> Option<W> {
        self.flows[pair.0].lone_waiter.take_if(|waiter| *waiter == number);
        self.remove(self.flow_of(pair), number)
    }

    /// Pays for what has passed.
    pub(crate) fn spend(&mut self, pair: FlowKey, bytes: usize, now: Instant) {
        self.bucket.spend(self.rate.price(bytes), now);
        self.charge(self.flow_of(pair), bytes as u64);
    }

    /// Adds the weight of those bytes of what was paid for that were dropped.
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

    fn first(&self) -> Option<QueueNumber> {
        let (_, flow) = self.waiting.first_key_value()?;
        self.flows[flow.0].waiters.keys().next().copied()
    }

    /// The flow that a side of this pair is in.
    fn flow_of(&self, pair: FlowKey) -> FlowKey {
        if self.flows[pair.0].met { pair } else { self.alone }
    }

    fn next_number(&mut self) -> QueueNumber {
        self.issued += 1;
        QueueNumber(self.issued)
    }

    /// Puts a waiter into a flow, or replaces the one of this number.
    fn insert(&mut self, flow: FlowKey, number: QueueNumber, waiter: W) {
        let since = self.next_number();
        let least = self.virtual_time.saturating_sub(self.portion() as u64);
        let state = &mut self.flows[flow.0];
        state.waiters.insert(number, waiter);
        if state.since.is_none() {
            state.tag = state.tag.max(least);
            state.since = Some(since);
            self.waiting.insert((state.tag, since), flow);
        }
    }

    fn remove(&mut self, flow: FlowKey, number: QueueNumber) -> Option<W> {
        let state = &mut self.flows[flow.0];
        let waiter = state.waiters.remove(&number)?;
        if state.waiters.is_empty()
            && let Some(since) = state.since.take()
        {
            self.waiting.remove(&(state.tag, since));
        }
        self.armed.take_if(|armed| *armed == number);
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
