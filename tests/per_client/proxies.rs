//! Who the client is behind proxies. Each test allows a client one request to join, so who is refused is known already.

use crate::client::{ask, connect};
use crate::support::Relay;
use crate::support::raw::upgrade;

const ONCE: [&str; 2] = ["--max-joins-per-minute", "1"];

fn start(flags: &[&str]) -> Relay {
    Relay::start(&[&ONCE, flags].concat())
}

/// The status with which a request to join from 127.0.0.`from` is answered that was forwarded with these lines.
fn forwarded(relay: &Relay, from: u8, lines: &[&str]) -> u16 {
    let lines: String = lines.iter().map(|line| format!("X-Forwarded-For: {line}\r\n")).collect();
    ask(connect(relay, from), &upgrade("/?pair=x", &lines)).status
}

#[test]
fn behind_a_trusted_proxy_the_client_is_whoever_it_asks_for() {
    let relay = start(&["--trusted-proxies", "127.0.0.2"]);
    assert_eq!(forwarded(&relay, 2, &["1.1.1.1"]), 101);
    assert_eq!(forwarded(&relay, 2, &["1.1.1.2"]), 101);
    for known in ["1.1.1.1", "1.1.1.2", "1.1.1.1:8080", "::ffff:1.1.1.1", "9.9.9.9, 1.1.1.1"] {
        assert_eq!(forwarded(&relay, 2, &[known]), 429, "{known}");
    }
    // Without the field it asks for itself.
    assert_eq!(forwarded(&relay, 2, &[]), 101);
    assert_eq!(forwarded(&relay, 2, &[]), 429);
}

#[test]
fn nobody_else_is_believed() {
    let relay = start(&["--trusted-proxies", "127.0.0.2"]);
    assert_eq!(forwarded(&relay, 3, &["1.1.1.1"]), 101);
    assert_eq!(forwarded(&relay, 3, &["1.1.1.2"]), 429);
    assert_eq!(forwarded(&relay, 2, &["1.1.1.2"]), 101, "it was not this one");
    let trusting_nobody = start(&[]);
    assert_eq!(forwarded(&trusting_nobody, 3, &["1.1.1.1"]), 101);
    assert_eq!(forwarded(&trusting_nobody, 3, &["1.1.1.2"]), 429);
}

#[test]
fn several_proxies_and_several_lines_are_one_way() {
    let relay = start(&["--trusted-proxies", "127.0.0.2, 10.0.0.0/8, fd00::/8"]);
    assert_eq!(forwarded(&relay, 2, &["9.9.9.9", "9.9.9.9, 1.1.1.1, 10.0.0.1", "fd00::1, 10.9.9.9"]), 101);
    assert_eq!(forwarded(&relay, 2, &["1.1.1.1"]), 429);
    assert_eq!(forwarded(&relay, 2, &["9.9.9.9"]), 101);
}

#[test]
fn what_is_no_address_stops_at_the_proxy_that_sent_it() {
    let relay = start(&["--trusted-proxies", "127.0.0.2, 10.0.0.0/8"]);
    assert_eq!(forwarded(&relay, 2, &["1.1.1.1, unknown, 10.0.0.1"]), 101);
    assert_eq!(forwarded(&relay, 2, &["1.1.1.2, \u{FF}, 10.0.0.1"]), 429);
    assert_eq!(forwarded(&relay, 2, &["1.1.1.1"]), 101);
}

#[test]
fn connections_are_counted_by_client_and_not_by_proxy() {
    let relay = Relay::start(&["--trusted-proxies", "127.0.0.2", "--max-connections-per-client", "1"]);
    let join = |client: &str, code: u8| {
        let fields = format!("X-Forwarded-For: {client}\r\n");
        ask(connect(&relay, 2), &upgrade(&format!("/?pair={code}"), &fields))
    };
    let joined: Vec<_> = (0..10).map(|code| join(&format!("1.1.1.{code}"), code)).collect();
    assert!(joined.iter().all(|answer| answer.status == 101));
    let refused = join("1.1.1.5", 20);
    assert_eq!((refused.status, &*refused.body), (429, "too many connections\n"));
    drop(joined);
    crate::support::eventually("it is counted no more", || join("1.1.1.5", 20).status == 101);
}

#[test]
fn the_64_bits_of_an_ipv6_network_are_one_client() {
    let relay = start(&["--trusted-proxies", "127.0.0.2"]);
    assert_eq!(forwarded(&relay, 2, &["2001:db8::1"]), 101);
    assert_eq!(forwarded(&relay, 2, &["[2001:db8::ffff:0:0:1]:443"]), 429);
    assert_eq!(forwarded(&relay, 2, &["2001:db8:0:1::1"]), 101);
}
