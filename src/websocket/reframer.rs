//! Masked client frames in, unmasked server frames out: in place, in one pass, for any split of the input.
//!
//! The relay does not assemble messages. It rewrites what a read brought, frame by frame, and passes it on, so that
//! memory does not depend on message size and the cost of a message is that of its bytes. This file decides what is
//! forwarded and what is a violation of [RFC 6455]; it never does I/O, reads no clock and allocates nothing. Its
//! counterpart on the other side of the relay is `connection`, which fills the [`Buffer`] and acts on [`Event`]s.
//!
//! **Why the output always fits.** A server frame is a client frame without the four bytes of its masking key
//! (section 5.2), so each frame ends at least four bytes before its original did. Only a frame that is forwarded in
//! parts needs additional headers: the first part stands in the place of the client's own header, and a later part
//! always begins a buffer, where [`HEADROOM`](crate::buffers::buffer::HEADROOM) is kept for it.
//!
//! **What goes out whole.** A frame that fits into the buffer, and every frame of up to [`WHOLE_FRAME`] bytes, or, where
//! [memory is short](Reframer::save_memory), of up to [`SMALL_FRAME`]. What is larger and has not all arrived is forwarded
//! in fragments while it arrives, which section 5.4 allows to an intermediary where no extension was negotiated, and none
//! ever is here.
//!
//! The caller's duties:
//!
//! 1. Fill a buffer's [spare end](Buffer::spare_mut), then call [`Reframer::advance`] until it returns
//!    [`Event::Starved`]. Between [`Event::Yield`] and the next call other work may be done.
//! 2. Write the [output](Buffer::output) before acting on a close or a violation: it came first.
//! 3. Keep the [input](Buffer::input) that is left at the front of the next read; if `Starved` names a frame's
//!    length, see to it that the next buffer can hold that much.
//! 4. After [`Event::Close`] or a [`Violation`] nothing more is forwarded; whatever else arrives is discarded.
//!
//! [RFC 6455]: https://www.rfc-editor.org/rfc/rfc6455

use std::fmt;
use std::ops::Range;

use super::rewrite::{forward, move_frame};
use crate::buffers::buffer::Buffer;
use crate::websocket::mask::unmask;
use crate::websocket::utf8::Utf8;

pub use super::violation::Violation;

/// Data frames with a payload of up to this many bytes are never split. Small devices' libraries dislike fragments,
/// and it costs no more than one buffer of this size while such a frame is incomplete.
pub const WHOLE_FRAME: usize = 64 * 1024;

/// Data frames with a payload of up to this many bytes are not split either when memory is short.
pub const SMALL_FRAME: usize = 1024;

/// How much effort there may be between two [yields](Event::Yield), in messages of the [fast loop](Reframer::forward_messages):
/// about 0.15 ms. A full buffer (256 KiB) of messages of 32 bytes has 6,899 of them, so common streams never yield.
const EFFORT: u32 = 8192;

/// What a frame outside of the fast loop takes, in messages of the fast loop.
const FRAME_EFFORT: u32 = 4;

/// The longest payload of a control frame, in bytes (RFC 6455, section 5.5).
pub const CONTROL_PAYLOAD: usize = 125;

const FIN: u8 = 0x80;
const MASKED: u8 = 0x80;
const CONTINUATION: u8 = 0x0;
const TEXT: u8 = 0x1;
const BINARY: u8 = 0x2;
const FIN_BINARY: u8 = FIN | BINARY;
const MASKED_125: u8 = MASKED | 125;
const MASKED_16_BITS: u8 = MASKED | 126;
const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;
const PONG: u8 = 0xA;

/// What [`Reframer::advance`] came upon.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<'b> {
    /// All that could be rewritten is; more input is needed.
    Starved {
        /// If the input that is left begins a frame that must go out whole: the length of that frame in bytes, header
        /// included, as far as it is known. Otherwise 0.
        frame: usize,
    },
    /// The call has taken as long as one call may; input is left, and the next call goes on with it. Without this, a buffer
    /// of the shortest frames would take ten times as long as one of long frames, and other clients would wait.
    Yield,
    /// A ping, to be answered with its application data (section 5.5.2).
    Ping(&'b [u8]),
    /// The client closes (section 5.5.1). Nothing that follows it is looked at.
    Close {
        /// The status code, if there is one. It is valid on the wire (section 7.4).
        code: Option<u16>,
        /// The reason, possibly empty.
        reason: &'b str,
    },
}

/// How many messages have ended so far, and how many bytes were forwarded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Binary messages, forwarded to their last byte.
    pub forwarded: u64,
    /// Text messages, dropped.
    pub dropped: u64,
    /// The payload of binary messages, in bytes, as far as it was forwarded.
    pub bytes: u64,
}

/// The state of one client's stream between two reads.
///
/// # Examples
///
/// ```
/// use arc_relay::buffer::Buffer;
/// use arc_relay::reframe::{Event, Reframer};
///
/// let mut reframer = Reframer::new(None);
/// let mut buffer = Buffer::new(4096);
/// let frame = [0x82, 0x83, 1, 2, 3, 4, b'a' ^ 1, b'b' ^ 2, b'c' ^ 3]; // "abc", binary, masked with 1 2 3 4
/// buffer.spare_mut()[..frame.len()].copy_from_slice(&frame);
/// buffer.fill(frame.len());
///
/// assert_eq!(reframer.advance(&mut buffer), Ok(Event::Starved { frame: 0 }));
/// assert_eq!(buffer.output(), [0x82, 3, b'a', b'b', b'c']);
/// ```
pub struct Reframer {
    position: Position,
    /// The message whose last fragment has not come, if any.
    message: Option<MessageKind>,
    /// The payload of the current message so far, in bytes, the frame being read included.
    message_length: u64,
    limit: u64,
    text: Utf8,
    tally: Tally,
    text_bytes: u64,
    echo: Option<u8>,
    saves_memory: bool,
    /// The effort since the last time that input was needed, or that there was a yield. At most [`EFFORT`], give or take
    /// one frame.
    effort: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum MessageKind {
    Binary,
    Text,
}

/// Where the next byte of input belongs.
enum Position {
    /// The header of a frame.
    Header,
    /// The payload of a frame that is forwarded or skipped in parts.
    Payload(Payload),
    /// Behind the end: discarded.
    End,
}

/// What is left of a frame in the middle of it.
#[derive(Clone, Copy)]
struct Payload {
    kind: MessageKind,
    fin: bool,
    /// The opcode of the next part: the frame's own for the first, continuation after it.
    opcode: u8,
    remaining: u64,
    /// Turned so that its first byte belongs to the next byte of the payload.
    key: [u8; 4],
}

/// A frame's header, legal where it stands.
struct Header {
    /// FIN, reserved bits (never set) and opcode, as in the first byte of the frame.
    first: u8,
    key: [u8; 4],
    /// The length of the header, in bytes.
    size: usize,
    /// The length of the payload, in bytes.
    length: u64,
}

/// An event whose data is named by its place in the buffer.
enum HeaderParse {
    Starved { frame: usize },
    Yield,
    Ping(Range<usize>),
    Close(Range<usize>),
}

impl Reframer {
    /// A reframer for a new connection. A message longer than `limit` bytes is a [violation](Violation::MessageTooBig),
    /// judged from the header of the frame that exceeds it. Memory does not need a limit.
    pub fn new(limit: Option<u64>) -> Self {
        Self {
            position: Position::Header,
            message: None,
            message_length: 0,
            limit: limit.unwrap_or(u64::MAX),
            text: Utf8::default(),
            tally: Tally::default(),
            text_bytes: 0,
            echo: None,
            saves_memory: false,
            effort: 0,
        }
    }

    /// From now on, asks for a whole frame in one buffer only if it is a [small](SMALL_FRAME) one; or for every frame of up
    /// to [`WHOLE_FRAME`] bytes again.
    pub fn save_memory(&mut self, saves: bool) {
        self.saves_memory = saves;
    }

    /// Rewrites as much of the buffer's input into output as it can, up to the next event.
    ///
    /// # Errors
    ///
    /// [`Violation`]: whatever stands before it is in the output, and all input from there on is discarded.
    pub fn advance<'b>(&mut self, buffer: &'b mut Buffer) -> Result<Event<'b>, Violation> {
        let event = self.find(buffer).and_then(|found| {
            Ok(match found {
                HeaderParse::Starved { frame } => {
                    self.effort = 0;
                    Event::Starved { frame }
                }
                HeaderParse::Yield => {
                    self.effort = 0;
                    Event::Yield
                }
                HeaderParse::Ping(payload) => Event::Ping(&buffer.bytes[payload]),
                HeaderParse::Close(payload) => {
                    self.end();
                    buffer.clear_input();
                    close(&buffer.bytes[payload])?
                }
            })
        });
        if event.is_err() {
            self.end();
        }
        event
    }

    /// Whether the stream stands within a message, or within a frame. A client that departs here has lost something;
    /// so has one that leaves a part of a frame in the buffer's input.
    pub fn is_mid_message(&self) -> bool {
        self.message.is_some() || matches!(self.position, Position::Payload(_))
    }

    /// How many messages have ended.
    pub fn tally(&self) -> Tally {
        self.tally
    }

    /// How many bytes of text messages were dropped, the headers of their frames included.
    pub fn text_bytes(&self) -> u64 {
        self.text_bytes
    }

    /// The application data of the newest pong that has a single byte of it, since the last time that this was asked.
    pub fn take_echo(&mut self) -> Option<u8> {
        self.echo.take()
    }

    fn end(&mut self) {
        self.position = Position::End;
        self.message = None;
    }

    fn find(&mut self, buffer: &mut Buffer) -> Result<HeaderParse, Violation> {
        loop {
            match self.position {
                Position::Header => {
                    self.forward_messages(buffer);
                    if self.effort >= EFFORT && !buffer.input().is_empty() {
                        return Ok(HeaderParse::Yield);
                    }
                    self.effort += FRAME_EFFORT;
                    let Some(header) = self.header(buffer.input())? else {
                        return Ok(HeaderParse::Starved { frame: 0 });
                    };
                    if header.first & 0x8 == 0 {
                        if let Some(frame) = self.begin_data(&header, buffer)? {
                            return Ok(HeaderParse::Starved { frame });
                        }
                    } else {
                        let whole = header.size + header.length as usize; // at most 125
                        if buffer.input().len() < whole {
                            return Ok(HeaderParse::Starved { frame: whole });
                        }
                        let payload = buffer.input.start + header.size..buffer.input.start + whole;
                        buffer.input.start = payload.end;
                        unmask(&mut buffer.bytes[payload.clone()], 0, header.key);
                        match header.first & 0xF {
                            PING => return Ok(HeaderParse::Ping(payload)),
                            CLOSE => return Ok(HeaderParse::Close(payload)),
                            // A pong asks for nothing, and those that nobody has asked for (section 5.5.3) have no such data.
                            _ => {
                                if let [byte] = buffer.bytes[payload] {
                                    self.echo = Some(byte);
                                }
                            }
                        }
                    }
                }
                Position::Payload(payload) => {
                    if buffer.input().is_empty() && payload.remaining > 0 {
                        return Ok(HeaderParse::Starved { frame: 0 });
                    }
                    self.continue_data(payload, buffer)?;
                }
                Position::End => {
                    buffer.clear_input();
                    return Ok(HeaderParse::Starved { frame: 0 });
                }
            }
        }
    }

    /// Forwards the messages at the front of the input that are a single frame, whole, with a length of 7 or 16 bits. The
    /// rest of this file would do the same with them; this keeps all it needs in registers, so that what a message costs
    /// beside its bytes is a third.
    fn forward_messages(&mut self, buffer: &mut Buffer) {
        if self.message.is_some() {
            return;
        }
        let Buffer { bytes, output, input, .. } = buffer;
        let bytes = &mut bytes[..input.end];
        let limit = usize::try_from(self.limit).unwrap_or(usize::MAX);
        // With nothing before it, the first frame stays where it is, and only its header moves, over its mask.
        let begin = if Range::is_empty(output) { input.start + 4 } else { output.start };
        let (mut from, mut to, mut forwarded) = (input.start, begin.max(output.end), 0);
        let most = u64::from(EFFORT.saturating_sub(self.effort));
        // How many have the longer header: so the payload of all follows from what they take up together.
        let (before, mut longer) = (to, 0);
        while forwarded < most {
            let (is_moved, size) = match bytes[from..] {
                [FIN_BINARY, second @ MASKED..=MASKED_125, k0, k1, k2, k3, ..] => {
                    let (header, length) = ([FIN_BINARY, second ^ MASKED], usize::from(second ^ MASKED));
                    let fits = length <= limit;
                    (fits && move_frame(bytes, to, header, from + 6, length, [k0, k1, k2, k3]), 2 + length)
                }
                [FIN_BINARY, MASKED_16_BITS, high, low, k0, k1, k2, k3, ..] if high > 0 || low > 125 => {
                    let (header, length) = ([FIN_BINARY, 126, high, low], usize::from(u16::from_be_bytes([high, low])));
                    let is_moved = length <= limit && move_frame(bytes, to, header, from + 8, length, [k0, k1, k2, k3]);
                    longer += u64::from(is_moved);
                    (is_moved, 4 + length)
                }
                _ => break,
            };
            if !is_moved {
                break;
            }
            from += size + 4;
            to += size;
            forwarded += 1;
        }
        if forwarded > 0 {
            *output = begin..to;
            input.start = from;
            self.effort += forwarded as u32; // at most `EFFORT`
            self.tally.forwarded += forwarded;
            self.tally.bytes += (to - before) as u64 - 2 * (forwarded + longer);
        }
    }

    /// Judges the header at the front of the input, if it is all there. Its first two bytes are judged without the
    /// others, so that a violator is told at once.
    fn header(&self, input: &[u8]) -> Result<Option<Header>, Violation> {
        let &[first, second, ..] = input else { return Ok(None) };
        if first & 0x70 != 0 {
            return Err(Violation::ReservedBits);
        }
        let short = second & 0x7F;
        match first & 0xF {
            CONTINUATION if self.message.is_none() => return Err(Violation::UnexpectedContinuation),
            TEXT | BINARY if self.message.is_some() => return Err(Violation::ExpectedContinuation),
            CONTINUATION | TEXT | BINARY => {}
            CLOSE | PING | PONG if first & FIN == 0 => return Err(Violation::FragmentedControl),
            CLOSE | PING | PONG if usize::from(short) > CONTROL_PAYLOAD => return Err(Violation::OversizedControl),
            CLOSE | PING | PONG => {}
            _ => return Err(Violation::ReservedOpcode),
        }
        if second & MASKED == 0 {
            return Err(Violation::Unmasked);
        }
        let (length, rest) = match short {
            126 => {
                let Some((length, rest)) = input[2..].split_first_chunk() else { return Ok(None) };
                let length = u64::from(u16::from_be_bytes(*length));
                if length < 126 {
                    return Err(Violation::NonMinimalLength);
                }
                (length, rest)
            }
            127 => {
                let Some((length, rest)) = input[2..].split_first_chunk() else { return Ok(None) };
                let length = u64::from_be_bytes(*length);
                if length >> 63 != 0 {
                    return Err(Violation::OverlongLength);
                }
                if length <= u64::from(u16::MAX) {
                    return Err(Violation::NonMinimalLength);
                }
                (length, rest)
            }
            short => (u64::from(short), &input[2..]),
        };
        let Some((&key, rest)) = rest.split_first_chunk() else { return Ok(None) };
        Ok(Some(Header { first, key, size: input.len() - rest.len(), length }))
    }

    /// Enters a data frame, unless it is incomplete and must go out whole: then it stays where it is, and its length is
    /// returned.
    fn begin_data(&mut self, header: &Header, buffer: &mut Buffer) -> Result<Option<usize>, Violation> {
        let opcode = header.first & 0xF;
        let fin = header.first & FIN != 0;
        let (kind, before) = match (opcode, self.message) {
            (CONTINUATION, Some(kind)) => (kind, self.message_length),
            (TEXT, _) => (MessageKind::Text, 0),
            _ => (MessageKind::Binary, 0),
        };
        // Both are below 2^63 (the length by its header, the sum by its own limit or saturation).
        let message_length = before.saturating_add(header.length);
        if message_length > self.limit {
            return Err(Violation::MessageTooBig);
        }
        let payload = Payload { kind, fin, opcode, remaining: header.length, key: header.key };
        if kind == MessageKind::Binary {
            let available = buffer.input().len() - header.size;
            let whole = if self.saves_memory { SMALL_FRAME } else { WHOLE_FRAME };
            if header.length > available as u64 && header.length <= whole as u64 {
                return Ok(Some(header.size + header.length as usize));
            }
        }
        if kind == MessageKind::Text {
            self.text_bytes += header.size as u64;
        }
        self.message = Some(kind);
        self.message_length = message_length;
        buffer.input.start += header.size;
        self.position = Position::Payload(payload);
        Ok(None)
    }

    /// Forwards or skips as much of a frame's payload as there is, which usually is all of it.
    fn continue_data(&mut self, mut payload: Payload, buffer: &mut Buffer) -> Result<(), Violation> {
        let part = buffer.input().len().min(usize::try_from(payload.remaining).unwrap_or(usize::MAX));
        let start = buffer.input.start;
        buffer.input.start += part;
        payload.remaining -= part as u64;
        let frame_ends = payload.remaining == 0;
        let message_ends = frame_ends && payload.fin;
        match payload.kind {
            MessageKind::Binary => {
                let first = payload.opcode | if message_ends { FIN } else { 0 };
                forward(buffer, start, part, first, payload.key);
                self.tally.bytes += part as u64;
            }
            MessageKind::Text => {
                let bytes = &mut buffer.bytes;
                unmask(&mut bytes[start..start + part], 0, payload.key);
                self.text_bytes += part as u64;
                self.text.push(&bytes[start..start + part])?;
                if message_ends {
                    self.text.finish()?;
                }
            }
        }
        if message_ends {
            self.message = None;
            match payload.kind {
                MessageKind::Binary => self.tally.forwarded += 1,
                MessageKind::Text => self.tally.dropped += 1,
            }
        }
        self.position = if frame_ends {
            Position::Header
        } else {
            payload.opcode = CONTINUATION;
            payload.key.rotate_left(part % 4);
            Position::Payload(payload)
        };
        Ok(())
    }
}

impl fmt::Debug for Reframer {
    /// Without masking keys and cut characters: what clients send does not belong into logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reframer")
            .field("message", &self.message)
            .field("message_length", &self.message_length)
            .field("tally", &self.tally)
            .finish_non_exhaustive()
    }
}

/// Judges the payload of a close frame (sections 5.5.1 and 7.4).
fn close(payload: &[u8]) -> Result<Event<'_>, Violation> {
    let (code, reason) = match payload {
        [] => (None, &[][..]),
        [_] => return Err(Violation::TruncatedCloseCode),
        [high, low, reason @ ..] => (Some(u16::from_be_bytes([*high, *low])), reason),
    };
    match code {
        // The registered codes without those that only stand for something local (1004 to 1006, 1015), and the
        // ranges for registered and for private use.
        None | Some(1000..=1003 | 1007..=1014 | 3000..=4999) => {}
        Some(_) => return Err(Violation::InvalidCloseCode),
    }
    let reason = std::str::from_utf8(reason).map_err(|_| Violation::InvalidUtf8)?;
    Ok(Event::Close { code, reason })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_of_text_are_counted_with_their_headers() {
        let mut buffer = Buffer::new(4096);
        let stream =
            [frame(FIN | TEXT, 0), frame(FIN | BINARY, 9), frame(TEXT, 200), frame(FIN | CONTINUATION, 3)].concat();
        buffer.append_input(&stream[..stream.len() - 1]);
        let mut reframer = Reframer::new(None);
        let _ = reframer.advance(&mut buffer);
        assert_eq!(reframer.text_bytes(), 6 + (8 + 200) + (6 + 2));
    }

    /// A frame of zeros without a mask to speak of; what becomes of payloads is for other tests to say.
    fn frame(first: u8, length: u16) -> Vec<u8> {
        let header = match length {
            0..=125 => vec![first, MASKED | length as u8],
            _ => [&[first, MASKED | 126], &length.to_be_bytes()[..]].concat(),
        };
        [header, vec![0; 4 + usize::from(length)]].concat()
    }

    /// How many messages the short way forwards, and how much of the input it leaves.
    fn forwarded(reframer: &mut Reframer, stream: &[u8]) -> (u64, usize) {
        let mut buffer = Buffer::new(stream.len() + 64);
        buffer.append_input(stream);
        let before = reframer.tally.forwarded;
        reframer.forward_messages(&mut buffer);
        (reframer.tally.forwarded - before, buffer.input().len())
    }

    /// How many bytes of a buffer full of `frame` each call takes, to the end.
    fn calls(frame: &[u8]) -> Vec<usize> {
        let (mut reframer, mut buffer) = (Reframer::new(None), Buffer::new(256 << 10));
        buffer.append_input(&frame.repeat(((256 << 10) - 64) / frame.len()));
        let mut calls = vec![0];
        loop {
            let before = buffer.input().len();
            let event = reframer.advance(&mut buffer).map(|event| format!("{event:?}"));
            let event = event.expect("it is legal");
            *calls.last_mut().unwrap() += before - buffer.input().len();
            match event.as_str() {
                "Yield" => calls.push(0),
                "Starved { frame: 0 }" => return calls,
                _ => assert!(event.starts_with("Ping"), "{event}"),
            }
        }
    }

    #[test]
    fn between_two_yields_the_number_of_frames_is_bounded() {
        for (first, length, most) in [
            (FIN | TEXT, 0, EFFORT / FRAME_EFFORT),
            (FIN | TEXT, 1, EFFORT / FRAME_EFFORT),
            (FIN | PING, 0, EFFORT / FRAME_EFFORT),
            (FIN | PONG, 0, EFFORT / FRAME_EFFORT),
            (FIN | BINARY, 0, EFFORT),
            (FIN | BINARY, 9, EFFORT),
        ] {
            let frame = frame(first, length);
            let calls = calls(&frame);
            let (last, others) = calls.split_last().unwrap();
            let most = most as usize * frame.len();
            assert!(!others.is_empty() && others.iter().all(|&bytes| bytes == most), "{first:x} {length}: {calls:?}");
            assert!((1..=most).contains(last), "{first:x} {length}: {calls:?}");
        }
    }

    #[test]
    fn a_buffer_of_common_messages_does_not_yield() {
        for length in [32, 64, 125, 126, 1000] {
            assert_eq!(calls(&frame(FIN | BINARY, length)).len(), 1, "{length}");
        }
    }

    /// All other tests would pass without it.
    #[test]
    fn the_short_way_takes_whole_messages() {
        let mut reframer = Reframer::new(None);
        for length in (0..300).chain([u16::MAX]) {
            let message = frame(FIN | BINARY, length);
            assert_eq!(forwarded(&mut reframer, &message.repeat(3)), (3, 0), "{length}");
            let cut = &message[..message.len() - 1];
            assert_eq!(forwarded(&mut reframer, &[&message, cut].concat()), (1, cut.len()), "{length}");
        }
    }

    #[test]
    fn the_newest_pong_of_a_byte_is_known_once() {
        let mut reframer = Reframer::new(None);
        let mut echo = |opcode, data: &[u8]| {
            let mut buffer = Buffer::new(256);
            buffer.append_input(&[&[FIN | opcode, MASKED | data.len() as u8, 7, 7, 7, 7], data].concat());
            let _ = reframer.advance(&mut buffer);
            reframer.take_echo()
        };
        assert_eq!(echo(PING, &[7 ^ 1]), None);
        assert_eq!(echo(PONG, &[7 ^ 2]), Some(2));
        for (opcode, data) in [(PONG, &[][..]), (PONG, &[7, 7]), (PING, &[7]), (BINARY, &[7])] {
            assert_eq!(echo(opcode, data), None);
        }
        assert_eq!(echo(PONG, &[7 ^ 3]), Some(3));
    }

    #[test]
    fn the_short_way_leaves_what_has_to_be_looked_at() {
        let mut reframer = Reframer::new(Some(1000));
        assert_eq!(forwarded(&mut reframer, &frame(FIN | BINARY, 1000)), (1, 0));
        let not_minimal = [FIN | BINARY, MASKED | 126, 0, 125];
        for left in [
            frame(FIN | BINARY, 1001),
            [&[FIN | BINARY, MASKED | 127, 0, 0, 0, 0, 0, 1, 0, 0][..], &[0; 4 + 0x1_0000]].concat(),
            frame(FIN | TEXT, 5),
            frame(FIN | CONTINUATION, 5),
            frame(FIN | PING, 5),
            frame(BINARY, 5),
            frame(0x40 | FIN | BINARY, 5),
            [&not_minimal[..], &[0; 129]].concat(),
            vec![FIN | BINARY, 5, 1, 2, 3, 4, 5],
        ] {
            let stream = [frame(FIN | BINARY, 9), left.clone()].concat();
            assert_eq!(forwarded(&mut reframer, &stream), (1, left.len()), "{:?}", &left[..2]);
        }
        reframer.message = Some(MessageKind::Binary);
        let message = frame(FIN | BINARY, 5);
        assert_eq!(forwarded(&mut reframer, &message), (0, message.len()));
    }
}
