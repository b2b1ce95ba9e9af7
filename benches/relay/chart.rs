//! The ratios to the raw relay as a bar chart, one group for each workload, on a logarithmic scale.
//!
//! The colours are readable on light and dark backgrounds.

use std::fmt::Write;

use crate::report::{Record, median, ratios, short};
use crate::servers::Target;
use crate::workload::Workload;

const BARS: [(Target, &str, &str); 4] = [
    (Target::Arc, "#2f81f7", "arc-relay"),
    (Target::Assembling, "#d29922", "assembling (async-tungstenite)"),
    (Target::Uws, "#2da44e", "uWebSockets"),
    (Target::Ws, "#8b6fd6", "Node ws"),
];

/// In pixels. Workload names are left of the bars, figures are right of them.
const LEFT: f64 = 190.0;
const WIDTH: f64 = 520.0;
const RIGHT: f64 = 50.0;
const TOP: f64 = 60.0;
const BAR: f64 = 9.0;
const GAP: f64 = 10.0;

/// The low end of the scale. A relay may be slightly better than the raw relay.
const LOWEST: f64 = 0.5;

pub(crate) fn svg(records: &[Record]) -> String {
    let bars = |workload| {
        let bars = BARS.map(|(target, colour, _)| (colour, ratios(records, workload, target, "cpu us")));
        bars.into_iter().filter(|(_, ratios)| !ratios.is_empty()).collect::<Vec<_>>()
    };
    let is_drawn = |workload: &Workload| {
        use Workload::{BehindBulk, Fairness, Scale, Workers};
        !matches!(workload, Scale { .. } | Fairness { .. } | BehindBulk | Workers(_))
    };
    let groups: Vec<_> =
        Workload::all().into_iter().filter(is_drawn).map(|workload| (workload, bars(workload))).collect();
    let highest = groups.iter().flat_map(|(_, bars)| bars).flat_map(|(_, ratios)| ratios).copied().fold(10.0, f64::max);
    let x = |ratio: f64| LEFT + WIDTH * (ratio.max(LOWEST) / LOWEST).ln() / (highest / LOWEST).ln();

    let (mut body, mut y) = (String::new(), TOP);
    for (workload, mut bars) in groups.into_iter().filter(|(_, bars)| !bars.is_empty()) {
        let middle = y + BAR * bars.len() as f64 / 2.0 + 4.0;
        _ = writeln!(body, r#"<text x="{:.0}" y="{middle:.1}" text-anchor="end">{workload}</text>"#, LEFT - 8.0);
        for (colour, ratios) in &mut bars {
            let ratio = median(ratios);
            let (from, to) = (x(ratio.min(1.0)), x(ratio.max(1.0)));
            let (width, height) = ((to - from).max(1.0), BAR - 1.0);
            _ = writeln!(
                body,
                r#"<rect x="{from:.1}" y="{y:.1}" width="{width:.1}" height="{height}" fill="{colour}"/>"#
            );
            let (right, base) = (from + width + 4.0, y + BAR - 1.5);
            let ratio = short(ratio);
            _ = writeln!(body, r#"<text x="{right:.1}" y="{base:.1}" font-size="9">{ratio}</text>"#);
            y += BAR;
        }
        y += GAP;
    }

    let mut lines = String::new();
    for mark in
        [0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0].into_iter().filter(|&mark| mark <= highest)
    {
        let (x, width) = (x(mark), if mark == 1.0 { 1.5 } else { 0.5 });
        _ = writeln!(
            lines,
            r#"<line x1="{x:.1}" y1="{TOP}" x2="{x:.1}" y2="{y:.1}" stroke="{GREY}" stroke-width="{width}"/><text x="{x:.1}" y="{:.1}" text-anchor="middle">{mark}</text>"#,
            TOP - 6.0
        );
    }
    for (nth, (_, colour, name)) in BARS.into_iter().enumerate() {
        let x = LEFT + 220.0 * nth as f64;
        let text = x + 14.0;
        _ = writeln!(
            lines,
            r#"<rect x="{x}" y="24" width="10" height="10" fill="{colour}"/><text x="{text}" y="33">{name}</text>"#
        );
    }
    let (width, height) = (LEFT + WIDTH + RIGHT, y + GAP);
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\" \
         font-family=\"sans-serif\" font-size=\"11\" fill=\"{GREY}\">\n\
         <text x=\"{LEFT}\" y=\"14\">CPU time for each message, as a multiple of a raw TCP relay's (logarithmic)</text>\n\
         {lines}{body}</svg>\n"
    )
}

/// A colour for text and lines that is readable on any background.
const GREY: &str = "#7d8590";
