//! Limited rates: nobody is faster, and nothing is lost. How they are shared, and that who is gone is noticed all the same,
//! is the simulation's to show.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod support;

use std::time::{Duration, Instant};

use futures_lite::future::zip;
use support::{Client, Relay, pattern, run};

const MESSAGE: usize = 64 << 10;

/// Sends so many messages, while the other side compares what it gets.
async fn stream(from: &mut Client, to: &mut Client, count: u64) {
    let send = async {
        for seed in 0..count {
            from.send(pattern(MESSAGE, seed)).await;
        }
    };
    let receive = async {
        for seed in 0..count {
            assert!(to.receive().await == pattern(MESSAGE, seed), "message {seed} is another one");
        }
    };
    zip(send, receive).await;
}

#[test]
fn a_pair_is_no_faster_than_it_may_and_gets_everything() {
    let relay = Relay::start(&["--max-rate-per-pair", "1MiB"]);
    run(async {
        let (mut a, mut b) = relay.pair("x").await;
        let begin = Instant::now();
        stream(&mut a, &mut b, 24).await;
        stream(&mut b, &mut a, 8).await;
        // A tenth of a second may be owed at the end, and a tenth more be read before.
        assert!(begin.elapsed() > Duration::from_millis(1750), "2 MiB in {:?}", begin.elapsed());
        assert_eq!(a.close(1000, "").await, (1000, String::new()));
        assert_eq!(b.closed().await, (1000, String::from("peer disconnected")));
    });
    relay.assert_empty();
}

#[test]
fn all_pairs_together_are_no_faster_than_they_may() {
    let relay = Relay::start(&["--max-rate", "2MiB"]);
    run(async {
        let mut pairs = [relay.pair("x").await, relay.pair("y").await];
        let begin = Instant::now();
        let [x, y] = &mut pairs;
        zip(stream(&mut x.0, &mut x.1, 32), stream(&mut y.0, &mut y.1, 32)).await;
        assert!(begin.elapsed() > Duration::from_millis(1750), "4 MiB in {:?}", begin.elapsed());
    });
}
