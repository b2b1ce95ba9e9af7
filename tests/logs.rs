//! The log: fields of events, limits of their rate, and that it holds nothing that a client sent.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use arc_relay::{Outcome, Rejection};
use rustix::process::Signal;
use serde_json::Value;
use socket2::{Domain, Socket, Type};
use support::raw::{expect, expect_end, frame, open, server_close, upgrade};
use support::{Relay, arc_relay, eventually, scratch};

const LOGS: &str = include_str!("../docs/logs.md");

/// A relay with its log in a file.
struct Logged {
    relay: Relay,
    log: PathBuf,
}

impl Logged {
    fn start(name: &str, flags: &[&str]) -> Self {
        let log = scratch(name);
        let mut command = start(flags);
        command.stderr(File::create(&log).unwrap());
        Self { relay: Relay::spawn(command), log }
    }

    /// Starts a relay behind a proxy that sends this header on each connection.
    fn start_behind(name: &str, flags: &[&str], header: &'static str) -> Self {
        let log = scratch(name);
        let mut command = start(&[flags, &["--proxy-protocol"]].concat());
        command.stderr(File::create(&log).unwrap());
        Self { relay: Relay::spawn_behind(command, header), log }
    }

    fn text(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    /// The events so far, one a line.
    fn events(&self) -> Vec<BTreeMap<String, Value>> {
        self.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Waits for a number of events of a name.
    fn await_events(&self, name: &str, count: usize) -> Vec<BTreeMap<String, Value>> {
        let mut found = vec![];
        eventually(&format!("{count} events {name} are logged"), || {
            found = if self.text().ends_with('\n') { self.events() } else { vec![] };
            found.retain(|event| event["event"] == name);
            found.len() >= count
        });
        found
    }

    /// Stops the relay, and returns its log.
    fn stop(mut self) -> String {
        self.relay.signal(Signal::TERM);
        assert_eq!(self.relay.wait().code(), Some(0));
        self.text()
    }
}

fn start(flags: &[&str]) -> Command {
    let mut command = arc_relay();
    command.args(["start", "--host", "127.0.0.1", "--port", "0"]).args(flags);
    // Variables for the tests, such as `ARC_RELAY_SEEDS`, are unknown to the relay: it would log them.
    for (variable, _) in env::vars_os().filter(|(variable, _)| variable.to_string_lossy().starts_with("ARC_RELAY_")) {
        command.env_remove(variable);
    }
    command
}

const JSON: &[&str] = &["--log-level", "debug", "--log-format", "json"];

#[test]
fn closed_has_side_outcome_status_code_and_bytes() {
    let logged = Logged::start("logs-ends", &[JSON, &["--pair-ttl", "5s"]].concat());
    let (mut a, mut b) = (logged.relay.socket(), logged.relay.socket());
    open(&mut a, "/?pair=x", b"");
    open(&mut b, "/?pair=x", b"");
    a.write_all(&[frame(0x82, &[1; 100]), frame(0x82, &[2; 1000]), frame(0x81, b"text")].concat()).unwrap();
    a.write_all(&frame(0x88, &4000_u16.to_be_bytes())).unwrap();
    expect(&mut a, &server_close(4000, ""));
    drop(a);
    let mut head = [0; 2 + 100 + 4 + 1000];
    b.read_exact(&mut head).unwrap();
    expect(&mut b, &server_close(1000, "peer disconnected"));
    b.write_all(&frame(0x88, b"")).unwrap();
    expect_end(&mut b);
    // One more client violates the protocol, and another waits until the pair expires.
    let (mut violator, mut alone) = (logged.relay.socket(), logged.relay.socket());
    open(&mut violator, "/?pair=y", b"\xFF\xFF");
    expect(&mut violator, &server_close(1002, "reserved bit set"));
    drop(violator);
    open(&mut alone, "/?pair=z", b"");
    expect(&mut alone, &server_close(1001, "pair expired"));
    drop(alone);

    let mut closed = logged.await_events("closed", 4);
    closed.sort_by_key(|event| event["conn"].as_u64());
    let ends: Vec<_> = closed
        .iter()
        .map(|event| {
            let field = |name: &str| event.get(name).cloned().unwrap_or_default();
            (field("side"), field("outcome"), field("status_code"), field("bytes"), field("dropped"))
        })
        .collect();
    let end = |side: &str, outcome: &str, code: u16, bytes: u64, dropped: u64| {
        (side.into(), outcome.into(), code.into(), bytes.into(), dropped.into())
    };
    assert_eq!(
        ends,
        [
            end("a", "left", 4000, 1100, 1),
            end("b", "peer_left", 1000, 0, 0),
            end("a", "violation", 1002, 0, 0),
            end("a", "expired", 1001, 0, 0),
        ]
    );
    let number = |event: &BTreeMap<String, Value>, name: &str| event[name].as_u64().unwrap();
    assert_eq!(number(&closed[1], "wait_ms"), 0, "the second client does not wait");
    assert!(
        number(&closed[3], "wait_ms") >= 2000 && number(&closed[3], "wait_ms") == number(&closed[3], "duration_ms")
    );
    assert!(closed.iter().all(|event| number(event, "duration_ms") >= number(event, "wait_ms")));
    let expired = logged.await_events("expired", 1);
    assert_eq!(expired.len(), 1, "only one client has waited in vain: {expired:?}");
    assert_eq!((&expired[0]["conn"], &expired[0]["side"]), (&closed[3]["conn"], &Value::from("a")));
    assert!(number(&expired[0], "wait_ms") >= 5000, "{expired:?}");
}

#[test]
fn waiting_pairing_and_dropped_text_are_logged() {
    let logged = Logged::start("logs-pairing", JSON);
    let number = |event: &BTreeMap<String, Value>, name: &str| event[name].as_u64().unwrap();
    let (mut a, mut b) = (logged.relay.socket(), logged.relay.socket());
    open(&mut a, "/?pair=x", &[frame(0x81, b"once"), frame(0x81, b""), frame(0x82, b"x")].concat());
    let waiting = logged.await_events("waiting", 1).remove(0);
    assert_eq!(waiting["side"], "a");
    let first = number(&waiting, "conn");
    logged.await_events("text_dropped", 1);
    std::thread::sleep(Duration::from_millis(2)); // so that there is a wait to be told
    open(&mut b, "/?pair=x", b"");
    expect(&mut b, &[0x82, 1, b'x']);
    a.write_all(&[frame(0x81, b"again"), frame(0x82, b"y")].concat()).unwrap();
    expect(&mut b, &[0x82, 1, b'y']);
    let paired = logged.await_events("paired", 1).remove(0);
    assert_eq!((paired["side"].as_str(), number(&paired, "peer")), (Some("b"), first));
    assert!(number(&paired, "wait_ms") >= 2 && number(&paired, "conn") > first, "{paired:?}");
    drop((a, b));
    let closed = logged.await_events("closed", 2);
    let closed = closed.iter().find(|event| number(event, "conn") == first).unwrap();
    assert_eq!(number(closed, "dropped"), 3);
    assert_eq!(number(closed, "wait_ms"), number(&paired, "wait_ms"));
    let log = logged.stop();
    assert_eq!(log.matches("\"text_dropped\"").count(), 1, "{log}");
}

#[test]
fn log_code_hash_tells_which_lines_are_of_one_code() {
    let clients_of = |logged: &Logged| {
        // Three with the code `hush`, in two spellings, and one with another code. Each waits for its event.
        let mut sockets = Vec::new();
        for (target, event) in [("/?pair=hush", "waiting"), ("/?pair=h%75sh", "paired"), ("/?pair=other", "expired")] {
            let mut socket = logged.relay.socket();
            open(&mut socket, target, b"");
            logged.await_events(event, 1);
            sockets.push(socket);
        }
        let response = logged.relay.http(&upgrade("/?pair=hush", ""));
        assert!(response.starts_with("HTTP/1.1 409 "), "{response}");
        drop(sockets);
        logged.await_events("closed", 3);
    };
    let hash = |event: &BTreeMap<String, Value>| event.get("code_hash").map(|hash| hash.as_str().unwrap().to_owned());
    let flags = [JSON, &["--log-code-hash", "--pair-ttl", "3s", "--probe-timeout", "0"]].concat();
    let mut seen = BTreeSet::new();
    for boot in ["first", "second"] {
        let logged = Logged::start(&format!("logs-code-hash-{boot}"), &flags);
        clients_of(&logged);
        let mut events = logged.events();
        events.retain(|event| event.contains_key("conn") || event["event"] == "refused");
        let mut of_hash: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for event in &events {
            of_hash.entry(hash(event).unwrap()).or_default().push(event["event"].as_str().unwrap());
        }
        let mut lines: Vec<_> = of_hash.values_mut().collect();
        lines.iter_mut().for_each(|events| events.sort_unstable());
        lines.sort_unstable();
        assert_eq!(
            lines,
            [&["closed", "closed", "paired", "refused", "waiting"][..], &["closed", "expired", "waiting"]]
        );
        assert!(of_hash.keys().all(|hash| hash.len() == 12 && hash.bytes().all(|byte| byte.is_ascii_hexdigit())));
        seen.extend(of_hash.into_keys());
        assert!(!logged.stop().contains("hush"));
    }
    assert_eq!(seen.len(), 4, "each start has its own key: {seen:?}");

    let silent = Logged::start("logs-no-code-hash", &[JSON, &["--pair-ttl", "3s", "--probe-timeout", "0"]].concat());
    clients_of(&silent);
    assert!(!silent.stop().contains("code_hash"));
}

#[test]
fn effective_limits_are_logged_and_lowered_ones_are_warned_of() {
    let flags = ["--max-connections", "1000000000", "--max-waiting", "5", "--max-handshakes", "7", "--workers", "3"];
    let logged = Logged::start("logs-limits", &[JSON, &flags, &["--max-buffer-memory", "1MiB"]].concat());
    let started = logged.await_events("started", 1).remove(0);
    let number = |name: &str| started[name].as_u64().unwrap();
    let limits = ["waiting", "handshakes", "buffer_memory", "workers"].map(number);
    assert_eq!(limits, [5, 7, 1 << 20, 3]);
    let lowered = logged.await_events("limit_lowered", 1);
    assert_eq!(lowered.len(), 1, "{lowered:?}");
    assert_eq!((&lowered[0]["level"], &lowered[0]["limit"]), (&Value::from("warn"), &Value::from("max_connections")));
    assert_eq!(lowered[0]["wish"].as_u64(), Some(1_000_000_000));
    assert_eq!(lowered[0]["effective"].as_u64(), Some(number("connections")));
}

#[test]
fn recall_has_its_count_and_an_outcome_of_its_own() {
    let logged = Logged::start("logs-recalled", JSON);
    let mut waiting = ["x", "y"].map(|code| {
        let mut socket = logged.relay.socket();
        open(&mut socket, &format!("/?pair={code}"), b"");
        socket
    });
    logged.relay.signal(Signal::USR1);
    for client in &mut waiting {
        expect(client, &server_close(1012, "service restart"));
    }
    drop(waiting);
    let recalled = logged.await_events("recalled", 1).remove(0);
    assert_eq!((&recalled["level"], &recalled["count"]), (&Value::from("info"), &Value::from(2)));
    for closed in logged.await_events("closed", 2) {
        assert_eq!((&closed["outcome"], &closed["status_code"]), (&Value::from("recalled"), &Value::from(1012)));
    }
}

#[test]
fn takeover_and_write_timeout_are_told_apart() {
    let flags = ["--ping-interval", "0", "--probe-timeout", "30s", "--ping-timeout", "1s", "--write-timeout", "2s"];
    let logged = Logged::start("logs-given-up", &[JSON, &flags].concat());
    let enter = |code: &str| {
        let mut socket = logged.relay.socket();
        open(&mut socket, &format!("/?pair={code}"), b"");
        socket
    };
    let _dead = [enter("x"), enter("x")];
    let _third = enter("x");
    let outcomes = |closed: &[BTreeMap<String, Value>]| -> Vec<_> {
        closed.iter().map(|event| event["outcome"].as_str().unwrap().to_owned()).collect()
    };
    // The takeover replaces one client. Its peer is replaced too, or has lost its peer.
    let outcomes = outcomes(&logged.await_events("closed", 2));
    assert!(outcomes.iter().any(|outcome| outcome == "replaced"), "{outcomes:?}");
    if cfg!(feature = "portable") {
        return; // its write timeout also counts what the system holds, which takes minutes: tests/liveness.rs
    }
    let (mut sender, _reader) = (enter("y"), enter("y"));
    sender.set_write_timeout(Some(Duration::from_millis(100))).unwrap();
    let (message, mut sent) = (frame(0x82, &[7; 60_000]), 0);
    eventually("a client that reads nothing is stalled", || {
        sent += sender.write(&message[sent % message.len()..]).unwrap_or(0);
        logged.text().contains("\"stalled\"")
    });
}

#[test]
fn reset_ping_timeout_and_stop_are_told_apart() {
    let logged = Logged::start("logs-lost", &[JSON, &["--ping-interval", "200ms", "--ping-timeout", "2s"]].concat());
    let outcomes = |count: usize| -> BTreeSet<_> {
        let closed = logged.await_events("closed", count);
        closed
            .iter()
            .map(|event| {
                (event["outcome"].as_str().unwrap().to_owned(), event.get("status_code").and_then(Value::as_u64))
            })
            .collect()
    };
    let (mut silent, mut reset) = (logged.relay.socket(), logged.relay.socket());
    open(&mut reset, "/?pair=x", b"");
    support::raw::reset(&reset);
    drop(reset);
    assert_eq!(outcomes(1), BTreeSet::from([(String::from("lost"), None)]));
    open(&mut silent, "/?pair=y", b"");
    assert!(outcomes(2).contains(&(String::from("timeout"), Some(1011))));
    let mut stopped = logged.relay.socket();
    open(&mut stopped, "/?pair=z", b"");
    let log = logged.stop();
    let last = log.lines().find(|line| line.contains("\"outcome\":\"stopped\"")).unwrap();
    assert!(last.contains("\"status_code\":1001"), "{last}");
}

#[test]
fn refusal_without_a_response_has_its_reason() {
    let logged =
        Logged::start("logs-no-answer", &[JSON, &["--max-handshakes", "1", "--handshake-timeout", "4s"]].concat());
    let reasons = |count: usize| -> Vec<_> {
        let refused = logged.await_events("refused", count);
        assert!(refused.iter().all(|event| !event.contains_key("status")), "{refused:?}");
        refused.iter().map(|event| event["reason"].as_str().unwrap().to_owned()).collect()
    };
    logged.relay.http("PRI * HTTP/2.0\r\n\r\n");
    assert_eq!(reasons(1), ["malformed"]);
    let (mut first, mut second) = (logged.relay.socket(), logged.relay.socket());
    expect_end(&mut first);
    assert_eq!(reasons(2)[1], "crowded");
    expect_end(&mut second);
    assert_eq!(reasons(3)[2], "timeout");
    // A partial request does not extend the timeout.
    let mut begun = logged.relay.socket();
    begun.write_all(b"GET ").unwrap();
    expect_end(&mut begun);
    assert_eq!(reasons(4)[3], "timeout");
}

#[test]
fn status_of_a_malformed_request_is_logged() {
    let logged = Logged::start("logs-malformed", JSON);
    for (request, status) in [("no HTTP\r\n\r\n", 400), (&*upgrade("/", &"X: y\r\n".repeat(101)), 431)] {
        let response = logged.relay.http(request);
        assert!(response.starts_with(&format!("HTTP/1.1 {status} ")), "{response}");
    }
    let refused = logged.await_events("refused", 2);
    assert!(refused.iter().all(|event| event["reason"] == "malformed"), "{refused:?}");
    assert!(refused[0]["status"] == 400 && refused[1]["status"] == 431, "{refused:?}");
}

#[test]
fn missing_proxy_header_is_a_refusal() {
    let flags = [JSON, &["--trusted-proxies", "127.0.0.1"]].concat();
    let logged = Logged::start_behind("logs-no-header", &flags, "PROXY UNKNOWN\r\n");
    let refused = |from: [u8; 4], bytes: &[u8]| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from((from, 0)).into()).unwrap();
        socket.connect(&logged.relay.address.into()).unwrap();
        let mut client = TcpStream::from(socket);
        client.write_all(bytes).unwrap();
        let _ = client.shutdown(Shutdown::Write); // the relay may have closed it
        expect_end(&mut client);
    };
    refused([127, 0, 0, 1], b"GET / HTTP/1.1\r\n");
    refused([127, 0, 0, 2], b"PROXY UNKNOWN\r\n");
    // A connection that ends before or within the header, such as a TCP health check, is no refusal.
    refused([127, 0, 0, 1], b"PROXY UNK");
    refused([127, 0, 0, 2], b"");
    logged.await_events("refused", 2);
    let log = logged.stop();
    assert_eq!(log.matches("\"reason\":\"proxy_header\"").count(), 2, "{log}");
    assert_eq!(log.matches("\"refused\"").count(), 2, "{log}");
}

/// Part of everything that the client sends in the next test. No log contains it at any level.
const SECRET: &str = "s3cr3t";

#[test]
fn nothing_that_a_client_sends_is_logged() {
    for format in ["text", "json"] {
        let logged = Logged::start(
            &format!("logs-secrets-{format}"),
            &["--log-level", "debug", "--log-format", format, "--log-code-hash"],
        );
        let hostile = format!("{SECRET}\u{1b}[31m\u{9b}31m");
        let escaped = format!("{SECRET}%0d%0a1970-01-01T00:00:00Z%20error%20forged%1b%5b31m");
        let requests = [
            upgrade(&format!("/{escaped}?pair="), ""),
            upgrade("/", &format!("Origin: {hostile}\r\nSec-WebSocket-Protocol: {hostile}\r\nCookie: {hostile}\r\n")),
            upgrade("/", &format!("X: {SECRET}\n1970-01-01T00:00:00Z error forged\r\n")),
            upgrade(&format!("/?pair={hostile}"), ""),
            upgrade("/?pair=x", "").replace("Version: 13", &format!("Version: {hostile}")),
            format!("GET /{escaped} HTTP/1.1\r\nHost: {SECRET}\r\n\r\n"),
            format!("{SECRET}\r\nforged\u{1b}[31m\r\n\r\n"),
        ];
        for request in &requests {
            logged.relay.http(request);
        }
        let mut client = logged.relay.socket();
        let target = format!("/{escaped}?pair={escaped}&token={SECRET}&side={SECRET}");
        open(&mut client, &target, &[frame(0x82, SECRET.as_bytes()), frame(0x81, SECRET.as_bytes())].concat());
        client.write_all(&frame(0x88, &[&1000_u16.to_be_bytes(), hostile.as_bytes()].concat())).unwrap();
        expect(&mut client, &server_close(1000, ""));
        expect_end(&mut client);
        drop(client);
        let log = logged.stop();
        assert!(log.lines().filter(|line| line.contains("refused")).count() >= requests.len(), "{log}");
        assert!(log.contains("closed") && log.contains("started") && log.contains("stopped"), "{log}");
        assert!(log.chars().all(|c| c == '\n' || matches!(c, ' '..='~')), "{log:?}");
        for word in [SECRET, "forged", "pair=", "127.0.0.1"] {
            assert!(!log.contains(word), "{word}: {log}");
        }
    }
}

#[test]
fn log_addresses_adds_the_address() {
    let logged = Logged::start("logs-addresses", &[JSON, &["--log-addresses"]].concat());
    let mut client = logged.relay.socket();
    open(&mut client, "/?pair=x", &frame(0x88, b""));
    expect_end_of_close(&mut client);
    drop(client);
    assert_eq!(logged.await_events("closed", 1)[0]["address"], "127.0.0.1");
    logged.relay.http(&upgrade("/", ""));
    assert_eq!(logged.await_events("refused", 1)[0]["address"], "127.0.0.1");
}

#[test]
fn address_behind_a_proxy_is_that_of_the_client() {
    let proxy = ["--log-addresses", "--trusted-proxies", "127.0.0.1"];
    let logged = Logged::start("logs-addresses-forwarded", &[JSON, &proxy].concat());
    let forwarded = "X-Forwarded-For: 203.0.113.7\r\n";
    let mut client = logged.relay.socket();
    client.write_all(upgrade("/?pair=x", forwarded).as_bytes()).unwrap();
    client.write_all(&frame(0x88, b"")).unwrap();
    let mut response = Vec::new();
    client.read_to_end(&mut response).unwrap();
    assert_eq!(logged.await_events("closed", 1)[0]["address"], "203.0.113.7");
    logged.relay.http(&upgrade("/", forwarded));
    assert_eq!(logged.await_events("refused", 1)[0]["address"], "203.0.113.7");
    // A request that cannot be understood names no client.
    logged.relay.http("\u{16}\u{3}\u{1}\r\n\r\n");
    let refused = logged.await_events("refused", 2).remove(1);
    assert_eq!((&refused["reason"], &refused["address"]), (&Value::from("malformed"), &Value::from("127.0.0.1")));

    let header = "PROXY TCP4 203.0.113.8 127.0.0.1 80 80\r\n";
    let logged = Logged::start_behind("logs-addresses-proxied", &[JSON, &["--log-addresses"]].concat(), header);
    logged.relay.http(&upgrade("/", ""));
    assert_eq!(logged.await_events("refused", 1)[0]["address"], "203.0.113.8");
}

/// Expects an empty close frame and the end of the stream.
fn expect_end_of_close(client: &mut TcpStream) {
    expect(client, &[0x88, 0]);
    expect_end(client);
}

#[test]
fn level_selects_events() {
    for (level, expected) in [
        ("off", &[][..]),
        ("error", &[]),
        ("warn", &[]),
        ("info", &["started", "waiting", "closed", "stopping", "stopped"]),
        ("debug", &["started", "refused", "waiting", "closed", "stopping", "stopped"]),
    ] {
        let logged = Logged::start(&format!("logs-level-{level}"), &["--log-level", level]);
        logged.relay.http(&upgrade("/", ""));
        let mut client = logged.relay.socket();
        open(&mut client, "/?pair=x", &frame(0x88, b""));
        expect_end_of_close(&mut client);
        drop(client);
        if expected.contains(&"closed") {
            eventually("closed is logged before the relay stops", || logged.text().contains(" closed "));
        }
        let log = logged.stop();
        let events: Vec<_> = log.lines().map(|line| line.split(' ').nth(2).unwrap()).collect();
        assert_eq!(events, expected, "{level}");
    }
}

#[test]
fn flood_is_100_lines_a_second_and_a_count_of_the_rest() {
    const REFUSALS: u64 = 3000;
    let logged = Logged::start("logs-flood", JSON);
    for _ in 0..REFUSALS {
        logged.relay.http(&upgrade("/", ""));
    }
    let missed = logged.await_events("not_logged", 1);
    assert!(missed.iter().all(|event| event["level"] == "debug"), "other levels have their own budget: {missed:?}");
    let sum = || {
        let events = logged.events();
        let of = |name: &'static str| events.iter().filter(move |event| event["event"] == name);
        of("refused").count() as u64 + of("not_logged").map(|event| event["count"].as_u64().unwrap()).sum::<u64>()
    };
    eventually("all refusals are logged or counted", || logged.text().ends_with('\n') && sum() == REFUSALS);
}

#[test]
fn relay_runs_without_a_reader_of_its_log() {
    let (reader, mut writer) = std::io::pipe().unwrap();
    // A full pipe: the first line already blocks the writer thread.
    writer.write_all(&[b'\n'; 64 * 1024]).unwrap();
    let mut command = start(&["--log-level", "debug"]);
    command.stderr(writer);
    let mut relay = Relay::spawn(command);
    let begin = Instant::now();
    // Long enough to fill the queue of 1024 lines: two levels add 100 lines a second each.
    for round in (0..).take_while(|&round| round < 2000 || begin.elapsed() < Duration::from_secs(8)) {
        assert!(relay.http(&upgrade("/", "")).starts_with("HTTP/1.1 400 "));
        let mut client = relay.socket();
        open(&mut client, &format!("/?pair={round}"), &frame(0x88, b""));
        expect_end_of_close(&mut client);
    }
    relay.assert_empty();
    assert!(relay.memory("VmRSS") < 40 * 1024, "{} KiB", relay.memory("VmRSS"));
    relay.signal(Signal::TERM);
    assert_eq!(relay.wait().code(), Some(0));
    drop(reader);
}

#[test]
fn logged_events_are_those_in_the_table() {
    let flags = ["--log-addresses", "--log-code-hash", "--probe-timeout", "0", "--pair-ttl", "3s"];
    let flags = [&flags[..], &["--ops-address", "127.0.0.1:0"]].concat();
    let logged = Logged::start("logs-table", &[JSON, &flags].concat());
    let mut alone = logged.relay.socket();
    open(&mut alone, "/?pair=y", b"");
    expect(&mut alone, &server_close(1001, "pair expired"));
    drop(alone);
    let _pair = ["/?pair=z"; 2].map(|target| {
        let mut socket = logged.relay.socket();
        open(&mut socket, target, b"");
        socket
    });
    logged.relay.http(&upgrade("/?pair=z", ""));
    for behind in [&frame(0x88, &1000_u16.to_be_bytes())[..], &frame(0x82, b"x")] {
        let mut client = logged.relay.socket();
        open(&mut client, "/?pair=x", behind);
    }
    logged.await_events("closed", 2);
    let log = logged.stop();
    let mut seen: BTreeMap<(String, String), BTreeSet<String>> = BTreeMap::new();
    for line in log.lines() {
        let mut event: BTreeMap<String, Value> = serde_json::from_str(line).unwrap();
        let mut take = |name: &str| event.remove(name).unwrap().as_str().unwrap().to_owned();
        let (_, level, name) = (take("time"), take("level"), take("event"));
        seen.entry((name, level)).or_default().extend(event.into_keys());
    }
    let listed: BTreeMap<_, _> = table("| event | level | fields |")
        .into_iter()
        .map(|row| {
            let words = |cell: &str| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>();
            ((words(&row[0]).remove(0), row[1].clone()), words(&row[2]).into_iter().collect::<BTreeSet<_>>())
        })
        .collect();
    for (event, fields) in &seen {
        assert_eq!(listed.get(event), Some(fields), "{event:?}");
    }
    // Other tests cover these, but for `file_limit_kept`: no limit of Linux keeps a process from its hard limit.
    let others = [
        "accept_failed",
        "file_limit_kept",
        "limit_lowered",
        "not_logged",
        "panicked",
        "recalled",
        "service_manager_not_told",
        "text_dropped",
        "ticket_keys_kept",
        "ticket_keys_read",
        "tokens_kept",
        "tokens_read",
        "variable_ignored",
        "variable_unknown",
    ];
    let known = seen.keys().map(|(name, _)| name.as_str()).chain(others).collect::<BTreeSet<_>>();
    assert_eq!(listed.keys().map(|(name, _)| name.as_str()).collect::<BTreeSet<_>>(), known);
}

#[test]
fn outcomes_and_reasons_are_those_in_the_tables() {
    let listed = |heading: &str| -> Vec<String> {
        table(heading).into_iter().map(|row| row[0].trim_matches('`').to_owned()).collect()
    };
    assert_eq!(listed("| outcome |"), Outcome::ALL.iter().map(|outcome| outcome.name()).collect::<Vec<_>>());
    assert_eq!(
        listed("| reason | the client |"),
        Rejection::ALL.iter().map(|reason| reason.name()).collect::<Vec<_>>()
    );
}

/// The cells of the table in docs/logs.md with this heading, row by row.
fn table(heading: &str) -> Vec<Vec<String>> {
    let start = LOGS.find(heading).unwrap_or_else(|| panic!("no table {heading:?}"));
    let rows = LOGS[start..].lines().skip(2).take_while(|line| line.starts_with('|'));
    rows.map(|row| row.trim_matches('|').split(" | ").map(|cell| cell.trim().to_owned()).collect()).collect()
}

#[test]
fn failure_to_accept_is_a_warning() {
    let logged = Logged::start("logs-accept", &["--log-level", "warn", "--log-format", "json"]);
    // Lowered while the relay runs: with a lower limit at the start, the relay would close handshakes before it runs out
    // of files.
    logged.relay.limit_files(logged.relay.files() as u64 + 2);
    let crowd: Vec<_> = (0..30).map(|_| logged.relay.socket()).collect();
    let failed = logged.await_events("accept_failed", 1).remove(0);
    assert_eq!(failed["level"], "warn");
    assert!(failed["error"].as_str().unwrap().starts_with("Too many open files"), "{failed:?}");
    drop(crowd);
}
