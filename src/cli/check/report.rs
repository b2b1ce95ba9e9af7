//! What the checks have found: lines as they come, or one JSON document at the end.

use std::cell::RefCell;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

use super::cause::Cause;
use crate::cli::commands::progress::Progress;

/// The names of all checks, in the order of the document.
const NAMES: [&str; 14] = [
    "name",
    "connection",
    "certificate",
    "upgrade",
    "pair",
    "subprotocol",
    "third",
    "code",
    "text",
    "messages",
    "latency",
    "throughput",
    "close",
    "silence",
];

/// A check that has passed, in one line, with its numbers for programs.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) detail: String,
    pub(super) values: Value,
}

impl Found {
    pub(super) fn new(detail: impl Into<String>) -> Self {
        Self { detail: detail.into(), values: Value::Object(Map::new()) }
    }
}

/// A check that has failed, or passed with a warning.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) cause: &'static Cause,
    pub(super) detail: String,
    pub(super) is_warning: bool,
}

impl Fault {
    pub(super) fn new(cause: &'static Cause, detail: impl Into<String>) -> Self {
        Self { cause, detail: detail.into(), is_warning: false }
    }

    pub(super) fn warning(cause: &'static Cause, detail: impl Into<String>) -> Self {
        Self { is_warning: true, ..Self::new(cause, detail) }
    }
}

/// A line of the report.
#[derive(Debug)]
enum Line {
    Checked(Result<Found, Fault>),
    Skipped(String),
}

impl Line {
    fn status(&self) -> &'static str {
        match self {
            Self::Checked(Ok(_)) => "ok",
            Self::Checked(Err(fault)) if fault.is_warning => "warning",
            Self::Checked(Err(_)) => "failed",
            Self::Skipped(_) => "skipped",
        }
    }

    fn detail(&self) -> &str {
        match self {
            Self::Checked(Ok(found)) => &found.detail,
            Self::Checked(Err(fault)) => &fault.detail,
            Self::Skipped(why) => why,
        }
    }

    fn cause(&self) -> Option<&'static Cause> {
        match self {
            Self::Checked(Err(fault)) => Some(fault.cause),
            _ => None,
        }
    }
}

/// The report of all checks.
#[derive(Debug)]
pub(super) struct Report {
    is_json: bool,
    begin: Instant,
    progress: Progress,
    lines: RefCell<Vec<(&'static str, Line)>>,
}

impl Report {
    pub(super) fn new(is_json: bool) -> Self {
        let (begin, lines) = (Instant::now(), RefCell::default());
        Self { is_json, begin, progress: Progress::new(!is_json), lines }
    }

    /// Shows what is being done, on a terminal.
    pub(super) fn doing(&self, what: impl FnOnce() -> String) {
        self.progress.draw(|| format!("      {}", what()));
    }

    /// Adds a line, and returns whether the check has passed.
    pub(super) fn add(&self, name: &'static str, checked: Result<Found, Fault>) -> bool {
        let has_passed = checked.as_ref().err().is_none_or(|fault| fault.is_warning);
        self.push(name, Line::Checked(checked));
        has_passed
    }

    pub(super) fn skip(&self, name: &'static str, why: &str) {
        self.push(name, Line::Skipped(why.to_owned()));
    }

    /// Adds a line for each check that has none yet: skipped, or failed for this reason.
    pub(super) fn fill(&self, fault: Option<&dyn Fn() -> Fault>) {
        for name in NAMES {
            if self.lines.borrow().iter().any(|(other, _)| *other == name) {
                continue;
            }
            match fault {
                Some(fault) => self.push(name, Line::Checked(Err(fault()))),
                None => self.skip(name, "because of the failure above"),
            }
        }
    }

    fn push(&self, name: &'static str, line: Line) {
        debug_assert!(NAMES.contains(&name));
        if !self.is_json {
            self.progress.clear();
            print(name, &line);
        }
        self.lines.borrow_mut().push((name, line));
    }

    /// Ends the report, and returns the exit code.
    pub(super) fn end(self, url: &str) -> ExitCode {
        let Self { is_json, begin, lines, .. } = self;
        let lines = lines.into_inner();
        let count = |status| lines.iter().filter(|(_, line)| line.status() == status).count();
        let has_passed = count("failed") == 0;
        let took = begin.elapsed();
        let text = if is_json {
            let checks: Vec<_> = lines.iter().map(|(name, line)| as_json(name, line)).collect();
            json!({ "ok": has_passed, "url": url, "seconds": took.as_secs_f64(), "checks": checks }).to_string()
        } else {
            let [ok, warnings, failed, skipped] = ["ok", "warning", "failed", "skipped"].map(count);
            let seconds = took.as_secs_f64();
            format!("{ok} ok, {warnings} warnings, {failed} failed, {skipped} skipped in {seconds:.1} s")
        };
        let _ = writeln!(io::stdout(), "{text}"); // may have no reader
        if has_passed { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

/// Prints a line, and below it what mends a fault.
fn print(name: &str, line: &Line) {
    let label = match line.status() {
        "ok" => "ok",
        "warning" => "warn",
        "failed" => "FAIL",
        _ => "skip",
    };
    // Parts of it may come from a server.
    let detail: String = line.detail().chars().filter(|c| !c.is_control()).collect();
    let mut text = format!("{label:4}  {name:11}  {detail}\n");
    for (program, remedy) in line.cause().iter().flat_map(|cause| cause.remedies) {
        text += &format!("{:19}{program}: {remedy}\n", "");
    }
    let _ = io::stdout().write_all(text.as_bytes()); // may have no reader
}

fn as_json(name: &str, line: &Line) -> Value {
    let remedies = line.cause().map(|cause| cause.remedies.iter().map(|(program, remedy)| (*program, *remedy)));
    let remedies: Option<Map<_, _>> =
        remedies.map(|all| all.map(|(program, remedy)| (program.to_owned(), json!(remedy))).collect());
    let values = match line {
        Line::Checked(Ok(found)) => found.values.clone(),
        _ => json!({}),
    };
    json!({
        "name": name,
        "status": line.status(),
        "detail": line.detail(),
        "cause": line.cause().map(|cause| cause.name),
        "remedies": remedies.unwrap_or_default(),
        "values": values,
    })
}

/// A duration as a line has it.
pub(super) fn shown(duration: Duration) -> String {
    let seconds = duration.as_secs_f64();
    if seconds < 1.0 { format!("{:.1} ms", seconds * 1000.0) } else { format!("{seconds:.1} s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checks_are_those_in_the_document() {
        let document = include_str!("../../../docs/commands.md");
        let rows = document.split("| check | what has to be |\n|---|---|\n").nth(1).expect("the table of checks");
        let rows = rows.lines().take_while(|line| line.starts_with('|'));
        assert_eq!(rows.filter_map(|row| row.split('`').nth(1)).collect::<Vec<_>>(), NAMES);
    }

    #[test]
    fn durations_are_short() {
        let shown = |micros| shown(Duration::from_micros(micros));
        assert_eq!([40, 999_900, 1_000_000, 75_040_000].map(shown), ["0.0 ms", "999.9 ms", "1.0 s", "75.0 s"]);
    }
}
