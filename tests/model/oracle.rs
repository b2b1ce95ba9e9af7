//! Tungstenite's server as an oracle for the reframer, and the intended [differences](Difference).
//!
//! Any other difference fails. Tungstenite judges a frame once it is complete, while the reframer judges the bytes that
//! have arrived. So the oracle gets a refused stream with its last frame completed.

use std::io::{Cursor, Read, Write};

use arc_relay::internals::reframer::Violation;
use async_tungstenite::tungstenite::error::ProtocolError;
use async_tungstenite::tungstenite::protocol::frame::FrameHeader;
use async_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use async_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use async_tungstenite::tungstenite::{Error, Message, WebSocket};

use super::stream::{End, Outcome, messages};

/// The longest frame that the oracle accepts, in bytes. It allocates whole frames.
const LONGEST_FRAME: usize = 1 << 20;

/// An intended difference between the reframer and tungstenite 0.30.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Difference {
    /// A length in more bytes than it needs: RFC 6455, section 5.2.
    ///
    /// "The minimal number of bytes MUST be used", but tungstenite accepts it. A control frame's length always fits
    /// into seven bits.
    NonMinimalLength,
    /// A 64-bit length with its most significant bit set: section 5.2 ("MUST be 0"), so 1002.
    ///
    /// Tungstenite reports that the frame is too long.
    OverlongLength,
    /// A frame that is longer than the oracle accepts.
    ///
    /// Section 5.2 has no such limit. So the reframer forwards the frame while it arrives, and finds its other
    /// violations (1002, 1007).
    LongFrame,
    /// 1014 (Bad Gateway), registered after the RFC as section 7.4.2 allows. Tungstenite refuses it.
    CloseCode1014,
    /// A close frame with an invalid code and a reason that is not UTF-8.
    ///
    /// Both violate section 7.1.5. The reframer reports the code, which comes first.
    CodeBeforeReason,
}

/// Tungstenite's outcome of a stream.
#[derive(Debug)]
pub struct Judgement {
    messages: Vec<Vec<u8>>,
    pings: Vec<Vec<u8>>,
    end: Verdict,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Verdict {
    Open,
    Closed(Option<(u16, String)>),
    Refused(u16),
}

/// Compares the reframer's outcome with tungstenite's, and returns a listed difference, if any.
///
/// # Panics
///
/// If they differ in any other way.
pub fn compare(stream: &[u8], limit: Option<u64>, ours: &Outcome) -> Option<Difference> {
    let Frames { missing, is_long, has_non_minimal_length, has_extended_control, has_forbidden_code } =
        Frames::of(stream);
    let padding = if matches!(ours.end, End::Violated(_)) { missing } else { 0 };
    let theirs = judge(&[stream, &vec![0; padding]].concat(), limit);
    let complete = messages(&ours.output).0;
    let verdict = match &ours.end {
        End::Open { .. } => Verdict::Open,
        End::Closed { code, reason } => Verdict::Closed(code.map(|code| (code, reason.clone()))),
        End::Violated(violation) => Verdict::Refused(violation.code()),
    };
    // Tungstenite reports a close frame with an invalid code as if the client had closed with 1002.
    let protocol_violation = Verdict::Closed(Some((1002, String::from("Protocol violation"))));
    let refuses_close = theirs.end == protocol_violation;
    let is_same = complete == theirs.messages && ours.pings == theirs.pings;
    if is_same && (verdict == theirs.end || (refuses_close && verdict == Verdict::Refused(1002))) {
        return None;
    }
    // One outcome must be a prefix of the other.
    assert!(theirs.messages.starts_with(&complete) && theirs.pings.starts_with(&ours.pings), "{ours:?}, {theirs:?}");
    Some(match (&ours.end, &theirs.end) {
        (End::Violated(Violation::NonMinimalLength), _) if has_non_minimal_length => Difference::NonMinimalLength,
        (End::Violated(Violation::OversizedControl), _) if has_extended_control => Difference::NonMinimalLength,
        (End::Violated(Violation::OverlongLength), Verdict::Refused(1009)) => Difference::OverlongLength,
        (End::Closed { code: Some(1014), .. }, end) if *end == protocol_violation => Difference::CloseCode1014,
        (End::Violated(Violation::InvalidCloseCode), Verdict::Refused(1007)) if has_forbidden_code => {
            Difference::CodeBeforeReason
        }
        // A message limit applies to long frames, too.
        (End::Violated(_), Verdict::Refused(1009)) if is_long => Difference::LongFrame,
        (_, Verdict::Refused(1009)) if is_long && limit.is_none() => Difference::LongFrame,
        _ => panic!("a difference that is not listed: {:?} and {:?}", ours.end, theirs.end),
    })
}

/// What the headers of a stream's frames show.
struct Frames {
    /// The number of bytes missing to complete the last frame.
    ///
    /// If that is longer than the oracle accepts, the number missing to complete its header.
    missing: usize,
    is_long: bool,
    /// Whether a length takes more bytes than it needs.
    has_non_minimal_length: bool,
    /// Whether the length of a control frame takes more than seven bits.
    has_extended_control: bool,
    /// Whether a close frame has a code that is invalid on the wire.
    has_forbidden_code: bool,
}

impl Frames {
    fn of(stream: &[u8]) -> Self {
        let mut frames = Self {
            missing: 0,
            is_long: false,
            has_non_minimal_length: false,
            has_extended_control: false,
            has_forbidden_code: false,
        };
        let mut rest = stream;
        while !rest.is_empty() {
            frames.has_extended_control |=
                matches!(rest, [first, second, ..] if first & 0x8 != 0 && second & 0x7F > 125);
            frames.has_non_minimal_length |= match rest {
                [_, 0x7E | 0xFE, length @ ..] => {
                    length.first_chunk().is_some_and(|&chunk| u16::from_be_bytes(chunk) < 126)
                }
                [_, 0x7F | 0xFF, length @ ..] => {
                    length.first_chunk().is_some_and(|&chunk| u64::from_be_bytes(chunk) < 1 << 16)
                }
                _ => false,
            };
            let header = (0..14).map(|missing| [rest, &vec![0; missing]].concat()).find_map(|bytes| {
                let mut cursor = Cursor::new(bytes);
                let header = FrameHeader::parse(&mut cursor).transpose()?;
                Some(header.map(|(header, length)| (header.mask, cursor.position() as usize, length)))
            });
            // Tungstenite refuses a reserved opcode as soon as the header is complete.
            let Ok((mask, header, length)) = header.expect("14 bytes are a header") else {
                frames.missing = 14;
                break;
            };
            let Some(length) = usize::try_from(length).ok().filter(|&length| length <= LONGEST_FRAME) else {
                frames.missing = header.saturating_sub(rest.len());
                frames.is_long = true;
                break;
            };
            let Some((_, next)) = rest.split_at_checked(header + length) else {
                frames.missing = header + length - rest.len();
                break;
            };
            if let ([0x88, ..], [high, low, ..]) = (rest, &rest[header..header + length]) {
                let mask = mask.unwrap_or_default();
                let code = u16::from_be_bytes([high ^ mask[0], low ^ mask[1]]);
                frames.has_forbidden_code |= !CloseCode::from(code).is_allowed();
            }
            rest = next;
        }
        frames
    }
}

/// Feeds a stream to tungstenite's server.
fn judge(stream: &[u8], limit: Option<u64>) -> Judgement {
    struct Wire<'s>(&'s [u8]);
    impl Read for Wire<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            self.0.read(buffer)
        }
    }
    impl Write for Wire<'_> {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            Ok(bytes.len()) // the server's answers do not matter
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let limit = limit.map(|limit| usize::try_from(limit).expect("it fits into memory"));
    let config = WebSocketConfig::default().max_message_size(limit).max_frame_size(Some(LONGEST_FRAME));
    let mut server = WebSocket::from_raw_socket(Wire(stream), Role::Server, Some(config));
    let (mut messages, mut pings) = (Vec::new(), Vec::new());
    let end = loop {
        match server.read() {
            Ok(Message::Binary(message)) => messages.push(message.to_vec()),
            Ok(Message::Ping(data)) => pings.push(data.to_vec()),
            Ok(Message::Text(_) | Message::Pong(_)) => {}
            Ok(Message::Close(close)) => {
                break Verdict::Closed(close.map(|close| (close.code.into(), close.reason.to_string())));
            }
            Ok(Message::Frame(_)) => unreachable!("frames are not read one by one"),
            Err(Error::Protocol(ProtocolError::ResetWithoutClosingHandshake)) => break Verdict::Open,
            Err(Error::Capacity(_)) => break Verdict::Refused(1009),
            Err(Error::Utf8(_)) => break Verdict::Refused(1007),
            Err(Error::Protocol(_)) => break Verdict::Refused(1002),
            Err(other) => panic!("{other:?}"),
        }
    };
    Judgement { messages, pings, end }
}
