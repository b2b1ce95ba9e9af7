//! Holds the README to the program: what it promises is what happens, and nothing that happens is missing.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod support;

use std::collections::BTreeSet;
use std::process::Command;

use arc_relay::link::Farewell;
use support::Relay;
use support::raw::upgrade;

const README: &str = include_str!("../README.md");

/// The rows of the table whose heading begins like this, as the text of their cells.
fn table(heading: &str) -> Vec<Vec<String>> {
    let start = README.find(heading).unwrap_or_else(|| panic!("no table {heading:?}"));
    let rows = README[start..].lines().skip(2).take_while(|line| line.starts_with('|'));
    rows.map(|row| row.trim_matches('|').split(" | ").map(|cell| cell.trim().to_owned()).collect()).collect()
}

#[test]
fn the_help_is_the_real_one() {
    let output = Command::new(env!("CARGO_BIN_EXE_arc-relay")).args(["start", "--help"]).output().unwrap();
    let help = String::from_utf8(output.stdout).unwrap();
    assert!(README.contains(&format!("$ arc-relay start --help\n{help}```")), "{help}");
}

#[test]
fn every_variable_is_in_the_help() {
    let source = include_str!("../src/settings.rs");
    let variables = source.split('"').filter(|part| part.contains("RELAY_") && !part.contains([' ', ':']));
    for variable in variables {
        assert!(README.contains(variable), "{variable}");
    }
}

#[test]
fn refusals_are_those_in_the_table() {
    let relay = Relay::start(&["--probe-timeout", "0"]);
    let whole = upgrade("/?pair=x", "");
    let requests = [
        upgrade("/", ""),
        whole.replace("dGhl", ""),
        whole.replace("Connection: Upgrade", "Connection: close"),
        whole.replace("HTTP/1.1", "HTTP/1.0"),
        String::from("GET / HTTP/1.1\r\nHost: t\r\n\r\n"),
        String::from("POST / HTTP/1.1\r\nHost: t\r\n\r\n"),
        whole.replace("Version: 13", "Version: 12"),
        whole.replace("Host: test\r\n", ""),
        upgrade("/?pair=x", "Content-Length: 1\r\n"),
        upgrade(&format!("/?pair=x&{}", "y".repeat(8192)), ""),
    ];
    let mut seen: BTreeSet<_> = requests.iter().map(|request| refusal(&relay, request)).collect();
    let (mut a, mut b) = (relay.socket(), relay.socket());
    support::raw::open(&mut a, "/?pair=x", b"");
    support::raw::open(&mut b, "/?pair=x", b"");
    seen.insert(refusal(&relay, &whole));
    let strict = Relay::start(&["--allow-origin", "https://app.test"]);
    seen.insert(refusal(&strict, &upgrade("/?pair=x", "Origin: https://evil.test\r\n")));

    let once = Relay::start(&["--max-joins-per-minute", "1"]);
    once.http(&upgrade("/", ""));
    seen.insert(refusal(&once, &whole));
    let single = Relay::start(&["--max-connections-per-client", "1"]);
    let _silent = single.socket();
    seen.insert(refusal(&single, &whole));

    let listed: BTreeSet<_> =
        table("| status | body |").into_iter().map(|row| (row[0].clone(), row[1].clone())).collect();
    // These two have tests of their own, as they need a relay in another state.
    let others = ["`relay is full`", "`relay stopping`"].map(|body| (String::from("503"), body.to_owned()));
    seen.extend(others);
    assert_eq!(seen, listed);
}

fn refusal(relay: &Relay, request: &str) -> (String, String) {
    let response = relay.http(request);
    let status = response.split(' ').nth(1).unwrap().to_owned();
    let body = response.split_once("\r\n\r\n").unwrap().1;
    (status, format!("`{}`", body.strip_suffix('\n').unwrap()))
}

#[test]
fn farewells_are_those_in_the_table() {
    let rows = table("| code | reason |");
    for farewell in [Farewell::Left, Farewell::Lost, Farewell::Expired, Farewell::Stopping] {
        let row = [farewell.code().to_string(), format!("`{}`", farewell.reason())];
        assert!(rows.iter().any(|listed| listed[..2] == row), "{row:?}");
    }
}
