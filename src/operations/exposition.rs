//! Metrics as text: in the format of OpenMetrics or of Prometheus, whichever the scraper prefers.

use std::collections::HashMap;
use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, prometheus_text, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::exemplar::Exemplar;
use prometheus_client::registry::Registry;

use super::metrics::{Metric, Number, Values};

/// A format of metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    OpenMetrics,
    Prometheus,
}

impl Format {
    /// The format that the elements of `Accept` prefer.
    ///
    /// OpenMetrics has to be asked for: browsers and curl get the plain text.
    pub(super) fn preferred<'a>(accepted: impl Iterator<Item = &'a [u8]>) -> Self {
        let (mut open, mut plain) = (0.0, 0.0);
        for range in accepted.filter_map(MediaRange::parse) {
            match range.media_type {
                "application/openmetrics-text" if matches!(range.version, None | Some("0.0.1" | "1.0.0")) => {
                    open = range.quality.max(open);
                }
                "text/plain" if matches!(range.version, None | Some("0.0.4")) => plain = range.quality.max(plain),
                _ => {}
            }
        }
        if open > 0.0 && open >= plain { Self::OpenMetrics } else { Self::Prometheus }
    }

    pub(super) fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Prometheus => prometheus_text::CONTENT_TYPE,
        }
    }

    /// The text of metrics in this format.
    pub(super) fn text(self, metrics: Vec<Metric>) -> Result<String, fmt::Error> {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Metrics(metrics)));
        let mut encoded = String::with_capacity(LENGTH);
        match self {
            Self::OpenMetrics => text::encode(&mut encoded, &registry)?,
            Self::Prometheus => prometheus_text::encode(&mut encoded, &registry)?,
        }
        Ok(encoded)
    }
}

/// Room for the text, in bytes.
const LENGTH: usize = 16 * 1024;

/// An element of `Accept` (RFC 9110, section 12.5.1).
struct MediaRange<'a> {
    media_type: &'a str,
    version: Option<&'a str>,
    quality: f32,
}

impl<'a> MediaRange<'a> {
    fn parse(element: &'a [u8]) -> Option<Self> {
        let mut parts = std::str::from_utf8(element).ok()?.split(';').map(str::trim);
        let mut range = Self { media_type: parts.next()?, version: None, quality: 1.0 };
        for (name, value) in parts.filter_map(|part| part.split_once('=')) {
            match name {
                "version" => range.version = Some(value.trim_matches('"')),
                "q" => range.quality = value.parse().ok().filter(|quality| (0.0..=1.0).contains(quality))?,
                _ => {}
            }
        }
        Some(range)
    }
}

/// Metrics that are about to be encoded.
#[derive(Debug)]
struct Metrics(Vec<Metric>);

impl Collector for Metrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for Metric { name, unit, help, values } in &self.0 {
            let kind = match values {
                Values::Gauge(_) | Values::Gauges(..) => MetricType::Gauge,
                Values::Counter(_) | Values::Counters(..) => MetricType::Counter,
                Values::Histogram(_) => MetricType::Histogram,
                Values::Info(..) => MetricType::Info,
            };
            values.encode(encoder.encode_descriptor(name, help, unit.as_ref(), kind)?)?;
        }
        Ok(())
    }
}

impl Values {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        const NO_EXEMPLAR: Option<&Exemplar<NoLabelSet, f64>> = None;
        match self {
            Self::Gauge(Number::Whole(value)) => encoder.encode_gauge(value),
            Self::Gauge(Number::Real(value)) => encoder.encode_gauge(value),
            Self::Counter(Number::Whole(value)) => encoder.encode_counter(value, NO_EXEMPLAR),
            Self::Counter(Number::Real(value)) => encoder.encode_counter(value, NO_EXEMPLAR),
            Self::Gauges(label, values) => values
                .iter()
                .try_for_each(|(word, value)| encoder.encode_family(&[(*label, *word)])?.encode_gauge(value)),
            Self::Counters(label, values) => values.iter().try_for_each(|(word, value)| {
                encoder.encode_family(&[(*label, *word)])?.encode_counter(value, NO_EXEMPLAR)
            }),
            Self::Info(label, value) => encoder.encode_info(&[(*label, *value)]),
            Self::Histogram(distribution) => {
                const NO_EXEMPLARS: Option<&HashMap<usize, Exemplar<NoLabelSet, f64>>> = None;
                let last = distribution.ranges.len() - 1;
                let ranges = distribution.ranges.iter().enumerate();
                let buckets: Vec<_> = ranges
                    .map(|(nth, (end, count))| (if nth == last { f64::INFINITY } else { end.as_secs_f64() }, *count))
                    .collect();
                encoder.encode_histogram(distribution.sum.as_secs_f64(), distribution.count(), &buckets, NO_EXEMPLARS)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn preferred(accept: &str) -> Format {
        Format::preferred(accept.split(',').map(|element| element.trim().as_bytes()))
    }

    #[test]
    fn scrapers_get_open_metrics_if_they_prefer_it() {
        for accept in [
            "application/openmetrics-text",
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
            "application/openmetrics-text;version=1.0.0;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,\
             text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
            "text/plain;q=0.5,application/openmetrics-text;version=\"1.0.0\"",
        ] {
            assert_eq!(preferred(accept), Format::OpenMetrics, "{accept}");
        }
    }

    #[test]
    fn everything_else_gets_the_plain_text() {
        for accept in [
            "",
            "*/*",
            "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
            "application/openmetrics-text;q=0.2,text/plain;version=0.0.4;q=0.3",
            "application/openmetrics-text;version=2.0.0,text/plain",
            "application/openmetrics-text;q=0",
            "application/openmetrics-text;q=NaN",
            "application/openmetrics-text;q=7",
        ] {
            assert_eq!(preferred(accept), Format::Prometheus, "{accept}");
        }
    }
}
