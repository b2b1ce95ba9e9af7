//! The life of one pair: two clients send at the same time until one of them leaves.

use std::io;
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Mutex, PoisonError};
use std::thread::{self, Scope, ScopedJoinHandle};
use std::time::Duration;

use super::Totals;
use super::stream::{Event, Pattern, Random, Reader, write_frame, write_part};
use super::support::raw::{open, reset, upgrade};
use super::support::{PATIENCE, Relay};

/// How a client leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Departure {
    Close(u16),
    End,
    CutOff,
    Reset,
    Violation,
}

/// The names of departures in the totals.
pub(crate) const DEPARTURES: [&str; 5] = ["close", "end", "cut off", "reset", "violation"];

/// One client of a pair, and the messages that it sends.
struct Client {
    socket: TcpStream,
    /// Locked for each frame, because the reader answers a close frame. True if no frame may follow.
    closed: Mutex<bool>,
    pattern: Pattern,
    lengths: Vec<u64>,
}

/// Spawns a thread with the seed in its name, so that a failure names its pair.
pub(crate) fn spawn<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    seed: u64,
    task: impl FnOnce() -> T + Send + 'scope,
) -> ScopedJoinHandle<'scope, T> {
    thread::Builder::new().name(format!("pair {seed}")).spawn_scoped(scope, task).expect("a thread can be spawned")
}

/// Plays one pair from its seed.
///
/// # Panics
///
/// If a client does not see what it has to see.
pub(crate) fn play(relay: &Relay, seed: u64, totals: &Totals) {
    let mut random = Random::new(seed);
    let target = format!("/?pair=soak{seed}");
    let mut client = |number: u64| {
        let mut socket = relay.socket();
        socket.set_write_timeout(Some(PATIENCE)).unwrap();
        open(&mut socket, &target, b"");
        let lengths = (0..random.below(12)).map(|_| random.length()).collect();
        Client { socket, closed: Mutex::new(false), pattern: Pattern(2 * seed + number), lengths }
    };
    // The client that stays joins first, and sends before it has a peer.
    let stayer = client(0);
    let mut split = Random::new(!seed);
    let mut split = || Random::new(split.below(u64::MAX >> 33));
    let mut choice = split();
    let which = choice.below(5) as usize;
    let code = 4000 + choice.below(1000) as u16;
    let departure =
        [Departure::Close(code), Departure::End, Departure::CutOff, Departure::Reset, Departure::Violation][which];

    thread::scope(|scope| {
        let writer = split();
        spawn(scope, seed, || stayer.talk(writer, totals));
        thread::sleep(Duration::from_millis(choice.below(100)));
        let leaver = client(1);
        if choice.once_in(4) {
            let refusal = relay.http(&upgrade(&target, ""));
            assert!(refusal.starts_with("HTTP/1.1 409 "), "{refusal}");
        }
        let (writer, reader) = (split(), split());
        let stayer_reader = {
            let (stayer, reader, lengths) = (&stayer, stayer.reader(&leaver), leaver.lengths.len());
            let random = split();
            spawn(scope, seed, move || stayer.stay(reader, random, departure, lengths, totals))
        };
        thread::scope(|scope| {
            spawn(scope, seed, || leaver.leave(leaver.reader(&stayer), reader, departure));
            assert!(leaver.talk(writer, totals), "the leaving client could not send everything");
            leaver.depart(departure);
        });
        drop(leaver); // closes its socket, if that is still open
        stayer_reader.join().expect("the staying client failed");
    });
    totals.departures[which].fetch_add(1, Relaxed);
    totals.pairs.fetch_add(1, Relaxed);
}

impl Client {
    /// A reader of the messages that the `other` client sends to this one.
    fn reader(&self, other: &Self) -> Reader {
        // The last message may be followed by the start of one that never ends.
        let lengths = other.lengths.iter().copied().chain([u64::MAX]).collect();
        Reader::new(self.socket.try_clone().unwrap(), other.pattern, lengths)
    }

    /// Writes one frame. Returns false if no frame may be written any more, or the write fails.
    fn write(&self, write: impl FnOnce(&TcpStream) -> io::Result<()>) -> bool {
        let closed = self.closed.lock().unwrap_or_else(PoisonError::into_inner);
        if *closed {
            return false;
        }
        match write(&self.socket) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => panic!("the relay read nothing for a minute"),
            result => result.is_ok(),
        }
    }

    /// Sends all messages, in frames of any size, with other frames in between.
    ///
    /// Returns false if the connection ends early.
    fn talk(&self, mut random: Random, totals: &Totals) -> bool {
        let mut pauses = 3;
        for (message, &length) in self.lengths.iter().enumerate() {
            let mut offset = 0;
            let mut opcode = 0x02;
            loop {
                if pauses > 0 && random.once_in(20) {
                    pauses -= 1;
                    thread::sleep(Duration::from_millis(random.below(1500)));
                }
                if random.once_in(8) {
                    let number = totals.pings.fetch_add(1, Relaxed).to_be_bytes();
                    if !self.write(|socket| write_frame(socket, 0x89, 8, |at| number[at as usize])) {
                        return false;
                    }
                }
                if opcode == 0x02 && random.once_in(8) && !self.write(|socket| write_frame(socket, 0x81, 5, |_| b'x')) {
                    return false;
                }
                let part = if random.once_in(2) { length - offset } else { random.length().min(length - offset) };
                let first = opcode | if offset + part == length { 0x80 } else { 0 };
                if !self.write(|socket| write_part(socket, first, self.pattern, message, offset, part)) {
                    return false;
                }
                offset += part;
                opcode = 0;
                if first & 0x80 != 0 {
                    break;
                }
            }
        }
        true
    }

    fn depart(&self, departure: Departure) {
        self.write(|socket| match departure {
            Departure::Close(code) => write_frame(socket, 0x88, 2, |at| code.to_be_bytes()[at as usize]),
            Departure::End => socket.shutdown(Shutdown::Write),
            Departure::CutOff => {
                write_part(socket, 0x02, self.pattern, self.lengths.len(), 0, 3)?;
                socket.shutdown(Shutdown::Write)
            }
            Departure::Reset => {
                // The kernel sends the reset when the socket is closed. First, the reader has to release it: this
                // shutdown ends the read without a packet.
                reset(socket);
                socket.shutdown(Shutdown::Read)
            }
            Departure::Violation => write_frame(socket, 0x83, 0, |_| 0),
        });
    }

    /// Reads to the end as the client that leaves: it gets a part or all of the other's messages.
    fn leave(&self, mut reader: Reader, mut random: Random, departure: Departure) {
        loop {
            match reader.next() {
                Event::Message | Event::Pong => pause(&mut random),
                Event::Close(code, reason) => match departure {
                    Departure::Close(own) => assert_eq!((code, reason.as_str()), (Some(own), "")),
                    Departure::Violation => assert_eq!((code, reason.as_str()), (Some(1002), "reserved opcode")),
                    _ => panic!("{departure:?} was answered with {code:?} {reason:?}"),
                },
                Event::End => return,
            }
        }
    }

    /// Reads to the end as the client that stays.
    ///
    /// It gets everything that the other client could send, and a close frame that says how it left.
    fn stay(&self, mut reader: Reader, mut random: Random, departure: Departure, messages: usize, totals: &Totals) {
        let (code, reason) = loop {
            match reader.next() {
                Event::Message | Event::Pong => pause(&mut random),
                Event::Close(code, reason) => break (code, reason),
                Event::End => panic!("{departure:?}: the stream ended without a close frame"),
            }
        };
        totals.messages.fetch_add(reader.messages as u64, Relaxed);
        totals.bytes.fetch_add(reader.bytes, Relaxed);
        match departure {
            Departure::Close(_) | Departure::End => {
                assert_eq!((code, reason.as_str()), (Some(1000), "peer disconnected"), "{departure:?}");
            }
            _ => assert_eq!((code, reason.as_str()), (Some(1011), "peer connection lost"), "{departure:?}"),
        }
        if departure != Departure::Reset {
            assert_eq!(reader.messages, messages, "{departure:?}: messages are lost");
        }
        self.write(|socket| write_frame(socket, 0x88, 2, |at| [0x03, 0xE8][at as usize]));
        *self.closed.lock().unwrap_or_else(PoisonError::into_inner) = true;
        assert!(matches!(reader.next(), Event::End), "a frame follows a close frame");
    }
}

/// Pauses now and then.
fn pause(random: &mut Random) {
    if random.once_in(30) {
        thread::sleep(Duration::from_millis(random.below(1500)));
    }
}
