//! The limits of connections and of upgrade requests per client.

use std::io::{Read, Write};
use std::time::{Duration, Instant};
use std::{fs, thread};

use crate::client::{Answer, ask, connect, join};
use crate::support::raw::{expect, frame, server_frame, upgrade};
use crate::support::{PATIENCE, Relay, arc_relay, eventually};

const HEALTH: &str = "GET /health HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n";

fn assert_too_many(answer: &Answer, what: &str) {
    assert_eq!((answer.status, &*answer.body), (429, &*format!("too many {what}\n")), "{}", answer.head);
    assert!(answer.head.contains("connection: close\r\n"));
}

/// Sends upgrade requests until one is answered with 101.
fn eventually_join(relay: &Relay, from: u8, target: &str) -> Answer {
    let mut answer = None;
    eventually("the client may have another connection", || {
        answer = Some(join(relay, from, target)).filter(|answer| answer.status == 101);
        answer.is_some()
    });
    answer.unwrap()
}

#[test]
fn connection_over_the_client_limit_is_refused_with_429() {
    let relay = Relay::start(&["--max-connections-per-client", "2"]);
    let mut first = join(&relay, 2, "/?pair=x");
    let mut second = join(&relay, 2, "/?pair=x");
    assert_eq!((first.status, second.status), (101, 101));
    for _ in 0..5 {
        let refused = join(&relay, 2, "/?pair=y");
        assert_too_many(&refused, "connections");
        assert_eq!(refused.retry_after(), Some(5));
    }
    assert_eq!(join(&relay, 3, "/?pair=z").status, 101, "the limit does not affect other clients");

    // It does not affect the pair either.
    first.socket.write_all(&frame(0x82, b"still there")).unwrap();
    expect(&mut second.socket, &server_frame(0x82, b"still there"));

    drop(first);
    eventually_join(&relay, 2, "/?pair=y");
}

#[test]
fn silent_connection_counts_once_it_is_accepted() {
    let relay = Relay::start(&["--max-connections-per-client", "2"]);
    let silent = [connect(&relay, 2), connect(&relay, 2)];
    eventually("both connections are accepted", || {
        let answer = join(&relay, 2, "/?pair=x");
        answer.status == 429
    });
    drop(silent);
    eventually_join(&relay, 2, "/?pair=x");
}

#[test]
fn ended_connection_counts_no_more_however_it_ended() {
    let relay = Relay::start(&["--max-connections-per-client", "1", "--handshake-timeout", "3s"]);
    drop(eventually_join(&relay, 2, "/?pair=x"));
    let reset = eventually_join(&relay, 2, "/?pair=x");
    crate::support::raw::reset(&reset.socket);
    drop(reset);
    // A request refused for another reason, a connection closed without a request, and one that times out.
    eventually("the request is refused for its missing code", || join(&relay, 2, "/").status == 400);
    drop(connect(&relay, 2));
    let mut silent = connect(&relay, 2);
    let _ = silent.read(&mut [0]);
    let mut closes = eventually_join(&relay, 2, "/?pair=x");
    closes.socket.write_all(&frame(0x88, &[0x03, 0xE8])).unwrap();
    eventually_join(&relay, 2, "/?pair=x");
}

#[test]
fn upgrade_request_over_the_client_rate_is_refused_with_429() {
    let relay = Relay::start(&["--max-joins-per-minute", "3"]);
    // A refused request counts, too, as it may be a guess at a code or a token.
    let statuses = ["/", "/?pair=x", "/?pair="].map(|target| join(&relay, 2, target).status);
    assert_eq!(statuses, [400, 101, 400]);
    for target in ["/?pair=x", "/"] {
        let refused = join(&relay, 2, target);
        assert_too_many(&refused, "requests");
        assert!(matches!(refused.retry_after(), Some(1..=20)), "{}", refused.head);
    }
    assert_eq!(join(&relay, 3, "/?pair=x").status, 101, "the limit does not affect other clients");
}

#[test]
fn client_that_waits_for_retry_after_is_admitted() {
    let relay = Relay::start(&["--max-joins-per-minute", "60"]);
    let start = Instant::now();
    let mut refused = join(&relay, 2, "/");
    while refused.status == 400 {
        refused = join(&relay, 2, "/");
        assert!(start.elapsed() < PATIENCE, "the limit is never reached");
    }
    assert_eq!(refused.retry_after(), Some(1));
    thread::sleep(Duration::from_secs(1));
    assert_eq!(join(&relay, 2, "/?pair=x").status, 101);
}

#[test]
fn health_request_of_a_client_at_its_limits_is_answered() {
    let relay = Relay::start(&["--max-connections-per-client", "1", "--max-joins-per-minute", "2"]);
    let _joined = eventually_join(&relay, 2, "/?pair=x");
    for _ in 0..2 {
        assert_eq!(join(&relay, 2, "/?pair=x").status, 429);
    }
    for _ in 0..20 {
        let answer = ask(connect(&relay, 2), HEALTH);
        assert_eq!((answer.status, &*answer.body), (200, "{\"ok\":true,\"pairs\":1}"));
        assert_eq!(ask(connect(&relay, 3), HEALTH).status, 200);
    }
    // Health requests do not count as upgrade requests.
    assert_eq!(join(&relay, 3, "/?pair=x").status, 101);
}

#[test]
fn third_client_refused_with_429_does_not_probe_the_pair() {
    let relay = Relay::start(&["--max-joins-per-minute", "2", "--probe-timeout", "100ms"]);
    // Neither client of the pair answers pings.
    let mut pair = [join(&relay, 2, "/?pair=x"), join(&relay, 2, "/?pair=x")];
    for _ in 0..5 {
        assert_too_many(&join(&relay, 2, "/?pair=x"), "requests");
    }
    thread::sleep(Duration::from_millis(300));
    for side in &mut pair {
        side.socket.set_nonblocking(true).unwrap();
        let error = side.socket.read(&mut [0]).expect_err("the relay has sent nothing");
        assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
    }
}

#[test]
fn client_without_limits_may_have_200_connections() {
    let relay = Relay::start(&[]);
    let answers: Vec<_> = (0..200).map(|code| join(&relay, 2, &format!("/?pair={code}"))).collect();
    assert!(answers.iter().all(|answer| answer.status == 101));
}

#[test]
fn ipv4_clients_on_a_dual_stack_port_are_told_apart() {
    if fs::read_to_string("/proc/net/if_inet6").unwrap_or_default().is_empty() {
        return; // a container without IPv6
    }
    let mut command = arc_relay();
    command.args(["start", "--host", "::", "--port", "0", "--max-joins-per-minute", "1"]);
    let mut relay = Relay::spawn(command);
    relay.address = ([127, 0, 0, 1], relay.address.port()).into();
    assert_eq!(join(&relay, 2, "/?pair=x").status, 101);
    // As IPv6 addresses, all of IPv4 is in one /64, which would make it one client.
    assert_eq!(join(&relay, 3, "/?pair=x").status, 101);
    assert_too_many(&join(&relay, 2, "/?pair=x"), "requests");
}

#[test]
fn head_in_pieces_counts_as_one_request() {
    let relay = Relay::start(&["--max-joins-per-minute", "1"]);
    let mut socket = connect(&relay, 2);
    for piece in upgrade("/?pair=x", "").as_bytes().chunks(7) {
        socket.write_all(piece).unwrap();
    }
    assert_eq!(Answer::read(socket).status, 101);
}
