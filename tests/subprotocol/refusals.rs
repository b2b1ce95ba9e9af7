//! Refusals behind a 101, and those that stay HTTP answers.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;

use crate::client::{OFFER, connect, connect_with};
use crate::support::raw::{expect, expect_end, head, open, server_close, server_frame, upgrade};
use crate::support::{Relay, run, scratch};

/// A client that asks for this is refused with these messages, code and reason.
async fn assert_refused(relay: &Relay, target: &str, texts: &[&str], code: u16, reason: &str) {
    let mut client = connect(relay, target).await;
    for text in texts {
        assert_eq!(client.text().await, *text);
    }
    assert_eq!(client.closed().await, (code, reason.into()), "{target}");
}

#[test]
fn each_refusal_is_a_close_code_and_a_line() {
    let tokens = scratch("v1-tokens");
    fs::write(&tokens, "token\n").unwrap();
    let flags = ["--access-token-file", tokens.to_str().unwrap(), "--allow-origin", "https://a.example"];
    let relay = Relay::start(&[&flags[..], &["--max-waiting", "1", "--probe-timeout", "0"]].concat());
    run(async {
        let pair = (connect(&relay, "/?pair=x&token=token").await, connect(&relay, "/?pair=x&token=token").await);
        assert_refused(&relay, "/?token=token", &[], 4400, "missing or invalid pair code").await;
        assert_refused(&relay, "/?pair=x&side=&token=token", &[], 4400, "invalid side").await;
        assert_refused(&relay, "/?pair=x", &[], 4401, "access token required").await;
        assert_refused(&relay, "/?pair=x&token=token", &[], 4409, "pair is full").await;
        let alone = connect(&relay, "/?pair=y&token=token").await;
        let retry = [r#"{"type":"retry","after":5}"#];
        assert_refused(&relay, "/?pair=z&token=token", &retry, 4503, "relay is full").await;
        let fields = [("sec-websocket-protocol", "arc-relay.v1"), ("origin", "https://b.example")];
        let (mut foreign, _) = connect_with(&relay, "/?pair=x&token=token", &fields).await;
        assert_eq!(foreign.closed().await, (4403, "origin not allowed".into()));
        for client in [pair.0, pair.1, alone] {
            client.hang_up();
        }
    });
    fs::remove_file(tokens).unwrap();
}

#[test]
fn a_client_over_its_limits_is_told_when_to_come_again() {
    let relay = Relay::start(&["--max-connections-per-client", "1"]);
    run(async {
        let alone = connect(&relay, "/?pair=x").await;
        let retry = [r#"{"type":"retry","after":5}"#];
        assert_refused(&relay, "/?pair=x", &retry, 4429, "too many connections").await;
        // The limits come before everything else that a well-formed request may lack.
        assert_refused(&relay, "/", &retry, 4429, "too many connections").await;
        alone.hang_up();
    });
    let relay = Relay::start(&["--max-joins-per-minute", "1"]);
    run(async {
        let alone = connect(&relay, "/?pair=x").await;
        let mut refused = connect(&relay, "/?pair=x").await;
        let retry = refused.text().await;
        let seconds = retry.strip_prefix(r#"{"type":"retry","after":"#).and_then(|rest| rest.strip_suffix('}'));
        assert!((1..=60).contains(&seconds.unwrap().parse::<u64>().unwrap()), "{retry}");
        assert_eq!(refused.closed().await, (4429, "too many requests".into()));
        alone.hang_up();
    });
}

/// A relay with room for nothing but the client that waits.
fn full() -> (Relay, TcpStream) {
    let relay = Relay::start(&["--max-waiting", "1"]);
    let mut alone = relay.socket();
    open(&mut alone, "/?pair=x", b"");
    (relay, alone)
}

#[test]
fn refusal_is_in_one_write_with_the_101_and_ends_the_stream() {
    let (relay, _alone) = full();
    let mut socket = relay.socket();
    socket.write_all(upgrade("/?pair=y", OFFER).as_bytes()).unwrap();
    // One read takes what one write has sent.
    let mut response = vec![0; 4096];
    let count = socket.read(&mut response).unwrap();
    let frames = [server_frame(0x81, br#"{"type":"retry","after":5}"#), server_close(4503, "relay is full")].concat();
    let head = response[..count].strip_suffix(&frames[..]).unwrap();
    let head = String::from_utf8(head.to_vec()).unwrap();
    assert!(head.starts_with("HTTP/1.1 101 ") && head.ends_with("\r\n\r\n"), "{head}");
    assert!(head.contains("\r\nsec-websocket-protocol: arc-relay.v1\r\n"), "{head}");
    assert!(!head.contains("retry-after") && !head.contains("content-length"), "{head}");
    expect_end(&mut socket);
}

#[test]
fn without_the_subprotocol_a_refusal_stays_as_it_is() {
    let (relay, _alone) = full();
    for offer in ["", "Sec-WebSocket-Protocol: arc-relay.v2, Arc-Relay.v1, arc-relay\r\n"] {
        let response = relay.http(&upgrade("/?pair=y", offer));
        assert!(response.starts_with("HTTP/1.1 503 ") && response.ends_with("\r\n\r\nrelay is full\n"), "{response}");
    }
}

/// Only a well-formed opening handshake can be completed, by a refusal, too.
#[test]
fn malformed_handshake_gets_a_status_whatever_it_offers() {
    let (relay, limited) = (Relay::start(&[]), Relay::start(&["--max-joins-per-minute", "1"]));
    let good = upgrade("/?pair=x", OFFER);
    open(&mut limited.socket(), "/?pair=y", b"");
    for (relay, found, replacement, status) in [
        (&relay, "Version: 13", "Version: 8", 426),
        (&relay, "GET", "POST", 405),
        (&relay, "v1\r\n", "v1, two words\r\n", 400),
        (&relay, "Host: test\r\n", "", 400),
        (&limited, "Version: 13", "Version: 8", 429),
    ] {
        let response = relay.http(&good.replace(found, replacement));
        assert!(response.starts_with(&format!("HTTP/1.1 {status} ")), "{replacement}: {response}");
    }
    let mut socket = limited.socket();
    socket.write_all(good.as_bytes()).unwrap();
    assert!(head(&mut socket).starts_with("HTTP/1.1 101 "), "the same client, with a well-formed request");
    let mut text = [0; 2];
    socket.read_exact(&mut text).unwrap();
    assert_eq!(text[0], 0x81, "it is told when to come again");
    let mut rest = vec![0; text[1].into()];
    socket.read_exact(&mut rest).unwrap();
    expect(&mut socket, &server_close(4429, "too many requests"));
    expect_end(&mut socket);
}
