//! Holds the documents to the binary: what they promise happens, and they leave nothing out.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Output;

use arc_relay::internals::link::CloseCause;
use arc_relay::internals::reframer::Violation;
use rustix::process::Signal;
use support::raw::{expect, open, upgrade};
use support::tickets::{Key, seconds_from_now};
use support::{Relay, eventually, scratch};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const ACCESS: &str = include_str!("../docs/access.md");
const ARCHITECTURE: &str = include_str!("../ARCHITECTURE.md");
const COMPOSE: &str = include_str!("../docker-compose.yml");
const COMMANDS: &str = include_str!("../docs/commands.md");
const CONFIGURATION: &str = include_str!("../docs/configuration.md");
const LIMITS: &str = include_str!("../docs/limits.md");
const LOGS: &str = include_str!("../docs/logs.md");
const PROTOCOL: &str = include_str!("../docs/protocol.md");
const SCALING: &str = include_str!("../docs/scaling.md");

/// Flags of other programs that the documents mention.
const OTHER_FLAGS: [&str; 2] = ["--cert-name", "--check"];

/// The rows of the table in `document` under `heading`, as the text of their cells.
fn table(document: &str, heading: &str) -> Vec<Vec<String>> {
    let start = document.find(heading).unwrap_or_else(|| panic!("no table {heading:?}"));
    let rows = document[start..].lines().skip(2).take_while(|line| line.starts_with('|'));
    rows.map(|row| row.trim_matches('|').split(" | ").map(|cell| cell.trim().to_owned()).collect()).collect()
}

/// Runs the binary in an environment of these variables only.
fn arc_relay(arguments: &[&str], environment: &[(&str, &str)]) -> (Option<i32>, String, String) {
    let mut command = support::arc_relay();
    command.env_clear().envs(environment.iter().copied()).args(arguments);
    let Output { status, stdout, stderr } = command.output().unwrap();
    (status.code(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

fn help() -> String {
    arc_relay(&["start", "--help"], &[]).1
}

/// The commands besides `start`, as `arc-relay --help` lists them.
fn commands() -> Vec<String> {
    let list = arc_relay(&["--help"], &[]).1;
    let list = list.split("Commands:\n").nth(1).unwrap().split("\n\n").next().unwrap();
    let names: Vec<_> = list.lines().map(|line| line.split_whitespace().next().unwrap().to_owned()).collect();
    assert_eq!(names[0], "start");
    names[1..].to_vec()
}

/// The words of `text` that begin with one of `prefixes`, as far as they consist of `is_part`.
fn words<'a>(text: &'a str, prefixes: &[&str], is_part: fn(char) -> bool) -> BTreeSet<&'a str> {
    let words = text.split(move |c| !is_part(c)).map(|word| word.trim_end_matches(['-', '_']));
    words.filter(|word| prefixes.iter().any(|prefix| word.len() > prefix.len() && word.starts_with(prefix))).collect()
}

/// The variables that `text` names.
fn variables(text: &str) -> BTreeSet<&str> {
    words(text, &["ARC_RELAY_", "RELAY_PORT", "RELAY_HOST"], |c| c.is_ascii_uppercase() || c == '_')
        .into_iter()
        .chain(["RELAY_PORT", "RELAY_HOST"].into_iter().filter(|common| text.contains(&format!(" {common}]"))))
        .collect()
}

/// The files below `folder` with one of these extensions.
fn files(folder: &Path, extensions: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let is_kept = path.extension().is_some_and(|end| extensions.iter().any(|extension| end == *extension));
        if path.is_dir() {
            found.extend(files(&path, extensions));
        } else if is_kept {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// The documents and what they are about: path and text.
fn documents() -> Vec<(PathBuf, String)> {
    let root = Path::new(ROOT);
    let mut paths = files(&root.join("docs"), &["md"]);
    paths.extend(files(&root.join("deploy"), &["service", "conf", "cfg"]));
    paths.extend(
        ["README", "ARCHITECTURE", "CHANGELOG", "CONTRIBUTING", "SECURITY"]
            .map(|name| root.join(name).with_extension("md")),
    );
    paths.push(root.join("docker-compose.yml"));
    paths.into_iter().map(|path| (path.clone(), fs::read_to_string(path).unwrap())).collect()
}

#[test]
fn help_in_the_documents_is_that_of_the_binary() {
    let help = help();
    assert!(CONFIGURATION.contains(&format!("$ arc-relay start --help\n{help}```")), "{help}");
    for command in commands() {
        let help = arc_relay(&[&command, "--help"], &[]).1;
        assert!(COMMANDS.contains(&format!("$ arc-relay {command} --help\n{help}```")), "{help}");
        assert!(help.lines().all(|line| line.len() <= 100), "{help}");
    }
}

#[test]
fn rejections_are_those_in_the_table() {
    let relay = Relay::start(&["--probe-timeout", "0"]);
    let whole = upgrade("/?pair=x", "");
    let requests = [
        upgrade("/", ""),
        upgrade("/?pair=x&side=", ""),
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
    let mut seen: BTreeSet<_> = requests.iter().map(|request| rejection(&relay, request)).collect();
    let (mut a, mut b) = (relay.socket(), relay.socket());
    open(&mut a, "/?pair=x", b"");
    open(&mut b, "/?pair=x", b"");
    seen.insert(rejection(&relay, &whole));
    let tokens = scratch("docs-access-tokens");
    fs::write(&tokens, "blue").unwrap();
    let strict = Relay::start(&["--allow-origin", "https://app.test", "--access-token-file", tokens.to_str().unwrap()]);
    seen.insert(rejection(&strict, &upgrade("/?pair=x", "Origin: https://evil.test\r\n")));
    seen.insert(rejection(&strict, &whole));

    let key = Key::Hs256([7; 32]);
    let keys = scratch("docs-ticket-keys");
    fs::write(&keys, key.line()).unwrap();
    let signed = Relay::start(&["--ticket-key-file", keys.to_str().unwrap()]);
    let soon = seconds_from_now(60);
    for claims in [
        String::from("invalid"),
        String::from("{}"),
        format!(r#"{{"exp":{soon}000}}"#),
        String::from(r#"{"exp":0}"#),
        format!(r#"{{"exp":{soon},"nbf":{soon}}}"#),
        format!(r#"{{"exp":{soon},"aud":"x"}}"#),
        format!(r#"{{"exp":{soon},"pair":"x"}}"#),
        format!(r#"{{"exp":{soon},"side":"x"}}"#),
    ] {
        seen.insert(rejection(&signed, &upgrade(&format!("/?pair=y&side=y&token={}", key.sign(&claims)), "")));
    }

    let once = Relay::start(&["--max-joins-per-minute", "1"]);
    once.http(&upgrade("/", ""));
    seen.insert(rejection(&once, &whole));
    let single = Relay::start(&["--max-connections-per-client", "1"]);
    let _silent = single.socket();
    seen.insert(rejection(&single, &whole));

    let rows = table(PROTOCOL, "| status | body |");
    let listed: BTreeSet<_> = rows.iter().map(|row| [0, 1, 2].map(|cell| row[cell].clone())).collect();
    // These two have tests of their own, as they need a relay in another state.
    let others = ["`relay is full`", "`relay stopping`"].map(|body| ["503", body, "4503"].map(str::to_owned));
    seen.extend(others);
    assert_eq!(seen, listed);
}

/// A request that lacks everything is rejected for the table's first row; with that, for the next.
#[test]
fn access_is_checked_in_the_order_of_the_table() {
    let tokens = scratch("docs-order-tokens");
    fs::write(&tokens, "blue").unwrap();
    let strict = ["--allow-origin", "https://app.test", "--access-token-file", tokens.to_str().unwrap()];
    let strict = [&strict[..], &["--min-code-length", "4", "--probe-timeout", "0"]].concat();
    let limited = Relay::start(&[&strict[..], &["--max-joins-per-minute", "1"]].concat());
    let relay = Relay::start(&strict);
    let mut request = upgrade("/?pair=abc", "Origin: https://evil.test\r\n").replace("Version: 13", "Version: 12");
    limited.http(&request);
    let status = |rejection: &[String; 3]| rejection[0].clone();
    let mut statuses = vec![status(&rejection(&limited, &request))];
    let mut has = |part: &str, with: &str| {
        statuses.push(status(&rejection(&relay, &request)));
        assert!(request.contains(part));
        request = request.replace(part, with);
    };
    has("Version: 12", "Version: 13");
    has("evil.test", "app.test");
    has("Origin: ", "Authorization: Bearer blue\r\nOrigin: ");
    has("pair=abc", "pair=abcd");
    let _pair = [0, 1].map(|_| {
        let mut socket = relay.socket();
        socket.write_all(request.as_bytes()).unwrap();
        expect(&mut socket, b"HTTP/1.1 101 ");
        socket
    });
    statuses.push(status(&rejection(&relay, &request)));

    let rows = table(ACCESS, "| asked for by |");
    assert_eq!(rows.len(), statuses.len());
    for (row, status) in rows.iter().zip(&statuses) {
        assert!(row[2].split(", ").any(|listed| listed == status), "{row:?}: {status}");
    }
}

/// The status of a rejection, its body, and what a client gets that offers `arc-relay.v1`.
///
/// That is a close code, or again the status.
fn rejection(relay: &Relay, request: &str) -> [String; 3] {
    let response = relay.http(request);
    let status = response.split(' ').nth(1).unwrap().to_owned();
    let body = response.split_once("\r\n\r\n").unwrap().1.strip_suffix('\n').unwrap();

    let mut socket = relay.socket();
    let offer = request.replacen("\r\n\r\n", "\r\nSec-WebSocket-Protocol: arc-relay.v1\r\n\r\n", 1);
    socket.write_all(offer.as_bytes()).unwrap();
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).unwrap();
    let code = if answer.starts_with(b"HTTP/1.1 101 ") {
        // The close frame is the last one: its code, and the body as its reason.
        let (rest, reason) = answer.split_at(answer.len() - body.len());
        assert_eq!(reason, body.as_bytes());
        u16::from_be_bytes(*rest.last_chunk().unwrap()).to_string()
    } else {
        String::from_utf8_lossy(&answer[9..12]).into_owned()
    };
    [status, format!("`{body}`"), code]
}

/// The column `action` is what the clients do, which have the test vectors in common.
#[test]
fn actions_are_those_of_the_vectors() {
    let vectors: serde_json::Value = serde_json::from_str(include_str!("../docs/protocol/vectors.json")).unwrap();
    let mut told = BTreeMap::new();
    for vector in vectors["close_codes"].as_array().unwrap() {
        let action = vector["action"].as_str().unwrap().to_owned();
        let code = vector["code"].to_string();
        assert_eq!(*told.entry(code).or_insert_with(|| action.clone()), action, "{vector}");
    }
    let mut listed: BTreeMap<_, _> =
        table(PROTOCOL, "| code | reason |").into_iter().map(|row| (row[0].clone(), row[2].clone())).collect();
    listed.insert(String::from("1006"), String::from("retry")); // the code of a library, for no close frame
    for row in table(PROTOCOL, "| status | body |") {
        if row[2].len() == 4 {
            listed.insert(row[2].clone(), row[3].clone());
        } else {
            assert_eq!(row[3], "terminal", "{row:?}");
        }
    }
    assert_eq!(listed, told);
    let explained: BTreeSet<_> = table(PROTOCOL, "| action | what a client does |")
        .into_iter()
        .map(|row| row[0].trim_matches('`').to_owned())
        .collect();
    assert_eq!(explained, told.into_values().collect());
}

/// A list that the document does not name has no reader, and an empty one is passed by every reader.
#[test]
fn lists_of_vectors_are_those_of_the_document() {
    let vectors: serde_json::Value = serde_json::from_str(include_str!("../docs/protocol/vectors.json")).unwrap();
    let is_filled = |list: &serde_json::Value| list.as_array().is_some_and(|list| !list.is_empty());
    let mut lists = BTreeSet::new();
    for (name, list) in vectors.as_object().unwrap().iter().filter(|(name, _)| *name != "about") {
        assert!(is_filled(list) || list.as_object().is_some_and(|parts| parts.values().all(is_filled)), "{name}");
        lists.insert(name.clone());
    }
    let rows = table(PROTOCOL, "| list in `vectors.json` |");
    let named = rows.into_iter().map(|row| row[0].trim_matches('`').to_owned());
    assert_eq!(named.collect::<BTreeSet<_>>(), lists);
}

#[test]
fn close_codes_are_those_in_the_table() {
    let waits = [CloseCause::Expired, CloseCause::Stopping, CloseCause::Recalled, CloseCause::Replaced];
    let causes = [&[CloseCause::Left, CloseCause::Lost][..], &waits].concat();
    let mut sent: BTreeSet<_> = causes.iter().map(|cause| (cause.code(), cause.reason())).collect();
    let violations = [Violation::InvalidUtf8, Violation::MessageTooBig, Violation::UnsupportedText];
    sent.extend(violations.iter().map(|violation| (violation.code(), violation.reason())));
    let protocol_error = (Violation::ReservedBits.code(), Violation::ReservedBits.reason());
    // The last one has a test of its own in `tests/liveness.rs`.
    sent.extend([protocol_error, (1011, "ping timeout")]);
    let sent: BTreeSet<_> = sent.into_iter().map(|(code, reason)| format!("{code} `{reason}`")).collect();
    let rows = table(PROTOCOL, "| code | reason |");
    let example = "the fault, such as ";
    let listed: BTreeSet<_> = rows.iter().map(|row| format!("{} {}", row[0], row[1].replace(example, ""))).collect();
    assert_eq!(sent, listed);
}

/// The table of limits has the defaults of the help, and every flag for a limit.
#[test]
fn limits_are_those_of_the_help() {
    let help = help().split_whitespace().collect::<Vec<_>>().join(" ");
    let mut listed = BTreeSet::new();
    for row in LIMITS.lines().filter(|line| line.starts_with('|')) {
        let cells: Vec<_> = row.trim_matches('|').split(" | ").map(str::trim).collect();
        let Some(flag) = cells.get(2).and_then(|cell| cell.strip_prefix("`--")?.strip_suffix('`')) else { continue };
        let about = help.split(" --").find_map(|part| part.strip_prefix(flag)?.strip_prefix(' ')).expect(flag);
        let default = cells[1].split([',', ' ']).next().unwrap();
        let is_fixed = default == "none" || default.starts_with(|first: char| first.is_ascii_digit());
        let is_in_help = about.contains(&format!("default {default}"));
        // Other defaults follow from the machine, so that the help has no number either.
        let has_number = about.split_once("default ").is_some_and(|(_, rest)| rest.starts_with(char::is_numeric));
        assert!(is_in_help || !is_fixed && !has_number, "{flag}: {default}");
        listed.insert(flag.to_owned());
    }
    let is_limit = |flag: &&str| flag.starts_with("max-") || flag.ends_with("-timeout") || flag.ends_with("-ttl");
    let flags: Vec<_> = help.split(" --").filter_map(|part| part.split_once(' ')).map(|(flag, _)| flag).collect();
    assert!(flags.iter().filter(|flag| is_limit(flag)).count() > 10);
    for flag in flags.into_iter().filter(is_limit) {
        assert!(listed.contains(flag) || LIMITS.contains(&format!("`--{flag}`")), "{flag} is not in docs/limits.md");
    }
}

/// With an unknown variable the relay would fail to listen, with exit code 1 instead of 2.
#[test]
fn every_variable_in_the_help_has_an_effect() {
    let (help, elsewhere) = (help(), ["--host", "192.0.2.1"]); // an address for documentation (RFC 5737)
    let variables = variables(&help);
    assert!(variables.len() > 20);
    for variable in variables {
        let (wrong, elsewhere, expected, told) = match variable {
            "ARC_RELAY_HOST" | "RELAY_HOST" => ("192.0.2.1", &["--port", "0"], 1, "192.0.2.1"),
            "ARC_RELAY_ACCESS_TOKEN_FILE" | "ARC_RELAY_TICKET_KEY_FILE" => ("/nowhere", &elsewhere, 1, "/nowhere"),
            variable => ("?", &elsewhere, 2, variable),
        };
        let (code, _, stderr) = arc_relay(&[&["start"][..], elsewhere].concat(), &[(variable, wrong)]);
        assert_eq!(code, Some(expected), "{variable}: {stderr}");
        assert!(stderr.contains(told), "{variable}: {stderr}");
    }
}

/// Variables in the documents are those of the help, or of the tests.
#[test]
fn every_variable_in_the_documents_exists() {
    let (help, root) = (help(), Path::new(ROOT));
    let known = variables(&help);
    let sources: String = ["tests", "src"]
        .iter()
        .flat_map(|folder| files(&root.join(folder), &["rs"]))
        .map(|path| fs::read_to_string(path).unwrap())
        .collect();
    for (path, text) in documents() {
        for variable in variables(&text) {
            let is_of_tests = sources.contains(&format!("\"{variable}\""));
            assert!(known.contains(variable) || is_of_tests, "{path:?}: {variable}");
        }
    }
}

#[test]
fn every_flag_in_the_documents_exists() {
    let help = commands().iter().fold(help(), |helps, command| helps + &arc_relay(&[command, "--help"], &[]).1);
    let is_part = |c: char| c.is_ascii_lowercase() || c == '-';
    let known = words(&help, &["--"], is_part);
    assert!(known.len() > 20);
    let mut count = 0;
    for (path, text) in documents() {
        // Code in a line of its own, such as `cargo test --release`, is of other programs.
        for span in text.split('`').filter(|span| span.starts_with("--")) {
            for flag in words(span.split(' ').next().unwrap(), &["--"], is_part) {
                let is_known = known.contains(flag) || ["--help", "--version", "--flag"].contains(&flag);
                assert!(is_known || OTHER_FLAGS.contains(&flag), "{path:?}: {flag}");
                count += 1;
            }
        }
    }
    assert!(count > 100);
}

#[test]
fn compose_passes_every_variable_on() {
    let help = help();
    // Where to listen is the container's affair.
    let is_passed = |name: &&&str| !matches!(**name, "ARC_RELAY_PORT" | "ARC_RELAY_HOST" | "RELAY_PORT" | "RELAY_HOST");
    let variables = variables(&help);
    for name in variables.iter().filter(is_passed) {
        assert!(COMPOSE.contains(name), "{name}");
    }
}

#[test]
fn exit_codes_are_those_in_the_table() {
    let mut seen = BTreeSet::new();
    let relay = Relay::start(&[]);
    let port = relay.address.port().to_string();
    seen.extend(arc_relay(&["--version"], &[]).0);
    seen.extend(arc_relay(&["start", "--host", "127.0.0.1", "--port", &port], &[]).0);
    seen.extend(arc_relay(&["start", "--port", "http"], &[]).0);
    for signal in [Signal::TERM, Signal::INT] {
        let mut relay = Relay::start(&["--drain-timeout", "1h"]);
        let _pair = [0, 1].map(|_| {
            let mut socket = relay.socket();
            open(&mut socket, "/?pair=x", b"");
            socket
        });
        relay.signal(signal);
        eventually("it does not listen any more", || TcpStream::connect(relay.address).is_err());
        relay.signal(signal);
        seen.extend(relay.wait().code());
    }
    let rows = table(CONFIGURATION, "| code | when |");
    let listed: BTreeSet<i32> = rows.iter().map(|row| row[0].parse().unwrap()).collect();
    assert_eq!(seen, listed);
}

/// The table has every event in the source. `tests/logs.rs` holds their levels and fields to it.
#[test]
fn events_are_those_in_the_source() {
    let src = Path::new(ROOT).join("src");
    let mut told = BTreeSet::new();
    for path in files(&src, &["rs"]).iter().filter(|path| !path.starts_with(src.join("simulation"))) {
        let text = fs::read_to_string(path).unwrap();
        for level in ["error!(", "warn!(", "info!(", "debug!("] {
            for (start, _) in text.match_indices(level) {
                told.insert(last_literal(&text[start + level.len()..]).to_owned());
            }
        }
        // It stands for events that were not logged, so no macro tells it.
        told.extend(text.contains("\"not_logged\"").then(|| String::from("not_logged")));
    }
    let listed: BTreeSet<_> =
        table(LOGS, "| event | level |").iter().map(|row| row[0].trim_matches('`').to_owned()).collect();
    assert_eq!(told, listed);
}

/// The last string literal in the arguments of a macro that `text` begins with.
fn last_literal(text: &str) -> &str {
    let (mut depth, mut literal, mut start) = (1, None, None);
    for (at, c) in text.char_indices() {
        match (c, start) {
            ('"', None) => start = Some(at + 1),
            ('"', Some(from)) => (literal, start) = (Some(&text[from..at]), None),
            ('(', None) => depth += 1,
            (')', None) => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    literal.expect("an event has a name")
}

/// The map in ARCHITECTURE.md has the files of the source, and the order of folders in `lib.rs`.
#[test]
fn the_map_has_every_file() {
    let is_module = |path: &PathBuf| {
        let name = path.file_stem().unwrap();
        name != "mod"
            && !name.to_str().unwrap().ends_with("tests")
            && path.parent().is_none_or(|parent| parent.file_name().unwrap() != "tests")
    };
    let rows = table(ARCHITECTURE, "| folder | subject |");
    let lib = fs::read_to_string(Path::new(ROOT).join("src/lib.rs")).unwrap();
    let order = lib.lines().filter_map(|line| line.strip_prefix("//! | `")?.split('`').next());
    assert_eq!(rows.iter().map(|row| row[0].trim_matches(['`', '/'])).collect::<Vec<_>>(), order.collect::<Vec<_>>());
    for row in rows {
        let (folder, listed) = (row[0].trim_matches(['`', '/']), &row[2]);
        if folder == "simulation" {
            continue; // it needs no map
        }
        let path = Path::new(ROOT).join("src").join(folder);
        assert!(path.is_dir(), "{path:?}");
        let modules = files(&path, &["rs"]);
        let modules: BTreeSet<_> = modules
            .iter()
            .filter(|path| is_module(path))
            .map(|path| path.file_stem().unwrap().to_str().unwrap())
            .collect();
        // The files of a folder in it follow its own: `; in `linux/`: ...`.
        let listed = listed.split("; in ").flat_map(|part| part.rsplit(": ").next().unwrap().split(", "));
        assert_eq!(modules, listed.collect(), "{folder}");
    }
}

#[test]
fn dependencies_are_those_in_the_table() {
    let manifest = fs::read_to_string(Path::new(ROOT).join("Cargo.toml")).unwrap();
    let rows = table(ARCHITECTURE, "| crate | for |");
    let rows = rows.iter().filter(|row| !row[0].ends_with("(tests only)"));
    let listed: BTreeSet<_> = rows.flat_map(|row| row[0].trim_end_matches(" (feature `client`)").split(", ")).collect();
    assert_eq!(dependencies(&manifest), listed);
}

/// The crates that a manifest depends on: as written, or in the tables that `cargo package` writes.
fn dependencies(manifest: &str) -> BTreeSet<&str> {
    let (mut found, mut lists_names) = (BTreeSet::new(), false);
    for line in manifest.lines() {
        if let Some(table) = line.strip_prefix('[') {
            // Those of a system only are in a table for the system: `[target.'cfg(unix)'.dependencies]`.
            let table = table.trim_end_matches(']').rsplit("'.").next().unwrap();
            lists_names = table == "dependencies";
            found.extend(table.strip_prefix("dependencies."));
        } else if lists_names {
            found.extend(line.split_once(" = ").map(|(name, _)| name));
        }
    }
    found
}

/// The number of machines follows from the figures of one machine, in the table above it.
#[test]
fn machines_are_computed_from_the_figures_of_one() {
    let number = |cell: &str| cell.split(' ').find_map(|word| word.parse::<f64>().ok()).unwrap();
    let microseconds = |part: &str| {
        let rows = table(SCALING, "| part | one relay |");
        let row = rows.into_iter().find(|row| row[0].starts_with(part)).unwrap();
        let before = row[1].split(" µs").next().unwrap();
        before.rsplit(' ').next().unwrap().parse::<f64>().unwrap() / 1e6
    };
    let [ping, message] = ["a core: pings", "a core: short messages"].map(microseconds);
    let rows = table(SCALING, "| connections | memory if idle |");
    assert_eq!(rows.len(), 3);
    for (row, exponent) in rows.iter().zip(5..) {
        let count = 10_f64.powi(exponent);
        let of_one = [5.9 / 1024.0 / 1024.0, ping / 20.0, message / 10.0]; // GiB, cores, cores
        for (cell, of_one) in row[1..].iter().zip(of_one) {
            let ratio = number(cell) / (count * of_one);
            assert!((0.9..=1.1).contains(&ratio), "{cell} is not {}", count * of_one);
        }
    }
}

/// Every link in the documents leads to a file, and to a heading in it if it names one.
#[test]
fn links_lead_somewhere() {
    let mut count = 0;
    for (path, text) in documents().iter().filter(|(path, _)| path.extension().unwrap() == "md") {
        for (start, _) in text.match_indices("](") {
            let target = text[start + 2..].split(')').next().unwrap();
            if target.contains("://") {
                continue;
            }
            let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
            let file = if file.is_empty() { path.clone() } else { path.parent().unwrap().join(file) };
            assert!(file.exists(), "{path:?}: {target}");
            if !anchor.is_empty() {
                let anchors = anchors(&fs::read_to_string(file).unwrap());
                assert!(anchors.contains(anchor), "{path:?}: {target}");
            }
            count += 1;
        }
    }
    assert!(count > 50);
}

/// The anchors of a document's headings, as GitHub makes them.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings = text.lines().filter(|line| line.starts_with('#'));
    headings
        .map(|line| {
            let kept = line.trim_start_matches('#').trim().to_lowercase();
            let kept = kept.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
            kept.collect::<String>().replace(' ', "-")
        })
        .collect()
}
