//! Compares the cost per message of this relay with other relays.
//!
//! The yardstick is a raw TCP relay that knows no frames. The others are a straightforward relay that assembles
//! messages, one on uWebSockets, one on Node's `ws`, and one that does the least for opening and closing a pair.
//!
//! `cargo bench --bench relay` starts each relay as a separate process on the first core, and loads it over loopback
//! from the second core. Each round runs all relays in turn with each workload. Figures are medians. Each ratio is to
//! the raw relay in the same round. Only ratios are comparable between machines.
//!
//! `cargo bench --bench relay -- bulk` runs the workloads with that word in their names. `-- --check` compares every
//! message instead of measuring. `-- --help` lists all options.

mod assembling_relay;
mod chart;
mod clients;
mod floor_relay;
#[path = "../support/frame.rs"]
mod frame;
mod messages;
mod peers;
mod raw_relay;
mod report;
mod servers;
mod window;
mod workload;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;
use std::{fs, io};

use argh::{EarlyExit, FromArgs};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use report::Record;
use servers::{Builds, Cores, Server, Target};
use workload::Workload;

/// Measures this relay beside others.
#[derive(FromArgs)]
struct Options {
    /// number of rounds; default 5
    #[argh(option, default = "5")]
    rounds: usize,
    /// path of another build of this relay, to measure beside it
    #[argh(option)]
    before: Option<PathBuf>,
    /// path of a build with the portable runtime, to measure beside it
    #[argh(option)]
    portable: Option<PathBuf>,
    /// minutes after which no round is begun that would not end in time; default 10
    #[argh(option, default = "10.0")]
    minutes: f64,
    /// relays to measure, separated by commas: arc, before, portable, workers-1, workers-2,
    /// workers-4, raw, floor, assembling, uws, ws
    #[argh(option)]
    only: Option<String>,
    /// file for all figures of all rounds
    #[argh(option)]
    json: Option<PathBuf>,
    /// file for a chart of the ratios
    #[argh(option)]
    svg: Option<PathBuf>,
    /// compare every message instead of measuring
    #[argh(switch)]
    check: bool,
    /// words that must all be in the name of a workload
    #[argh(positional)]
    names: Vec<String>,
    /// run as the raw relay
    #[argh(switch, hidden_help)]
    raw_relay: bool,
    /// run as the floor relay
    #[argh(switch, hidden_help)]
    floor_relay: bool,
    /// run as the assembling relay
    #[argh(switch, hidden_help)]
    assembling_relay: bool,
}

fn main() -> ExitCode {
    // cargo appends an argument of its own after all others, even after `--help`.
    let given: Vec<_> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let given: Vec<_> = given.iter().map(String::as_str).collect();
    let options = match Options::from_args(&["cargo bench --bench relay --"], &given) {
        Ok(options) => options,
        Err(EarlyExit { output, status }) => {
            eprintln!("{output}");
            return if status.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
        }
    };
    let result = match &options {
        Options { raw_relay: true, .. } => raw_relay::run(),
        Options { floor_relay: true, .. } => floor_relay::run(),
        Options { assembling_relay: true, .. } => assembling_relay::run(),
        options => measure(options),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn measure(options: &Options) -> io::Result<()> {
    let files = raise_file_limit()?;
    let cores = pin_to_second_core()?;
    let builds = Builds { before: options.before.clone(), portable: options.portable.clone() };
    let targets = targets(options, &builds)?;
    let mut workloads = Workload::all();
    workloads.retain(|workload| {
        let name = workload.to_string();
        let wanted = options.names.iter().all(|part| name.contains(part));
        let possible = workload.files() <= files;
        if wanted && !possible {
            eprintln!("{name}: skipped: it needs more than {files} open files");
        }
        wanted && possible
    });
    if workloads.is_empty() {
        return Err(io::Error::other("no workload matches"));
    }
    let mut records = Vec::new();
    let rounds = if options.check { 1 } else { options.rounds };
    let begin = Instant::now();
    for round in 1..=rounds {
        let each = begin.elapsed().as_secs_f64() / (round - 1).max(1) as f64;
        if round > 1 && each * round as f64 > options.minutes * 60.0 {
            eprintln!("no round {round}: it would end after {} minutes", options.minutes);
            break;
        }
        for &workload in &workloads {
            eprintln!("round {round} of {rounds}: {workload}");
            for &target in targets.iter().filter(|&&target| workload.suits(target)) {
                let figures = Server::start(target, &builds, cores.as_ref(), workload.answers_pings())
                    .and_then(|server| workload.run(&server, options.check));
                match figures {
                    Ok(figures) => records.push(Record { workload, target, round, figures }),
                    Err(error) => {
                        let error = format!("{workload}, {}: {error}", target.name());
                        if options.check || !target.is_of_another_library() {
                            return Err(io::Error::other(error));
                        }
                        // A fault of another library costs this figure, and not all others.
                        eprintln!("left out: {error}");
                    }
                }
            }
        }
    }
    if options.check {
        return Ok(());
    }
    print!("{}", report::markdown(&records));
    if let Some(path) = &options.json {
        fs::write(path, report::json(&records))?;
    }
    if let Some(path) = &options.svg {
        fs::write(path, chart::svg(&records))?;
    }
    Ok(())
}

/// The selected targets that can run. A check leaves out those that know no frames.
fn targets(options: &Options, builds: &Builds) -> io::Result<Vec<Target>> {
    let mut targets = Target::ALL.to_vec();
    if let Some(only) = &options.only {
        let find = |name| Target::ALL.into_iter().find(|target| target.name() == name);
        let wanted =
            only.split(',').map(|name| find(name).ok_or_else(|| io::Error::other(format!("unknown relay {name:?}"))));
        targets = wanted.collect::<io::Result<_>>()?;
    }
    targets.retain(|&target| !options.check || target.knows_frames());
    targets.retain(|&target| builds.path(target).is_some());
    let has_workers = servers::has_workers();
    targets.retain(|&target| has_workers || !matches!(target, Target::Workers(_)));
    targets.retain(|&target| {
        let installed = match target {
            Target::Uws => peers::install_uws(),
            Target::Ws => peers::install_ws(),
            _ => Ok(()),
        };
        installed.inspect_err(|error| eprintln!("{}: skipped: {error}", target.name())).is_ok()
    });
    Ok(targets)
}

/// Raises the limit of open files for this process and its children. Returns the limit.
fn raise_file_limit() -> io::Result<usize> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?;
    Ok(maximum.map_or(usize::MAX, |maximum| maximum as usize))
}

/// Pins this process and its later threads to the second core. Returns the cores for the servers.
///
/// Returns `None` on a machine with one core.
fn pin_to_second_core() -> io::Result<Option<Cores>> {
    let allowed = sched_getaffinity(None)?;
    let cores: Vec<_> = (0..CpuSet::MAX_CPU).filter(|&core| allowed.is_set(core)).collect();
    let [first, second, ..] = cores[..] else { return Ok(None) };
    let mut set = CpuSet::new();
    set.set(second);
    sched_setaffinity(None, &set)?;
    let all = cores.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    Ok(Some(Cores { one: first.to_string(), all }))
}
