//! The `arc-relay` binary: a thin user of the library.

mod cli;

use std::io::{self, Write};
use std::process::ExitCode;

use cli::command_line::{self, Action};
use cli::commands::health;
use cli::environment::Environment;
use cli::run::run;

/// Exit code for a wrong command line or environment. All other failures exit with 1.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let environment = Environment::of_process();
    match command_line::parse(std::env::args_os().skip(1), &environment) {
        Err(error) => fail(USAGE, &error),
        Ok(Action::Print(text)) => print(&text),
        Ok(Action::Start(settings)) => {
            let result = run(*settings, &environment);
            log::logger().flush();
            result.unwrap_or_else(|error| fail(1, &error))
        }
        Ok(Action::Health(settings)) => health::run(&settings, &environment).unwrap_or_else(|error| fail(1, &error)),
        #[cfg(feature = "client")]
        Ok(Action::Check(settings)) => cli::check::command::run(&settings).unwrap_or_else(|error| fail(1, &error)),
        #[cfg(feature = "client")]
        Ok(Action::Pipe(settings)) => cli::pipe::command::run(&settings).unwrap_or_else(|error| fail(1, &error)),
        #[cfg(feature = "client")]
        Ok(Action::Secret(settings)) => settings.text().map_or_else(|error| fail(1, &error), |text| print(&text)),
    }
}

/// Prints a text on standard output.
fn print(text: &str) -> ExitCode {
    let _ = writeln!(io::stdout(), "{text}"); // a missing reader is no failure
    ExitCode::SUCCESS
}

/// Prints one line on standard error, and returns the exit code.
fn fail(code: u8, error: &str) -> ExitCode {
    let _ = writeln!(io::stderr(), "arc-relay: {error}");
    ExitCode::from(code)
}
