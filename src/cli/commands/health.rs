//! `arc-relay health`: whether a relay is ready, for a container's health check and for scripts.
//!
//! A relay's container has nothing but this binary. So it finds the relay beside it by the relay's own variables.

use std::io::{self, Write};
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use arc_relay::internals::client::dial::{self, Tls};
use arc_relay::internals::client::failure::{Answer, Failure};
use arc_relay::internals::client::http;
use arc_relay::internals::client::target::Target;
use serde_json::json;

use crate::cli::environment::Environment;
use crate::cli::table::{Argument, Command, flags};
use crate::cli::values::{boolean, duration, path, url};

/// What the command line asks for.
#[derive(Debug, PartialEq)]
pub(crate) struct Health {
    /// None: the relay that runs beside this process.
    target: Option<Target>,
    timeout: Duration,
    ca_file: Option<PathBuf>,
    json: bool,
}

impl Default for Health {
    fn default() -> Self {
        Self { target: None, timeout: Duration::from_secs(3), ca_file: None, json: false }
    }
}

/// Asks a relay.
pub(crate) static HEALTH: Command<Health> = Command {
    name: "health",
    summary: "tell whether a relay is ready",
    about: "Tell whether a relay is ready. Without a URL, ask the relay on this machine, or in this container,\n\
        at /readyz: on ARC_RELAY_PORT, or port 8765, and on ARC_RELAY_HOST, or 127.0.0.1. A URL without a\n\
        path means /readyz, too.\n\n\
        Exit codes: 0 ready, 1 not ready or no answer, 2 wrong arguments.",
    argument: Some(Argument {
        usage: "[url]",
        set: |settings, value| {
            settings.target = Some(url(value)?);
            Ok(())
        },
    }),
    flags: FLAGS,
    has_variables: false,
};

flags! {
    FLAGS: Health;
    "Options" {
        /// how long the answer may take; default 3s
        timeout <duration> => timeout = duration;
        /// file of certificates, in PEM, that may sign the relay's, besides those of Mozilla's list
        ca_file <path> => ca_file = path;
        /// print the result as JSON
        json => json = boolean;
    }
}

/// Asks, and tells the answer.
///
/// # Errors
///
/// The error is one line about a relay that is not ready.
pub(crate) fn run(health: &Health, environment: &Environment) -> Result<ExitCode, String> {
    let (target, preamble) = match &health.target {
        Some(target) => (target.clone(), ""),
        None => beside(environment)?,
    };
    let target = if target.path == "/" { Target { path: String::from("/readyz"), ..target } } else { target };
    let begin = Instant::now();
    let ca_file = health.ca_file.as_deref();
    let asked = smol::block_on(dial::within(health.timeout, async {
        let mut stream = dial::open(&target, &Tls::new(ca_file).map_err(Failure::Malformed)?).await?;
        http::get(&mut *stream, &target, preamble).await
    }));
    let is_ready = asked.as_ref().is_ok_and(|answer| answer.status.is_success());
    let url = target.http();
    if health.json {
        let (answer, error) = match &asked {
            Ok(answer) => (Some(answer), None),
            Err(failure) => (None, Some(failure.to_string())),
        };
        let result = json!({
            "ok": is_ready,
            "url": url,
            "status": answer.map(|answer| answer.status.as_u16()),
            "answer": answer.map(|answer| &answer.line),
            "error": error,
            "seconds": begin.elapsed().as_secs_f64(),
        });
        say(&result.to_string());
        return Ok(if is_ready { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    match asked {
        Ok(answer @ Answer { .. }) if is_ready => say(&format!("{url}: {answer}")),
        Ok(answer) => return Err(format!("{url}: {answer}")),
        Err(failure) => return Err(format!("{url}: {failure}")),
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints a line. A missing reader is no failure.
fn say(line: &str) {
    let _ = writeln!(io::stdout(), "{line}");
}

/// The relay beside this process, and what comes before a request to it.
///
/// The variables are those that the relay reads, so that a container's health check needs no arguments.
fn beside(environment: &Environment) -> Result<(Target, &'static str), String> {
    let find = |variables: [&str; 2]| {
        let (variable, value) = environment.find(&variables.map(String::from))?;
        Some((variable, value.to_string_lossy().into_owned()))
    };
    let port = match find(["ARC_RELAY_PORT", "RELAY_PORT"]) {
        Some((variable, value)) => value.parse().ok().filter(|port| *port > 0).ok_or(format!(
            "{variable}={value:?} is not the port of a relay: give its URL, such as http://127.0.0.1:8765"
        ))?,
        None => 8765,
    };
    let host = find(["ARC_RELAY_HOST", "RELAY_HOST"]).map(|(_, host)| host.trim_matches(['[', ']']).to_owned());
    // A relay on all addresses is on this one, too.
    let is_anywhere = |host: &String| host.parse().is_ok_and(|address: IpAddr| address.is_unspecified());
    let host = host.filter(|host| !is_anywhere(host)).unwrap_or_else(|| String::from("127.0.0.1"));
    let wants_header =
        find(["ARC_RELAY_PROXY_PROTOCOL"; 2]).is_some_and(|(_, value)| boolean(value.as_ref()) == Ok(true));
    // The connection is the proxy's own, which this process stands for.
    let preamble = if wants_header { "PROXY UNKNOWN\r\n" } else { "" };
    Ok((Target { is_secure: false, host, port, path: String::from("/"), query: String::new() }, preamble))
}
