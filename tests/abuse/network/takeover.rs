//! Takeovers: a table of far clients, and whether a third client gets their seat.
//!
//! The third client comes with the code of the pair, and again a second after each rejection, until it has the seat or
//! the far client has shown a sign of life. Only the verdict is checked, not the times. `docs/limits.md` has a copy of
//! the table.

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
use crate::network::{in_namespace, network, relay};
use crate::support::raw::{frame, head, open, upgrade};
use crate::support::{Relay, scratch};

/// The messages queued in a client before it stops reading, as in the Python library `websockets`.
const QUEUE: usize = 16;

/// The size of a write of messages, in bytes.
const WRITE: usize = 10_000;

/// The time between a rejection and the next attempt of a third client.
const PAUSE: Duration = Duration::from_secs(1);

/// The bound of every wait in a row.
const HANG: Duration = Duration::from_secs(150);

/// A row of the table: the behaviour of a pair's far client.
#[derive(Clone, Copy)]
struct Row {
    name: &'static str,
    /// The commands for `line.py` that make the line to it.
    line: &'static str,
    /// The number of messages sent to it.
    messages: usize,
    /// The length of each message, in bytes.
    length: usize,
    /// The time that its program takes for each message.
    busy: Duration,
    /// The number of messages that its program has taken when the third client comes.
    taken: usize,
    /// Whether the third client comes only after all messages are sent.
    sent: bool,
    /// The event just before the third client comes.
    event: Event,
    /// Whether the far client keeps its seat.
    keeps: bool,
}

#[derive(Clone, Copy)]
enum Event {
    Nothing,
    /// The program sleeps for this time, or for ever. Its kernel goes on.
    Suspended(Option<Duration>),
    /// The line carries nothing for this time, or for ever.
    Outage(Option<Duration>),
    /// The line gets these properties.
    Line(&'static str),
    /// The process ends, and its kernel closes the socket.
    Killed,
    Reset,
}

/// A client that answers at once, over a perfect line.
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

/// A busy client that is sent forty messages.
const BUSY: Row = Row { messages: 40, taken: 1, ..CALM };

/// A client that reads a stream, in the middle of it.
const STREAM: Row = Row { length: 10_000, taken: 1, ..CALM };

/// A client that vanishes in the middle of a stream.
const ENDLESS: Row = Row { messages: 10_000, keeps: false, ..STREAM };

/// A line with a round trip of 0.1 s.
const NEXT_TOWN: &str = "delay 0.05\n";

const fn seconds(seconds: u64) -> Option<Duration> {
    Some(Duration::from_secs(seconds))
}

#[test]
fn live_client_keeps_its_seat() {
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
        // Its window closes, and a part of the data stays in the relay's socket.
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
fn client_that_is_silent_for_long_loses_its_seat() {
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

/// Runs all rows at once, prints the table, and checks each verdict.
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
            Ok(None) => return, // two hosts cannot be made
            Err(_) => println!("| {} | panicked |", row.name),
        }
    }
    for (row, result) in rows.iter().zip(played) {
        let seen =
            result.unwrap_or_else(|panic| resume_unwind(panic)).expect("the hosts of all rows can be made, or of none");
        assert_eq!(seen.entered.is_none(), row.keeps, "keeps its seat: {}\n{}", row.name, seen.log);
    }
}

/// The observations of a row. All times are measured from when the third client comes.
struct Seen {
    /// The time of the far client's next answer.
    answered: Option<Duration>,
    /// The status and the time of the first answer to the third client.
    first: (u16, Duration),
    /// The time at which the third client had the seat.
    entered: Option<Duration>,
    /// The relay's log.
    log: String,
    /// The outcome of the far client's connection in the log.
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

/// Runs a row on two hosts of its own. Returns `None` if these cannot be made.
fn play(row: &Row) -> Option<Seen> {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let mut network = network()?;
    if !row.line.is_empty() {
        network.set(row.line);
    }
    let log = scratch(&format!("takeover-{}", COUNT.fetch_add(1, Relaxed)));
    let host = network.near.clone();
    let mut seen = in_namespace(&host, || {
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
                // Short messages go out together, so that no takeover probe comes between them.
                let at_once = (WRITE / row.length).clamp(1, row.messages.max(1));
                let frames = frame(0x82, &vec![7; row.length]).repeat(at_once);
                for _ in 0..row.messages / at_once {
                    if sender.write(&frames).is_err() {
                        return;
                    }
                    // Pongs have to get in between, and a mutex is not fair.
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
                // A reset without closing the socket, which other threads still hold.
                Event::Reset => connect_unspec(&far.socket).unwrap(),
            }
            if row.sent {
                sending.join().unwrap();
            }
            let seen = try_takeover(row, &relay, &near, &far);
            if let Some(rate) = rate(row.line).filter(|_| seen.entered.is_none()) {
                let least = (row.messages * row.length) as f64 / rate;
                assert!(began.elapsed() >= Duration::from_secs_f64(least * 0.9), "the line is too fast");
            }
            seen
        })
    });
    seen.log = std::fs::read_to_string(&log).unwrap();
    let _ = std::fs::remove_file(&log);
    // The near client is the first of the pair, and the far one completes it.
    let line = |event: &str, field: &str| seen.log.lines().find(|line| line.contains(event) && line.contains(field));
    let field = |line: &str, name: &str| {
        line.split_once(name).expect("the event has this field").1.split(' ').next().unwrap_or_default().to_owned()
    };
    let far = field(line(" paired ", " conn=").expect("it is paired"), " conn=");
    seen.outcome = field(line(" closed ", &format!(" conn={far} ")).expect("it has ended"), " outcome=");
    Some(seen)
}

/// The rate of a line in bytes per second, if it has one.
fn rate(line: &str) -> Option<f64> {
    let (_, rate) = line.split_once("rate ")?;
    Some(rate.trim_end().parse().expect("the rate is the last property"))
}

/// Connects third clients until one has the seat, or the far client has shown a sign of life.
fn try_takeover(row: &Row, relay: &Relay, near: &Client, far: &Client) -> Seen {
    let came = Instant::now();
    let answered = || far.state().answers.iter().find(|&&at| at >= came).map(|&at| at - came);
    let mut first = None;
    let third = loop {
        // A busy client is live as soon as it answers. A client that reads a stream is pinged all the time, so its
        // answers count only after the stream.
        let is_live = answered().is_some() && (!row.busy.is_zero() || far.state().taken >= row.messages);
        let mut third = relay.socket();
        third.write_all(upgrade("/?pair=x", "").as_bytes()).unwrap();
        let head = head(&mut third);
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        first.get_or_insert((status, came.elapsed()));
        match status {
            101 => break Some((third, came.elapsed())),
            409 if is_live => break None,
            409 => assert!(came.elapsed() < HANG, "neither client gets the seat"),
            other => panic!("{other}"),
        }
        thread::sleep(PAUSE);
    };
    let seen = Seen {
        answered: answered(),
        first: first.expect("the loop runs once"),
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

/// A client with a thread that reads and answers, and a thread that processes the messages.
struct Client {
    socket: TcpStream,
    /// Held while a frame is written.
    writes: Mutex<()>,
    /// The time to process a message.
    busy: Duration,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Whether it neither reads nor answers.
    suspended: bool,
    /// Whether it cuts all its delays short.
    hurries: bool,
    /// The times at which it has answered pings.
    answers: Vec<Instant>,
    /// The number of messages that its program has taken.
    taken: usize,
    /// The last message that its program has taken.
    last: Vec<u8>,
    /// The code and reason of the close frame.
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

    /// Reads frames, and pauses while the queue is full.
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

    /// Takes one message after another from the queue.
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

    /// Sleeps for this time, unless the client hurries.
    fn nap(&self, time: Duration) {
        drop(self.changed.wait_timeout_while(self.state(), time, |state| !state.hurries).unwrap());
    }

    fn wait(&self, mut is_so: impl FnMut(&State) -> bool) {
        let (state, timeout) = self.changed.wait_timeout_while(self.state(), HANG, |state| !is_so(state)).unwrap();
        drop(state);
        assert!(!timeout.timed_out(), "the state never changes as expected");
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

/// A guard that ends a client's threads, also when a check fails.
struct EndsOnDrop(Arc<Client>);

impl Drop for EndsOnDrop {
    fn drop(&mut self) {
        self.0.end();
    }
}
