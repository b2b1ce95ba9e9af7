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

use std::collections::VecDeque;

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

/// A mark without a pong so far.
#[derive(Clone, Copy, Debug)]
struct Mark {
    number: u8,
    /// Bytes between the mark before it and this one.
    bytes: u32,
}

/// The bytes in flight to a client, and the marks among them.
#[derive(Debug)]
pub(crate) struct InFlight {
    /// Unanswered marks, the oldest first. None in an idle connection.
    #[expect(clippy::box_collection, reason = "one word instead of four in each idle connection")]
    marks: Option<Box<VecDeque<Mark>>>,
    /// Bytes before the last mark.
    marked: u32,
    /// Bytes behind the last mark.
    unmarked: u32,
    /// The number of the last mark.
    number: u8,
    tokens: u8,
    /// Whether marks are sent at all.
    has_marks: bool,
    /// Whether the client has ever answered a mark.
    is_answering: bool,
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
            number: 0,
            tokens: MOST_TOKENS,
            has_marks,
            is_answering: false,
            was_answered: false,
        }
    }

    /// Adds bytes that are being sent.
    pub(crate) fn add(&mut self, bytes: usize) {
        self.unmarked = self.unmarked.saturating_add(u32::try_from(bytes).unwrap_or(u32::MAX)).min(MOST_BYTES);
    }

    /// The number of the mark that is due within a beat, if one is.
    pub(crate) fn mark_in_burst(&mut self) -> Option<u8> {
        let distance = if self.tokens > FINE_TOKENS { FINE } else { COARSE };
        if self.unmarked < distance || self.tokens == 0 {
            return None;
        }
        let number = self.mark()?;
        self.tokens -= 1;
        Some(number)
    }

    /// The number of the mark for a beat or a close frame, if there are enough bytes for one.
    pub(crate) fn mark_at_rest(&mut self) -> Option<u8> {
        if self.unmarked < LEAST_MARKED { None } else { self.mark() }
    }

    /// Refills the token bucket after some `beats`, in which even the slowest client takes so many `bytes`.
    ///
    /// Without marks, nothing else is known of the bytes that a client has taken.
    pub(crate) fn refill(&mut self, beats: u32, bytes: u32) {
        if !self.has_marks {
            self.unmarked = self.unmarked.saturating_sub(bytes);
        }
        let tokens = u32::from(self.tokens).saturating_add(beats.saturating_mul(TOKENS_PER_BEAT));
        self.tokens = u8::try_from(tokens).unwrap_or(u8::MAX).min(MOST_TOKENS);
        if self.marks.as_ref().is_some_and(|marks| marks.is_empty()) {
            self.marks = None;
        }
    }

    /// Notes a pong with this number.
    ///
    /// It is ignored if no unanswered mark has the number: pongs may be unsolicited.
    pub(crate) fn answered(&mut self, number: u8) {
        let Some(marks) = &mut self.marks else { return };
        let Some(nth) = marks.iter().position(|mark| mark.number == number) else { return };
        let taken: u32 = marks.drain(..=nth).map(|mark| mark.bytes).sum();
        self.marked -= taken;
        self.is_answering = true;
        self.was_answered = true;
    }

    /// Whether no mark is unanswered, and fewer bytes are in flight than are worth one.
    pub(crate) fn is_little(&self) -> bool {
        self.marked == 0 && self.unmarked < LEAST_MARKED && self.marks.as_ref().is_none_or(|marks| marks.is_empty())
    }

    /// Bytes in flight, at most.
    pub(crate) fn bytes(&self) -> u32 {
        self.marked.saturating_add(self.unmarked).min(MOST_BYTES)
    }

    /// Bytes that the client has to take before it can answer: up to the first mark, if there is one.
    pub(crate) fn to_next_answer(&self) -> u32 {
        self.marks.as_ref().and_then(|marks| marks.front()).map_or(self.bytes(), |mark| mark.bytes)
    }

    /// Whether the client has answered a mark since the last call.
    pub(crate) fn take_answered(&mut self) -> bool {
        std::mem::take(&mut self.was_answered)
    }

    /// Whether the client has ever answered a mark.
    pub(crate) fn is_answering(&self) -> bool {
        self.is_answering
    }

    fn mark(&mut self) -> Option<u8> {
        if !self.has_marks {
            return None;
        }
        let marks = self.marks.get_or_insert_default();
        if marks.len() >= MOST_MARKS {
            return None;
        }
        self.number = self.number.wrapping_add(1);
        marks.push_back(Mark { number: self.number, bytes: self.unmarked });
        self.marked = self.marked.saturating_add(std::mem::take(&mut self.unmarked));
        Some(self.number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_pong_settles_all_marks_before_it() {
        let mut in_flight = InFlight::new(true);
        let numbers: Vec<_> = (0..3)
            .map(|_| {
                in_flight.add(100_000);
                in_flight.mark_in_burst().unwrap()
            })
            .collect();
        in_flight.add(7);
        assert_eq!((in_flight.bytes(), in_flight.to_next_answer()), (300_007, 100_000));
        assert!(!in_flight.is_answering());
        in_flight.answered(numbers[1]);
        assert_eq!((in_flight.bytes(), in_flight.to_next_answer()), (100_007, 100_000));
        assert!(in_flight.is_answering());
        assert_eq!([in_flight.take_answered(), in_flight.take_answered()], [true, false]);
        in_flight.answered(numbers[0]);
        assert_eq!(in_flight.bytes(), 100_007, "an earlier pong has settled it");
        in_flight.answered(numbers[2]);
        assert_eq!((in_flight.bytes(), in_flight.to_next_answer()), (7, 7));
        in_flight.refill(1, 1000);
        assert!(in_flight.marks.is_none(), "an idle connection keeps no list");
    }

    #[test]
    fn a_burst_has_fine_then_coarse_marks_and_then_none() {
        let mut in_flight = InFlight::new(true);
        let mut distances = vec![0];
        for _ in 0..3000 {
            in_flight.add(16 << 10);
            *distances.last_mut().unwrap() += 16 << 10;
            if in_flight.mark_in_burst().is_some() {
                distances.push(0);
            }
        }
        let fine = usize::from(MOST_TOKENS - FINE_TOKENS);
        assert!(distances[..fine].iter().all(|&bytes| bytes == FINE), "{distances:?}");
        assert!(distances[fine..usize::from(MOST_TOKENS)].iter().all(|&bytes| bytes == COARSE), "{distances:?}");
        assert_eq!(distances.len(), usize::from(MOST_TOKENS) + 1);
        in_flight.refill(1, 1000);
        assert!(in_flight.mark_in_burst().is_some(), "a beat adds tokens");
    }

    #[test]
    fn few_bytes_get_no_mark_and_unanswered_marks_are_bounded() {
        let mut in_flight = InFlight::new(true);
        in_flight.add(LEAST_MARKED as usize - 1);
        assert_eq!(in_flight.mark_at_rest(), None);
        in_flight.add(1);
        let marks = (0..1000).filter(|_| {
            in_flight.add(LEAST_MARKED as usize);
            in_flight.mark_at_rest().is_some()
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
        assert_eq!((in_flight.mark_in_burst(), in_flight.mark_at_rest()), (None, None));
        assert_eq!((in_flight.bytes(), in_flight.to_next_answer()), (10 << 20, 10 << 20));
        in_flight.refill(4, 1 << 20);
        assert_eq!(in_flight.bytes(), 9 << 20, "the slowest client takes 1 MiB in these beats");
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
                        marks.extend(in_flight.mark_in_burst().map(|number| (sent, number)));
                    }
                    1 => {
                        in_flight.refill(1, 1000);
                        marks.extend(in_flight.mark_at_rest().map(|number| (sent, number)));
                    }
                    _ => {
                        taken = sent.min(taken + bytes as u64);
                        while let Some((_, number)) = marks.pop_front_if(|(place, _)| *place <= taken) {
                            // A client need not answer each mark.
                            if answers {
                                in_flight.answered(number);
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
