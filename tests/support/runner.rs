//! How tests start programs of this build, also where this machine cannot run them by itself.

use std::ffi::{OsStr, OsString};
use std::process::Command;

/// The variable that names an emulator, and its arguments, with spaces between them.
const RUNNER: &str = "ARC_RELAY_RUNNER";

/// The words of a command that runs a program of this build: behind the emulator, if there is one.
pub(crate) fn words(program: impl AsRef<OsStr>) -> Vec<OsString> {
    let runner = std::env::var(RUNNER).unwrap_or_default();
    runner.split_whitespace().map(OsString::from).chain([program.as_ref().to_owned()]).collect()
}

/// A command that runs a program of this build.
pub(crate) fn command(program: impl AsRef<OsStr>) -> Command {
    let words = words(program);
    let mut command = Command::new(&words[0]);
    // The relay would warn of a variable that it does not know.
    command.args(&words[1..]).env_remove(RUNNER);
    command
}
