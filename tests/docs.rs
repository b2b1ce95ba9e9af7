//! Holds the README to the program: what it promises is what happens, and nothing that happens is missing.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod support;

use std::collections::BTreeSet;
use std::process::Command;

use arc_relay::internals::link::CloseCause;
use support::Relay;
use support::raw::upgrade;

const COMPOSE: &str = include_str!("../docker-compose.yml");
const README: &str = include_str!("../README.md");
const LIMITS: &str = include_str!("../docs/limits.md");

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
        upgrade("/?pair=x", "Sec-WebSocket-Protocol: two words\r\n"),
        upgrade(&format!("/?pair=x&{}", "y".repeat(8192)), ""),
    ];
    let mut seen: BTreeSet<_> = requests.iter().map(|request| refusal(&relay, request)).collect();
    let (mut a, mut b) = (relay.socket(), relay.socket());
    support::raw::open(&mut a, "/?pair=x", b"");
    support::raw::open(&mut b, "/?pair=x", b"");
    seen.insert(refusal(&relay, &whole));
    let tokens = support::scratch("docs-access-tokens");
    std::fs::write(&tokens, "blue").unwrap();
    let strict = Relay::start(&["--allow-origin", "https://app.test", "--access-token-file", tokens.to_str().unwrap()]);
    seen.insert(refusal(&strict, &upgrade("/?pair=x", "Origin: https://evil.test\r\n")));
    seen.insert(refusal(&strict, &whole));

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

/// The defaults that `docs/limits.md` says are those that the help says, and no flag for a limit is missing there.
#[test]
fn limits_are_those_of_the_help() {
    let output = Command::new(env!("CARGO_BIN_EXE_arc-relay")).args(["start", "--help"]).output().unwrap();
    let help = String::from_utf8(output.stdout).unwrap().split_whitespace().collect::<Vec<_>>().join(" ");
    let mut listed = BTreeSet::new();
    for row in LIMITS.lines().filter(|line| line.starts_with('|')) {
        let cells: Vec<_> = row.trim_matches('|').split(" | ").map(str::trim).collect();
        let Some(flag) = cells.get(2).and_then(|cell| cell.strip_prefix("`--")?.strip_suffix('`')) else { continue };
        let about = help.split(" --").find_map(|part| part.strip_prefix(flag)?.strip_prefix(' ')).expect(flag);
        let default = cells[1].split([',', ' ']).next().unwrap();
        assert!(
            about.contains(&format!("default {default}")) || about.contains("default as many"),
            "{flag}: {default}"
        );
        listed.insert(flag.to_owned());
    }
    let is_limit = |flag: &&str| flag.starts_with("max-") || flag.ends_with("-timeout") || flag.ends_with("-ttl");
    for flag in help.split(" --").filter_map(|part| part.split_once(' ')).map(|(flag, _)| flag).filter(is_limit) {
        assert!(listed.contains(flag) || LIMITS.contains(&format!("`--{flag}`")), "{flag} is not in docs/limits.md");
    }
}

/// A request that lacks everything is refused for the first thing that is listed; as soon as it has that, for the next.
#[test]
fn what_is_asked_of_those_who_join_is_asked_in_this_order() {
    let tokens = support::scratch("docs-order-tokens");
    std::fs::write(&tokens, "blue").unwrap();
    let strict = ["--allow-origin", "https://app.test", "--access-token-file", tokens.to_str().unwrap()];
    let strict = [&strict[..], &["--min-code-length", "4", "--probe-timeout", "0"]].concat();
    let limited = Relay::start(&[&strict[..], &["--max-joins-per-minute", "1"]].concat());
    let relay = Relay::start(&strict);
    let mut request = upgrade("/?pair=abc", "Origin: https://evil.test\r\n").replace("Version: 13", "Version: 12");
    limited.http(&request);
    let mut statuses = vec![refusal(&limited, &request).0];
    let mut has = |what: &str, with: &str| {
        statuses.push(refusal(&relay, &request).0);
        assert!(request.contains(what));
        request = request.replace(what, with);
    };
    has("Version: 12", "Version: 13");
    has("evil.test", "app.test");
    has("Origin: ", "Authorization: Bearer blue\r\nOrigin: ");
    has("pair=abc", "pair=abcd");
    let _pair = [0, 1].map(|_| {
        let mut socket = relay.socket();
        std::io::Write::write_all(&mut socket, request.as_bytes()).unwrap();
        support::raw::expect(&mut socket, b"HTTP/1.1 101 ");
        socket
    });
    statuses.push(refusal(&relay, &request).0);

    let rows = table("| asked for by |");
    assert_eq!(rows.len(), statuses.len());
    for (row, status) in rows.iter().zip(&statuses) {
        assert!(row[2].split(", ").any(|listed| listed == status), "{row:?}: {status}");
    }
}

#[test]
fn compose_passes_every_variable_on() {
    // Who is listened to, and where, is the container's affair.
    let is_passed = |name: &&str| !matches!(*name, "ARC_RELAY_PORT" | "ARC_RELAY_HOST");
    let variables = README.split(['[', ']', ',', '=', ' ', '\n']).filter(|word| word.starts_with("ARC_RELAY_"));
    let variables: BTreeSet<_> = variables.filter(is_passed).filter(|name| !name.contains('`')).collect();
    assert!(variables.len() > 20);
    for name in variables.iter().filter(|name| !matches!(**name, "ARC_RELAY_SEEDS" | "ARC_RELAY_SOAK")) {
        assert!(COMPOSE.contains(name), "{name}");
    }
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
    for farewell in [CloseCause::Left, CloseCause::Lost, CloseCause::Expired, CloseCause::Stopping] {
        let row = [farewell.code().to_string(), format!("`{}`", farewell.reason())];
        assert!(rows.iter().any(|listed| listed[..2] == row), "{row:?}");
    }
}
