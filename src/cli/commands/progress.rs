//! A line on a terminal that tells how far a command is.

use std::cell::Cell;
use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

/// How often the line is drawn at most.
const INTERVAL: Duration = Duration::from_millis(200);

/// The line, on standard error. Without a terminal there is none.
#[derive(Debug)]
pub(crate) struct Progress {
    is_shown: bool,
    drawn: Cell<Option<Instant>>,
}

impl Progress {
    /// A line, if it is wanted and standard error is a terminal.
    pub(crate) fn new(is_wanted: bool) -> Self {
        Self { is_shown: is_wanted && io::stderr().is_terminal(), drawn: Cell::new(None) }
    }

    /// Draws the line, unless it was drawn just before.
    pub(crate) fn draw(&self, line: impl FnOnce() -> String) {
        let is_due = self.drawn.get().is_none_or(|drawn| drawn.elapsed() >= INTERVAL);
        if self.is_shown && is_due {
            self.drawn.set(Some(Instant::now()));
            let _ = write!(io::stderr(), "\r\x1b[K{}", line());
        }
    }

    /// Clears the line, so that another one can take its place.
    pub(crate) fn clear(&self) {
        if self.is_shown && self.drawn.take().is_some() {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }

    pub(crate) fn is_shown(&self) -> bool {
        self.is_shown
    }
}
