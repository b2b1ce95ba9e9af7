//! A fixed-window rate limiter for log lines, one window for each level. Pure: time is an argument.
//!
//! A window, not a token bucket: the promise is a maximum number of lines in a second, and a report of the rest.

use std::time::{Duration, Instant};
use std::{array, mem};

use log::Level;

/// Maximum lines of a level in a [`SECOND`].
pub(super) const BURST: u32 = 100;
pub(super) const SECOND: Duration = Duration::from_secs(1);

const LEVELS: [Level; Level::Debug as usize] = [Level::Error, Level::Warn, Level::Info, Level::Debug];

/// The windows of all levels.
#[derive(Debug, Default)]
pub(super) struct LogBudget([Window; LEVELS.len()]);

#[derive(Debug, Default)]
struct Window {
    /// Start of the current second.
    began: Option<Instant>,
    /// Lines written in it.
    used: u32,
    /// Events dropped since the last report.
    missed: u64,
    /// Time of the first of them.
    missed_since: Option<Instant>,
}

impl LogBudget {
    /// Takes one line of this level from the current second, and returns false if none is left.
    pub(super) fn take(&mut self, level: Level, now: Instant) -> bool {
        let window = self.window(level);
        if window.began.is_none_or(|began| now.saturating_duration_since(began) >= SECOND) {
            (window.began, window.used) = (Some(now), 0);
        }
        let may = window.used < BURST;
        window.used += u32::from(may);
        may
    }

    /// Counts a dropped event, and returns true if it is the first since the last report.
    pub(super) fn miss(&mut self, level: Level, now: Instant) -> bool {
        let window = self.window(level);
        window.missed += 1;
        window.missed_since.replace(window.missed_since.unwrap_or(now)).is_none()
    }

    /// Whether a report is due, now or later.
    pub(super) fn has_missed(&self) -> bool {
        self.0.iter().any(|window| window.missed > 0)
    }

    /// Takes the counts of dropped events that are due: a second after the first one of their level.
    pub(super) fn take_missed(&mut self, now: Instant) -> impl Iterator<Item = (Level, u64)> + use<> {
        let reports: [_; LEVELS.len()] = array::from_fn(|nth| {
            let window = &mut self.0[nth];
            window.missed_since.take_if(|since| now.saturating_duration_since(*since) >= SECOND)?;
            Some((LEVELS[nth], mem::take(&mut window.missed)))
        });
        reports.into_iter().flatten()
    }

    fn window(&mut self, level: Level) -> &mut Window {
        // The first level is 1. `Trace` shares the window of `Debug`.
        &mut self.0[(level as usize).min(LEVELS.len()) - 1]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(budget: &mut LogBudget, level: Level, now: Instant) -> usize {
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
    fn each_level_has_100_lines_a_second() {
        let (mut budget, now) = (LogBudget::default(), Instant::now());
        for level in LEVELS {
            assert_eq!(taken(&mut budget, level, now), BURST as usize);
            assert_eq!(taken(&mut budget, level, now + SECOND - Duration::from_nanos(1)), 0);
            assert_eq!(taken(&mut budget, level, now + SECOND), BURST as usize);
        }
    }

    #[test]
    fn dropped_events_are_reported_once_and_a_second_later() {
        let (mut budget, now) = (LogBudget::default(), Instant::now());
        assert!(budget.miss(Level::Debug, now));
        assert!(!budget.miss(Level::Debug, now + SECOND / 2), "it is the second");
        assert!(budget.miss(Level::Warn, now + SECOND / 2), "it is the first of its level");
        assert_eq!(budget.take_missed(now + SECOND / 2).count(), 0, "the second is not over");
        assert_eq!(budget.take_missed(now + SECOND).collect::<Vec<_>>(), [(Level::Debug, 2)]);
        assert!(budget.has_missed());
        assert_eq!(budget.take_missed(now + 2 * SECOND).collect::<Vec<_>>(), [(Level::Warn, 1)]);
        assert!(!budget.has_missed());
        assert!(budget.miss(Level::Debug, now + 3 * SECOND), "it is the first since the report");
    }
}
