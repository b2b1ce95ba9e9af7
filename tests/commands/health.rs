//! `arc-relay health`.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;

use rustix::process::Signal;
use serde_json::json;

use crate::process::{Ended, arc_relay, ended};
use crate::support::{Relay, arc_relay as relay_command, eventually};

fn health(arguments: &[&str]) -> Ended {
    ended(&mut arc_relay(&[&["health"], arguments].concat()))
}

/// `arc-relay health` without a URL, with these variables.
fn health_beside(variables: &[(&str, &str)]) -> Ended {
    ended(arc_relay(&["health"]).envs(variables.iter().copied()))
}

/// Serves one connection: reads a request, and gives the socket to `answer`.
fn serve(answer: impl FnOnce(TcpStream) + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        let mut socket = listener.accept().unwrap().0;
        let _ = socket.read(&mut [0; 4096]).unwrap();
        answer(socket);
    });
    url
}

#[test]
fn ready_relay_is_healthy_by_each_kind_of_url() {
    let relay = Relay::start(&[]);
    let address = relay.address;
    let expected = format!("http://{address}/readyz: 200 ready\n");
    for url in ["http://", "ws://"].map(|scheme| format!("{scheme}{address}")) {
        assert_eq!(health(&[&url]).succeeded(), expected);
        assert_eq!(health(&[&format!("{url}/"), "--timeout", "30s"]).succeeded(), expected);
    }
    let url = format!("http://{address}/health");
    assert_eq!(health(&[&url]).succeeded(), format!("{url}: 200 {{\"ok\":true,\"pairs\":0}}\n"));
}

#[test]
fn relay_beside_is_found_by_the_variables_of_the_relay() {
    let relay = Relay::start(&[]);
    let port = &*relay.address.port().to_string();
    let expected = format!("http://127.0.0.1:{port}/readyz: 200 ready\n");
    for variables in [
        &[("ARC_RELAY_PORT", port)][..],
        &[("RELAY_PORT", port)],
        &[("ARC_RELAY_PORT", port), ("RELAY_PORT", "1")],
        // As Kubernetes sets it beside a Service of this name.
        &[("ARC_RELAY_PORT", "tcp://10.0.0.1:8765"), ("RELAY_PORT", port)],
        &[("ARC_RELAY_PORT", port), ("ARC_RELAY_HOST", "0.0.0.0")],
        &[("ARC_RELAY_PORT", port), ("ARC_RELAY_HOST", "::")],
        &[("ARC_RELAY_PORT", port), ("RELAY_HOST", "127.0.0.1")],
    ] {
        assert_eq!(health_beside(variables).succeeded(), expected, "{variables:?}");
    }
    let elsewhere = health_beside(&[("ARC_RELAY_PORT", port), ("ARC_RELAY_HOST", "[::1]")]).failed(1);
    assert!(elsewhere.starts_with(&format!("http://[::1]:{port}/readyz: cannot connect to ")), "{elsewhere}");
    let none = health_beside(&[("ARC_RELAY_PORT", "0")]).failed(1);
    assert!(none.starts_with("ARC_RELAY_PORT=\"0\" is not the port of a relay"), "{none}");
}

#[test]
fn relay_behind_the_proxy_protocol_is_asked_with_a_header() {
    let mut start = relay_command();
    start.args(["start", "--host", "127.0.0.1", "--port", "0", "--proxy-protocol"]);
    let relay = Relay::spawn_behind(start, "PROXY UNKNOWN\r\n");
    let port = &*relay.address.port().to_string();
    health_beside(&[("ARC_RELAY_PORT", port), ("ARC_RELAY_PROXY_PROTOCOL", "true")]).succeeded();
    let without = health_beside(&[("ARC_RELAY_PORT", port)]).failed(1);
    assert!(without.contains("/readyz: the connection "), "{without}");
}

#[test]
fn draining_relay_is_alive_and_not_ready() {
    let mut relay = Relay::start(&["--drain-delay", "1h"]);
    let url = format!("http://{}", relay.address);
    relay.signal(Signal::TERM);
    eventually("it is not ready", || health(&[&url]).code == Some(1));
    assert_eq!(health(&[&url]).failed(1), format!("{url}/readyz: 503 stopping"));
    assert_eq!(health(&[&format!("{url}/livez")]).succeeded(), format!("{url}/livez: 200 alive\n"));
    relay.signal(Signal::TERM);
    relay.wait();
}

#[test]
fn each_failure_is_one_line() {
    let nothing = {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap()
    };
    let refused = health(&[&format!("http://{nothing}")]).failed(1);
    assert!(refused.starts_with(&format!("http://{nothing}/readyz: cannot connect to {nothing}: ")), "{refused}");

    let nameless = health(&["http://relay..invalid"]).failed(1);
    assert!(nameless.starts_with("http://relay..invalid/readyz: cannot look up relay..invalid: "), "{nameless}");

    let url = serve(|mut socket| drop(socket.read(&mut [0]))); // until the client leaves
    assert_eq!(health(&[&url, "--timeout", "50ms"]).failed(1), format!("{url}/readyz: no answer in time"));

    let url = serve(drop);
    assert_eq!(health(&[&url]).failed(1), format!("{url}/readyz: the connection was closed without an answer"));

    let url = serve(|mut socket| socket.write_all(b"SSH-2.0-OpenSSH\r\n").unwrap());
    assert_eq!(health(&[&url]).failed(1), format!("{url}/readyz: the answer is not HTTP"));

    let html = "HTTP/1.1 502 Bad Gateway\r\nConnection: close\r\n\r\n<html>\x1b[2J\r\n<body>\r\n";
    let url = serve(|mut socket| socket.write_all(html.as_bytes()).unwrap());
    assert_eq!(health(&[&url]).failed(1), format!("{url}/readyz: 502 <html>[2J"));
}

#[test]
fn result_as_json_has_the_same() {
    let relay = Relay::start(&[]);
    let url = format!("http://{}/health", relay.address);
    let mut result = health(&[&url, "--json"]).json(0);
    assert!(result["seconds"].take().as_f64().unwrap() > 0.0);
    let expected = json!({
        "ok": true, "url": url, "status": 200, "answer": "{\"ok\":true,\"pairs\":0}", "error": null, "seconds": null,
    });
    assert_eq!(result, expected);

    let url = format!("http://{}/nowhere", relay.address);
    let result = health(&[&url, "--json"]).json(1);
    assert_eq!((&result["ok"], &result["status"]), (&json!(false), &json!(404)));

    let url = serve(drop);
    let result = health(&[&url, "--json"]).json(1);
    assert_eq!((&result["ok"], &result["status"], &result["answer"]), (&json!(false), &json!(null), &json!(null)));
    assert_eq!(result["error"], "the connection was closed without an answer");
}

#[test]
fn wrong_arguments_are_one_line_without_the_url() {
    let needed = "url: a URL is needed, such as wss://relay.example.org";
    for (arguments, expected) in [
        (&["localhost:8765?pair=secret"][..], needed),
        (&["ftp://localhost/secret"], needed),
        (&["http://user:secret@localhost"], "url: a URL without a user is needed"),
        (&["http://a", "http://secret"], "one URL is needed, and not several: quote it (see arc-relay health --help)"),
        (&["--timeout", "0"], "--timeout: invalid value \"0\": more than zero is needed"),
        (&["--jsno"], "unknown flag \"--jsno\": did you mean --json? (see arc-relay health --help)"),
        (&["--port", "1"], "unknown flag \"--port\""),
    ] {
        let error = health(arguments).failed(2);
        assert!(error.starts_with(expected), "{error}");
    }
    let error = health(&["http://127.0.0.1:1", "--ca-file", "/nowhere"]).failed(1);
    assert!(error.contains("/nowhere") || cfg!(not(feature = "client")), "{error}");
}

#[cfg(feature = "client")]
#[test]
fn certificate_has_to_be_trusted_and_for_the_name() {
    use crate::tls_front::TlsFront;

    let relay = Relay::start(&[]);
    let front = TlsFront::start(relay.address, &["localhost"]);
    let ca_file = front.ca_file.to_str().unwrap();
    let url = format!("https://localhost:{}/readyz", front.address.port());
    assert_eq!(health(&[&url, "--ca-file", ca_file]).succeeded(), format!("{url}: 200 ready\n"));
    let untrusted = health(&[&url]).failed(1);
    assert!(untrusted.contains("UnknownIssuer"), "{untrusted}");
    let other = format!("https://{}", front.address);
    let other = health(&[&other, "--ca-file", ca_file]).failed(1);
    assert!(other.contains("not valid for name"), "{other}");
    let plain = health(&[&format!("https://{}", relay.address)]).failed(1);
    assert!(plain.contains("no TLS: "), "{plain}");
}

#[cfg(not(feature = "client"))]
#[test]
fn build_without_the_client_says_that_it_has_no_tls() {
    let relay = Relay::start(&[]);
    let error = health(&[&format!("https://{}", relay.address)]).failed(1);
    assert!(error.ends_with("TLS needs a build with the feature client"), "{error}");
}
