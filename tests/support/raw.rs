//! Raw bytes over a socket, for input that a client library refuses to produce.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;

use socket2::SockRef;
use std::time::Duration;

/// An upgrade request with additional header lines, each ended by CRLF.
pub fn upgrade(target: &str, extra: &str) -> String {
    format!(
        "GET {target} HTTP/1.1\r\nHost: test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{extra}\r\n"
    )
}

/// Opens a WebSocket with `behind` in the same write, and returns the head of the response.
pub fn open(socket: &mut TcpStream, target: &str, behind: &[u8]) -> String {
    socket.write_all(&[upgrade(target, "").as_bytes(), behind].concat()).expect("the relay reads");
    let head = head(socket);
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    head
}

/// Reads the head of a response, and no byte behind it.
pub fn head(socket: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        socket.read_exact(&mut byte).expect("the relay answers");
        head.push(byte[0]);
    }
    String::from_utf8(head).expect("a head is text")
}

/// A masked client frame.
pub fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [0x12, 0x34, 0x56, 0x78];
    let mut frame = vec![first];
    match payload.len() {
        length @ 0..=125 => frame.push(0x80 | length as u8),
        length @ 126..=0xFFFF => {
            frame.push(0x80 | 126);
            frame.extend((length as u16).to_be_bytes());
        }
        length => {
            frame.push(0x80 | 127);
            frame.extend((length as u64).to_be_bytes());
        }
    }
    frame.extend(mask);
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

/// A short server frame, unmasked.
pub fn server_frame(first: u8, payload: &[u8]) -> Vec<u8> {
    assert!(payload.len() < 126, "short frames only");
    [&[first, payload.len() as u8], payload].concat()
}

/// A close frame from the server.
pub fn server_close(code: u16, reason: &str) -> Vec<u8> {
    server_frame(0x88, &[&code.to_be_bytes(), reason.as_bytes()].concat())
}

/// Reads as many bytes as are expected, and compares them.
pub fn expect(socket: &mut TcpStream, expected: &[u8]) {
    let mut bytes = vec![0; expected.len()];
    socket.read_exact(&mut bytes).expect("the relay sends");
    if let Some(at) = bytes.iter().zip(expected).position(|(byte, expected)| byte != expected) {
        let near = |bytes: &[u8]| bytes[at..bytes.len().min(at + 100)].escape_ascii().to_string();
        panic!("at {at}: {}, instead of {}", near(&bytes), near(expected));
    }
}

/// Asserts that no byte comes before the end of the stream. A reset counts as an end.
pub fn expect_end(socket: &mut TcpStream) {
    let mut rest = Vec::new();
    match socket.read_to_end(&mut rest) {
        Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
        result => {
            result.expect("the stream ends");
        }
    }
    assert!(rest.is_empty(), "bytes came before the end: {rest:x?}");
}

/// Makes closing the socket send a TCP reset.
pub fn reset(socket: &TcpStream) {
    // With a linger of zero, the kernel discards unsent data and sends a reset.
    SockRef::from(socket).set_linger(Some(Duration::ZERO)).expect("a socket takes options");
}
