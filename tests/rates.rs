//! Rate limits: an upper bound on throughput, and no lost message.
//!
//! The simulation tests fair sharing, and that departures are noticed while a rate limit pauses reading.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod support;

use std::fs;
use std::time::{Duration, Instant};

use futures_lite::future::zip;
use support::tickets::{Key, seconds_from_now};
use support::{Client, Relay, pattern, run, scratch};

const MESSAGE: usize = 64 << 10;

/// Sends `count` messages, and compares what the peer receives.
async fn stream(from: &mut Client, to: &mut Client, count: u64) {
    let send = async {
        for seed in 0..count {
            from.send(pattern(MESSAGE, seed)).await;
        }
    };
    let receive = async {
        for seed in 0..count {
            assert!(to.receive().await == pattern(MESSAGE, seed), "message {seed} differs");
        }
    };
    zip(send, receive).await;
}

#[test]
fn pair_stays_within_its_rate_and_loses_no_message() {
    let relay = Relay::start(&["--max-rate-per-pair", "1MiB"]);
    run(async {
        let (mut a, mut b) = relay.pair("x").await;
        let begin = Instant::now();
        stream(&mut a, &mut b, 24).await;
        stream(&mut b, &mut a, 8).await;
        // The bucket holds a burst of a tenth of a second, and a last read may overdraw it by as much.
        assert!(begin.elapsed() > Duration::from_millis(1750), "2 MiB in {:?}", begin.elapsed());
        assert_eq!(a.close(1000, "").await, (1000, String::new()));
        assert_eq!(b.closed().await, (1000, String::from("peer disconnected")));
    });
    relay.assert_empty();
}

/// The smallest of all rates decides. That of a ticket is for one direction.
#[test]
fn client_stays_within_the_rate_of_its_ticket_and_its_peer_need_not() {
    let (key, keys) = (Key::Hs256([7; 32]), scratch("rates-ticket-keys"));
    fs::write(&keys, key.line()).unwrap();
    let relay = Relay::start(&["--ticket-key-file", keys.to_str().unwrap(), "--max-rate-per-pair", "64MiB"]);
    let of = |code: &str, claims: &str| {
        let ticket = key.sign(&format!(r#"{{"exp":{}{claims}}}"#, seconds_from_now(60)));
        format!("/?pair={code}&token={ticket}")
    };
    run(async {
        let mut a = relay.try_connect(&of("x", r#","rate":1048576"#)).await.unwrap();
        let mut b = relay.try_connect(&of("x", "")).await.unwrap();
        let begin = Instant::now();
        stream(&mut a, &mut b, 32).await;
        assert!(begin.elapsed() > Duration::from_millis(1750), "2 MiB in {:?}", begin.elapsed());
        // At the rate of the other's ticket this would take 32 s.
        let begin = Instant::now();
        stream(&mut b, &mut a, 512).await;
        assert!(begin.elapsed() > Duration::from_millis(350), "32 MiB in {:?}", begin.elapsed());

        // More than the pair may have is no more than that.
        let mut c = relay.try_connect(&of("y", r#","rate":1000000000"#)).await.unwrap();
        let mut d = relay.try_connect(&of("y", "")).await.unwrap();
        let begin = Instant::now();
        stream(&mut c, &mut d, 512).await;
        assert!(begin.elapsed() > Duration::from_millis(350), "32 MiB in {:?}", begin.elapsed());
    });
}

#[test]
fn all_pairs_together_stay_within_the_total_rate() {
    let relay = Relay::start(&["--max-rate", "2MiB"]);
    run(async {
        let mut pairs = [relay.pair("x").await, relay.pair("y").await];
        let begin = Instant::now();
        let [x, y] = &mut pairs;
        zip(stream(&mut x.0, &mut x.1, 32), stream(&mut y.0, &mut y.1, 32)).await;
        assert!(begin.elapsed() > Duration::from_millis(1750), "4 MiB in {:?}", begin.elapsed());
    });
}
