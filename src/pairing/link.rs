//! A link joins the two sides of a pair.
//!
//! Each direction has a bounded channel of batches, and credits that go back.
//!
//! Credit-based flow control: a side sends a batch only when it holds a credit. It gets the credit back when the other side
//! has written that batch to its socket. So one batch is under way in each direction at most. A batch is written while it is
//! still in the cache, memory has a bound, and a reader that does not read slows its peer's sender and no other client.
//!
//! A [`CloseCause`] ends a direction. It overtakes nothing: the other side first gets every batch, the
//! [last one](Outgoing::finish) included. That needs no credit, so a side that departs never has to wait. An end that is
//! dropped without a cause (a panic, a handshake that failed) says [`CloseCause::Lost`].
//!
//! The two ends are alike. The first side of a pair keeps its near end and parks the far end in the pair table for the
//! second.
//!
//! # Why waiting and credits are beside the channel
//!
//! - A channel takes 1 KiB with its lists of listeners. So a direction has one of the worker's [channels](SpareChannels)
//!   while a batch is under way, and none while it is idle.
//! - A place in the channel is free when a batch is *taken*. A credit comes back when it is *written*: until then the sender
//!   would fill a second buffer for a client that does not read.
//! - The last batch and the cause must get through without a place. The channel's `close` carries no value, and its
//!   `force_send` replaces a batch that is under way.
//! - The mutex makes "look, then wait" one step. With a channel and a separate waker, a batch that is sent between the two
//!   would wake nothing. It is held for a few instructions, and mostly by one thread, as both sides are on one worker.
//!
//! # Flags that are read without the mutex
//!
//! Most looks at a link find nothing new, and should cost no locked instruction. So `Flags` are read without the mutex.
//! They change under it, except that a sender takes its credit without it.
//!
//! - A side that waits sets a flag. The other side clears it under the mutex, and then wakes the task. As long as the flag is
//!   set, there is nothing to see. If it is cleared a moment after a look, the wake-up follows and the task looks again.
//! - There is one credit, so its two writers take turns: the receiver gives it for a batch, and the sender takes it before
//!   the next batch.
//! - A side that is gone stays gone.
//!
//! # Which writes a look sees
//!
//! What a flag stands for is read under the mutex, which orders it. A look without the mutex may see an older value:
//!
//! - **`credit`, `abandoned`.** The look is repeated under the mutex. Both are set under it, and so is the flag of the sender that
//!   waits. So either the sender sees them, or the other side sees that it waits.
//! - **`sender_waits`, `receiver_waits`.** Only the task itself sets them. An older value says that it still waits, so a wake-up
//!   is on its way. The wake-up happens before the task's next step, as the executor orders the two: by async-task's state,
//!   and for another thread by its queue. That step sees the flag cleared, and everything before that.
//! - **`credit` has two writers.** The sender clears it before it sends, and the receiver sets it behind the batch. Both take the
//!   mutex between the two. So neither overwrites what the other has written later.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use super::channels::Channel;
use crate::runtime::sync::atomic::{
    AtomicBool,
    Ordering::{Acquire, Release},
};
use crate::runtime::sync::{Mutex, with_lock};

pub use super::channels::SpareChannels;
pub use super::close_cause::CloseCause;
pub use super::pace::Pace;
use super::pace::SharedPace;

/// One side's end of a link that carries batches of type `T`.
///
/// One task polls both halves, and looks at both again when it is woken.
#[derive(Debug)]
pub struct End<T> {
    /// Towards the other side.
    pub outgoing: Outgoing<T>,
    /// From the other side.
    pub incoming: Incoming<T>,
}

/// Makes a link, and returns its two ends.
pub fn link<T>() -> (End<T>, End<T>) {
    let flags = || Flags { credit: AtomicBool::new(true), ..Flags::default() };
    let link = Arc::new(Link { flags: [flags(), flags()], state: Mutex::default() });
    let end = |side: Side| End {
        outgoing: Outgoing { link: Arc::clone(&link), side, has_credit: false },
        incoming: Incoming { link: Arc::clone(&link), side },
    };
    (end(Side::Near), end(Side::Far))
}

/// A side of a link. A direction has the name of the side that sends.
#[derive(Clone, Copy, Debug)]
enum Side {
    Near,
    Far,
}

impl Side {
    fn other(self) -> Self {
        match self {
            Self::Near => Self::Far,
            Self::Far => Self::Near,
        }
    }
}

/// What both ends share.
#[derive(Debug)]
struct Link<T> {
    /// Of each direction.
    flags: [Flags; 2],
    state: Mutex<State<T>>,
}

/// The state of a direction that is read without the mutex.
#[derive(Debug, Default)]
struct Flags {
    /// Whether the credit has come back and waits to be taken.
    credit: AtomicBool,
    /// The pace of the receiver's client, as of the last credit that came back.
    pace: SharedPace,
    /// Whether the receiver is gone. Then there is always a credit.
    abandoned: AtomicBool,
    /// Whether the sender waits for a credit.
    sender_waits: AtomicBool,
    /// Whether the receiver waits for a batch, or for the end.
    receiver_waits: AtomicBool,
}

impl Flags {
    /// Takes the credit, if there is one.
    fn take_credit(&self) -> bool {
        let is_back = self.credit.load(Acquire);
        if is_back {
            self.credit.store(false, Release);
        }
        is_back || self.abandoned.load(Acquire)
    }
}

/// What the mutex guards.
#[derive(Debug)]
struct State<T> {
    /// Of each direction.
    directions: [Direction<T>; 2],
    /// The close cause of each direction that has ended.
    ends: [Option<CloseCause>; 2],
    /// The task of each side, once it has waited.
    tasks: [Option<Waker>; 2],
    /// Whether the far side has told that it is there.
    has_met: bool,
}

#[derive(Debug)]
struct Direction<T> {
    /// The batch under way, until the receiver takes it.
    batch: Option<Box<Channel<T>>>,
    /// The last batch, which needs no credit.
    last: Option<T>,
}

impl<T> Default for State<T> {
    fn default() -> Self {
        let directions = [(); 2].map(|()| Direction { batch: None, last: None });
        Self { directions, ends: [None; 2], tasks: [None, None], has_met: false }
    }
}

impl<T> State<T> {
    /// Has the task of a side wait until the flag is cleared. Returns the waker that this replaces.
    fn wait(&mut self, side: Side, waits: &AtomicBool, waker: &Waker) -> Option<Waker> {
        waits.store(true, Release);
        let task = &mut self.tasks[side as usize];
        if task.as_ref().is_some_and(|task| task.will_wake(waker)) {
            return None;
        }
        task.replace(waker.clone())
    }

    /// Clears the flag, and returns the task of a side if it waits for that.
    fn end_wait(&self, side: Side, waits: &AtomicBool) -> Option<Waker> {
        if !waits.load(Acquire) {
            return None;
        }
        waits.store(false, Release);
        self.tasks[side as usize].clone()
    }
}

impl<T> Link<T> {
    fn flags(&self, direction: Side) -> &Flags {
        &self.flags[direction as usize]
    }

    /// Ends a direction, unless it has ended, and returns the receiver's task.
    ///
    /// Returns `last` if no receiver will take it.
    fn end(&self, state: &mut State<T>, side: Side, last: Option<T>, cause: CloseCause) -> (Option<T>, Option<Waker>) {
        let (flags, end) = (self.flags(side), &mut state.ends[side as usize]);
        if end.is_some() || flags.abandoned.load(Acquire) {
            return (last, None);
        }
        *end = Some(cause);
        state.directions[side as usize].last = last;
        (None, state.end_wait(side.other(), &flags.receiver_waits))
    }

    /// Takes the waker of a side, one half of which is dropped, unless the other half waits.
    fn forget_task(&self, state: &mut State<T>, side: Side) -> Option<Waker> {
        let sends = self.flags(side).sender_waits.load(Acquire);
        let receives = self.flags(side.other()).receiver_waits.load(Acquire);
        if sends || receives { None } else { state.tasks[side as usize].take() }
    }
}

fn wake(task: Option<Waker>) {
    if let Some(task) = task {
        task.wake();
    }
}

/// The sending half of one direction.
#[derive(Debug)]
pub struct Outgoing<T> {
    link: Arc<Link<T>>,
    side: Side,
    has_credit: bool,
}

impl<T> Outgoing<T> {
    fn flags(&self) -> &Flags {
        self.link.flags(self.side)
    }

    /// Ready once a batch may be [sent](Self::send).
    ///
    /// Always ready when the other side is gone, and batches vanish.
    pub fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let flags = self.link.flags(self.side);
        if self.has_credit || flags.take_credit() {
            self.has_credit = true;
            return Poll::Ready(());
        }
        if flags.sender_waits.load(Acquire) {
            return Poll::Pending;
        }
        // The other side gives a credit, and then looks here for a task to wake: it cannot do both while this is locked.
        let (has_credit, _previous) = with_lock(&self.link.state, |state| match flags.take_credit() {
            true => (true, None),
            false => (false, state.wait(self.side, &flags.sender_waits, cx.waker())),
        });
        self.has_credit = has_credit;
        if has_credit { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Sends a batch, on one of the worker's channels.
    ///
    /// # Panics
    ///
    /// Unless [`poll_ready`](Self::poll_ready) has been ready since the last batch, or if a credit was given for a batch
    /// that is not taken yet.
    pub fn send(&mut self, batch: T, channels: &SpareChannels<T>) {
        assert!(std::mem::take(&mut self.has_credit), "a batch needs a credit");
        if self.is_abandoned() {
            return;
        }
        let channel = channels.load(batch);
        let (unsent, receiver) = with_lock(&self.link.state, |state| {
            let under_way = &mut state.directions[self.side as usize].batch;
            if under_way.is_some() || self.is_abandoned() {
                return (Some(channel), None);
            }
            *under_way = Some(channel);
            (None, state.end_wait(self.side.other(), &self.flags().receiver_waits))
        });
        wake(receiver);
        if let Some(channel) = unsent {
            let _vanishes = channels.unload(channel);
            // With a credit in hand there is room, unless it was given twice: then no batch may vanish in silence.
            assert!(self.is_abandoned(), "one credit, one batch");
        }
    }

    /// Tells the near side that the far side, which calls this, is there.
    ///
    /// It has to come before the first batch, and only if the near side [waits for it](Incoming::poll_met).
    pub fn meet(&self) {
        let receiver = with_lock(&self.link.state, |state| {
            state.has_met = true;
            state.end_wait(self.side.other(), &self.flags().receiver_waits)
        });
        wake(receiver);
    }

    /// Whether the other side is gone, so that batches vanish.
    pub fn is_abandoned(&self) -> bool {
        self.flags().abandoned.load(Acquire)
    }

    /// The pace of the other client, as of the last credit.
    pub fn pace(&self) -> Pace {
        self.flags().pace.get()
    }

    /// Ends this direction: the other side gets the batch under way, then `last`, then `close_cause`.
    pub fn finish(self, last: Option<T>, close_cause: CloseCause) {
        let (_unread, receiver) =
            with_lock(&self.link.state, |state| self.link.end(state, self.side, last, close_cause));
        wake(receiver);
    }
}

impl<T> Drop for Outgoing<T> {
    fn drop(&mut self) {
        let (receiver, _task) = with_lock(&self.link.state, |state| {
            let (_, receiver) = self.link.end(state, self.side, None, CloseCause::Lost);
            self.flags().sender_waits.store(false, Release);
            (receiver, self.link.forget_task(state, self.side))
        });
        wake(receiver);
    }
}

/// The next thing that comes from the other side.
#[derive(Debug, PartialEq, Eq)]
pub enum Next<T> {
    /// A batch. Its credit goes back when the batch is written.
    Batch(T),
    /// The end, from then on.
    End(CloseCause),
}

/// The receiving half of one direction.
#[derive(Debug)]
pub struct Incoming<T> {
    link: Arc<Link<T>>,
    side: Side,
}

impl<T> Incoming<T> {
    fn flags(&self) -> &Flags {
        self.link.flags(self.side.other())
    }

    /// The next batch, or the end.
    pub fn poll_next(&mut self, cx: &mut Context<'_>, channels: &SpareChannels<T>) -> Poll<Next<T>> {
        if self.flags().receiver_waits.load(Acquire) {
            return Poll::Pending;
        }
        self.look(cx, channels, |_| None)
    }

    /// Waits until the far side [tells that it is there](Outgoing::meet), or the link ends without that.
    ///
    /// True if the far side was there. Until then, nothing is taken from the link.
    pub fn poll_met(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        if self.flags().receiver_waits.load(Acquire) {
            return Poll::Pending;
        }
        let (met, _previous) = with_lock(&self.link.state, |state| {
            match state.has_met || state.ends[self.side.other() as usize].is_some() {
                true => (Poll::Ready(state.has_met), None),
                false => (Poll::Pending, state.wait(self.side, &self.flags().receiver_waits, cx.waker())),
            }
        });
        met
    }

    /// [Gives the credit](Self::give_credit) and [polls](Self::poll_next), in one step.
    pub fn give_credit_and_poll_next(
        &mut self,
        pace: Pace,
        cx: &mut Context<'_>,
        channels: &SpareChannels<T>,
    ) -> Poll<Next<T>> {
        self.look(cx, channels, |state| self.credit(state, pace))
    }

    /// Lets the other side send another batch: the one before is written.
    ///
    /// It tells the other side the `pace` of the client.
    pub fn give_credit(&self, pace: Pace) {
        wake(with_lock(&self.link.state, |state| self.credit(state, pace)));
    }

    /// Gives the credit, and returns the task that waits for it.
    fn credit(&self, state: &State<T>, pace: Pace) -> Option<Waker> {
        self.flags().pace.set(pace);
        self.flags().credit.store(true, Release);
        state.end_wait(self.side.other(), &self.flags().sender_waits)
    }

    /// Takes the next batch or sees the end, and waits if there is neither.
    ///
    /// What `before` does under the same lock returns a task to be woken.
    fn look(
        &self,
        cx: &mut Context<'_>,
        channels: &SpareChannels<T>,
        before: impl FnOnce(&State<T>) -> Option<Waker>,
    ) -> Poll<Next<T>> {
        // The other side sends first, and then looks here for a task to wake: it cannot do both while this is locked.
        let (channel, next, sender, _previous) = with_lock(&self.link.state, |state| {
            let (sender, from) = (before(state), self.side.other() as usize);
            let Direction { batch, last } = &mut state.directions[from];
            match (batch.take(), state.ends[from]) {
                (Some(channel), _) => (Some(channel), None, sender, None),
                (None, Some(cause)) => (None, Some(last.take().map_or(Next::End(cause), Next::Batch)), sender, None),
                (None, None) => {
                    let previous = state.wait(self.side, &self.flags().receiver_waits, cx.waker());
                    (None, None, sender, previous)
                }
            }
        });
        wake(sender);
        match channel.map(|channel| Next::Batch(channels.unload(channel))).or(next) {
            Some(next) => Poll::Ready(next),
            None => Poll::Pending,
        }
    }
}

impl<T> Drop for Incoming<T> {
    fn drop(&mut self) {
        let (_unread, sender, _task) = with_lock(&self.link.state, |state| {
            let (flags, from) = (self.flags(), self.side.other());
            flags.abandoned.store(true, Release);
            flags.receiver_waits.store(false, Release);
            let Direction { batch, last } = &mut state.directions[from as usize];
            let unread = (batch.take(), last.take());
            (unread, state.end_wait(from, &flags.sender_waits), self.link.forget_task(state, self.side))
        });
        wake(sender);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use std::sync::atomic::AtomicUsize;
    use std::sync::atomic::Ordering::SeqCst;
    use std::task::Wake;

    use futures_lite::future::{block_on, zip};

    fn next(end: &mut End<u8>) -> Poll<Next<u8>> {
        end.incoming.poll_next(&mut Context::from_waker(Waker::noop()), &SpareChannels::default())
    }

    fn send(outgoing: &mut Outgoing<u8>, batch: u8) {
        outgoing.send(batch, &SpareChannels::default());
    }

    fn ready(end: &mut End<u8>) -> bool {
        end.outgoing.poll_ready(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    #[test]
    fn only_one_batch_is_under_way_until_its_credit_is_back() {
        let (mut near, mut far) = link();
        assert!(ready(&mut near) && !near.outgoing.is_abandoned());
        send(&mut near.outgoing, 1);
        assert!(!ready(&mut near));
        assert_eq!(next(&mut far), Poll::Ready(Next::Batch(1)));
        assert!(!ready(&mut near), "it is taken, but not written");
        far.incoming.give_credit(Pace::Fast);
        assert!(ready(&mut near));
        assert!(ready(&mut far), "the other direction has a credit of its own");
    }

    #[test]
    fn near_side_is_told_once_the_far_side_is_there_or_will_not_come() {
        let met = |end: &mut End<u8>| end.incoming.poll_met(&mut Context::from_waker(Waker::noop()));
        let (mut near, mut far) = link();
        assert!(met(&mut near).is_pending());
        far.outgoing.meet();
        assert_eq!(met(&mut near), Poll::Ready(true));
        assert!(next(&mut near).is_pending() && ready(&mut far));
        send(&mut far.outgoing, 1);
        assert_eq!(next(&mut near), Poll::Ready(Next::Batch(1)));
        let (mut near, far) = link();
        assert!(met(&mut near).is_pending());
        far.outgoing.finish(None, CloseCause::Expired);
        assert_eq!(met(&mut near), Poll::Ready(false));
        assert_eq!(next(&mut near), Poll::Ready(Next::End(CloseCause::Expired)));
    }

    #[test]
    fn waiting_sender_is_woken_by_a_credit_or_by_the_end_of_the_receiver() {
        let awaited = |give: fn(End<u8>)| {
            let (mut near, far) = link();
            assert!(ready(&mut near));
            send(&mut near.outgoing, 1);
            block_on(zip(poll_fn(|cx| near.outgoing.poll_ready(cx)), async { give(far) }));
        };
        awaited(|far| far.incoming.give_credit(Pace::Fast));
        awaited(drop);
    }

    #[test]
    fn last_batch_needs_no_credit_and_overtakes_nothing() {
        let (mut near, mut far) = link();
        assert!(ready(&mut near));
        send(&mut near.outgoing, 1);
        near.outgoing.finish(Some(2), CloseCause::Left);
        assert_eq!(next(&mut far), Poll::Ready(Next::Batch(1)));
        assert_eq!(next(&mut far), Poll::Ready(Next::Batch(2)));
        assert_eq!(next(&mut far), Poll::Ready(Next::End(CloseCause::Left)));
        assert_eq!(next(&mut far), Poll::Ready(Next::End(CloseCause::Left)));
    }

    #[test]
    fn dropped_end_says_lost() {
        let (near, mut far) = link();
        assert_eq!(next(&mut far), Poll::Pending);
        drop(near);
        assert_eq!(next(&mut far), Poll::Ready(Next::End(CloseCause::Lost)));
        assert!(far.outgoing.is_abandoned() && ready(&mut far));
        send(&mut far.outgoing, 1); // vanishes
    }

    #[test]
    fn batches_for_a_receiver_that_is_gone_vanish() {
        let (mut near, far) = link();
        assert!(ready(&mut near));
        send(&mut near.outgoing, 1);
        let End { incoming, outgoing: _outgoing } = far;
        // A task that sends as soon as the end wakes it.
        struct Sends(Mutex<Outgoing<u8>>);
        impl Wake for Sends {
            fn wake(self: Arc<Self>) {
                let mut outgoing = self.0.lock().unwrap();
                assert!(outgoing.poll_ready(&mut Context::from_waker(Waker::noop())).is_ready());
                send(&mut outgoing, 2);
            }
        }
        let sends = Arc::new(Sends(Mutex::new(near.outgoing)));
        let waker = Waker::from(Arc::clone(&sends));
        assert!(sends.0.lock().unwrap().poll_ready(&mut Context::from_waker(&waker)).is_pending());
        drop(incoming);
    }

    #[test]
    fn credit_tells_the_pace_of_the_other_client() {
        let (mut near, mut far) = link();
        assert_eq!(near.outgoing.pace(), Pace::Unknown, "it has taken nothing");
        for pace in [Pace::Slow, Pace::Fast, Pace::Unknown, Pace::Slow] {
            assert!(ready(&mut near));
            send(&mut near.outgoing, 1);
            assert_eq!(next(&mut far), Poll::Ready(Next::Batch(1)));
            far.incoming.give_credit(pace);
            assert_eq!(near.outgoing.pace(), pace);
        }
    }

    #[test]
    fn credit_and_the_next_look_are_one_step() {
        let (mut near, mut far) = link();
        assert!(ready(&mut near));
        send(&mut near.outgoing, 1);
        assert!(!ready(&mut near));
        assert_eq!(next(&mut far), Poll::Ready(Next::Batch(1)));
        let (mut cx, channels) = (Context::from_waker(Waker::noop()), SpareChannels::default());
        assert_eq!(far.incoming.give_credit_and_poll_next(Pace::Fast, &mut cx, &channels), Poll::Pending);
        assert!(ready(&mut near));
        near.outgoing.finish(Some(2), CloseCause::Left);
        assert_eq!(far.incoming.give_credit_and_poll_next(Pace::Fast, &mut cx, &channels), Poll::Ready(Next::Batch(2)));
    }

    /// Counts how often it is woken.
    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Count {
        fn take(&self) -> usize {
            self.0.swap(0, SeqCst)
        }
    }

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, SeqCst);
        }
    }

    /// An end that waits for a batch and for a credit, its waker, and the other end.
    fn waits_for_both() -> (End<u8>, Arc<Count>, End<u8>) {
        let ((mut near, mut far), count) = (link(), Arc::new(Count::default()));
        let waker = Waker::from(Arc::clone(&count));
        let mut cx = Context::from_waker(&waker);
        assert!(ready(&mut near));
        send(&mut near.outgoing, 0);
        assert_eq!(next(&mut far), Poll::Ready(Next::Batch(0)));
        assert!(near.outgoing.poll_ready(&mut cx).is_pending());
        assert!(near.incoming.poll_next(&mut cx, &SpareChannels::default()).is_pending());
        assert!(ready(&mut far));
        (near, count, far)
    }

    #[test]
    fn each_wait_of_an_end_is_woken_once() {
        let (mut near, count, mut far) = waits_for_both();
        far.incoming.give_credit(Pace::Fast);
        assert_eq!(count.take(), 1);
        far.incoming.give_credit(Pace::Fast);
        assert_eq!(count.take(), 0);
        assert!(ready(&mut near));
        send(&mut far.outgoing, 1);
        assert_eq!(count.take(), 1, "the wait for a batch goes on after a credit");
        far.outgoing.finish(None, CloseCause::Left);
        assert_eq!(count.take(), 0);
        assert_eq!(next(&mut near), Poll::Ready(Next::Batch(1)));
        assert_eq!(next(&mut near), Poll::Ready(Next::End(CloseCause::Left)));
    }

    #[test]
    fn waits_end_with_either_half_of_the_other_end() {
        let (_near, count, far) = waits_for_both();
        let End { outgoing, incoming } = far;
        drop(incoming);
        assert_eq!(count.take(), 1);
        drop(outgoing);
        assert_eq!(count.take(), 1);
    }

    #[test]
    fn link_keeps_no_waker_of_a_dropped_end() {
        let (near, count, far) = waits_for_both();
        let End { outgoing, incoming } = near;
        drop(outgoing);
        far.incoming.give_credit(Pace::Fast);
        assert_eq!((count.take(), Arc::strong_count(&count)), (0, 2), "the other half still waits");
        drop(incoming);
        assert_eq!(Arc::strong_count(&count), 1);
        drop(far);
    }

    #[test]
    fn unread_batches_are_dropped_with_the_receiver() {
        let ((mut near, far), batch) = (link(), Arc::new(()));
        let channels = SpareChannels::default();
        let mut cx = Context::from_waker(Waker::noop());
        assert!(near.outgoing.poll_ready(&mut cx).is_ready());
        near.outgoing.send(Arc::clone(&batch), &channels);
        let End { incoming, outgoing: _outgoing } = far;
        drop(incoming);
        assert_eq!(Arc::strong_count(&batch), 1);
        assert!(near.outgoing.poll_ready(&mut cx).is_ready());
        near.outgoing.send(Arc::clone(&batch), &channels);
        near.outgoing.finish(Some(Arc::clone(&batch)), CloseCause::Left);
        assert_eq!(Arc::strong_count(&batch), 1);
    }

    /// Sends and receives this many batches, then the last one and the end.
    fn exchange(end: End<u32>, count: u32) {
        let (channels, End { outgoing, mut incoming }) = (SpareChannels::default(), end);
        let (mut outgoing, mut sent, mut received) = (Some(outgoing), 0, 0);
        let end = block_on(poll_fn(|cx| {
            while let Some(sender) = &mut outgoing
                && sender.poll_ready(cx).is_ready()
            {
                sender.send(sent, &channels);
                sent += 1;
                if sent == count {
                    outgoing.take().unwrap().finish(Some(count), CloseCause::Left);
                }
            }
            let mut next = incoming.poll_next(cx, &channels);
            while let Poll::Ready(Next::Batch(batch)) = next {
                assert_eq!(batch, received);
                received += 1;
                next = incoming.give_credit_and_poll_next(Pace::Fast, cx, &channels);
            }
            if outgoing.is_some() { Poll::Pending } else { next }
        }));
        assert_eq!((end, received), (Next::End(CloseCause::Left), count + 1));
    }

    #[test]
    fn ends_on_two_threads_lose_no_wake_up() {
        const BATCHES: u32 = 20_000;
        let (near, far) = link();
        std::thread::scope(|scope| {
            scope.spawn(|| exchange(near, BATCHES));
            exchange(far, BATCHES);
        });
    }

    #[test]
    #[should_panic = "one credit, one batch"]
    fn surplus_credit_is_a_bug() {
        let (mut near, far) = link();
        for batch in 1..3 {
            assert!(ready(&mut near));
            send(&mut near.outgoing, batch);
            far.incoming.give_credit(Pace::Fast);
        }
    }

    #[test]
    #[should_panic = "a batch needs a credit"]
    fn send_without_a_credit_is_a_bug() {
        let (mut near, _far) = link();
        send(&mut near.outgoing, 1);
    }
}
