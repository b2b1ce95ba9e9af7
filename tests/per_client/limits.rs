//! How many connections a client may have, and how often it may ask to join.

use std::io::{Read, Write};
use std::time::{Duration, Instant};
use std::{fs, thread};

use crate::client::{Answer, ask, connect, join};
use crate::support::raw::{expect, frame, server_frame, upgrade};
use crate::support::{PATIENCE, Relay, eventually};

const HEALTH: &str = "GET /health HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n";

fn assert_too_many(answer: &Answer, what: &str) {
    assert_eq!((answer.status, &*answer.body), (429, &*format!("too many {what}\n")), "{}", answer.head);
    assert!(answer.head.contains("connection: close\r\n"));
}

/// Joins as soon as it is allowed to.
fn eventually_join(relay: &Relay, from: u8, target: &str) -> Answer {
    let mut answer = None;
    eventually("there is room for another one", || {
        answer = Some(join(relay, from, target)).filter(|answer| answer.status == 101);
        answer.is_some()
    });
    answer.unwrap()
}

#[test]
fn a_client_has_no_more_connections_than_it_may() {
    let relay = Relay::start(&["--max-connections-per-client", "2"]);
    let mut first = join(&relay, 2, "/?pair=x");
    let mut second = join(&relay, 2, "/?pair=x");
    assert_eq!((first.status, second.status), (101, 101));
    for _ in 0..5 {
        let refused = join(&relay, 2, "/?pair=y");
        assert_too_many(&refused, "connections");
        assert_eq!(refused.retry_after(), Some(5));
    }
    assert_eq!(join(&relay, 3, "/?pair=z").status, 101, "others are not concerned");

    // Nor are those who are joined already.
    first.socket.write_all(&frame(0x82, b"still there")).unwrap();
    expect(&mut second.socket, &server_frame(0x82, b"still there"));

    drop(first);
    eventually_join(&relay, 2, "/?pair=y");
}

#[test]
fn a_connection_counts_from_when_it_is_accepted() {
    let relay = Relay::start(&["--max-connections-per-client", "2"]);
    let silent = [connect(&relay, 2), connect(&relay, 2)];
    eventually("both are accepted", || {
        let answer = join(&relay, 2, "/?pair=x");
        answer.status == 429
    });
    drop(silent);
    eventually_join(&relay, 2, "/?pair=x");
}

#[test]
fn whatever_way_a_connection_ends_it_is_counted_no_more() {
    let relay = Relay::start(&["--max-connections-per-client", "1", "--handshake-timeout", "3s"]);
    drop(eventually_join(&relay, 2, "/?pair=x"));
    let reset = eventually_join(&relay, 2, "/?pair=x");
    crate::support::raw::reset(&reset.socket);
    drop(reset);
    // Refused for another reason, gone without a word, and too slow.
    eventually("it is refused for want of a code", || join(&relay, 2, "/").status == 400);
    drop(connect(&relay, 2));
    let mut silent = connect(&relay, 2);
    let _ = silent.read(&mut [0]);
    let mut closes = eventually_join(&relay, 2, "/?pair=x");
    closes.socket.write_all(&frame(0x88, &[0x03, 0xE8])).unwrap();
    eventually_join(&relay, 2, "/?pair=x");
}

#[test]
fn a_client_asks_to_join_no_more_often_than_it_may() {
    let relay = Relay::start(&["--max-joins-per-minute", "3"]);
    // Whatever it is refused for, it is a guess.
    let statuses = ["/", "/?pair=x", "/?pair="].map(|target| join(&relay, 2, target).status);
    assert_eq!(statuses, [400, 101, 400]);
    for target in ["/?pair=x", "/"] {
        let refused = join(&relay, 2, target);
        assert_too_many(&refused, "requests");
        assert!(matches!(refused.retry_after(), Some(1..=20)), "{}", refused.head);
    }
    assert_eq!(join(&relay, 3, "/?pair=x").status, 101, "others are not concerned");
}

#[test]
fn who_waits_as_long_as_it_is_told_may_ask_again() {
    let relay = Relay::start(&["--max-joins-per-minute", "60"]);
    let start = Instant::now();
    let mut refused = join(&relay, 2, "/");
    while refused.status == 400 {
        refused = join(&relay, 2, "/");
        assert!(start.elapsed() < PATIENCE, "it goes on for ever");
    }
    assert_eq!(refused.retry_after(), Some(1));
    thread::sleep(Duration::from_secs(1));
    assert_eq!(join(&relay, 2, "/?pair=x").status, 101);
}

#[test]
fn health_is_answered_for_a_client_that_has_too_much() {
    let relay = Relay::start(&["--max-connections-per-client", "1", "--max-joins-per-minute", "2"]);
    let _joined = eventually_join(&relay, 2, "/?pair=x");
    let is_too_much = |answer: Answer| answer.status == 429;
    assert!(is_too_much(join(&relay, 2, "/?pair=x")) && is_too_much(join(&relay, 2, "/?pair=x")));
    for _ in 0..20 {
        let answer = ask(connect(&relay, 2), HEALTH);
        assert_eq!((answer.status, &*answer.body), (200, "{\"ok\":true,\"pairs\":1}"));
        assert_eq!(ask(connect(&relay, 3), HEALTH).status, 200);
    }
    // And it costs nothing.
    assert_eq!(join(&relay, 3, "/?pair=x").status, 101);
}

#[test]
fn a_third_that_is_refused_asks_nothing_of_the_pair() {
    let relay = Relay::start(&["--max-joins-per-minute", "2", "--probe-timeout", "100ms"]);
    // Neither of them answers a ping: if they were asked, they would lose their seats.
    let mut pair = [join(&relay, 2, "/?pair=x"), join(&relay, 2, "/?pair=x")];
    for _ in 0..5 {
        assert_too_many(&join(&relay, 2, "/?pair=x"), "requests");
    }
    thread::sleep(Duration::from_millis(300));
    for side in &mut pair {
        side.socket.set_nonblocking(true).unwrap();
        let error = side.socket.read(&mut [0]).expect_err("it was sent nothing");
        assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
    }
}

#[test]
fn without_limits_a_client_does_as_it_likes() {
    let relay = Relay::start(&[]);
    let answers: Vec<_> = (0..200).map(|code| join(&relay, 2, &format!("/?pair={code}"))).collect();
    assert!(answers.iter().all(|answer| answer.status == 101));
}

#[test]
fn an_ipv4_client_is_the_same_on_a_port_for_both() {
    if fs::read_to_string("/proc/net/if_inet6").unwrap_or_default().is_empty() {
        return; // a container without IPv6
    }
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_arc-relay"));
    command.args(["start", "--host", "::", "--port", "0", "--max-joins-per-minute", "1"]);
    let mut relay = Relay::spawn(command);
    relay.address = ([127, 0, 0, 1], relay.address.port()).into();
    assert_eq!(join(&relay, 2, "/?pair=x").status, 101);
    // All of IPv4 is in one /64 of IPv6.
    assert_eq!(join(&relay, 3, "/?pair=x").status, 101);
    assert_too_many(&join(&relay, 2, "/?pair=x"), "requests");
}

#[test]
fn a_head_in_pieces_is_one_request() {
    let relay = Relay::start(&["--max-joins-per-minute", "1"]);
    let mut socket = connect(&relay, 2);
    for piece in upgrade("/?pair=x", "").as_bytes().chunks(7) {
        socket.write_all(piece).unwrap();
    }
    assert_eq!(Answer::read(socket).status, 101);
}
