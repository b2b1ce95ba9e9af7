//! The metrics: one table of names, meanings and values. `docs/operations.md` has the same names.
//!
//! Names follow the conventions of Prometheus: base units, `_total` for what only grows. A label has one of the fixed words
//! of [`Rejection`](crate::telemetry::rejection::Rejection) and [`Outcome`](crate::telemetry::events::Outcome), or a
//! version. So the number of series is bounded, and no client can put anything into one.

use prometheus_client::registry::Unit;

use super::overview::{Overview, VERSION};
use super::process::Process;
use crate::telemetry::counters::Counters;
use crate::telemetry::histogram::Distribution;

/// A metric with all of its series.
#[derive(Debug)]
pub(super) struct Metric {
    /// The name without its unit, and without the `_total` or `_info` that its kind adds.
    pub(super) name: &'static str,
    pub(super) unit: Option<Unit>,
    pub(super) help: &'static str,
    pub(super) values: Values,
}

/// The values of a metric, which are of one kind.
#[derive(Debug)]
pub(super) enum Values {
    Gauge(Number),
    Counter(Number),
    /// A gauge for each value of this label.
    Gauges(&'static str, Vec<(&'static str, u64)>),
    /// A counter for each value of this label.
    Counters(&'static str, Vec<(&'static str, u64)>),
    Histogram(Distribution),
    /// A constant, which is told by this label.
    Info(&'static str, &'static str),
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Number {
    Whole(u64),
    Real(f64),
}

impl Metric {
    const fn new(name: &'static str, help: &'static str, values: Values) -> Self {
        Self { name, unit: None, help, values }
    }

    fn gauge(name: &'static str, help: &'static str, value: usize) -> Self {
        Self::new(name, help, Values::Gauge(Number::Whole(value as u64)))
    }

    fn counter(name: &'static str, help: &'static str, value: u64) -> Self {
        Self::new(name, help, Values::Counter(Number::Whole(value)))
    }

    fn in_unit(self, unit: Unit) -> Self {
        Self { unit: Some(unit), ..self }
    }
}

/// All metrics of a relay and its process, with their values now.
pub(super) fn metrics(overview: &Overview, process: Process) -> Vec<Metric> {
    let mut metrics = state(overview);
    metrics.extend(limits(overview));
    metrics.extend(of_process(process));
    metrics
}

/// What the relay does, and has done.
fn state(overview: &Overview) -> Vec<Metric> {
    let Counters {
        connections,
        waiting,
        paired,
        rejected,
        closed,
        messages,
        lingering,
        pings,
        throttled,
        squeezed,
        probes,
        panics,
        accept_errors,
        unmet,
        pair_waits,
        pair_durations,
    } = overview.counters();
    let pairs = vec![("waiting", waiting as u64), ("paired", paired as u64)];
    let rejected = rejected.into_iter().map(|(reason, count)| (reason.name(), count)).collect();
    let closed = closed.into_iter().map(|(outcome, count)| (outcome.name(), count)).collect();
    vec![
        Metric::new("arc_relay_build", "The version of the relay", Values::Info("version", VERSION)),
        Metric::gauge(
            "arc_relay_ready",
            "Whether load balancers are to send new clients: 1, or 0 once the relay was told to stop",
            overview.is_ready().into(),
        ),
        Metric::gauge("arc_relay_workers", "Threads that accept connections and forward messages", overview.workers),
        Metric::gauge(
            "arc_relay_connections",
            "Open WebSockets, those in their closing handshake included",
            connections as usize,
        ),
        Metric::new(
            "arc_relay_pairs",
            "Pair codes with one side, which waits, or with both",
            Values::Gauges("state", pairs),
        ),
        Metric::gauge("arc_relay_handshakes", "Opening handshakes under way", overview.opening()),
        Metric::gauge(
            "arc_relay_lingering_connections",
            "WebSockets in a closing handshake of more than 5 seconds, as much is in flight to their clients",
            lingering,
        ),
        Metric::new(
            "arc_relay_rejected",
            "Clients that were not let in, by reason",
            Values::Counters("reason", rejected),
        ),
        Metric::new(
            "arc_relay_closed",
            "WebSockets that have ended, by what ended them",
            Values::Counters("outcome", closed),
        ),
        Metric::counter("arc_relay_forwarded", "Payload of forwarded binary messages", messages.bytes)
            .in_unit(Unit::Bytes),
        Metric::counter("arc_relay_forwarded_messages", "Binary messages that were forwarded", messages.forwarded),
        Metric::counter("arc_relay_dropped_messages", "Text messages, which are dropped", messages.dropped),
        Metric::new(
            "arc_relay_pair_wait",
            "How long first sides waited for the second ones that came",
            Values::Histogram(pair_waits),
        )
        .in_unit(Unit::Seconds),
        Metric::new(
            "arc_relay_pair_duration",
            "How long pairs lasted that have ended, from the arrival of the second side to its end",
            Values::Histogram(pair_durations),
        )
        .in_unit(Unit::Seconds),
        Metric::counter("arc_relay_unmet", "First sides that ended before a second one came", unmet),
        Metric::gauge("arc_relay_buffer", "Memory of all buffers of more than 4 KiB", overview.buffer_memory.taken())
            .in_unit(Unit::Bytes),
        Metric::counter(
            "arc_relay_squeezed_reads",
            "Reads into a smaller buffer than the stream asked for, as the memory for buffers was used up",
            squeezed,
        ),
        Metric::counter(
            "arc_relay_throttled_reads",
            "Pauses in reading from a client, as a rate limit was used up",
            throttled,
        ),
        Metric::counter("arc_relay_pings", "Pings to quiet clients and for takeover probes", pings),
        Metric::counter(
            "arc_relay_takeover_probes",
            "Pairs that were asked for a sign of life, as a third client wanted a seat",
            probes,
        ),
        Metric::counter("arc_relay_accept_errors", "Connections that the system could not hand over", accept_errors),
        Metric::counter("arc_relay_panics", "Connections that met a bug of the relay", panics),
    ]
}

/// The limits in effect.
fn limits(overview: &Overview) -> impl Iterator<Item = Metric> {
    overview.limits().into_iter().map(|(name, limit)| match name {
        "connections" => Metric::gauge("arc_relay_limit_connections", "The limit of WebSockets", limit),
        "waiting" => Metric::gauge("arc_relay_limit_waiting", "The limit of sides that wait alone", limit),
        "pairs" => Metric::gauge("arc_relay_limit_pairs", "The limit of pair codes in use", limit),
        "handshakes" => Metric::gauge("arc_relay_limit_handshakes", "The limit of opening handshakes under way", limit),
        _ => Metric::gauge("arc_relay_limit_buffer", "The limit of memory for buffers", limit).in_unit(Unit::Bytes),
    })
}

/// The process, by the names that all client libraries of Prometheus use.
///
/// What the system does not tell is left out.
fn of_process(process: Process) -> impl Iterator<Item = Metric> {
    let Process { cpu, resident, open_files, max_files, started } = process;
    let gauge = |name, help, value: Option<u64>| {
        value.map(|value| Metric::new(name, help, Values::Gauge(Number::Whole(value))))
    };
    let cpu = cpu.map(|time| {
        let seconds = Values::Counter(Number::Real(time.as_secs_f64()));
        Metric::new("process_cpu", "User and system time of the process", seconds).in_unit(Unit::Seconds)
    });
    let resident = gauge("process_resident_memory", "Resident memory of the process", resident);
    let started = started.map(|seconds| {
        let seconds = Values::Gauge(Number::Real(seconds));
        Metric::new("process_start_time", "When the process began, since 1970", seconds).in_unit(Unit::Seconds)
    });
    let files = gauge("process_open_fds", "Open file descriptors of the process", open_files);
    let most_files = gauge("process_max_fds", "The limit of open file descriptors", max_files);
    [cpu, resident.map(|metric| metric.in_unit(Unit::Bytes)), files, most_files, started].into_iter().flatten()
}
