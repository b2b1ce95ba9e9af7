//! The messages that clients send, and the verification of those that arrive.
//!
//! In a measurement, each client sends a block of different messages again and again, as frames that were masked once.
//! It compares one read in 64. It does not even copy the others if their messages are short. In a check, every message is
//! new, and everything that arrives is parsed and compared.
//!
//! A client that parses frames answers pings.

use std::io::{self, Write};
use std::net::TcpStream;
use std::sync::Arc;

use rustix::net::{RecvFlags, recv};

use crate::frame::{MASK, frame};
use crate::servers::Target;

/// The minimum length of a block, unless two messages are longer: a relay's largest read.
const BLOCK: usize = 256 * 1024;

/// A measurement compares one read in this many.
const COMPARED: u64 = 64;

/// The size of a message from which on clients parse frames.
///
/// A relay may send large messages in fragments, and with a stream of them go pings.
pub(crate) const PARSED: usize = 16 * 1024;

/// Messages of one size. The same seed makes the same messages.
#[derive(Clone)]
struct Messages {
    size: usize,
    seed: u64,
    /// The number of messages after which they repeat.
    period: u64,
}

impl Messages {
    fn payload(&self, number: u64) -> Vec<u8> {
        let number = number % self.period;
        let mut state = (self.seed << 40 | number).wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let random = std::iter::repeat_with(|| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        });
        let words = std::iter::once(number).chain(random).take(self.size.div_ceil(8));
        let mut payload: Vec<_> = words.flat_map(u64::to_le_bytes).collect();
        payload.truncate(self.size);
        payload
    }

    fn block(&self, first: u64, count: u64, mask: Option<[u8; 4]>) -> Vec<u8> {
        (first..first + count).flat_map(|number| frame(&self.payload(number), mask)).collect()
    }
}

/// The properties of traffic that all clients of a workload share.
pub(crate) struct Traffic {
    messages: Messages,
    in_block: u64,
    checked: bool,
    sent: Arc<Vec<u8>>,
    /// The block as it arrives, unless it has to be parsed.
    arrives: Option<Arc<Vec<u8>>>,
}

impl Traffic {
    pub(crate) fn new(target: Target, size: usize, checked: bool) -> Self {
        let frames = (if checked { BLOCK / 4 } else { BLOCK }) / size;
        let in_block = frames.max(if checked { 1 } else { 2 }) as u64;
        let messages = Messages { size, seed: 0, period: if checked { u64::MAX } else { in_block } };
        let sent = Arc::new(messages.block(0, in_block, Some(MASK)));
        let arrives = match target {
            _ if checked => None,
            _ if !target.knows_frames() => Some(sent.clone()),
            _ if size >= PARSED => None,
            _ => Some(Arc::new(messages.block(0, in_block, None))),
        };
        Self { messages, in_block, checked, sent, arrives }
    }

    /// The messages that this client sends. Its peer, `number ^ 1`, receives them.
    pub(crate) fn sending(&self, number: usize) -> Sending {
        let mut sending = Sending {
            block: self.sent.clone(),
            at: 0,
            blocks: u64::MAX,
            in_block: self.in_block,
            new: None,
            pongs: Vec::new(),
        };
        if self.checked {
            sending.new = Some((Messages { seed: number as u64, ..self.messages.clone() }, 0));
            sending.refill();
        }
        sending
    }

    pub(crate) fn receiving(&self, number: usize) -> Receiving {
        let seed = if self.checked { number as u64 ^ 1 } else { 0 };
        let messages = Messages { seed, ..self.messages.clone() };
        let form = match &self.arrives {
            Some(block) => Form::Block { block: block.clone(), frame: block.len() as u64 / self.in_block, at: 0 },
            None => Form::Frames(Box::new(Frames::new(messages))),
        };
        Receiving { form, reads: 0, compared: if self.checked { 1 } else { COMPARED } }
    }
}

/// One client's outgoing frames, and its position in them.
pub(crate) struct Sending {
    block: Arc<Vec<u8>>,
    at: usize,
    /// The number of blocks left to send, the current one included.
    pub(crate) blocks: u64,
    in_block: u64,
    /// In a check: the messages, and the number of the next one.
    new: Option<(Messages, u64)>,
    /// Pongs that wait for the end of a frame.
    pongs: Vec<u8>,
}

impl Sending {
    /// Writes as much as the socket takes.
    pub(crate) fn write(&mut self, mut socket: &TcpStream) -> io::Result<usize> {
        self.write_pongs(socket)?;
        let end = if self.pongs.is_empty() { self.block.len() } else { self.at.next_multiple_of(self.frame()) };
        let count = socket.write(&self.block[self.at..end])?;
        self.advance(count);
        Ok(count)
    }

    /// Writes the pongs, unless a frame is under way.
    pub(crate) fn write_pongs(&mut self, mut socket: &TcpStream) -> io::Result<()> {
        while !self.pongs.is_empty() && self.at.is_multiple_of(self.frame()) {
            let count = socket.write(&self.pongs)?;
            self.pongs.drain(..count);
        }
        Ok(())
    }

    /// Answers pings as soon as possible.
    pub(crate) fn add_pongs(&mut self, pongs: &mut Vec<u8>) {
        self.pongs.append(pongs);
    }

    /// Writes one message, for which the socket must have room.
    pub(crate) fn write_message(&mut self, mut socket: &TcpStream) -> io::Result<()> {
        let frame = self.frame();
        socket.write_all(&self.block[self.at..][..frame])?;
        self.advance(frame);
        Ok(())
    }

    /// Stops after about this many bytes, at least two blocks. Returns the number of messages.
    ///
    /// Must be called before anything is sent.
    pub(crate) fn limit(&mut self, bytes: usize) -> u64 {
        self.blocks = (bytes / self.block.len()).max(2) as u64;
        self.blocks * self.in_block
    }

    /// The length of a frame.
    pub(crate) fn frame(&self) -> usize {
        self.block.len() / self.in_block as usize
    }

    fn advance(&mut self, count: usize) {
        self.at += count;
        if self.at == self.block.len() {
            self.at = 0;
            self.blocks -= 1;
            self.refill();
        }
    }

    fn refill(&mut self) {
        if let Some((messages, next)) = &mut self.new {
            self.block = Arc::new(messages.block(*next, self.in_block, Some(MASK)));
            *next += self.in_block;
        }
    }
}

/// One client's expected messages, and its position in them.
pub(crate) struct Receiving {
    form: Form,
    reads: u64,
    compared: u64,
}

enum Form {
    /// The same block again and again, byte for byte.
    Block { block: Arc<Vec<u8>>, frame: u64, at: u64 },
    /// Frames, several of which may make up one message.
    Frames(Box<Frames>),
}

impl Receiving {
    /// The answers to the pings that have arrived.
    pub(crate) fn pongs(&mut self) -> Option<&mut Vec<u8>> {
        let Form::Frames(frames) = &mut self.form else { return None };
        Some(&mut frames.pongs).filter(|pongs| !pongs.is_empty())
    }

    /// Reads once, and returns the number of messages that this read completes.
    pub(crate) fn read(&mut self, socket: &TcpStream, buffer: &mut [u8]) -> io::Result<u64> {
        let compare = self.reads.is_multiple_of(self.compared);
        self.reads += 1;
        let discardable = match &self.form {
            _ if compare => 0,
            Form::Block { .. } => buffer.len(),
            Form::Frames(frames) => frames.left.min(buffer.len()),
        };
        // Discarding a few bytes up to the next header is not worth a separate call.
        let discard = discardable > buffer.len() / 8;
        let (buffer, flags) =
            if discard { (&mut buffer[..discardable], RecvFlags::TRUNC) } else { (buffer, RecvFlags::empty()) };
        let (_, count) = recv(socket, &mut *buffer, flags)?;
        if count == 0 {
            return Err(io::Error::other("the relay closed the connection"));
        }
        match &mut self.form {
            Form::Block { block, frame, at } => {
                if !discard {
                    compare_block(block, *at, &buffer[..count])?;
                }
                let before = *at / *frame;
                *at += count as u64;
                Ok(*at / *frame - before)
            }
            Form::Frames(frames) if discard => Ok(frames.advance(count)),
            Form::Frames(frames) => frames.read(&buffer[..count], compare),
        }
    }
}

fn compare_block(block: &[u8], at: u64, mut bytes: &[u8]) -> io::Result<()> {
    let mut at = (at % block.len() as u64) as usize;
    while !bytes.is_empty() {
        let count = bytes.len().min(block.len() - at);
        if bytes[..count] != block[at..at + count] {
            return Err(io::Error::other("received bytes differ from those sent"));
        }
        bytes = &bytes[count..];
        at = 0;
    }
    Ok(())
}

/// A parser of unmasked frames.
struct Frames {
    messages: Messages,
    /// The number of the current message, its received length, and its payload once it was compared.
    number: u64,
    offset: usize,
    expected: Option<Vec<u8>>,
    header: Vec<u8>,
    /// The bytes left of this frame's payload; 0 between frames.
    left: usize,
    last: bool,
    /// The payload so far, within a ping.
    ping: Option<Vec<u8>>,
    /// Answers to pings.
    pongs: Vec<u8>,
}

impl Frames {
    fn new(messages: Messages) -> Self {
        let (header, pongs) = (Vec::new(), Vec::new());
        Self { messages, number: 0, offset: 0, expected: None, header, left: 0, last: true, ping: None, pongs }
    }

    fn read(&mut self, mut bytes: &[u8], compare: bool) -> io::Result<u64> {
        let mut complete = 0;
        while let Some(&first) = bytes.first() {
            if self.left == 0 {
                self.header.push(first);
                bytes = &bytes[1..];
                self.read_header()?;
                continue;
            }
            let count = self.left.min(bytes.len());
            if let Some(ping) = &mut self.ping {
                ping.extend_from_slice(&bytes[..count]);
                bytes = &bytes[count..];
                self.left -= count;
                self.answer_ping();
                continue;
            }
            if compare {
                let expected = self.expected.get_or_insert_with(|| self.messages.payload(self.number));
                if expected.get(self.offset..self.offset + count) != Some(&bytes[..count]) {
                    return Err(io::Error::other(format!("message {} differs from the one sent", self.number)));
                }
            }
            bytes = &bytes[count..];
            complete += self.advance(count);
        }
        Ok(complete)
    }

    fn read_header(&mut self) -> io::Result<()> {
        let length = |bytes: &[u8]| bytes.iter().fold(0, |length, &byte| length << 8 | usize::from(byte));
        self.left = match self.header[..] {
            [_, ..=125] => usize::from(self.header[1]),
            [_, 126, ref rest @ ..] if rest.len() == 2 => length(rest),
            [_, 127, ref rest @ ..] if rest.len() == 8 => length(rest),
            [_, 128..=255, ..] => return Err(io::Error::other("a server masked a frame")),
            _ => return Ok(()),
        };
        if self.header[0] == 0x89 {
            self.header.clear();
            self.ping = Some(Vec::new());
            self.answer_ping();
            return Ok(());
        }
        let opcode = if self.last { 2 } else { 0 };
        self.last = self.header[0] & 0x80 != 0;
        let whole = self.offset + self.left == self.messages.size;
        if self.header[0] & 0x7F != opcode || self.left == 0 || self.last != whole {
            return Err(io::Error::other(format!(
                "message {} has an unexpected header {:x?}",
                self.number, self.header
            )));
        }
        self.header.clear();
        Ok(())
    }

    /// Answers a ping once all of it has arrived.
    fn answer_ping(&mut self) {
        if self.left == 0
            && let Some(payload) = self.ping.take()
        {
            let begin = self.pongs.len();
            self.pongs.extend(frame(&payload, Some(MASK)));
            self.pongs[begin] = 0x8A;
        }
    }

    /// Counts received payload. Returns the number of messages that it completes: 0 or 1.
    fn advance(&mut self, count: usize) -> u64 {
        self.left -= count;
        self.offset += count;
        if self.left > 0 || !self.last {
            return 0;
        }
        self.offset = 0;
        self.number += 1;
        self.expected = None;
        1
    }
}
