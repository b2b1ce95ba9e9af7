//! Memory and correctness under load: large messages, many pairs, stalled readers, few files.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use futures_lite::future::zip;
use support::raw::{frame, open, server_frame, upgrade};
use support::{NO_PINGS, Relay, eventually, pattern, raise_file_limit};

const GIB: usize = 1 << 30;

/// The most resident memory, in KiB, while a message of any size crosses the relay.
const MEMORY: usize = 8 * 1024;

/// The length of the block of which large messages consist, a multiple of the masking key's.
const BLOCK: usize = 1 << 20;

fn pair(relay: &Relay) -> (TcpStream, TcpStream) {
    let (mut a, mut b) = (relay.socket(), relay.socket());
    open(&mut a, "/?pair=x", b"");
    open(&mut b, "/?pair=x", b"");
    (a, b)
}

/// Reads the frames of one message, and calls `piece` with each piece of their payload.
fn read_message(socket: &mut TcpStream, mut piece: impl FnMut(&[u8])) {
    let mut buffer = vec![0; 256 * 1024];
    let mut first = true;
    loop {
        let mut header = [0; 2];
        socket.read_exact(&mut header).unwrap();
        assert_eq!(header[0] & 0x7F, if first { 2 } else { 0 });
        first = false;
        let mut extended = [0; 8];
        let size = match header[1] {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        socket.read_exact(&mut extended[8 - size..]).unwrap();
        let mut remaining = if size == 0 { header[1].into() } else { u64::from_be_bytes(extended) as usize };
        while remaining > 0 {
            let length = remaining.min(buffer.len());
            socket.read_exact(&mut buffer[..length]).unwrap();
            piece(&buffer[..length]);
            remaining -= length;
        }
        if header[0] & 0x80 != 0 {
            return;
        }
    }
}

/// Asserts that the next message is a repetition of `block`.
fn read_repeated(socket: &mut TcpStream, block: &[u8], length: usize) {
    let mut at = 0;
    read_message(socket, |mut piece| {
        while !piece.is_empty() {
            let expected = &block[at % block.len()..];
            let count = piece.len().min(expected.len());
            assert!(piece[..count] == expected[..count], "the message differs near byte {at}");
            at += count;
            piece = &piece[count..];
        }
    });
    assert_eq!(at, length);
}

#[test]
fn message_of_1_gib_in_one_frame_crosses_in_constant_memory() {
    let relay = Relay::start(NO_PINGS);
    let (mut a, mut b) = pair(&relay);
    let block = pattern(BLOCK, 1);
    let mask = [1, 2, 3, 4];
    let masked: Vec<_> = block.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect();
    thread::scope(|scope| {
        scope.spawn(|| {
            let length = (GIB as u64).to_be_bytes();
            a.write_all(&[&[0x82, 0xFF][..], &length, &mask].concat()).unwrap();
            for _ in 0..GIB / BLOCK {
                a.write_all(&masked).unwrap();
            }
        });
        read_repeated(&mut b, &block, GIB);
    });
    let memory = relay.memory("VmHWM");
    assert!(memory < MEMORY, "{memory} KiB");
}

#[test]
fn message_of_1_gib_in_a_million_fragments_crosses_in_constant_memory() {
    let relay = Relay::start(NO_PINGS);
    let (mut a, mut b) = pair(&relay);
    let block = pattern(BLOCK, 2);
    let fragments = |first| block.chunks(1024).map(|chunk| frame(first, chunk)).collect::<Vec<_>>().concat();
    let middle = fragments(0x00);
    let (mut begin, mut end) = (middle.clone(), middle.clone());
    begin[0] = 0x02;
    let last = end.len() - (4 + 4 + 1024);
    end[last] = 0x80;
    thread::scope(|scope| {
        scope.spawn(|| {
            a.write_all(&begin).unwrap();
            for _ in 2..GIB / BLOCK {
                a.write_all(&middle).unwrap();
            }
            a.write_all(&end).unwrap();
        });
        read_repeated(&mut b, &block, GIB);
    });
    let memory = relay.memory("VmHWM");
    assert!(memory < MEMORY, "{memory} KiB");
}

#[test]
fn a_thousand_pairs_stream_both_ways_at_once() {
    const MESSAGES: u32 = 50;
    let files = raise_file_limit();
    let pairs = 1000.min((files.saturating_sub(100) / 2) as u32);
    // The one thread of all clients may take long to send the head on each connection.
    let relay = Relay::start(&["--ping-interval", "0", "--handshake-timeout", "2m"]);
    let executor = smol::LocalExecutor::new();
    support::run(executor.run(async {
        let tasks: Vec<_> = (0..pairs)
            .map(|number| {
                let relay = &relay;
                executor.spawn(async move {
                    let (a, b) = relay.pair(&number.to_string()).await;
                    let (mut a_sends, mut a_receives) = a.socket.split();
                    let (mut b_sends, mut b_receives) = b.socket.split();
                    // Various sizes, and one message that may be forwarded in fragments.
                    let message = |side: u64, nth: u32| {
                        let length = (nth as usize * 7919 + number as usize * 104_729) % 20_000;
                        pattern(
                            if nth == 7 { 100_000 } else { length },
                            side << 60 | u64::from(number) << 20 | u64::from(nth),
                        )
                    };
                    let send = async |sender: &mut async_tungstenite::WebSocketSender<_>, side| {
                        for nth in 0..MESSAGES {
                            sender.send(message(side, nth).into()).await.unwrap();
                        }
                    };
                    let receive = async |receiver: &mut async_tungstenite::WebSocketReceiver<_>, side| {
                        for nth in 0..MESSAGES {
                            let received = futures_lite::StreamExt::next(receiver).await.unwrap().unwrap();
                            assert!(received.into_data() == message(side, nth), "pair {number}, message {nth}");
                        }
                    };
                    let sent = zip(send(&mut a_sends, 0), send(&mut b_sends, 1));
                    let received = zip(receive(&mut a_receives, 1), receive(&mut b_receives, 0));
                    zip(sent, received).await;
                })
            })
            .collect();
        for task in tasks {
            task.await;
        }
    }));
}

#[test]
fn stalled_reader_costs_less_than_1_mib() {
    let relay = Relay::start(NO_PINGS);
    let (mut a, mut b) = pair(&relay);
    a.write_all(&frame(0x82, b"warm")).unwrap();
    support::raw::expect(&mut b, &server_frame(0x82, b"warm"));
    let before = relay.memory("VmRSS");
    let message = frame(0x82, &pattern(BLOCK, 3));
    // Write until the buffers of the relay and the kernel are full.
    a.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
    let mut sent = 0;
    while let Ok(count) = a.write(&message[sent % message.len()..]) {
        sent += count;
    }
    let after = relay.memory("VmRSS");
    assert!(after < before + 1024, "{before} KiB before, {after} KiB after {sent} bytes");
    // The reader goes on and gets every message.
    for _ in 0..sent / message.len() {
        read_repeated(&mut b, &pattern(BLOCK, 3), BLOCK);
    }
}

#[test]
fn out_of_file_descriptors_the_relay_accepts_again_once_some_are_free() {
    let relay = Relay::start(&[]);
    relay.limit_files(40); // below the limit that the relay has seen at its start
    // The crowd becomes waiting clients, because silent connections would be closed to make room.
    let crowd: Vec<_> = (0..60)
        .map(|code| {
            let mut socket = relay.socket();
            socket.write_all(upgrade(&format!("/?pair={code}"), "").as_bytes()).unwrap();
            socket
        })
        .collect();
    eventually("its files are used up", || relay.files() >= 39);
    // The connections in the kernel's queue are accepted as soon as others are closed.
    drop(crowd);
    eventually("the crowd is gone", || relay.pairs() == 0);
    let (mut a, mut b) = pair(&relay);
    a.write_all(&frame(0x82, b"served")).unwrap();
    support::raw::expect(&mut b, &server_frame(0x82, b"served"));
}
