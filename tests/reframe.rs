//! The reframer: legal streams, arbitrary bytes, and each rule of RFC 6455 that it enforces.
//!
//! Streams are split into arbitrary reads. Tungstenite's client decodes the output of legal ones.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod model;
#[path = "reframe/text.rs"]
mod text;

use arc_relay::internals::buffer::Buffer;
use arc_relay::internals::reframer::{Event, Reframer, Tally, Violation, WHOLE_FRAME};
use model::oracle::{Difference, compare};
use model::stream::{
    End, Frame, Outcome, assert_forwards, check_raw, feed, feed_with_memory, messages, received_by_tungstenite,
};
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;

/// The number of cases, and the file that keeps failing ones to be tried first.
fn config(cases: u32) -> ProptestConfig {
    let kept = FileFailurePersistence::Direct("tests/regressions/reframe.txt");
    ProptestConfig { failure_persistence: Some(Box::new(kept)), ..ProptestConfig::with_cases(cases) }
}

/// A message as a client may send it: cut into fragments, with control frames between them.
#[derive(Clone, Debug)]
struct Sent {
    text: bool,
    payload: Vec<u8>,
    cuts: Vec<prop::sample::Index>,
    controls: Vec<(bool, Vec<u8>)>,
    mask: [u8; 4],
}

fn payload() -> impl Strategy<Value = Vec<u8>> {
    // The edges of the three length encodings and of WHOLE_FRAME, and any other length.
    let length = prop_oneof![
        6 => 0..300_usize,
        2 => prop::sample::select(vec![0, 1, 125, 126, 127, 65535, 65536, WHOLE_FRAME + 1]),
        1 => 0..200_000_usize,
    ];
    (length, any::<u8>()).prop_map(|(length, seed)| {
        (0..length).map(|i| (i.wrapping_mul(31) as u8).wrapping_add(seed) ^ (i >> 8) as u8).collect()
    })
}

fn text() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![".{0,80}", "[aé€🐋]{0,3000}"].prop_map(String::into_bytes)
}

fn sent() -> impl Strategy<Value = Sent> {
    let content = prop_oneof![3 => payload().prop_map(|p| (false, p)), 1 => text().prop_map(|p| (true, p))];
    let cuts = prop::collection::vec(any::<prop::sample::Index>(), 0..4);
    let controls = prop::collection::vec((any::<bool>(), prop::collection::vec(any::<u8>(), 0..=125)), 0..3);
    (content, cuts, controls, any::<[u8; 4]>()).prop_map(|((text, payload), cuts, controls, mask)| Sent {
        text,
        payload,
        cuts,
        controls,
        mask,
    })
}

impl Sent {
    fn frames(&self) -> Vec<Frame> {
        let mut cuts: Vec<_> = self.cuts.iter().map(|cut| cut.index(self.payload.len() + 1)).collect();
        cuts.sort_unstable();
        cuts.push(self.payload.len());
        let mut frames = Vec::new();
        let mut start = 0;
        let mut controls = self.controls.iter();
        for (nth, &cut) in cuts.iter().enumerate() {
            frames.extend(controls.next().map(|(ping, data)| Frame {
                opcode: if *ping { 9 } else { 10 },
                fin: true,
                mask: self.mask.map(|byte| byte.wrapping_add(1)),
                payload: data.clone(),
            }));
            frames.push(Frame {
                opcode: if nth > 0 {
                    0
                } else if self.text {
                    1
                } else {
                    2
                },
                fin: nth + 1 == cuts.len(),
                mask: self.mask,
                payload: self.payload[start..cut].to_vec(),
            });
            start = cut;
        }
        frames
    }
}

fn reads() -> impl Strategy<Value = Vec<usize>> {
    prop_oneof![
        Just(vec![]),
        prop::collection::vec(1..20_usize, 1..10),
        prop::collection::vec(1..5000_usize, 1..10),
        prop::collection::vec(1..300_000_usize, 1..10),
    ]
}

fn encode(frames: &[Frame]) -> Vec<u8> {
    let mut stream = Vec::new();
    frames.iter().for_each(|frame| frame.encode(&mut stream));
    stream
}

proptest! {
    #![proptest_config(config(1000))]

    #[test]
    fn legal_streams_are_forwarded_frame_by_frame(sent in prop::collection::vec(sent(), 0..6), reads in reads()) {
        let frames: Vec<_> = sent.iter().flat_map(Sent::frames).collect();
        let outcome = feed(&encode(&frames), &reads, None);

        prop_assert_eq!(&outcome.end, &End::Open { mid_message: false });
        let pings: Vec<_> = frames.iter().filter(|frame| frame.opcode == 9).map(|frame| frame.payload.clone()).collect();
        prop_assert_eq!(&outcome.pings, &pings);
        assert_forwards(&outcome.output, &frames, true);
        let in_short_memory = feed_with_memory(&encode(&frames), &reads, None, |nth| nth % 3 == 0);
        assert_forwards(&in_short_memory.output, &frames, false);
        prop_assert_eq!(in_short_memory.tally, outcome.tally);
        let binary: Vec<_> = sent.iter().filter(|sent| !sent.text).map(|sent| sent.payload.clone()).collect();
        prop_assert!(received_by_tungstenite(&outcome.output) == binary);
        let texts = (sent.len() - binary.len()) as u64;
        let bytes = binary.iter().map(|payload| payload.len() as u64).sum();
        prop_assert_eq!(outcome.tally, Tally { forwarded: binary.len() as u64, dropped: texts, bytes });
    }

    /// A legal stream with one byte changed: most rules are one byte away from being broken.
    #[test]
    fn outcome_of_a_changed_byte_does_not_depend_on_the_split(
        sent in prop::collection::vec(sent(), 1..4),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        reads in reads(),
        limit in prop::option::of(0..10_000_u64),
    ) {
        let mut stream = encode(&sent.iter().flat_map(Sent::frames).collect::<Vec<_>>());
        let at = at.index(stream.len().min(200));
        stream[at] = byte;
        check_raw(&stream, &reads, limit);
    }

    #[test]
    fn outcome_of_arbitrary_bytes_does_not_depend_on_the_split(
        stream in prop::collection::vec(any::<u8>(), 0..300),
        reads in prop::collection::vec(1..20_usize, 1..10),
    ) {
        check_raw(&stream, &reads, None);
    }
}

/// A frame of two header bytes, an extended length, a mask of zero, and the payload.
fn raw(first: u8, second: u8, extended: &[u8], payload: &[u8]) -> Vec<u8> {
    [&[first, second][..], extended, &[0; 4], payload].concat()
}

fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    raw(first, 0x80 | payload.len() as u8, &[], payload)
}

/// The end of a stream, asserted to be the same in one read and in several splits.
///
/// A message in front of the stream must be forwarded.
fn verdict(stream: &[u8], limit: Option<u64>) -> End {
    let stream = [&frame(0x82, b"before"), stream].concat();
    let whole = feed(&stream, &[], limit);
    for reads in [&[1][..], &[2, 1], &[3], &[7, 2]] {
        let split = feed(&stream, reads, limit);
        assert_eq!((&split.end, &split.pings, split.tally), (&whole.end, &whole.pings, whole.tally), "{reads:?}");
        assert_eq!(messages(&split.output), messages(&whole.output));
    }
    assert_eq!(messages(&whole.output).0.first().map(Vec::as_slice), Some(&b"before"[..]), "the first is lost");
    whole.end
}

#[test]
fn every_violation_is_reported_with_its_rule_and_close_code() {
    use Violation::*;
    let text = |payload: &[u8]| frame(0x81, payload);
    let close = |payload: &[u8]| frame(0x88, payload);
    let cases: Vec<(Violation, u16, Vec<Vec<u8>>)> = vec![
        (ReservedBits, 1002, vec![frame(0xC2, b""), frame(0xA2, b""), frame(0x92, b""), frame(0xC9, b"")]),
        (
            ReservedOpcode,
            1002,
            [3, 4, 5, 6, 7, 11, 12, 13, 14, 15].iter().map(|opcode| frame(0x80 | opcode, b"")).collect(),
        ),
        (Unmasked, 1002, vec![vec![0x82, 1, 0], vec![0x81, 0], vec![0x88, 0], vec![0x89, 1, 0], vec![0x82, 127]]),
        (FragmentedControl, 1002, vec![frame(0x08, b""), frame(0x09, b""), frame(0x0A, b"")]),
        (
            OversizedControl,
            1002,
            vec![raw(0x88, 0xFE, &[0, 126], &[0; 126]), raw(0x89, 0xFE, &[0, 126], b""), raw(0x8A, 0xFF, &[0; 8], b"")],
        ),
        (
            UnexpectedContinuation,
            1002,
            vec![
                frame(0x80, b"x"),
                frame(0x00, b"x"),
                [frame(0x02, b"a"), frame(0x80, b"b"), frame(0x80, b"c")].concat(),
                [frame(0x81, b"a"), frame(0x80, b"b")].concat(),
            ],
        ),
        (
            ExpectedContinuation,
            1002,
            vec![
                [frame(0x02, b"a"), frame(0x82, b"b")].concat(),
                [frame(0x02, b"a"), frame(0x89, b""), frame(0x81, b"b")].concat(),
                [frame(0x01, b"a"), frame(0x02, b"b")].concat(),
            ],
        ),
        (
            NonMinimalLength,
            1002,
            vec![
                raw(0x82, 0xFE, &[0, 125], &[0; 125]),
                raw(0x82, 0xFE, &[0, 0], b""),
                raw(0x82, 0xFF, &65535_u64.to_be_bytes(), b""),
                raw(0x81, 0xFF, &[0; 8], b""),
            ],
        ),
        (
            OverlongLength,
            1002,
            vec![raw(0x82, 0xFF, &(1_u64 << 63).to_be_bytes(), b""), raw(0x82, 0xFF, &[0xFF; 8], b"")],
        ),
        (TruncatedCloseCode, 1002, vec![close(b"\x03")]),
        (
            InvalidCloseCode,
            1002,
            [0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1999, 2000, 2999, 5000, 65535_u16]
                .iter()
                .map(|code| close(&code.to_be_bytes()))
                .collect(),
        ),
        (
            InvalidUtf8,
            1007,
            vec![
                text(b"\xFF"),
                text(b"ok\xC3"),
                [frame(0x01, b"\xE2\x82"), frame(0x89, b""), frame(0x80, b"x")].concat(),
                [frame(0x01, b"\xE2\x82"), frame(0x80, b"")].concat(),
                close(b"\x03\xE8\xFF"),
                close(b"\x03\xE8\xE2\x82"),
            ],
        ),
    ];
    for (violation, code, streams) in cases {
        assert_eq!(violation.code(), code);
        assert_eq!(violation.to_string(), violation.reason());
        assert!((1..=123).contains(&violation.reason().len()), "a reason fits into a close frame");
        for stream in streams {
            assert_eq!(verdict(&stream, None), End::Violated(violation), "{stream:x?}");
        }
    }
}

#[test]
fn violation_in_the_first_two_bytes_is_reported_from_these_alone() {
    for (bytes, violation) in [
        ([0xC2, 0xFF], Violation::ReservedBits),
        ([0x83, 0xFF], Violation::ReservedOpcode),
        ([0x82, 0x7F], Violation::Unmasked),
        ([0x80, 0xFE], Violation::UnexpectedContinuation),
        ([0x88, 0xFE], Violation::OversizedControl),
    ] {
        assert_eq!(verdict(&bytes, None), End::Violated(violation));
    }
}

#[test]
fn every_listed_difference_from_tungstenite_exists() {
    let long = raw(0x82, 0xFF, &(1_u64 << 30).to_be_bytes(), b"begins");
    let cases = [
        (Difference::NonMinimalLength, raw(0x82, 0xFE, &[0, 1], b"x")),
        (Difference::NonMinimalLength, raw(0x82, 0xFF, &1_u64.to_be_bytes(), b"x")),
        (Difference::NonMinimalLength, raw(0x89, 0xFE, &[0, 1], b"x")),
        (Difference::NonMinimalLength, vec![0x89, 0xFE]),
        (Difference::OverlongLength, raw(0x82, 0xFF, &u64::MAX.to_be_bytes(), b"")),
        (Difference::OverlongLength, raw(0x82, 0xFF, &u64::MAX.to_be_bytes(), b"")[..10].to_vec()),
        (Difference::LongFrame, long.clone()),
        (Difference::LongFrame, [&[long[0] | 0x40], &long[1..]].concat()),
        (Difference::CloseCode1014, frame(0x88, &1014_u16.to_be_bytes())),
        (Difference::CodeBeforeReason, frame(0x88, b"\x03\xE7\xFF")),
    ];
    for (difference, stream) in cases {
        // Both forward the message and the ping in front.
        let stream = [frame(0x82, b"first"), frame(0x89, b"ping"), stream].concat();
        assert_eq!(compare(&stream, None, &feed(&stream, &[], None)), Some(difference));
    }
}

/// Each end resembles a listed difference, but the stream gives no reason for it.
#[test]
fn unlisted_difference_from_tungstenite_fails() {
    let long = raw(0x82, 0xFF, &(1_u64 << 30).to_be_bytes(), b"begins");
    let open = End::Open { mid_message: false };
    let cases = [
        (frame(0x88, &1014_u16.to_be_bytes()), None, open.clone()),
        (frame(0x82, b"x"), None, End::Violated(Violation::NonMinimalLength)),
        (raw(0x82, 0xFE, &126_u16.to_be_bytes(), &[0; 126]), None, End::Violated(Violation::NonMinimalLength)),
        (raw(0x82, 0xFF, &65_536_u64.to_be_bytes(), &[0; 65_536]), None, End::Violated(Violation::NonMinimalLength)),
        (frame(0x89, b"x"), None, End::Violated(Violation::OversizedControl)),
        (frame(0x82, b"x"), None, End::Violated(Violation::OverlongLength)),
        (frame(0x88, b"\x03\xE8\xFF"), None, End::Violated(Violation::InvalidCloseCode)),
        (long, Some(100), End::Open { mid_message: true }),
    ];
    for (stream, limit, end) in cases {
        let outcome = Outcome { end, ..feed(&stream, &[], limit) };
        let compared = std::panic::catch_unwind(|| compare(&stream, limit, &outcome));
        assert!(compared.is_err(), "{compared:?}: {outcome:?}");
    }
}

#[test]
fn valid_close_codes_are_reported_with_their_reason() {
    for code in [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999_u16] {
        let payload = [&code.to_be_bytes()[..], "schön".as_bytes()].concat();
        assert_eq!(verdict(&frame(0x88, &payload), None), End::Closed { code: Some(code), reason: "schön".into() });
    }
    assert_eq!(verdict(&frame(0x88, b""), None), End::Closed { code: None, reason: String::new() });
}

#[test]
fn bytes_after_a_close_frame_or_a_violation_are_ignored() {
    for end in [frame(0x88, b""), frame(0x83, b"")] {
        let stream = [end.clone(), frame(0x82, b"late"), frame(0x89, b"late"), vec![0xFF; 100]].concat();
        assert_eq!(verdict(&stream, None), verdict(&end, None));
        let outcome = feed(&stream, &[], None);
        assert_eq!((outcome.output, outcome.pings), (vec![], vec![]));
    }
}

#[test]
fn message_limit_is_enforced_from_the_header_across_all_fragments() {
    let too_big = End::Violated(Violation::MessageTooBig);
    assert_eq!(Violation::MessageTooBig.code(), 1009);
    let open = End::Open { mid_message: false };
    assert_eq!(verdict(&frame(0x82, &[0; 10]), Some(10)), open);
    assert_eq!(verdict(&frame(0x82, &[0; 11])[..6], Some(10)), too_big);
    assert_eq!(verdict(&frame(0x81, &[0; 11])[..6], Some(10)), too_big);
    assert_eq!(verdict(&raw(0x82, 0xFF, &(1_u64 << 40).to_be_bytes(), b""), Some(1 << 30)), too_big);
    assert_eq!(verdict(&[frame(0x02, &[0; 6]), frame(0x00, &[0; 4]), frame(0x80, b"")].concat(), Some(10)), open);
    assert_eq!(verdict(&[frame(0x02, &[0; 6]), frame(0x00, &[0; 4]), frame(0x80, b"x")].concat(), Some(10)), too_big);
    // The count starts at zero for each message.
    assert_eq!(verdict(&[frame(0x82, &[0; 10]), frame(0x82, &[0; 10])].concat(), Some(10)), open);
    // The sum of two fragments exceeds 63 bits, but does not overflow.
    let near_the_end = raw(0x00, 0xFF, &(u64::MAX >> 1).to_be_bytes(), b"");
    assert_eq!(verdict(&[frame(0x02, b"x"), near_the_end].concat(), None), End::Open { mid_message: true });
}

#[test]
fn frame_of_up_to_whole_frame_is_never_split() {
    for length in [126, 4096, 65535, WHOLE_FRAME] {
        let frames = [Frame { opcode: 2, fin: true, mask: [1, 2, 3, 4], payload: vec![7; length] }];
        for reads in [&[1000][..], &[1], &[65536, 1]] {
            assert_eq!(model::stream::server_frames(&feed(&encode(&frames), reads, None).output).len(), 1);
        }
    }
}

#[test]
fn incomplete_frame_reports_how_much_room_it_needs() {
    let cases = [
        (frame(0x82, &[7; 100]), 106),
        (raw(0x82, 0xFE, &[1, 0], &[7; 256]), 264),
        (raw(0x82, 0xFF, &65536_u64.to_be_bytes(), &[7; 65536]), 65550),
        (frame(0x89, &[7; 125]), 131),
    ];
    for (bytes, whole) in cases {
        for at in [1, 14, bytes.len() - 1] {
            let mut buffer = Buffer::new(100_000);
            buffer.spare_mut()[..at].copy_from_slice(&bytes[..at]);
            buffer.fill(at);
            let expected = if at == 1 { 0 } else { whole };
            assert_eq!(Reframer::new(None).advance(&mut buffer), Ok(Event::Starved { frame: expected }));
            assert!(buffer.output().is_empty() && buffer.input() == &bytes[..at]);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Compares reads of 1,000 bytes, in which the reframer never yields, with a single read.
    ///
    /// In the single read it yields, at any frame of the sequence.
    #[test]
    fn yielding_does_not_change_the_output(
        frames in prop::collection::vec((0..5_u8, 0..4_usize), 1..7),
        behind in prop::collection::vec(any::<u8>(), 0..20),
    ) {
        let frames = frames.iter().flat_map(|&(kind, length)| {
            let text = &b"text"[..length];
            match kind {
                0 => frame(0x81, text),
                1 => frame(0x82, text),
                2 => frame(0x89, text),
                3 => [frame(0x02, text), frame(0x8A, text), frame(0x80, text)].concat(),
                _ => [frame(0x01, text), frame(0x00, text), frame(0x80, text)].concat(),
            }
        });
        let once = frames.collect::<Vec<_>>();
        let stream = [once.repeat(60_000 / once.len()), behind].concat();
        let (whole, split) = (feed(&stream, &[], None), feed(&stream, &[1000], None));
        prop_assert!(whole.output == split.output && whole.pings == split.pings);
        prop_assert_eq!((whole.end, whole.tally), (split.end, split.tally));
    }
}

#[test]
fn larger_frame_is_forwarded_while_it_arrives_or_whole_if_complete() {
    let frames = [Frame { opcode: 2, fin: true, mask: [1, 2, 3, 4], payload: vec![7; WHOLE_FRAME + 1] }];
    let stream = encode(&frames);
    let begun = feed(&stream[..1000], &[], None);
    assert_eq!(begun.end, End::Open { mid_message: true });
    assert_eq!(messages(&begun.output), (vec![], Some(vec![7; 1000 - 14])));
    assert_eq!(model::stream::server_frames(&feed(&stream, &[], None).output).len(), 1);
}

#[test]
fn open_end_reports_whether_it_is_within_a_message() {
    let message = [frame(0x02, b"abc"), frame(0x89, b""), frame(0x80, b"def")].concat();
    for at in 1..message.len() {
        let Outcome { end, .. } = feed(&message[..at], &[], None);
        assert_eq!(end, End::Open { mid_message: true }, "after {at} bytes");
    }
    assert_eq!(feed(&message, &[], None).end, End::Open { mid_message: false });
    assert_eq!(feed(b"", &[], None).end, End::Open { mid_message: false });
}

#[test]
fn debug_output_shows_neither_masking_keys_nor_text() {
    let mut buffer = Buffer::new(64);
    let cut = [0x81, 0x83, 7, 7, 7, 7, b'a' ^ 7]; // one letter of three
    buffer.spare_mut()[..cut.len()].copy_from_slice(&cut);
    buffer.fill(cut.len());
    let mut reframer = Reframer::new(None);
    assert_eq!(reframer.advance(&mut buffer), Ok(Event::Starved { frame: 0 }));
    let shown =
        "Reframer { message: Some(Text), message_length: 3, tally: Tally { forwarded: 0, dropped: 0, bytes: 0 }, .. }";
    assert_eq!(format!("{reframer:?}"), shown);
}
