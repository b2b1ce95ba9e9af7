//! The flow control towards a client: its window, and whether it is fast. Pure: no I/O, no clock.
//!
//! Kernels and proxies take megabytes for a client that reads some kilobytes in a second. A pong to the client waits behind
//! them, and so does each new message; the sender's pings wait behind what its own system has taken. Libraries give up a
//! connection when a pong takes longer than 20 s. So the relay bounds bytes by the time in which the client takes them.
//! The answers to [marks](crate::connection::in_flight) tell that time:
//!
//! 1. The *window* is the number of bytes in flight up to which the peer gets its credit back. An answer that takes longer than
//!    [`SLOW`] shrinks it to the bytes that the client takes in that time. A [fast](FAST) answer lets it grow by the bytes
//!    taken, if they filled half of it. So the window of a steady reader is worth one to four seconds. A window of
//!    [`MOST`] is no bound any more.
//! 2. A client is *fast* if it takes [`FAST_RATE`], or if a stream came, its window was never shut, and its answers took no longer
//!    than a round trip: then the peer is the slower one. The peer's system may receive ahead only for a fast client.
//!
//! A client's library takes some hundred KiB at once, however slow its program is. So in the first period of a stream, the
//! window is only a quarter of the bytes taken, if that is more than it was. And the first [`TELLING`] of a stream do
//! not make a client fast.
//!
//! A client that answers no mark cannot have a window. It is [lifted](Flow::lift) after a while. Only the kernel's limits
//! are left then. The same holds for a client that answers no more while other bytes come from it: its pongs wait behind a
//! long message of its own, or it reads nothing and the write timeout has to notice.

use std::time::{Duration, Instant};

/// An answer that takes longer makes the window smaller.
///
/// It is a fraction of the 20 s that common libraries wait for a pong, and longer than any line's round trip.
const SLOW: Duration = Duration::from_secs(4);

/// An answer that takes less time is fast: a round trip by satellite takes 0.6 s.
const FAST: Duration = Duration::from_secs(1);

/// The time over which a rate is measured.
const PERIOD: Duration = Duration::from_secs(1);

/// The window of a new connection, in KiB: two seconds at 32 KiB/s.
const INITIAL: u16 = 64;

/// The least window, in KiB: eight seconds at 4 KiB/s.
const LEAST: u16 = 32;

/// The window that is no bound, in KiB.
///
/// [`InFlight`](super::in_flight::InFlight) counts no more bytes.
const MOST: u16 = 32 << 10;

/// The bytes that a fast client takes in a second.
///
/// By Linux' defaults, a sender's queue (`tcp_wmem`) and the relay's receive buffer (`tcp_rmem`) hold 10 MiB. A sender's
/// ping gets through them in 20 s at this rate.
const FAST_RATE: u64 = 512 << 10;

/// The bytes in a second below which a stream does not show that its sender is the slower one.
const LEAST_STREAM: u64 = 32 << 10;

/// How much longer than two round trips a prompt answer may take.
const JITTER: Duration = Duration::from_millis(100);

/// The bytes of a stream that a client's library may take without its program.
const TELLING: u64 = 512 << 10;

/// A part of a stream, over which a rate is measured.
#[derive(Debug)]
pub(super) struct Period {
    since: Instant,
    /// Bytes that the client has taken in it.
    taken: u64,
    /// Bytes of the stream that the client took before it.
    before: u64,
    /// Whether an answer took longer than [`FAST`].
    was_slow: bool,
    /// The longest time of an answer in it.
    longest: Duration,
    /// The shortest time of an answer in the stream: a round trip, or little more.
    shortest: Duration,
    /// Whether the peer has waited for the window.
    pub(super) was_shut: bool,
}

impl Period {
    /// The first period of a stream.
    pub(super) fn new(since: Instant) -> Self {
        let (longest, shortest) = (Duration::ZERO, Duration::MAX);
        Self { since, taken: 0, before: 0, was_slow: false, longest, shortest, was_shut: false }
    }

    /// Whether the stream has ended: nothing was taken for some periods.
    pub(super) fn is_stale(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.since) > 5 * PERIOD
    }

    fn is_first(&self) -> bool {
        self.before == 0
    }

    /// Whether the client has taken more of the stream than its library takes without its program.
    fn is_telling(&self) -> bool {
        self.before + self.taken >= TELLING
    }

    /// The bytes in a second that the client has taken in it.
    fn rate(&self, now: Instant) -> u64 {
        let lasted = now.saturating_duration_since(self.since).max(Duration::from_millis(1)).as_millis();
        u64::try_from(u128::from(self.taken) * 1000 / lasted).unwrap_or(u64::MAX)
    }
}

/// The window of a client, and what is known of its pace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Flow {
    window_kib: u16,
    is_answering: bool,
    is_fast: bool,
}

impl Flow {
    /// The flow of a new connection.
    pub(super) const fn new() -> Self {
        Self { window_kib: INITIAL, is_answering: false, is_fast: false }
    }

    /// Whether the client has ever answered a mark.
    pub(super) fn is_answering(self) -> bool {
        self.is_answering
    }

    /// Whether the client takes bytes as fast as they come, as far as is known.
    pub(super) fn is_fast(self) -> bool {
        self.is_fast || self.is_answering && self.is_lifted()
    }

    /// Whether more bytes may be sent while so many are in flight.
    pub(super) fn is_open(self, in_flight: u32) -> bool {
        self.is_lifted() || in_flight < self.window()
    }

    /// Whether a mark is due, as the window is half full and its last quarter has none.
    pub(super) fn wants_mark(self, in_flight: u32, unmarked: u32) -> bool {
        !self.is_lifted() && in_flight >= self.window() / 2 && unmarked >= self.window() / 4
    }

    /// Adapts the window to an answer that took this `time`.
    ///
    /// `ahead` are the bytes that were in flight when its mark was sent. The answer says that `taken` more bytes are taken.
    pub(super) fn adapt(&mut self, period: &mut Period, time: Duration, ahead: u32, taken: u32) {
        period.was_slow |= time >= FAST;
        (period.longest, period.shortest) = (period.longest.max(time), period.shortest.min(time));
        if time > SLOW {
            let bytes = u128::from(ahead) * SLOW.as_millis() / time.as_millis().max(1);
            self.window_kib = self.window_kib.min(kib(bytes)).max(LEAST);
        }
        self.grow(period, time, ahead, taken);
    }

    /// The part of [`adapt`](Self::adapt) that can only widen the window.
    pub(super) fn grow(&mut self, period: &mut Period, time: Duration, ahead: u32, taken: u32) {
        period.taken += u64::from(taken);
        if time < FAST && !period.is_first() && ahead >= self.window() / 2 {
            self.window_kib = self.window_kib.saturating_add(kib(taken.into())).min(MOST);
        }
    }

    /// Learns from a period, and ends it if it has lasted long enough.
    ///
    /// If its last answer is not `measured`, the client does not become slow.
    pub(super) fn learn(&mut self, period: &mut Period, is_measured: bool, now: Instant) {
        let is_over = now.saturating_duration_since(period.since) >= PERIOD;
        let (rate, is_telling) = (period.rate(now), period.is_telling());
        if period.is_first() && !is_over && !period.was_slow {
            self.window_kib = self.window_kib.max(kib((period.taken / 4).into())).min(MOST);
        }
        if is_telling && (is_over || period.before < TELLING) {
            let is_prompt = period.longest <= period.shortest.saturating_mul(2).saturating_add(JITTER);
            let is_open = !period.was_shut && is_prompt && rate >= LEAST_STREAM;
            self.is_fast = is_open || rate >= FAST_RATE || self.is_fast && !is_measured;
        }
        if is_over {
            let (before, shortest) = (period.before + period.taken, period.shortest);
            *period = Period { before, shortest, ..Period::new(now) };
        }
    }

    /// Notes an answer of the client: it can have a window.
    pub(super) fn begin(&mut self) {
        if !self.is_answering {
            *self = Self { is_answering: true, ..Self::new() };
        }
    }

    /// Removes the bound.
    pub(super) fn lift(&mut self) {
        self.window_kib = MOST;
    }

    fn is_lifted(self) -> bool {
        self.window_kib >= MOST
    }

    fn window(self) -> u32 {
        u32::from(self.window_kib) << 10
    }
}

fn kib(bytes: u128) -> u16 {
    u16::try_from(bytes >> 10).unwrap_or(u16::MAX)
}
