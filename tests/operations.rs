//! The operations listener of the binary: what it answers, to how many, and until when.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod support;

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;
use support::raw::{expect_end, frame, open, reset, upgrade};
use support::{Relay, arc_relay, eventually, raise_file_limit};

const OPERATIONS: &str = include_str!("../docs/operations.md");

const OPS: &[&str] = &["--ops-address", "127.0.0.1:0", "--probe-timeout", "0"];

/// The number of connections of the scrape that is measured, and what it may cost.
const CONNECTIONS: usize = 10_000;
const MOST_CPU: Duration = Duration::from_millis(5);

fn start(flags: &[&str]) -> Relay {
    Relay::start(&[OPS, flags].concat())
}

fn client(relay: &Relay, code: &str) -> TcpStream {
    let mut socket = relay.socket();
    open(&mut socket, &format!("/?pair={code}"), b"");
    socket
}

fn info(relay: &Relay) -> Value {
    serde_json::from_str(&relay.ops_get("/info").1).unwrap()
}

/// The value of a series.
fn value(metrics: &str, series: &str) -> f64 {
    let line = metrics.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {series} in {metrics}")).parse().unwrap()
}

fn metrics(relay: &Relay) -> String {
    relay.ops_get("/metrics").1
}

#[test]
fn metrics_are_those_in_the_document() {
    let relay = start(&[]);
    let (mut told, text) = (Vec::<[String; 4]>::new(), metrics(&relay));
    for line in text.lines() {
        let mut words = line.splitn(4, ' ');
        match (words.next().unwrap(), words.next().unwrap()) {
            ("#", "HELP") => {
                let [name, help] = [words.next(), words.next()].map(|word| word.unwrap().to_owned());
                told.push([format!("`{name}`"), String::new(), String::new(), help]);
            }
            ("#", "TYPE") => told.last_mut().unwrap()[1] = words.nth(1).unwrap().to_owned(),
            (series, _) => {
                let labels = series.split_once('{').map(|(_, labels)| labels.split('=').next().unwrap());
                if let Some(label) = labels.filter(|label| *label != "le") {
                    told.last_mut().unwrap()[2] = format!("`{label}`");
                }
            }
        }
    }
    let start = OPERATIONS.find("| metric | kind |").unwrap();
    let rows = OPERATIONS[start..].lines().skip(2).take_while(|line| line.starts_with('|'));
    let listed: Vec<[String; 4]> = rows
        .map(|row| {
            let mut cells = row.trim_matches('|').split('|').map(|cell| cell.trim().to_owned());
            [(); 4].map(|()| cells.next().unwrap())
        })
        .collect();
    assert!(told.len() > 25);
    assert_eq!(told, listed);
}

#[test]
fn metrics_tell_what_has_happened() {
    let relay = start(&["--max-connections", "100", "--workers", "2"]);
    let (mut a, mut b) = (client(&relay, "secret-x"), client(&relay, "secret-x"));
    let _waiting = client(&relay, "secret-y");
    a.write_all(&[frame(0x82, &[7; 1000]), frame(0x81, b"dropped text")].concat()).unwrap();
    b.read_exact(&mut [0; 1004]).unwrap();
    relay.http(&upgrade("/?pair=secret-x", ""));
    relay.http(&upgrade("/", ""));
    drop(client(&relay, "secret-z"));
    eventually("the last one has left", || value(&metrics(&relay), "arc_relay_unmet_total") == 1.0);
    let text = metrics(&relay);
    for (series, expected) in [
        ("arc_relay_ready", 1.0),
        ("arc_relay_workers", 2.0),
        ("arc_relay_connections", 3.0),
        ("arc_relay_limit_connections", 100.0),
        ("arc_relay_pairs{state=\"paired\"}", 1.0),
        ("arc_relay_pairs{state=\"waiting\"}", 1.0),
        ("arc_relay_rejected_total{reason=\"pair_full\"}", 1.0),
        ("arc_relay_rejected_total{reason=\"pair_code\"}", 1.0),
        ("arc_relay_closed_total{outcome=\"left\"}", 1.0),
        ("arc_relay_forwarded_bytes_total", 1000.0),
        ("arc_relay_forwarded_messages_total", 1.0),
        ("arc_relay_dropped_messages_total", 1.0),
        ("arc_relay_pair_wait_seconds_count", 1.0),
        ("arc_relay_pair_wait_seconds_bucket{le=\"+Inf\"}", 1.0),
        ("arc_relay_pair_duration_seconds_count", 0.0),
        ("arc_relay_panics_total", 0.0),
    ] {
        assert_eq!(value(&text, series), expected, "{series}");
    }
    assert!(value(&text, "process_open_fds") > 10.0 && value(&text, "process_cpu_seconds_total") > 0.0);
    drop((a, b));
    eventually("the pair has ended", || value(&metrics(&relay), "arc_relay_pair_duration_seconds_count") == 1.0);
    // Nothing of it is a client's.
    for path in ["/", "/metrics", "/info", "/samples", "/health"] {
        let body = relay.ops_get(path).1;
        for private in ["secret", "127.0.0", "dropped text", &relay.address.port().to_string()] {
            assert!(!body.contains(private), "{path} has {private}");
        }
    }
}

#[test]
fn scraper_that_prefers_open_metrics_gets_it() {
    let relay = start(&[]);
    let ask = |accept: &str| relay.ops_http(&format!("GET /metrics HTTP/1.1\r\nHost: t\r\nAccept: {accept}\r\n\r\n"));
    let open = ask("application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.2");
    assert!(
        open.contains("\r\ncontent-type: application/openmetrics-text; version=1.0.0; charset=utf-8\r\n"),
        "{open}"
    );
    assert!(open.ends_with("\n# EOF\n") && open.contains("# UNIT arc_relay_pair_wait_seconds seconds\n"), "{open}");
    assert!(open.contains("# TYPE arc_relay_rejected counter\narc_relay_rejected_total{"), "{open}");
    let plain = ask("*/*");
    assert!(plain.contains("\r\ncontent-type: text/plain; version=0.0.4; charset=utf-8\r\n"), "{plain}");
    assert!(!plain.contains("# EOF") && plain.contains("# TYPE arc_relay_rejected_total counter\n"), "{plain}");
}

#[test]
fn requests_for_something_else_are_refused() {
    let relay = start(&[]);
    for (request, status) in [
        ("GET /nothing HTTP/1.1\r\nHost: t\r\n\r\n", 404),
        ("POST /metrics HTTP/1.1\r\nHost: t\r\n\r\n", 405),
        ("DELETE / HTTP/1.1\r\nHost: t\r\n\r\n", 405),
        ("GET / HTTP/1.1\r\n\r\n", 400),
        ("GET / HTTP/1.1\nHost: t\n\n", 400),
        ("nonsense\r\n\r\n", 400),
        (&format!("GET / HTTP/1.1\r\nHost: t\r\nX: {}\r\n\r\n", "x".repeat(17_000)), 431),
        (&upgrade("/?pair=x", ""), 200),
        ("GET / HTTP/1.0\r\n\r\n", 200),
    ] {
        let response = relay.ops_http(request);
        assert!(
            response.starts_with(&format!("HTTP/1.{} {status} ", u8::from(!request.contains("/1.0")))),
            "{response}"
        );
    }
    for path in ["/", "/metrics", "/info", "/samples", "/livez"] {
        let head = relay.ops_http(&format!("HEAD {path} HTTP/1.1\r\nHost: t\r\n\r\n"));
        assert!(head.starts_with("HTTP/1.1 200 ") && head.ends_with("\r\n\r\n"), "{head}");
        assert!(head.contains("\r\nx-content-type-options: nosniff\r\n"), "{head}");
    }
}

#[test]
fn samples_are_taken_without_a_page() {
    let relay = start(&[]);
    let numbers = |query: &str| -> Vec<u64> {
        let samples: Value = serde_json::from_str(&relay.ops_get(&format!("/samples{query}")).1).unwrap();
        samples["samples"].as_array().unwrap().iter().map(|sample| sample["number"].as_u64().unwrap()).collect()
    };
    eventually("there are two samples", || numbers("") == [0, 1]);
    assert_eq!(numbers("?from=1")[0], 1);
    assert_eq!(numbers("?from=nonsense")[0], 0);
    assert!(numbers("?from=18446744073709551615").is_empty());
}

#[test]
fn silent_connections_keep_no_scraper_out() {
    let relay = start(&[]);
    let mut silent: Vec<_> = (0..200).map(|_| relay.ops_socket()).collect();
    assert_eq!(relay.ops_get("/livez"), (200, String::from("alive\n")));
    // The oldest have made room, and the newest are there until their deadline.
    silent.drain(..100).for_each(|mut socket| expect_end(&mut socket));
    assert!(relay.files() < 150, "{} files", relay.files());
    // Some leave by a reset instead.
    silent.drain(..10).for_each(|socket| reset(&socket));
    let begin = Instant::now();
    silent.iter_mut().for_each(expect_end);
    println!("the last ones were closed after {:?}", begin.elapsed());
    assert_eq!(relay.ops_get("/livez").0, 200);
}

/// It is closed at the deadline, and others are answered meanwhile.
#[test]
fn client_that_takes_no_answer_is_closed() {
    let relay = start(&[]);
    let files = relay.files();
    let slow: Vec<_> = (0..20)
        .map(|_| {
            let mut socket = relay.ops_socket();
            socket2::SockRef::from(&socket).set_recv_buffer_size(1024).unwrap();
            socket.write_all(b"GET / HTTP/1.1\r\nHost: t\r\n\r\n").unwrap();
            socket
        })
        .collect();
    assert_eq!(relay.ops_get("/readyz"), (200, String::from("ready\n")));
    eventually("all are closed", || relay.files() <= files);
    drop(slow);
}

#[test]
fn it_answers_until_the_last_connection_has_ended() {
    let mut relay = start(&["--drain-delay", "1s", "--drain-timeout", "1h"]);
    let (a, b) = (client(&relay, "x"), client(&relay, "x"));
    assert_eq!(relay.ops_get("/readyz"), (200, String::from("ready\n")));
    relay.signal(Signal::TERM);
    eventually("it says that it stops", || relay.ops_get("/readyz") == (503, String::from("stopping\n")));
    assert_eq!(info(&relay)["ready"], Value::Bool(false));
    eventually("the port of the clients is closed", || TcpStream::connect(relay.address).is_err());
    assert_eq!(relay.ops_get("/livez").0, 200);
    let text = metrics(&relay);
    assert_eq!([value(&text, "arc_relay_ready"), value(&text, "arc_relay_connections")], [0.0, 2.0]);
    // A connection that says nothing does not delay the end.
    let mut silent = relay.ops_socket();
    drop((a, b));
    assert_eq!(relay.wait().code(), Some(0));
    expect_end(&mut silent);
    assert!(TcpStream::connect(relay.operations.unwrap()).is_err());
}

#[test]
fn address_that_cannot_be_listened_on_is_one_line() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let arguments = ["start", "--host", "127.0.0.1", "--port", "0", "--ops-address", &address];
    let output = arc_relay().args(arguments).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert!(stderr.starts_with(&format!("arc-relay: operations listener: cannot listen on {address}: ")), "{stderr}");
    assert!(output.stdout.is_empty());
}

#[test]
fn without_the_flag_there_is_no_such_listener() {
    let relay = Relay::start(&[]);
    let threads = |relay: &Relay| -> BTreeSet<String> {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", relay.pid().as_raw_nonzero())).unwrap();
        tasks
            .map(|task| std::fs::read_to_string(task.unwrap().path().join("comm")).unwrap().trim().to_owned())
            .collect()
    };
    assert!(!threads(&relay).contains("arc-relay-ops"));
    assert!(threads(&start(&[])).contains("arc-relay-ops"));
    for path in ["/metrics", "/info", "/samples"] {
        assert!(relay.http(&format!("GET {path} HTTP/1.1\r\nHost: t\r\n\r\n")).starts_with("HTTP/1.1 404 "), "{path}");
    }
}

/// What the scrape costs does not depend on the number of connections.
#[test]
fn scrape_is_cheap_with_thousands_of_connections() {
    const SCRAPES: u32 = 200;
    let files = usize::try_from(raise_file_limit()).unwrap_or(usize::MAX);
    let connections = CONNECTIONS.min(files.saturating_sub(500) / 2 * 2);
    assert!(connections >= 1000, "a limit of {files} open files is too low for this test");
    let relay = start(&["--ping-interval", "0", "--max-connections", "15000"]);
    let clients: Vec<_> = (0..connections).map(|number| client(&relay, &format!("{}", number / 2))).collect();
    let cpu = relay.cpu();
    for _ in 0..SCRAPES {
        assert!(metrics(&relay).contains(&format!("arc_relay_connections {connections}\n")));
    }
    let each = (relay.cpu() - cpu) / SCRAPES;
    println!("a scrape with {connections} connections took {each:?} of CPU time");
    assert!(each < MOST_CPU, "{each:?}");
    clients.iter().for_each(reset);
}
