//! The rates that limit a pair: its own, and its share of the rate of all clients.
//!
//! A ticket may limit one side besides.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::limits::fair_rate::{FairRate, Flow};
use crate::limits::token_bucket::{BURST, ByteRate, TokenBucket};
use crate::runtime::sync::Mutex;

/// The part of a pair's rate that passes at once.
///
/// With more, a slow rate would come in blocks of many seconds.
const PORTION: Duration = BURST;

/// The rates of the relay, each of which may be absent.
#[derive(Debug, Default)]
pub(crate) struct Rates {
    /// Of each pair, in bytes per second.
    pair: Option<NonZeroU64>,
    all: Option<Arc<FairRate>>,
}

/// What a side of a pair spends from. The pair's are shared: each side holds a clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Allowance {
    /// That of this side alone, which its ticket limits.
    pub(crate) own: Option<Arc<Mutex<PairBucket>>>,
    pub(crate) pair: Option<Arc<Mutex<PairBucket>>>,
    pub(crate) share: Option<Arc<Flow>>,
}

impl Rates {
    /// What each pair and what all clients together may send, in bytes per second.
    pub(crate) fn new(pair: Option<NonZeroU64>, all: Option<NonZeroU64>, now: Instant) -> Self {
        Self { pair, all: all.map(|rate| FairRate::new(rate, now)) }
    }

    /// The allowance of a new pair, one side of which has come.
    pub(crate) fn of_pair(&self, now: Instant) -> Allowance {
        let pair = self.pair.map(|rate| Arc::new(Mutex::new(PairBucket::new(rate, now))));
        Allowance { own: None, pair, share: self.all.as_ref().map(FairRate::open) }
    }
}

impl Allowance {
    /// Limits this side to a rate in bytes per second, besides all other limits.
    pub(crate) fn limit_own(&mut self, rate: NonZeroU64, now: Instant) {
        self.own = Some(Arc::new(Mutex::new(PairBucket::new(rate, now))));
    }

    /// The buckets of this side and of its pair.
    pub(crate) fn buckets(&self) -> impl Iterator<Item = &Mutex<PairBucket>> {
        self.own.iter().chain(&self.pair).map(|bucket| &**bucket)
    }

    /// The second side has come.
    pub(crate) fn meet(&self) {
        if let Some(share) = &self.share {
            share.meet();
        }
    }
}

/// A token bucket of bytes with hysteresis, from which the sides of a pair spend, or one of them.
///
/// Bytes pass while no more than [`BURST`] is owed. Once more is owed, none pass until all is paid: so the sides wait for
/// the same time, a few times in a second.
#[derive(Debug)]
pub(crate) struct PairBucket {
    rate: ByteRate,
    bucket: TokenBucket,
    closed_until: Instant,
}

impl PairBucket {
    /// A bucket in which nothing is owed, at a rate in bytes per second.
    fn new(rate: NonZeroU64, now: Instant) -> Self {
        Self { rate: ByteRate::new(rate, PORTION), bucket: TokenBucket::full(now), closed_until: now }
    }

    /// When more may pass, if that is not now.
    pub(crate) fn wait(&mut self, now: Instant) -> Option<Instant> {
        if self.bucket.wait(BURST, now).is_some() {
            self.closed_until = self.bucket.wait(Duration::ZERO, now).unwrap_or(now);
        }
        (self.closed_until > now).then_some(self.closed_until)
    }

    /// Pays for what has passed.
    pub(crate) fn spend(&mut self, bytes: usize, now: Instant) {
        self.bucket.spend(self.rate.price(bytes), now);
    }

    /// The most bytes that should pass at once.
    pub(crate) fn portion(&self) -> usize {
        self.rate.portion()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::token_bucket::LEAST_RATE;
    use crate::runtime::sync::lock;
    use proptest::prelude::*;

    fn bucket(rate: u64, now: Instant) -> PairBucket {
        PairBucket::new(rate.try_into().unwrap(), now)
    }

    #[test]
    fn tenth_of_a_second_may_be_owed_and_then_all_is_paid_first() {
        let now = Instant::now();
        let mut bucket = bucket(1_000_000, now);
        bucket.spend(100_000, now);
        assert_eq!(bucket.wait(now), None);
        bucket.spend(1, now);
        let paid = now + Duration::from_micros(100_001);
        assert_eq!(bucket.wait(now), Some(paid));
        assert_eq!(bucket.wait(paid - Duration::from_micros(1)), Some(paid), "also for a side that comes later");
        assert_eq!(bucket.wait(paid), None);
    }

    #[test]
    fn unused_rate_is_not_saved_up() {
        let now = Instant::now();
        let mut bucket = bucket(1_000_000, now);
        let later = now + Duration::from_secs(1000);
        bucket.spend(1_000_000, later);
        assert_eq!(bucket.wait(later), Some(later + Duration::from_secs(1)));
    }

    #[test]
    fn rate_of_a_side_is_not_that_of_its_peer() {
        let (now, rate) = (Instant::now(), NonZeroU64::new(1_000_000).unwrap());
        let peer = Rates::new(Some(rate), None, now).of_pair(now);
        let mut side = peer.clone();
        side.limit_own(NonZeroU64::new(1000).unwrap(), now);
        side.buckets().for_each(|bucket| lock(bucket).spend(50_000, now));
        let waits = |side: &Allowance| side.buckets().filter_map(|bucket| lock(bucket).wait(now)).collect::<Vec<_>>();
        let paid = now + Duration::from_nanos(50_000 * 1_000_000_000 / LEAST_RATE);
        assert_eq!((waits(&side), waits(&peer)), (vec![paid], vec![]), "a rate below the least counts as that");
        peer.buckets().for_each(|bucket| lock(bucket).spend(100_000, now));
        assert_eq!((waits(&side).len(), waits(&peer).len()), (2, 1), "the rate of the pair is that of both");
    }

    proptest! {
        /// A side that spends whenever it may gets its rate: no more, and no less while it asks.
        #[test]
        fn rate_is_kept_over_any_time(
            rate in LEAST_RATE..1 << 32,
            portions in prop::collection::vec((1..=100_usize, 0..200_u64), 1..300),
        ) {
            let begin = Instant::now();
            let (mut now, mut bucket, mut spent, mut idle) = (begin, bucket(rate, begin), 0_u64, Duration::ZERO);
            for (percent, pause) in portions {
                let pause = Duration::from_millis(if pause < 100 { 0 } else { pause });
                let paid = bucket.bucket.wait(Duration::ZERO, now).unwrap_or(now);
                idle += (now + pause).saturating_duration_since(paid);
                now += pause;
                if let Some(until) = bucket.wait(now) {
                    now = until;
                }
                let bytes = (bucket.portion() * percent / 100).max(1);
                bucket.spend(bytes, now);
                spent += bytes as u64;
                let elapsed = (now - begin).as_secs_f64();
                let most = rate as f64 * (elapsed + BURST.as_secs_f64()) + bucket.portion() as f64 + 1.0;
                prop_assert!(spent as f64 <= most, "{spent} bytes in {elapsed} s");
                let least = rate as f64 * (elapsed - idle.as_secs_f64()) * 0.999;
                prop_assert!(spent as f64 >= least - 1.0, "only {spent} bytes in {elapsed} s");
            }
        }
    }
}
