//! The time window of a measurement, after a warm-up under the same load.

use std::io;
use std::time::{Duration, Instant};

use crate::servers::Server;

const WARM_UP: Duration = Duration::from_millis(200);
/// The warm-up of streams in both directions, which a WebSocket relay lets begin one after the other.
pub(crate) const WARM_UP_OF_DUPLEX: Duration = Duration::from_secs(2);
const MEASURED: Duration = Duration::from_millis(700);
/// The minimum number of operations. The window is extended for them, up to `BOUND`.
const ENOUGH: u64 = 100;
const BOUND: Duration = Duration::from_secs(10);
/// The length of a check, which measures nothing.
const CHECKED: Duration = Duration::from_millis(300);

/// Figures by name, in the order in which they are reported.
pub(crate) type Figures = Vec<(&'static str, f64)>;

pub(crate) struct Window<'a> {
    server: &'a Server,
    begins: Instant,
    ends: Instant,
    begin: Option<Begin>,
    latencies: Vec<f64>,
}

struct Begin {
    at: Instant,
    cpu: f64,
    count: u64,
}

impl<'a> Window<'a> {
    pub(crate) fn new(server: &'a Server, checked: bool) -> Self {
        Self::after(WARM_UP, server, checked)
    }

    /// A window that begins after so long a warm-up.
    pub(crate) fn after(warm_up: Duration, server: &'a Server, checked: bool) -> Self {
        let (warm_up, measured) = if checked { (Duration::ZERO, CHECKED) } else { (warm_up, MEASURED) };
        let begins = Instant::now() + warm_up;
        Self { server, begins, ends: begins + measured, begin: None, latencies: Vec::new() }
    }

    /// Whether the window is over, given the number of operations so far. To be called continuously.
    pub(crate) fn is_over(&mut self, count: u64) -> io::Result<bool> {
        let at = Instant::now();
        if self.begin.is_none() && at >= self.begins {
            self.begin = Some(Begin { at, cpu: self.server.cpu()?, count });
        }
        let enough = self.begin.as_ref().is_some_and(|begin| count - begin.count >= ENOUGH);
        Ok(at >= self.ends && (enough || at >= self.ends + BOUND))
    }

    pub(crate) fn latency(&mut self, latency: Duration) {
        if self.begin.is_some() {
            self.latencies.push(latency.as_secs_f64() * 1e6);
        }
    }

    /// The server's cost per operation, operations per second, and latencies.
    ///
    /// Operations in flight at the end do not count. As many were in flight at the beginning, under the same load.
    pub(crate) fn figures(mut self, count: u64) -> io::Result<Figures> {
        let Some(begin) = self.begin.filter(|begin| begin.count < count) else {
            return Err(io::Error::other("no operation finished in time"));
        };
        let done = (count - begin.count) as f64;
        let mut figures = vec![
            ("cpu us", (self.server.cpu()? - begin.cpu) / done),
            ("per second", done / begin.at.elapsed().as_secs_f64()),
        ];
        self.latencies.sort_by(f64::total_cmp);
        if let Some(last) = self.latencies.len().checked_sub(1) {
            figures.extend([("p50 us", 50), ("p99 us", 99)].map(|(name, p)| (name, self.latencies[last * p / 100])));
        }
        Ok(figures)
    }
}
