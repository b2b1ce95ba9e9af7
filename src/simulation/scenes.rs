//! What the seeds have found, played step by step, so that it stays found when the seeds mean something else.

use futures_lite::future::{block_on, poll_once};
use futures_lite::{AsyncReadExt, AsyncWriteExt};
use std::time::Duration;

use super::executor::Random;
use super::network::Socket;
use super::stage::Stage;
use crate::relay::Config;

const JOIN: &str = "GET /?pair=x HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// A binary message with a mask of zeros.
fn message(payload: &[u8]) -> Vec<u8> {
    let mut frame = match payload.len() {
        length @ 0..=125 => vec![0x82, 0x80 | length as u8],
        length @ 126..=0xFFFF => [&[0x82, 0xFE], &(length as u16).to_be_bytes()[..]].concat(),
        length => [&[0x82, 0xFF], &(length as u64).to_be_bytes()[..]].concat(),
    };
    frame.extend([0; 4]);
    frame.extend(payload);
    frame
}

/// Somebody who does what a scene says.
struct Actor(Socket);

impl Actor {
    fn enter(stage: &mut Stage, number: usize, capacity: usize) -> Self {
        let mut actor = Self(stage.socket(number, capacity).0);
        actor.send(JOIN.as_bytes());
        stage.settle();
        let head = actor.receive();
        assert!(head.starts_with(b"HTTP/1.1 101") && head.ends_with(b"\r\n\r\n"));
        actor
    }

    /// Sends what there has to be room for.
    fn send(&mut self, bytes: &[u8]) {
        block_on(poll_once(self.0.write_all(bytes))).expect("there is room").expect("it is open");
    }

    /// Receives what has come.
    fn receive(&mut self) -> Vec<u8> {
        let mut received = Vec::new();
        let mut bytes = [0; 4096];
        while let Some(Ok(count @ 1..)) = block_on(poll_once(self.0.read(&mut bytes))) {
            received.extend(&bytes[..count]);
        }
        received
    }

    /// Receives to the end, and returns the code of the close frame, which is the last.
    fn receive_close(&mut self, stage: &mut Stage) -> (Vec<u8>, u16) {
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

/// A reset that was found by a write, while the client could not be read from, was told as an orderly departure.
#[test]
fn a_reset_that_a_write_has_found_is_told_as_a_loss() {
    for seed in 0..20 {
        let mut stage = Stage::new(Random::new(seed), Config::default());
        let mut reader = Actor::enter(&mut stage, 0, 100_000);
        let mut sender = Actor::enter(&mut stage, 1, 1_000_000);
        // More than the relay takes in while the reader does not read, but no more than its system does.
        for _ in 0..10 {
            sender.send(&message(&[7; 70_000]));
        }
        stage.pass(Duration::from_secs(20));
        sender.0.reset();
        reader.send(&message(b"to somebody who is gone"));
        stage.pass(Duration::from_secs(5));
        let (_, code) = reader.receive_close(&mut stage);
        assert_eq!(code, 1011, "seed {seed}");
        drop(reader);
        stage.stop();
        drop(sender);
        stage.check_empty();
    }
}
