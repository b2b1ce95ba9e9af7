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
//! - A place in the channel is free when a batch is *taken*. A credit comes back when it is *written*: until then the sender
//!   would fill a second buffer for a client that does not read.
//! - The last batch and the cause must get through without a place. The channel's `close` carries no value, and its
//!   `force_send` replaces a batch that is under way.
//! - A channel for credits, and the channel's own listeners at both ends, add 1 KiB to an idle connection and an allocation
//!   to each wait. One waker in a field costs neither.
//! - The mutex makes "look, then wait" one step. With a channel and a separate waker, a batch that is sent between the two
//!   would wake nothing. It is held for a few instructions, and mostly by one thread, as both sides are on one worker.

use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use async_channel::{Receiver, Sender, TryRecvError, TrySendError};

use crate::runtime::sync::{lock, with_lock};

/// The reason why nothing more comes from the other side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CloseCause {
    /// The client closed, or its stream ended between two messages.
    Left,
    /// The client was reset, broke the protocol, ended within a message, or vanished otherwise.
    #[default]
    Lost,
    /// No second client came: the pair code's time to live is over.
    Expired,
    /// The relay stops.
    Stopping,
}

impl CloseCause {
    /// The status code for the side that stays (RFC 6455, section 7.4.1).
    pub fn code(self) -> u16 {
        match self {
            Self::Left => 1000,
            Self::Lost => 1011,
            Self::Expired | Self::Stopping => 1001,
        }
    }

    /// The reason beside the status code. Stable: clients may compare it.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Left => "peer disconnected",
            Self::Lost => "peer connection lost",
            Self::Expired => "pair expired",
            Self::Stopping => "relay stopping",
        }
    }
}

/// One side's end of a link that carries batches of type `T`.
#[derive(Debug)]
pub struct End<T> {
    /// Towards the other side.
    pub outgoing: Outgoing<T>,
    /// From the other side.
    pub incoming: Incoming<T>,
}

/// Makes a link, and returns its two ends.
pub fn link<T>() -> (End<T>, End<T>) {
    let (to_far, from_near) = direction();
    let (to_near, from_far) = direction();
    (End { outgoing: to_far, incoming: from_far }, End { outgoing: to_near, incoming: from_near })
}

fn direction<T>() -> (Outgoing<T>, Incoming<T>) {
    // A second batch under way would wait behind the first, outside of the cache, and double the cost of a stalled reader.
    let (batches_in, batches_out) = async_channel::bounded(1);
    let state = DirectionState { credit: true, ..DirectionState::default() };
    let state = Arc::new(Mutex::new(state));
    let outgoing = Outgoing { batches: batches_in, has_credit: false, state: Arc::clone(&state) };
    (outgoing, Incoming { batches: batches_out, state })
}

/// The state beside the channel of a direction: the credit, and the tasks that wait at either end.
#[derive(Debug)]
struct DirectionState<T> {
    /// Whether the credit waits to be taken. There is one.
    credit: bool,
    /// Whether the other side is gone. Then there is always a credit.
    abandoned: bool,
    /// The task that waits for the credit.
    sender: Option<Waker>,
    /// The task that waits for a batch, or for the end.
    receiver: Option<Waker>,
    /// The last batch and the cause, for when the channel is empty and closed.
    last: Option<T>,
    close_cause: CloseCause,
}

impl<T> Default for DirectionState<T> {
    fn default() -> Self {
        Self {
            credit: false,
            abandoned: false,
            sender: None,
            receiver: None,
            last: None,
            close_cause: CloseCause::default(),
        }
    }
}

/// The sending half of one direction.
#[derive(Debug)]
pub struct Outgoing<T> {
    batches: Sender<T>,
    has_credit: bool,
    state: Arc<Mutex<DirectionState<T>>>,
}

impl<T> Outgoing<T> {
    /// Ready once a batch may be [sent](Self::send).
    ///
    /// Always ready when the other side is gone, and batches vanish.
    pub fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.has_credit {
            let mut state = lock(&self.state);
            self.has_credit = std::mem::take(&mut state.credit) || state.abandoned;
            if !self.has_credit {
                let _previous = state.sender.replace(cx.waker().clone());
                drop(state);
                return Poll::Pending;
            }
        }
        Poll::Ready(())
    }

    /// Sends a batch.
    ///
    /// # Panics
    ///
    /// Unless [`poll_ready`](Self::poll_ready) has been ready since the last batch, or if a credit was given for a batch
    /// that is not taken yet.
    pub fn send(&mut self, batch: T) {
        assert!(std::mem::take(&mut self.has_credit), "a batch needs a credit");
        // With a credit in hand there is room, unless it was given twice: then no batch may vanish in silence.
        let sent = self.batches.try_send(batch);
        assert!(!matches!(sent, Err(TrySendError::Full(_))), "one credit, one batch");
        self.tell_receiver();
    }

    /// Whether the other side is gone, so that batches vanish.
    pub fn is_abandoned(&self) -> bool {
        lock(&self.state).abandoned
    }

    /// Ends this direction: the other side gets the batch under way, then `last`, then `close_cause`.
    pub fn finish(self, last: Option<T>, close_cause: CloseCause) {
        let mut state = lock(&self.state);
        state.last = last;
        state.close_cause = close_cause;
    }

    /// Wakes the other side, if it waits.
    fn tell_receiver(&self) {
        let receiver = with_lock(&self.state, |state| state.receiver.take());
        if let Some(receiver) = receiver {
            receiver.wake();
        }
    }
}

impl<T> Drop for Outgoing<T> {
    fn drop(&mut self) {
        self.batches.close();
        self.tell_receiver();
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
    batches: Receiver<T>,
    state: Arc<Mutex<DirectionState<T>>>,
}

/// The channel's own listener must not move, but is not used.
impl<T> Unpin for Incoming<T> {}

impl<T> Incoming<T> {
    /// The next batch, or the end.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Next<T>> {
        // The other side sends first, and then looks here for a task to wake: it cannot do both while this is locked.
        let mut state = lock(&self.state);
        match self.batches.try_recv() {
            Ok(batch) => Poll::Ready(Next::Batch(batch)),
            Err(TryRecvError::Closed) => {
                Poll::Ready(state.last.take().map_or(Next::End(state.close_cause), Next::Batch))
            }
            Err(TryRecvError::Empty) => {
                let _previous = state.receiver.replace(cx.waker().clone());
                drop(state);
                Poll::Pending
            }
        }
    }

    /// Lets the other side send another batch: the one before is written.
    pub fn give_credit(&self) {
        self.tell_sender(|state| state.credit = true);
    }

    fn tell_sender(&self, tell: impl FnOnce(&mut DirectionState<T>)) {
        let sender = with_lock(&self.state, |state| {
            tell(state);
            state.sender.take()
        });
        if let Some(sender) = sender {
            sender.wake();
        }
    }
}

impl<T> Drop for Incoming<T> {
    fn drop(&mut self) {
        // First, so that a sender that needs no credit any more does not find the channel full.
        self.batches.close();
        self.tell_sender(|state| state.abandoned = true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;

    use futures_lite::future::{block_on, zip};

    fn next(end: &mut End<u8>) -> Poll<Next<u8>> {
        end.incoming.poll_next(&mut Context::from_waker(Waker::noop()))
    }

    fn ready(end: &mut End<u8>) -> bool {
        end.outgoing.poll_ready(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    #[test]
    fn only_one_batch_is_under_way_until_its_credit_is_back() {
        let (mut near, mut far) = link();
        assert!(ready(&mut near) && !near.outgoing.is_abandoned());
        near.outgoing.send(1);
        assert!(!ready(&mut near));
        assert_eq!(next(&mut far), Poll::Ready(Next::Batch(1)));
        assert!(!ready(&mut near), "it is taken, but not written");
        far.incoming.give_credit();
        assert!(ready(&mut near));
        assert!(ready(&mut far), "the other direction has a credit of its own");
    }

    #[test]
    fn waiting_sender_is_woken_by_a_credit_or_by_the_end_of_the_receiver() {
        let awaited = |give: fn(End<u8>)| {
            let (mut near, far) = link();
            assert!(ready(&mut near));
            near.outgoing.send(1);
            block_on(zip(poll_fn(|cx| near.outgoing.poll_ready(cx)), async { give(far) }));
        };
        awaited(|far| far.incoming.give_credit());
        awaited(drop);
    }

    #[test]
    fn last_batch_needs_no_credit_and_overtakes_nothing() {
        let (mut near, mut far) = link();
        assert!(ready(&mut near));
        near.outgoing.send(1);
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
        far.outgoing.send(1); // vanishes
    }

    #[test]
    fn batches_for_a_receiver_that_is_gone_vanish() {
        let (mut near, far) = link();
        assert!(ready(&mut near));
        near.outgoing.send(1);
        let End { incoming, outgoing: _outgoing } = far;
        // A task that sends as soon as the end wakes it.
        struct Sends(Mutex<Outgoing<u8>>);
        impl std::task::Wake for Sends {
            fn wake(self: Arc<Self>) {
                let mut outgoing = self.0.lock().unwrap();
                assert!(outgoing.poll_ready(&mut Context::from_waker(Waker::noop())).is_ready());
                outgoing.send(2);
            }
        }
        let sends = Arc::new(Sends(Mutex::new(near.outgoing)));
        let waker = Waker::from(Arc::clone(&sends));
        assert!(sends.0.lock().unwrap().poll_ready(&mut Context::from_waker(&waker)).is_pending());
        drop(incoming);
    }

    #[test]
    #[should_panic = "one credit, one batch"]
    fn surplus_credit_is_a_bug() {
        let (mut near, far) = link();
        for batch in 1..3 {
            assert!(ready(&mut near));
            near.outgoing.send(batch);
            far.incoming.give_credit();
        }
    }

    #[test]
    #[should_panic = "a batch needs a credit"]
    fn send_without_a_credit_is_a_bug() {
        let (mut near, _far) = link();
        near.outgoing.send(1);
    }
}
