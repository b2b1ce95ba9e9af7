//! What the operator asks of those who join, but for tokens.

use std::io::{Read, Write};

use crate::support::Relay;
use crate::support::raw::upgrade;

const CODE: &str = "missing or invalid pair code\n";
const ORIGIN: &str = "origin not allowed\n";

/// The status with which somebody who wants to join is answered, and the body if it is not 101.
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

pub(crate) const LET_IN: (u16, String) = (101, String::new());

#[test]
fn only_the_origins_that_are_listed_may_join() {
    let relay = Relay::start(&["--allow-origin", "https://app.test,http://localhost:3000,null"]);
    for (code, (origin, answer)) in [
        ("https://app.test", LET_IN),
        ("HTTPS://APP.TEST", LET_IN),
        ("http://localhost:3000", LET_IN),
        ("null", LET_IN),
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
fn of_two_origins_both_have_to_be_listed() {
    let relay = Relay::start(&["--allow-origin", "https://app.test"]);
    for (first, second) in [("https://app.test", "https://evil.test"), ("https://evil.test", "https://app.test")] {
        let origins = format!("Origin: {first}\r\nOrigin: {second}\r\n");
        assert_eq!(join(&relay, "/?pair=x", &origins), refused(403, ORIGIN));
    }
}

#[test]
fn who_sends_no_origin_is_no_browser_and_may_join() {
    let relay = Relay::start(&["--allow-origin", "https://app.test"]);
    assert_eq!(join(&relay, "/?pair=x", ""), LET_IN);
}

#[test]
fn without_a_list_every_origin_may_join() {
    let relay = Relay::start(&[]);
    assert_eq!(join(&relay, "/?pair=x", "Origin: https://evil.test\r\n"), LET_IN);
}

#[test]
fn a_code_that_is_too_short_is_refused() {
    let relay = Relay::start(&["--min-code-length", "3"]);
    assert_eq!(join(&relay, "/?pair=ab", ""), refused(400, CODE));
    assert_eq!(join(&relay, "/?pair=%F0%9F%90%8B%F0%9F%90%8B", ""), refused(400, CODE), "characters count");
    assert_eq!(join(&relay, "/?pair=abc", ""), LET_IN);
}

#[test]
fn the_handshake_is_judged_before_the_origin_and_that_before_the_code() {
    let relay = Relay::start(&["--allow-origin", "https://app.test", "--min-code-length", "3"]);
    let evil = "Origin: https://evil.test\r\n";
    assert_eq!(join(&relay, "/?pair=x", &format!("{evil}Sec-WebSocket-Version: 8\r\n")).0, 426);
    assert_eq!(join(&relay, "/?pair=x", evil), refused(403, ORIGIN));
    assert_eq!(join(&relay, "/?pair=x", "Origin: https://app.test\r\n"), refused(400, CODE));
}
