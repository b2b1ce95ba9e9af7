//! What a third client does to a pair: a table of what its far client is like, and whether that client loses its seat.
//!
//! The third comes with the code of the pair, and again a second after each refusal, until it has the seat or the far
//! client has shown that it is there. Only the verdict is checked. The times in the table are what this system took;
//! `docs/limits.md` has a copy of it.

use std::io::{self, Write};
use std::net::{Shutdown, TcpStream};
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use rustix::net::connect_unspec;

use crate::aftermath::round_trip;
use crate::frames::{Frames, parse_close};
use crate::network::{network, relay, within};
use crate::support::raw::{frame, head, open, upgrade};
use crate::support::{Relay, scratch};

/// Messages that wait in a client before it stops reading its socket, as in the Python library `websockets`.
const QUEUE: usize = 16;

/// The size of a write of messages, in bytes.
const WRITE: usize = 10_000;

/// How long a third waits after a refusal.
const PAUSE: Duration = Duration::from_secs(1);

/// A bound for everything that a row waits for.
const HANG: Duration = Duration::from_secs(150);

/// A row of the table: what the far client of a pair is like.
#[derive(Clone, Copy)]
struct Row {
    name: &'static str,
    /// What the line to it is like, as `line.py` understands it.
    line: &'static str,
    /// Messages that it is sent, and their length in bytes.
    messages: usize,
    length: usize,
    /// The time that its program takes for each of them.
    busy: Duration,
    /// The third comes when the program has taken so many of them.
    taken: usize,
    /// Whether the third comes only when all of them are sent.
    sent: bool,
    /// What happens when the third comes.
    event: Event,
    /// Whether the client keeps its seat.
    keeps: bool,
}

#[derive(Clone, Copy)]
enum Event {
    Nothing,
    /// The program sleeps for this time, or for ever, and its kernel goes on.
    Suspended(Option<Duration>),
    /// The line carries nothing for this time, or for ever.
    Outage(Option<Duration>),
    /// The line is like this from then on.
    Line(&'static str),
    /// The process ends, and its kernel closes the socket.
    Killed,
    Reset,
}

/// A client that answers at once, over a line that is like none.
const CALM: Row = Row {
    name: "",
    line: "",
    messages: 0,
    length: 100,
    busy: Duration::ZERO,
    taken: 0,
    sent: false,
    event: Event::Nothing,
    keeps: true,
};

/// A client that is busy, and is sent forty messages.
const BUSY: Row = Row { messages: 40, taken: 1, ..CALM };

/// A client that reads a stream, in the middle of it.
const STREAM: Row = Row { length: 10_000, taken: 1, ..CALM };

/// A client that is gone in the middle of a stream.
const ENDLESS: Row = Row { messages: 10_000, keeps: false, ..STREAM };

/// A line with a round trip of 0.1 s.
const NEXT_TOWN: &str = "delay 0.05\n";

const fn seconds(seconds: u64) -> Option<Duration> {
    Some(Duration::from_secs(seconds))
}

#[test]
fn a_third_takes_no_seat_from_a_client_that_is_there() {
    // A line's delay is for each way.
    check(&[
        Row { name: "round trip 0.1 s", line: "delay 0.05\n", ..CALM },
        Row { name: "round trip 0.5 s", line: "delay 0.25\n", ..CALM },
        Row { name: "round trip 1 s", line: "delay 0.5\n", ..CALM },
        Row { name: "round trip 2.2 s", line: "delay 1.1\n", ..CALM },
        Row { name: "round trip grows from 0.1 s to 1 s", line: NEXT_TOWN, event: Event::Line("delay 0.5\n"), ..CALM },
        Row { name: "busy for 0.1 s with each of 40 messages", busy: Duration::from_millis(100), ..BUSY },
        Row { name: "busy for 0.3 s with each of 40 messages", busy: Duration::from_millis(300), ..BUSY },
        Row { name: "line of 4 KB/s, 20 KB under way", line: "rate 4000\n", messages: 20, length: 1000, ..STREAM },
        Row { name: "line of 30 KB/s, 300 KB under way", line: "rate 30000\n", messages: 30, ..STREAM },
        Row { name: "line of 250 KB/s, 2 MB under way", line: "rate 250000\n", messages: 200, ..STREAM },
        Row { name: "line of 1 MB/s, 4 MB under way", line: "rate 1000000\n", messages: 400, ..STREAM },
        Row { name: "suspended for 10 s", event: Event::Suspended(seconds(10)), ..CALM },
        // Its window closes, and a part of that stays in the relay's socket.
        Row {
            name: "suspended for 10 s, and then sent 300 KB",
            messages: 30,
            event: Event::Suspended(seconds(10)),
            length: 10_000,
            sent: true,
            ..CALM
        },
        Row { name: "suspended for 10 s in a stream", messages: 2000, event: Event::Suspended(seconds(10)), ..STREAM },
        Row { name: "line out for 1 s", line: NEXT_TOWN, event: Event::Outage(seconds(1)), ..CALM },
        Row { name: "cable pulled", line: NEXT_TOWN, event: Event::Outage(None), keeps: false, ..CALM },
        Row { name: "killed", event: Event::Killed, keeps: false, ..CALM },
        Row { name: "reset", event: Event::Reset, keeps: false, ..CALM },
    ]);
}

#[test]
#[ignore = "takes half a minute"]
fn a_third_takes_the_seat_of_a_client_that_is_silent_for_long() {
    let (second, slow) = (Duration::from_secs(1), "delay 2.5\n");
    check(&[
        Row { name: "round trip 5 s", line: slow, ..CALM },
        Row {
            name: "round trip grows from 0.1 s to 5 s",
            line: NEXT_TOWN,
            event: Event::Line(slow),
            keeps: false,
            ..CALM
        },
        Row { name: "busy for 1 s with each of 40 messages, 8 are done", busy: second, taken: 9, ..BUSY },
        Row { name: "busy for 3 s with each of 20 messages", busy: 3 * second, messages: 20, ..BUSY },
        Row { name: "busy for 3 s with each of 40 messages", busy: 3 * second, keeps: false, ..BUSY },
        Row { name: "busy for 10 s with each of 18 messages", busy: 10 * second, messages: 18, ..BUSY },
        Row { name: "busy for 10 s with each of 40 messages", busy: 10 * second, keeps: false, ..BUSY },
        Row { name: "line of 4 KB/s, 60 KB under way", line: "rate 4000\n", messages: 60, length: 1000, ..STREAM },
        Row { name: "line out for 10 s", line: NEXT_TOWN, event: Event::Outage(seconds(10)), keeps: false, ..CALM },
        Row { name: "suspended for ever", event: Event::Suspended(None), keeps: false, ..CALM },
        Row { name: "suspended for ever in a stream", event: Event::Suspended(None), ..ENDLESS },
        Row { name: "cable pulled in a stream", line: "rate 1000000\n", event: Event::Outage(None), ..ENDLESS },
    ]);
}

/// Plays all rows at once, prints the table, and checks each verdict.
fn check(rows: &[Row]) {
    let played: Vec<_> = thread::scope(|scope| {
        let rows: Vec<_> = rows.iter().map(|row| scope.spawn(|| play(row))).collect();
        rows.into_iter().map(|row| row.join()).collect()
    });
    println!("\n| the far client | its next answer | the third's first one | in the end | outcome |");
    println!("|---|---|---|---|---|");
    for (row, result) in rows.iter().zip(&played) {
        match result {
            Ok(Some(seen)) => println!("| {} {}", row.name, seen.cells()),
            Ok(None) => return, // there are no two hosts
            Err(_) => println!("| {} | panicked |", row.name),
        }
    }
    for (row, result) in rows.iter().zip(played) {
        let seen = result.unwrap_or_else(|panic| resume_unwind(panic)).expect("all hosts are there or none");
        assert_eq!(seen.entered.is_none(), row.keeps, "whether it keeps its seat: {}\n{}", row.name, seen.log);
    }
}

/// What has happened in a row. All times begin when the third comes.
struct Seen {
    /// When the far client has answered next.
    answered: Option<Duration>,
    /// The third's first answer.
    first: (u16, Duration),
    /// When the third had the seat.
    entered: Option<Duration>,
    /// What the relay has logged, and what that says of the far client.
    log: String,
    outcome: String,
}

impl Seen {
    fn cells(&self) -> String {
        let after = |time: Duration| format!("after {:.1} s", time.as_secs_f64());
        let answered = self.answered.map_or_else(|| String::from("none"), after);
        let (status, first) = (self.first.0, after(self.first.1));
        let end = self.entered.map_or_else(
            || String::from("409, the pair lives"),
            |entered| format!("the third has the seat {}", after(entered)),
        );
        let outcome = if self.entered.is_some() { format!("`{}`", self.outcome) } else { String::new() };
        format!("| {answered} | {status} {first} | {end} | {outcome} |")
    }
}

/// Plays a row on two hosts of its own, or none if there are none.
fn play(row: &Row) -> Option<Seen> {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let mut network = network()?;
    if !row.line.is_empty() {
        network.set(row.line);
    }
    let log = scratch(&format!("takeover-{}", COUNT.fetch_add(1, Relaxed)));
    let host = network.near.clone();
    let mut seen = within(&host, || {
        let mut command = relay();
        command.env("ARC_RELAY_LOG_LEVEL", "info").stderr(std::fs::File::create(&log).unwrap());
        let relay = Relay::spawn(command);
        let (mut near, mut far) = network.pair(&relay, "x");
        round_trip(&mut near, &mut far);
        let (near, far) = (Client::new(near, Duration::ZERO), Client::new(far, row.busy));
        thread::scope(|scope| {
            let _ends = [EndsOnDrop(Arc::clone(&near)), EndsOnDrop(Arc::clone(&far))];
            Client::run(&near, scope);
            if !matches!(row.event, Event::Killed | Event::Reset) {
                Client::run(&far, scope);
            }
            let began = Instant::now();
            let sender = Arc::clone(&near);
            let sending = scope.spawn(move || {
                // Short ones come together, so that a ping for the third cannot come between them.
                let at_once = (WRITE / row.length).clamp(1, row.messages.max(1));
                let frames = frame(0x82, &vec![7; row.length]).repeat(at_once);
                for _ in 0..row.messages / at_once {
                    if sender.write(&frames).is_err() {
                        return;
                    }
                    // Its pongs have to get in between, and a mutex is not fair.
                    thread::sleep(Duration::from_millis(1));
                }
            });
            far.wait(|state| state.taken >= row.taken);
            match row.event {
                Event::Nothing => {}
                Event::Suspended(time) => {
                    far.state().suspended = true;
                    let far = Arc::clone(&far);
                    scope.spawn(move || {
                        let Some(time) = time else { return };
                        far.nap(time);
                        far.change(|state| state.suspended = false);
                    });
                }
                Event::Line(line) => network.set(line),
                Event::Outage(None) => network.set("cut\n"),
                Event::Outage(Some(time)) => {
                    let (network, far) = (&mut network, Arc::clone(&far));
                    network.set("loss 1\n");
                    scope.spawn(move || {
                        far.nap(time);
                        network.set("loss 0\n");
                    });
                }
                Event::Killed => far.end(),
                // Without a thread that would have to close the socket, too.
                Event::Reset => connect_unspec(&far.socket).unwrap(),
            }
            if row.sent {
                sending.join().unwrap();
            }
            let seen = thirds(row, &relay, &near, &far);
            if let Some(rate) = rate(row.line).filter(|_| seen.entered.is_none()) {
                let least = (row.messages * row.length) as f64 / rate;
                assert!(began.elapsed() >= Duration::from_secs_f64(least * 0.9), "there is no such line");
            }
            seen
        })
    });
    seen.log = std::fs::read_to_string(&log).unwrap();
    let _ = std::fs::remove_file(&log);
    // The near client is the first connection, the far one the second.
    let line = seen.log.lines().find(|line| line.contains(" closed ") && line.contains(" conn=1 ")).unwrap();
    seen.outcome = line.split_once("outcome=").unwrap().1.split(' ').next().unwrap().to_owned();
    Some(seen)
}

/// The rate of a line, if it has one.
fn rate(line: &str) -> Option<f64> {
    let (_, rate) = line.split_once("rate ")?;
    Some(rate.trim_end().parse().expect("it stands at the end"))
}

/// Comes as a third until it is clear who has the seat.
fn thirds(row: &Row, relay: &Relay, near: &Client, far: &Client) -> Seen {
    let came = Instant::now();
    let answered = || far.state().answers.iter().find(|&&at| at >= came).map(|&at| at - came);
    let mut first = None;
    let third = loop {
        // A busy client is there as soon as it answers. One that reads a stream is asked all the time.
        let is_there = answered().is_some() && (!row.busy.is_zero() || far.state().taken >= row.messages);
        let mut third = relay.socket();
        third.write_all(upgrade("/?pair=x", "").as_bytes()).unwrap();
        let head = head(&mut third);
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        first.get_or_insert((status, came.elapsed()));
        match status {
            101 => break Some((third, came.elapsed())),
            409 if is_there => break None,
            409 => assert!(came.elapsed() < HANG, "neither has the seat"),
            other => panic!("{other}"),
        }
        thread::sleep(PAUSE);
    };
    let seen = Seen {
        answered: answered(),
        first: first.expect("it came once"),
        entered: third.as_ref().map(|(_, entered)| *entered),
        log: String::new(),
        outcome: String::new(),
    };
    match third {
        None => {
            far.change(|state| state.hurries = true);
            near.send(0x82, b"still there").unwrap();
            far.wait(|state| state.taken == row.messages + 1);
            assert_eq!(far.state().last, b"still there");
            far.send(0x82, b"and back").unwrap();
            near.wait(|state| state.taken == 1);
            assert_eq!(near.state().last, b"and back");
        }
        Some((mut third, _)) => {
            near.wait(|state| state.closed.is_some());
            let mut fourth = relay.socket();
            open(&mut fourth, "/?pair=x", b"");
            round_trip(&mut third, &mut fourth);
        }
    }
    seen
}

/// A client with a thread that reads and answers, and one that works on the messages.
struct Client {
    socket: TcpStream,
    /// Held while a frame is written.
    writes: Mutex<()>,
    /// The time that a message takes.
    busy: Duration,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Whether it neither reads nor answers.
    suspended: bool,
    /// Whether it waits for nothing any more.
    hurries: bool,
    /// When it has answered pings.
    answers: Vec<Instant>,
    /// How many messages its program has taken, and the last one.
    taken: usize,
    last: Vec<u8>,
    /// What it was told at the end.
    closed: Option<(u16, String)>,
}

impl Client {
    fn new(socket: TcpStream, busy: Duration) -> Arc<Self> {
        Arc::new(Self { socket, writes: Mutex::default(), busy, state: Mutex::default(), changed: Condvar::new() })
    }

    fn run<'scope>(client: &Arc<Self>, scope: &'scope thread::Scope<'scope, '_>) {
        let (queue, messages) = sync_channel(QUEUE);
        let (reader, program) = (Arc::clone(client), Arc::clone(client));
        scope.spawn(move || reader.read(&queue));
        scope.spawn(move || program.work(&messages));
    }

    /// Reads frames, and does not go on while the queue is full.
    fn read(&self, queue: &SyncSender<Vec<u8>>) {
        let (mut frames, mut message) = (Frames::of(&self.socket), Vec::new());
        while let Ok((first, payload)) = frames.try_next() {
            self.wait(|state| !state.suspended);
            match first {
                0x89 => {
                    let _ = self.send(0x8A, &payload);
                    self.change(|state| state.answers.push(Instant::now()));
                }
                0x88 => {
                    let _ = self.send(0x88, &payload[..2]);
                    return self.change(|state| state.closed = Some(parse_close(&payload)));
                }
                _ => {
                    message.extend(payload);
                    if first & 0x80 != 0 && queue.send(std::mem::take(&mut message)).is_err() {
                        return;
                    }
                }
            }
        }
    }

    /// Takes one message after the other.
    fn work(&self, messages: &Receiver<Vec<u8>>) {
        for message in messages {
            self.change(|state| {
                state.taken += 1;
                state.last = message;
            });
            self.nap(self.busy);
        }
    }

    fn send(&self, first: u8, payload: &[u8]) -> io::Result<()> {
        self.write(&frame(first, payload))
    }

    /// Writes whole frames.
    fn write(&self, frames: &[u8]) -> io::Result<()> {
        let _writes = self.writes.lock().unwrap();
        (&self.socket).write_all(frames)
    }

    /// Waits for this time, unless it hurries.
    fn nap(&self, time: Duration) {
        drop(self.changed.wait_timeout_while(self.state(), time, |state| !state.hurries).unwrap());
    }

    fn wait(&self, mut is_so: impl FnMut(&State) -> bool) {
        let (state, timeout) = self.changed.wait_timeout_while(self.state(), HANG, |state| !is_so(state)).unwrap();
        drop(state);
        assert!(!timeout.timed_out(), "it never happens");
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state());
        self.changed.notify_all();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Ends the connection.
    fn end(&self) {
        self.change(|state| {
            state.hurries = true;
            state.suspended = false;
        });
        let _ = self.socket.shutdown(Shutdown::Both);
    }
}

/// Ends a client's threads, also when a check fails.
struct EndsOnDrop(Arc<Client>);

impl Drop for EndsOnDrop {
    fn drop(&mut self) {
        self.0.end();
    }
}
