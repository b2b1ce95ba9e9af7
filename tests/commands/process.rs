//! The binary as a process that ends by itself.

use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::support;

/// The binary with these arguments, in an environment without variables.
pub(crate) fn arc_relay(arguments: &[&str]) -> Command {
    let mut command = support::arc_relay();
    command.env_clear().args(arguments).stdin(Stdio::null());
    command
}

/// What a process has left.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Runs a command to its end.
pub(crate) fn ended(command: &mut Command) -> Ended {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ended { code: status.code(), stdout: text(stdout), stderr: text(stderr) }
}

impl Ended {
    /// Asserts that it succeeded without a word on standard error, and returns what it printed.
    #[track_caller]
    pub(crate) fn succeeded(self) -> String {
        assert_eq!((self.code, &*self.stderr), (Some(0), ""), "{}", self.stdout);
        self.stdout
    }

    /// Asserts that it failed with one line on standard error and nothing else, and returns the line.
    #[track_caller]
    pub(crate) fn failed(self, code: i32) -> String {
        assert_eq!((self.code, &*self.stdout), (Some(code), ""), "{}", self.stderr);
        assert_eq!(self.stderr.lines().count(), 1, "{}", self.stderr);
        self.stderr.trim_end().strip_prefix("arc-relay: ").expect("the name of the program").to_owned()
    }

    /// Asserts that it ended with this code and a line of JSON, and returns that.
    #[track_caller]
    pub(crate) fn json(self, code: i32) -> Value {
        assert_eq!((self.code, &*self.stderr), (Some(code), ""), "{}", self.stdout);
        assert_eq!(self.stdout.lines().count(), 1, "{}", self.stdout);
        serde_json::from_str(&self.stdout).unwrap()
    }
}
