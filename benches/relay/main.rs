//! What a message costs the relay, in CPU time, beside what it costs a raw TCP relay that knows no frames.
//!
//! `cargo bench --bench relay` starts both as processes of their own, on the first core, and loads them in turn from
//! the second, over loopback. A figure is user and system time of the server process for each message, the median of
//! several rounds; the ratio is to the raw relay in the same run, and is the only thing worth comparing between
//! machines. `cargo bench --bench relay -- bulk` runs what has that in its name.

#[path = "../support/frame.rs"]
mod frame;
mod load;
mod raw_relay;

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use load::{Target, Workload};

const ROUNDS: usize = 5;

/// Runs this very program as the raw relay.
const RAW_RELAY: &str = "--raw-relay";

fn main() {
    let arguments: Vec<_> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    if arguments.iter().any(|argument| argument == RAW_RELAY) {
        return raw_relay::run();
    }
    let kib = 1 << 10;
    let workloads = [
        Workload::bulk(64, 1),
        Workload::bulk(64, 50),
        Workload::bulk(kib, 50),
        Workload::bulk(16 * kib, 50),
        Workload::bulk(kib * kib, 50),
        Workload::round_trips(64, 1),
        Workload::round_trips(64, 100),
    ];
    println!("| workload | arc-relay, us per message | raw TCP relay | ratio |");
    println!("|---|---|---|---|");
    for workload in workloads {
        let name = workload.to_string();
        if !arguments.iter().all(|argument| name.contains(argument.as_str())) {
            continue;
        }
        let mut figures = [Vec::new(), Vec::new()];
        for _ in 0..ROUNDS {
            for (target, figures) in [Target::Relay, Target::Raw].into_iter().zip(&mut figures) {
                let server = Server::start(target);
                figures.push(workload.run(target, server.address, || server.cpu()));
            }
        }
        let [relay, raw] = figures.map(median);
        println!("| {name} | {relay:.3} | {raw:.3} | {:.2} |", relay / raw);
    }
    if arguments.iter().all(|argument| "idle".contains(argument.as_str())) {
        println!("\nresident memory of the relay for each idle connection, of {IDLE}: {:.2} KiB", idle());
    }
}

/// How many connections are idle at a time: half of 1024 files less some, as that is a usual limit.
const IDLE: usize = 480;

/// What a connection that has been joined and has nothing to say costs, in KiB.
fn idle() -> f64 {
    let server = Server::start(Target::Relay);
    let warm = load::connect(Target::Relay, server.address, usize::MAX);
    let before = server.memory();
    let connections: Vec<_> = (0..IDLE).map(|nth| load::connect(Target::Relay, server.address, nth / 2)).collect();
    let after = server.memory();
    drop((warm, connections));
    (after - before) / IDLE as f64
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

/// A relay in a process of its own, on the first core. It ends with this value.
struct Server {
    child: Child,
    address: SocketAddr,
}

impl Server {
    fn start(target: Target) -> Self {
        let this = std::env::current_exe().expect("a running program has a path");
        let mut command = Command::new("taskset");
        command.args(["-c", "0"]);
        match target {
            Target::Relay => {
                command.arg(env!("CARGO_BIN_EXE_arc-relay")).args(["start", "--host", "127.0.0.1", "--port", "0"])
            }
            Target::Raw => command.arg(this).arg(RAW_RELAY),
        };
        let mut child = command.stdout(Stdio::piped()).spawn().expect("taskset (util-linux) is there");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("it is piped")).read_line(&mut line).expect("it says where it is");
        let address = line.split("ws://").nth(1).and_then(|rest| rest.split_whitespace().next());
        Self { child, address: address.and_then(|address| address.parse().ok()).expect("an address") }
    }

    /// User and system time of all its threads so far, in microseconds.
    fn cpu(&self) -> f64 {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.child.id())).expect("it runs");
        let nanoseconds = tasks.map(|task| {
            let path = task.expect("an entry").path().join("schedstat");
            let text = std::fs::read_to_string(path).unwrap_or_default();
            text.split(' ').next().and_then(|first| first.parse::<f64>().ok()).unwrap_or(0.0)
        });
        nanoseconds.sum::<f64>() / 1000.0
    }

    /// Resident memory in KiB.
    fn memory(&self) -> f64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("it has memory");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
