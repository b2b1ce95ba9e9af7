//! A client that follows a script, one step after the other.

use std::time::Duration;

use futures_lite::future::{block_on, poll_once};
use futures_lite::{AsyncReadExt, AsyncWriteExt};

use super::line::Line;
use super::network::Socket;
use super::proxy::Pace;
use super::stage::Stage;

pub(super) const JOIN: &str = "GET /?pair=x HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// A ping from the relay, and the client's pong.
pub(super) const PING: [u8; 2] = [0x89, 0];
pub(super) const PONG: [u8; 6] = [0x8A, 0x80, 0, 0, 0, 0];

/// A binary message with a mask of zeros.
pub(super) fn message(payload: &[u8]) -> Vec<u8> {
    let mut frame = match payload.len() {
        length @ 0..=125 => vec![0x82, 0x80 | length as u8],
        length @ 126..=0xFFFF => [&[0x82, 0xFE], &(length as u16).to_be_bytes()[..]].concat(),
        length => [&[0x82, 0xFF], &(length as u64).to_be_bytes()[..]].concat(),
    };
    frame.extend([0; 4]);
    frame.extend(payload);
    frame
}

/// The pong to a ping with this payload.
pub(super) fn pong(payload: &[u8]) -> Vec<u8> {
    [&[0x8A, 0x80 | payload.len() as u8, 0, 0, 0, 0], payload].concat()
}

/// Takes the first frame of the relay's output, if it is complete: its first byte and its payload.
pub(super) fn take_frame(bytes: &mut Vec<u8>) -> Option<(u8, Vec<u8>)> {
    let (header, length) = match *bytes.get(1)? {
        126 => (4, usize::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?))),
        127 => (10, u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?) as usize),
        length => (2, usize::from(length)),
    };
    if bytes.len() < header + length {
        return None;
    }
    let frame: Vec<u8> = bytes.drain(..header + length).collect();
    Some((frame[0], frame[header..].to_vec()))
}

/// A client that follows the steps of a scene.
pub(super) struct Actor(pub(super) Socket);

impl Actor {
    pub(super) fn enter(stage: &mut Stage, number: usize, capacity: usize) -> Self {
        Self::join(stage, number, JOIN, capacity)
    }

    /// Joins with this number as its pair code.
    pub(super) fn enter_as(stage: &mut Stage, number: usize, code: usize, capacity: usize) -> Self {
        Self::join(stage, number, &JOIN.replace("pair=x", &format!("pair={code}")), capacity)
    }

    /// Joins with the scenes' code, as this side.
    pub(super) fn enter_as_side(stage: &mut Stage, number: usize, side: &str, capacity: usize) -> Self {
        Self::join(stage, number, &JOIN.replace("pair=x", &format!("pair=x&side={side}")), capacity)
    }

    /// Joins through a proxy with these paces: the first towards the relay, the second towards the client.
    pub(super) fn enter_behind_proxy(
        stage: &mut Stage,
        number: usize,
        capacity: usize,
        paces: [Pace; 2],
    ) -> (Self, Line) {
        let (socket, line) = stage.proxied_socket(number, capacity, paces);
        let mut actor = Self(socket);
        actor.ask(stage, JOIN);
        (actor, line)
    }

    fn join(stage: &mut Stage, number: usize, request: &str, capacity: usize) -> Self {
        let mut actor = Self(stage.socket(number, capacity).0);
        actor.ask(stage, request);
        actor
    }

    fn ask(&mut self, stage: &mut Stage, request: &str) {
        self.send(request.as_bytes());
        let mut head = Vec::new();
        // The network may stall, five times at most and mostly once at most.
        for _ in 0..5 {
            stage.pass(Duration::from_secs(3));
            head.extend(self.receive());
            if head.ends_with(b"\r\n\r\n") {
                break;
            }
        }
        assert!(head.starts_with(b"HTTP/1.1 101") && head.ends_with(b"\r\n\r\n"));
    }

    /// Sends bytes for which the connection must have room.
    pub(super) fn send(&mut self, bytes: &[u8]) {
        assert!(self.try_send(bytes), "the relay has closed the connection");
    }

    /// Sends bytes for which the connection must have room. Returns false if the relay has closed.
    pub(super) fn try_send(&mut self, bytes: &[u8]) -> bool {
        block_on(poll_once(self.0.write_all(bytes))).expect("the connection has room").is_ok()
    }

    /// Receives everything that has arrived.
    pub(super) fn receive(&mut self) -> Vec<u8> {
        let mut received = Vec::new();
        let mut bytes = [0; 4096];
        while let Some(Ok(count @ 1..)) = block_on(poll_once(self.0.read(&mut bytes))) {
            received.extend(&bytes[..count]);
        }
        received
    }

    /// Receives until the connection is quiet. Returns the bytes before the close frame, and its code.
    pub(super) fn receive_close(&mut self, stage: &mut Stage) -> (Vec<u8>, u16) {
        let mut received = Vec::new();
        loop {
            stage.pass(Duration::from_secs(3));
            let more = self.receive();
            if more.is_empty() {
                break;
            }
            received.extend(more);
        }
        let close = received.windows(2).rposition(|bytes| bytes[0] == 0x88).expect("a close frame");
        let code = u16::from_be_bytes([received[close + 2], received[close + 3]]);
        received.truncate(close);
        (received, code)
    }
}
