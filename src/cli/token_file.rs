//! The file of access tokens: read at the start, and again when somebody asks for that.

use std::fs::{self, File};
use std::io;
use std::mem;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use arc_relay::{AccessTokens, RelayHandle};
use futures_lite::future::pending;
use rustix::fs::OFlags;
use smol::{Task, unblock};

/// Reads the tokens at the start, from a pipe too, such as a shell's process substitution: the file may take long.
///
/// # Errors
///
/// The error names the file, and nothing that is in it.
pub(crate) fn read(path: &Path) -> Result<AccessTokens, String> {
    parse(path, fs::read_to_string(path))
}

/// Reads the tokens again, from nothing but a regular file: a pipe that no program writes to would hold up this reload
/// and every later one.
fn read_again(path: &Path) -> Result<AccessTokens, String> {
    parse(path, open_regular(path).and_then(io::read_to_string))
}

/// Opens a regular file. Without `O_NONBLOCK`, opening a pipe waits for a writer.
fn open_regular(path: &Path) -> io::Result<File> {
    let without_waiting = OFlags::NONBLOCK.bits().cast_signed();
    let file = File::options().read(true).custom_flags(without_waiting).open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("not a regular file")) }
}

fn parse(path: &Path, text: io::Result<String>) -> Result<AccessTokens, String> {
    let text = text.map_err(|error| format!("cannot read access tokens from {path:?}: {error}"))?;
    text.parse().map_err(|error| format!("cannot read access tokens from {path:?}: {error}"))
}

/// The access tokens, which are read again when somebody asks for that. If they cannot be had, the relay keeps those it has:
/// neither everybody nor nobody may get in because a file is being edited.
pub(crate) struct TokenFile<'a> {
    relay: &'a RelayHandle,
    /// Without a file there is nothing to read again, and that is no reason to end.
    path: Option<PathBuf>,
    /// On a thread of its own: a file on a disk that does not answer must not keep signals from being heard.
    reading: Option<Task<Result<AccessTokens, String>>>,
    /// Whether somebody has asked again meanwhile.
    again: bool,
}

impl<'a> TokenFile<'a> {
    pub(crate) fn new(relay: &'a RelayHandle, path: Option<PathBuf>) -> Self {
        Self { relay, path, reading: None, again: false }
    }

    /// Begins to read it again, or sees to it that it is read once more.
    pub(crate) fn begin(&mut self) {
        let Some(path) = self.path.clone() else { return };
        match self.reading {
            Some(_) => self.again = true,
            None => self.reading = Some(unblock(move || read_again(&path))),
        }
    }

    /// Waits for the end of what was begun.
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
