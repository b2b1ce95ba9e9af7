//! The measured servers: separate processes on the first core, and the resources that they use.

use std::io::{self, BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::{env, fs};

use crate::peers;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// This relay.
    Arc,
    /// Another build of this relay, to compare two commits.
    Before,
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
    pub(crate) const ALL: [Self; 6] = [Self::Arc, Self::Before, Self::Raw, Self::Assembling, Self::Uws, Self::Ws];

    /// The target's name in tables.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Arc => "arc-relay",
            Self::Before => "before",
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
            Self::Raw => "raw",
            Self::Assembling => "assembling",
            Self::Uws => "uws",
            Self::Ws => "ws",
        }
    }
}

/// A running server, which is killed when this value is dropped.
pub(crate) struct Server {
    child: Child,
    pub(crate) target: Target,
    pub(crate) address: SocketAddr,
}

impl Server {
    /// Starts a server on this core, if it has a core of its own. `before` is the path of the other build.
    pub(crate) fn start(target: Target, before: Option<&Path>, core: Option<usize>) -> io::Result<Self> {
        let this = env::current_exe()?;
        let mut command = Command::new(if core.is_some() { "taskset" } else { "env" });
        if let Some(core) = core {
            command.args(["-c", &core.to_string()]);
        }
        match target {
            Target::Arc | Target::Before => {
                let other = before.filter(|_| target == Target::Before);
                let path = other.unwrap_or(Path::new(env!("CARGO_BIN_EXE_arc-relay")));
                // The clients answer no pings.
                command.env("ARC_RELAY_PING_INTERVAL", "0");
                // Log lines about thousands of connections would hide the figures.
                command.env("ARC_RELAY_LOG_LEVEL", "warn");
                command.arg(path).args(["start", "--host", "127.0.0.1", "--port", "0"])
            }
            Target::Raw => command.arg(this).arg("--raw-relay"),
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
