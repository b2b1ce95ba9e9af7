//! Thousands who come and do nothing, or half of something.

use std::io::Write;
use std::net::TcpStream;
use std::sync::Once;
use std::thread;
use std::time::{Duration, Instant};

use crate::aftermath::{ALLOWANCE, Bounds, round_trip, unharmed};
use crate::frames::pair;
use crate::support::raw::{frame, open, upgrade};
use crate::support::{Relay, eventually, raise_file_limit};

/// How many there are, if the limit of open files allows it; and how many there must be.
const CROWD: usize = 5000;
const SMALLEST_CROWD: usize = 1000;

/// How many messages a pair in a crowd exchanges, each way.
const ROUNDS: usize = 200;

/// How soon everything is as it was when a crowd has gone. (Once of several times: each may fall on a moment in which the
/// machine does something else.)
const RECOVERY: Duration = Duration::from_secs(5);

/// A crowd may cost 32 KiB each (while a head is read there is hyper, and its buffer). All of that may remain resident: it
/// is free, but the allocator does not give it back to the system. So that it is not lost, more crowds [come](among), and
/// must not cost more.
const A_CROWD: Bounds =
    Bounds { memory: 8 * 1024 + CROWD * 32, left: 8 * 1024 + CROWD * 32, cpu: Duration::from_secs(20) };

/// Who says nothing costs 4 KiB: a socket, a task, and a place in some tables.
const A_SILENT_CROWD: Bounds =
    Bounds { memory: 8 * 1024 + CROWD * 4, left: 8 * 1024 + CROWD * 4, cpu: Duration::from_secs(20) };

/// What a crowd of so many may cost, that is mostly in the middle of a head.
fn bounds_of(size: usize) -> Bounds {
    Bounds { memory: 8 * 1024 + size * 32, left: ALLOWANCE + size * 32, cpu: Duration::from_secs(10) }
}

/// What another crowd of the same kind may cost more than the one before, in KiB: it does not find the same gaps. (The
/// second finds fewer than the first, and takes up to 17 MiB more.)
const NEXT_CROWD: usize = 12 * 1024;

/// How many there can be, as each is a file here, too. Crowds of several tests share what there is.
fn crowd() -> usize {
    static RAISED: Once = Once::new();
    RAISED.call_once(|| _ = raise_file_limit());
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(u64::MAX);
    let limit = usize::try_from(limit).unwrap();
    // A relay has a quarter of its files for handshakes, but for a reserve.
    let size = CROWD.min(limit.saturating_sub(1000) / 3).min(limit.saturating_sub(100) / 4);
    assert!(size >= SMALLEST_CROWD, "a limit of {limit} open files is too low for this test");
    size
}

/// A pair exchanges messages for a while, without waiting long for any, and the relay is mostly idle. Each round trip is a
/// new one, so that it cannot be answered from anywhere else.
fn pair_goes_on(relay: &Relay, a: &mut TcpStream, b: &mut TcpStream) {
    let (start, cpu) = (Instant::now(), relay.cpu());
    let mut took: Vec<_> = (0..ROUNDS)
        .map(|_| {
            let begin = Instant::now();
            round_trip(a, b);
            let time = begin.elapsed();
            thread::sleep(Duration::from_millis(10)); // not to be the load that is measured
            time
        })
        .collect();
    let (cpu, time) = (relay.cpu() - cpu, start.elapsed());
    took.sort();
    let median = took[ROUNDS / 2];
    println!("a round trip took {median:?}, {:?} at most; {cpu:?} of CPU time in {time:?}", took[ROUNDS - 1]);
    // A millisecond is usual. (The longest may be the machine's.)
    assert!(median < Duration::from_millis(50), "a round trip took {median:?}");
    assert!(cpu < time.mul_f64(0.3), "{cpu:?} of CPU time in {time:?}");
}

/// A crowd in which each sends these bytes and then nothing; a pair was there before it. Then the same again and again.
fn among(bounds: Bounds, bytes: impl Fn(usize) -> Vec<u8>) {
    let size = crowd();
    // They come as fast as they can, which may take a slow machine longer than 10 s.
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
            eventually("all of them are in", || relay.files() >= before + size);
            if took.is_empty() {
                pair_goes_on(relay, &mut a, &mut b);
            }
            took.push(relay.memory("VmRSS"));
            drop((crowd, a, b));
            let begin = Instant::now();
            eventually("nobody is left", || relay.pairs() == 0);
            relay.assert_empty();
            recovery = recovery.min(begin.elapsed());
        }
        println!("{took:?} KiB with crowds of {size}; {recovery:?} to recover");
        assert!(recovery < RECOVERY, "it took {recovery:?}");
        // Whatever the allocator does with one of them: what leaked would be there with each.
        let least = took[2].saturating_sub(took[1]).min(took[3].saturating_sub(took[2]));
        assert!(least <= NEXT_CROWD, "memory has grown: {took:?} KiB");
    });
}

#[test]
fn a_pair_goes_on_among_thousands_that_say_nothing() {
    among(A_SILENT_CROWD, |_| Vec::new());
}

#[test]
fn a_pair_goes_on_among_thousands_with_half_a_head() {
    let head = upgrade("/?pair=half", "");
    among(A_CROWD, |number| head.as_bytes()[..1 + number % (head.len() - 3)].to_vec());
}

#[test]
fn a_pair_goes_on_among_thousands_that_are_alone() {
    among(A_SILENT_CROWD, |number| upgrade(&format!("/?pair={number}"), "").into_bytes());
}

#[test]
fn who_does_not_finish_its_head_is_sent_away() {
    let relay = Relay::start(&[]);
    unharmed(&relay, bounds_of(200), |relay| {
        let before = relay.files();
        let start = Instant::now();
        let mut slow: Vec<_> = (0..200).map(|_| relay.socket()).collect();
        let head = upgrade(&format!("/?pair=slow&{}", "a".repeat(1000)), "");
        // A byte now and then keeps nobody in; whoever was sent away cannot be written to.
        for byte in head.bytes() {
            slow.retain_mut(|socket| socket.write_all(&[byte]).is_ok());
            if slow.is_empty() {
                break;
            }
            thread::sleep(Duration::from_millis(100));
        }
        let took = start.elapsed();
        assert!(slow.is_empty(), "{} are still there after {took:?}", slow.len());
        // Ten seconds, and something for a slow machine; with all its bytes a head would take longer than a minute and a half.
        assert!((10..40).contains(&took.as_secs()), "the last one was sent away after {took:?}");
        eventually("their files are closed", || relay.files() <= before);
    });
}

#[test]
fn without_file_descriptors_a_pair_goes_on() {
    // Those who have left must be noticed, not given up.
    let relay = Relay::start(&["--handshake-timeout", "1h"]);
    unharmed(&relay, bounds_of(64), |relay| {
        relay.limit_files(64); // which it could not know at its start
        let (mut a, mut b) = pair(relay, "pair");
        let before = relay.files();
        let crowd: Vec<_> = (0..200).map(|_| relay.socket()).collect();
        // When they are, the oldest have to go, and the others get their places.
        eventually("its files are used up", || relay.files() >= 40);
        pair_goes_on(relay, &mut a, &mut b);
        drop(crowd);
        assert_only_a_pair(relay, before);
        round_trip(&mut a, &mut b);
        // Again, with those who have a seat: nobody sends them away.
        let alone: Vec<_> = (0..)
            .map_while(|number| {
                (relay.files() < 63).then(|| {
                    let mut socket = relay.socket();
                    open(&mut socket, &format!("/?pair={number}"), &frame(0x82, b"waiting"));
                    socket
                })
            })
            .collect();
        assert!(alone.len() > 20, "only {} of them had room", alone.len());
        let late: Vec<_> = (0..100).map(|_| relay.socket()).collect();
        pair_goes_on(relay, &mut a, &mut b);
        drop((alone, late));
        assert_only_a_pair(relay, before);
        drop((a, b));
        relay.assert_empty();
    });
}

/// Nobody but a pair is left, with so many files open.
fn assert_only_a_pair(relay: &Relay, files: usize) {
    eventually("the others are gone", || relay.pairs() == 1 && relay.files() <= files);
}
