//! The frame of every case: the relay must be afterwards as it was before.

use std::io::Write;
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use crate::frames::{Frames, pair};
use crate::support::raw::{expect, frame, server_frame};
use crate::support::{Relay, pattern};

/// The memory that one or two clients may leave resident, in KiB.
///
/// It covers freed memory that the allocator cannot return, because live memory lies behind it, and grown tables (open
/// files, tasks, timers). It need not cover free buffers: before a case, a pair has streamed, so the worker already
/// keeps as many as it ever does.
pub(crate) const ALLOWANCE: usize = 1024;

/// The resources that a case may cost.
#[derive(Clone, Copy)]
pub(crate) struct Bounds {
    /// The peak of resident memory, in KiB.
    pub(crate) memory: usize,
    /// The growth of resident memory from before to after the case, in KiB.
    pub(crate) left: usize,
    /// User and system time of the relay.
    ///
    /// At ten times the usual time and more, it finds quadratic costs and busy loops.
    pub(crate) cpu: Duration,
}

/// Bounds for two clients, which may make the relay hold four buffers of 256 KiB.
///
/// The program and its free buffers take the rest.
pub(crate) const A_PAIR: Bounds = Bounds { memory: 8 * 1024, left: ALLOWANCE, cpu: Duration::from_secs(10) };

/// Runs a case against a relay, and asserts its bounds and that it has left nothing behind.
///
/// Afterwards there is no pair, no additional open file or memory, and the relay joins the next two clients.
pub(crate) fn unharmed(relay: &Relay, bounds: Bounds, case: impl FnOnce(&Relay)) {
    stream(relay);
    relay.assert_empty();
    let before = relay.memory("VmRSS");
    reset_peak(relay);
    let cpu = relay.cpu();

    case(relay);

    let (most, cpu) = (relay.memory("VmHWM"), relay.cpu() - cpu);
    println!("{before} KiB before, at most {most} KiB, {cpu:?} of CPU time");
    assert!(most <= bounds.memory, "{most} KiB were resident");
    assert!(cpu <= bounds.cpu, "it took {cpu:?} of CPU time");
    relay.assert_empty();
    let (mut a, mut b) = pair(relay, "afterwards");
    round_trip(&mut a, &mut b);
    drop((a, b));
    relay.assert_empty();
    let after = relay.memory("VmRSS");
    println!("{after} KiB after");
    assert!(after <= before + bounds.left, "{before} KiB were resident before, {after} KiB are after");
}

/// Sends a message each way.
pub(crate) fn round_trip(a: &mut TcpStream, b: &mut TcpStream) {
    a.write_all(&frame(0x82, b"there")).unwrap();
    expect(b, &server_frame(0x82, b"there"));
    b.write_all(&frame(0x82, b"and back")).unwrap();
    expect(a, &server_frame(0x82, b"and back"));
}

/// Connects a pair that streams both ways.
fn stream(relay: &Relay) {
    let (a, b) = pair(relay, "before");
    let message = pattern(1 << 20, 1);
    let sent = frame(0x82, &message).repeat(4);
    thread::scope(|scope| {
        for (mut from, to) in [(&a, &b), (&b, &a)] {
            let (sent, message) = (&sent, &message);
            scope.spawn(move || from.write_all(sent).unwrap());
            scope.spawn(move || {
                let mut frames = Frames::of(to);
                (0..4).for_each(|_| assert!(frames.message().1 == *message));
            });
        }
    });
}

/// Resets the peak of resident memory (`VmHWM`).
pub(crate) fn reset_peak(relay: &Relay) {
    let file = format!("/proc/{}/clear_refs", relay.pid().as_raw_nonzero());
    std::fs::write(file, "5").expect("a process of our own");
}
