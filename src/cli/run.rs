//! Runs a relay until a signal stops it.

use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr};
use std::process::ExitCode;

use arc_relay::{AccessTokens, Relay, RelayHandle, TicketKeys};
use async_signal::{Signal, Signals};
use futures_lite::future::pending;
use futures_lite::{FutureExt, StreamExt};

use super::environment::Environment;
use super::flags::{self, Settings};
use super::logging;
use super::secret_file::{self, SecretFile};
use super::service_manager;

/// The signals that the relay acts on.
#[cfg(unix)]
const SIGNALS: &[Signal] = &[Signal::Term, Signal::Int, Signal::Hup, Signal::Usr1];

/// Windows has only Ctrl-C.
#[cfg(not(unix))]
const SIGNALS: &[Signal] = &[Signal::Int];

/// Runs the relay until SIGTERM or SIGINT.
///
/// A second signal ends the process without waiting for the connections.
///
/// # Errors
///
/// The error says in one line what failed.
pub(crate) fn run(settings: Settings, environment: &Environment) -> Result<ExitCode, String> {
    let Settings { mut config, access_token_file, ticket_key_file, log_level, log_format } = settings;
    let sockets = service_manager::inherited_sockets()?;
    // Signals still end the process here: reading may take long.
    if let Some(path) = &access_token_file {
        config.access_tokens = Some(secret_file::read(path)?);
    }
    if let Some(path) = &ticket_key_file {
        config.ticket_keys = Some(secret_file::read(path)?);
    }
    // No signal may be lost once the relay runs.
    let signals = Signals::new(SIGNALS);
    let mut signals = signals.map_err(|error| format!("cannot receive signals: {error}"))?;
    logging::begin(log_level, log_format).map_err(|error| format!("cannot start the log: {error}"))?;
    environment.warn(&flags::variables());
    raise_file_limit();
    let has_demo = config.demo;
    let relay = if sockets.is_empty() { Relay::start(config) } else { Relay::start_inherited(config, sockets) };
    let relay = relay.map_err(|error| error.to_string())?;
    let address = relay.local_addr();
    let _ = writeln!(io::stdout(), "arc-relay listening on ws://{address} (health at /health)"); // may have no reader
    if let Some(address) = relay.ops_addr() {
        let _ = writeln!(io::stdout(), "arc-relay operations on http://{address}/ (metrics at /metrics)");
    }
    if has_demo {
        // The unspecified address is one to listen on. Not every system connects to it.
        let host = if address.ip().is_unspecified() { "localhost".into() } else { host_of(address) };
        let _ = writeln!(io::stdout(), "arc-relay demo on http://{host}:{}/", address.port());
    }
    service_manager::tell_ready();
    smol::block_on(async {
        let requested = async {
            let tokens = SecretFile::new(&relay, access_token_file);
            let keys = SecretFile::new(&relay, ticket_key_file);
            stop_requested(&mut signals, Some(Running { relay: &relay, tokens, keys })).await;
            Ok(())
        };
        let failed = async { Err(relay.failed().await.to_string()) };
        requested.or(failed).await?;
        service_manager::tell_stopping();
        let stopped = async {
            relay.stop().await;
            ExitCode::SUCCESS
        };
        // A shell reports 128 + N for a process that signal N ended.
        let second_signal = async { ExitCode::from(128 + stop_requested(&mut signals, None).await) };
        Ok(stopped.or(second_signal).await)
    })
}

/// The address as the host of a URL.
fn host_of(address: SocketAddr) -> String {
    match address.ip() {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    }
}

/// Raises the limit of open files to the hard limit: it bounds the number of connections.
#[cfg(unix)]
fn raise_file_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};

    /// macOS accepts no more, whatever its hard limit says (`OPEN_MAX`).
    const MOST_ON_MACOS: u64 = 10_240;

    let mut limit = getrlimit(Resource::Nofile);
    let before = std::mem::replace(&mut limit.current, limit.maximum);
    if cfg!(target_os = "macos") {
        let most = limit.maximum.unwrap_or(MOST_ON_MACOS).min(MOST_ON_MACOS);
        limit.current = before.map(|before| before.max(most));
    }
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        log::warn!(error:%; "file_limit_kept");
    }
}

/// Windows has no such limit.
#[cfg(not(unix))]
fn raise_file_limit() {}

/// What signals act on, unless the relay stops already.
struct Running<'a> {
    relay: &'a RelayHandle,
    tokens: SecretFile<'a, AccessTokens>,
    keys: SecretFile<'a, TicketKeys>,
}

impl Running<'_> {
    /// Reads both files again. Each is exchanged for itself.
    fn reload(&mut self) {
        self.tokens.begin();
        self.keys.begin();
    }
}

/// Waits for SIGTERM or SIGINT, and returns its number.
///
/// SIGHUP reloads the access tokens and the ticket keys, and SIGUSR1 tells the sides that wait to come again.
async fn stop_requested(signals: &mut Signals, mut running: Option<Running<'_>>) -> u8 {
    loop {
        let reload = async {
            match &mut running {
                Some(running) => running.tokens.finish().or(running.keys.finish()).await,
                None => pending().await,
            }
            None
        };
        let signal = async { Some(signals.next().await) };
        match signal.or(reload).await {
            None => {}
            Some(Some(Ok(Signal::Hup))) => running.iter_mut().for_each(Running::reload),
            Some(Some(Ok(Signal::Usr1))) => running.iter().for_each(|running| running.relay.recall_waiting()),
            Some(other) => return other.and_then(Result::ok).map_or(1, |signal| signal as u8),
        }
    }
}
