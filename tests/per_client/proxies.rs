//! The client's address behind proxies that send `X-Forwarded-For`.
//!
//! Each client may send one upgrade request, so status 429 shows that the relay takes two requests for one client's.

use crate::client::{ask, connect};
use crate::support::Relay;
use crate::support::raw::upgrade;

const ONCE: [&str; 2] = ["--max-joins-per-minute", "1"];

fn start(flags: &[&str]) -> Relay {
    Relay::start(&[&ONCE, flags].concat())
}

/// The status of an upgrade request from 127.0.0.`from` with these lines of `X-Forwarded-For`.
fn forwarded(relay: &Relay, from: u8, lines: &[&str]) -> u16 {
    let lines: String = lines.iter().map(|line| format!("X-Forwarded-For: {line}\r\n")).collect();
    ask(connect(relay, from), &upgrade("/?pair=x", &lines)).status
}

#[test]
fn trusted_proxy_names_the_client() {
    let relay = start(&["--trusted-proxies", "127.0.0.2"]);
    assert_eq!(forwarded(&relay, 2, &["1.1.1.1"]), 101);
    assert_eq!(forwarded(&relay, 2, &["1.1.1.2"]), 101);
    for known in ["1.1.1.1", "1.1.1.2", "1.1.1.1:8080", "::ffff:1.1.1.1", "9.9.9.9, 1.1.1.1"] {
        assert_eq!(forwarded(&relay, 2, &[known]), 429, "{known}");
    }
    // Without the field, the proxy itself is the client.
    assert_eq!(forwarded(&relay, 2, &[]), 101);
    assert_eq!(forwarded(&relay, 2, &[]), 429);
}

#[test]
fn x_forwarded_for_of_an_untrusted_client_is_ignored() {
    let relay = start(&["--trusted-proxies", "127.0.0.2"]);
    assert_eq!(forwarded(&relay, 3, &["1.1.1.1"]), 101);
    assert_eq!(forwarded(&relay, 3, &["1.1.1.2"]), 429);
    assert_eq!(forwarded(&relay, 2, &["1.1.1.2"]), 101, "the earlier request did not count for 1.1.1.2");
    let without_proxies = start(&[]);
    assert_eq!(forwarded(&without_proxies, 3, &["1.1.1.1"]), 101);
    assert_eq!(forwarded(&without_proxies, 3, &["1.1.1.2"]), 429);
}

#[test]
fn client_is_the_last_untrusted_address_of_all_lines() {
    let relay = start(&["--trusted-proxies", "127.0.0.2, 10.0.0.0/8, fd00::/8"]);
    assert_eq!(forwarded(&relay, 2, &["9.9.9.9", "9.9.9.9, 1.1.1.1, 10.0.0.1", "fd00::1, 10.9.9.9"]), 101);
    assert_eq!(forwarded(&relay, 2, &["1.1.1.1"]), 429);
    assert_eq!(forwarded(&relay, 2, &["9.9.9.9"]), 101);
}

#[test]
fn invalid_address_makes_the_proxy_that_sent_it_the_client() {
    let relay = start(&["--trusted-proxies", "127.0.0.2, 10.0.0.0/8"]);
    assert_eq!(forwarded(&relay, 2, &["1.1.1.1, unknown, 10.0.0.1"]), 101);
    assert_eq!(forwarded(&relay, 2, &["1.1.1.2, \u{FF}, 10.0.0.1"]), 429);
    assert_eq!(forwarded(&relay, 2, &["1.1.1.1"]), 101);
}

#[test]
fn connections_are_counted_per_client_and_not_per_proxy() {
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
    crate::support::eventually("the connection counts no more", || join("1.1.1.5", 20).status == 101);
}

#[test]
fn ipv6_network_of_64_bits_is_one_client() {
    let relay = start(&["--trusted-proxies", "127.0.0.2"]);
    assert_eq!(forwarded(&relay, 2, &["2001:db8::1"]), 101);
    assert_eq!(forwarded(&relay, 2, &["[2001:db8::ffff:0:0:1]:443"]), 429);
    assert_eq!(forwarded(&relay, 2, &["2001:db8:0:1::1"]), 101);
}
