//! Message streams, generated and verified on the fly: no message is ever held in memory.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::ops::Range;

/// A portable random number generator (xorshift64*, Vigna 2016): a failing seed must replay.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        let mut random = Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0xD1B5_4A32_D192_ED03);
        random.below(2);
        random
    }

    /// A number from 0 up to `bound`, exclusive.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % bound
    }

    pub(crate) fn once_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    /// A length of up to 8 MiB. All orders of magnitude are equally likely.
    pub(crate) fn length(&mut self) -> u64 {
        let magnitude = self.below(24);
        self.below(1 << magnitude) + (self.0 >> 63)
    }
}

/// The bytes of one client's messages.
///
/// Each follows from the client, the number of the message, and the offset in it.
#[derive(Clone, Copy)]
pub(crate) struct Pattern(pub(crate) u64);

impl Pattern {
    fn byte(self, message: usize, offset: u64) -> u8 {
        let key = self.0.wrapping_add(message as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        (key >> 32).wrapping_add(offset.wrapping_mul(31)).wrapping_add(offset >> 8) as u8
    }
}

/// Writes a masked frame with this payload.
pub(crate) fn write_frame(mut socket: &TcpStream, first: u8, length: u64, byte: impl Fn(u64) -> u8) -> io::Result<()> {
    const MASK: [u8; 4] = [0x5A, 0xC3, 0x0F, 0x96];
    let mut bytes = vec![first];
    match length {
        0..=125 => bytes.push(0x80 | length as u8),
        126..=0xFFFF => {
            bytes.push(0xFE);
            bytes.extend((length as u16).to_be_bytes());
        }
        _ => {
            bytes.push(0xFF);
            bytes.extend(length.to_be_bytes());
        }
    }
    bytes.extend(MASK);
    let mut offset = 0;
    loop {
        let end = length.min(offset + 65_536);
        bytes.extend((offset..end).map(|at| byte(at) ^ MASK[at as usize % 4]));
        socket.write_all(&bytes)?;
        bytes.clear();
        offset = end;
        if offset == length {
            return Ok(());
        }
    }
}

/// Writes a part of a message.
pub(crate) fn write_part(
    socket: &TcpStream,
    first: u8,
    pattern: Pattern,
    message: usize,
    from: u64,
    length: u64,
) -> io::Result<()> {
    write_frame(socket, first, length, |at| pattern.byte(message, from + at))
}

/// An event in the stream of a reader.
pub(crate) enum Event {
    /// The end of a message.
    Message,
    /// An answer to a ping.
    Pong,
    Close(Option<u16>, String),
    /// The end of the stream, in order or by an error.
    End,
}

/// Reads a server's frames, and verifies their payload.
pub(crate) struct Reader {
    socket: TcpStream,
    pattern: Pattern,
    lengths: Vec<u64>,
    /// The number of received messages.
    pub(crate) messages: usize,
    /// The received bytes of the next message.
    offset: u64,
    /// The received bytes of all messages.
    pub(crate) bytes: u64,
    in_message: bool,
    pong: Option<u64>,
    closed: bool,
    buffer: Vec<u8>,
    unread: Range<usize>,
}

impl Reader {
    pub(crate) fn new(socket: TcpStream, pattern: Pattern, lengths: Vec<u64>) -> Self {
        let buffer = vec![0; 65_536];
        let (messages, offset, bytes) = (0, 0, 0);
        Self {
            socket,
            pattern,
            lengths,
            messages,
            offset,
            bytes,
            in_message: false,
            pong: None,
            closed: false,
            buffer,
            unread: 0..0,
        }
    }

    /// Reads up to the next event.
    pub(crate) fn next(&mut self) -> Event {
        self.try_next().unwrap_or_else(|error| match error.kind() {
            io::ErrorKind::WouldBlock => panic!("the relay sent nothing for a minute"),
            _ => Event::End,
        })
    }

    fn try_next(&mut self) -> io::Result<Event> {
        loop {
            let [first, second] = self.take()?;
            assert!(!self.closed, "a frame follows a close frame");
            assert_eq!(second & 0x80, 0, "a server masked a frame");
            let length = match second {
                126 => u64::from(u16::from_be_bytes(self.take()?)),
                127 => u64::from_be_bytes(self.take()?),
                short => short.into(),
            };
            match first {
                0x8A | 0x88 => {
                    let mut payload = Vec::new();
                    for _ in 0..length {
                        payload.extend(self.take::<1>()?);
                    }
                    if first == 0x8A {
                        // Pings are numbered, and the pongs come in the same order.
                        let number = payload.try_into().map(u64::from_be_bytes).expect("the payload of a ping");
                        assert!(self.pong.is_none_or(|last| last < number), "a pong is out of order");
                        self.pong = Some(number);
                        return Ok(Event::Pong);
                    }
                    self.closed = true;
                    let code = payload.first_chunk().map(|code| u16::from_be_bytes(*code));
                    let reason = payload.get(2..).unwrap_or_default().to_vec();
                    return Ok(Event::Close(code, String::from_utf8(reason).expect("a reason is text")));
                }
                0x02 | 0x82 | 0x00 | 0x80 => {
                    assert_eq!(first & 0x0F == 0, self.in_message, "a fragment is out of order");
                    self.payload(length)?;
                    self.in_message = first & 0x80 == 0;
                    if !self.in_message {
                        assert_eq!(
                            self.offset, self.lengths[self.messages],
                            "message {} has another length",
                            self.messages
                        );
                        self.messages += 1;
                        self.offset = 0;
                        return Ok(Event::Message);
                    }
                }
                other => panic!("an unexpected frame that begins with {other:#x}"),
            }
        }
    }

    /// Reads a part of a message, and verifies each byte.
    fn payload(&mut self, mut length: u64) -> io::Result<()> {
        assert!(self.messages < self.lengths.len(), "more messages arrived than were sent");
        while length > 0 {
            if self.unread.is_empty() {
                self.fill()?;
            }
            let count = self.unread.len().min(usize::try_from(length).unwrap_or(usize::MAX));
            let bytes = &self.buffer[self.unread.start..self.unread.start + count];
            let (pattern, message, offset) = (self.pattern, self.messages, self.offset);
            let is_right = bytes.iter().zip(offset..).all(|(byte, at)| *byte == pattern.byte(message, at));
            assert!(is_right, "message {message} differs from the one sent, near byte {offset}");
            self.unread.start += count;
            self.offset += count as u64;
            self.bytes += count as u64;
            length -= count as u64;
        }
        Ok(())
    }

    fn take<const SIZE: usize>(&mut self) -> io::Result<[u8; SIZE]> {
        let mut bytes = [0; SIZE];
        for byte in &mut bytes {
            if self.unread.is_empty() {
                self.fill()?;
            }
            *byte = self.buffer[self.unread.start];
            self.unread.start += 1;
        }
        Ok(bytes)
    }

    fn fill(&mut self) -> io::Result<()> {
        let count = self.socket.read(&mut self.buffer)?;
        self.unread = 0..count;
        if count == 0 { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
    }
}
