//! The file of access tokens: read at the start, and again on SIGHUP.

use std::fs::{self, File};
use std::io;
use std::mem;
use std::path::{Path, PathBuf};

use arc_relay::{AccessTokens, RelayHandle};
use futures_lite::future::pending;
use smol::{Task, unblock};

/// Reads the tokens at the start.
///
/// The file may be a pipe, such as a shell's process substitution, and may take long.
///
/// # Errors
///
/// The error names the file, and nothing of its content.
pub(crate) fn read(path: &Path) -> Result<AccessTokens, String> {
    parse(path, fs::read_to_string(path))
}

/// Reads the tokens again, only from a regular file.
///
/// A pipe without a writer would block this reload and all later ones.
fn read_again(path: &Path) -> Result<AccessTokens, String> {
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

fn parse(path: &Path, text: io::Result<String>) -> Result<AccessTokens, String> {
    let text = text.map_err(|error| format!("cannot read access tokens from {path:?}: {error}"))?;
    text.parse().map_err(|error| format!("cannot read access tokens from {path:?}: {error}"))
}

/// Reloads the access tokens of a running relay.
///
/// After a failed reload the relay keeps its tokens: an edit in progress must neither open nor close the relay.
pub(crate) struct TokenFile<'a> {
    relay: &'a RelayHandle,
    /// Without a file, a reload does nothing.
    path: Option<PathBuf>,
    /// The reload in progress.
    ///
    /// It runs on another thread: a disk that does not answer must not delay signals.
    reading: Option<Task<Result<AccessTokens, String>>>,
    /// Whether another reload was requested meanwhile.
    again: bool,
}

impl<'a> TokenFile<'a> {
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
            Ok(tokens) => {
                log::info!(count = tokens.count(); "tokens_read");
                self.relay.set_access_tokens(tokens);
            }
            Err(error) => log::error!(error; "tokens_kept"),
        }
        self.reading = None;
        if mem::take(&mut self.again) {
            self.begin();
        }
    }
}
