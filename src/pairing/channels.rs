//! Spare channels, which a worker's links take when a batch is under way.
//!
//! A channel with its lists of listeners takes 1 KiB, and an idle direction of a link needs none. So a sender takes a
//! channel, sends one batch on it, and hands over both of its ends. The receiver puts the channel back when it has taken
//! the batch.

use std::cell::RefCell;

use async_channel::{Receiver, Sender};

/// The most spare channels of a worker, which take 64 KiB.
///
/// A batch is on a channel until its receiver's next step, so there are as many as tasks have sent in a turn without
/// their peers' having had theirs. Fifty streams at once need about so many. The channel of a client that waits alone is
/// in use until its peer comes.
const KEPT: usize = 64;

/// An open channel for one batch at a time.
#[derive(Debug)]
pub(super) struct Channel<T> {
    sender: Sender<T>,
    receiver: Receiver<T>,
}

/// The spare channels of a worker.
///
/// Any thread may take the batch from a channel, and puts it to its own spare ones.
#[derive(Debug)]
pub struct SpareChannels<T>(#[expect(clippy::vec_box, reason = "channels go as boxes")] RefCell<Vec<Box<Channel<T>>>>);

impl<T> Default for SpareChannels<T> {
    fn default() -> Self {
        Self(RefCell::default())
    }
}

impl<T> SpareChannels<T> {
    /// Puts a batch on a channel, a spare one if there is one.
    pub(super) fn load(&self, batch: T) -> Box<Channel<T>> {
        let channel = self.0.borrow_mut().pop().unwrap_or_else(|| {
            let (sender, receiver) = async_channel::bounded(1);
            Box::new(Channel { sender, receiver })
        });
        let sent = channel.sender.try_send(batch);
        assert!(sent.is_ok(), "a spare channel is open and empty");
        channel
    }

    /// Takes the batch from a channel, and keeps the channel, unless there are enough spare ones.
    pub(super) fn unload(&self, channel: Box<Channel<T>>) -> T {
        let batch = channel.receiver.try_recv().expect("a channel under way has one batch");
        let mut spare = self.0.borrow_mut();
        if spare.len() < KEPT {
            spare.push(channel);
        }
        batch
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batch_that_is_taken_leaves_a_spare_channel_for_the_next_one() {
        let spare = SpareChannels::default();
        for batch in 0..3 {
            let channel = spare.load(batch);
            assert!(spare.0.borrow().is_empty());
            assert_eq!(spare.unload(channel), batch);
            assert_eq!(spare.0.borrow().len(), 1);
        }
    }

    #[test]
    fn number_of_spare_channels_is_bounded() {
        let spare = SpareChannels::default();
        let loaded: Vec<_> = (0..2 * KEPT).map(|batch| spare.load(batch)).collect();
        for (batch, channel) in loaded.into_iter().enumerate() {
            assert_eq!(spare.unload(channel), batch);
        }
        assert_eq!(spare.0.borrow().len(), KEPT);
    }
}
