//! What joins the two sides of a pair: for each direction a bounded channel of batches, and one of credits going back.
//!
//! A side sends a batch only when it holds a credit, and gets the credit back when the other side has written that
//! batch to its socket. So one batch is on its way in each direction at most: what was read is written while it is
//! still in the cache, memory has a bound, and a reader that does not read slows its peer's sender and nobody else.
//!
//! The end of a direction is told by its [`Farewell`]. It overtakes nothing: the other side first gets every batch,
//! the [last one](Outgoing::finish) included, which needs no credit, so that whoever departs never has to wait. An
//! end that is dropped without a farewell (a panic, a handshake that failed) says [`Farewell::Lost`].
//!
//! The two ends do not know where they are: near and far are a matter of who holds them. The first side of a pair
//! keeps its near end and parks the far end in the [`PairTable`](crate::pair_table::PairTable) for the second.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use async_channel::{Receiver, Sender};
use futures_lite::Stream;

/// Why nothing more comes from the other side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Farewell {
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

impl Farewell {
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

/// How many batches may be on their way in one direction. A second one would only wait behind the first, outside of
/// the cache, and double what a stalled reader costs.
const CREDITS: usize = 1;

fn direction<T>() -> (Outgoing<T>, Incoming<T>) {
    let (batches_in, batches_out) = async_channel::bounded(CREDITS);
    let (credits_in, credits_out) = async_channel::bounded(CREDITS);
    for _ in 0..CREDITS {
        credits_in.try_send(()).expect("a new channel has room for every credit");
    }
    let last_words = Arc::new(Mutex::new(LastWords { batch: None, farewell: Farewell::default() }));
    let outgoing = Outgoing {
        batches: batches_in,
        credits: Box::pin(credits_out),
        has_credit: false,
        last_words: Arc::clone(&last_words),
    };
    (outgoing, Incoming { batches: Box::pin(batches_out), credits: credits_in, last_words })
}

/// What is to be found when the channel is empty and closed. The mutex is locked once on each side, at the end.
#[derive(Debug)]
struct LastWords<T> {
    batch: Option<T>,
    farewell: Farewell,
}

/// The sending half of one direction.
#[derive(Debug)]
pub struct Outgoing<T> {
    batches: Sender<T>,
    credits: Pin<Box<Receiver<()>>>,
    has_credit: bool,
    last_words: Arc<Mutex<LastWords<T>>>,
}

impl<T> Outgoing<T> {
    /// Ready once a batch may be [sent](Self::send). Also ready when the other side is gone, and batches vanish.
    pub fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.has_credit {
            ready!(self.credits.as_mut().poll_next(cx));
            self.has_credit = true;
        }
        Poll::Ready(())
    }

    /// Sends a batch.
    ///
    /// # Panics
    ///
    /// Unless [`poll_ready`](Self::poll_ready) has been ready since the last batch.
    pub fn send(&mut self, batch: T) {
        assert!(std::mem::take(&mut self.has_credit), "a batch needs a credit");
        // With a credit in hand there is room, so this fails only if the other side is gone.
        let _ = self.batches.try_send(batch);
    }

    /// Ends this direction: the other side gets what is under way, then `last`, then `farewell`.
    pub fn finish(self, last: Option<T>, farewell: Farewell) {
        *self.last_words.lock().unwrap_or_else(PoisonError::into_inner) = LastWords { batch: last, farewell };
    }
}

/// What comes next from the other side.
#[derive(Debug, PartialEq, Eq)]
pub enum Next<T> {
    /// A batch. Its credit is to be given back when it is written.
    Batch(T),
    /// The end; it stays the answer from then on.
    End(Farewell),
}

/// The receiving half of one direction.
#[derive(Debug)]
pub struct Incoming<T> {
    batches: Pin<Box<Receiver<T>>>,
    credits: Sender<()>,
    last_words: Arc<Mutex<LastWords<T>>>,
}

impl<T> Incoming<T> {
    /// The next batch, or the end.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Next<T>> {
        if let Some(batch) = ready!(self.batches.as_mut().poll_next(cx)) {
            return Poll::Ready(Next::Batch(batch));
        }
        let mut last_words = self.last_words.lock().unwrap_or_else(PoisonError::into_inner);
        Poll::Ready(last_words.batch.take().map_or(Next::End(last_words.farewell), Next::Batch))
    }

    /// Lets the other side send another batch: the last one is written.
    pub fn give_credit(&self) {
        // Full only after the last batch, which took no credit; closed if the other side is gone.
        let _ = self.credits.try_send(());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::Waker;

    fn next(end: &mut End<u8>) -> Poll<Next<u8>> {
        end.incoming.poll_next(&mut Context::from_waker(Waker::noop()))
    }

    fn ready(end: &mut End<u8>) -> bool {
        end.outgoing.poll_ready(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    #[test]
    fn one_batch_is_under_way_until_its_credit_is_back() {
        let (mut near, mut far) = link();
        assert!(ready(&mut near));
        near.outgoing.send(1);
        assert!(!ready(&mut near));
        assert_eq!(next(&mut far), Poll::Ready(Next::Batch(1)));
        assert!(!ready(&mut near), "it is taken, but not written");
        far.incoming.give_credit();
        assert!(ready(&mut near));
        assert!(ready(&mut far), "the other direction has a credit of its own");
    }

    #[test]
    fn the_last_batch_needs_no_credit_and_overtakes_nothing() {
        let (mut near, mut far) = link();
        assert!(ready(&mut near));
        near.outgoing.send(1);
        near.outgoing.finish(Some(2), Farewell::Left);
        assert_eq!(next(&mut far), Poll::Ready(Next::Batch(1)));
        assert_eq!(next(&mut far), Poll::Ready(Next::Batch(2)));
        assert_eq!(next(&mut far), Poll::Ready(Next::End(Farewell::Left)));
        assert_eq!(next(&mut far), Poll::Ready(Next::End(Farewell::Left)));
    }

    #[test]
    fn a_dropped_end_is_a_lost_one() {
        let (near, mut far) = link();
        assert_eq!(next(&mut far), Poll::Pending);
        drop(near);
        assert_eq!(next(&mut far), Poll::Ready(Next::End(Farewell::Lost)));
        assert!(ready(&mut far));
        far.outgoing.send(1); // vanishes
    }

    #[test]
    #[should_panic = "a batch needs a credit"]
    fn sending_without_a_credit_is_a_bug() {
        let (mut near, _far) = link();
        near.outgoing.send(1);
    }
}
