//! Rate limits: an upper bound on throughput, and no lost message.
//!
//! The simulation tests fair sharing, and that departures are noticed while a rate limit pauses reading.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod support;

use std::time::{Duration, Instant};

use futures_lite::future::zip;
use support::{Client, Relay, pattern, run};

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
