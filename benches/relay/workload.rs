//! The workloads, and the figures that they yield.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use std::{fmt, io, thread};

use rustix::process::nice;

use crate::clients::{self, Side};
use crate::messages::{PARSED, Traffic};
use crate::servers::{Server, Target};
use crate::window::{Figures, WARM_UP_OF_DUPLEX, Window};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Workload {
    RoundTrips {
        pairs: usize,
    },
    Bulk {
        size: usize,
        pairs: usize,
    },
    Duplex {
        pairs: usize,
    },
    Opening {
        messages: usize,
    },
    Idle,
    StoppedReader,
    Scale {
        connections: usize,
    },
    Fairness {
        busy: usize,
    },
    BehindBulk,
    /// One of the others, by a relay with several workers.
    Workers(Load),
}

/// A workload for several workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Load {
    Opening,
    Bulk,
    RoundTrips,
}

impl Load {
    const ALL: [Self; 3] = [Self::Opening, Self::Bulk, Self::RoundTrips];

    /// The workload.
    fn workload(self) -> Workload {
        match self {
            Self::Opening => Workload::Opening { messages: 1 },
            Self::Bulk => Workload::Bulk { size: MEDIUM, pairs: 50 },
            Self::RoundTrips => Workload::RoundTrips { pairs: 100 },
        }
    }
}

const KIB: usize = 1 << 10;

/// Message sizes of workloads with a fixed size.
const SMALL: usize = 64;
const MEDIUM: usize = 16 * KIB;

/// The number of round trips in flight, unless there are fewer pairs.
const UNDER_WAY: usize = 100;

/// The number of pairs opened at once, and in a round.
///
/// Each pair leaves ports in TIME_WAIT at one end or the other, so the number is limited.
const OPENED_AT_ONCE: usize = 10;
const OPENED: u64 = 12_000;

/// The number of idle connections in the measurement of memory.
const IDLE: usize = 1000;

/// The number of pairs opened before a measurement, so that one-time allocations do not count.
const WARM: usize = 10;

/// The maximum number of bytes sent to a stalled reader: far more than sockets hold.
const STOPPED_BYTES: usize = 64 << 20;

/// The number of quiet pairs beside busy ones, and the interval between their messages.
///
/// Each quiet pair sends 50 times a second. This load alone leaves a relay mostly idle, and yields 3500 latencies in a
/// round.
const QUIET: usize = 100;
const INTERVAL: Duration = Duration::from_micros(200);

/// The number of bytes that a check of a stream sends in total. Each client sends at least two blocks.
const CHECKED_BYTES: usize = 16 << 20;

impl Workload {
    pub(crate) fn all() -> Vec<Self> {
        let bulk = [SMALL, KIB, MEDIUM, KIB * KIB].into_iter().flat_map(|size| [1, 50].map(|pairs| (size, pairs)));
        let mut all: Vec<_> = bulk.map(|(size, pairs)| Self::Bulk { size, pairs }).collect();
        all.extend([1, 50].map(|pairs| Self::Duplex { pairs }));
        all.extend([1, 100].map(|pairs| Self::RoundTrips { pairs }));
        all.extend([1, 3].map(|messages| Self::Opening { messages }));
        all.extend([Self::Idle, Self::StoppedReader]);
        all.extend([10, 100, 1000, 9000].map(|connections| Self::Scale { connections }));
        all.extend([0, 1, 10, 50].map(|busy| Self::Fairness { busy }));
        all.push(Self::BehindBulk);
        all.extend(Load::ALL.map(Self::Workers));
        all
    }

    /// Whether the workload applies to this target. Some are only for a comparison with the raw relay.
    pub(crate) fn suits(self, target: Target) -> bool {
        match target {
            Target::Arc | Target::Before | Target::Raw => !matches!(self, Self::Workers(_)),
            Target::Workers(_) => matches!(self, Self::Workers(_)),
            Target::Floor => matches!(self, Self::Opening { .. }),
            Target::Portable | Target::Assembling | Target::Uws | Target::Ws => {
                !matches!(self, Self::Scale { .. } | Self::Fairness { .. } | Self::Workers(_))
            }
        }
    }

    /// The target that the others are compared with.
    pub(crate) fn yardstick(self) -> Target {
        if matches!(self, Self::Workers(_)) { Target::Workers(1) } else { Target::Raw }
    }

    /// The number of open files that each process needs.
    pub(crate) fn files(self) -> usize {
        64 + match self {
            Self::Workers(load) => load.workload().files(),
            Self::BehindBulk => 2,
            Self::RoundTrips { pairs } | Self::Bulk { pairs, .. } | Self::Duplex { pairs } => 2 * pairs,
            Self::Opening { .. } | Self::StoppedReader => 2 * OPENED_AT_ONCE,
            Self::Idle => IDLE + 2 * WARM,
            Self::Scale { connections } => connections + 2 * WARM,
            Self::Fairness { busy } => 2 * (QUIET + busy),
        }
    }

    pub(crate) fn size(self) -> usize {
        match self {
            Self::Bulk { size, .. } => size,
            Self::Duplex { .. } | Self::StoppedReader => MEDIUM,
            Self::Workers(load) => load.workload().size(),
            _ => SMALL,
        }
    }

    /// Whether the clients answer pings.
    pub(crate) fn answers_pings(self) -> bool {
        match self {
            Self::Bulk { .. } | Self::Duplex { .. } => self.size() >= PARSED,
            Self::Workers(load) => load.workload().answers_pings(),
            _ => false,
        }
    }

    /// Runs the workload.
    ///
    /// In a check, all messages differ and all are compared. The figures mean nothing then.
    pub(crate) fn run(self, server: &Server, check: bool) -> io::Result<Figures> {
        let traffic = Traffic::new(server.target, self.size(), check);
        let open = |first, pairs| clients::open(server, &traffic, first, pairs);
        let open_and_exchange = |first, pairs| {
            let mut sides = open(first, pairs)?;
            clients::exchange(&mut sides).map(|()| sides)
        };
        let window = || Window::new(server, check);
        match self {
            Self::Bulk { pairs, .. } => stream(server, &mut open(0, pairs)?, false, self.size(), check),
            Self::Duplex { pairs } => stream(server, &mut open(0, pairs)?, true, self.size(), check),
            Self::RoundTrips { pairs } => {
                let (mut sides, mut window) = (open(0, pairs)?, window());
                let messages = clients::round_trips(&mut sides, UNDER_WAY, &mut window)?;
                window.figures(messages)
            }
            Self::Scale { connections } => {
                let _warm = open_and_exchange(connections, WARM)?;
                let before = server.memory()?;
                let mut sides = open_and_exchange(0, connections / 2)?;
                let memory = ("KiB", (server.memory()? - before) / connections as f64);
                let mut window = window();
                let messages = clients::round_trips(&mut sides, UNDER_WAY, &mut window)?;
                Ok([window.figures(messages)?, vec![memory]].concat())
            }
            Self::Opening { messages } => {
                let (mut pairs, mut window) = (0, window());
                while pairs < OPENED && !window.is_over(pairs)? {
                    let mut sides = open(0, OPENED_AT_ONCE)?;
                    for _ in 0..messages {
                        clients::exchange(&mut sides)?;
                    }
                    clients::close(server.target, &sides)?;
                    pairs += OPENED_AT_ONCE as u64;
                }
                window.figures(pairs)
            }
            Self::Idle => {
                let _warm = open_and_exchange(IDLE, WARM)?;
                let before = server.memory()?;
                let _idle = open_and_exchange(0, IDLE / 2)?;
                Ok(vec![("KiB", (server.memory()? - before) / IDLE as f64)])
            }
            Self::BehindBulk => {
                let (sides, mut window) = (open(0, 1)?, window());
                let messages = clients::behind_bulk(&sides, server.target, &mut window)?;
                window.figures(messages)
            }
            Self::Workers(load) => load.workload().run(server, check),
            Self::StoppedReader => stop_reading(server, &mut open_and_exchange(0, 1)?, check),
            Self::Fairness { busy } => {
                let medium = Traffic::new(server.target, MEDIUM, check);
                let (mut quiet, mut busy) = (open(0, QUIET)?, clients::open(server, &medium, QUIET, busy)?);
                fairness(&mut quiet, &mut busy, window())
            }
        }
    }
}

fn stream(server: &Server, sides: &mut [Side], both: bool, size: usize, check: bool) -> io::Result<Figures> {
    if !check {
        let mut window =
            if both { Window::after(WARM_UP_OF_DUPLEX, server, check) } else { Window::new(server, check) };
        let messages = clients::stream(sides, both, |messages| window.is_over(messages))?;
        let mut figures = window.figures(messages)?;
        let per_second = figures.iter().find_map(|&(name, value)| (name == "per second").then_some(value));
        figures.push(("MB/s", per_second.unwrap_or_default() * size as f64 / 1e6));
        return Ok(figures);
    }
    let step = if both { 1 } else { 2 };
    let bytes = CHECKED_BYTES * step / sides.len();
    let expected: u64 = sides.iter_mut().step_by(step).map(|side| side.sending.limit(bytes)).sum();
    clients::stream(sides, both, |messages| Ok(messages >= expected))?;
    // Closing detects surplus messages.
    clients::close(server.target, sides).map(|()| Vec::new())
}

fn stop_reading(server: &Server, sides: &mut [Side], check: bool) -> io::Result<Figures> {
    let before = server.memory()?;
    let sent = clients::stop_reading(sides, STOPPED_BYTES)?;
    let growth = server.memory()? - before;
    if check {
        let mut buffer = vec![0; 64 * KIB];
        let mut left = (sent / sides[0].sending.frame()) as u64;
        while left > 0 {
            left -= sides[1].read(&mut buffer)?;
        }
    }
    Ok(vec![("KiB", growth), ("unbounded", f64::from(u8::from(sent >= STOPPED_BYTES)))])
}

/// Busy pairs stream in a low-priority thread, because quiet ones share its core.
fn fairness(quiet: &mut [Side], busy: &mut [Side], mut window: Window<'_>) -> io::Result<Figures> {
    let (begin, over) = (Instant::now(), AtomicBool::new(false));
    thread::scope(|scope| {
        let streaming = scope.spawn(|| {
            nice(19)?;
            if busy.is_empty() { Ok(0) } else { clients::stream(busy, false, |_| Ok(over.load(Ordering::Relaxed))) }
        });
        let quiet = clients::whisper(quiet, INTERVAL, &mut window);
        over.store(true, Ordering::Relaxed);
        let streamed = streaming.join().expect("it does not panic")? as f64;
        let rate = streamed * MEDIUM as f64 / begin.elapsed().as_secs_f64() / 1e6;
        Ok([window.figures(quiet?)?, vec![("MB/s", rate)]].concat())
    })
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let size = match self.size() {
            size if size < KIB => format!("{size} B"),
            size if size < KIB * KIB => format!("{} KiB", size / KIB),
            size => format!("{} MiB", size / KIB / KIB),
        };
        let several = |count: usize| if count == 1 { "1 pair".to_owned() } else { format!("{count} pairs") };
        match self {
            Self::RoundTrips { pairs } => write!(f, "round trips, {size}, {}", several(*pairs)),
            Self::Bulk { pairs, .. } => write!(f, "bulk, {size}, {}", several(*pairs)),
            Self::Duplex { pairs } => write!(f, "duplex, {size}, {}", several(*pairs)),
            Self::Opening { messages: 1 } => write!(f, "a pair opened and closed"),
            Self::Opening { messages } => write!(f, "a pair opened and closed, {messages} messages each way"),
            Self::Idle => write!(f, "idle, {IDLE} connections"),
            Self::StoppedReader => write!(f, "a reader that stops, {size}"),
            Self::Scale { connections } => write!(f, "scale, {size}, {connections} connections"),
            Self::Fairness { busy } => write!(f, "fairness, {size} beside {}", several(*busy)),
            Self::BehindBulk => write!(f, "{size} behind 1 MiB on the same pair"),
            Self::Workers(load) => write!(f, "workers: {}", load.workload()),
        }
    }
}
