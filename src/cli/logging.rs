//! The log: events of the relay as lines on standard error.
//!
//! - Logging never blocks. A line goes through a bounded queue to a writer thread, because a pipe without a reader blocks
//!   its writer. With a full queue the event is dropped and counted.
//! - Clients cannot fill a disk: a [`LogBudget`] limits the lines of each level, and one line reports the dropped events.
//! - Only events of the relay are written. Other crates (tungstenite) log what clients send.

use std::io::{self, Write};
use std::panic;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use log::{LevelFilter, Log, Metadata, Record};

use super::log_budget::{LogBudget, SECOND};
use super::log_line::{Format, format_event, format_missed};

/// The crate name of the library and of the binary: the first part of their targets.
const TARGET: &str = "arc_relay";

/// Capacity of the queue: a few seconds of all levels, a few hundred KiB.
const QUEUE: usize = 1024;

/// Maximum wait for the writer thread when the process ends. Standard error may have no reader.
const FLUSH: Duration = Duration::from_secs(1);

/// A message to the writer thread.
enum Message {
    Line(String),
    /// The first event since the last report was dropped: a report is due in a second.
    Missed,
    /// Everything queued earlier has to be written. The drop of the sender tells that it is.
    Flush {
        _done: SyncSender<()>,
    },
}

/// The logger: formats an event and queues it.
struct Logger {
    format: Format,
    budget: Arc<Mutex<LogBudget>>,
    queue: SyncSender<Message>,
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level() && is_ours(metadata.target())
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let (level, now) = (record.level(), Instant::now());
        let is_logged = lock(&self.budget).take(level, now) && {
            let line = format_event(record, self.format, wall_clock());
            self.queue.try_send(Message::Line(line)).is_ok()
        };
        if !is_logged && lock(&self.budget).miss(level, now) {
            let _ = self.queue.try_send(Message::Missed); // full: the writer looks behind the next line anyway
        }
    }

    /// Waits until all queued lines are written, at most [`FLUSH`].
    fn flush(&self) {
        let (done, is_done) = sync_channel(1);
        if self.queue.try_send(Message::Flush { _done: done }).is_ok() {
            let _ = is_done.recv_timeout(FLUSH); // an error: nothing is ever sent
        }
    }
}

/// Whether a target, the path of a module, belongs to the library or the binary.
fn is_ours(target: &str) -> bool {
    target.split("::").next() == Some(TARGET)
}

/// Installs the logger and a panic hook.
///
/// A panic is logged instead of printed: its message may hold what a client sent.
pub(crate) fn begin(level: LevelFilter, format: Format) -> io::Result<()> {
    panic::set_hook(Box::new(|panic| {
        let at = panic.location().map(|location| format!("{}:{}", location.file(), location.line()));
        log::error!(target: TARGET, at; "panicked");
    }));
    if level == LevelFilter::Off {
        return Ok(());
    }
    let (queue, messages) = sync_channel(QUEUE);
    let budget = Arc::new(Mutex::new(LogBudget::default()));
    let logger = Logger { format, budget: Arc::clone(&budget), queue };
    thread::Builder::new().name(String::from("log")).spawn(move || write(&messages, &budget, format))?;
    log::set_boxed_logger(Box::new(logger)).map_err(io::Error::other)?;
    log::set_max_level(level);
    Ok(())
}

/// The writer thread: writes lines, and reports dropped events when the report is due.
fn write(messages: &Receiver<Message>, budget: &Mutex<LogBudget>, format: Format) {
    loop {
        let has_missed = lock(budget).has_missed();
        let message = if has_missed { messages.recv_timeout(SECOND).ok() } else { messages.recv().ok() };
        let missed_until = match &message {
            Some(Message::Line(line)) => {
                put(line);
                Instant::now()
            }
            // The process ends: the report cannot wait until it is due.
            Some(Message::Flush { .. }) => Instant::now() + SECOND,
            Some(Message::Missed) | None => Instant::now(),
        };
        let missed = lock(budget).take_missed(missed_until);
        for (level, count) in missed {
            put(&format_missed(level, count, format, wall_clock()));
        }
    }
}

/// Writes a line with one call, so that lines of other processes do not mix with it.
///
/// A failure cannot be reported.
fn put(line: &str) {
    let _ = io::stderr().write_all(line.as_bytes());
}

/// Locks the budget. A panic cannot leave it half-changed.
fn lock(budget: &Mutex<LogBudget>) -> MutexGuard<'_, LogBudget> {
    budget.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The calendar time of a line.
#[expect(clippy::disallowed_methods, reason = "it is written, and decides nothing")]
fn wall_clock() -> SystemTime {
    SystemTime::now()
}

#[cfg(test)]
#[path = "../../tests/support/runner.rs"]
mod runner;

#[cfg(test)]
mod tests {
    use super::*;
    use log::Level;

    fn logger(capacity: usize) -> (Logger, Receiver<Message>) {
        let (queue, messages) = sync_channel(capacity);
        (Logger { format: Format::Text, budget: Arc::default(), queue }, messages)
    }

    fn log(logger: &Logger, target: &str) {
        logger.log(&Record::builder().level(Level::Error).target(target).args(format_args!("event")).build());
    }

    #[test]
    fn events_of_other_crates_are_not_ours() {
        for target in ["arc_relay", "arc_relay::cli::logging"] {
            assert!(is_ours(target), "{target}");
        }
        for target in ["tungstenite::handshake::server", "hyper", "arc_relay_of_others", ""] {
            assert!(!is_ours(target), "{target}");
        }
    }

    #[test]
    fn full_queue_drops_and_counts_events_without_waiting() {
        log::set_max_level(LevelFilter::Debug);
        let (logger, messages) = logger(2);
        for _ in 0..5 {
            log(&logger, TARGET);
        }
        log(&logger, "tungstenite");
        assert_eq!(messages.try_iter().filter(|message| matches!(message, Message::Line(_))).count(), 2);
        let missed: Vec<_> = lock(&logger.budget).take_missed(Instant::now() + SECOND).collect();
        assert_eq!(missed, [(Level::Error, 3)]);
    }

    /// The test below runs it in a process of its own, as a panic hook is for all threads.
    #[test]
    #[ignore = "it panics"]
    fn a_thread_panics() {
        begin(LevelFilter::Error, Format::Text).unwrap();
        assert!(thread::spawn(|| panic!("a secret")).join().is_err());
        log::logger().flush();
    }

    #[test]
    fn panic_is_logged_with_its_place_and_without_its_message() {
        let arguments = ["--exact", "cli::logging::tests::a_thread_panics", "--ignored", "--nocapture"];
        let output = runner::command(std::env::current_exe().unwrap()).args(arguments).output().unwrap();
        let printed = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert!(output.status.success(), "{printed}");
        assert!(printed.contains(" error panicked at=src/cli/logging.rs:"), "{printed}");
        assert!(!printed.contains("secret"), "{printed}");
    }
}
