//! The command: its flags, and the order of the checks.

use std::cell::Cell;
use std::path::PathBuf;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use arc_relay::internals::client::dial::Tls;
use arc_relay::internals::client::target::Target;
use futures_lite::FutureExt;
use futures_lite::future::zip;
use smol::{LocalExecutor, Timer};

use super::context::{Context, code};
use super::report::{Fault, Report};
use super::{cause, ends, joining, messages, reach, speed};
use crate::cli::table::{Argument, Command, flags};
use crate::cli::token::first_line;
use crate::cli::values::{Parsed, boolean, duration, duration_or_none, path, url};

/// What the command line asks for.
#[derive(Debug, PartialEq)]
pub(crate) struct Check {
    target: Option<Target>,
    relay: Option<Target>,
    token_file: Option<PathBuf>,
    ca_file: Option<PathBuf>,
    quick: bool,
    silence: Option<Duration>,
    timeout: Duration,
    json: bool,
}

impl Default for Check {
    fn default() -> Self {
        Self {
            target: None,
            relay: None,
            token_file: None,
            ca_file: None,
            quick: false,
            silence: Some(Duration::from_secs(70)),
            timeout: Duration::from_secs(180),
            json: false,
        }
    }
}

/// Checks the way to a relay.
pub(crate) static CHECK: Command<Check> = Command {
    name: "check",
    summary: "tell what is right and wrong on the way to a relay, with what mends it",
    about: "Open both ends of pairs through the proxy in front of a relay, as clients do, and tell what is\n\
        right and wrong, with the directive that mends it in nginx, Caddy and HAProxy. It takes about 75\n\
        seconds, most of them in silence, and joins eight times or a little more, with random pair codes.\n\n\
        Exit codes: 0 nothing has failed, 1 something has failed, 2 wrong arguments.",
    argument: Some(Argument {
        usage: "<url>",
        set: |settings, value| {
            settings.target = Some(url(value)?);
            Ok(())
        },
    }),
    flags: FLAGS,
    has_variables: false,
};

flags! {
    FLAGS: Check;
    "Options" {
        /// leave the silence out, which takes most of the time
        quick => quick = boolean;
        /// how long a pair is left silent, 0 to leave it out; default 70s
        silence <duration> => silence = duration_or_none;
        /// the relay's own address, such as http://127.0.0.1:8765, which is asked if the proxy does not
        /// reach it
        relay <url> => relay = |value| url(value).map(Some);
        /// file with an access token for the relay
        token_file <path> => token_file = path;
        /// file of certificates, in PEM, that may sign the server's, besides those of Mozilla's list
        ca_file <path> => ca_file = path;
        /// how long all checks may take; default 3m
        timeout <duration> => timeout = duration;
        /// print the result as JSON, at the end
        json => json = boolean;
    }
}

impl Check {
    /// Refuses what the flags cannot say one by one.
    pub(crate) fn checked(self) -> Parsed<Self> {
        if self.target.as_ref().is_some_and(|target| target.has("pair")) {
            return Err(String::from("url: a URL without a pair code is needed: the codes are random"));
        }
        Ok(self)
    }
}

/// Runs all checks, and prints what they find.
///
/// # Errors
///
/// The error is one line about a file that cannot be read.
pub(crate) fn run(check: &Check) -> Result<ExitCode, String> {
    let target = check.target.as_ref().expect("the command needs a URL");
    let token = check.token_file.as_deref().map(|path| first_line(path, "access token")).transpose()?;
    let tls = Tls::new(check.ca_file.as_deref())?;
    let executor = Rc::new(LocalExecutor::new());
    let context = Context {
        target,
        tls: &tls,
        token: token.as_deref(),
        relay: check.relay.as_ref(),
        silence: check.silence.filter(|_| !check.quick),
        report: Report::new(check.json),
        executor: Rc::clone(&executor),
        connect_time: Cell::new(Duration::ZERO),
    };
    smol::block_on(executor.run(async {
        let all = async {
            run_all(&context).await;
            context.report.fill(None);
        };
        let timeout = async {
            Timer::after(check.timeout).await;
            let overdue = || Fault::new(&cause::NO_ANSWER, "not finished in time (--timeout)");
            context.report.fill(Some(&overdue));
        };
        all.or(timeout).await;
    }));
    Ok(context.report.end(&target.to_string()))
}

/// The checks in their order. A check without which the others make no sense ends them.
async fn run_all(context: &Context<'_>) {
    if !reach::reach(context).await || !reach::certificate(context).await {
        return;
    }
    let code = code();
    let Some((one, other)) = joining::join(context, &code).await else { return };
    let rest = async {
        joining::third(context, &code).await;
        joining::encoded(context).await;
        let mut pair = Some((one, other));
        // A check that has failed may have cost the connection.
        let mut carries = false;
        if let Some((one, other)) = &mut pair {
            carries = messages::text(context, one, other).await && messages::sizes(context, one, other).await;
            if !carries {
                pair = context.pair().await.ok();
            }
        }
        if let Some((one, other)) = &mut pair {
            let is_prompt = speed::latency(context, one, other).await;
            // What stops a long message stops a stream.
            if !is_prompt || carries && !speed::throughput(context, one, other).await {
                pair = context.pair().await.ok();
            }
        }
        if let Some((one, other)) = pair {
            ends::close(context, one, other).await;
        }
    };
    zip(rest, ends::silence(context)).await;
}
