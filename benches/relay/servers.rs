//! The measured servers: separate processes on the first core, and the resources that they use.

use std::io::{self, BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::{env, fs};

use crate::peers;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// This relay.
    Arc,
    /// Another build of this relay, to compare two commits.
    Before,
    /// This relay on the runtime of other systems, to compare two builds.
    Portable,
    /// This relay with so many workers, on all cores.
    Workers(usize),
    /// `floor_relay.rs`: sends the segments of a WebSocket relay, and does nothing else.
    Floor,
    /// `raw_relay.rs`: forwards bytes unchanged, without any handshake.
    Raw,
    /// `assembling_relay.rs`: the straightforward relay in Rust.
    Assembling,
    /// `uws_relay.cpp`: the straightforward relay in C++.
    Uws,
    /// `ws_relay.mjs`: the straightforward relay in Node.
    Ws,
}

impl Target {
    pub(crate) const ALL: [Self; 11] = [
        Self::Arc,
        Self::Before,
        Self::Portable,
        Self::Workers(1),
        Self::Workers(2),
        Self::Workers(4),
        Self::Raw,
        Self::Floor,
        Self::Assembling,
        Self::Uws,
        Self::Ws,
    ];

    /// The target's name in tables.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Arc => "arc-relay",
            Self::Before => "before",
            Self::Portable => "portable runtime",
            Self::Workers(1) => "1 worker",
            Self::Workers(2) => "2 workers",
            Self::Workers(_) => "4 workers",
            Self::Floor => "floor",
            Self::Raw => "raw TCP relay",
            Self::Assembling => "assembling",
            Self::Uws => "uWebSockets",
            Self::Ws => "Node ws",
        }
    }

    /// The target's name for `--only`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Arc => "arc",
            Self::Before => "before",
            Self::Portable => "portable",
            Self::Workers(1) => "workers-1",
            Self::Workers(2) => "workers-2",
            Self::Workers(_) => "workers-4",
            Self::Floor => "floor",
            Self::Raw => "raw",
            Self::Assembling => "assembling",
            Self::Uws => "uws",
            Self::Ws => "ws",
        }
    }

    /// Whether this is a relay on another WebSocket library, for comparison.
    pub(crate) fn is_of_another_library(self) -> bool {
        matches!(self, Self::Assembling | Self::Uws | Self::Ws)
    }

    /// Whether it knows frames, and so unmasks messages and takes a check of each.
    pub(crate) fn knows_frames(self) -> bool {
        !matches!(self, Self::Raw | Self::Floor)
    }
}

/// Paths of other builds of this relay.
#[derive(Debug, Default)]
pub(crate) struct Builds {
    pub(crate) before: Option<PathBuf>,
    pub(crate) portable: Option<PathBuf>,
}

impl Builds {
    /// The path of the build that a target runs, if there is one.
    pub(crate) fn path(&self, target: Target) -> Option<&Path> {
        match target {
            Target::Before => self.before.as_deref(),
            Target::Portable => self.portable.as_deref(),
            _ => Some(Path::new(env!("CARGO_BIN_EXE_arc-relay"))),
        }
    }
}

/// The cores of the servers, in the form of `taskset -c`.
#[derive(Debug)]
pub(crate) struct Cores {
    /// The one of most servers. The clients have another one.
    pub(crate) one: String,
    /// Those of a server with several workers, which shares them with the clients.
    pub(crate) all: String,
}

/// Whether this build can have several workers.
pub(crate) fn has_workers() -> bool {
    let help = Command::new(env!("CARGO_BIN_EXE_arc-relay")).args(["start", "--help"]).output();
    help.is_ok_and(|help| String::from_utf8_lossy(&help.stdout).contains("--workers"))
}

/// A running server, which is killed when this value is dropped.
pub(crate) struct Server {
    child: Child,
    pub(crate) target: Target,
    pub(crate) address: SocketAddr,
}

impl Server {
    /// Starts a server, on these cores if the clients have one of their own.
    ///
    /// This relay sends pings as by default, if the clients answer them.
    pub(crate) fn start(target: Target, builds: &Builds, cores: Option<&Cores>, pings: bool) -> io::Result<Self> {
        let this = env::current_exe()?;
        let mut command = Command::new(if cores.is_some() { "taskset" } else { "env" });
        if let Some(Cores { one, all }) = cores {
            command.args(["-c", if matches!(target, Target::Workers(_)) { all } else { one }]);
        }
        match target {
            Target::Arc | Target::Before | Target::Portable | Target::Workers(_) => {
                if !pings {
                    command.env("ARC_RELAY_PING_INTERVAL", "0");
                }
                // Log lines about thousands of connections would hide the figures.
                command.env("ARC_RELAY_LOG_LEVEL", "warn");
                let path = builds.path(target).ok_or_else(|| io::Error::other("the path of a build is missing"))?;
                command.arg(path).args(["start", "--host", "127.0.0.1", "--port", "0"]);
                if has_workers() {
                    let workers = if let Target::Workers(workers) = target { workers } else { 1 };
                    command.arg("--workers").arg(workers.to_string());
                }
                &mut command
            }
            Target::Raw => command.arg(this).arg("--raw-relay"),
            Target::Floor => command.arg(this).arg("--floor-relay"),
            Target::Assembling => command.arg(this).arg("--assembling-relay"),
            Target::Uws => command.arg(peers::uws_relay()),
            Target::Ws => command.arg("node").arg(peers::ws_relay()),
        };
        let mut child = command.stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("it is piped")).read_line(&mut line)?;
        let address = line.split("ws://").nth(1).and_then(|rest| rest.split_whitespace().next());
        let address = address.and_then(|address| address.parse().ok());
        Ok(Self { child, target, address: address.ok_or_else(|| io::Error::other("a server did not start"))? })
    }

    /// The user and system time of all threads so far, in microseconds.
    pub(crate) fn cpu(&self) -> io::Result<f64> {
        let mut nanoseconds = 0.0;
        for task in fs::read_dir(format!("/proc/{}/task", self.child.id()))? {
            // The thread may have ended meanwhile.
            let text = fs::read_to_string(task?.path().join("schedstat")).unwrap_or_default();
            nanoseconds += text.split(' ').next().and_then(|first| first.parse::<f64>().ok()).unwrap_or(0.0);
        }
        Ok(nanoseconds / 1000.0)
    }

    /// Resident memory in KiB.
    pub(crate) fn memory(&self) -> io::Result<f64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
        line.trim().trim_end_matches(" kB").parse().map_err(io::Error::other)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
