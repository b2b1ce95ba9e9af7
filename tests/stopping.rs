//! The stop of a relay behind a load balancer: its readiness, and what clients see.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod support;

use std::net::TcpStream;

use rustix::process::Signal;
use support::{Relay, eventually, run};

/// The status and the body of a probe.
fn probe(relay: &Relay, path: &str) -> (u16, String) {
    let response = relay.http(&format!("GET {path} HTTP/1.1\r\nHost: t\r\n\r\n"));
    let (head, body) = response.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

#[test]
fn readiness_ends_with_the_signal_and_clients_still_join() {
    let mut relay = Relay::start(&["--drain-delay", "1h", "--drain-timeout", "1h"]);
    run(async {
        let mut early = relay.connect("x").await;
        assert_eq!(probe(&relay, "/readyz"), (200, "ready\n".into()));
        relay.signal(Signal::TERM);
        eventually("the relay is not ready", || probe(&relay, "/readyz") == (503, "stopping\n".into()));
        assert_eq!(probe(&relay, "/livez"), (200, "alive\n".into()));
        let mut late = relay.connect("x").await;
        late.send("joined").await;
        assert_eq!(early.receive().await, b"joined");
        relay.signal(Signal::TERM);
        assert_eq!(relay.wait().code(), Some(143), "a second signal ends the relay at once");
    });
}

#[test]
fn waiting_clients_are_told_after_the_drain_delay_and_pairs_go_on() {
    let mut relay = Relay::start(&["--drain-delay", "1s", "--drain-timeout", "1h"]);
    run(async {
        let (mut a, mut b) = relay.pair("x").await;
        let mut alone = relay.connect("y").await;
        relay.signal(Signal::TERM);
        assert_eq!(alone.closed().await, (1001, "relay stopping".into()));
        eventually("the relay does not listen any more", || TcpStream::connect(relay.address).is_err());
        a.send("goes on").await;
        assert_eq!(b.receive().await, b"goes on");
        assert_eq!(a.close(1000, "").await, (1000, String::new()));
        assert_eq!(b.closed().await, (1000, "peer disconnected".into()));
    });
    assert_eq!(relay.wait().code(), Some(0));
}
