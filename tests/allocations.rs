//! What a connection and a message allocate, counted in this process.
//!
//! The clients are bare sockets, which allocate nothing. So all that is counted belongs to the relay.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod support;

use std::alloc::System;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::{Mutex, MutexGuard, PoisonError};

use arc_relay::{Config, Relay, RelayHandle};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use support::eventually;
use support::raw::open;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// The most bytes of an idle connection, half of what its pair shares included.
///
/// The allocator adds some 70 bytes, as it rounds up.
const IDLE: usize = 784;

/// The pairs that are counted. With those before, they fill the tables, which double when full.
const PAIRS: usize = 216;
const PAIRS_BEFORE: usize = 8;

const MESSAGE: [u8; 9] = [0x82, 0x83, 0, 0, 0, 0, b'a', b'b', b'c'];
const FORWARDED: [u8; 5] = [0x82, 3, b'a', b'b', b'c'];

/// The tests count what the whole process allocates.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn start() -> RelayHandle {
    // Pings would come at their own time.
    Relay::start(Config { host: "127.0.0.1".into(), port: 0, ping_interval: None, ..Config::default() }).unwrap()
}

/// The bytes that are allocated now.
fn allocated() -> usize {
    let stats = ALLOCATOR.stats();
    stats.bytes_allocated - stats.bytes_deallocated
}

fn exchange([a, b]: &[TcpStream; 2]) {
    for (mut from, mut to) in [(a, b), (b, a)] {
        from.write_all(&MESSAGE).unwrap();
        let mut received = [0; FORWARDED.len()];
        to.read_exact(&mut received).unwrap();
        assert_eq!(received, FORWARDED);
    }
}

/// Opens pairs, and exchanges a message each way in each of them.
fn open_pairs(relay: &RelayHandle, pairs: &mut Vec<[TcpStream; 2]>, count: usize) {
    for _ in 0..count {
        let target = format!("/?pair=code-{:06}", pairs.len());
        let pair = [(); 2].map(|()| {
            let mut socket = TcpStream::connect(relay.local_addr()).unwrap();
            open(&mut socket, &target, b"");
            socket
        });
        exchange(&pair);
        pairs.push(pair);
    }
}

/// Stops the relay, and waits for the end of its threads: they would allocate during the other test.
fn stop(relay: RelayHandle, pairs: Vec<[TcpStream; 2]>) {
    drop(pairs);
    smol::block_on(relay.stop());
}

#[test]
#[cfg(target_pointer_width = "64")]
fn idle_connection_takes_no_more_than_it_should() {
    let _alone = alone();
    support::raise_file_limit();
    let (relay, mut pairs) = (start(), Vec::with_capacity(PAIRS_BEFORE + PAIRS));
    open_pairs(&relay, &mut pairs, PAIRS_BEFORE);
    let before = allocated();
    open_pairs(&relay, &mut pairs, PAIRS);
    // The last connection may still be in its step.
    let mut least = usize::MAX;
    eventually("an idle connection is small", || {
        least = least.min((allocated() - before) / (2 * PAIRS));
        println!("{least} bytes");
        least <= IDLE
    });
    assert!(least > IDLE - 32, "only {least} bytes: lower the bound");
    stop(relay, pairs);
}

#[test]
fn message_allocates_nothing() {
    let _alone = alone();
    let (relay, mut pairs) = (start(), Vec::with_capacity(1));
    open_pairs(&relay, &mut pairs, 1);
    exchange(&pairs[0]);
    let before = ALLOCATOR.stats().allocations;
    for _ in 0..1000 {
        exchange(&pairs[0]);
    }
    let count = ALLOCATOR.stats().allocations - before;
    // Once in a while, a beat's timer and a task's queue allocate.
    assert!(count < 100, "{count} allocations for 2000 messages");
    stop(relay, pairs);
}
