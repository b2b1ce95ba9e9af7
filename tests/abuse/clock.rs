//! The system's time jumps while the relay runs: a year ahead, far back, and right again.
//!
//! Root in a container may not set the time. So the relay runs with libfaketime, which fakes the wall clock and leaves
//! the monotonic clock alone. Without libfaketime, the test says so and passes, unless `ARC_RELAY_FAKETIME` is
//! `required`, as in `.ci/run`.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::aftermath::{A_PAIR, round_trip, unharmed};
use crate::frames::{Frames, pair};
use crate::support::raw::{expect, open};
use crate::support::{Relay, arc_relay, scratch};

const TTL: Duration = Duration::from_secs(3);

/// The library of Debian's package, on any architecture.
fn libfaketime() -> Option<PathBuf> {
    let machines = fs::read_dir("/usr/lib").ok()?.flatten();
    machines.map(|machine| machine.path().join("faketime/libfaketimeMT.so.1")).find(|library| library.exists())
}

/// The years of the timestamps in a log.
fn years(log: &Path) -> BTreeSet<u16> {
    fs::read_to_string(log).unwrap().lines().map(|line| line[..4].parse().unwrap()).collect()
}

#[test]
fn jumps_of_the_wall_clock_are_harmless() {
    let Some(library) = libfaketime() else {
        let required = std::env::var("ARC_RELAY_FAKETIME").is_ok_and(|value| value == "required");
        assert!(!required, "libfaketime is not installed");
        println!("skipped: libfaketime is not installed");
        return;
    };
    let (time, log) = (scratch("time"), scratch("time-log"));
    fs::write(&time, "+0").unwrap();
    let mut command = arc_relay();
    command
        .args(["start", "--host", "127.0.0.1", "--port", "0", "--pair-ttl", "3s", "--log-level", "info"])
        .env("LD_PRELOAD", library)
        .env("FAKETIME_TIMESTAMP_FILE", &time)
        .env("FAKETIME_NO_CACHE", "1")
        .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
        .env("ARC_RELAY_LOG_LEVEL", "info")
        .stderr(File::create(&log).unwrap());
    let relay = Relay::spawn(command);
    unharmed(&relay, A_PAIR, |relay| {
        let (mut a, mut b) = pair(relay, "x");
        for jump in ["+400d", "-800d", "+0"] {
            let mut late = relay.socket();
            late.write_all(b"GET /health HTTP/1.1\r\nHost: late\r\n").unwrap();
            let (before, mut waiting) = (Instant::now(), relay.socket());
            open(&mut waiting, "/?pair=alone", b"");

            fs::write(&time, jump).unwrap();

            late.write_all(b"Connection: close\r\n\r\n").unwrap();
            expect(&mut late, b"HTTP/1.1 200 OK\r\n");
            round_trip(&mut a, &mut b);
            // The waiting client expires, but not early.
            assert_eq!(Frames::of(&waiting).closed(), (1001, String::from("pair expired")));
            assert!(before.elapsed() >= TTL, "it expired after {:?}", before.elapsed());
            round_trip(&mut a, &mut b);
        }
    });
    let years = years(&log);
    assert!(years.len() >= 3, "the log shows no jump, but only {years:?}");
}
