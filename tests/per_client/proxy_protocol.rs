//! Who the client is if a proxy says so in front of HTTP.

use std::io::Write;
use std::process::Command;

use crate::client::{Answer, ask, connect};
use crate::support::Relay;
use crate::support::raw::{expect, expect_end, frame, server_frame, upgrade};

/// A relay, of which each client may ask to join once.
fn start(flags: &[&str]) -> Relay {
    let mut command = Command::new(env!("CARGO_BIN_EXE_arc-relay"));
    command.args(["start", "--host", "127.0.0.1", "--port", "0", "--proxy-protocol", "--max-joins-per-minute", "1"]);
    command.args(flags);
    Relay::spawn_behind(command, "PROXY UNKNOWN\r\n")
}

/// A header of version 1.
fn header(source: &str) -> String {
    format!("PROXY TCP4 {source} 127.0.0.1 80 80\r\n")
}

/// One of version 2, with this much that is of no interest behind the addresses.
fn binary_header(source: [u8; 4], rest: usize) -> Vec<u8> {
    let length = u16::try_from(12 + rest).unwrap().to_be_bytes();
    [b"\r\n\r\n\0\r\nQUIT\n\x21\x11", &length[..], &source, &[127, 0, 0, 1, 0, 80, 0, 80], &vec![4; rest]].concat()
}

/// The status with which a request to join from 127.0.0.`from` is answered that has this in front.
fn join(relay: &Relay, from: u8, header: &str, fields: &str) -> u16 {
    ask(connect(relay, from), &format!("{header}{}", upgrade("/?pair=x", fields))).status
}

#[test]
fn the_client_is_whoever_the_header_names() {
    let relay = start(&[]);
    assert_eq!(join(&relay, 2, &header("1.1.1.1"), ""), 101);
    assert_eq!(join(&relay, 2, &header("1.1.1.2"), ""), 101);
    assert_eq!(join(&relay, 3, &header("1.1.1.2"), ""), 429);
    for (last, status) in [(2, 429), (3, 101)] {
        let mut socket = connect(&relay, 2);
        socket.write_all(&binary_header([1, 1, 1, last], 500)).unwrap();
        assert_eq!(ask(socket, &upgrade("/?pair=x", "")).status, status);
    }
    // The proxy asks for itself.
    for (from, status) in [(2, 101), (2, 429), (3, 101)] {
        assert_eq!(join(&relay, from, "PROXY UNKNOWN\r\n", ""), status);
    }
}

#[test]
fn the_header_is_no_reason_to_believe_the_client() {
    let relay = start(&[]);
    assert_eq!(join(&relay, 2, &header("1.1.1.1"), "X-Forwarded-For: 1.1.1.2\r\n"), 101);
    assert_eq!(join(&relay, 2, &header("1.1.1.1"), "X-Forwarded-For: 1.1.1.3\r\n"), 429);
    assert_eq!(join(&relay, 2, &header("1.1.1.2"), ""), 101);
    let relay = start(&["--trusted-proxies", "127.0.0.1,127.0.0.2"]);
    assert_eq!(join(&relay, 2, &header("1.1.1.1"), "X-Forwarded-For: 1.1.1.2\r\n"), 101);
    assert_eq!(join(&relay, 2, &header("1.1.1.1"), "X-Forwarded-For: 1.1.1.3\r\n"), 429);
}

#[test]
fn a_trusted_proxy_behind_another_is_believed() {
    let relay = start(&["--trusted-proxies", "127.0.0.1,10.0.0.0/8"]);
    assert_eq!(join(&relay, 1, &header("10.0.0.1"), "X-Forwarded-For: 9.9.9.9, 1.1.1.1\r\n"), 101);
    assert_eq!(join(&relay, 1, &header("1.1.1.1"), ""), 429);
}

#[test]
fn only_trusted_proxies_may_connect_if_there_are_any() {
    let relay = start(&["--trusted-proxies", "127.0.0.1,127.0.0.2"]);
    assert_eq!(join(&relay, 2, &header("1.1.1.1"), ""), 101);
    let mut stranger = connect(&relay, 3);
    let _ = stranger.write_all(header("1.1.1.2").as_bytes());
    expect_end(&mut stranger);
}

#[test]
fn whoever_begins_with_anything_else_is_closed_without_an_answer() {
    let relay = start(&["--handshake-timeout", "1h"]);
    let too_long = binary_header([1, 1, 1, 1], 537 - 28);
    let health = b"GET /health HTTP/1.1\r\nHost: t\r\n\r\n";
    for bytes in [health, &b"\x16\x03\x01\x02\x00"[..], b"PROXY TCP4 1.1.1 127.0.0.1 80 80\r\n", &too_long, b"POST"] {
        let mut socket = connect(&relay, 2);
        let _ = socket.write_all(bytes);
        expect_end(&mut socket);
    }
}

#[test]
fn whoever_says_nothing_is_closed_in_time() {
    let relay = start(&["--handshake-timeout", "3s"]);
    let sockets = ["", "PROXY TCP4 1.1.1.1", "\r\n\r\n"].map(|beginning| {
        let mut socket = connect(&relay, 2);
        socket.write_all(beginning.as_bytes()).unwrap();
        socket
    });
    for mut socket in sockets {
        expect_end(&mut socket);
    }
}

#[test]
fn nothing_behind_the_header_is_lost() {
    let relay = start(&[]);
    let messages: Vec<u8> = (0..20).flat_map(|nth| frame(0x82, &[nth; 20])).collect();
    for (nth, size) in [1, 10, 40, 200, usize::MAX].into_iter().enumerate() {
        let target = format!("/?pair={nth}");
        let mut peer = ask(connect(&relay, 2), &format!("{}{}", header(&format!("2.2.2.{nth}")), upgrade(&target, "")));
        let sent =
            [&binary_header([1, 1, 1, nth as u8], nth * 100), upgrade(&target, "").as_bytes(), &messages].concat();
        let mut socket = connect(&relay, 2);
        socket.set_nodelay(true).unwrap();
        for piece in sent.chunks(size) {
            socket.write_all(piece).unwrap();
        }
        assert_eq!(Answer::read(socket.try_clone().unwrap()).status, 101);
        for nth in 0..20 {
            expect(&mut peer.socket, &server_frame(0x82, &[nth; 20]));
        }
    }
}

#[test]
fn without_the_switch_a_header_is_no_http() {
    let relay = Relay::start(&[]);
    let answer = ask(connect(&relay, 2), &format!("{}{}", header("1.1.1.1"), upgrade("/?pair=x", "")));
    assert_eq!(answer.status, 400);
}
