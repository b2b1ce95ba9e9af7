//! The command line: `arc-relay [start [options]]`.
//!
//! argh parses it, with two additions: `--flag=value` is split before, and errors become one line with a suggestion.

use std::ffi::OsString;

use argh::{EarlyExit, FromArgs};

use super::environment::Environment;
use super::flags::{self, Settings, Start};
use super::nearest::nearest;

/// Joins two WebSocket clients that know the same pair code and forwards binary messages, unread.
#[derive(FromArgs)]
#[argh(usage = "start [options]", help_triggers("-h", "--help", "help"))]
struct Arguments {
    /// print the version and exit
    #[argh(switch, short = 'V')]
    version: bool,
    #[argh(subcommand)]
    command: Option<Command>,
}

#[derive(FromArgs)]
#[argh(subcommand)]
enum Command {
    Start(Start),
}

/// What a command line asks for.
#[derive(Debug, PartialEq)]
pub(crate) enum Action {
    /// Print a text and exit.
    Print(String),
    Start(Box<Settings>),
}

/// Parses the arguments and the environment.
///
/// # Errors
///
/// The error is one line that names the wrong argument or variable.
pub(crate) fn parse(arguments: impl Iterator<Item = OsString>, environment: &Environment) -> Result<Action, String> {
    let arguments: Result<Vec<String>, _> = arguments.map(OsString::into_string).collect();
    let arguments = arguments.map_err(|argument| format!("argument {argument:?} is not UTF-8"))?;
    let arguments: Vec<_> = arguments.iter().flat_map(|argument| take_apart(argument)).collect();
    let starts = arguments.contains(&"start");
    let (version, start) = match Arguments::from_args(&["arc-relay"], &arguments) {
        Ok(Arguments { version, command: None }) => (version, None),
        Ok(Arguments { version, command: Some(Command::Start(start)) }) => (version || start.version, Some(start)),
        Err(EarlyExit { status: Ok(()), .. }) if starts => return Ok(Action::Print(flags::help())),
        Err(EarlyExit { output, status: Ok(()) }) => return Ok(Action::Print(output.trim_end().to_owned())),
        Err(EarlyExit { output, status: Err(()) }) => return Err(one_line(output.trim(), starts)),
    };
    match start {
        _ if version => Ok(Action::Print(String::from(concat!("arc-relay ", env!("CARGO_PKG_VERSION"))))),
        None => Err(String::from("a command is missing: arc-relay start (see arc-relay --help)")),
        Some(start) => Ok(Action::Start(Box::new(start.into_settings(environment)?))),
    }
}

/// Splits `--flag=value`, and gives a switch without a value the value `true`.
fn take_apart(argument: &str) -> Vec<&str> {
    match argument.split_once('=') {
        Some((flag, value)) if flag.starts_with("--") => vec![flag, value],
        _ if flags::is_switch(argument) => vec![argument, "true"],
        _ => vec![argument],
    }
}

/// Turns an error of argh into one line that says what to write instead.
fn one_line(error: &str, starts: bool) -> String {
    let help = if starts { "arc-relay start --help" } else { "arc-relay --help" };
    let flag = error.split('\'').nth(1).unwrap_or_default();
    let line = match error.strip_prefix("Unrecognized argument: ") {
        Some(argument) => unknown(argument, starts),
        None if error.starts_with("No value provided for") => format!("{flag}: a value is missing"),
        None if error.contains("duplicate values") => format!("{flag}: given more than once"),
        None => error.lines().collect::<Vec<_>>().join(" "),
    };
    format!("{line} (see {help})")
}

/// Names an unknown argument, and the nearest known one.
fn unknown(argument: &str, starts: bool) -> String {
    let flags = flags::names();
    let flags = || flags.iter().map(String::as_str);
    let name = argument.trim_start_matches('-');
    let (kind, suggestion) = match (starts, name.len() < argument.len()) {
        (true, true) => ("flag", nearest(name, flags().chain(["help", "version"])).map(|name| format!("--{name}"))),
        (true, false) => ("argument", None),
        (false, true) => ("flag", nearest(name, flags()).map(|name| format!("arc-relay start --{name}"))),
        (false, false) => ("command", Some(String::from("arc-relay start"))),
    };
    let suggestion = suggestion.map(|suggestion| format!(": did you mean {suggestion}?")).unwrap_or_default();
    format!("unknown {kind} {argument:?}{suggestion}")
}
