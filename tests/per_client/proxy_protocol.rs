//! The client's address behind a proxy that sends a header of the PROXY protocol.

use std::io::Write;

use crate::client::{Answer, ask, connect};
use crate::support::raw::{expect, expect_end, frame, server_frame, upgrade};
use crate::support::{Relay, arc_relay};

/// Starts a relay that allows each client one upgrade request.
fn start(flags: &[&str]) -> Relay {
    let mut command = arc_relay();
    command.args(["start", "--host", "127.0.0.1", "--port", "0", "--proxy-protocol", "--max-joins-per-minute", "1"]);
    command.args(flags);
    Relay::spawn_behind(command, "PROXY UNKNOWN\r\n")
}

/// A header of version 1, with this source.
fn header(source: &str) -> String {
    format!("PROXY TCP4 {source} 127.0.0.1 80 80\r\n")
}

/// A header of version 2, with `rest` ignored bytes behind the addresses.
fn binary_header(source: [u8; 4], rest: usize) -> Vec<u8> {
    let length = u16::try_from(12 + rest).unwrap().to_be_bytes();
    [b"\r\n\r\n\0\r\nQUIT\n\x21\x11", &length[..], &source, &[127, 0, 0, 1, 0, 80, 0, 80], &vec![4; rest]].concat()
}

/// The status of an upgrade request from 127.0.0.`from` behind this header.
fn join(relay: &Relay, from: u8, header: &str, fields: &str) -> u16 {
    ask(connect(relay, from), &format!("{header}{}", upgrade("/?pair=x", fields))).status
}

#[test]
fn header_names_the_client() {
    let relay = start(&[]);
    assert_eq!(join(&relay, 2, &header("1.1.1.1"), ""), 101);
    assert_eq!(join(&relay, 2, &header("1.1.1.2"), ""), 101);
    assert_eq!(join(&relay, 3, &header("1.1.1.2"), ""), 429);
    for (last, status) in [(2, 429), (3, 101)] {
        let mut socket = connect(&relay, 2);
        socket.write_all(&binary_header([1, 1, 1, last], 500)).unwrap();
        assert_eq!(ask(socket, &upgrade("/?pair=x", "")).status, status);
    }
    // With UNKNOWN, the proxy itself is the client.
    for (from, status) in [(2, 101), (2, 429), (3, 101)] {
        assert_eq!(join(&relay, from, "PROXY UNKNOWN\r\n", ""), status);
    }
}

#[test]
fn x_forwarded_for_behind_a_header_is_ignored() {
    let relay = start(&[]);
    assert_eq!(join(&relay, 2, &header("1.1.1.1"), "X-Forwarded-For: 1.1.1.2\r\n"), 101);
    assert_eq!(join(&relay, 2, &header("1.1.1.1"), "X-Forwarded-For: 1.1.1.3\r\n"), 429);
    assert_eq!(join(&relay, 2, &header("1.1.1.2"), ""), 101);
    let relay = start(&["--trusted-proxies", "127.0.0.1,127.0.0.2"]);
    assert_eq!(join(&relay, 2, &header("1.1.1.1"), "X-Forwarded-For: 1.1.1.2\r\n"), 101);
    assert_eq!(join(&relay, 2, &header("1.1.1.1"), "X-Forwarded-For: 1.1.1.3\r\n"), 429);
}

#[test]
fn x_forwarded_for_of_a_trusted_proxy_named_by_the_header_counts() {
    let relay = start(&["--trusted-proxies", "127.0.0.1,10.0.0.0/8"]);
    assert_eq!(join(&relay, 1, &header("10.0.0.1"), "X-Forwarded-For: 9.9.9.9, 1.1.1.1\r\n"), 101);
    assert_eq!(join(&relay, 1, &header("1.1.1.1"), ""), 429);
}

#[test]
fn with_trusted_proxies_other_clients_are_closed() {
    let relay = start(&["--trusted-proxies", "127.0.0.1,127.0.0.2"]);
    assert_eq!(join(&relay, 2, &header("1.1.1.1"), ""), 101);
    let mut stranger = connect(&relay, 3);
    let _ = stranger.write_all(header("1.1.1.2").as_bytes());
    expect_end(&mut stranger);
}

#[test]
fn connection_without_a_valid_header_is_closed_without_an_answer() {
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
fn connection_with_an_incomplete_header_times_out() {
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
fn bytes_behind_the_header_are_kept() {
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
fn header_without_proxy_protocol_is_refused_with_400() {
    let relay = Relay::start(&[]);
    let answer = ask(connect(&relay, 2), &format!("{}{}", header("1.1.1.1"), upgrade("/?pair=x", "")));
    assert_eq!(answer.status, 400);
}
