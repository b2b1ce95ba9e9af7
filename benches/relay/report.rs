//! Reports of the figures: Markdown tables for people, JSON for programs.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde_json::{Value, json};

use crate::servers::Target;
use crate::window::Figures;
use crate::workload::Workload;

/// The figures of one target in one round.
pub(crate) struct Record {
    pub(crate) workload: Workload,
    pub(crate) target: Target,
    pub(crate) round: usize,
    pub(crate) figures: Figures,
}

/// A table of `docs/performance.md`.
struct Table {
    title: &'static str,
    rows: fn(&Workload) -> bool,
    figures: &'static [&'static str],
    /// Whether the table has the figures of this target, and not only their ratios.
    has_figures: fn(Target) -> bool,
    /// The figures that have ratios to the yardstick.
    ratios: &'static [&'static str],
}

const TABLES: [Table; 8] = [
    Table {
        title: "Beside other relays: CPU time of the server in us, per message or per pair opened and closed",
        rows: |workload| {
            !matches!(
                workload,
                Workload::Scale { .. } | Workload::Fairness { .. } | Workload::BehindBulk | Workload::Workers(_)
            )
        },
        figures: &["cpu us"],
        has_figures: |target| matches!(target, Target::Arc | Target::Before | Target::Raw),
        ratios: &["cpu us"],
    },
    Table {
        title: "Received payload per second",
        rows: |workload| matches!(workload, Workload::Bulk { .. } | Workload::Duplex { .. }),
        figures: &["MB/s"],
        has_figures: |_| true,
        ratios: &[],
    },
    Table {
        title: "Round trips: messages per second, and latency",
        rows: |workload| matches!(workload, Workload::RoundTrips { .. }),
        figures: &["per second", "p50 us", "p99 us"],
        has_figures: |_| true,
        ratios: &[],
    },
    Table {
        title: "Memory: of an idle connection, and growth for a reader that stops",
        rows: |workload| matches!(workload, Workload::Idle | Workload::StoppedReader),
        figures: &["KiB"],
        has_figures: |_| true,
        ratios: &[],
    },
    Table {
        title: "Scale: CPU time per message of round trips, and memory of an idle connection",
        rows: |workload| matches!(workload, Workload::Scale { .. }),
        figures: &["cpu us", "KiB"],
        has_figures: |_| true,
        ratios: &["cpu us"],
    },
    Table {
        title: "Fairness: one-way latency of 100 quiet pairs beside pairs that stream, and the throughput of these",
        rows: |workload| matches!(workload, Workload::Fairness { .. }),
        figures: &["p50 us", "p99 us", "MB/s"],
        has_figures: |_| true,
        ratios: &["p99 us"],
    },
    Table {
        title: "A small message behind 64 messages of 16 KiB on the same pair: time until it has arrived",
        rows: |workload| matches!(workload, Workload::BehindBulk),
        figures: &["p50 us", "p99 us"],
        has_figures: |target| matches!(target, Target::Arc | Target::Before | Target::Portable | Target::Raw),
        ratios: &["p99 us"],
    },
    Table {
        title: "Workers, on all cores: operations per second, and CPU time of the server in us for each",
        rows: |workload| matches!(workload, Workload::Workers(_)),
        figures: &["per second", "cpu us"],
        has_figures: |_| true,
        ratios: &["per second", "cpu us"],
    },
];

pub(crate) fn markdown(records: &[Record]) -> String {
    let tables = TABLES.iter().filter_map(|table| table.markdown(records));
    let legend = "Medians of all rounds (lowest to highest). Ratios are to the raw relay in the same round, those of several \
                  workers to one worker.";
    format!("{legend}\n{}", tables.collect::<String>())
}

impl Table {
    /// The table, or `None` if none of its workloads was measured.
    fn markdown(&self, records: &[Record]) -> Option<String> {
        let measured = |workload, target| !values(records, workload, target, self.figures[0]).is_empty();
        let is_row = |workload: &Workload| {
            (self.rows)(workload) && Target::ALL.into_iter().any(|target| measured(*workload, target))
        };
        let workloads: Vec<_> = Workload::all().into_iter().filter(is_row).collect();
        let is_column = |target: &Target| workloads.iter().any(|&workload| measured(workload, *target));
        let targets: Vec<_> = Target::ALL.into_iter().filter(is_column).collect();
        if workloads.is_empty() {
            return None;
        }
        let (mut head, mut rule) = (String::from("| workload |"), String::from("|---|"));
        let mut rows: Vec<_> = workloads.iter().map(|workload| format!("| {workload} |")).collect();
        let mut column = |title: String, cell: &dyn Fn(Workload) -> String| {
            _ = write!(head, " {title} |");
            rule += "---|";
            for (row, &workload) in rows.iter_mut().zip(&workloads) {
                _ = write!(row, " {} |", cell(workload));
            }
        };
        let yardstick = workloads[0].yardstick();
        for figure in self.figures {
            for &target in targets.iter().filter(|&&target| (self.has_figures)(target)) {
                column(format!("{}, {figure}", target.title()), &|workload| {
                    let bound = if is_unbounded(records, workload, target) { ">= " } else { "" };
                    let mut values = values(records, workload, target, figure);
                    if values.is_empty() { String::new() } else { bound.to_owned() + &short(median(&mut values)) }
                });
            }
            let is_compared = self.ratios.contains(figure) && targets.contains(&yardstick);
            for &target in targets.iter().filter(|&&target| is_compared && target != yardstick) {
                let unit = if self.ratios.len() > 1 { format!(" of {figure}") } else { String::new() };
                column(format!("{}, ratio{unit}", target.title()), &|workload| {
                    spread(ratios(records, workload, target, figure))
                });
            }
        }
        Some(format!("\n{}\n\n{head}\n{rule}\n{}\n", self.title, rows.join("\n")))
    }
}

/// One figure in all rounds.
fn values(records: &[Record], workload: Workload, target: Target, figure: &str) -> Vec<f64> {
    by_round(records, workload, target, figure).map(|(_, value)| value).collect()
}

/// The ratios of one figure to the yardstick's in the same round, for all rounds that have both.
pub(crate) fn ratios(records: &[Record], workload: Workload, target: Target, figure: &str) -> Vec<f64> {
    let yardstick: BTreeMap<_, _> = by_round(records, workload, workload.yardstick(), figure).collect();
    by_round(records, workload, target, figure)
        .filter_map(|(round, value)| Some(value / yardstick.get(&round)?))
        .collect()
}

/// One figure in all rounds that have it, with the numbers of the rounds.
fn by_round(
    records: &[Record],
    workload: Workload,
    target: Target,
    figure: &str,
) -> impl Iterator<Item = (usize, f64)> {
    let records = records.iter().filter(move |record| record.workload == workload && record.target == target);
    records.filter_map(move |record| Some((record.round, find(&record.figures, figure)?)))
}

fn find(figures: &Figures, name: &str) -> Option<f64> {
    figures.iter().find_map(|&(other, value)| (other == name).then_some(value))
}

fn is_unbounded(records: &[Record], workload: Workload, target: Target) -> bool {
    values(records, workload, target, "unbounded").contains(&1.0)
}

pub(crate) fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn spread(mut values: Vec<f64>) -> String {
    if values.is_empty() {
        return String::new();
    }
    let median = median(&mut values);
    let [median, low, high] = [median, values[0], values[values.len() - 1]].map(short);
    if low == high { median } else { format!("{median} ({low} to {high})") }
}

/// A number with at least three digits.
pub(crate) fn short(value: f64) -> String {
    let decimals = match value.abs() {
        100.0.. => 0,
        10.0.. => 1,
        1.0.. => 2,
        _ => 3,
    };
    format!("{value:.decimals$}")
}

pub(crate) fn json(records: &[Record]) -> String {
    let records = records.iter().map(|record| {
        let figures: serde_json::Map<_, _> =
            record.figures.iter().map(|&(name, value)| (name.to_owned(), Value::from(value))).collect();
        let (workload, target) = (record.workload.to_string(), record.target.name());
        json!({ "workload": workload, "target": target, "round": record.round, "figures": figures })
    });
    format!("{:#}\n", Value::from_iter(records))
}
