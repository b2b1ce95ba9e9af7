//! The command line of `arc-relay pipe`, and its connection.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use arc_relay::internals::client::dial::{self, Tls};
use arc_relay::internals::client::target::Target;
use arc_relay::internals::client::websocket::{self, Opening, Socket};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::language::Language;
use super::totals::Totals;
use super::transfer::transfer;
use crate::cli::table::{Argument, Command, flags};
use crate::cli::token::{first_line, secret_in};
use crate::cli::values::{Parsed, boolean, duration, memory, path, url};

/// What the command line asks for.
#[derive(Debug, PartialEq)]
pub(crate) struct Pipe {
    target: Option<Target>,
    pair_file: Option<PathBuf>,
    secret_file: Option<PathBuf>,
    token_file: Option<PathBuf>,
    ca_file: Option<PathBuf>,
    pub(super) send_only: bool,
    pub(super) recv_only: bool,
    max_message: usize,
    timeout: Duration,
    pub(super) json: bool,
}

impl Default for Pipe {
    fn default() -> Self {
        Self {
            target: None,
            pair_file: None,
            secret_file: None,
            token_file: None,
            ca_file: None,
            send_only: false,
            recv_only: false,
            max_message: 16 << 20,
            timeout: Duration::from_secs(10),
            json: false,
        }
    }
}

/// Connects standard input and output to a peer.
pub(crate) static PIPE: Command<Pipe> = Command {
    name: "pipe",
    summary: "send standard input to a peer, and print what it sends",
    about: "Send standard input to the peer with the same pair code, and what the peer sends to standard\n\
        output, as binary messages. When both streams have ended, or the peer leaves, so does this command.\n\
        A terminal as input ends with the peer's stream.\n\n\
        Exit codes: 0 the streams have ended, 1 the connection failed or something is lost, 2 wrong\n\
        arguments.",
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
    FLAGS: Pipe;
    "Options" {
        /// file with the pair code, in place of pair=CODE in the URL, which other users of the machine
        /// see
        pair_file <path> => pair_file = path;
        /// file with a secret of arc-relay secret, or a link with one, from which the pair code follows;
        /// what is sent is encrypted, and the relay cannot read it
        secret_file <path> => secret_file = path;
        /// file with an access token for the relay
        token_file <path> => token_file = path;
        /// close when standard input has ended, and print nothing
        send_only => send_only = boolean;
        /// read no standard input, and close when the peer's stream has ended
        recv_only => recv_only = boolean;
        /// longest message of the peer, which is held in memory; default 16MiB
        /// (those of this command have 64KiB at most)
        max_message <size> => max_message = memory;
        /// how long connecting may take; default 10s
        timeout <duration> => timeout = duration;
        /// file of certificates, in PEM, that may sign the relay's, besides those of Mozilla's list
        ca_file <path> => ca_file = path;
        /// print the result as JSON, to standard error
        json => json = boolean;
    }
}

impl Pipe {
    /// Refuses what the flags cannot say one by one.
    pub(crate) fn checked(self) -> Parsed<Self> {
        let has_code = self.target.as_ref().is_some_and(|target| target.has("pair"));
        match (has_code, &self.pair_file, &self.secret_file) {
            (false, None, None) => {
                Err(String::from("url: a pair code is missing: add ?pair=CODE, or give --pair-file or --secret-file"))
            }
            (true, Some(_), _) => Err(String::from("--pair-file: the URL has a pair code already")),
            (true, _, Some(_)) => Err(String::from("--secret-file: the URL has a pair code already")),
            (_, Some(_), Some(_)) => Err(String::from("--pair-file and --secret-file exclude each other")),
            _ if self.send_only && self.recv_only => {
                Err(String::from("--send-only and --recv-only exclude each other"))
            }
            _ => Ok(self),
        }
    }
}

/// Connects, and copies until the end.
///
/// # Errors
///
/// The error is one line.
pub(crate) fn run(pipe: &Pipe) -> Result<ExitCode, String> {
    let totals = Totals::new(pipe);
    let result = smol::block_on(async {
        let (socket, language) = connect(pipe).await?;
        transfer(socket, language, pipe, &totals).await
    });
    totals.progress.clear();
    if pipe.json {
        let _ = writeln!(io::stderr(), "{}", totals.json(result.as_ref().err()));
        return Ok(if result.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    if totals.progress.is_shown() {
        let _ = writeln!(io::stderr(), "{}", totals.line());
    }
    result.map(|()| ExitCode::SUCCESS)
}

async fn connect(pipe: &Pipe) -> Result<(Socket, Language), String> {
    let target = pipe.target.as_ref().expect("the command needs a URL");
    let secret = pipe.secret_file.as_deref().map(secret_in).transpose()?;
    let code = match &secret {
        Some(secret) => Some(secret.code()),
        None => pipe.pair_file.as_deref().map(|path| first_line(path, "pair code")).transpose()?,
    };
    let query = code.map(|code| format!("pair={}", utf8_percent_encode(&code, NON_ALPHANUMERIC))).unwrap_or_default();
    let token = pipe.token_file.as_deref().map(|path| first_line(path, "access token")).transpose()?;
    let tls = Tls::new(pipe.ca_file.as_deref())?;
    let language = Language::new(secret, pipe.max_message);
    let opened = dial::within(pipe.timeout, async {
        let stream = dial::open(target, &tls).await?;
        let opening = Opening {
            target,
            query: &query,
            token: token.as_deref(),
            subprotocols: language.subprotocol(),
            max_message: language.longest_frame(pipe.max_message),
        };
        websocket::open(stream, opening).await
    });
    let (socket, chosen) = opened.await.map_err(|failure| format!("{target}: {failure}"))?;
    match chosen.unwrap_or_default() == language.subprotocol() {
        true => Ok((socket, language)),
        false => Err(format!("{target}: the relay does not speak {}, which encryption needs", language.subprotocol())),
    }
}
