//! What a client is told when the relay stops.

use rustix::process::Signal;

use crate::client::{PAIRED, connect};
use crate::support::{Relay, run};

/// The seconds of a `draining` message.
fn within(text: &str) -> u64 {
    let seconds = text.strip_prefix(r#"{"type":"draining","within":"#).and_then(|rest| rest.strip_suffix('}'));
    seconds.unwrap_or_else(|| panic!("unexpected: {text}")).parse().unwrap()
}

#[test]
fn each_client_is_told_when_the_stop_begins_and_so_are_those_that_still_join() {
    let mut relay = Relay::start(&["--drain-delay", "1h", "--drain-timeout", "30m"]);
    run(async {
        let mut a = connect(&relay, "/?pair=x").await;
        a.text().await;
        let mut other = relay.connect("y").await;
        relay.signal(Signal::TERM);
        let seconds = within(&a.text().await);
        assert!((5300..=5400).contains(&seconds), "{seconds}");
        let mut late = connect(&relay, "/?pair=x").await;
        assert_eq!(late.text().await, PAIRED);
        assert!(within(&late.text().await) <= seconds);
        assert_eq!(a.text().await, PAIRED);
        late.send("goes on").await;
        assert_eq!(a.receive().await, b"goes on");
        // A client that does not speak it is told nothing.
        let mut peer = relay.connect("y").await;
        peer.send("binary").await;
        assert_eq!(other.receive().await, b"binary");
        relay.signal(Signal::TERM);
        assert_eq!(relay.wait().code(), Some(143), "a second signal ends the relay at once");
    });
}

#[test]
fn each_client_is_told_before_it_is_closed() {
    let mut relay = Relay::start(&["--drain-timeout", "2s"]);
    run(async {
        let mut pair = [connect(&relay, "/?pair=x").await, connect(&relay, "/?pair=x").await];
        let mut alone = connect(&relay, "/?pair=y").await;
        for client in [&mut pair[0], &mut alone] {
            assert!(client.text().await.starts_with(r#"{"type":"waiting""#));
        }
        for client in &mut pair {
            assert_eq!(client.text().await, PAIRED);
        }
        relay.signal(Signal::TERM);
        for client in [&mut alone].into_iter().chain(&mut pair) {
            assert!(within(&client.text().await) <= 2);
            assert_eq!(client.closed().await, (1001, "relay stopping".into()));
        }
    });
    assert_eq!(relay.wait().code(), Some(0));
}

#[test]
fn a_relay_that_stops_at_once_says_so() {
    let mut relay = Relay::start(&[]);
    run(async {
        let mut pair = [connect(&relay, "/?pair=x").await, connect(&relay, "/?pair=x").await];
        pair[0].text().await;
        assert_eq!([pair[0].text().await, pair[1].text().await], [PAIRED, PAIRED]);
        relay.signal(Signal::TERM);
        for client in &mut pair {
            assert_eq!(within(&client.text().await), 0);
            assert_eq!(client.closed().await, (1001, "relay stopping".into()));
        }
    });
    assert_eq!(relay.wait().code(), Some(0));
}
