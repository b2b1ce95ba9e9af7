//! Thousands of clients that do nothing, or stop halfway.

use std::io::Write;
use std::net::TcpStream;
use std::num::NonZeroUsize;
use std::sync::Once;
use std::thread;
use std::time::{Duration, Instant};

use crate::aftermath::{ALLOWANCE, Bounds, round_trip, unharmed};
use crate::frames::pair;
use crate::support::raw::{frame, open, upgrade};
use crate::support::{Relay, eventually, raise_file_limit, workers};

/// The size of a crowd, if the limit of open files allows it.
const CROWD: usize = 5000;

/// The least size of a crowd.
const SMALLEST_CROWD: usize = 1000;

/// The number of messages that a pair in a crowd exchanges each way.
const ROUNDS: usize = 200;

/// The longest recovery after a crowd has left.
///
/// The fastest of several recoveries counts, because the machine may be busy with something else during one.
const RECOVERY: Duration = Duration::from_secs(5);

/// Bounds for a crowd with half a head each: 4 KiB, as for a silent connection, and 1 KiB for the head.
///
/// All of that may remain resident: it is free, but the allocator does not give it back to the system. More crowds
/// [come](among), and must not cost more.
const A_CROWD: Bounds =
    Bounds { memory: 8 * 1024 + CROWD * 5, left: 8 * 1024 + CROWD * 5, cpu: Duration::from_secs(20) };

/// Bounds for a crowd of silent clients: 4 KiB each, for a socket, a task, and entries in some tables.
const A_SILENT_CROWD: Bounds =
    Bounds { memory: 8 * 1024 + CROWD * 4, left: 8 * 1024 + CROWD * 4, cpu: Duration::from_secs(20) };

/// Bounds for a crowd of this size that sends a part of a head.
fn bounds_of(size: usize) -> Bounds {
    Bounds { memory: 8 * 1024 + size * 32, left: ALLOWANCE + size * 32, cpu: Duration::from_secs(10) }
}

/// The additional memory that a crowd may take over the one before, in KiB.
///
/// Fragmentation makes it differ. (The second crowd takes up to 17 MiB more than the first.)
const NEXT_CROWD: usize = 12 * 1024;

/// The size of a crowd within the limit of open files, which the crowds of several tests share.
fn crowd() -> usize {
    static RAISED: Once = Once::new();
    RAISED.call_once(|| _ = raise_file_limit());
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(u64::MAX);
    let limit = usize::try_from(limit).unwrap();
    // A relay has a quarter of its files for handshakes, apart from a reserve of 34 for each worker and 64 besides.
    let reserve = 70 + 34 * workers().map_or(1, NonZeroUsize::get);
    let size = CROWD.min(limit.saturating_sub(1000) / 3).min(limit.saturating_sub(reserve) / 4);
    assert!(size >= SMALLEST_CROWD, "a limit of {limit} open files is too low for this test");
    size
}

/// Asserts that a pair's round trips are fast, and that the relay is mostly idle meanwhile.
fn pair_goes_on(relay: &Relay, a: &mut TcpStream, b: &mut TcpStream) {
    let (start, cpu) = (Instant::now(), relay.cpu());
    let mut took: Vec<_> = (0..ROUNDS)
        .map(|_| {
            let begin = Instant::now();
            round_trip(a, b);
            let time = begin.elapsed();
            thread::sleep(Duration::from_millis(10)); // so that the pair itself causes little load
            time
        })
        .collect();
    let (cpu, time) = (relay.cpu() - cpu, start.elapsed());
    took.sort();
    let median = took[ROUNDS / 2];
    println!("a round trip took {median:?}, {:?} at most; {cpu:?} of CPU time in {time:?}", took[ROUNDS - 1]);
    // A millisecond is usual. The maximum is not checked, because the machine may cause it.
    assert!(median < Duration::from_millis(50), "a round trip took {median:?}");
    assert!(cpu < time.mul_f64(0.3), "{cpu:?} of CPU time in {time:?}");
}

/// Runs four crowds around a live pair. Each client of a crowd sends `bytes`, and then nothing.
fn among(bounds: Bounds, bytes: impl Fn(usize) -> Vec<u8>) {
    let size = crowd();
    // On a slow machine, the arrival of a crowd may take longer than the default handshake timeout.
    let relay = Relay::start(&["--max-handshakes", "100000", "--handshake-timeout", "1h"]);
    unharmed(&relay, bounds, |relay| {
        let (mut took, mut recovery) = (Vec::new(), Duration::MAX);
        for _ in 0..4 {
            let (mut a, mut b) = pair(relay, "pair");
            let before = relay.files();
            let crowd: Vec<_> = (0..size)
                .map(|number| {
                    let mut socket = relay.socket();
                    socket.write_all(&bytes(number)).unwrap();
                    socket
                })
                .collect();
            eventually("the whole crowd is accepted", || relay.files() >= before + size);
            if took.is_empty() {
                pair_goes_on(relay, &mut a, &mut b);
            }
            took.push(relay.memory("VmRSS"));
            drop((crowd, a, b));
            let begin = Instant::now();
            eventually("no pair is left", || relay.pairs() == 0);
            relay.assert_empty();
            recovery = recovery.min(begin.elapsed());
        }
        println!("{took:?} KiB with crowds of {size}; {recovery:?} to recover");
        assert!(recovery < RECOVERY, "it took {recovery:?}");
        // The allocator may account for growth with one crowd. A leak would show with each.
        let least = took[2].saturating_sub(took[1]).min(took[3].saturating_sub(took[2]));
        assert!(least <= NEXT_CROWD, "memory has grown: {took:?} KiB");
    });
}

#[test]
fn pair_is_undisturbed_by_thousands_of_silent_connections() {
    among(A_SILENT_CROWD, |_| Vec::new());
}

#[test]
fn pair_is_undisturbed_by_thousands_of_unfinished_heads() {
    let head = upgrade("/?pair=half", "");
    among(A_CROWD, |number| head.as_bytes()[..1 + number % (head.len() - 3)].to_vec());
}

#[test]
fn pair_is_undisturbed_by_thousands_of_waiting_clients() {
    among(A_SILENT_CROWD, |number| upgrade(&format!("/?pair={number}"), "").into_bytes());
}

#[test]
fn clients_that_never_finish_their_heads_are_closed() {
    let relay = Relay::start(&[]);
    unharmed(&relay, bounds_of(200), |relay| {
        let before = relay.files();
        let start = Instant::now();
        let mut slow: Vec<_> = (0..200).map(|_| relay.socket()).collect();
        let head = upgrade(&format!("/?pair=slow&{}", "a".repeat(1000)), "");
        // Each client sends a byte at a time. Writing fails once the relay has closed the connection.
        for byte in head.bytes() {
            slow.retain_mut(|socket| socket.write_all(&[byte]).is_ok());
            if slow.is_empty() {
                break;
            }
            thread::sleep(Duration::from_millis(100));
        }
        let took = start.elapsed();
        assert!(slow.is_empty(), "{} are still connected after {took:?}", slow.len());
        // Ten seconds, and some for a slow machine. A whole head would take more than a minute and a half.
        assert!((10..40).contains(&took.as_secs()), "the last one was closed after {took:?}");
        eventually("their files are closed", || relay.files() <= before);
    });
}

#[test]
fn pair_is_undisturbed_while_the_relay_is_out_of_file_descriptors() {
    // The relay must notice departures; no handshake may end by its timeout.
    let relay = Relay::start(&["--handshake-timeout", "1h"]);
    unharmed(&relay, bounds_of(64), |relay| {
        relay.limit_files(64); // below the limit that the relay has seen at its start
        let (mut a, mut b) = pair(relay, "pair");
        let before = relay.files();
        let crowd: Vec<_> = (0..200).map(|_| relay.socket()).collect();
        // At the limit, the oldest silent connections are closed to admit new ones.
        eventually("its files are used up", || relay.files() >= 40);
        pair_goes_on(relay, &mut a, &mut b);
        drop(crowd);
        assert_only_a_pair(relay, before);
        round_trip(&mut a, &mut b);
        // The same with waiting clients, which are not closed to admit new ones.
        let alone: Vec<_> = (0..)
            .map_while(|number| {
                (relay.files() < 63).then(|| {
                    let mut socket = relay.socket();
                    open(&mut socket, &format!("/?pair={number}"), &frame(0x82, b"waiting"));
                    socket
                })
            })
            .collect();
        assert!(alone.len() > 20, "only {} of them were admitted", alone.len());
        let late: Vec<_> = (0..100).map(|_| relay.socket()).collect();
        pair_goes_on(relay, &mut a, &mut b);
        drop((alone, late));
        assert_only_a_pair(relay, before);
        drop((a, b));
        relay.assert_empty();
    });
}

/// Waits until a single pair is left, and no more than this number of files is open.
fn assert_only_a_pair(relay: &Relay, files: usize) {
    eventually("only the pair is left", || relay.pairs() == 1 && relay.files() <= files);
}
