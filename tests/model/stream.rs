//! A client's byte stream, fed to the reframer in any split, and the checks of its output.
//!
//! The encoder of the client frames and the parser of the output are tungstenite's, so that they share no mistake with
//! the reframer.

use std::io::{Cursor, Read, Write};

use arc_relay::internals::buffer::{Buffer, HEADROOM};
use arc_relay::internals::reframer::{Event, Reframer, SMALL_FRAME, Tally, Violation, WHOLE_FRAME};
use async_tungstenite::tungstenite::protocol::frame::FrameHeader;
use async_tungstenite::tungstenite::protocol::frame::coding::OpCode;
use async_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use async_tungstenite::tungstenite::{self, Message, WebSocket};

/// A frame as a client sends it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub opcode: u8,
    pub fin: bool,
    pub mask: [u8; 4],
    pub payload: Vec<u8>,
}

impl Frame {
    pub fn encode(&self, output: &mut Vec<u8>) {
        let header = FrameHeader {
            is_final: self.fin,
            opcode: OpCode::from(self.opcode),
            mask: Some(self.mask),
            ..FrameHeader::default()
        };
        header.format(self.payload.len() as u64, output).expect("a vector takes everything");
        output.extend(self.payload.iter().zip(self.mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    }
}

/// How a stream ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// More bytes may follow.
    Open {
        mid_message: bool,
    },
    Closed {
        code: Option<u16>,
        reason: String,
    },
    Violated(Violation),
}

/// Everything that the reframer made of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The forwarded bytes: whole server frames.
    pub output: Vec<u8>,
    pub pings: Vec<Vec<u8>>,
    /// The `id`s of pings of `arc-relay.v1`.
    pub text_pings: Vec<Option<String>>,
    pub end: End,
    pub tally: Tally,
}

/// Feeds a stream to a new reframer, in reads of these sizes.
///
/// The sizes are repeated; without any, there is a single read. Each read gets as little room as the reframer's
/// contract allows. Every second read appends to output that is not written yet.
pub fn feed(stream: &[u8], reads: &[usize], limit: Option<u64>) -> Outcome {
    feed_with_memory(stream, reads, limit, |_read| true)
}

/// Like [`feed`], with memory for long frames only at the reads for which `has_memory` is true.
pub fn feed_with_memory(
    stream: &[u8],
    reads: &[usize],
    limit: Option<u64>,
    has_memory: impl Fn(usize) -> bool,
) -> Outcome {
    feed_to(Reframer::new(limit), stream, reads, has_memory)
}

/// Like [`feed_with_memory`], to this new reframer.
pub fn feed_to(
    mut reframer: Reframer,
    mut stream: &[u8],
    reads: &[usize],
    has_memory: impl Fn(usize) -> bool,
) -> Outcome {
    let mut outcome = Outcome {
        output: Vec::new(),
        pings: Vec::new(),
        text_pings: Vec::new(),
        end: End::Open { mid_message: false },
        tally: Tally::default(),
    };
    let mut buffer = Buffer::new(HEADROOM);
    let mut least = 0;
    let mut sizes = reads.iter().copied().cycle();
    let mut keep_output = false;
    for nth in 0.. {
        reframer.save_memory(!has_memory(nth));
        let size = sizes.next().unwrap_or(usize::MAX).clamp(1, stream.len().max(1)).min(stream.len());
        buffer = make_room(buffer, least, size, keep_output, &mut outcome.output);
        let (read, rest) = stream.split_at(size);
        buffer.spare_mut()[..size].copy_from_slice(read);
        buffer.fill(size);
        stream = rest;
        loop {
            match reframer.advance(&mut buffer) {
                Ok(Event::Starved { frame }) => {
                    assert!(
                        has_memory(nth) || frame <= 8 + SMALL_FRAME,
                        "the reframer asks for {frame} bytes, but memory is short"
                    );
                    least = frame;
                    break;
                }
                Ok(Event::Yield) => assert!(!buffer.input().is_empty(), "the reframer yields without input left"),
                Ok(Event::Ping(data)) => outcome.pings.push(data.to_vec()),
                Ok(Event::TextPing) => {
                    outcome.text_pings.push(reframer.take_text_ping().expect("it has just come").id);
                }
                Ok(Event::Close { code, reason }) => outcome.end = End::Closed { code, reason: reason.to_owned() },
                Err(violation) => outcome.end = End::Violated(violation),
            }
        }
        keep_output = !keep_output;
        if stream.is_empty() {
            break;
        }
    }
    if let End::Open { mid_message } = &mut outcome.end {
        *mid_message = reframer.is_mid_message() || !buffer.input().is_empty();
    } else {
        assert!(!reframer.is_mid_message() && buffer.input().is_empty(), "input is left behind the end of the stream");
    }
    outcome.output.extend(buffer.output());
    outcome.tally = reframer.tally();
    let is_open = messages(&outcome.output).1.is_some();
    assert_eq!(reframer.output_ends_within_message(), is_open, "the end of the output is taken for another");
    outcome
}

/// A buffer with the old input, and with room for `size` more bytes and a frame of `least` bytes.
fn make_room(mut old: Buffer, least: usize, size: usize, keep_output: bool, written: &mut Vec<u8>) -> Buffer {
    let input = old.input().to_vec();
    if keep_output && old.spare_mut().len() >= size.max(least.saturating_sub(input.len())) {
        return old;
    }
    // The output is consumed in two parts, as by a socket.
    let part = old.output().len() / 2;
    written.extend(&old.output()[..part]);
    old.consume_output(part);
    written.extend(old.output());
    let mut new = Buffer::new(HEADROOM + least.max(input.len() + size));
    new.spare_mut()[..input.len()].copy_from_slice(&input);
    new.fill(input.len());
    new
}

/// The forwarded frames, each with its first byte.
///
/// # Panics
///
/// If a frame is incomplete, masked, or has a length that is not minimal.
pub fn server_frames(output: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut frames = Vec::new();
    let mut cursor = Cursor::new(output);
    while (cursor.position() as usize) < output.len() {
        let first = output[cursor.position() as usize];
        let start = cursor.position();
        let (header, length) = FrameHeader::parse(&mut cursor).expect("a legal header").expect("a whole header");
        assert_eq!(header.mask, None, "a server must not mask");
        assert_eq!(cursor.position() - start, header.len(length) as u64, "the length is not minimal");
        let mut payload = vec![0; usize::try_from(length).expect("it fits into memory")];
        cursor.read_exact(&mut payload).expect("a whole frame");
        frames.push((first, payload));
    }
    frames
}

/// The forwarded messages, and the payload so far of an incomplete last one.
pub fn messages(output: &[u8]) -> (Vec<Vec<u8>>, Option<Vec<u8>>) {
    let mut messages = Vec::new();
    let mut current = None;
    for (first, payload) in server_frames(output) {
        match (first & 0x7F, &mut current) {
            (2, None) => current = Some(payload),
            (0, Some(message)) => message.extend(payload),
            (other, current) => panic!("opcode {other} while {:?}", current.as_ref().map(Vec::len)),
        }
        if first & 0x80 != 0 {
            messages.extend(current.take());
        }
    }
    (messages, current)
}

/// The messages as tungstenite's client receives them.
pub fn received_by_tungstenite(output: &[u8]) -> Vec<Vec<u8>> {
    struct Wire<'o>(&'o [u8]);
    impl Read for Wire<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            self.0.read(buffer)
        }
    }
    impl Write for Wire<'_> {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            panic!("data needs no answer, but the client wrote {bytes:?}")
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let config = WebSocketConfig::default().max_message_size(None).max_frame_size(None);
    let mut client = WebSocket::from_raw_socket(Wire(output), Role::Client, Some(config));
    let mut received = Vec::new();
    loop {
        match client.read() {
            Ok(Message::Binary(message)) => received.push(message.to_vec()),
            Ok(other) => panic!("a message that is not binary was forwarded: {other:?}"),
            Err(tungstenite::Error::Protocol(tungstenite::error::ProtocolError::ResetWithoutClosingHandshake)) => {
                return received;
            }
            Err(error) => panic!("tungstenite rejects the output: {error}"),
        }
    }
}

/// Asserts that the output is what legal frames must become: each binary frame unchanged.
///
/// A frame of more than [`WHOLE_FRAME`] bytes may be split, and one of more than [`SMALL_FRAME`] if memory was short.
///
/// # Panics
///
/// If the output differs.
pub fn assert_forwards(output: &[u8], frames: &[Frame], has_memory: bool) {
    let whole = if has_memory { WHOLE_FRAME } else { SMALL_FRAME };
    let mut forwarded = server_frames(output).into_iter();
    let mut in_binary = false;
    for frame in frames {
        match frame.opcode {
            2 => in_binary = true,
            1 => in_binary = false,
            0 => {}
            _ => continue,
        }
        if !in_binary {
            continue;
        }
        let (mut first, mut payload) = forwarded.next().expect("a frame is missing");
        assert_eq!(first & 0x0F, frame.opcode, "the opcode has changed");
        let mut parts = 1;
        while payload.len() < frame.payload.len() {
            assert_eq!(first & 0x80, 0, "a part before the last ends the message");
            let (next, more) = forwarded.next().expect("a part is missing");
            assert_eq!(next & 0x0F, 0, "a later part is no continuation");
            first = next;
            payload.extend(more);
            parts += 1;
        }
        assert_eq!(first & 0x80 != 0, frame.fin, "the end of the message has moved");
        assert!(payload == frame.payload, "the payload has changed");
        assert!(parts == 1 || frame.payload.len() > whole, "a small frame was split");
    }
    assert_eq!(forwarded.next(), None, "a frame was forwarded that was not sent");
}

/// Asserts that the outcome of raw bytes does not depend on the split into reads.
///
/// It must also be tungstenite's, except for listed differences.
pub fn check_raw(stream: &[u8], reads: &[usize], limit: Option<u64>) {
    let whole = feed(stream, &[], limit);
    let split = feed(stream, reads, limit);
    let short = feed_with_memory(stream, reads, limit, |nth| nth % 3 == 0);
    let (complete, partial) = messages(&whole.output);
    assert_eq!(complete.len() as u64, whole.tally.forwarded);
    assert_eq!(split.tally, whole.tally);
    assert_eq!(messages(&split.output), (complete.clone(), partial.clone()), "the messages depend on the split");
    // Short of memory, the reframer may have forwarded more of an incomplete last frame.
    let Tally { forwarded, dropped, bytes } = short.tally;
    assert_eq!((forwarded, dropped), (whole.tally.forwarded, whole.tally.dropped));
    assert!(bytes >= whole.tally.bytes);
    let (complete_without_memory, partial_without_memory) = messages(&short.output);
    assert!(complete_without_memory == complete, "the forwarded messages depend on memory");
    assert!(partial_without_memory.unwrap_or_default().starts_with(&partial.unwrap_or_default()));
    for other in [split, short] {
        assert_eq!((&whole.end, &whole.pings), (&other.end, &other.pings));
        assert_eq!(received_by_tungstenite(&other.output), complete);
    }
    if let End::Violated(violation) = &whole.end {
        let reason = violation.to_string();
        assert!(matches!(reason.len(), 1..=123), "a reason has to fit a close frame: {reason}");
    }
    super::oracle::compare(stream, limit, &whole);
    check_text(stream, reads, limit, &whole);
}

/// Asserts that a reframer that reads text does not depend on the split either.
///
/// Up to text that it does not support, it does the same as the one whose outcome is given.
fn check_text(stream: &[u8], reads: &[usize], limit: Option<u64>, dropping: &Outcome) {
    let [whole, split] =
        [&[][..], reads].map(|reads| feed_to(Reframer::new(limit).reading_text(), stream, reads, |_| true));
    let (complete, partial) = messages(&whole.output);
    assert_eq!((&whole.end, &whole.pings, &whole.text_pings), (&split.end, &split.pings, &split.text_pings));
    assert_eq!((whole.tally, messages(&split.output)), (split.tally, (complete.clone(), partial.clone())));
    assert_eq!(whole.tally.dropped, 0, "text that is read is not dropped");
    assert!(dropping.tally.dropped >= whole.text_pings.len() as u64 && dropping.text_pings.is_empty());
    if whole.end == End::Violated(Violation::UnsupportedText) {
        assert!(messages(&dropping.output).0.starts_with(&complete) && dropping.pings.starts_with(&whole.pings));
    } else {
        assert_eq!((&whole.end, &whole.pings), (&dropping.end, &dropping.pings));
        assert_eq!((complete, partial), messages(&dropping.output));
    }
}
