//! Masked client frames in, unmasked server frames out: in place and in one pass.
//!
//! The input may be split anywhere.
//!
//! The relay does not assemble messages. It rewrites the bytes of each read frame by frame and passes them on. So
//! memory does not depend on the size of messages, and a message costs no more than its bytes. This file decides which
//! bytes are forwarded and which are a violation of [RFC 6455]. It does no I/O, reads no clock and allocates nothing, except
//! for the text of a client that speaks `arc-relay.v1`.
//! Its counterpart in `connection` fills the [`Buffer`] and acts on [`Event`]s.
//!
//! **The output always fits.** A server frame is a client frame without the four bytes of its masking key (section
//! 5.2), so each frame ends at least four bytes before its original did. Only a frame that is forwarded in parts needs
//! additional headers. The first part stands in the place of the client's own header. A later part always begins a
//! buffer, which keeps [`HEADROOM`](crate::buffers::buffer::HEADROOM) for it.
//!
//! **Frames that go out whole:** all that fit into the buffer, and all of up to [`WHOLE_FRAME`] bytes, or of up to
//! [`SMALL_FRAME`] while [memory is short](Reframer::save_memory). A larger frame is forwarded in fragments while it
//! arrives. Section 5.4 allows an intermediary to do so where no extension was negotiated, and the relay negotiates
//! none.
//!
//! The caller's duties:
//!
//! 1. Fill a buffer's [spare end](Buffer::spare_mut), then call [`Reframer::advance`] until it returns
//!    [`Event::Starved`]. Between [`Event::Yield`] and the next call other work may be done.
//! 2. Write the [output](Buffer::output) before acting on a close or a violation: it came first.
//! 3. Keep the remaining [input](Buffer::input) at the front of the next read. If `Starved` gives the length of a
//!    frame, the next buffer has to hold that much.
//! 4. After [`Event::Close`] or a [`Violation`] nothing more is forwarded. Further input is discarded.
//!
//! [RFC 6455]: https://www.rfc-editor.org/rfc/rfc6455

use std::fmt;
use std::ops::Range;

use super::event::RawEvent;
use super::header::{CLOSE, CONTINUATION, FIN, Header, PING};
use super::mask::unmask;
use super::message::{MessageKind, MessageLength};
use super::rewrite::forward;
use super::subprotocol::{self, TextReader};
use super::utf8::Utf8;
use super::{close, whole_messages};
use crate::buffers::buffer::Buffer;

pub use super::event::{Event, Tally};
pub use super::subprotocol::TextPing;
pub use super::violation::Violation;

/// The longest payload of data frames that are never split, in bytes.
///
/// Small devices' libraries dislike fragments. While such a frame is incomplete, it costs no more than one buffer of
/// this size.
pub const WHOLE_FRAME: usize = 64 * 1024;

/// The longest payload of data frames that are not split when memory is short, in bytes.
pub const SMALL_FRAME: usize = 1024;

/// The most effort between two [yields](Event::Yield): about 0.15 ms.
///
/// The unit is a message of the [fast path](whole_messages). A full buffer (256 KiB) of messages of 32 bytes has 6,899
/// of them, so common streams never yield.
const EFFORT: u32 = 8192;

/// The effort of a frame outside of the fast path, in messages of the fast path.
const FRAME_EFFORT: u32 = 4;

/// The effort of a text message that is read, in messages of the fast path: two microseconds.
const TEXT_EFFORT: u32 = 128;

/// The state of one client's stream between two reads.
///
/// # Examples
///
/// ```
/// use arc_relay::internals::buffer::Buffer;
/// use arc_relay::internals::reframer::{Event, Reframer};
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
    /// The kind of the message that is incomplete, if one is.
    message: Option<MessageKind>,
    length: MessageLength,
    text: Utf8,
    tally: Tally,
    text_bytes: u64,
    text_reader: TextReader,
    echo: Option<u8>,
    saves_memory: bool,
    /// Whether text is read, and not dropped.
    reads_text: bool,
    /// Whether the output so far ends within a message.
    output_is_open: bool,
    /// The effort since the last [`Event::Starved`] or [`Event::Yield`].
    /// At most [`EFFORT`], give or take one frame.
    effort: u32,
}

/// The part of a stream that the next byte of input belongs to.
enum Position {
    /// The header of a frame.
    Header,
    /// The payload of a frame that is forwarded or skipped in parts.
    Payload(Payload),
    /// Bytes behind the end, which are discarded.
    End,
}

/// The rest of a frame behind its header.
#[derive(Clone, Copy)]
struct Payload {
    kind: MessageKind,
    fin: bool,
    /// The opcode of the next part: the frame's own for the first part, continuation for the others.
    opcode: u8,
    remaining: u64,
    /// The masking key, rotated so that its first byte belongs to the next byte of the payload.
    key: [u8; 4],
}

impl Reframer {
    /// A reframer for a new connection.
    ///
    /// A message longer than `limit` bytes is a [violation](Violation::MessageTooBig), judged by the header of the
    /// frame that exceeds it. Memory does not need a limit.
    pub fn new(limit: Option<u64>) -> Self {
        Self {
            position: Position::Header,
            message: None,
            length: MessageLength::new(limit.unwrap_or(u64::MAX)),
            text: Utf8::default(),
            tally: Tally::default(),
            text_bytes: 0,
            text_reader: TextReader::default(),
            echo: None,
            saves_memory: false,
            reads_text: false,
            output_is_open: false,
            effort: 0,
        }
    }

    /// The same for a client that speaks `arc-relay.v1`: its text is read, and not dropped.
    #[must_use]
    pub fn reading_text(self) -> Self {
        Self { reads_text: true, ..self }
    }

    /// Sets whether memory is short.
    ///
    /// If it is, only [small](SMALL_FRAME) frames need to be whole in one buffer, otherwise all of up to
    /// [`WHOLE_FRAME`] bytes.
    pub fn save_memory(&mut self, saves: bool) {
        self.saves_memory = saves;
    }

    /// Rewrites as much of the buffer's input into output as it can, up to the next event.
    ///
    /// # Errors
    ///
    /// [`Violation`]: frames before it are in the output, and all input behind them is discarded.
    pub fn advance<'b>(&mut self, buffer: &'b mut Buffer) -> Result<Event<'b>, Violation> {
        let event = self.next_event(buffer).and_then(|event| {
            Ok(match event {
                RawEvent::Starved { frame } => {
                    self.effort = 0;
                    Event::Starved { frame }
                }
                RawEvent::Yield => {
                    self.effort = 0;
                    Event::Yield
                }
                RawEvent::Ping(payload) => Event::Ping(&buffer.bytes[payload]),
                RawEvent::TextPing => Event::TextPing,
                RawEvent::Close(payload) => {
                    self.end();
                    let (code, reason) = close::parse(&buffer.bytes[payload])?;
                    Event::Close { code, reason }
                }
            })
        });
        if event.is_err() {
            self.end();
        }
        event
    }

    /// Whether the stream is within a message or a frame.
    ///
    /// A client that departs here has lost something, and so has one that leaves a part of a frame in the buffer's
    /// input.
    pub fn is_mid_message(&self) -> bool {
        self.message.is_some() || matches!(self.position, Position::Payload(_))
    }

    /// Whether the output so far ends within a message.
    ///
    /// Then only the rest of that message and control frames may follow it (section 5.4).
    pub fn output_ends_within_message(&self) -> bool {
        self.output_is_open
    }

    /// Messages that have ended, and bytes that were forwarded, so far.
    pub fn tally(&self) -> Tally {
        self.tally
    }

    /// Bytes of text messages so far, the headers of their frames included.
    pub fn text_bytes(&self) -> u64 {
        self.text_bytes
    }

    /// The application data of the newest pong that carried a single byte, since the last call.
    pub fn take_echo(&mut self) -> Option<u8> {
        self.echo.take()
    }

    /// Takes the ping of the last [`Event::TextPing`].
    pub fn take_text_ping(&mut self) -> Option<TextPing> {
        self.text_reader.take()
    }

    fn end(&mut self) {
        self.position = Position::End;
        self.message = None;
        self.text_reader.clear();
    }

    fn next_event(&mut self, buffer: &mut Buffer) -> Result<RawEvent, Violation> {
        loop {
            match self.position {
                Position::Header => {
                    self.forward_messages(buffer);
                    if self.effort >= EFFORT && !buffer.input().is_empty() {
                        return Ok(RawEvent::Yield);
                    }
                    self.effort += FRAME_EFFORT;
                    let Some(header) = Header::parse(buffer.input(), self.message.is_some())? else {
                        return Ok(RawEvent::Starved { frame: 0 });
                    };
                    if header.is_control() {
                        if let Some(event) = self.control_frame(&header, buffer) {
                            return Ok(event);
                        }
                    } else if let Some(frame) = self.begin_data(&header, buffer)? {
                        return Ok(RawEvent::Starved { frame });
                    }
                }
                Position::Payload(payload) => {
                    if buffer.input().is_empty() && payload.remaining > 0 {
                        return Ok(RawEvent::Starved { frame: 0 });
                    }
                    match payload.kind {
                        MessageKind::Binary => self.forward_payload(payload, buffer),
                        MessageKind::Text => {
                            if self.take_text(payload, buffer)? {
                                return Ok(RawEvent::TextPing);
                            }
                        }
                    }
                }
                Position::End => {
                    buffer.clear_input();
                    return Ok(RawEvent::Starved { frame: 0 });
                }
            }
        }
    }

    /// Forwards the messages at the front of the input that the fast path can.
    fn forward_messages(&mut self, buffer: &mut Buffer) {
        if self.message.is_some() {
            return;
        }
        let most = EFFORT.saturating_sub(self.effort);
        let forwarded = whole_messages::forward(buffer, self.length.limit, most.into());
        self.effort += forwarded.messages as u32; // at most `EFFORT`
        self.tally.forwarded += forwarded.messages;
        self.tally.bytes += forwarded.bytes;
    }

    /// Takes a control frame, if it is complete. Returns the event that it is, or that it starves.
    fn control_frame(&mut self, header: &Header, buffer: &mut Buffer) -> Option<RawEvent> {
        let whole = header.size + header.length as usize; // at most 125
        if buffer.input().len() < whole {
            return Some(RawEvent::Starved { frame: whole });
        }
        let payload = buffer.input.start + header.size..buffer.input.start + whole;
        buffer.input.start = payload.end;
        unmask(&mut buffer.bytes[payload.clone()], 0, header.key);
        match header.opcode() {
            PING => Some(RawEvent::Ping(payload)),
            CLOSE => Some(RawEvent::Close(payload)),
            // A pong needs no answer. An unsolicited one (section 5.5.3) has no such data.
            _ => {
                if let [byte] = buffer.bytes[payload] {
                    self.echo = Some(byte);
                }
                None
            }
        }
    }

    /// Enters a data frame.
    ///
    /// An incomplete one that must go out whole stays in its place, and its length is returned.
    fn begin_data(&mut self, header: &Header, buffer: &mut Buffer) -> Result<Option<usize>, Violation> {
        let (kind, message_length) = self.length.extended_by(header, self.message)?;
        match kind {
            MessageKind::Binary => {
                let available = buffer.input().len() - header.size;
                let whole = if self.saves_memory { SMALL_FRAME } else { WHOLE_FRAME };
                if header.length > available as u64 && header.length <= whole as u64 {
                    return Ok(Some(header.size + header.length as usize));
                }
            }
            MessageKind::Text => {
                if self.reads_text && message_length > subprotocol::LONGEST as u64 {
                    return Err(Violation::UnsupportedText);
                }
                self.text_bytes += header.size as u64;
            }
        }
        self.message = Some(kind);
        self.length.set(message_length);
        buffer.input.start += header.size;
        self.position = Position::Payload(Payload {
            kind,
            fin: header.is_final(),
            opcode: header.opcode(),
            remaining: header.length,
            key: header.key,
        });
        Ok(None)
    }

    /// Forwards as much of a frame's payload as there is, which usually is all of it.
    fn forward_payload(&mut self, payload: Payload, buffer: &mut Buffer) {
        let Range { start, end } = payload.part(buffer);
        buffer.input.start = end;
        let (part, message_ends) = (end - start, payload.ends_message(end - start));
        let first = payload.opcode | if message_ends { FIN } else { 0 };
        forward(buffer, start, part, first, payload.key);
        self.tally.bytes += part as u64;
        self.tally.forwarded += u64::from(message_ends);
        self.output_is_open = !message_ends;
        self.leave_payload(payload, part);
    }

    /// Reads or drops as much of a text frame's payload as there is.
    ///
    /// True if a message ends that is a ping.
    #[inline(never)] // text is rare, and the loop around the fast path is to stay small
    fn take_text(&mut self, payload: Payload, buffer: &mut Buffer) -> Result<bool, Violation> {
        let Range { start, end } = payload.part(buffer);
        buffer.input.start = end;
        let (part, message_ends) = (end - start, payload.ends_message(end - start));
        let bytes = &mut buffer.bytes[start..end];
        unmask(bytes, 0, payload.key);
        self.text_bytes += part as u64;
        self.text.push(bytes)?;
        if message_ends {
            self.text.finish()?;
        }
        let is_ping = if self.reads_text {
            self.effort += TEXT_EFFORT;
            self.text_reader.push(bytes, message_ends)?
        } else {
            self.tally.dropped += u64::from(message_ends);
            false
        };
        self.leave_payload(payload, part);
        Ok(is_ping)
    }

    /// Leaves a part of a payload, which is rewritten or read.
    fn leave_payload(&mut self, mut payload: Payload, part: usize) {
        if payload.ends_message(part) {
            self.message = None;
        }
        payload.remaining -= part as u64;
        self.position = if payload.remaining == 0 {
            Position::Header
        } else {
            payload.opcode = CONTINUATION;
            payload.key.rotate_left(part % 4);
            Position::Payload(payload)
        };
    }
}

impl Payload {
    /// The place of its bytes that have arrived.
    fn part(&self, buffer: &Buffer) -> Range<usize> {
        let part = buffer.input().len().min(usize::try_from(self.remaining).unwrap_or(usize::MAX));
        buffer.input.start..buffer.input.start + part
    }

    /// Whether the message ends with the next so many bytes.
    fn ends_message(&self, part: usize) -> bool {
        self.fin && self.remaining == part as u64
    }
}

impl fmt::Debug for Reframer {
    /// Without masking keys and cut characters: clients' data do not belong into logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reframer")
            .field("message", &self.message)
            .field("message_length", &self.length.so_far())
            .field("tally", &self.tally)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::websocket::header::{BINARY, MASKED, PONG, TEXT};

    #[test]
    fn text_bytes_include_headers() {
        let mut buffer = Buffer::new(4096);
        let stream =
            [frame(FIN | TEXT, 0), frame(FIN | BINARY, 9), frame(TEXT, 200), frame(FIN | CONTINUATION, 3)].concat();
        buffer.append_input(&stream[..stream.len() - 1]);
        let mut reframer = Reframer::new(None);
        let _ = reframer.advance(&mut buffer);
        assert_eq!(reframer.text_bytes(), 6 + (8 + 200) + (6 + 2));
    }

    /// A frame of zeros with a masking key of zeros. Other tests are about payloads.
    fn frame(first: u8, length: u16) -> Vec<u8> {
        let header = match length {
            0..=125 => vec![first, MASKED | length as u8],
            _ => [&[first, MASKED | 126], &length.to_be_bytes()[..]].concat(),
        };
        [header, vec![0; 4 + usize::from(length)]].concat()
    }

    /// How many messages the fast path forwards, and how many bytes of input it leaves.
    fn forwarded(reframer: &mut Reframer, stream: &[u8]) -> (u64, usize) {
        let mut buffer = Buffer::new(stream.len() + 64);
        buffer.append_input(stream);
        let before = reframer.tally.forwarded;
        reframer.forward_messages(&mut buffer);
        (reframer.tally.forwarded - before, buffer.input().len())
    }

    /// The bytes that each call takes of a buffer full of `frame`.
    fn calls(frame: &[u8]) -> Vec<usize> {
        calls_of(Reframer::new(None), frame)
    }

    fn calls_of(mut reframer: Reframer, frame: &[u8]) -> Vec<usize> {
        let mut buffer = Buffer::new(256 << 10);
        buffer.append_input(&frame.repeat(((256 << 10) - 64) / frame.len()));
        let mut calls = vec![0];
        loop {
            let before = buffer.input().len();
            let event = reframer.advance(&mut buffer).map(|event| format!("{event:?}"));
            let event = event.expect("a legal frame");
            *calls.last_mut().unwrap() += before - buffer.input().len();
            match event.as_str() {
                "Yield" => calls.push(0),
                "Starved { frame: 0 }" => return calls,
                _ => assert!(event.starts_with("Ping"), "{event}"),
            }
        }
    }

    #[test]
    fn frames_between_two_yields_are_bounded() {
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
    fn texts_that_are_read_between_two_yields_are_bounded() {
        let text = br#"{"type":"?"}"#;
        let message = [&[FIN | TEXT, MASKED | text.len() as u8, 0, 0, 0, 0], &text[..]].concat();
        let calls = calls_of(Reframer::new(None).reading_text(), &message);
        let most = (EFFORT / (FRAME_EFFORT + TEXT_EFFORT) + 1) as usize * message.len();
        assert!(calls.len() > 100 && calls.iter().all(|&bytes| bytes <= most), "{calls:?}");
    }

    #[test]
    fn the_output_is_open_from_the_first_part_of_a_message_to_the_last() {
        let mut reframer = Reframer::new(None).reading_text();
        let large = [&[FIN | BINARY, MASKED | 127][..], &(1_u64 << 17).to_be_bytes(), &[0; 4]].concat();
        let text = br#"{"type":"?"}"#;
        let half = [&[TEXT, MASKED | 5, 0, 0, 0, 0], &text[..5]].concat();
        let rest = [&[FIN | CONTINUATION, MASKED | 7, 0, 0, 0, 0], &text[5..]].concat();
        for (sent, is_open) in [
            (&frame(FIN | BINARY, 9)[..], false),
            (&frame(BINARY, 0), true),
            (&frame(FIN | PING, 1), true),
            (&frame(FIN | CONTINUATION, 0), false),
            (&half, false),
            (&rest, false),
            // The header has gone, and no part of the payload is there to be forwarded.
            (&large, false),
            (&[0; 9], true),
            (&vec![0; (1 << 17) - 9], false),
            (&frame(BINARY, 3), true),
            // Nothing more comes, but the output stays as it is.
            (&frame(FIN | CLOSE, 0), true),
            (&frame(FIN | BINARY, 9), true),
        ] {
            let mut buffer = Buffer::new(sent.len() + 64);
            buffer.append_input(sent);
            while !matches!(reframer.advance(&mut buffer), Ok(Event::Starved { .. })) {}
            assert_eq!(reframer.output_ends_within_message(), is_open, "{:x?}", &sent[..sent.len().min(9)]);
        }
    }

    #[test]
    fn a_full_buffer_of_common_messages_does_not_yield() {
        for length in [32, 64, 125, 126, 1000] {
            assert_eq!(calls(&frame(FIN | BINARY, length)).len(), 1, "{length}");
        }
    }

    /// All other tests would pass without the fast path.
    #[test]
    fn the_fast_path_forwards_whole_messages() {
        let mut reframer = Reframer::new(None);
        for length in (0..300).chain([u16::MAX]) {
            let message = frame(FIN | BINARY, length);
            assert_eq!(forwarded(&mut reframer, &message.repeat(3)), (3, 0), "{length}");
            let cut = &message[..message.len() - 1];
            assert_eq!(forwarded(&mut reframer, &[&message, cut].concat()), (1, cut.len()), "{length}");
        }
    }

    #[test]
    fn the_newest_pong_of_one_byte_is_returned_once() {
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
    fn the_fast_path_leaves_all_other_frames() {
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
