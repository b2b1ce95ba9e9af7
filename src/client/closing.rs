//! What a close code of the relay asks of a client, and how long it waits before it comes again.
//!
//! docs/protocol.md has the reasons, and docs/protocol/vectors.json the same for every client.

use std::time::Duration;

/// For this long a client comes again though both seats are taken.
const OCCUPIED_FOR: Duration = Duration::from_secs(60);

/// The first pause is at most this long. Each further one may be twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(500);

/// No pause is longer, unless the relay asks for it.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// The longest pause that a relay, or something in front of it, can ask for.
const LONGEST_AFTER: Duration = Duration::from_secs(3600);

/// A WebSocket that was open for so long was no failed attempt.
const LASTING: Duration = Duration::from_secs(10);

/// Nor was one that had its peer for so long.
///
/// A line that is cut every few seconds is back at once, and a relay or a peer that ends each meeting at its beginning is
/// not asked more than once a second.
const MEETING: Duration = Duration::from_secs(1);

/// A WebSocket that was given up may still reach the relay, for so long.
///
/// Then it takes the place of the next one with their `side`.
const LATE: Duration = Duration::from_secs(60);

/// The codes of refusals: 4000 and a status.
const REFUSALS: u16 = 4400;

/// What a client does after a close code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    /// Come again: at once, then after growing pauses.
    Retry,
    /// Come again later: after the time that the relay names, or some.
    Later,
    /// Come again each second, for a minute: the client's own old connection may have to be found dead.
    Occupied,
    /// Do not come again without a change.
    Terminal,
}

/// What a client does after this close code. Other codes are those of a network that failed.
fn action_of(code: u16) -> Action {
    match code {
        1002 | 1003 | 1007 | 1009 | 4001 | 4400 | 4401 | 4403 => Action::Terminal,
        1012 | 4429 | 4503 => Action::Later,
        4409 => Action::Occupied,
        _ => Action::Retry,
    }
}

/// The pause before the next attempt.
///
/// It has full jitter: clients that lost one relay do not come at once.
/// `failed` attempts came before. `after` is what the relay named, if it did. `random` is a number from 0 to 1.
fn pause_before(action: Action, failed: u32, after: Option<Duration>, random: f64) -> Duration {
    let after = after.unwrap_or(Duration::from_secs(1)).min(LONGEST_AFTER);
    match action {
        Action::Occupied => Duration::from_millis(500) + Duration::from_secs(1).mul_f64(random),
        Action::Later => after + Duration::from_secs(1).max(after / 4).mul_f64(random),
        Action::Retry | Action::Terminal => LONGEST_PAUSE.min(FIRST_PAUSE * (1 << failed.min(16))).mul_f64(random),
    }
}

/// Whether the relay asks for the pause behind this close code. Then no program cuts it short.
pub(super) fn is_asked_for(code: u16) -> bool {
    action_of(code) == Action::Later
}

/// Counts failed attempts. Times are those of one clock.
#[derive(Debug, Default)]
pub(super) struct Attempts {
    failed: u32,
    open_at: Option<Duration>,
    met_at: Option<Duration>,
    occupied_since: Option<Duration>,
    hurried_at: Option<Duration>,
    gave_up_at: Option<Duration>,
}

impl Attempts {
    /// A WebSocket is open.
    pub(super) fn open(&mut self, now: Duration) {
        self.open_at = Some(now);
    }

    /// The peer is there.
    pub(super) fn meet(&mut self, now: Duration) {
        self.met_at = Some(now);
    }

    /// A WebSocket has ended, or did not open.
    ///
    /// Returns the pause before the next one, if there is to be one.
    pub(super) fn lose(&mut self, code: u16, after: Option<Duration>, now: Duration, random: f64) -> Option<Duration> {
        let is_over = |since: Option<Duration>, least| since.is_some_and(|since| now.saturating_sub(since) >= least);
        if is_over(self.open_at.take(), LASTING) | is_over(self.met_at.take(), MEETING) {
            self.failed = 0;
        }
        let mut action = action_of(code);
        if matches!(code, 1006 | 4002) {
            self.gave_up_at = Some(now);
        }
        if code == 4001 && self.gave_up_at.take().is_some_and(|then| now.saturating_sub(then) <= LATE) {
            action = Action::Retry;
        }
        match action {
            Action::Terminal => return None,
            Action::Occupied => {
                let since = *self.occupied_since.get_or_insert(now);
                if now.saturating_sub(since) > OCCUPIED_FOR {
                    return None;
                }
            }
            // It was no refusal: the client had a seat, or its line failed.
            _ if code < REFUSALS => self.occupied_since = None,
            _ => {}
        }
        let pause = pause_before(action, self.failed, after, random);
        self.failed = self.failed.saturating_add(1);
        Some(pause)
    }
}

impl Attempts {
    /// The program knows that an attempt is of use now.
    ///
    /// Returns whether to try at once. The next pauses are short, as the first attempt on a new network may fail, too. A
    /// program that asks again within 10 s changes nothing: until then the pauses are short anyway.
    pub(super) fn hurry(&mut self, now: Duration) -> bool {
        if self.hurried_at.is_some_and(|before| now.saturating_sub(before) < LASTING) {
            return false;
        }
        self.hurried_at = Some(now);
        self.gave_up_at = Some(now);
        self.failed = 0;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::vectors::vectors;

    #[test]
    fn each_close_code_has_its_action() {
        for vector in vectors()["close_codes"].as_array().unwrap() {
            let code = vector["code"].as_u64().unwrap() as u16;
            let action = format!("{:?}", action_of(code)).to_lowercase();
            assert_eq!(action, vector["action"].as_str().unwrap(), "{code}");
        }
    }

    #[test]
    fn pauses_are_those_of_the_vectors() {
        for case in vectors()["reconnecting"].as_array().unwrap() {
            let seconds =
                |value: &serde_json::Value| value.as_f64().map(|seconds| Duration::from_secs_f64(seconds.max(0.0)));
            let [mut early, mut late] = [(); 2].map(|()| Attempts::default());
            for socket in case["sockets"].as_array().unwrap() {
                let lost = seconds(&socket["lost"]).unwrap();
                let code = socket["code"].as_u64().unwrap() as u16;
                let [shortest, longest] = [(&mut early, 0.0), (&mut late, 1.0)].map(|(attempts, random)| {
                    seconds(&socket["open"]).into_iter().for_each(|now| attempts.open(now));
                    seconds(&socket["met"]).into_iter().for_each(|now| attempts.meet(now));
                    attempts.lose(code, seconds(&socket["after"]), lost, random)
                });
                let what = format!("{}: {shortest:?} to {longest:?}: {socket}", case["about"]);
                if socket["closed"] == true {
                    assert_eq!((shortest, longest), (None, None), "{what}");
                    continue;
                }
                assert!(shortest.unwrap() >= seconds(&socket["least"]).unwrap(), "{what}");
                match seconds(&socket["most"]) {
                    Some(most) => assert_eq!(longest, Some(most), "{what}"),
                    None => assert!(longest.is_some(), "{what}"),
                }
            }
        }
    }
}
