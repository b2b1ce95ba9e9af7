//! How many bytes may pass in a second. Pure: time is an argument.
//!
//! What has passed is paid for afterwards, because nobody knows before a read how much there is to be read: each byte
//! costs its share of a second, and as long as no more than [`BURST`] is owed more may pass. Once more is owed,
//! nothing may pass until everything is paid. Both sides of a pair wait for the same moment, some times in a second.
//! Clients that share a rate with others wait in a queue instead: see [`fair_rate`](crate::limits::fair_rate).

use std::num::NonZeroU64;
use std::time::{Duration, Instant};

/// How much may be owed: short enough that nobody notices the wait, long enough that it is worth waking up for.
pub(crate) const BURST: Duration = Duration::from_millis(100);

/// How much of a pair's rate passes at once at most: with more, a slow rate would come in blocks of many seconds.
pub(crate) const PORTION: Duration = BURST;

/// Less than this is not worth a read, in bytes.
const LEAST_PORTION: u64 = 512;

/// The least that a rate can be limited to, in bytes per second: a client's ping waits behind what it has sent before.
pub(crate) const LEAST_RATE: u64 = 1024;

/// What may be spent at a rate.
#[derive(Debug)]
pub(crate) struct TokenBucket {
    /// In bytes per second.
    rate: NonZeroU64,
    /// In bytes.
    portion: u64,
    /// When all that has passed is paid for.
    paid_at: Instant,
    /// Until then nothing may pass.
    closed_until: Instant,
}

impl TokenBucket {
    /// Nothing is owed at first. The rate is in bytes per second, and at least [`LEAST_RATE`].
    pub(crate) fn new(rate: NonZeroU64, portion: Duration, now: Instant) -> Self {
        let rate = rate.max(NonZeroU64::new(LEAST_RATE).unwrap_or(NonZeroU64::MIN));
        let portions = NANOSECONDS / portion.as_nanos() as u64; // in a second
        let portion = (rate.get() / portions).max(LEAST_PORTION);
        Self { rate, portion, paid_at: now, closed_until: now }
    }

    /// When more may pass, if that is not now.
    pub(crate) fn wait(&mut self, now: Instant) -> Option<Instant> {
        if self.paid_at > now + BURST {
            self.closed_until = self.paid_at;
        }
        (self.closed_until > now).then_some(self.closed_until)
    }

    /// When no more than `credit` is owed, if that is not now. Unlike [`wait`](Self::wait), it does not wait until all is
    /// paid.
    pub(crate) fn wait_for_credit(&self, credit: Duration, now: Instant) -> Option<Instant> {
        (self.paid_at > now + credit).then(|| self.paid_at - credit)
    }

    /// Pays for what has passed.
    pub(crate) fn spend(&mut self, bytes: usize, now: Instant) {
        // Rounded up, so that who sends single bytes does not send them for nothing.
        let price = (bytes as u64).saturating_mul(NANOSECONDS).div_ceil(self.rate.get());
        self.paid_at = self.paid_at.max(now) + Duration::from_nanos(price);
    }

    /// How many bytes should pass at once at most.
    pub(crate) fn portion(&self) -> usize {
        usize::try_from(self.portion).unwrap_or(usize::MAX)
    }
}

const NANOSECONDS: u64 = 1_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn budget(rate: u64, now: Instant) -> TokenBucket {
        TokenBucket::new(rate.try_into().unwrap(), PORTION, now)
    }

    #[test]
    fn a_tenth_of_a_second_may_be_owed_and_then_all_is_paid_first() {
        let now = Instant::now();
        let mut budget = budget(1_000_000, now);
        budget.spend(100_000, now);
        assert_eq!(budget.wait(now), None);
        budget.spend(1, now);
        let paid = now + Duration::from_micros(100_001);
        assert_eq!(budget.wait(now), Some(paid));
        assert_eq!(budget.wait(paid - Duration::from_micros(1)), Some(paid), "also for who comes later");
        assert_eq!(budget.wait(paid), None);
    }

    #[test]
    fn nothing_is_saved_up() {
        let now = Instant::now();
        let mut budget = budget(1_000_000, now);
        let later = now + Duration::from_secs(1000);
        budget.spend(1_000_000, later);
        assert_eq!(budget.wait(later), Some(later + Duration::from_secs(1)));
    }

    #[test]
    fn the_slowest_rate_comes_in_small_portions_and_the_fastest_is_none() {
        let now = Instant::now();
        assert_eq!(budget(1, now).portion(), 512);
        assert_eq!(TokenBucket::new(NonZeroU64::new(1 << 20).unwrap(), Duration::from_millis(4), now).portion(), 4194);
        let mut fastest = budget(u64::MAX, now);
        assert!(fastest.portion() > 1 << 60);
        (0..1000).for_each(|_| fastest.spend(1, now));
        assert_eq!(fastest.paid_at, now + Duration::from_micros(1));
    }

    proptest! {
        /// Whoever spends what it is given at once, whenever it may, gets its rate: no more, and no less while it asks.
        #[test]
        fn the_rate_is_kept_over_any_time(
            rate in LEAST_RATE..1 << 32,
            portions in prop::collection::vec((1..=100_usize, 0..200_u64), 1..300),
        ) {
            let begin = Instant::now();
            let (mut now, mut budget, mut spent, mut idle) = (begin, budget(rate, begin), 0_u64, Duration::ZERO);
            for (percent, pause) in portions {
                let pause = Duration::from_millis(if pause < 100 { 0 } else { pause });
                idle += (now + pause).saturating_duration_since(budget.paid_at.max(now));
                now += pause;
                if let Some(until) = budget.wait(now) {
                    now = until;
                }
                let bytes = (budget.portion() * percent / 100).max(1);
                budget.spend(bytes, now);
                spent += bytes as u64;
                let elapsed = (now - begin).as_secs_f64();
                let most = rate as f64 * (elapsed + BURST.as_secs_f64()) + budget.portion() as f64 + 1.0;
                prop_assert!(spent as f64 <= most, "{spent} bytes in {elapsed} s");
                let least = rate as f64 * (elapsed - idle.as_secs_f64()) * 0.999;
                prop_assert!(spent as f64 >= least - 1.0, "only {spent} bytes in {elapsed} s");
            }
        }
    }
}
