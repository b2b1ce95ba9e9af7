//! Pairs of raw sockets, and a reader of the relay's frames.

use std::io::{self, BufReader, ErrorKind, Read, Write};
use std::net::TcpStream;

use crate::support::raw::{frame, open};
use crate::support::{PATIENCE, Relay};

/// Connects two raw clients as a pair.
///
/// Their reads and writes have timeouts, because a failing test waits for all its threads.
pub(crate) fn pair(relay: &Relay, code: &str) -> (TcpStream, TcpStream) {
    let (mut a, mut b) = (relay.socket(), relay.socket());
    for socket in [&a, &b] {
        socket.set_write_timeout(Some(PATIENCE)).expect("a socket takes options");
    }
    for socket in [&mut a, &mut b] {
        open(socket, &format!("/?pair={code}{}", relay.query), b"");
    }
    (a, b)
}

/// The frames that a client receives.
pub(crate) struct Frames<'a>(BufReader<&'a TcpStream>);

impl<'a> Frames<'a> {
    pub(crate) fn of(socket: &'a TcpStream) -> Self {
        Self(BufReader::with_capacity(64 * 1024, socket))
    }

    /// The next frame: its first byte and its payload.
    pub(crate) fn next(&mut self) -> (u8, Vec<u8>) {
        self.try_next().expect("there is a whole frame")
    }

    /// The next frame, or the error with which the connection has ended.
    pub(crate) fn try_next(&mut self) -> io::Result<(u8, Vec<u8>)> {
        let mut header = [0; 2];
        self.0.read_exact(&mut header)?;
        let size = match header[1] {
            126 => 2,
            127 => 8,
            short => {
                assert!(short < 126, "the relay has masked a frame");
                0
            }
        };
        let mut extended = [0; 8];
        self.0.read_exact(&mut extended[8 - size..])?;
        let length = if size == 0 { header[1].into() } else { u64::from_be_bytes(extended) as usize };
        let mut payload = vec![0; length];
        self.0.read_exact(&mut payload)?;
        Ok((header[0], payload))
    }

    /// The next frame that is no ping.
    pub(crate) fn next_but_pings(&mut self) -> (u8, Vec<u8>) {
        loop {
            let frame = self.next();
            if frame.0 != 0x89 {
                break frame;
            }
        }
    }

    /// The next whole message, or control frame other than a ping: its opcode and payload.
    pub(crate) fn message(&mut self) -> (u8, Vec<u8>) {
        let (mut first, mut message) = self.next_but_pings();
        let opcode = first & 0x7F;
        while first & 0x80 == 0 {
            let (next, fragment) = self.next_but_pings();
            assert_eq!(next & 0x7F, 0, "a continuation must follow");
            first = next;
            message.extend(fragment);
        }
        (opcode, message)
    }

    /// Reads the close frame, answers it, and reads the end of the stream.
    ///
    /// Without an answer, the relay would keep the connection for a while.
    pub(crate) fn closed(&mut self) -> (u16, String) {
        let (first, payload) = self.next_but_pings();
        assert_eq!(first, 0x88, "{payload:x?}");
        let mut socket: &TcpStream = self.0.get_ref();
        let _ = socket.write_all(&frame(0x88, &payload[..2.min(payload.len())]));
        match self.0.read(&mut [0]) {
            Ok(0) => {}
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
            other => panic!("no end behind the close frame: {other:?}"),
        }
        parse_close(&payload)
    }
}

/// The code of a close frame, 1005 if it has none, and the reason.
pub(crate) fn parse_close(payload: &[u8]) -> (u16, String) {
    let Some((code, reason)) = payload.split_first_chunk() else { return (1005, String::new()) };
    (u16::from_be_bytes(*code), String::from_utf8(reason.to_vec()).expect("a reason is text"))
}
