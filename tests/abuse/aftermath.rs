//! What every case begins and ends with: afterwards the relay is what it was before.

use std::io::Write;
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use crate::frames::{Frames, pair};
use crate::support::raw::{expect, frame, server_frame};
use crate::support::{Relay, pattern};

/// What one or two clients may leave resident, in KiB. Before a case, a pair has streamed, so that the
/// worker keeps as many free buffers as it ever does. What remains is what the allocator cannot give back at once, as
/// something that lives lies behind it, and tables that have grown (open files, tasks, timers).
pub(crate) const ALLOWANCE: usize = 1024;

/// What a case may cost while it goes on.
#[derive(Clone, Copy)]
pub(crate) struct Bounds {
    /// The most memory that may be resident, in KiB.
    pub(crate) memory: usize,
    /// How much more memory may be resident afterwards than before, in KiB.
    pub(crate) left: usize,
    /// User and system time of the relay. Ten times what it takes, and more: it finds what is quadratic, or spins.
    pub(crate) cpu: Duration,
}

/// Two clients may make the relay hold four buffers of 256 KiB; the program and its free buffers take the rest.
pub(crate) const A_PAIR: Bounds = Bounds { memory: 8 * 1024, left: ALLOWANCE, cpu: Duration::from_secs(10) };

/// Plays a case against a relay, and checks what it cost, and that it has left nothing behind: no pair, no open file, no
/// memory, and a relay that joins the next two.
pub(crate) fn unharmed(relay: &Relay, bounds: Bounds, case: impl FnOnce(&Relay)) {
    stream(relay);
    relay.assert_empty();
    let before = relay.memory("VmRSS");
    forget_peak(relay);
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

/// A message each way.
pub(crate) fn round_trip(a: &mut TcpStream, b: &mut TcpStream) {
    a.write_all(&frame(0x82, b"there")).unwrap();
    expect(b, &server_frame(0x82, b"there"));
    b.write_all(&frame(0x82, b"and back")).unwrap();
    expect(a, &server_frame(0x82, b"and back"));
}

/// A pair that streams both ways.
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

/// Begins to measure the peak (`VmHWM`) anew.
pub(crate) fn forget_peak(relay: &Relay) {
    let file = format!("/proc/{}/clear_refs", relay.pid().as_raw_nonzero());
    std::fs::write(file, "5").expect("a process of our own");
}
