//! The command line: `arc-relay COMMAND [options]`.
//!
//! Each command has a table of its own. Here is what comes before the name of a command, and the list of all commands.

use std::ffi::OsString;

use argh::FromArgs;

#[cfg(feature = "client")]
use super::check::command::{CHECK, Check};
use super::commands::completions::COMPLETIONS;
use super::commands::health::{HEALTH, Health};
use super::commands::manual::{self, MANUAL};
#[cfg(feature = "client")]
use super::commands::secret::{SECRET, Secret};
use super::environment::Environment;
use super::flags::{START, Settings};
use super::nearest::nearest;
#[cfg(feature = "client")]
use super::pipe::command::{PIPE, Pipe};
use super::table::{Command, Described, Wish, asks_for_help, one_line};

/// What a command line asks for.
#[derive(Debug, PartialEq)]
pub(crate) enum Action {
    /// Print a text and exit.
    Print(String),
    Start(Box<Settings>),
    Health(Health),
    #[cfg(feature = "client")]
    Check(Check),
    #[cfg(feature = "client")]
    Pipe(Pipe),
    #[cfg(feature = "client")]
    Secret(Secret),
}

static COMMANDS: &[&dyn Described] = &[
    &START,
    &HEALTH,
    #[cfg(feature = "client")]
    &CHECK,
    #[cfg(feature = "client")]
    &PIPE,
    #[cfg(feature = "client")]
    &SECRET,
    &COMPLETIONS,
    &MANUAL,
];

/// What the program is, in one sentence.
const DESCRIPTION: &str =
    "Joins two WebSocket clients that know the same pair code and forwards binary messages, unread.";

/// What comes before the arguments of a command. `help` is a command here.
#[derive(FromArgs)]
#[argh(description = "all arguments", help_triggers("-h", "--help"))]
struct Arguments {
    #[argh(switch, short = 'V', hidden_help)]
    version: bool,
    /// the name of a command, and what follows it
    #[argh(positional, greedy, hidden_help)]
    command: Vec<String>,
}

/// Parses the arguments and the environment.
///
/// # Errors
///
/// The error is one line that names the wrong argument or variable.
pub(crate) fn parse(arguments: impl Iterator<Item = OsString>, environment: &Environment) -> Result<Action, String> {
    let arguments = texts(arguments)?;
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let Arguments { version: is_version, command } = match Arguments::from_args(&["arc-relay"], &arguments) {
        Ok(arguments) => arguments,
        Err(exit) if asks_for_help(&exit) => return Ok(Action::Print(overview())),
        Err(exit) => return Err(format!("{} (see arc-relay --help)", one_line(&exit, nearest_flag))),
    };
    if is_version {
        return Ok(version());
    }
    let command: Vec<_> = command.iter().map(String::as_str).collect();
    let arguments = command.get(1..).unwrap_or_default();
    match command.first().copied() {
        None => Err(String::from("a command is missing: arc-relay start (see arc-relay --help)")),
        Some("start") => run(&START, arguments, environment, |settings| Ok(Action::Start(Box::new(settings)))),
        Some("health") => run(&HEALTH, arguments, environment, |settings| Ok(Action::Health(settings))),
        #[cfg(feature = "client")]
        Some("check") => run(&CHECK, arguments, environment, |settings| Ok(Action::Check(settings.checked()?))),
        #[cfg(feature = "client")]
        Some("pipe") => run(&PIPE, arguments, environment, |settings| Ok(Action::Pipe(settings.checked()?))),
        #[cfg(feature = "client")]
        Some("secret") => run(&SECRET, arguments, environment, |settings| Ok(Action::Secret(settings.checked()?))),
        #[cfg(not(feature = "client"))]
        Some("check" | "pipe" | "secret") => {
            Err(String::from("this build is without the feature client, which check, pipe and secret need"))
        }
        Some("completions") => {
            run(&COMPLETIONS, arguments, environment, |settings| Ok(Action::Print(settings.script(COMMANDS))))
        }
        Some("manual") => {
            run(&MANUAL, arguments, environment, |_| Ok(Action::Print(manual::page(DESCRIPTION, COMMANDS))))
        }
        Some("help") => Ok(Action::Print(help(arguments))),
        Some(name) => Err(unknown_command(name)),
    }
}

/// The arguments as text, which argh needs.
///
/// The error names none of them: a URL may hold secrets.
fn texts(arguments: impl Iterator<Item = OsString>) -> Result<Vec<String>, String> {
    let text = |(index, argument): (usize, OsString)| {
        argument.into_string().map_err(|_| format!("argument {} is not UTF-8", index + 1))
    };
    arguments.enumerate().map(text).collect()
}

/// Parses the arguments of a command.
fn run<S: Default>(
    command: &Command<S>,
    arguments: &[&str],
    environment: &Environment,
    action: impl FnOnce(S) -> Result<Action, String>,
) -> Result<Action, String> {
    match command.parse(arguments, environment)? {
        Wish::Help => Ok(Action::Print(command.help())),
        Wish::Version => Ok(version()),
        Wish::Run(settings) => action(settings),
    }
}

fn version() -> Action {
    Action::Print(String::from(concat!("arc-relay ", env!("CARGO_PKG_VERSION"))))
}

/// The text of `arc-relay help COMMAND`, or of `arc-relay help`.
fn help(arguments: &[&str]) -> String {
    COMMANDS
        .iter()
        .find(|command| arguments.first() == Some(&command.name()))
        .map_or_else(overview, |command| command.help())
}

/// The text of `arc-relay --help`.
fn overview() -> String {
    let mut text = format!("Usage: arc-relay COMMAND [options]\n\n{DESCRIPTION}\n\nCommands:\n");
    for command in COMMANDS {
        text += &format!("  {:11}  {}\n", command.name(), command.summary());
    }
    text + "\nOptions:\n  -h, --help     print this help, or that of a command, and exit\n  \
        -V, --version  print the version and exit"
}

/// The flag of a command that is most similar to a flag without a command.
fn nearest_flag(flag: &str) -> Option<String> {
    let name = flag.trim_start_matches('-');
    COMMANDS.iter().find_map(|command| {
        let flags = command.flags();
        let flag = nearest(name, flags.iter().map(String::as_str))?;
        Some(format!("arc-relay {} --{flag}", command.name()))
    })
}

/// Names an unknown command, and the nearest known one.
fn unknown_command(name: &str) -> String {
    let names = || COMMANDS.iter().map(|command| command.name());
    let instead = match nearest(name, names()) {
        Some(nearest) => format!("did you mean arc-relay {nearest}?"),
        None => format!("one of {} is needed", names().collect::<Vec<_>>().join(", ")),
    };
    format!("unknown command {name:?}: {instead} (see arc-relay --help)")
}
