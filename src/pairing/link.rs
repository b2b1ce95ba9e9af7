//! What joins the two sides of a pair: for each direction a bounded channel of batches, and credits that go back.
//!
//! A side sends a batch only when it holds a credit, and gets the credit back when the other side has written that
//! batch to its socket. So one batch is on its way in each direction at most: what was read is written while it is
//! still in the cache, memory has a bound, and a reader that does not read slows its peer's sender and nobody else.
//!
//! The end of a direction is told by its [`CloseCause`]. It overtakes nothing: the other side first gets every batch,
//! the [last one](Outgoing::finish) included, which needs no credit, so that whoever departs never has to wait. An
//! end that is dropped without a close_cause (a panic, a handshake that failed) says [`CloseCause::Lost`].
//!
//! The two ends do not know where they are: near and far are a matter of who holds them. The first side of a pair
//! keeps its near end and parks the far end in the [`PairTable`](crate::pairing::pair_table::PairTable) for the second.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use async_channel::{Receiver, Sender, TryRecvError, TrySendError};

/// Why nothing more comes from the other side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CloseCause {
    /// It closed, or its stream ended between two messages.
    Left,
    /// It was reset, broke the protocol, ended within a message, or vanished otherwise.
    #[default]
    Lost,
    /// It never came: the pair code's time to live is over.
    Expired,
    /// The relay stops.
    Stopping,
}

impl CloseCause {
    /// The status code that tells it to the side that stays (RFC 6455, section 7.4.1).
    pub fn code(self) -> u16 {
        match self {
            Self::Left => 1000,
            Self::Lost => 1011,
            Self::Expired | Self::Stopping => 1001,
        }
    }

    /// The reason that goes with the code. Stable: clients may compare it.
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
    // A second batch on its way would only wait behind the first, outside of the cache, and double what a stalled reader
    // costs.
    let (batches_in, batches_out) = async_channel::bounded(1);
    let slip = DirectionState { credit: true, ..DirectionState::default() };
    let slip = Arc::new(Mutex::new(slip));
    let outgoing = Outgoing { batches: batches_in, has_credit: false, slip: Arc::clone(&slip) };
    (outgoing, Incoming { batches: batches_out, slip })
}

/// What goes with the channel of a direction: credits, which come back, and who waits at either end. (The channel could do
/// the waiting, but a listener at each end, and a channel for the credits, would add 1 KiB to a connection.)
#[derive(Debug)]
struct DirectionState<T> {
    /// Whether the credit waits to be taken.
    credit: bool,
    /// Whether the other side is gone. Then there is always a credit.
    abandoned: bool,
    /// Who waits for the credit.
    sender: Option<Waker>,
    /// Who waits for a batch, or for the end.
    receiver: Option<Waker>,
    /// The last words, to be found when the channel is empty and closed.
    batch: Option<T>,
    close_cause: CloseCause,
}

impl<T> Default for DirectionState<T> {
    fn default() -> Self {
        Self {
            credit: false,
            abandoned: false,
            sender: None,
            receiver: None,
            batch: None,
            close_cause: CloseCause::default(),
        }
    }
}

/// Nothing that is half done is ever seen here, so a panic elsewhere spoils nothing.
fn lock<T>(slip: &Mutex<DirectionState<T>>) -> MutexGuard<'_, DirectionState<T>> {
    slip.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The sending half of one direction.
#[derive(Debug)]
pub struct Outgoing<T> {
    batches: Sender<T>,
    has_credit: bool,
    slip: Arc<Mutex<DirectionState<T>>>,
}

impl<T> Outgoing<T> {
    /// Ready once a batch may be [sent](Self::send). Also ready when the other side is gone, and batches vanish.
    pub fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.has_credit {
            let mut slip = lock(&self.slip);
            self.has_credit = std::mem::take(&mut slip.credit) || slip.abandoned;
            if !self.has_credit {
                let previous = slip.sender.replace(cx.waker().clone());
                drop(slip);
                drop(previous); // which may do anything
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

    /// Whether the other side is gone, and whatever is sent vanishes.
    pub fn is_abandoned(&self) -> bool {
        lock(&self.slip).abandoned
    }

    /// Ends this direction: the other side gets what is under way, then `last`, then `close_cause`.
    pub fn finish(self, last: Option<T>, close_cause: CloseCause) {
        let mut slip = lock(&self.slip);
        slip.batch = last;
        slip.close_cause = close_cause;
    }

    /// Wakes the other side, if it waits.
    fn tell_receiver(&self) {
        let receiver = lock(&self.slip).receiver.take();
        if let Some(receiver) = receiver {
            receiver.wake(); // when nothing is locked any more
        }
    }
}

impl<T> Drop for Outgoing<T> {
    fn drop(&mut self) {
        self.batches.close();
        self.tell_receiver();
    }
}

/// What comes next from the other side.
#[derive(Debug, PartialEq, Eq)]
pub enum Next<T> {
    /// A batch. Its credit is to be given back when it is written.
    Batch(T),
    /// The end; it stays the answer from then on.
    End(CloseCause),
}

/// The receiving half of one direction.
#[derive(Debug)]
pub struct Incoming<T> {
    batches: Receiver<T>,
    slip: Arc<Mutex<DirectionState<T>>>,
}

/// The channel's own way to wait needs to stay where it is, but that is not used.
impl<T> Unpin for Incoming<T> {}

impl<T> Incoming<T> {
    /// The next batch, or the end.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Next<T>> {
        // The other side sends first, and then looks here for whom to wake: it cannot do both between what follows.
        let mut slip = lock(&self.slip);
        match self.batches.try_recv() {
            Ok(batch) => Poll::Ready(Next::Batch(batch)),
            Err(TryRecvError::Closed) => {
                Poll::Ready(slip.batch.take().map_or(Next::End(slip.close_cause), Next::Batch))
            }
            Err(TryRecvError::Empty) => {
                let previous = slip.receiver.replace(cx.waker().clone());
                drop(slip);
                drop(previous); // which may do anything
                Poll::Pending
            }
        }
    }

    /// Lets the other side send another batch: the last one is written.
    pub fn give_credit(&self) {
        self.tell_sender(|slip| slip.credit = true);
    }

    fn tell_sender(&self, tell: impl FnOnce(&mut DirectionState<T>)) {
        let mut slip = lock(&self.slip);
        tell(&mut slip);
        let sender = slip.sender.take();
        drop(slip);
        if let Some(sender) = sender {
            sender.wake();
        }
    }
}

impl<T> Drop for Incoming<T> {
    fn drop(&mut self) {
        // First, so that nobody who hears that no credit is needed finds the channel full.
        self.batches.close();
        self.tell_sender(|slip| slip.abandoned = true);
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
    fn one_batch_is_under_way_until_its_credit_is_back() {
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
    fn who_waits_for_a_credit_is_told_when_there_is_one_or_when_none_will_be_needed() {
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
    fn the_last_batch_needs_no_credit_and_overtakes_nothing() {
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
    fn a_dropped_end_is_a_lost_one() {
        let (near, mut far) = link();
        assert_eq!(next(&mut far), Poll::Pending);
        drop(near);
        assert_eq!(next(&mut far), Poll::Ready(Next::End(CloseCause::Lost)));
        assert!(far.outgoing.is_abandoned() && ready(&mut far));
        far.outgoing.send(1); // vanishes
    }

    #[test]
    fn what_nobody_will_take_vanishes_however_much_it_is() {
        let (mut near, far) = link();
        assert!(ready(&mut near));
        near.outgoing.send(1);
        let End { incoming, outgoing: _outgoing } = far;
        // Whoever is woken by the end sends at once.
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
    fn a_batch_does_not_vanish_for_a_credit_too_many() {
        let (mut near, far) = link();
        for batch in 1..3 {
            assert!(ready(&mut near));
            near.outgoing.send(batch);
            far.incoming.give_credit();
        }
    }

    #[test]
    #[should_panic = "a batch needs a credit"]
    fn sending_without_a_credit_is_a_bug() {
        let (mut near, _far) = link();
        near.outgoing.send(1);
    }
}
