//! The access policy apart from tokens: origins and the length of pair codes.

use std::io::{Read, Write};

use crate::support::Relay;
use crate::support::raw::upgrade;

const CODE: &str = "missing or invalid pair code\n";
const SIDE: &str = "invalid side\n";
const ORIGIN: &str = "origin not allowed\n";

/// The status of the answer to an upgrade request, and its body if the status is not 101.
pub(crate) fn join(relay: &Relay, target: &str, extra: &str) -> (u16, String) {
    let mut socket = relay.socket();
    socket.write_all(upgrade(target, extra).as_bytes()).unwrap();
    let mut start = [0; 12];
    socket.read_exact(&mut start).unwrap();
    let status = std::str::from_utf8(&start[9..]).unwrap().parse().unwrap();
    let mut rest = String::new();
    if status != 101 {
        socket.read_to_string(&mut rest).unwrap();
    }
    (status, rest.split_once("\r\n\r\n").map_or("", |(_, body)| body).to_owned())
}

pub(crate) fn refused(status: u16, body: &str) -> (u16, String) {
    (status, body.to_owned())
}

pub(crate) const ADMITTED: (u16, String) = (101, String::new());

#[test]
fn origin_that_is_not_listed_is_refused_with_403() {
    let relay = Relay::start(&["--allow-origin", "https://app.test,http://localhost:3000,null"]);
    for (code, (origin, answer)) in [
        ("https://app.test", ADMITTED),
        ("HTTPS://APP.TEST", ADMITTED),
        ("http://localhost:3000", ADMITTED),
        ("null", ADMITTED),
        ("http://localhost", refused(403, ORIGIN)),
        ("http://app.test", refused(403, ORIGIN)),
        ("https://app.test.evil.test", refused(403, ORIGIN)),
        ("https://app.test/", refused(403, ORIGIN)),
        ("\u{FF}", refused(403, ORIGIN)),
        ("", refused(403, ORIGIN)),
    ]
    .into_iter()
    .enumerate()
    {
        assert_eq!(join(&relay, &format!("/?pair={code}"), &format!("Origin: {origin}\r\n")), answer, "{origin}");
    }
}

#[test]
fn request_with_two_origins_is_refused_unless_both_are_listed() {
    let relay = Relay::start(&["--allow-origin", "https://app.test"]);
    for (first, second) in [("https://app.test", "https://evil.test"), ("https://evil.test", "https://app.test")] {
        let origins = format!("Origin: {first}\r\nOrigin: {second}\r\n");
        assert_eq!(join(&relay, "/?pair=x", &origins), refused(403, ORIGIN));
    }
}

#[test]
fn request_without_an_origin_is_admitted_as_from_no_browser() {
    let relay = Relay::start(&["--allow-origin", "https://app.test"]);
    assert_eq!(join(&relay, "/?pair=x", ""), ADMITTED);
}

#[test]
fn every_origin_is_admitted_without_a_list() {
    let relay = Relay::start(&[]);
    assert_eq!(join(&relay, "/?pair=x", "Origin: https://evil.test\r\n"), ADMITTED);
}

#[test]
fn pair_code_that_is_too_short_is_refused_with_400() {
    let relay = Relay::start(&["--min-code-length", "3"]);
    assert_eq!(join(&relay, "/?pair=ab", ""), refused(400, CODE));
    assert_eq!(join(&relay, "/?pair=%F0%9F%90%8B%F0%9F%90%8B", ""), refused(400, CODE), "characters count, not bytes");
    assert_eq!(join(&relay, "/?pair=abc", ""), ADMITTED);
}

#[test]
fn side_that_is_empty_too_long_or_not_utf8_is_refused_with_400() {
    let relay = Relay::start(&[]);
    for side in ["", "%FF", &"x".repeat(65), &"%F0%9F%90%8B".repeat(65)] {
        assert_eq!(join(&relay, &format!("/?pair=x&side={side}&side=y"), ""), refused(400, SIDE), "{side}");
    }
    for side in ["x".repeat(64), "%F0%9F%90%8B".repeat(64)] {
        assert_eq!(join(&relay, &format!("/?pair={side}&side={side}&side="), ""), ADMITTED, "{side}");
    }
}

#[test]
fn checks_are_in_order_handshake_origin_pair_code_side() {
    let relay = Relay::start(&["--allow-origin", "https://app.test", "--min-code-length", "3"]);
    let evil = "Origin: https://evil.test\r\n";
    assert_eq!(join(&relay, "/?pair=x", &format!("{evil}Sec-WebSocket-Version: 8\r\n")).0, 426);
    assert_eq!(join(&relay, "/?pair=x", evil), refused(403, ORIGIN));
    assert_eq!(join(&relay, "/?side=", "Origin: https://app.test\r\n"), refused(400, CODE));
    assert_eq!(join(&relay, "/?pair=x", "Origin: https://app.test\r\n"), refused(400, CODE));
    assert_eq!(join(&relay, "/?side=&pair=xyz", "Origin: https://app.test\r\n"), refused(400, SIDE));
}
