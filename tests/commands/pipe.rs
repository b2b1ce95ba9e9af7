//! `arc-relay pipe`.

use std::fs;
use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::thread;

use serde_json::json;

use crate::process::{Ended, arc_relay, ended};
use crate::support::{NO_PINGS, Relay, eventually, pattern, run, scratch};
use crate::tls_front::TlsFront;

fn pipe(arguments: &[&str]) -> Command {
    arc_relay(&[&["pipe"], arguments].concat())
}

fn url(relay: &Relay, code: &str) -> String {
    relay.url(&format!("/?pair={code}"))
}

/// A running pipe with its standard streams.
fn spawn(arguments: &[&str]) -> Child {
    let mut command = pipe(arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Ends standard input behind these bytes, and waits for the end of the process.
fn finish(mut child: Child, input: &[u8]) -> Ended {
    let (mut stdin, input) = (child.stdin.take().unwrap(), input.to_vec());
    // A process that has ended reads no more.
    let writer = thread::spawn(move || drop(stdin.write_all(&input)));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ended { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

fn finish_with_bytes(child: Child, input: Vec<u8>) -> Vec<u8> {
    let mut child = child;
    let mut stdin = child.stdin.take().unwrap();
    let writer = thread::spawn(move || stdin.write_all(&input).unwrap());
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    assert_eq!((output.status.code(), output.stderr), (Some(0), Vec::new()));
    output.stdout
}

#[test]
fn both_streams_arrive_whole_and_then_both_sides_end() {
    let relay = Relay::start(NO_PINGS);
    let url = &url(&relay, "both");
    let [a, b] = [1, 2].map(|seed| pattern(3_000_000 + seed as usize, seed));
    let (one, other) = (spawn(&[url]), spawn(&[url]));
    let sent = a.clone();
    let one = thread::spawn(move || finish_with_bytes(one, sent));
    assert!(finish_with_bytes(other, b.clone()) == a, "not what was sent");
    assert!(one.join().unwrap() == b, "not what was sent");
}

/// As in `tar c . | arc-relay pipe URL` and `arc-relay pipe URL | tar x`, for all flags.
#[test]
fn one_stream_arrives_whole_and_then_both_sides_end() {
    let relay = Relay::start(NO_PINGS);
    let bytes = pattern(5_000_000, 3);
    for (nth, (from, to)) in [
        (None, None),
        (Some("--send-only"), None),
        (None, Some("--recv-only")),
        (Some("--send-only"), Some("--recv-only")),
    ]
    .into_iter()
    .enumerate()
    {
        let url = url(&relay, &format!("one-{nth}"));
        let arguments = |flag: Option<&'static str>| [Some(&*url), flag].into_iter().flatten().collect::<Vec<_>>();
        let (from, to) = (spawn(&arguments(from)), spawn(&arguments(to)));
        let sent = bytes.clone();
        let from = thread::spawn(move || finish_with_bytes(from, sent));
        assert!(finish_with_bytes(to, Vec::new()) == bytes, "not what was sent");
        assert_eq!(from.join().unwrap(), b"");
    }
}

#[test]
fn end_of_one_stream_is_seen_while_the_other_goes_on() {
    let relay = Relay::start(NO_PINGS);
    let url = url(&relay, "half");
    let (mut one, mut other) = (spawn(&[&url]), spawn(&[&url]));
    one.stdin.take().unwrap().write_all(b"question").unwrap();
    let mut question = String::new();
    other.stdout.take().unwrap().read_to_string(&mut question).unwrap();
    assert_eq!(question, "question");
    assert_eq!(finish(other, b"answer").succeeded(), "");
    let mut answer = String::new();
    one.stdout.take().unwrap().read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "answer");
    assert_eq!(one.wait().unwrap().code(), Some(0));
}

#[test]
fn chunks_are_binary_messages_and_an_empty_one_is_the_end() {
    let relay = Relay::start(NO_PINGS);
    let child = spawn(&[&url(&relay, "client")]);
    let bytes = pattern(1_000_000, 4);
    let sent = bytes.clone();
    let child = thread::spawn(move || {
        let mut child = child;
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(&sent).unwrap();
        drop(stdin);
        let output = child.wait_with_output().unwrap();
        (output.status.code(), output.stdout, output.stderr)
    });
    run(async {
        let mut client = relay.connect("client").await;
        let mut received = Vec::new();
        loop {
            let message = client.receive().await;
            assert!(message.len() <= 65_536);
            match message.is_empty() {
                true => break,
                false => received.extend(message),
            }
        }
        assert!(received == bytes, "not what was sent");
        client.send("last words").await;
        client.close(4000, "").await;
    });
    assert_eq!(child.join().unwrap(), (Some(0), b"last words".to_vec(), Vec::new()));
}

#[test]
fn end_of_the_connection_is_an_error_unless_the_peer_has_left() {
    let relay = Relay::start(&[NO_PINGS, &["--pair-ttl", "300ms"]].concat());
    let child = spawn(&[&url(&relay, "alone")]);
    let output = child.wait_with_output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), &*error), (Some(1), "arc-relay: closed with 1001 pair expired\n"));

    let mut child = spawn(&[&url(&relay, "lost")]);
    run(async {
        let mut client = relay.connect("lost").await;
        client.send("x").await;
        // So the two are joined before the reset.
        child.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
        client.reset();
    });
    let output = child.wait_with_output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), &*error), (Some(1), "arc-relay: closed with 1011 peer connection lost\n"));

    let mut child = spawn(&[&url(&relay, "early")]);
    run(async {
        let mut client = relay.connect("early").await;
        client.send("x").await;
        child.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
        client.hang_up();
    });
    assert_eq!(child.wait_with_output().unwrap().status.code(), Some(0), "its standard input is still open");
}

#[test]
fn refusals_are_one_line_without_the_code() {
    let tokens = scratch("pipe-tokens");
    fs::write(&tokens, "# a comment\n\n blue \n").unwrap();
    let tokens = tokens.to_str().unwrap();
    let relay = Relay::start(&[NO_PINGS, &["--access-token-file", tokens, "--min-code-length", "6"]].concat());
    let root = relay.url("/");
    let refused = |arguments: &[&str]| ended(&mut pipe(arguments)).failed(1);
    assert_eq!(refused(&[&url(&relay, "secret")]), format!("{root}: refused with 401 access token required"));
    let short = refused(&[&url(&relay, "short"), "--token-file", tokens]);
    assert_eq!(short, format!("{root}: refused with 400 missing or invalid pair code"));
    let nothing = refused(&[&url(&relay, "secret"), "--token-file", "/nowhere"]);
    assert!(nothing.starts_with("cannot read the access token from \"/nowhere\": No such file"), "{nothing}");

    // A code from a file need not be encoded.
    let code = scratch("pipe-code");
    fs::write(&code, "a+b c&d\u{e9}%41\n").unwrap();
    let arguments = [&*root, "--token-file", tokens, "--pair-file", code.to_str().unwrap()];
    let (one, other) = (spawn(&arguments), spawn(&[&arguments[..], &["--recv-only"]].concat()));
    assert_eq!(finish(one, b"hello").succeeded(), "");
    assert_eq!(finish(other, b"").succeeded(), "hello");
}

#[test]
fn wrong_arguments_are_one_line() {
    for (arguments, expected) in [
        (&[][..], "pipe: the url is missing (see arc-relay pipe --help)"),
        (&["ws://localhost"], "url: a pair code is missing: add ?pair=CODE, or give --pair-file or --secret-file"),
        (&["ws://localhost?pair=x", "--pair-file", "y"], "--pair-file: the URL has a pair code already"),
        (&["ws://localhost?pair=x", "--send-only", "--recv-only"], "--send-only and --recv-only exclude each other"),
        (&["ws://localhost?pair=x", "--send"], "unknown flag \"--send\": did you mean --send-only?"),
    ] {
        let error = ended(&mut pipe(arguments)).failed(2);
        assert!(error.starts_with(expected), "{error}");
    }
}

#[test]
fn closed_standard_output_is_an_error() {
    let relay = Relay::start(NO_PINGS);
    let mut child = spawn(&[&url(&relay, "deaf"), "--recv-only"]);
    drop(child.stdout.take());
    let from = spawn(&[&url(&relay, "deaf")]);
    let code = finish(from, b"hello").code;
    assert!(code == Some(0) || code == Some(1), "{code:?}");
    let output = child.wait_with_output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(error.starts_with("arc-relay: cannot write to standard output: Broken pipe"), "{error}");
}

/// A reader that stops stops the writer, and none of the two processes collects anything.
#[test]
fn memory_is_constant_with_a_slow_reader() {
    let relay = Relay::start(NO_PINGS);
    let url = url(&relay, "slow");
    let (mut from, mut to) = (spawn(&[&url, "--send-only"]), spawn(&[&url, "--recv-only"]));
    let memory = |child: &Child| {
        let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        peak.trim().trim_end_matches(" kB").parse::<usize>().unwrap()
    };
    let mut stdin = from.stdin.take().unwrap();
    let written = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let count = written.clone();
    let writer = thread::spawn(move || {
        let chunk = pattern(1 << 20, 5);
        for _ in 0..256 {
            stdin.write_all(&chunk).unwrap();
            count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
    });
    // It stops in the middle: the writer's count stays the same for a while.
    let (mut before, mut same) = (0, 0);
    eventually("the writer has stopped", || {
        let now = written.load(std::sync::atomic::Ordering::Relaxed);
        same = if now == before { same + 1 } else { 0 };
        before = now;
        now > 0 && same > 300
    });
    assert!(before < 100, "{before} MiB without a reader");
    let mut total = 0;
    let mut stdout = to.stdout.take().unwrap();
    let mut buffer = vec![0; 1 << 20];
    let mut peaks = (0, 0);
    loop {
        match stdout.read(&mut buffer).unwrap() {
            0 => break,
            more => total += more,
        }
        // Far from the end, as a process that has ended has no memory.
        if total > 128 << 20 && peaks == (0, 0) {
            peaks = (memory(&from), memory(&to));
        }
    }
    writer.join().unwrap();
    assert_eq!(total, 256 << 20);
    assert!(peaks.0 < 32 << 10 && peaks.1 < 32 << 10, "{peaks:?} KiB");
    assert_eq!((from.wait().unwrap().code(), to.wait().unwrap().code()), (Some(0), Some(0)));
}

#[test]
fn stream_passes_a_proxy_with_tls() {
    let relay = Relay::start(NO_PINGS);
    let front = TlsFront::start(relay.address, &["localhost"]);
    let url = format!("wss://localhost:{}/?pair=tls", front.address.port());
    let arguments = [&*url, "--ca-file", front.ca_file.to_str().unwrap()];
    let (one, other) = (spawn(&arguments), spawn(&arguments));
    let bytes = pattern(2_000_000, 6);
    let sent = bytes.clone();
    let one = thread::spawn(move || finish_with_bytes(one, sent));
    assert!(finish_with_bytes(other, Vec::new()) == bytes, "not what was sent");
    one.join().unwrap();
}

#[test]
fn result_as_json_is_on_standard_error() {
    let relay = Relay::start(NO_PINGS);
    let url = url(&relay, "json");
    let (one, other) = (spawn(&[&url, "--json"]), spawn(&[&url]));
    let one = thread::spawn(move || finish(one, b"four"));
    finish(other, b"").succeeded();
    let one = one.join().unwrap();
    let mut result: serde_json::Value = serde_json::from_str(&one.stderr).unwrap();
    assert!(result["seconds"].take().as_f64().unwrap() > 0.0);
    let count = |bytes, messages| json!({ "bytes": bytes, "messages": messages });
    let expected = json!({ "ok": true, "sent": count(4, 1), "received": count(0, 0), "seconds": null, "error": null });
    assert_eq!((one.code, result), (Some(0), expected));

    let lost = ended(&mut pipe(&["ws://127.0.0.1:1?pair=x", "--json"]));
    let result: serde_json::Value = serde_json::from_str(&lost.stderr).unwrap();
    assert_eq!((lost.code, &result["ok"]), (Some(1), &json!(false)));
    assert!(result["error"].as_str().unwrap().contains("cannot connect"), "{result}");
}
