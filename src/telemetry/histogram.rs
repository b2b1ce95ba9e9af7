//! Histograms of durations, which one thread counts and any thread reads.
//!
//! A duration is counted in one bucket, and added to a sum in microseconds. So counting takes no locked instruction and no
//! floating point.

use std::iter;
use std::time::Duration;

use super::counter::Counter;

/// The number of upper bounds of a histogram.
const BOUNDS: usize = 12;

/// The upper bounds of the buckets of a histogram, in milliseconds, which grow.
pub(super) type Bounds = [u64; BOUNDS];

/// The bounds for waits of first sides.
///
/// From a peer that comes at once, to the longest usual `--pair-ttl`.
pub(super) const WAITS: Bounds = [10, 100, 500, 1000, 2500, 5000, 15_000, 30_000, 60_000, 120_000, 300_000, 3_600_000];

/// The bounds for durations of pairs: from one that fails at once, to a week.
pub(super) const DURATIONS: Bounds = [
    100,
    1000,
    10_000,
    60_000,
    300_000,
    900_000,
    1_800_000,
    3_600_000,
    14_400_000,
    43_200_000,
    86_400_000,
    604_800_000,
];

/// The histogram of one worker.
#[derive(Debug, Default)]
pub(super) struct Histogram {
    /// The last bucket has no upper bound.
    buckets: [Counter; BOUNDS + 1],
    microseconds: Counter,
}

impl Histogram {
    /// Counts a duration. The bounds are the same each time.
    pub(super) fn observe(&self, bounds: &Bounds, duration: Duration) {
        let microseconds = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        self.microseconds.add(microseconds.min(u64::MAX - self.microseconds.get()));
        self.buckets[bounds.partition_point(|&bound| bound.saturating_mul(1000) < microseconds)].add(1);
    }
}

/// How long something took: the number of durations in each range, since the start of the relay.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Distribution {
    /// The longest duration of each range, and how many there were in it.
    ///
    /// A range begins where the one before it ends. The last one has no end, which is [`Duration::MAX`].
    pub ranges: Vec<(Duration, u64)>,
    /// The sum of all durations.
    pub sum: Duration,
}

impl Distribution {
    /// The sum of the histograms of all workers, which have the same bounds.
    pub(super) fn of<'a>(bounds: &Bounds, workers: impl Iterator<Item = &'a Histogram>) -> Self {
        let ends = bounds.iter().map(|&bound| Duration::from_millis(bound)).chain(iter::once(Duration::MAX));
        let mut ranges: Vec<_> = ends.map(|end| (end, 0)).collect();
        let mut sum = Duration::ZERO;
        for histogram in workers {
            sum = sum.saturating_add(Duration::from_micros(histogram.microseconds.get()));
            for ((_, count), bucket) in ranges.iter_mut().zip(&histogram.buckets) {
                *count += bucket.get();
            }
        }
        Self { ranges, sum }
    }

    /// The number of all durations.
    pub fn count(&self) -> u64 {
        self.ranges.iter().map(|(_, count)| count).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn distribution(bounds: &Bounds, durations: &[Duration]) -> Distribution {
        let histograms = [Histogram::default(), Histogram::default()];
        for (duration, histogram) in durations.iter().zip(histograms.iter().cycle()) {
            histogram.observe(bounds, *duration);
        }
        Distribution::of(bounds, histograms.iter())
    }

    #[test]
    fn bounds_grow() {
        for bounds in [WAITS, DURATIONS] {
            assert!(bounds.is_sorted_by(|one, next| one < next));
        }
    }

    #[test]
    fn duration_is_in_the_first_range_that_does_not_end_before_it() {
        let millisecond = Duration::from_millis(1);
        for (nth, bound) in WAITS.into_iter().map(Duration::from_millis).enumerate() {
            let Distribution { ranges, sum } = distribution(&WAITS, &[bound, bound + millisecond]);
            assert_eq!((ranges[nth], ranges[nth + 1].1), ((bound, 1), 1));
            assert_eq!(sum, bound * 2 + millisecond);
        }
    }

    #[test]
    fn workers_are_added_up() {
        let distribution = distribution(&DURATIONS, &[Duration::ZERO, Duration::from_secs(1), Duration::from_secs(1)]);
        assert_eq!((distribution.count(), distribution.sum), (3, Duration::from_secs(2)));
        assert_eq!([0, 1, 2].map(|nth| distribution.ranges[nth].1), [1, 2, 0]);
    }

    #[test]
    fn no_duration_is_too_long() {
        let distribution = distribution(&WAITS, &[Duration::MAX; 4]);
        assert_eq!(distribution.ranges.last(), Some(&(Duration::MAX, 4)));
    }
}
