//! Where the relay's events go when it is run as a program: as lines to standard error.
//!
//! Whoever logs never waits. A line goes through a bounded queue to a thread that writes it, since a pipe that nobody
//! reads blocks its writer; if the queue is full, the line is counted and forgotten. Nor can strangers fill a disk: of
//! each level [so many lines](BURST) are written in a second, and then one that says how many were not.
//!
//! Only events of the relay itself are written: other crates (tungstenite) log what clients say.

use std::io::{self, Write};
use std::panic;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use log::{Level, LevelFilter, Log, Metadata, Record};

use super::log_budget::Budget;
use super::log_line::{self as line, Format};

/// Whose events are written: the library's and the program's, which have the same name.
const TARGET: &str = "arc_relay";

/// How many lines of a level are written in a [`SECOND`].
pub(super) const BURST: u32 = 100;
pub(super) const SECOND: Duration = Duration::from_secs(1);

/// How many lines may wait to be written: some seconds of all levels, and a few hundred KiB.
const QUEUE: usize = 1024;

/// How long the program waits at its end until everything is written. Nobody may read it.
const FLUSH: Duration = Duration::from_secs(1);

/// What goes to the thread that writes.
enum Message {
    Line(String),
    /// Something was not logged for the first time in a while: it is to be told when the time comes.
    Missed,
    /// Everything before this is to be written, and then this told by its drop.
    Flush {
        _done: SyncSender<()>,
    },
}

/// Hands lines over to the thread that writes them.
struct Sink {
    format: Format,
    budget: Arc<Mutex<Budget>>,
    queue: SyncSender<Message>,
}

impl Log for Sink {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level() && is_ours(metadata.target())
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let (level, now) = (record.level(), Instant::now());
        let is_logged = lock(&self.budget).take(level, now) && {
            let line = line::of(record, self.format, wall_clock());
            self.queue.try_send(Message::Line(line)).is_ok()
        };
        if !is_logged && lock(&self.budget).miss(level, now) {
            let _ = self.queue.try_send(Message::Missed); // full: it is looked for behind the lines that are in it
        }
    }

    /// Waits until what was logged before is written, but no longer than [`FLUSH`].
    fn flush(&self) {
        let (done, is_done) = sync_channel(1);
        if self.queue.try_send(Message::Flush { _done: done }).is_ok() {
            let _ = is_done.recv_timeout(FLUSH); // nothing is ever sent
        }
    }
}

/// Whether an event is the relay's, by its target: a module's path.
fn is_ours(target: &str) -> bool {
    target.split("::").next() == Some(TARGET)
}

/// Has what is logged from now on written to standard error, and panics logged instead of printed: what they say may hold
/// what a client has sent.
pub(crate) fn begin(level: LevelFilter, format: Format) -> io::Result<()> {
    panic::set_hook(Box::new(|panic| {
        let at = panic.location().map(|location| format!("{}:{}", location.file(), location.line()));
        log::error!(target: TARGET, at; "panicked");
    }));
    if level == LevelFilter::Off {
        return Ok(());
    }
    let (queue, lines) = sync_channel(QUEUE);
    let budget = Arc::new(Mutex::new(Budget::default()));
    let sink = Sink { format, budget: Arc::clone(&budget), queue };
    thread::Builder::new().name(String::from("log")).spawn(move || write(&lines, &budget, format))?;
    log::set_boxed_logger(Box::new(sink)).map_err(io::Error::other)?;
    log::set_max_level(level);
    Ok(())
}

/// Writes what comes, and what was missed when its time has come.
fn write(lines: &Receiver<Message>, budget: &Mutex<Budget>, format: Format) {
    loop {
        let message = if lock(budget).has_missed() { lines.recv_timeout(SECOND).ok() } else { lines.recv().ok() };
        let missed_until = match &message {
            Some(Message::Line(line)) => {
                put(line);
                Instant::now()
            }
            // The last chance to tell.
            Some(Message::Flush { .. }) => Instant::now() + SECOND,
            Some(Message::Missed) | None => Instant::now(),
        };
        let missed = lock(budget).missed(missed_until);
        for (level, count) in missed {
            put(&line::missed(level, count, format, wall_clock()));
        }
    }
}

/// Writes a line with one call, so that others who write to the same place cannot get in between. If that fails, nobody is
/// left to be told.
fn put(line: &str) {
    let _ = io::stderr().write_all(line.as_bytes());
}

/// Each step leaves it whole.
fn lock(budget: &Mutex<Budget>) -> MutexGuard<'_, Budget> {
    budget.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The levels by their names. (`log` has another one, `trace`, that nothing here is logged at.)
pub(crate) fn level(name: &str) -> Option<LevelFilter> {
    let levels =
        [Level::Error, Level::Warn, Level::Info, Level::Debug].map(|level| (name_of(level), level.to_level_filter()));
    [("off", LevelFilter::Off)].into_iter().chain(levels).find_map(|(known, level)| (known == name).then_some(level))
}

pub(super) fn name_of(level: Level) -> &'static str {
    match level {
        Level::Error => "error",
        Level::Warn => "warn",
        Level::Info => "info",
        Level::Debug | Level::Trace => "debug",
    }
}

/// The time that people go by.
#[expect(clippy::disallowed_methods, reason = "it is written, and decides nothing")]
fn wall_clock() -> SystemTime {
    SystemTime::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sink(room: usize) -> (Sink, Receiver<Message>) {
        let (queue, lines) = sync_channel(room);
        (Sink { format: Format::Text, budget: Arc::default(), queue }, lines)
    }

    fn log(sink: &Sink, target: &str) {
        sink.log(&Record::builder().level(Level::Error).target(target).args(format_args!("event")).build());
    }

    #[test]
    fn only_the_relay_s_own_events_are_written() {
        for target in ["arc_relay", "arc_relay::settings"] {
            assert!(is_ours(target), "{target}");
        }
        for target in ["tungstenite::handshake::server", "hyper", "arc_relay_of_others", ""] {
            assert!(!is_ours(target), "{target}");
        }
    }

    #[test]
    fn who_logs_never_waits_and_what_finds_no_room_is_counted() {
        log::set_max_level(LevelFilter::Debug);
        let (sink, lines) = sink(2);
        for _ in 0..5 {
            log(&sink, TARGET);
        }
        log(&sink, "tungstenite");
        assert_eq!(lines.try_iter().filter(|message| matches!(message, Message::Line(_))).count(), 2);
        let missed: Vec<_> = lock(&sink.budget).missed(Instant::now() + SECOND).collect();
        assert_eq!(missed, [(Level::Error, 3)]);
    }

    /// Run by the test below, in a process of its own, as a hook is for all threads.
    #[test]
    #[ignore = "it panics"]
    fn something_panics() {
        begin(LevelFilter::Error, Format::Text).unwrap();
        assert!(thread::spawn(|| panic!("a secret")).join().is_err());
        log::logger().flush();
    }

    #[test]
    fn a_panic_is_logged_by_where_it_was_and_not_by_what_it_said() {
        let arguments = ["--exact", "cli::logging::tests::something_panics", "--ignored", "--nocapture"];
        let output = std::process::Command::new(std::env::current_exe().unwrap()).args(arguments).output().unwrap();
        let printed = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert!(output.status.success(), "{printed}");
        assert!(printed.contains(" error panicked at=src/cli/logging.rs:"), "{printed}");
        assert!(!printed.contains("secret"), "{printed}");
    }

    #[test]
    fn levels_have_their_names() {
        assert_eq!(level("off"), Some(LevelFilter::Off));
        assert_eq!(level("debug"), Some(LevelFilter::Debug));
        assert_eq!(level("trace"), None);
        assert_eq!(level("INFO"), None);
    }
}
