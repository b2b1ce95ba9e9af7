//! The most memory that strangers can make a relay take. `docs/limits.md` has the formula.

use std::io::{ErrorKind, Write};
use std::net::TcpStream;
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use crate::frames::{Frames, pair};
use crate::support::raw::{frame, upgrade};
use crate::support::{Relay, eventually, pattern};

/// The parts of the documented formula, in KiB.
const BASE: usize = 8 * 1024;
const EACH_CONNECTION: usize = 600;
const EACH_CONNECTION_IN_SHORT_MEMORY: usize = 40;
const EACH_HANDSHAKE: usize = 32;

/// The length of a message of the crowd, in bytes.
const MESSAGE: usize = 60_000;

/// The number of messages before each ping of the crowd.
const MESSAGES: usize = 4;

/// A client of the crowd, and the number of its messages that were accepted as a whole.
struct Client(TcpStream, usize);

/// The number of rounds without progress after which the whole crowd is stuck: some seconds.
const STUCK: usize = 150;

/// Connects pairs, in which all clients send messages and pings without reading, until all are stuck.
///
/// The two clients of a pair are side by side in the result.
fn crowd(relay: &Relay, pairs: usize) -> Vec<Client> {
    let pairs: Vec<_> = (0..pairs).map(|code| pair(relay, &code.to_string())).collect();
    let message = frame(0x82, &vec![7; MESSAGE]);
    let bytes = [message.repeat(MESSAGES), frame(0x89, &[7; 125])].concat();
    let mut sockets: Vec<_> = pairs.into_iter().flat_map(|(a, b)| [(a, 0), (b, 0)]).collect();
    sockets.iter().for_each(|(socket, _)| socket.set_nonblocking(true).unwrap());
    let mut stuck = 0;
    while stuck < STUCK {
        stuck += 1;
        for (socket, sent) in &mut sockets {
            match socket.write(&bytes[*sent % bytes.len()..]) {
                Ok(count) => (*sent, stuck) = (*sent + count, 0),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => panic!("{error}"),
            }
        }
        // After a read that empties the socket, the relay reads on while the previous batch waits.
        thread::sleep(Duration::from_millis(20));
    }
    let whole = |sent: usize| MESSAGES * (sent / bytes.len()) + MESSAGES.min(sent % bytes.len() / message.len());
    sockets.into_iter().map(|(socket, sent)| Client(socket, whole(sent))).collect()
}

/// Asserts that the peak of resident memory is at least `least` and at most `worst`, in KiB.
fn assert_peak(relay: &Relay, worst: usize, least: usize) {
    eventually("memory reaches the least peak", || relay.memory("VmHWM") >= least);
    let peak = relay.memory("VmHWM");
    println!("{peak} KiB of {worst}");
    assert!(peak <= worst, "the peak is {peak} KiB, but the formula allows {worst}");
}

/// Runs the tests of this file one at a time, because each fills all that it measures.
static TURN: Mutex<()> = Mutex::new(());

#[test]
fn peak_memory_is_within_the_documented_formula() {
    const CONNECTIONS: usize = 60;
    const HANDSHAKES: usize = 100;
    let _turn = TURN.lock();
    let limits = [CONNECTIONS, HANDSHAKES].map(|limit| limit.to_string());
    let relay = Relay::start(&["--max-connections", &limits[0], "--max-handshakes", &limits[1]]);
    let head = upgrade("/?pair=late", &format!("{}Cookie: {}\r\n", "A: b\r\n".repeat(80), "c".repeat(14_000)));
    let worst = BASE + CONNECTIONS * EACH_CONNECTION + HANDSHAKES * EACH_HANDSHAKE;
    // The kernel decides how much one read returns. On a busy machine, some connections hold one buffer instead of two.
    for _ in 0..5 {
        let clients = crowd(&relay, CONNECTIONS / 2);
        // All handshake slots hold requests that are nearly complete.
        let late: Vec<_> = (0..2 * HANDSHAKES)
            .map(|_| {
                let mut socket = relay.socket();
                socket.write_all(&head.as_bytes()[..head.len() - 2]).unwrap();
                socket
            })
            .collect();
        thread::sleep(Duration::from_millis(500));
        assert_peak(&relay, worst, worst / 2);
        drop((late, clients));
        relay.assert_empty();
        if relay.memory("VmHWM") > worst / 4 * 3 {
            return;
        }
    }
    println!("the peak has not come closer to the formula");
}

/// Stalled pairs hold all the memory for large buffers, and the other connections go on without it.
#[test]
fn buffer_memory_is_bounded_and_pairs_without_it_go_on() {
    const CONNECTIONS: usize = 200;
    const BUFFERS: usize = 4 * 1024;
    let _turn = TURN.lock();
    let relay = Relay::start(&["--max-buffer-memory", "4MiB"]);
    let clients = crowd(&relay, CONNECTIONS / 2);
    stream_a_pair(&relay);
    assert_peak(&relay, BASE + BUFFERS + CONNECTIONS * EACH_CONNECTION_IN_SHORT_MEMORY, BUFFERS + CONNECTIONS * 12);

    // No accepted message is lost. Once the crowd has read everything, there is memory again.
    thread::scope(|scope| {
        for pair in clients.chunks(2) {
            for (Client(socket, _), Client(_, messages)) in [(&pair[0], &pair[1]), (&pair[1], &pair[0])] {
                scope.spawn(move || {
                    socket.set_nonblocking(false).unwrap();
                    let (mut frames, mut received) = (Frames::of(socket), 0);
                    while received < messages * MESSAGE {
                        // The messages come in fragments, with pings and pongs between them.
                        let (first, payload) = frames.next();
                        assert!(first == 0x89 || payload.iter().all(|&byte| byte == 7));
                        received += if first & 0x08 == 0 { payload.len() } else { 0 };
                    }
                });
            }
        }
    });
    drop(clients);
    relay.assert_empty();
    stream_a_pair(&relay);
}

/// Sends a message of many buffers each way between the clients of a new pair.
fn stream_a_pair(relay: &Relay) {
    let (a, b) = pair(relay, "others");
    let message = pattern(2 << 20, 3);
    let sent = frame(0x82, &message);
    thread::scope(|scope| {
        for (mut from, to) in [(&a, &b), (&b, &a)] {
            let (sent, message) = (&sent, &message);
            scope.spawn(move || from.write_all(sent).unwrap());
            scope.spawn(move || assert!(Frames::of(to).message().1 == *message));
        }
    });
}
