//! Samples of the last minutes, for the page.
//!
//! So it shows a past at once, and not only what has happened since it was opened.

use std::collections::VecDeque;
use std::time::Duration;

use serde_json::{Value, json};

use super::overview::Overview;
use crate::telemetry::events::Outcome;
use crate::telemetry::rejection::Rejection;

/// The time between two samples.
pub(super) const INTERVAL: Duration = Duration::from_secs(2);

/// The number of samples that are kept: those of ten minutes, which take 150 KB.
const KEPT: usize = 301;

/// The samples of the last minutes.
#[derive(Debug, Default)]
pub(super) struct History {
    /// The oldest comes first.
    samples: VecDeque<Sample>,
    /// The number of the next sample.
    next: u64,
}

/// What the relay has counted at a time.
#[derive(Debug)]
struct Sample {
    number: u64,
    /// The time since the start of the relay.
    at: Duration,
    connections: u64,
    waiting: usize,
    paired: usize,
    /// Forwarded bytes and messages since the start.
    bytes: u64,
    messages: u64,
    /// Rejections since the start, in the order of [`Rejection::ALL`].
    rejected: Vec<u64>,
    /// Ends since the start, in the order of [`Outcome::ALL`].
    closed: Vec<u64>,
}

impl History {
    /// Adds a sample, and forgets the oldest beyond the number that is kept.
    pub(super) fn sample(&mut self, overview: &Overview) {
        let counters = overview.counters();
        if self.samples.len() == KEPT {
            self.samples.pop_front();
        }
        self.samples.push_back(Sample {
            number: self.next,
            at: overview.uptime(),
            connections: counters.connections,
            waiting: counters.waiting,
            paired: counters.paired,
            bytes: counters.messages.bytes,
            messages: counters.messages.forwarded,
            rejected: counters.rejected.iter().map(|(_, count)| *count).collect(),
            closed: counters.closed.iter().map(|(_, count)| *count).collect(),
        });
        self.next += 1;
    }

    /// The samples from this number on.
    pub(super) fn since(&self, number: u64) -> Value {
        let samples = self.samples.iter().filter(|sample| sample.number >= number);
        json!({
            "interval_ms": u64::try_from(INTERVAL.as_millis()).unwrap_or(u64::MAX),
            "kept": KEPT,
            "reasons": Rejection::ALL.iter().map(|reason| reason.name()).collect::<Vec<_>>(),
            "outcomes": Outcome::ALL.iter().map(|outcome| outcome.name()).collect::<Vec<_>>(),
            "samples": samples.map(Sample::json).collect::<Vec<_>>(),
        })
    }
}

impl Sample {
    fn json(&self) -> Value {
        let Self { number, at, connections, waiting, paired, bytes, messages, rejected, closed } = self;
        json!({
            "number": number,
            "at_ms": u64::try_from(at.as_millis()).unwrap_or(u64::MAX),
            "connections": connections,
            "waiting": waiting,
            "paired": paired,
            "bytes": bytes,
            "messages": messages,
            "rejected": rejected,
            "closed": closed,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn oldest_samples_are_forgotten() {
        let (mut history, overview) = (History::default(), Overview::empty());
        for _ in 0..KEPT + 5 {
            history.sample(&overview);
        }
        let numbers = |since| -> Vec<u64> {
            let samples = history.since(since);
            samples["samples"].as_array().unwrap().iter().map(|sample| sample["number"].as_u64().unwrap()).collect()
        };
        assert_eq!((numbers(0)[0], numbers(0).len()), (5, KEPT));
        let last = KEPT as u64 + 4;
        assert_eq!((numbers(last), numbers(last + 1)), (vec![last], vec![]));
    }

    #[test]
    fn each_sample_has_a_count_for_each_reason_and_outcome() {
        let mut history = History::default();
        history.sample(&Overview::empty());
        let samples = history.since(0);
        for (names, counts) in [("reasons", "rejected"), ("outcomes", "closed")] {
            let length = |value: &Value| value.as_array().unwrap().len();
            assert!(length(&samples[names]) > 10);
            assert_eq!(length(&samples[names]), length(&samples["samples"][0][counts]));
        }
    }
}
