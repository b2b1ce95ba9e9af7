//! How many lines may be written. Pure: time is an argument.

use std::array;
use std::time::Instant;

use log::Level;

use super::logging::{BURST, SECOND};

/// What may be written of each level, and what was not.
#[derive(Debug, Default)]
pub(super) struct Budget([Window; Level::Debug as usize]);

#[derive(Debug, Default)]
struct Window {
    /// When its second began, and how many lines were written in it.
    began: Option<Instant>,
    used: u32,
    /// How many events were not logged since the last time that was told, and since when.
    missed: u64,
    missed_since: Option<Instant>,
}

impl Budget {
    /// Whether one more line of this level may be written.
    pub(super) fn take(&mut self, level: Level, now: Instant) -> bool {
        let window = self.window(level);
        if window.began.is_none_or(|began| now.saturating_duration_since(began) >= SECOND) {
            (window.began, window.used) = (Some(now), 0);
        }
        let may = window.used < BURST;
        window.used += u32::from(may);
        may
    }

    /// Counts an event that is not logged. True if it is the first one since the last time that was told.
    pub(super) fn miss(&mut self, level: Level, now: Instant) -> bool {
        let window = self.window(level);
        window.missed += 1;
        window.missed_since.replace(window.missed_since.unwrap_or(now)).is_none()
    }

    /// Whether something is to be told, now or later.
    pub(super) fn has_missed(&self) -> bool {
        self.0.iter().any(|window| window.missed > 0)
    }

    /// Of which levels how many events were not logged, if the first of them was a second ago. They count as told.
    pub(super) fn missed(&mut self, now: Instant) -> impl Iterator<Item = (Level, u64)> + use<> {
        let levels = [Level::Error, Level::Warn, Level::Info, Level::Debug];
        let told: [_; Level::Debug as usize] = array::from_fn(|nth| {
            let window = &mut self.0[nth];
            let since = window.missed_since.take_if(|since| now.saturating_duration_since(*since) >= SECOND)?;
            debug_assert!(since <= now);
            Some((levels[nth], std::mem::take(&mut window.missed)))
        });
        told.into_iter().flatten()
    }

    fn window(&mut self, level: Level) -> &mut Window {
        // The first level is 1; what is beyond the last one counts as that.
        &mut self.0[(level as usize).min(Level::Debug as usize) - 1]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn taken(budget: &mut Budget, level: Level, now: Instant) -> usize {
        (0..3 * BURST)
            .filter(|_| {
                budget.take(level, now) || {
                    budget.miss(level, now);
                    false
                }
            })
            .count()
    }

    #[test]
    fn each_level_has_a_burst_in_a_second() {
        let (mut budget, now) = (Budget::default(), Instant::now());
        for level in [Level::Error, Level::Warn, Level::Info, Level::Debug] {
            assert_eq!(taken(&mut budget, level, now), BURST as usize);
            assert_eq!(taken(&mut budget, level, now + SECOND - Duration::from_nanos(1)), 0);
            assert_eq!(taken(&mut budget, level, now + SECOND), BURST as usize);
        }
    }

    #[test]
    fn what_was_not_logged_is_told_once_and_a_second_later() {
        let (mut budget, now) = (Budget::default(), Instant::now());
        assert!(budget.miss(Level::Debug, now));
        assert!(!budget.miss(Level::Debug, now + SECOND / 2), "it is not the first");
        assert!(budget.miss(Level::Warn, now + SECOND / 2), "another level's is");
        assert_eq!(budget.missed(now + SECOND / 2).count(), 0, "it is not over");
        assert_eq!(budget.missed(now + SECOND).collect::<Vec<_>>(), [(Level::Debug, 2)]);
        assert!(budget.has_missed());
        assert_eq!(budget.missed(now + 2 * SECOND).collect::<Vec<_>>(), [(Level::Warn, 1)]);
        assert!(!budget.has_missed());
        assert!(budget.miss(Level::Debug, now + 3 * SECOND), "the next one is a first one again");
    }
}
