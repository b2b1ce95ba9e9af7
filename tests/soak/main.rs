//! Pairs that join, send and leave in every way, over real sockets and for any length of time.
//!
//! Every byte is verified, and the relay's memory and open files are monitored.
//!
//! `cargo test` runs it for some seconds. `ARC_RELAY_SOAK=20m cargo test --release --test soak -- --nocapture` runs it
//! for 20 minutes. `ARC_RELAY_SOAK_SEED` sets the first pair's seed.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod pair;
mod stream;
#[path = "../support/mod.rs"]
mod support;

use std::io::{self, Write};
use std::sync::Once;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use pair::DEPARTURES;
use rustix::process::{Pid, Signal, kill_process};
use support::{Relay, eventually};

/// The number of pairs at a time.
const PAIRS: u64 = 24;

/// The maximum growth of the relay's memory after the second quiet point, in KiB.
///
/// The pool's share of large buffers (1.7 MiB for its worker) may have been smaller at the second point. A leak of a
/// kilobyte for each pair shows in an hour, a leak of a buffer within seconds.
const GROWTH: usize = 2048;

/// Additional growth that a soak of less than a minute allows.
///
/// Until its second quiet point, such a soak has reached less of everything: a buffer for each pair that the allocator
/// has not returned. Only lost buffers show within seconds.
const SHORT: usize = PAIRS as usize * 256;

/// The maximum memory of the relay at any time, in KiB.
///
/// It covers two buffers of 256 KiB for each pair and direction, the pool, and the program itself. The factor of two is
/// for memory that the allocator cannot return.
const MOST: usize = 2 * (PAIRS as usize * 4 * 256 + 1700 + 4000);

/// The totals of all pairs so far.
#[derive(Default)]
struct Totals {
    pairs: AtomicU64,
    messages: AtomicU64,
    bytes: AtomicU64,
    pings: AtomicU64,
    departures: [AtomicU64; 5],
}

#[test]
fn soak() {
    let variable = |name: &str| std::env::var(name).ok();
    let duration = variable("ARC_RELAY_SOAK").unwrap_or("5s".into());
    let duration = humantime::parse_duration(&duration).expect("a duration like 20m");
    let seed: u64 = variable("ARC_RELAY_SOAK_SEED").map_or(0, |seed| seed.parse().expect("a number"));
    println!("soak: {PAIRS} pairs at a time for {duration:?}, beginning with seed {seed}");

    // The clients write and read in separate threads, so they cannot answer pings between two frames.
    let relay = Relay::start(&[support::NO_PINGS, &["--probe-timeout", "0"]].concat());
    stop_at_the_first_panic(relay.pid());
    let totals = Totals::default();
    let next = AtomicU64::new(seed);
    // The number of current pairs; whether new pairs have to wait; whether the soak is over.
    let (playing, quiet, over) = (AtomicUsize::new(0), AtomicBool::new(false), AtomicBool::new(false));
    thread::scope(|scope| {
        for _ in 0..PAIRS {
            scope.spawn(|| {
                while !over.load(SeqCst) {
                    playing.fetch_add(1, SeqCst);
                    if quiet.load(SeqCst) {
                        playing.fetch_sub(1, SeqCst);
                        thread::sleep(Duration::from_millis(20));
                        continue;
                    }
                    let seed = next.fetch_add(1, SeqCst);
                    let play = || pair::play(&relay, seed, &totals);
                    let played = thread::scope(|scope| pair::spawn(scope, seed, play).join());
                    if played.is_err() {
                        over.store(true, SeqCst);
                    }
                    playing.fetch_sub(1, SeqCst);
                }
            });
        }
        scope.spawn(|| {
            while !over.load(SeqCst) {
                disturb(&relay);
                thread::sleep(Duration::from_millis(50));
            }
        });
        watch(&relay, duration, &totals, &playing, &quiet);
        over.store(true, SeqCst);
    });
}

/// Prints the first panic, even where output is captured, and kills the relay.
///
/// The first panic is the informative one. Without the relay, all waiting threads come to an end.
fn stop_at_the_first_panic(relay: Pid) {
    let first = Once::new();
    std::panic::set_hook(Box::new(move |panic| {
        first.call_once(|| {
            let _ = writeln!(io::stderr(), "soak: {}: {panic}", thread::current().name().unwrap_or_default());
            let _ = kill_process(relay, Signal::KILL);
        });
    }));
}

/// Untrusted clients, which must not affect any pair.
fn disturb(relay: &Relay) {
    let health = relay.http("GET /health HTTP/1.1\r\nHost: soak\r\nConnection: close\r\n\r\n");
    assert!(health.starts_with("HTTP/1.1 200 "), "{health}");
    let garbage = relay.http("\u{16}\u{3}\u{1}\r\n\r\n");
    assert!(garbage.starts_with("HTTP/1.1 400 "), "{garbage}");
    let _ = relay.socket().write_all(b"GET /?pair=soak0 HTTP/1.1\r\nHost:");
}

/// Prints the relay's state, and checks at quiet points that nothing is left of the pairs.
fn watch(relay: &Relay, duration: Duration, totals: &Totals, playing: &AtomicUsize, quiet: &AtomicBool) {
    let start = Instant::now();
    let period = (duration / 10).clamp(Duration::from_secs(1), Duration::from_secs(120));
    let mut settled = Vec::new();
    let mut most = 0;
    let growth = if duration < Duration::from_secs(60) { GROWTH + SHORT } else { GROWTH };
    while start.elapsed() < duration {
        let begin = Instant::now();
        while begin.elapsed() < period {
            thread::sleep((period / 10).clamp(Duration::from_millis(500), Duration::from_secs(10)));
            most = most.max(report(relay, start, totals, ""));
            assert!(most <= MOST, "{most} KiB");
        }
        quiet.store(true, SeqCst);
        eventually_quiet(playing);
        eventually("no pairs are left", || relay.pairs() == 0);
        settled.push(report(relay, start, totals, ", quiet"));
        if let &[_, second, .., last] = &settled[..] {
            assert!(last <= second + growth, "memory has grown: {settled:?} KiB");
        }
        quiet.store(false, SeqCst);
    }
    quiet.store(true, SeqCst);
    eventually_quiet(playing);
    relay.assert_empty();
    let count = |number: &AtomicU64| number.load(SeqCst);
    let departures: Vec<_> =
        DEPARTURES.iter().zip(&totals.departures).map(|(name, number)| format!("{} {name}", count(number))).collect();
    println!(
        "soak: {} pairs left ({}), {} messages, {} MiB and {} pings; at most {most} KiB, {settled:?} KiB at quiet points; {:?} CPU",
        count(&totals.pairs),
        departures.join(", "),
        count(&totals.messages),
        count(&totals.bytes) >> 20,
        count(&totals.pings),
        relay.cpu()
    );
    assert!(count(&totals.pairs) > 0 && count(&totals.bytes) > 0, "no pair has sent anything");
}

fn eventually_quiet(playing: &AtomicUsize) {
    let start = Instant::now();
    while playing.load(SeqCst) > 0 {
        assert!(start.elapsed() < Duration::from_secs(180), "a pair did not end in time");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Prints a line, and returns the memory in KiB.
fn report(relay: &Relay, start: Instant, totals: &Totals, when: &str) -> usize {
    let memory = relay.memory("VmRSS");
    let count = |number: &AtomicU64| number.load(SeqCst);
    println!(
        "{:6} s: {memory:6} KiB, {:3} files, {:3} pair codes; {:6} pairs have left, {:8} messages, {:7} MiB{when}",
        start.elapsed().as_secs(),
        relay.files(),
        relay.pairs(),
        count(&totals.pairs),
        count(&totals.messages),
        count(&totals.bytes) >> 20,
    );
    memory
}
