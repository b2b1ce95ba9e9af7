//! Keep-alive: detects half-open connections by pings. Pure: time is an argument.
//!
//! A client that has been silent for the ping interval is pinged. Any byte from it is a sign of life. Without one it is
//! given up after the ping timeout, extended by the time that a live client may need to get to the ping:
//!
//! 1. **Bytes in flight** come before the ping. Before it can answer, the client has to take the bytes up to the next
//!    [mark](crate::connection::in_flight), at [`SLOWEST`] bytes a second or faster.
//! 2. **Messages** may keep its program busy, and many libraries do not read meanwhile. Each message that it was sent
//!    adds a second, [`MOST_WORK`] at most.
//!
//! A takeover probe (a third client wants a seat of the pair) is an immediate ping, with the same timeout but without
//! the time for messages. So a client that answers within the ping timeout never loses its seat, and the owner of a
//! dead connection is back after that time at the latest. (If the client's system has vanished, its kernel is silent
//! too, and the connection notices within seconds: see `takeover` in [`connection`](crate::connection).)
//!
//! Time is counted in beats, from one timer per worker, so no connection needs a timer of its own. A process that was
//! stopped for a minute has missed one beat and not a minute.

use std::num::NonZeroU32;
use std::time::Duration;

/// The bytes that the slowest client takes in a second: a mobile line at the edge of its cell.
pub(super) const SLOWEST: u32 = 16 * 1024;

/// The longest time that messages can add: a second each for a hundred of them.
const MOST_WORK: Duration = Duration::from_secs(100);

/// Beats in the ping interval.
const BEATS: u32 = 32;

/// The length of a beat if the ping interval is 20 s or longer, or if there is none.
const BEAT: Duration = Duration::from_millis(625);

/// The shortest beat, as each beat costs a look at some of the connections.
const SHORTEST_BEAT: Duration = Duration::from_millis(5);

/// The longest wait in beats: years.
///
/// It is short enough that the order of two wrapping counts is never in doubt.
const LONGEST: u32 = u32::MAX / 4;

/// The configured times, in beats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KeepaliveConfig {
    /// The length of a beat.
    pub(crate) beat: Duration,
    /// The silence after which a client is pinged, if pings are configured.
    interval: Option<u32>,
    /// The time for a sign of life after a ping.
    timeout: u32,
    /// The bytes that the slowest client takes in a beat.
    bytes_per_beat: u32,
}

impl KeepaliveConfig {
    /// Clients are pinged after `interval` of silence, if there is one, and have `timeout` to answer.
    pub(crate) fn new(interval: Option<Duration>, timeout: Duration) -> Self {
        let beat = interval.map_or(BEAT, |interval| (interval / BEATS).clamp(SHORTEST_BEAT, BEAT));
        let bytes_per_beat = (u128::from(SLOWEST) * beat.as_nanos() / 1_000_000_000).max(1);
        let rules = Self { beat, interval: None, timeout: 0, bytes_per_beat: bytes_per_beat as u32 };
        Self { interval: interval.map(|interval| rules.beats(interval)), timeout: rules.beats(timeout).max(1), ..rules }
    }

    /// Whether idle clients are pinged, and not only in takeover probes.
    pub(crate) fn has_pings(&self) -> bool {
        self.interval.is_some()
    }

    /// The bytes that even the slowest client of a closing handshake takes in these beats.
    ///
    /// That is 4 KiB a second, a quarter of [`SLOWEST`]: bytes that count as taken too early are lost at the end.
    pub(crate) fn bytes_in(&self, beats: u32) -> u32 {
        self.bytes_per_beat.saturating_mul(beats) / 4
    }

    /// The time for a sign of life after a ping.
    pub(crate) fn patience(&self) -> Duration {
        self.beat * self.timeout
    }

    /// The time in which the slowest client takes these bytes.
    pub(crate) fn time_for(&self, bytes: u32) -> Duration {
        self.beat * (bytes / self.bytes_per_beat)
    }

    /// The beats that a time takes, rounded up.
    fn beats(&self, time: Duration) -> u32 {
        u32::try_from(time.as_nanos().div_ceil(self.beat.as_nanos())).unwrap_or(LONGEST).min(LONGEST)
    }
}

/// The action that a look at a client calls for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// No action.
    Wait,
    /// Ping the client.
    Ping,
    /// Give the client up.
    Lost,
}

/// The activity of a client since the last look at it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Observation {
    /// Whether anything was received, or the client's silence has an excuse.
    pub(crate) received: bool,
    /// Messages that the client was sent.
    pub(crate) messages: u32,
    /// Bytes that the client has to take before it can answer.
    pub(crate) to_next_answer: u32,
}

/// The keep-alive state of a client.
#[derive(Debug, Default)]
pub(crate) struct Keepalive {
    /// The beat of the last look.
    looked: u32,
    /// The beat of the last sign of life.
    received: u32,
    /// The beat at which its program is idle again, if each message takes it a second.
    busy_until: u32,
    /// The beat at which the client is given up, once it is pinged. Beat 0 counts as beat 1.
    deadline: Option<NonZeroU32>,
}

impl Keepalive {
    /// Whether a ping awaits its answer.
    pub(crate) fn awaits_answer(&self) -> bool {
        self.deadline.is_some()
    }

    /// The state of a client that joins at this beat.
    pub(crate) fn new(now: u32) -> Self {
        Self { looked: now, received: now, busy_until: now, deadline: None }
    }

    /// Beats since the last look.
    pub(crate) fn beats_since_look(&self, now: u32) -> u32 {
        now.wrapping_sub(self.looked)
    }

    /// Looks at a client at this beat.
    pub(crate) fn look(&mut self, now: u32, observation: Observation, rules: &KeepaliveConfig) -> Verdict {
        self.looked = now;
        self.note(now, observation, rules);
        match (self.deadline, rules.interval) {
            (Some(deadline), _) if !is_before(now, deadline.get()) => Verdict::Lost,
            (None, Some(interval)) if now.wrapping_sub(self.received) >= interval => {
                let work = remaining(now, self.busy_until);
                self.deadline = at(patience(now, observation.to_next_answer, rules).wrapping_add(work));
                Verdict::Ping
            }
            _ => Verdict::Wait,
        }
    }

    /// Begins a takeover probe. True if the client has to be pinged for it; not if a ping is outstanding.
    pub(crate) fn probe(&mut self, now: u32, observation: Observation, rules: &KeepaliveConfig) -> bool {
        // An answer that has come since the last look answers the ping before it, and not the probe.
        self.note(now, observation, rules);
        let deadline = patience(now, observation.to_next_answer, rules);
        let is_pinged = self.deadline.is_some_and(|pinged| {
            // A probe cancels the time for messages.
            self.deadline = at(if is_before(deadline, pinged.get()) { deadline } else { pinged.get() });
            true
        });
        if !is_pinged {
            self.deadline = at(deadline);
        }
        !is_pinged
    }

    /// Notes what the client has done, and what it was given to do.
    fn note(&mut self, now: u32, observation: Observation, rules: &KeepaliveConfig) {
        self.add_work(now, observation.messages, rules);
        if observation.received {
            self.received = now;
            self.deadline = None;
        }
    }

    fn add_work(&mut self, now: u32, messages: u32, rules: &KeepaliveConfig) {
        if remaining(now, self.busy_until) == 0 {
            self.busy_until = now;
        }
        if messages > 0 {
            let work = Duration::from_secs(messages.into()).min(MOST_WORK);
            let most = now.wrapping_add(rules.beats(MOST_WORK));
            let busy_until = self.busy_until.wrapping_add(rules.beats(work));
            self.busy_until = if is_before(busy_until, most) { busy_until } else { most };
        }
    }
}

/// The beat until which a client that is pinged now may be silent, without the time for messages.
fn patience(now: u32, to_next_answer: u32, rules: &KeepaliveConfig) -> u32 {
    now.wrapping_add(rules.timeout).wrapping_add(to_next_answer / rules.bytes_per_beat)
}

/// A deadline at this beat.
fn at(beat: u32) -> Option<NonZeroU32> {
    NonZeroU32::new(beat).or(Some(NonZeroU32::MIN))
}

/// Whether a beat comes before another one, also when the count has wrapped around between them.
fn is_before(beat: u32, other: u32) -> bool {
    beat.wrapping_sub(other) > u32::MAX / 2
}

/// The beats from now until another beat, or 0 if that has passed.
fn remaining(now: u32, beat: u32) -> u32 {
    if is_before(now, beat) { beat.wrapping_sub(now) } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: Duration = Duration::from_secs(1);
    const NOTHING: Observation = Observation { received: false, messages: 0, to_next_answer: 0 };

    /// A beat is a second, and takes 16 KiB.
    fn rules() -> KeepaliveConfig {
        KeepaliveConfig { beat: SECOND, interval: Some(BEATS), timeout: 20, bytes_per_beat: SLOWEST }
    }

    /// The beats at which a silent client is pinged and given up.
    ///
    /// The messages of `observation` were sent at the first beat.
    fn silent(observation: Observation) -> (u32, u32) {
        let (rules, mut keepalive, mut pinged) = (rules(), Keepalive::new(7), 0);
        for beat in 1.. {
            let observation = Observation { messages: if beat == 1 { observation.messages } else { 0 }, ..observation };
            match keepalive.look(7 + beat, observation, &rules) {
                Verdict::Wait => {}
                Verdict::Ping => pinged = beat,
                Verdict::Lost => return (pinged, beat),
            }
        }
        unreachable!("the client is never given up");
    }

    #[test]
    fn a_silent_client_is_pinged_and_then_given_up() {
        assert_eq!(silent(NOTHING), (32, 52));
    }

    #[test]
    fn bytes_in_flight_give_more_time() {
        assert_eq!(silent(Observation { to_next_answer: SLOWEST - 1, ..NOTHING }), (32, 52));
        assert_eq!(silent(Observation { to_next_answer: 10 * SLOWEST, ..NOTHING }), (32, 62));
    }

    #[test]
    fn each_message_gives_a_second_and_all_of_them_a_hundred_at_most() {
        assert_eq!(silent(Observation { messages: 1, ..NOTHING }), (32, 52), "that second is over before the ping");
        assert_eq!(silent(Observation { messages: 40, ..NOTHING }), (32, 52 + 9));
        assert_eq!(silent(Observation { messages: 1_000_000, ..NOTHING }), (32, 52 + 69));
    }

    #[test]
    fn a_probe_gives_the_ping_timeout_and_no_time_for_messages() {
        let rules = rules();
        let end = |keepalive: &mut Keepalive| {
            (6..).find(|&beat| keepalive.look(beat, NOTHING, &rules) == Verdict::Lost).unwrap()
        };
        let mut keepalive = Keepalive::new(0);
        let _ = keepalive.look(5, Observation { messages: 90, ..NOTHING }, &rules);
        assert!(keepalive.probe(5, Observation { to_next_answer: 3 * SLOWEST, ..NOTHING }, &rules));
        assert!(!keepalive.probe(5, NOTHING, &rules), "a ping is outstanding");
        assert_eq!(end(&mut keepalive), 25);
        // The timeout of an outstanding ping goes on.
        let mut keepalive = Keepalive::new(0);
        assert_eq!(keepalive.look(32, Observation { messages: 90, ..NOTHING }, &rules), Verdict::Ping);
        assert!(!keepalive.probe(40, NOTHING, &rules));
        assert_eq!(end(&mut keepalive), 60);
        let mut keepalive = Keepalive::new(0);
        assert_eq!(keepalive.look(32, NOTHING, &rules), Verdict::Ping);
        assert!(!keepalive.probe(50, NOTHING, &rules));
        assert_eq!(end(&mut keepalive), 52);
    }

    /// The pong may arrive between the last look and the probe.
    #[test]
    fn a_probe_keeps_an_answer_to_the_ping_before_it() {
        let rules = rules();
        let mut keepalive = Keepalive::new(0);
        assert_eq!(keepalive.look(32, NOTHING, &rules), Verdict::Ping);
        assert!(
            keepalive.probe(33, Observation { received: true, ..NOTHING }, &rules),
            "the answer is not to this ping"
        );
        assert_eq!(keepalive.look(52, NOTHING, &rules), Verdict::Wait);
        assert_eq!(keepalive.look(53, NOTHING, &rules), Verdict::Lost);
    }

    #[test]
    fn a_probe_keeps_the_time_for_messages_of_later_pings() {
        let (rules, mut keepalive) = (rules(), Keepalive::new(0));
        keepalive.probe(1, Observation { messages: 90, ..NOTHING }, &rules);
        assert_eq!(keepalive.look(2, Observation { received: true, ..NOTHING }, &rules), Verdict::Wait);
        assert_eq!(keepalive.look(34, NOTHING, &rules), Verdict::Ping);
        assert_eq!(keepalive.look(110, NOTHING, &rules), Verdict::Wait);
        assert_eq!(keepalive.look(111, NOTHING, &rules), Verdict::Lost);
    }

    #[test]
    fn without_a_ping_interval_only_a_probe_gives_a_client_up() {
        let rules = KeepaliveConfig::new(None, SECOND);
        let mut keepalive = Keepalive::new(0);
        let sent = Observation { to_next_answer: 1 << 20, messages: 7, received: false };
        assert!((1..10_000).all(|beat| keepalive.look(beat, sent, &rules) == Verdict::Wait));
        assert!(keepalive.probe(10_000, NOTHING, &rules));
        assert_eq!(keepalive.look(10_002, NOTHING, &rules), Verdict::Lost);
    }

    #[test]
    fn beats_and_counts_of_beats_are_bounded() {
        let rules = KeepaliveConfig::new(Some(Duration::from_nanos(1)), Duration::MAX);
        assert_eq!((rules.beat, rules.interval, rules.bytes_per_beat), (SHORTEST_BEAT, Some(1), SLOWEST / 200));
        assert_eq!(rules.timeout, LONGEST);
        let rules = KeepaliveConfig::new(Some(Duration::MAX), SECOND);
        assert_eq!((rules.beat, rules.interval, rules.bytes_per_beat), (BEAT, Some(LONGEST), SLOWEST * 5 / 8));
        let rules = KeepaliveConfig::new(Some(20 * SECOND), 20 * SECOND);
        assert_eq!((rules.beat, rules.interval, rules.timeout), (BEAT, Some(BEATS), BEATS));
    }

    proptest! {
        /// Lost if and only if pinged and then silent for the timeout.
        ///
        /// That also holds when the count of beats wraps around.
        #[test]
        fn only_silent_clients_are_given_up(
            begin in prop_oneof![Just(0), Just(u32::MAX - 50), any::<u32>()],
            looks in prop::collection::vec(
                (1..6_u32, prop::bool::weighted(0.1), prop::option::weighted(0.05, any::<bool>()), 0..20_u32, 0..500_000_u32),
                1..200,
            ),
        ) {
            let (rules, mut keepalive) = (rules(), Keepalive::new(begin));
            let (mut time, mut received, mut pinged) = (0_u32, 0_u32, None);
            for (beats, receives, probes, messages, to_next_answer) in looks {
                time += beats;
                if receives {
                    (received, pinged) = (time, None);
                }
                let observation = Observation { received: receives, messages, to_next_answer };
                let most = 20 + 500_000 / SLOWEST + 100;
                match keepalive.look(begin.wrapping_add(time), observation, &rules) {
                    Verdict::Wait => {
                        prop_assert!(pinged.is_some() || time - received < BEATS);
                        prop_assert!(pinged.is_none_or(|pinged| time - pinged < most));
                    }
                    Verdict::Ping => {
                        prop_assert!(pinged.is_none() && time - received >= BEATS);
                        pinged = Some(time);
                    }
                    Verdict::Lost => {
                        prop_assert!(pinged.is_some_and(|pinged| time - pinged >= 20));
                        break;
                    }
                }
                if let Some(answers) = probes {
                    if answers {
                        (received, pinged) = (time, None);
                    }
                    let observation = Observation { received: answers, ..observation };
                    let pings = keepalive.probe(begin.wrapping_add(time), observation, &rules);
                    prop_assert_eq!(pings, pinged.is_none());
                    pinged.get_or_insert(time);
                }
            }
        }
    }
}
