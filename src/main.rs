//! The command line: `arc-relay start`. Everything else is the library's.

mod cli;

use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;

use arc_relay::Relay;
use argh::{EarlyExit, FromArgs};
use async_signal::{Signal, Signals};
use futures_lite::future::pending;
use futures_lite::{FutureExt, StreamExt};
use rustix::process::{Resource, getrlimit, setrlimit};

use cli::flags::{Settings, Start};
use cli::token_file::TokenFile;
use cli::{logging, token_file};

/// Joins two WebSocket endpoints that know the same pair code, and forwards binary messages between them, unread.
#[derive(FromArgs)]
struct Arguments {
    /// print the version and exit
    #[argh(switch)]
    version: bool,
    #[argh(subcommand)]
    command: Option<Command>,
}

#[derive(FromArgs)]
#[argh(subcommand)]
enum Command {
    Start(Start),
}

/// The exit code for an error of whoever typed the command. Everything else that goes wrong is 1.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let arguments = match arguments(std::env::args_os().skip(1)) {
        Ok(arguments) => arguments,
        Err(exit) => return exit,
    };
    match arguments.command {
        _ if arguments.version => {
            say(concat!("arc-relay ", env!("CARGO_PKG_VERSION")));
            ExitCode::SUCCESS
        }
        None => fail(USAGE, "a command is missing: arc-relay start (see arc-relay --help)"),
        Some(Command::Start(start)) => match start.into_settings(|variable| std::env::var_os(variable)) {
            Err(error) => fail(USAGE, &error),
            Ok(settings) => run(settings),
        },
    }
}

/// Parses the command line, or prints the help or the error.
fn arguments(given: impl Iterator<Item = OsString>) -> Result<Arguments, ExitCode> {
    let given: Vec<_> = given.map(|argument| argument.to_string_lossy().into_owned()).collect();
    let given: Vec<_> = given.iter().map(String::as_str).collect();
    Arguments::from_args(&["arc-relay"], &given).map_err(|EarlyExit { output, status }| match status {
        Ok(()) => {
            say(output.trim_end());
            ExitCode::SUCCESS
        }
        Err(()) => {
            let line = output.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ");
            fail(USAGE, &format!("{line} (see arc-relay --help)"))
        }
    })
}

/// Raises the limit of open files as far as is allowed: it bounds the number of connections. If that fails, what there is
/// has to do.
fn raise_file_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    let _ = setrlimit(Resource::Nofile, limit);
}

/// Runs a relay until a signal ends it.
fn run(settings: Settings) -> ExitCode {
    let Settings { mut config, access_token_file, log_level, log_format } = settings;
    // Before signals are caught: a file that takes long can be given up.
    if let Some(path) = &access_token_file {
        match token_file::read(path) {
            Ok(tokens) => config.access_tokens = Some(tokens),
            Err(error) => return fail(1, &error),
        }
    }
    // Before there is anything to end, so that no signal is missed.
    let mut signals = match Signals::new([Signal::Term, Signal::Int, Signal::Hup]) {
        Ok(signals) => signals,
        Err(error) => return fail(1, &format!("cannot receive signals: {error}")),
    };
    raise_file_limit();
    if let Err(error) = logging::begin(log_level, log_format) {
        return fail(1, &format!("cannot log: {error}"));
    }
    let place = if config.host.contains(':') && !config.host.starts_with('[') {
        format!("[{}]:{}", config.host, config.port)
    } else {
        format!("{}:{}", config.host, config.port)
    };
    let relay = match Relay::start(config) {
        Ok(relay) => relay,
        Err(error) => return fail(1, &format!("cannot listen on {place}: {error}")),
    };
    say(&format!("arc-relay listening on ws://{} (health at /health)", relay.local_addr()));
    let code = smol::block_on(async {
        end_requested(&mut signals, Some(&mut TokenFile::new(&relay, access_token_file))).await;
        let stopped = async {
            relay.stop().await;
            ExitCode::SUCCESS
        };
        let second_signal = async {
            // As a shell would report it if the first had not been caught.
            ExitCode::from(128 + end_requested(&mut signals, None).await)
        };
        stopped.or(second_signal).await
    });
    log::logger().flush();
    code
}

/// Waits for a signal to end, and returns its number. At each SIGHUP that comes before, the access tokens are read again.
async fn end_requested(signals: &mut Signals, mut tokens: Option<&mut TokenFile<'_>>) -> u8 {
    loop {
        let read = async {
            match &mut tokens {
                Some(tokens) => tokens.finish().await,
                None => pending().await,
            }
            None
        };
        let signal = async { Some(signals.next().await) };
        match signal.or(read).await {
            None => {}
            Some(Some(Ok(Signal::Hup))) => tokens.iter_mut().for_each(|tokens| tokens.begin()),
            Some(other) => return other.and_then(Result::ok).map_or(1, |signal| signal as u8),
        }
    }
}

/// One line on standard output. If nobody reads it, so be it.
fn say(line: &str) {
    let _ = writeln!(io::stdout(), "{line}");
}

/// One line on standard error, and the exit code.
fn fail(code: u8, error: &str) -> ExitCode {
    let _ = writeln!(io::stderr(), "arc-relay: {error}");
    ExitCode::from(code)
}
