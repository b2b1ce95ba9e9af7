//! A far client reads slowly, and its peer streams to it as fast as it can.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use super::{A_PAIR, Network, between_hosts};
use crate::support::Relay;
use crate::support::raw::frame;

/// The reader's pace: 80 KB in a second.
const PORTION: usize = 8_000;
const PAUSE: Duration = Duration::from_millis(100);

/// The time for which the sender streams.
const TIME: Duration = Duration::from_secs(8);

/// The time that common libraries give a peer for a pong.
const LONGEST_PONG: Duration = Duration::from_secs(20);

/// The most bytes that have left the sender's program and not reached the reader's.
const MOST_UNDER_WAY: usize = 1_500_000;

/// Reads at the pace, counts the bytes, and answers pings.
fn read_slowly(mut socket: &TcpStream, read: &AtomicUsize, is_over: &AtomicBool) {
    let (mut skip, mut head) = (0, Vec::new());
    let mut bytes = vec![0; PORTION];
    while !is_over.load(Relaxed) {
        let count = socket.read(&mut bytes).unwrap();
        read.fetch_add(count, Relaxed);
        for &byte in &bytes[..count] {
            if skip > 0 {
                skip -= 1;
                continue;
            }
            head.push(byte);
            match head[..] {
                [0x89, length, ref data @ ..] if data.len() == usize::from(length) => {
                    socket.write_all(&frame(0x8A, data)).unwrap();
                    head.clear();
                }
                [0x82 | 0x80 | 0x02 | 0x00, 126, high, low] => {
                    skip = usize::from(u16::from_be_bytes([high, low]));
                    head.clear();
                }
                [0x82 | 0x80 | 0x02 | 0x00, length @ ..126] => {
                    skip = length.into();
                    head.clear();
                }
                _ => assert!(head.len() < 130, "{head:x?}"),
            }
        }
        thread::sleep(PAUSE);
    }
}

/// Waits for a pong, and answers nothing: the relay asks nothing of a client that sends.
fn await_pong(mut socket: &TcpStream) -> Instant {
    let mut bytes = [0; 6];
    socket.read_exact(&mut bytes).unwrap();
    assert_eq!(bytes, *b"\x8A\x04ping");
    Instant::now()
}

fn stream_to_a_slow_reader(relay: &Relay, network: &mut Network) {
    network.set("delay 0.01\n");
    let (sender, reader) = (network.connect(relay, "x"), network.connect(relay, "x"));
    sender.set_write_timeout(Some(Duration::from_millis(100))).unwrap();
    let message = frame(0x82, &[7; 16_000]);
    let (read, is_over) = (AtomicUsize::new(0), AtomicBool::new(false));
    let (under_way, waited) = thread::scope(|scope| {
        scope.spawn(|| read_slowly(&reader, &read, &is_over));
        let (begin, mut sent, mut pinged_at) = (Instant::now(), 0, None);
        while begin.elapsed() < TIME {
            if pinged_at.is_none() && sent % message.len() == 0 && begin.elapsed() > TIME / 2 {
                (&sender).write_all(&frame(0x89, b"ping")).unwrap();
                pinged_at = Some(Instant::now());
            }
            match (&sender).write(&message[sent % message.len()..]) {
                Ok(count) => sent += count,
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
            }
        }
        let under_way = sent - read.load(Relaxed);
        let answered_at = await_pong(&sender);
        is_over.store(true, Relaxed);
        (under_way, answered_at - pinged_at.expect("a message takes less than four seconds"))
    });
    println!("{under_way} bytes under way, a pong after {} ms", waited.as_millis());
    assert!(under_way < MOST_UNDER_WAY, "{under_way} bytes are under way");
    assert!(waited < LONGEST_PONG, "a pong comes after {waited:?}");
}

#[test]
fn sender_to_a_slow_reader_gets_its_pongs_in_time() {
    between_hosts(A_PAIR, stream_to_a_slow_reader);
}
