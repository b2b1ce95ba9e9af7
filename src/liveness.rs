//! Whether a client is still there: when it is asked, and when it is given up.
//!
//! It is asked by a ping when it has been quiet for a while. Any byte is an answer. What was written to it before the
//! ping arrives before the ping, which takes its time on a slow line, so a client has as much more time as that takes.
//!
//! How much that is, pongs tell: each says that all that was written before its ping has been taken. So with what is sent
//! to a client, there goes a ping with a number now and then, and only what was written since the last one that it has
//! answered counts as being on its way. What was taken between two of them, and in what time, tells how fast the rest will
//! be taken; nobody is believed to be slower than [half a megabit in a second](SLOWEST). Should its line have
//! become more than [four times](CAUTION) slower since, with megabytes under way, it is asked too soon. That is the price of
//! knowing within seconds that somebody who was sent as much has died.
//!
//! Time is counted in beats, of which all connections of a worker have the same, so that none needs a timer.

use std::time::Duration;

/// How many bytes a client takes in a second at least that is not given up: half a megabit.
const SLOWEST: u32 = 64 * 1024;

/// What was measured may have been its best moment: this part of it is relied on.
const CAUTION: u32 = 4;

/// What may be on its way to a client at most, in bytes: as much as a socket of Linux holds by default (`tcp_wmem`).
const MOST_ON_ITS_WAY: u32 = 4 << 20;

/// How many beats there are in the time that a client may be quiet.
const BEATS: u32 = 32;

/// The length of a beat, if clients are not to be asked sooner. None is longer: who has no more on its way than is taken
/// in a beat can answer a third one's question in time.
const BEAT: Duration = Duration::from_millis(625);

/// No beat is shorter: looking at everybody has its price.
const SHORTEST_BEAT: Duration = Duration::from_millis(5);

/// No wait is longer, in beats.
const LONGEST: u32 = u32::MAX / 4;

/// What holds for all clients, in beats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rules {
    /// How long a beat is.
    pub(crate) beat: Duration,
    /// After how many quiet beats a client is asked, if ever.
    interval: Option<u32>,
    /// How many beats it has for an answer.
    timeout: u32,
    /// How many bytes the slowest client takes in a beat.
    takes: u32,
}

impl Rules {
    /// A client is asked after it has been quiet for `interval`, if ever, and has `timeout` to answer.
    pub(crate) fn new(interval: Option<Duration>, timeout: Duration) -> Self {
        let beat = interval.map_or(BEAT, |interval| (interval / BEATS).clamp(SHORTEST_BEAT, BEAT));
        // A quarter of what a count holds is years, and leaves no doubt which of two comes first.
        let beats =
            |time: Duration| u32::try_from(time.as_nanos().div_ceil(beat.as_nanos())).unwrap_or(LONGEST).min(LONGEST);
        let takes = (u128::from(SLOWEST) * beat.as_nanos() / 1_000_000_000).max(1);
        Self {
            beat,
            interval: interval.map(beats),
            timeout: beats(timeout).max(1),
            takes: u32::try_from(takes).unwrap_or(u32::MAX),
        }
    }
}

/// What is to be done about a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Nothing.
    Wait,
    /// It is asked whether it is there: anything is an answer.
    Ping,
    /// It is sent a ping with this byte, and its answer to that tells what it has taken.
    Measure { ping: u8 },
    /// It is given up.
    Lost,
}

/// What has happened since the last look.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Seen {
    /// Whether anything of the client came.
    pub(crate) heard: bool,
    /// The ping with a byte that it has answered last, whenever that was.
    pub(crate) echo: Option<u8>,
    /// How many bytes were written to it.
    pub(crate) written: u64,
}

/// What is known of a client.
#[derive(Debug, Default)]
pub(crate) struct Liveness {
    looked: u32,
    /// The beat at which something of it was seen for the last time.
    heard: u32,
    /// The beat at which it is given up, if it was asked.
    deadline: Option<u32>,
    /// How many bytes are on their way to it at most.
    on_its_way: u32,
    /// How many it takes in a beat at least, as far as that was measured.
    takes: u32,
    /// The byte of the last ping with one, and whether it was answered.
    number: u8,
    is_answered: bool,
    /// That ping.
    last: Mark,
    /// The one before that.
    before: Mark,
}

/// A ping with a byte.
#[derive(Clone, Copy, Debug, Default)]
struct Mark {
    beat: u32,
    /// How many bytes were written behind it, and before the next one.
    behind: u32,
}

impl Liveness {
    /// Of a client that comes at this beat.
    pub(crate) fn new(now: u32) -> Self {
        // Its opening handshake is as good as a ping.
        let last = Mark { beat: now, behind: 0 };
        Self { looked: now, heard: now, is_answered: true, last, ..Self::default() }
    }

    /// Whether this beat has not been looked at.
    pub(crate) fn is_due(&self, now: u32) -> bool {
        self.looked != now
    }

    /// Looks at a client at this beat, when the last one that came too late was `late`.
    pub(crate) fn look(&mut self, now: u32, late: u32, seen: Seen, rules: &Rules) -> Verdict {
        let beats = now.wrapping_sub(self.looked);
        self.looked = now;
        let written = u32::try_from(seen.written).unwrap_or(u32::MAX);
        let rest = self.on_its_way.saturating_sub(self.takes(rules).saturating_mul(beats));
        self.on_its_way = rest.saturating_add(written).min(MOST_ON_ITS_WAY);
        self.last.behind = self.last.behind.saturating_add(written);
        if !self.is_answered && seen.echo == Some(self.number) {
            self.is_answered = true;
            self.measure(late, rules);
        }
        if seen.heard {
            self.heard = now;
            self.deadline = None;
        }
        match (self.deadline, rules.interval) {
            (Some(deadline), _) if now.wrapping_sub(deadline) < u32::MAX / 2 => Verdict::Lost,
            (None, Some(interval)) if now.wrapping_sub(self.heard) >= interval => {
                let way = self.on_its_way / self.takes(rules);
                self.deadline = Some(now.wrapping_add(rules.timeout).wrapping_add(way));
                Verdict::Ping
            }
            (None, Some(_)) if !self.is_near(rules) && self.may_measure() => {
                Verdict::Measure { ping: self.number.wrapping_add(1) }
            }
            _ => Verdict::Wait,
        }
    }

    /// It is sent a ping with a byte, behind all that was looked at.
    pub(crate) fn pinged(&mut self) {
        self.number = self.number.wrapping_add(1);
        self.is_answered = false;
        self.before = std::mem::replace(&mut self.last, Mark { beat: self.looked, behind: 0 });
    }

    /// Whether a ping would get to it within about a beat.
    pub(crate) fn is_near(&self, rules: &Rules) -> bool {
        self.on_its_way <= self.takes(rules)
    }

    /// One such ping at a time; but one may be lost, as a flood of the client's own pings drives it out.
    fn may_measure(&self) -> bool {
        self.is_answered || self.looked.wrapping_sub(self.last.beat) >= BEATS
    }

    /// It has taken all that was written before the last ping; and what was written between that and the one before it, since
    /// the one before.
    fn measure(&mut self, late: u32, rules: &Rules) {
        self.on_its_way = self.on_its_way.min(self.last.behind);
        let beats = self.looked.wrapping_sub(self.before.beat);
        // A beat that came too late was longer than a beat, and little says nothing.
        let is_timed = self.looked.wrapping_sub(late) > beats;
        if is_timed && self.before.behind > rules.takes {
            self.takes = self.before.behind / beats.saturating_add(1) / CAUTION;
        }
    }

    /// How many bytes it takes in a beat, at least.
    fn takes(&self, rules: &Rules) -> u32 {
        self.takes.max(rules.takes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::VecDeque;

    const SECOND: Duration = Duration::from_secs(1);

    /// No beat that is looked at here is late.
    const LATE: u32 = u32::MAX / 2;

    fn wrote(written: u64) -> Seen {
        Seen { written, ..Seen::default() }
    }

    /// A beat is a second, and takes 64 KiB.
    fn rules() -> Rules {
        Rules { beat: SECOND, interval: Some(BEATS), timeout: 20, takes: SLOWEST }
    }

    /// The beats at which a client is asked for the last time and given up that is silent from the beginning. Until it is
    /// asked for its silence, so many bytes are written to it at each beat.
    fn silent(written: u64) -> (u32, u32) {
        let (rules, mut liveness, mut asked) = (rules(), Liveness::new(7), 0);
        for beat in 1.. {
            match liveness.look(7 + beat, LATE, wrote(if beat <= BEATS { written } else { 0 }), &rules) {
                Verdict::Wait => {}
                Verdict::Ping => asked = beat,
                Verdict::Measure { .. } => liveness.pinged(),
                Verdict::Lost => return (asked, beat),
            }
        }
        unreachable!("it is never given up");
    }

    #[test]
    fn who_is_silent_is_asked_and_then_given_up() {
        assert_eq!(silent(0), (32, 52));
    }

    #[test]
    fn what_is_on_its_way_gives_more_time() {
        assert_eq!(silent(SLOWEST.into()), (32, 53), "what was written at the beat of the ping");
        assert_eq!(silent(u64::from(SLOWEST) + 10 * 1024), (32, 52 + 5 + 1));
        assert_eq!(silent(u64::MAX), (32, 52 + 64), "no more than a socket holds");
    }

    #[test]
    fn who_is_never_asked_is_never_given_up() {
        let rules = Rules::new(None, SECOND);
        let mut liveness = Liveness::new(0);
        assert!((1..10_000).all(|beat| liveness.look(beat, LATE, wrote(1 << 20), &rules) == Verdict::Wait));
    }

    #[test]
    fn beats_are_neither_too_short_nor_too_long_and_counts_never_too_large() {
        let rules = Rules::new(Some(Duration::from_nanos(1)), Duration::MAX);
        assert_eq!((rules.beat, rules.interval, rules.takes), (SHORTEST_BEAT, Some(1), SLOWEST / 200));
        assert_eq!(rules.timeout, LONGEST);
        let rules = Rules::new(Some(Duration::MAX), SECOND);
        assert_eq!((rules.beat, rules.interval, rules.takes), (BEAT, Some(LONGEST), SLOWEST * 5 / 8));
        let rules = Rules::new(Some(20 * SECOND), 20 * SECOND);
        assert_eq!((rules.beat, rules.interval, rules.timeout), (BEAT, Some(BEATS), BEATS));
    }

    #[test]
    fn near_is_who_has_little_on_its_way() {
        let (rules, mut liveness) = (rules(), Liveness::new(0));
        assert!(liveness.is_near(&rules));
        let _ = liveness.look(1, LATE, wrote(u64::from(SLOWEST) + 1), &rules);
        assert!(!liveness.is_near(&rules));
        let _ = liveness.look(2, LATE, wrote(0), &rules);
        assert!(liveness.is_near(&rules));
    }

    #[test]
    fn what_a_client_has_taken_its_pongs_tell() {
        let (rules, mut liveness) = (rules(), Liveness::new(0));
        let seen = |echo, written| Seen { heard: true, echo, written };
        assert_eq!(liveness.look(1, LATE, seen(None, 4 << 20), &rules), Verdict::Measure { ping: 1 });
        liveness.pinged();
        assert_eq!(liveness.look(2, LATE, seen(Some(0), 100), &rules), Verdict::Wait, "that is no answer");
        assert!(!liveness.is_near(&rules));
        assert_eq!(liveness.look(2, LATE, seen(Some(1), 0), &rules), Verdict::Wait);
        assert_eq!(liveness.on_its_way, 100);
        // Four mebibytes in three beats at most, and a quarter of that is relied on.
        assert_eq!(liveness.takes(&rules), (4 << 20) / 3 / 4);
        // It dies. What was sent to it since would have been taken soon.
        assert_eq!(liveness.look(3, LATE, seen(Some(1), 1 << 20), &rules), Verdict::Measure { ping: 2 });
        liveness.pinged();
        let beats = (4..).find(|&beat| {
            let _ = liveness.look(beat, LATE, seen(Some(1), 0), &rules);
            liveness.is_near(&rules)
        });
        assert_eq!(beats, Some(6), "after three beats");
    }

    #[test]
    fn an_answer_that_does_not_come_is_not_waited_for_for_ever() {
        let (rules, mut liveness) = (rules(), Liveness::new(0));
        let seen = Seen { heard: true, echo: None, written: 1 << 20 };
        assert_eq!(liveness.look(1, LATE, seen, &rules), Verdict::Measure { ping: 1 });
        liveness.pinged();
        let again = (2..).find(|&beat| liveness.look(beat, LATE, seen, &rules) == Verdict::Measure { ping: 2 });
        assert_eq!(again, Some(1 + BEATS));
    }

    #[test]
    fn what_is_taken_while_a_beat_is_late_is_no_measure() {
        for (late, takes) in [(0, (4 << 20) / 3 / 4), (1, SLOWEST), (2, SLOWEST)] {
            let (rules, mut liveness) = (rules(), Liveness::new(1));
            let _ = liveness.look(1, LATE, wrote(4 << 20), &rules);
            liveness.pinged();
            let _ = liveness.look(3, late, Seen { echo: Some(1), ..wrote(0) }, &rules);
            assert_eq!((liveness.on_its_way, liveness.takes(&rules)), (0, takes), "late at {late}");
        }
    }

    /// A client that takes what it is sent at a pace of its own, and answers a ping when it comes to it.
    #[derive(Default)]
    struct Reader {
        written: u64,
        taken: u64,
        /// Where pings are in the stream.
        pings: VecDeque<(u64, u8)>,
        echo: Option<u8>,
    }

    impl Reader {
        fn take(&mut self, bytes: u64) {
            self.taken = self.written.min(self.taken + bytes);
            while let Some((_, ping)) = self.pings.pop_front_if(|(place, _)| *place <= self.taken) {
                self.echo = Some(ping);
            }
        }
    }

    proptest! {
        /// Whatever happens, also when the count of beats begins anew: nobody is given up who was heard in time or was
        /// not asked, and everybody is who was not.
        #[test]
        fn only_the_silent_are_given_up(
            begin in prop_oneof![Just(0), Just(u32::MAX - 50), any::<u32>()],
            looks in prop::collection::vec((1..6_u32, prop::bool::weighted(0.1), 0..100_000_u64), 1..200),
        ) {
            let (rules, mut liveness) = (rules(), Liveness::new(begin));
            let (mut time, mut heard, mut asked) = (0_u32, 0_u32, None);
            for (beats, hears, written) in looks {
                time += beats;
                if hears {
                    (heard, asked) = (time, None);
                }
                match liveness.look(begin.wrapping_add(time), LATE, Seen { heard: hears, echo: None, written }, &rules) {
                    Verdict::Wait => {
                        prop_assert!(asked.is_some() || time - heard < BEATS);
                        prop_assert!(asked.is_none_or(|asked| time - asked < 20 + 64));
                    }
                    Verdict::Ping => {
                        prop_assert!(asked.is_none() && time - heard >= BEATS);
                        asked = Some(time);
                    }
                    Verdict::Measure { .. } => {
                        prop_assert!(asked.is_none());
                        liveness.pinged();
                    }
                    Verdict::Lost => {
                        prop_assert!(asked.is_some_and(|asked| time - asked >= 20));
                        break;
                    }
                }
            }
        }

        /// What a client has not taken is known to be on its way, however fast it is and whichever pings are lost.
        #[test]
        fn nobody_is_believed_to_be_nearer_than_it_is(
            pace in prop_oneof![Just(u64::from(SLOWEST)), u64::from(SLOWEST)..1_000_000, 1_000_000..100_000_000_u64],
            begin in prop_oneof![Just(0), Just(u32::MAX - 50)],
            looks in prop::collection::vec(
                (0..4_u32, prop_oneof![Just(0), 0..100_000_u64, 0..10_000_000_u64], prop::bool::weighted(0.1)),
                1..200,
            ),
        ) {
            let (rules, mut liveness, mut reader, mut now) = (rules(), Liveness::new(begin), Reader::default(), begin);
            let quiet = std::iter::repeat_n((1, 0, false), 80);
            for (beats, bytes, loses) in looks.into_iter().chain(quiet) {
                reader.take(pace * u64::from(beats));
                now = now.wrapping_add(beats);
                let written = bytes.min(u64::from(MOST_ON_ITS_WAY) - (reader.written - reader.taken));
                reader.written += written;
                let seen = Seen { heard: true, echo: reader.echo, written };
                let verdict = liveness.look(now, now.wrapping_sub(1 << 30), seen, &rules);
                prop_assert!(u64::from(liveness.on_its_way) >= reader.written - reader.taken);
                prop_assert!(u64::from(liveness.takes(&rules)) <= pace);
                match verdict {
                    // Some of them get lost.
                    Verdict::Measure { ping } => {
                        liveness.pinged();
                        if !loses {
                            reader.pings.push_back((reader.written, ping));
                        }
                    }
                    verdict => prop_assert_eq!(verdict, Verdict::Wait),
                }
            }
            prop_assert!(liveness.is_near(&rules));
        }
    }
}
