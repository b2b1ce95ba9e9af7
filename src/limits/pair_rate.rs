//! The rates that limit a pair: its own, and its share of the rate of all clients.

use std::num::NonZeroU64;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use crate::limits::fair_rate::{FairRate, Flow};
use crate::limits::token_bucket::{PORTION, TokenBucket};

/// The limits of the relay, each of which may be absent.
#[derive(Debug, Default)]
pub(crate) struct Rates {
    /// Of each pair, in bytes per second.
    pair: Option<NonZeroU64>,
    all: Option<Arc<FairRate>>,
}

/// What both sides of a pair spend from. Each holds a clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Allowance {
    pub(crate) pair: Option<Arc<Mutex<TokenBucket>>>,
    pub(crate) share: Option<Arc<Flow>>,
}

impl Rates {
    /// What each pair and what all clients together may send, in bytes per second.
    pub(crate) fn new(pair: Option<NonZeroU64>, all: Option<NonZeroU64>, now: Instant) -> Self {
        Self { pair, all: all.map(|rate| FairRate::new(rate, now)) }
    }

    /// The allowance of a new pair, one side of which has come.
    pub(crate) fn of_pair(&self, now: Instant) -> Allowance {
        let pair = self.pair.map(|rate| Arc::new(Mutex::new(TokenBucket::new(rate, PORTION, now))));
        Allowance { pair, share: self.all.as_ref().map(FairRate::open) }
    }
}

impl Allowance {
    /// The second side has come.
    pub(crate) fn meet(&self) {
        if let Some(share) = &self.share {
            share.meet();
        }
    }
}
