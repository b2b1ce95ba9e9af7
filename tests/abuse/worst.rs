//! As much memory as strangers can make a relay take, by all means together. `docs/limits.md` has the formula.

use std::io::{ErrorKind, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use crate::aftermath::assert_empty_within;
use crate::frames::pair;
use crate::support::Relay;
use crate::support::raw::{frame, upgrade};

const CONNECTIONS: usize = 60;
const HANDSHAKES: usize = 100;

/// What the relay takes at most, in KiB, as the documentation says.
const BASE: usize = 8 * 1024;
const EACH_CONNECTION: usize = 2 * 256 + 4 + 4;
const EACH_HANDSHAKE: usize = 32;
const WORST: usize = BASE + CONNECTIONS * EACH_CONNECTION + HANDSHAKES * EACH_HANDSHAKE;

/// Sends until nothing has been accepted for a while, with pauses: behind a read that takes all there is, the relay reads
/// on while the batch before waits.
fn stuff(mut socket: &TcpStream, bytes: &[u8]) {
    socket.set_nonblocking(true).unwrap();
    let (mut at, mut last) = (0, Instant::now());
    while last.elapsed() < Duration::from_secs(1) {
        match socket.write(&bytes[at..]) {
            Ok(count) => {
                (at, last) = ((at + count) % bytes.len(), Instant::now());
                thread::sleep(Duration::from_millis(20));
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(Duration::from_millis(1)),
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn memory_is_what_the_formula_says_at_most() {
    let limits = [CONNECTIONS, HANDSHAKES].map(|limit| limit.to_string());
    let relay = Relay::start(&["--max-connections", &limits[0], "--max-handshakes", &limits[1]]);
    let pairs: Vec<_> = (0..CONNECTIONS / 2).map(|code| pair(&relay, &code.to_string())).collect();
    // Both sides of each pair send and do not read, and ask for answers, too.
    let bytes = [frame(0x82, &vec![7; 60_000]).repeat(4), frame(0x89, &[7; 125])].concat();
    thread::scope(|scope| {
        for socket in pairs.iter().flat_map(|(a, b)| [a, b]) {
            scope.spawn(|| stuff(socket, &bytes));
        }
    });
    // And the front door is full of requests that are nearly finished.
    let head = upgrade("/?pair=late", &format!("{}Cookie: {}\r\n", "A: b\r\n".repeat(80), "c".repeat(14_000)));
    let late: Vec<_> = (0..2 * HANDSHAKES)
        .map(|_| {
            let mut socket = relay.socket();
            socket.write_all(&head.as_bytes()[..head.len() - 2]).unwrap();
            socket
        })
        .collect();
    thread::sleep(Duration::from_millis(500));
    let peak = relay.memory("VmHWM");
    println!("{peak} KiB of {WORST}");
    assert!(peak <= WORST, "{peak} KiB, but {WORST} at most");
    assert!(peak >= WORST / 4 * 3, "{peak} KiB: the test does not drive it to the limit of {WORST}");
    drop((late, pairs));
    assert_empty_within(&relay, Duration::from_secs(5));
}
