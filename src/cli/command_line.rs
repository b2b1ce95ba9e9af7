//! The command line: `arc-relay COMMAND [options]`.
//!
//! Each command has a table of its own. Here is what comes before the name of a command, and the list of all commands.

use std::ffi::OsString;

use lexopt::Arg::{Long, Short, Value};
use lexopt::Parser;

#[cfg(feature = "client")]
use super::check::command::{CHECK, Check};
use super::commands::health::{HEALTH, Health};
#[cfg(feature = "client")]
use super::commands::pipe::{PIPE, Pipe};
use super::environment::Environment;
use super::flags::{START, Settings};
use super::nearest::nearest;
use super::table::{Command, Described, Wish, unknown_flag};

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
}

static COMMANDS: &[&dyn Described] = &[
    &START,
    &HEALTH,
    #[cfg(feature = "client")]
    &CHECK,
    #[cfg(feature = "client")]
    &PIPE,
];

/// Parses the arguments and the environment.
///
/// # Errors
///
/// The error is one line that names the wrong argument or variable.
pub(crate) fn parse(arguments: impl Iterator<Item = OsString>, environment: &Environment) -> Result<Action, String> {
    let arguments: Vec<_> = arguments.collect();
    let mut arguments = Parser::from_args(arguments);
    let name = match arguments.next().map_err(|error| error.to_string())? {
        None => return Err(String::from("a command is missing: arc-relay start (see arc-relay --help)")),
        Some(Short('h') | Long("help")) => return Ok(Action::Print(overview())),
        Some(Short('V') | Long("version")) => return Ok(version()),
        Some(Short(letter)) => return Err(unknown(&format!("-{letter}"))),
        Some(Long(flag)) => return Err(unknown(&format!("--{flag}"))),
        Some(Value(name)) => name,
    };
    match name.to_str() {
        Some("start") => run(&START, arguments, environment, |settings| Ok(Action::Start(Box::new(settings)))),
        Some("health") => run(&HEALTH, arguments, environment, |settings| Ok(Action::Health(settings))),
        #[cfg(feature = "client")]
        Some("check") => run(&CHECK, arguments, environment, |settings| Ok(Action::Check(settings.checked()?))),
        #[cfg(feature = "client")]
        Some("pipe") => run(&PIPE, arguments, environment, |settings| Ok(Action::Pipe(settings.checked()?))),
        #[cfg(not(feature = "client"))]
        Some("check" | "pipe") => {
            Err(String::from("this build is without the feature client, which check and pipe need"))
        }
        Some("help") => Ok(Action::Print(help(arguments))),
        _ => Err(unknown_command(&name)),
    }
}

/// Parses the arguments of a command.
fn run<S: Default>(
    command: &Command<S>,
    arguments: Parser,
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
fn help(mut arguments: Parser) -> String {
    let Ok(Some(Value(name))) = arguments.next() else { return overview() };
    COMMANDS.iter().find(|command| name == command.name()).map_or_else(overview, |command| command.help())
}

/// The text of `arc-relay --help`.
fn overview() -> String {
    let mut text = String::from(
        "Usage: arc-relay COMMAND [options]\n\n\
        Joins two WebSocket clients that know the same pair code and forwards binary messages, unread.\n\n\
        Commands:\n",
    );
    for command in COMMANDS {
        text += &format!("  {:6}  {}\n", command.name(), command.summary());
    }
    text + "\nOptions:\n  -h, --help     print this help, or that of a command, and exit\n  \
        -V, --version  print the version and exit"
}

/// Names a flag without a command, and the nearest flag of a command.
fn unknown(flag: &str) -> String {
    let name = flag.trim_start_matches('-');
    let suggestion = COMMANDS.iter().find_map(|command| {
        let flags = command.flags();
        let flag = nearest(name, flags.iter().map(String::as_str))?;
        Some(format!("arc-relay {} --{flag}", command.name()))
    });
    format!("{} (see arc-relay --help)", unknown_flag(flag, suggestion))
}

/// Names an unknown command, and the nearest known one.
fn unknown_command(name: &OsString) -> String {
    let names = || COMMANDS.iter().map(|command| command.name());
    let instead = match nearest(&name.to_string_lossy(), names()) {
        Some(nearest) => format!("did you mean arc-relay {nearest}?"),
        None => format!("one of {} is needed", names().collect::<Vec<_>>().join(", ")),
    };
    format!("unknown command {name:?}: {instead} (see arc-relay --help)")
}
