//! The bytes in flight to a client: sent, and not known to be taken. Pure: no I/O, no clock.
//!
//! The kernel's acknowledgements do not tell what a client has taken: behind a proxy, they are the proxy's. Pongs do. A
//! *mark* is a ping with a number as its payload, sent between two batches. Its pong says that everything before it was
//! taken. One pong may answer several pings (RFC 6455, section 5.5.3), so it settles all earlier marks too.
//!
//! Each mark costs the client a packet, so two rules place them:
//!
//! 1. At each beat, a mark follows if at least [`LEAST_MARKED`] bytes came after the last one.
//! 2. Within a beat, a token bucket allows a burst of marks, [`FINE`] bytes apart at first and [`COARSE`] after that. A
//!    burst of megabytes into a proxy's buffers takes minutes on a slow line, and its marks bring pongs back meanwhile.
//!
//! A client with [`MOST_MARKS`] unanswered marks gets no more of them. A relay that is configured without pings sends
//! no marks.
//!
//! The answers also set the [window](super::window): the bytes that may be in flight. Two more rules serve it:
//!
//! 3. While the client has never answered, one mark follows the first [`FIRST_PART`].
//! 4. A mark follows each quarter of a window that is half full.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::keepalive::SLOWEST;
use super::window::{Flow, Period};

/// The least bytes that are worth a mark.
pub(crate) const LEAST_MARKED: u32 = 16 << 10;

/// The distance of the first marks of a burst, in bytes: four seconds at 16 KiB/s.
const FINE: u32 = 64 << 10;

/// The distance of the later marks of a burst, in bytes.
const COARSE: u32 = 512 << 10;

/// The size of the token bucket.
///
/// A burst has marks for 13 MiB, as much as proxies and kernels were seen to hold.
const MOST_TOKENS: u8 = 32;

/// With fewer tokens than this, marks are [`COARSE`].
const FINE_TOKENS: u8 = 24;

/// Tokens that a beat adds.
const TOKENS_PER_BEAT: u32 = 2;

/// The most unanswered marks.
///
/// Node's `ws` ends a connection with 60 pings whose pongs wait behind its own stream. And it is below 256, so that no two
/// marks have the same number, which is a byte.
const MOST_MARKS: usize = 48;

/// The most bytes that are counted.
///
/// Two sockets of a proxy and one of the relay hold no more by Linux' defaults (`tcp_rmem`, `tcp_wmem`).
const MOST_BYTES: u32 = 32 << 20;

/// The least bytes before the first mark, so that its answer is prompt: two seconds at 2 KiB/s.
const FIRST_PART: u32 = 4 << 10;

/// The time for the first answer, or a quarter of the ping timeout if that is less.
///
/// The window of a client that takes longer is no bound until it answers.
const FIRST_ANSWER: Duration = Duration::from_secs(2);

/// The time for a later answer, while parts of a message come from the client.
///
/// Its pongs wait behind that message, so its window is then no bound.
const ANSWER_BEHIND_A_MESSAGE: Duration = Duration::from_secs(10);

/// The time for a later answer, while whole messages come from the client.
///
/// A client that has become slow has the time for the bytes before the mark besides. Without a bound on its window, the write
/// timeout decides about a client that sends and never reads.
const LATER_ANSWER: Duration = Duration::from_secs(30);

/// What came from a client between two beats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    /// Nothing, so keep-alive decides about it.
    Nothing,
    /// Whole messages, pings or pongs.
    Frames,
    /// A part of a message at last.
    Part,
}

/// A mark without a pong so far.
#[derive(Clone, Copy, Debug)]
struct Mark {
    number: u8,
    /// Bytes between the mark before it and this one.
    bytes: u32,
    /// Bytes in flight when it was sent.
    ahead: u32,
    sent_at: Instant,
}

/// Unanswered marks, the oldest first.
#[derive(Debug)]
struct Marks {
    queue: VecDeque<Mark>,
    period: Period,
    /// When the last answer came, if one has come.
    answered_at: Instant,
    /// The number of first marks with answers that cannot tell that the client is slow.
    unmeasured: usize,
}

impl Marks {
    fn new(since: Instant) -> Self {
        Self { queue: VecDeque::new(), period: Period::new(since), answered_at: since, unmeasured: 0 }
    }
}

/// The bytes in flight to a client, and the marks among them.
#[derive(Debug)]
pub(crate) struct InFlight {
    /// Unanswered marks. None in an idle connection.
    marks: Option<Box<Marks>>,
    /// Bytes before the last mark.
    marked: u32,
    /// Bytes behind the last mark.
    unmarked: u32,
    flow: Flow,
    /// The number of the last mark.
    number: u8,
    tokens: u8,
    /// Whether marks are sent at all.
    has_marks: bool,
    /// Whether the client has answered a mark since [`take_answered`](Self::take_answered).
    was_answered: bool,
}

impl InFlight {
    /// No bytes in flight, in a direction with marks or without.
    pub(crate) fn new(has_marks: bool) -> Self {
        Self {
            marks: None,
            marked: 0,
            unmarked: 0,
            flow: Flow::new(),
            number: 0,
            tokens: MOST_TOKENS,
            has_marks,
            was_answered: false,
        }
    }

    /// Adds bytes that are being sent.
    pub(crate) fn add(&mut self, bytes: usize) {
        self.unmarked = self.unmarked.saturating_add(u32::try_from(bytes).unwrap_or(u32::MAX)).min(MOST_BYTES);
    }

    /// Whether a mark is due within a beat.
    pub(crate) fn is_mark_due(&self) -> bool {
        // No mark follows fewer bytes than the first one.
        self.has_marks && self.unmarked >= FIRST_PART && self.is_mark_worth_it()
    }

    fn is_mark_worth_it(&self) -> bool {
        let distance = if self.tokens > FINE_TOKENS { FINE } else { COARSE };
        self.tokens > 0 && self.unmarked >= distance
            || self.flow.wants_mark(self.bytes(), self.unmarked)
            || self.needs_first_mark()
    }

    /// The number of the mark that is due within a beat.
    pub(crate) fn mark_in_burst(&mut self, now: Instant) -> Option<u8> {
        let number = self.mark(now)?;
        self.tokens = self.tokens.saturating_sub(1);
        Some(number)
    }

    /// The number of the mark for a beat or a close frame, if there are enough bytes for one.
    pub(crate) fn mark_at_rest(&mut self, now: Instant) -> Option<u8> {
        if self.unmarked < LEAST_MARKED { None } else { self.mark(now) }
    }

    /// Refills the token bucket after some `beats`, in which even the slowest client takes so many `bytes`.
    ///
    /// Without marks, nothing else is known of the bytes that a client has taken. A client has `patience` to answer a ping.
    ///
    /// True if the client has answered no mark for so long that its window is no bound any more.
    pub(crate) fn refill(&mut self, beats: u32, bytes: u32, heard: Heard, patience: Duration, now: Instant) -> bool {
        if !self.has_marks {
            self.unmarked = self.unmarked.saturating_sub(bytes);
        }
        let tokens = u32::from(self.tokens).saturating_add(beats.saturating_mul(TOKENS_PER_BEAT));
        self.tokens = u8::try_from(tokens).unwrap_or(u8::MAX).min(MOST_TOKENS);
        let Some(marks) = &self.marks else { return false };
        let Some(mark) = marks.queue.front() else {
            if marks.period.is_stale(now) {
                self.marks = None;
            }
            return false;
        };
        let waited = now.saturating_duration_since(mark.sent_at.max(marks.answered_at));
        let is_overdue = match heard {
            _ if !self.is_answering() => waited >= FIRST_ANSWER.min(patience / 4),
            Heard::Nothing => false,
            Heard::Frames => waited >= LATER_ANSWER + Duration::from_secs((mark.ahead / SLOWEST).into()),
            Heard::Part => waited >= ANSWER_BEHIND_A_MESSAGE,
        };
        if is_overdue {
            self.flow.lift();
            if self.is_answering() {
                self.excuse_answers();
            }
        }
        is_overdue
    }

    /// Notes a pong with this number.
    ///
    /// It is ignored if no unanswered mark has the number: pongs may be unsolicited.
    pub(crate) fn answered(&mut self, number: u8, now: Instant) {
        let Some(marks) = &mut self.marks else { return };
        let Some(nth) = marks.queue.iter().position(|mark| mark.number == number) else { return };
        let Mark { ahead, sent_at, .. } = marks.queue[nth];
        let is_measured = nth >= marks.unmeasured;
        marks.unmeasured = marks.unmeasured.saturating_sub(nth + 1);
        let taken: u32 = marks.queue.drain(..=nth).map(|mark| mark.bytes).sum();
        self.marked -= taken;
        self.was_answered = true;
        marks.answered_at = now;
        self.flow.begin();
        let time = now.saturating_duration_since(sent_at);
        if is_measured {
            self.flow.adapt(&mut marks.period, time, ahead, taken);
        } else {
            self.flow.grow(&mut marks.period, time, ahead, taken);
        }
        self.flow.learn(&mut marks.period, is_measured, now);
    }

    /// Notes that answers wait for another reason than bytes in flight.
    ///
    /// They do not tell that the client is slow. If they come soon, they still tell that it is fast.
    pub(crate) fn excuse_answers(&mut self) {
        if let Some(marks) = &mut self.marks {
            marks.unmeasured = marks.queue.len();
        }
    }

    /// Whether the peer may send more.
    pub(crate) fn has_room(&self) -> bool {
        !self.has_marks || self.flow.is_open(self.bytes())
    }

    /// Notes that the peer waits for the window.
    pub(crate) fn shut(&mut self) {
        if let Some(marks) = &mut self.marks {
            marks.period.was_shut = true;
        }
    }

    /// Whether the client takes bytes as fast as they come, as far as is known.
    pub(crate) fn is_fast(&self) -> bool {
        !self.has_marks || self.flow.is_fast()
    }

    /// Whether no mark is unanswered, and fewer bytes are in flight than are worth one.
    pub(crate) fn is_little(&self) -> bool {
        self.marked == 0
            && self.unmarked < LEAST_MARKED
            && self.marks.as_ref().is_none_or(|marks| marks.queue.is_empty())
    }

    /// Bytes in flight, at most.
    pub(crate) fn bytes(&self) -> u32 {
        self.marked.saturating_add(self.unmarked).min(MOST_BYTES)
    }

    /// Bytes that the client has to take before it can answer: up to the first mark, if there is one.
    pub(crate) fn to_next_answer(&self) -> u32 {
        self.marks.as_ref().and_then(|marks| marks.queue.front()).map_or(self.bytes(), |mark| mark.bytes)
    }

    /// Whether the client has answered a mark since the last call.
    pub(crate) fn take_answered(&mut self) -> bool {
        std::mem::take(&mut self.was_answered)
    }

    /// Whether the client has ever answered a mark.
    pub(crate) fn is_answering(&self) -> bool {
        self.flow.is_answering()
    }

    /// Whether nothing is known of the client, and no mark asks.
    fn needs_first_mark(&self) -> bool {
        self.has_marks && !self.is_answering() && self.marks.as_ref().is_none_or(|marks| marks.queue.is_empty())
    }

    fn mark(&mut self, now: Instant) -> Option<u8> {
        if !self.has_marks {
            return None;
        }
        let ahead = self.bytes();
        let marks = self.marks.get_or_insert_with(|| Box::new(Marks::new(now)));
        if marks.queue.len() >= MOST_MARKS {
            return None;
        }
        self.number = self.number.wrapping_add(1);
        marks.queue.push_back(Mark { number: self.number, bytes: self.unmarked, ahead, sent_at: now });
        self.marked = self.marked.saturating_add(std::mem::take(&mut self.unmarked));
        Some(self.number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PATIENCE: Duration = Duration::from_secs(20);

    /// The mark that is due in a burst.
    fn burst(in_flight: &mut InFlight) -> Option<u8> {
        in_flight.is_mark_due().then(|| in_flight.mark_in_burst(Instant::now()))?
    }

    #[test]
    fn a_pong_settles_all_marks_before_it() {
        let mut in_flight = InFlight::new(true);
        let numbers: Vec<_> = (0..3)
            .map(|_| {
                in_flight.add(100_000);
                burst(&mut in_flight).unwrap()
            })
            .collect();
        in_flight.add(7);
        assert_eq!((in_flight.bytes(), in_flight.to_next_answer()), (300_007, 100_000));
        assert!(!in_flight.is_answering());
        in_flight.answered(numbers[1], Instant::now());
        assert_eq!((in_flight.bytes(), in_flight.to_next_answer()), (100_007, 100_000));
        assert!(in_flight.is_answering());
        assert_eq!([in_flight.take_answered(), in_flight.take_answered()], [true, false]);
        in_flight.answered(numbers[0], Instant::now());
        assert_eq!(in_flight.bytes(), 100_007, "an earlier pong has settled it");
        in_flight.answered(numbers[2], Instant::now());
        assert_eq!((in_flight.bytes(), in_flight.to_next_answer()), (7, 7));
        in_flight.refill(1, 1000, Heard::Nothing, PATIENCE, Instant::now() + Duration::from_secs(10));
        assert!(in_flight.marks.is_none(), "an idle connection keeps no list");
    }

    #[test]
    fn a_burst_has_fine_then_coarse_marks_and_then_none() {
        let mut in_flight = InFlight::new(true);
        in_flight.flow.lift();
        let mut distances = vec![0];
        for _ in 0..3000 {
            in_flight.add(16 << 10);
            *distances.last_mut().unwrap() += 16 << 10;
            if burst(&mut in_flight).is_some() {
                distances.push(0);
            }
        }
        let fine = usize::from(MOST_TOKENS - FINE_TOKENS);
        assert_eq!(distances[0], 16 << 10, "the client has never answered");
        assert!(distances[1..fine].iter().all(|&bytes| bytes == FINE), "{distances:?}");
        assert!(distances[fine..usize::from(MOST_TOKENS)].iter().all(|&bytes| bytes == COARSE), "{distances:?}");
        assert_eq!(distances.len(), usize::from(MOST_TOKENS) + 1);
        in_flight.refill(1, 1000, Heard::Nothing, PATIENCE, Instant::now());
        assert!(burst(&mut in_flight).is_some(), "a beat adds tokens");
    }

    #[test]
    fn few_bytes_get_no_mark_and_unanswered_marks_are_bounded() {
        let mut in_flight = InFlight::new(true);
        in_flight.add(LEAST_MARKED as usize - 1);
        assert_eq!(in_flight.mark_at_rest(Instant::now()), None);
        in_flight.add(1);
        let marks = (0..1000).filter(|_| {
            in_flight.add(LEAST_MARKED as usize);
            in_flight.mark_at_rest(Instant::now()).is_some()
        });
        let count = marks.count();
        assert_eq!(count, MOST_MARKS);
        assert!(count < 60, "Node's `ws` would end the connection");
        in_flight.add(usize::MAX);
        assert_eq!(in_flight.bytes(), MOST_BYTES);
    }

    #[test]
    fn without_marks_only_beats_reduce_the_bytes_in_flight() {
        let mut in_flight = InFlight::new(false);
        in_flight.add(10 << 20);
        assert_eq!((burst(&mut in_flight), in_flight.mark_at_rest(Instant::now())), (None, None));
        assert_eq!((in_flight.bytes(), in_flight.to_next_answer()), (10 << 20, 10 << 20));
        in_flight.refill(4, 1 << 20, Heard::Nothing, PATIENCE, Instant::now());
        assert_eq!(in_flight.bytes(), 9 << 20, "the slowest client takes 1 MiB in these beats");
    }

    /// A client that takes bytes at a steady rate, behind a line, and answers each mark that it has taken.
    struct Reader {
        /// Bytes in a second.
        rate: u64,
        /// Bytes that it takes at once at first.
        absorbs: u64,
        round_trip: Duration,
    }

    /// Streams to a client for some seconds, as fast as its window allows.
    ///
    /// Returns the most bytes that were in flight in the last half of that time, and the bytes that the client took in it.
    fn stream(in_flight: &mut InFlight, reader: &Reader, begin: Instant, seconds: u64) -> (u64, u64) {
        const STEP: Duration = Duration::from_millis(5);
        const BATCH: usize = 32 << 10;
        let mut marks = VecDeque::new();
        let (mut sent, mut taken, mut most, mut taken_before) = (0_u64, 0_u64, 0, 0);
        let mut sent_at = VecDeque::new();
        for step in 0..seconds * 200 {
            let now = begin + STEP * step as u32;
            loop {
                if in_flight.is_mark_due() {
                    marks.extend(in_flight.mark_in_burst(now).map(|number| (sent, number)));
                }
                if !in_flight.has_room() {
                    in_flight.shut();
                    break;
                }
                if sent >= taken + (200 << 20) {
                    break;
                }
                in_flight.add(BATCH);
                sent += BATCH as u64;
            }
            sent_at.push_back(sent);
            let arrived = sent_at.pop_front_if(|_| now >= begin + reader.round_trip).unwrap_or(0);
            let can_take = reader.absorbs + reader.rate * step / 200;
            taken = arrived.min(can_take).max(taken);
            while let Some((_, number)) = marks.pop_front_if(|(place, _)| *place <= taken) {
                in_flight.answered(number, now);
            }
            if step % 500 == 0 {
                in_flight.refill(4, 0, Heard::Frames, PATIENCE, now);
            }
            if step == seconds * 100 {
                taken_before = taken;
            }
            if step > seconds * 100 {
                most = most.max(sent - taken);
            }
        }
        // It takes the rest at once.
        let end = begin + STEP * (seconds * 200) as u32;
        marks.into_iter().for_each(|(_, number)| in_flight.answered(number, end));
        (most, taken - taken_before)
    }

    #[test]
    fn slow_reader_has_few_seconds_in_flight() {
        for rate in [5_000, 30_000, 80_000, 300_000] {
            let reader = Reader { rate, absorbs: 300_000, round_trip: Duration::from_millis(30) };
            let mut in_flight = InFlight::new(true);
            let (most, taken) = stream(&mut in_flight, &reader, Instant::now(), 200);
            assert!(most <= 5 * rate + (64 << 10), "{most} bytes at {rate} in a second");
            assert!(taken >= 100 * rate * 98 / 100, "{taken} bytes at {rate} in a second");
            assert!(!in_flight.is_fast(), "at {rate} in a second");
        }
    }

    #[test]
    fn long_line_is_filled() {
        for milliseconds in [1, 20, 100, 600] {
            let rate = if milliseconds == 600 { 6_000_000 } else { 125_000_000 };
            let reader = Reader { rate, absorbs: 0, round_trip: Duration::from_millis(milliseconds) };
            let (_, taken) = stream(&mut InFlight::new(true), &reader, Instant::now(), 20);
            assert!(taken >= 10 * rate * 95 / 100, "{taken} bytes at a round trip of {milliseconds} ms");
        }
    }

    /// The sender is far away, so a small receive buffer bounds what comes from it in a round trip.
    #[test]
    fn reader_is_fast_if_only_its_sender_is_slow() {
        let (mut in_flight, begin) = (InFlight::new(true), Instant::now());
        assert!(!in_flight.is_fast(), "nothing is known");
        for step in 0..100_u32 {
            let now = begin + Duration::from_millis(100) * step;
            in_flight.add(16 << 10);
            if in_flight.is_mark_due() {
                let number = in_flight.mark_in_burst(now).unwrap();
                in_flight.answered(number, now);
            }
            if step % 25 == 0 {
                in_flight.refill(4, 0, Heard::Frames, PATIENCE, now);
            }
        }
        assert!(in_flight.is_fast());
    }

    #[test]
    fn reader_that_becomes_slow_gets_a_small_window_again() {
        let mut in_flight = InFlight::new(true);
        let round_trip = Duration::from_millis(20);
        let begin = Instant::now();
        stream(&mut in_flight, &Reader { rate: 1_000_000, absorbs: 0, round_trip }, begin, 10);
        let begin = begin + Duration::from_secs(10);
        let (most, taken) = stream(&mut in_flight, &Reader { rate: 50_000, absorbs: 0, round_trip }, begin, 200);
        assert!(taken >= 100 * 50_000 * 98 / 100, "{taken} bytes");
        assert!(most <= 5 * 50_000 + (64 << 10), "{most} bytes");
    }

    #[test]
    fn client_that_answers_no_mark_gets_no_window() {
        let mut in_flight = InFlight::new(true);
        let begin = Instant::now();
        while in_flight.has_room() {
            in_flight.add(16 << 10);
            let _ = in_flight.is_mark_due().then(|| in_flight.mark_in_burst(begin));
        }
        assert!(
            !in_flight.refill(4, 0, Heard::Nothing, PATIENCE, begin + FIRST_ANSWER / 2) && !in_flight.has_room(),
            "its answer may be on its way"
        );
        assert!(in_flight.refill(4, 0, Heard::Nothing, PATIENCE, begin + FIRST_ANSWER) && in_flight.has_room());
        in_flight.answered(1, begin + FIRST_ANSWER * 2);
        assert!(!in_flight.has_room() || in_flight.bytes() < 128 << 10, "it answers after all");
    }

    #[test]
    fn client_that_is_heard_from_but_stops_to_answer_gets_no_window() {
        let mut in_flight = InFlight::new(true);
        let mut now = Instant::now();
        in_flight.add(8 << 10);
        let number = burst(&mut in_flight).unwrap();
        in_flight.answered(number, now);
        while in_flight.has_room() {
            in_flight.add(16 << 10);
            let _ = in_flight.is_mark_due().then(|| in_flight.mark_in_burst(now));
        }
        now += ANSWER_BEHIND_A_MESSAGE / 2;
        in_flight.answered(number.wrapping_add(1), now);
        while in_flight.has_room() {
            in_flight.add(16 << 10);
        }
        let mut lifts = |heard, after| in_flight.refill(4, 0, heard, PATIENCE, now + after);
        assert!(!lifts(Heard::Part, ANSWER_BEHIND_A_MESSAGE / 2), "it has answered in between");
        assert!(!lifts(Heard::Frames, ANSWER_BEHIND_A_MESSAGE), "a slow client may send a little");
        assert!(!lifts(Heard::Nothing, LATER_ANSWER), "a silent client reads nothing");
        assert!(lifts(Heard::Part, ANSWER_BEHIND_A_MESSAGE) && lifts(Heard::Frames, 2 * LATER_ANSWER));
        assert!(in_flight.has_room());
        in_flight.answered(number.wrapping_add(2), now + LATER_ANSWER * 10);
        assert!(in_flight.has_room(), "its answer waited behind its own bytes");
    }

    #[test]
    fn answers_that_waited_unread_do_not_make_a_client_slow() {
        let mut in_flight = InFlight::new(true);
        let begin = Instant::now();
        in_flight.add(60 << 10);
        let number = in_flight.mark_in_burst(begin).unwrap();
        in_flight.excuse_answers();
        in_flight.answered(number, begin + Duration::from_secs(100));
        in_flight.add(60 << 10);
        assert!(in_flight.has_room(), "the window has not shrunk");
    }

    /// Two clients stream to each other, and one is read from only as fast as the other one takes.
    #[test]
    fn answers_that_waited_unread_make_a_client_fast() {
        let (mut in_flight, begin) = (InFlight::new(true), Instant::now());
        for step in 1..50_u32 {
            in_flight.add(50 << 10);
            if let Some(number) = burst(&mut in_flight) {
                in_flight.excuse_answers();
                in_flight.answered(number, begin + Duration::from_millis(50) * step);
            }
        }
        assert!(in_flight.is_fast());
        in_flight.add(60 << 10);
        let number = in_flight.mark_in_burst(begin).unwrap();
        in_flight.excuse_answers();
        in_flight.answered(number, begin + Duration::from_secs(100));
        assert!(in_flight.is_fast(), "a late one does not make it slow");
    }

    proptest! {
        /// Whichever marks the client answers, and in whatever order.
        #[test]
        fn bytes_that_the_client_has_not_taken_are_in_flight(
            steps in prop::collection::vec((0..3_u8, 0..400_000_usize, any::<bool>()), 1..300),
        ) {
            let mut in_flight = InFlight::new(true);
            let (mut sent, mut taken, mut marks) = (0_u64, 0_u64, VecDeque::new());
            for (step, bytes, answers) in steps {
                match step {
                    0 => {
                        let bytes = bytes.min((u64::from(MOST_BYTES) - (sent - taken)) as usize);
                        in_flight.add(bytes);
                        sent += bytes as u64;
                        marks.extend(burst(&mut in_flight).map(|number| (sent, number)));
                    }
                    1 => {
                        in_flight.refill(1, 1000, Heard::Nothing, PATIENCE, Instant::now());
                        marks.extend(in_flight.mark_at_rest(Instant::now()).map(|number| (sent, number)));
                    }
                    _ => {
                        taken = sent.min(taken + bytes as u64);
                        while let Some((_, number)) = marks.pop_front_if(|(place, _)| *place <= taken) {
                            // A client need not answer each mark.
                            if answers {
                                in_flight.answered(number, Instant::now());
                            }
                        }
                    }
                }
                prop_assert!(u64::from(in_flight.bytes()) >= sent - taken);
                prop_assert!(in_flight.to_next_answer() <= in_flight.bytes());
            }
        }
    }
}
