//! What was sent and received so far, for a person and for a program.

use std::cell::Cell;
use std::io::{self, IsTerminal};
use std::time::Instant;

use bytesize::ByteSize;
use serde_json::json;

use super::command::Pipe;
use crate::cli::commands::progress::Progress;

/// The sums, with the line that shows them.
#[derive(Debug)]
pub(super) struct Totals {
    begin: Instant,
    sent: Cell<[u64; 2]>,
    received: Cell<[u64; 2]>,
    pub(super) progress: Progress,
}

impl Totals {
    pub(super) fn new(pipe: &Pipe) -> Self {
        // On a terminal the line would be in the way of what is typed or printed there.
        let is_typed = !pipe.recv_only && io::stdin().is_terminal();
        let is_printed = !pipe.send_only && io::stdout().is_terminal();
        let progress = Progress::new(!is_typed && !is_printed && !pipe.json);
        Self { begin: Instant::now(), sent: Cell::default(), received: Cell::default(), progress }
    }

    pub(super) fn sent(&self, length: usize) {
        self.count(&self.sent, length);
    }

    pub(super) fn received(&self, length: usize) {
        self.count(&self.received, length);
    }

    fn count(&self, total: &Cell<[u64; 2]>, length: usize) {
        let [bytes, messages] = total.get();
        total.set([bytes + length as u64, messages + 1]);
        self.progress.draw(|| self.line());
    }

    pub(super) fn line(&self) -> String {
        let ([sent, _], [received, _]) = (self.sent.get(), self.received.get());
        let seconds = self.begin.elapsed().as_secs_f64();
        format!("sent {}, received {} in {seconds:.1} s", ByteSize(sent), ByteSize(received))
    }

    pub(super) fn json(&self, error: Option<&String>) -> serde_json::Value {
        let total = |[bytes, messages]: [u64; 2]| json!({ "bytes": bytes, "messages": messages });
        json!({
            "ok": error.is_none(),
            "sent": total(self.sent.get()),
            "received": total(self.received.get()),
            "seconds": self.begin.elapsed().as_secs_f64(),
            "error": error,
        })
    }
}
