//! A token bucket, in the form of the generic cell rate algorithm. Pure: time is an argument.
//!
//! The only state of a [`TokenBucket`] is the time at which it is full again. Prices, depths and debts are times, too: those
//! in which so many tokens come back. A user knows its rate and turns what it counts into a price.
//!
//! There are two ways to pay:
//!
//! 1. **Before**: [`take`](TokenBucket::take) takes tokens that are there, or none. Requests to join are limited so.
//! 2. **Afterwards**: [`spend`](TokenBucket::spend) takes tokens into debt, and [`wait`](TokenBucket::wait) tells when the
//!    debt is small enough. Bytes are limited so, because before a read nothing tells how many there are.

use std::num::NonZeroU64;
use std::time::{Duration, Instant};

/// A bucket of tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct TokenBucket {
    full_at: Instant,
}

impl TokenBucket {
    /// A bucket that is full.
    pub(crate) fn full(now: Instant) -> Self {
        Self { full_at: now }
    }

    /// Takes tokens out of a bucket of this depth.
    ///
    /// # Errors
    ///
    /// The time until they are there, if they are not. Then nothing is taken.
    pub(crate) fn take(&mut self, price: Duration, depth: Duration, now: Instant) -> Result<(), Duration> {
        let full_at = self.full_at.max(now) + price;
        match full_at.saturating_duration_since(now + depth) {
            Duration::ZERO => self.full_at = full_at,
            wait => return Err(wait),
        }
        Ok(())
    }

    /// Takes tokens for what has been used already, however many are missing.
    pub(crate) fn spend(&mut self, price: Duration, now: Instant) {
        self.full_at = self.full_at.max(now) + price;
    }

    /// When no more than `debt` will be missing, if that is not now.
    pub(crate) fn wait(&self, debt: Duration, now: Instant) -> Option<Instant> {
        (self.full_at > now + debt).then(|| self.full_at - debt)
    }

    /// Whether no token is missing.
    pub(crate) fn is_full(&self, now: Instant) -> bool {
        self.full_at <= now
    }
}

/// How much of a byte rate may be owed. A wait of this time is not noticed, and is worth a timer.
pub(crate) const BURST: Duration = Duration::from_millis(100);

/// The least that a byte rate can be limited to, in bytes per second.
///
/// A client's ping waits behind what it has sent before.
pub(crate) const LEAST_RATE: u64 = 1024;

/// The smallest portion that is worth a read, in bytes.
const LEAST_PORTION: u64 = 512;

const NANOSECONDS: u64 = 1_000_000_000;

/// A rate of bytes: the price of bytes, and how many are to pass at once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ByteRate {
    /// In bytes per second.
    rate: NonZeroU64,
    /// In bytes.
    portion: u64,
}

impl ByteRate {
    /// A rate in bytes per second, at least [`LEAST_RATE`], and the time of a portion.
    pub(crate) fn new(rate: NonZeroU64, portion: Duration) -> Self {
        let rate = rate.max(NonZeroU64::new(LEAST_RATE).unwrap_or(NonZeroU64::MIN));
        let portions = NANOSECONDS / portion.as_nanos() as u64; // in a second
        Self { rate, portion: (rate.get() / portions).max(LEAST_PORTION) }
    }

    /// The price of so many bytes. It is rounded up, so that single bytes are not free.
    pub(crate) fn price(&self, bytes: usize) -> Duration {
        Duration::from_nanos((bytes as u64).saturating_mul(NANOSECONDS).div_ceil(self.rate.get()))
    }

    /// The most bytes that should pass at once.
    pub(crate) fn portion(&self) -> usize {
        usize::try_from(self.portion).unwrap_or(usize::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn slow_rates_have_a_least_portion_and_fast_ones_no_most() {
        let portion = |rate, milliseconds| {
            ByteRate::new(NonZeroU64::new(rate).unwrap(), Duration::from_millis(milliseconds)).portion()
        };
        assert_eq!(portion(1, 100), 512);
        assert_eq!(portion(1 << 20, 4), 4194);
        assert!(portion(u64::MAX, 100) > 1 << 60);
    }

    #[test]
    fn price_is_rounded_up() {
        let price = |rate, bytes| ByteRate::new(NonZeroU64::new(rate).unwrap(), BURST).price(bytes);
        assert_eq!(price(u64::MAX, 1), Duration::from_nanos(1));
        assert_eq!(price(1, 1024), Duration::from_secs(1), "the least rate");
        assert_eq!(price(3_000_000_000, 4), Duration::from_nanos(2));
    }

    /// A bucket in which each token is counted: one comes back in a nanosecond.
    struct Counted {
        depth: i64,
        tokens: i64,
    }

    impl Counted {
        fn pass(&mut self, time: i64) {
            self.tokens = (self.tokens + time).min(self.depth);
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Take(u64),
        Spend(u64),
        Pass(u64),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            3 => (1..500_u64).prop_map(Step::Take),
            1 => (0..500_u64).prop_map(Step::Spend),
            3 => (0..400_u64).prop_map(Step::Pass),
        ];
        prop::collection::vec(step, 0..200)
    }

    proptest! {
        #[test]
        fn agrees_with_a_bucket_of_counted_tokens(depth in 1..1000_i64, steps in steps()) {
            let mut now = Instant::now();
            let (mut bucket, mut counted) = (TokenBucket::full(now), Counted { depth, tokens: depth });
            let of = |tokens: i64| Duration::from_nanos(tokens.try_into().expect("it is positive"));
            for step in steps {
                match step {
                    Step::Take(price) => {
                        let (before, missing) = (bucket, price as i64 - counted.tokens);
                        let taken = bucket.take(Duration::from_nanos(price), of(depth), now);
                        if missing > 0 {
                            prop_assert_eq!(taken, Err(of(missing)));
                            prop_assert_eq!(bucket, before, "a refusal changes nothing");
                        } else {
                            prop_assert_eq!(taken, Ok(()));
                            counted.tokens -= price as i64;
                        }
                    }
                    Step::Spend(price) => {
                        bucket.spend(Duration::from_nanos(price), now);
                        counted.tokens -= price as i64;
                    }
                    Step::Pass(time) => {
                        now += Duration::from_nanos(time);
                        counted.pass(time as i64);
                    }
                }
                let missing = depth - counted.tokens;
                prop_assert_eq!(bucket.is_full(now), missing == 0);
                for debt in [0, 1, depth / 2, depth] {
                    let wait = (missing > debt).then(|| now + of(missing - debt));
                    prop_assert_eq!(bucket.wait(of(debt), now), wait);
                }
            }
        }
    }
}
