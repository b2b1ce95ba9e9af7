//! How fast a client takes the batches of its peer, as far as is known.

use crate::runtime::sync::atomic::{
    AtomicU8,
    Ordering::{Acquire, Release},
};

/// Whether a client takes batches as fast as they come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pace {
    /// The client has taken nothing, or its answers cannot be read yet.
    #[default]
    Unknown,
    /// It takes batches, but is not known to take them as fast as they come.
    Slow,
    /// It takes batches as fast as they come.
    Fast,
}

/// A pace that one task writes and another one reads.
#[derive(Debug, Default)]
pub(super) struct SharedPace(AtomicU8);

impl SharedPace {
    pub(super) fn set(&self, pace: Pace) {
        self.0.store(pace as u8, Release);
    }

    pub(super) fn get(&self) -> Pace {
        match self.0.load(Acquire) {
            slow if slow == Pace::Slow as u8 => Pace::Slow,
            fast if fast == Pace::Fast as u8 => Pace::Fast,
            _ => Pace::Unknown,
        }
    }
}
