//! Conformance to RFC 6455, row by row, over real sockets.
//!
//! `src/simulation/conformance.rs` runs the same rows in memory.
//! `ARC_RELAY_CASE=6.3 cargo test --test conformance` runs a single row.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod cases;
#[path = "../support/mod.rs"]
mod support;
mod verdict;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread;

use cases::{Case, End, LIMIT, SENTINEL, cases};
use support::raw::{frame, open};
use support::{NO_PINGS, Relay};
use verdict::{Received, judge};

/// The names of the groups, by their number.
const GROUPS: [&str; 9] = [
    "framing",
    "pings and pongs",
    "reserved bits",
    "opcodes",
    "fragmentation",
    "UTF-8",
    "closing",
    "masking",
    "limits and lengths",
];

#[test]
fn every_row_has_its_outcome() {
    let only = std::env::var("ARC_RELAY_CASE").ok();
    let limit = LIMIT.to_string();
    let (unlimited, limited) = (Relay::start(NO_PINGS), Relay::start(&[NO_PINGS, &["--max-message", &limit]].concat()));
    let cases: Vec<_> = cases().into_iter().filter(|case| only.as_ref().is_none_or(|only| case.id == *only)).collect();
    let failures: Vec<_> =
        cases.iter().filter_map(|case| play(if case.limit.is_some() { &limited } else { &unlimited }, case)).collect();
    assert!(failures.is_empty(), "{} of {} rows:\n{}", failures.len(), cases.len(), failures.join("\n"));
    assert!(!cases.is_empty(), "ARC_RELAY_CASE names no row");
}

/// Runs a row, and returns its errors, if any.
fn play(relay: &Relay, case: &Case) -> Option<String> {
    let target = format!("/?pair={}", case.id);
    let [mut peer, mut client] = [(); 2].map(|()| {
        let mut socket = relay.socket();
        open(&mut socket, &target, b"");
        socket
    });
    let mut sending = client.try_clone().unwrap();
    thread::scope(|scope| {
        scope.spawn(move || {
            // A relay that has refused the client may close the connection before all pieces are sent.
            let _ = case.sent.iter().try_for_each(|piece| sending.write_all(piece));
        });
        let mut peer_received = receive(&mut peer);
        let mut client_received = receive(&mut client);
        // A closed client answers the close frame. The stream must end without another byte.
        for (socket, received) in [(&mut peer, &mut peer_received), (&mut client, &mut client_received)] {
            if received.close.is_some() {
                let _ = socket.write_all(&frame(0x88, b""));
                let _ = socket.shutdown(Shutdown::Write);
                let mut rest = Vec::new();
                let _ = socket.read_to_end(&mut rest);
                received.push(&rest);
            }
        }
        judge(case, &client_received, &peer_received)
    })
}

fn receive(socket: &mut TcpStream) -> Received {
    let mut received = Received::default();
    let mut bytes = [0; 65_536];
    while !is_complete(&received) {
        match socket.read(&mut bytes) {
            Ok(count @ 1..) => received.push(&bytes[..count]),
            _ => break,
        }
    }
    received
}

/// Whether a client has received everything that it waits for.
fn is_complete(received: &Received) -> bool {
    let is_sentinel = |list: &[Vec<u8>]| list.last().is_some_and(|last| last == SENTINEL);
    let goes_on = is_sentinel(&received.messages) || is_sentinel(&received.pongs);
    goes_on || received.close.is_some() || received.wrong.is_some()
}

#[test]
fn documentation_states_the_number_of_rows() {
    let mut rows = BTreeMap::<_, usize>::new();
    for case in cases() {
        let group: usize = case.id.split('.').next().unwrap().parse().unwrap();
        *rows.entry(group).or_default() += 1;
    }
    let documentation = include_str!("../../docs/verification.md");
    for (group, rows) in &rows {
        let line = format!("| {group} | {} | {rows} |", GROUPS[group - 1]);
        assert!(documentation.contains(&line), "docs/verification.md must contain: {line}");
    }
    let ids: std::collections::BTreeSet<_> = cases().into_iter().map(|case| case.id).collect();
    assert_eq!(ids.len(), rows.values().sum::<usize>(), "two rows have the same number");
    assert!(cases().iter().any(|case| case.end == End::Open));
}
