//! Side identities over real sockets.
//!
//! A client that comes again has its place at once, and other sides are safe from it.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod support;

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;

use support::Relay;
use support::raw::{expect, expect_end, frame, open, server_close, server_frame, upgrade};

const REPLACED: (u16, &str) = (4001, "replaced");
const LOST: (u16, &str) = (1011, "peer connection lost");

/// Connects a raw client with the code `x` as this side.
///
/// It answers nothing by itself, like a phone that is gone.
fn enter(relay: &Relay, side: &str) -> TcpStream {
    let mut socket = relay.socket();
    open(&mut socket, &format!("/?pair=x&side={side}"), b"");
    socket
}

/// Sends a message each way between the two sides of a pair.
fn talk(one: &mut TcpStream, other: &mut TcpStream) {
    one.write_all(&frame(0x82, b"hello")).unwrap();
    expect(other, &server_frame(0x82, b"hello"));
    other.write_all(&frame(0x82, b"hello to you")).unwrap();
    expect(one, &server_frame(0x82, b"hello to you"));
}

fn expect_close(socket: &mut TcpStream, (code, reason): (u16, &str)) {
    expect(socket, &server_close(code, reason));
}

/// Asserts that nothing has come.
fn expect_silence(socket: &mut TcpStream) {
    socket.set_nonblocking(true).unwrap();
    assert_eq!(socket.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
    socket.set_nonblocking(false).unwrap();
}

/// The status of the answer to a client of the code `x`.
fn status(relay: &Relay, fields: &str) -> String {
    let response = relay.http(&upgrade(&format!("/?pair=x{fields}"), ""));
    response.split(' ').nth(1).unwrap().to_owned()
}

/// No probe is possible here, so the answer depends on no sign of life.
#[test]
fn client_that_vanished_while_waiting_comes_again_and_is_paired_with_its_daemon() {
    let relay = Relay::start(&["--probe-timeout", "0"]);
    let mut vanished = enter(&relay, "phone");
    let mut phone = enter(&relay, "phone");
    assert_eq!(relay.pairs(), 1);
    let mut daemon = enter(&relay, "daemon");
    talk(&mut daemon, &mut phone);
    expect_close(&mut vanished, REPLACED);
    // It still listens, and gets the end of the stream with its answer.
    vanished.write_all(&frame(0x88, &4001_u16.to_be_bytes())).unwrap();
    expect_end(&mut vanished);
    talk(&mut phone, &mut daemon);
}

#[test]
fn without_a_side_a_client_that_comes_again_is_paired_with_itself() {
    let relay = Relay::start(&["--probe-timeout", "0"]);
    let enter = || {
        let mut socket = relay.socket();
        open(&mut socket, "/?pair=x", b"");
        socket
    };
    let (mut vanished, mut phone) = (enter(), enter());
    talk(&mut phone, &mut vanished);
    assert_eq!(status(&relay, ""), "409", "the daemon finds no seat");
}

#[test]
fn client_of_a_pair_comes_again_and_its_peer_gets_everything_first() {
    let relay = Relay::start(&["--probe-timeout", "0"]);
    for comes_again in ["phone", "daemon"] {
        let (mut phone, mut daemon) = (enter(&relay, "phone"), enter(&relay, "daemon"));
        talk(&mut phone, &mut daemon);
        let (mut old, mut peer) = if comes_again == "phone" { (phone, daemon) } else { (daemon, phone) };
        old.write_all(&frame(0x82, b"received before")).unwrap();
        expect(&mut peer, &server_frame(0x82, b"received before"));
        old.write_all(&[frame(0x82, b"and this"), frame(0x02, b"a part ")].concat()).unwrap();
        expect(&mut peer, &server_frame(0x82, b"and this"));
        let mut new = enter(&relay, comes_again);
        expect(&mut peer, &server_frame(0x02, b"a part "));
        expect_close(&mut peer, LOST);
        expect_close(&mut old, REPLACED);
        assert_eq!(relay.pairs(), 1, "the newcomer waits");
        let mut peer = enter(&relay, if comes_again == "phone" { "daemon" } else { "phone" });
        talk(&mut new, &mut peer);
    }
}

#[test]
fn other_sides_cannot_replace_the_sides_of_a_pair() {
    let relay = Relay::start(&["--probe-timeout", "0"]);
    let (mut phone, mut daemon) = (enter(&relay, "phone"), enter(&relay, "daemon"));
    for nth in 0..50 {
        assert_eq!(status(&relay, &format!("&side={nth}")), "409");
        assert_eq!(status(&relay, ""), "409");
        assert_eq!(status(&relay, "&side=Phone&side=phone"), "409", "the first side counts");
    }
    expect_silence(&mut phone);
    expect_silence(&mut daemon);
    talk(&mut phone, &mut daemon);
}

#[test]
fn side_is_form_decoded_and_belongs_to_its_code() {
    let relay = Relay::start(&["--probe-timeout", "0"]);
    let mut other = relay.socket();
    open(&mut other, "/?pair=y&side=the+phone", b"");
    let mut vanished = enter(&relay, "the+phone");
    let mut phone = enter(&relay, "the%20%70hone");
    expect_close(&mut vanished, REPLACED);
    expect_silence(&mut phone);
    expect_silence(&mut other);
}

#[test]
fn waiting_client_comes_again_when_no_other_may_wait() {
    let relay = Relay::start(&["--max-waiting", "1"]);
    let mut vanished = enter(&relay, "phone");
    assert!(relay.http(&upgrade("/?pair=y&side=phone", "")).starts_with("HTTP/1.1 503 "));
    let mut phone = enter(&relay, "phone");
    expect_close(&mut vanished, REPLACED);
    talk(&mut enter(&relay, "daemon"), &mut phone);
}

#[test]
fn pair_goes_on_if_its_client_that_comes_again_may_not_wait() {
    let relay = Relay::start(&["--max-waiting", "1"]);
    let (mut phone, mut daemon) = (enter(&relay, "phone"), enter(&relay, "daemon"));
    let mut other = relay.socket();
    open(&mut other, "/?pair=y", b"");
    assert_eq!(status(&relay, "&side=phone"), "503");
    talk(&mut phone, &mut daemon);
}

/// The earlier connection answers nothing. Its closing handshake is cut short for the newcomer.
#[test]
fn client_comes_again_at_max_connections() {
    let relay = Relay::start(&["--max-connections", "3", "--probe-timeout", "0"]);
    let mut others = [relay.socket(), relay.socket()];
    others.iter_mut().for_each(|other| drop(open(other, "/?pair=y", b"")));
    let mut vanished = enter(&relay, "phone");
    assert_eq!(status(&relay, "&side=daemon"), "503");
    for _ in 0..3 {
        let phone = enter(&relay, "phone");
        expect_close(&mut vanished, REPLACED);
        expect_end(&mut vanished);
        vanished = phone;
    }
    let relay = Relay::start(&["--max-connections", "2", "--probe-timeout", "0"]);
    let (mut vanished, mut daemon) = (enter(&relay, "phone"), enter(&relay, "daemon"));
    assert_eq!(status(&relay, "&side=other"), "409");
    let mut phone = enter(&relay, "phone");
    expect_close(&mut vanished, REPLACED);
    expect_close(&mut daemon, LOST);
    expect_silence(&mut phone);
}
