//! The files of access tokens and of ticket keys: read at the start, and again on SIGHUP.

use std::fmt::Display;
use std::fs::{self, File};
use std::io;
use std::mem;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use arc_relay::{AccessTokens, RelayHandle, TicketKeys};
use futures_lite::future::pending;
use smol::{Task, unblock};

/// What such a file holds.
pub(crate) trait Secrets: FromStr<Err: Display> + Send + 'static {
    /// Its name in errors.
    const NAME: &str;

    /// Gives a running relay the content of a reload, and logs that.
    fn exchange(self, relay: &RelayHandle);

    /// Logs that a reload failed.
    fn log_kept(error: String);
}

impl Secrets for AccessTokens {
    const NAME: &str = "access tokens";

    fn exchange(self, relay: &RelayHandle) {
        log::info!(count = self.count(); "tokens_read");
        relay.set_access_tokens(self);
    }

    fn log_kept(error: String) {
        log::error!(error; "tokens_kept");
    }
}

impl Secrets for TicketKeys {
    const NAME: &str = "ticket keys";

    fn exchange(self, relay: &RelayHandle) {
        log::info!(count = self.count(); "ticket_keys_read");
        relay.set_ticket_keys(self);
    }

    fn log_kept(error: String) {
        log::error!(error; "ticket_keys_kept");
    }
}

/// Reads the secrets at the start.
///
/// The file may be a pipe, such as a shell's process substitution, and may take long.
///
/// # Errors
///
/// The error names the file, and nothing of its content.
pub(crate) fn read<S: Secrets>(path: &Path) -> Result<S, String> {
    parse(path, fs::read_to_string(path))
}

/// Reads the secrets again, only from a regular file.
///
/// A pipe without a writer would block this reload and all later ones.
fn read_again<S: Secrets>(path: &Path) -> Result<S, String> {
    parse(path, open_regular(path).and_then(io::read_to_string))
}

/// Opens a regular file.
fn open_regular(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    options.read(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;

        // Otherwise, opening a pipe waits for a writer.
        options.custom_flags(rustix::fs::OFlags::NONBLOCK.bits().cast_signed());
    }
    let file = options.open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("not a regular file")) }
}

fn parse<S: Secrets>(path: &Path, text: io::Result<String>) -> Result<S, String> {
    let failed = |error: &dyn Display| format!("cannot read {} from {path:?}: {error}", S::NAME);
    text.map_err(|error| failed(&error))?.parse().map_err(|error| failed(&error))
}

/// Reloads a file of secrets of a running relay.
///
/// After a failed reload the relay keeps what it has: an edit in progress must neither open nor close the relay.
pub(crate) struct SecretFile<'a, S> {
    relay: &'a RelayHandle,
    /// Without a file, a reload does nothing.
    path: Option<PathBuf>,
    /// The reload in progress.
    ///
    /// It runs on another thread: a disk that does not answer must not delay signals.
    reading: Option<Task<Result<S, String>>>,
    /// Whether another reload was requested meanwhile.
    again: bool,
}

impl<'a, S: Secrets> SecretFile<'a, S> {
    pub(crate) fn new(relay: &'a RelayHandle, path: Option<PathBuf>) -> Self {
        Self { relay, path, reading: None, again: false }
    }

    /// Starts a reload, or requests another one after the reload in progress.
    pub(crate) fn begin(&mut self) {
        let Some(path) = self.path.clone() else { return };
        match self.reading {
            Some(_) => self.again = true,
            None => self.reading = Some(unblock(move || read_again(&path))),
        }
    }

    /// Waits for the end of a reload. Without one it never returns. It can be dropped and called again.
    pub(crate) async fn finish(&mut self) {
        let Some(reading) = &mut self.reading else { return pending().await };
        match reading.await {
            Ok(secrets) => secrets.exchange(self.relay),
            Err(error) => S::log_kept(error),
        }
        self.reading = None;
        if mem::take(&mut self.again) {
            self.begin();
        }
    }
}
