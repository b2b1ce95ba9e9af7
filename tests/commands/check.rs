//! `arc-relay check`, against relays and what can be in front of them.
//!
//! `.ci/diagnosis` has the real proxies.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;

use serde_json::{Value, json};

use crate::process::{Ended, arc_relay, ended};
use crate::support::{Relay, scratch};
use crate::tls_front::TlsFront;

fn check(arguments: &[&str]) -> Ended {
    ended(&mut arc_relay(&[&["check", "--quick"], arguments].concat()))
}

/// The check with this name.
#[track_caller]
fn line<'a>(result: &'a Value, name: &str) -> &'a Value {
    let lines = result["checks"].as_array().unwrap();
    lines.iter().find(|line| line["name"] == name).unwrap_or_else(|| panic!("no {name}: {result}"))
}

/// The only failed check: its name and its cause.
#[track_caller]
fn failed(arguments: &[&str]) -> (String, String) {
    let result = check(&[arguments, &["--json"]].concat()).json(1);
    assert_eq!(result["ok"], false);
    let failed: Vec<_> =
        result["checks"].as_array().unwrap().iter().filter(|line| line["status"] == "failed").collect();
    assert_eq!(failed.len(), 1, "{failed:?}");
    assert!(!failed[0]["remedies"].as_object().unwrap().is_empty(), "{failed:?}");
    let text = |field: &str| failed[0][field].as_str().unwrap().to_owned();
    (text("name"), text("cause"))
}

/// Serves all connections with this answer.
fn serve(answer: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for socket in listener.incoming() {
            thread::spawn(move || {
                let mut socket = socket.unwrap();
                // The check of the address sends nothing.
                if socket.read(&mut [0; 4096]).is_ok_and(|count| count > 0) {
                    let _ = socket.write_all(answer.as_bytes());
                }
            });
        }
    });
    format!("ws://{address}")
}

/// Copies connections to a relay, and what `up` makes of the client's bytes.
fn forward(upstream: SocketAddr, up: impl Fn(&mut TcpStream, &mut TcpStream) + Clone + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for client in listener.incoming() {
            let (mut client, mut relay) = (client.unwrap(), TcpStream::connect(upstream).unwrap());
            let (mut from_relay, mut to_client) = (relay.try_clone().unwrap(), client.try_clone().unwrap());
            let up = up.clone();
            thread::spawn(move || {
                let _ = std::io::copy(&mut from_relay, &mut to_client);
                let _ = to_client.shutdown(std::net::Shutdown::Write);
            });
            thread::spawn(move || {
                up(&mut client, &mut relay);
                let _ = relay.shutdown(std::net::Shutdown::Both);
                let _ = client.shutdown(std::net::Shutdown::Both);
            });
        }
    });
    format!("ws://{address}")
}

/// Reads the head of a request, with this done to it, and sends it on.
fn pass_head(client: &mut TcpStream, relay: &mut TcpStream, change: impl Fn(String) -> String) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        if client.read(&mut byte).unwrap_or(0) == 0 {
            return;
        }
        head.push(byte[0]);
    }
    relay.write_all(change(String::from_utf8(head).unwrap()).as_bytes()).unwrap();
}

fn changed(upstream: SocketAddr, change: impl Fn(String) -> String + Clone + Send + 'static) -> String {
    forward(upstream, move |client, relay| {
        pass_head(client, relay, &change);
        let _ = std::io::copy(client, relay);
    })
}

#[test]
fn relay_behind_tls_is_right_in_all_checks() {
    let tokens = scratch("check-tokens");
    fs::write(&tokens, "blue").unwrap();
    let tokens = tokens.to_str().unwrap();
    let relay = Relay::start(&["--access-token-file", tokens, "--min-code-length", "22"]);
    let front = TlsFront::start(relay.address, &["localhost"]);
    let url = &*format!("wss://localhost:{}/some/path?tenant=x", front.address.port());
    let ca_file = front.ca_file.to_str().unwrap();
    let arguments = ["check", url, "--ca-file", ca_file, "--token-file", tokens, "--silence", "1s", "--json"];
    let result = ended(&mut arc_relay(&arguments)).json(0);
    for line in result["checks"].as_array().unwrap() {
        assert_eq!((&line["status"], &line["cause"]), (&json!("ok"), &json!(null)), "{line}");
    }
    assert_eq!(result["checks"].as_array().unwrap().len(), 14);
    assert_eq!(result["url"], format!("wss://localhost:{}/some/path", front.address.port()));
    assert_eq!(line(&result, "messages")["values"]["longest"], 8 << 20);
    assert!(line(&result, "throughput")["values"]["bytes_per_second"][1].as_u64().unwrap() > 0);
    assert!(line(&result, "certificate")["values"]["seconds"].as_u64().unwrap() > 100_000_000);

    assert_eq!(failed(&[url, "--token-file", tokens]), ("certificate".into(), "certificate_issuer".into()));
    let other = format!("wss://127.0.0.1:{}", front.address.port());
    assert_eq!(failed(&[&other, "--ca-file", ca_file]), ("certificate".into(), "certificate_name".into()));
    assert_eq!(failed(&[url, "--ca-file", ca_file]), ("upgrade".into(), "token".into()));
}

#[test]
fn what_is_wrong_with_the_upgrade_is_told_by_its_cause() {
    let relay = Relay::start(&[]);
    let url = relay.url("");
    let plain = url.replace("ws", "wss");
    assert_eq!(failed(&[&plain]), ("certificate".into(), "no_tls".into()));
    for (change, expected) in [
        (("Upgrade: websocket\r\n", ""), "upgrade_lost"),
        (("Connection: Upgrade\r\n", "Connection: close\r\n"), "upgrade_lost"),
        (("Sec-WebSocket-Version: 13\r\n", ""), "upgrade_lost"),
        (("HTTP/1.1", "HTTP/1.0"), "http_1_0"),
        (("?pair=", "?x="), "query_lost"),
    ] {
        let front = changed(relay.address, move |head| head.replacen(change.0, change.1, 1));
        assert_eq!(failed(&[&front]), ("upgrade".into(), expected.into()), "{change:?}");
    }
    for (answer, expected) in [
        ("HTTP/1.1 301 Moved\r\nLocation: https://a/?pair=secret\r\nContent-Length: 0\r\n\r\n", "redirected"),
        ("HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n", "gateway"),
        ("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", "not_routed"),
        ("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n", "refused"),
        ("HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n", "authentication"),
        ("SSH-2.0-OpenSSH\r\n", "not_routed"),
        ("", "no_answer"),
    ] {
        assert_eq!(failed(&[&serve(answer)]), ("upgrade".into(), expected.into()), "{answer}");
    }
    let gateway = serve("HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(failed(&[&gateway, "--relay", &url]), ("upgrade".into(), "upstream".into()));
    let nothing = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let nothing = format!("ws://{nothing}");
    assert_eq!(failed(&[&gateway, "--relay", &nothing]), ("upgrade".into(), "relay_down".into()));
    assert_eq!(failed(&[&nothing]), ("connection".into(), "unreachable".into()));
    assert_eq!(failed(&["ws://relay..invalid"]), ("name".into(), "name".into()));
}

#[test]
fn what_is_wrong_behind_the_upgrade_is_told_by_its_cause() {
    let relay = Relay::start(&[]);
    let front = changed(relay.address, |head| head.replace("Sec-WebSocket-Protocol", "X-Lost"));
    assert_eq!(failed(&[&front]), ("subprotocol".into(), "subprotocol_lost".into()));
    let front = changed(relay.address, |head| head.replace("%2B", "+"));
    assert_eq!(failed(&[&front]), ("code".into(), "code_decoded".into()));

    // Each code is its own in each encoding, as for a hash of the undecoded code over several relays.
    let front = changed(relay.address, |head| head.replace("%2b", "-"));
    let result = check(&[&front, "--json"]).json(0);
    let code = line(&result, "code");
    assert_eq!((&code["status"], &code["cause"]), (&json!("warning"), &json!("code_encoding")));

    let small = Relay::start(&["--max-message", "1MiB"]);
    assert_eq!(failed(&[&small.url("")]), ("messages".into(), "relay_limit".into()));
    let limited = Relay::start(&["--max-joins-per-minute", "1"]);
    assert_eq!(failed(&[&limited.url("")]), ("pair".into(), "limited".into()));
}

#[test]
fn connection_that_ends_at_a_size_or_in_silence_is_told() {
    let relay = Relay::start(&["--ping-interval", "0"]);
    let front = forward(relay.address, |client, relay| {
        pass_head(client, relay, |head| head);
        let _ = std::io::copy(&mut client.take(500_000), relay);
    });
    assert_eq!(failed(&[&front]), ("messages".into(), "message_limit".into()));

    let front = forward(relay.address, |client, relay| {
        pass_head(client, relay, |head| head);
        client.set_read_timeout(Some(std::time::Duration::from_millis(1500))).unwrap();
        let _ = std::io::copy(client, relay);
    });
    let arguments = ["check", &*front, "--silence", "60s", "--json"];
    let result = ended(&mut arc_relay(&arguments)).json(1);
    let silence = line(&result, "silence");
    assert_eq!((&silence["status"], &silence["cause"]), (&json!("failed"), &json!("silence_cut")));
}

/// Two relays behind a front that sends each connection to the next.
#[test]
fn clients_with_two_relays_do_not_meet() {
    // What was sent to a client that waits is given up with it: the front is blocked by then.
    let relays = [(); 2].map(|()| Relay::start(&["--pair-ttl", "8s"]));
    let addresses = [relays[0].address, relays[1].address];
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let front = format!("ws://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        // The first connection is the check of the address.
        for (client, upstream) in listener.incoming().zip(addresses.iter().cycle()) {
            let (mut client, mut relay) = (client.unwrap(), TcpStream::connect(upstream).unwrap());
            let (mut back, mut to) = (relay.try_clone().unwrap(), client.try_clone().unwrap());
            thread::spawn(move || {
                let _ = std::io::copy(&mut client, &mut relay);
                let _ = relay.shutdown(std::net::Shutdown::Both);
            });
            thread::spawn(move || {
                let _ = std::io::copy(&mut back, &mut to);
                let _ = to.shutdown(std::net::Shutdown::Both);
            });
        }
    });
    assert_eq!(failed(&[&front]), ("pair".into(), "not_met".into()));
}

/// A middlebox that collects a client's bytes.
#[test]
fn held_messages_are_told_from_lost_ones() {
    let relay = Relay::start(&[]);
    let front = forward(relay.address, |client, relay| {
        pass_head(client, relay, |head| head);
        let mut buffer = vec![0; 32 << 10];
        while client.read_exact(&mut buffer).is_ok() && relay.write_all(&buffer).is_ok() {}
    });
    assert_eq!(failed(&[&front]), ("pair".into(), "buffered".into()));
}

#[test]
fn lines_are_text_with_remedies_and_the_rest_is_skipped() {
    let relay = Relay::start(&[]);
    let front = changed(relay.address, |head| head.replace("Upgrade: websocket\r\n", ""));
    let Ended { code, stdout, stderr } = check(&[&format!("{front}/?token=secret")]);
    assert_eq!((code, &*stderr), (Some(1), ""));
    assert!(
        stdout.contains("\nFAIL  upgrade      404 not found: connect to /?pair=CODE with a WebSocket\n"),
        "{stdout}"
    );
    assert!(stdout.contains("\n                   nginx: proxy_http_version 1.1; "), "{stdout}");
    assert!(stdout.contains("\nskip  messages     because of the failure above\n"), "{stdout}");
    assert!(stdout.contains("\n2 ok, 0 warnings, 1 failed, 11 skipped in "), "{stdout}");
    assert!(!stdout.contains("secret"), "{stdout}");
}

#[test]
fn checks_end_with_the_timeout() {
    let relay = Relay::start(&[]);
    let result = ended(&mut arc_relay(&["check", &relay.url(""), "--timeout", "100ms", "--json"])).json(1);
    let silence = line(&result, "silence");
    assert_eq!((&silence["status"], &silence["cause"]), (&json!("failed"), &json!("no_answer")));
}

#[test]
fn wrong_arguments_are_one_line() {
    for (arguments, expected) in [
        (&[][..], "check: the url is missing (see arc-relay check --help)"),
        (&["ws://a?pair=secret"], "url: a URL without a pair code is needed: the codes are random"),
        (&["ws://a", "--relay", "x"], "--relay: invalid value \"x\": a URL is needed"),
        (&["ws://a", "--quik"], "unknown flag \"--quik\": did you mean --quick? (see arc-relay check --help)"),
    ] {
        let error = ended(&mut arc_relay(&[&["check"], arguments].concat())).failed(2);
        assert!(error.starts_with(expected), "{error}");
    }
    let error = ended(&mut arc_relay(&["check", "ws://a", "--token-file", "/nowhere"])).failed(1);
    assert!(error.starts_with("cannot read the access token from \"/nowhere\": "), "{error}");
}
