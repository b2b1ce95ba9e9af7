//! An upgrade: the next relay takes the port over while the pairs of the previous one finish.

mod support;

use rustix::process::Signal;
use support::{Relay, arc_relay, run};

/// A relay at the address of the other one.
fn start_next(previous: &Relay) -> Relay {
    let mut command = arc_relay();
    let port = previous.address.port().to_string();
    command.args(["start", "--host", "127.0.0.1", "--port", &port]);
    Relay::spawn(command)
}

#[test]
fn next_relay_takes_the_port_while_pairs_of_the_previous_one_finish() {
    let mut previous = Relay::start(&["--drain-timeout", "1h"]);
    run(async {
        let (mut a, mut b) = previous.pair("x").await;
        let mut waiting = previous.connect("y").await;
        previous.signal(Signal::TERM);
        assert_eq!(waiting.closed().await, (1001, "relay stopping".into()));

        // The same code names another pair in the next relay.
        let next = start_next(&previous);
        let (mut c, mut d) = next.pair("x").await;
        a.send("previous").await;
        c.send("next").await;
        assert_eq!(b.receive().await, b"previous");
        assert_eq!(d.receive().await, b"next");

        assert_eq!(a.close(1000, "").await, (1000, String::new()));
        assert_eq!(b.closed().await, (1000, "peer disconnected".into()));
        assert_eq!(previous.wait().code(), Some(0));
        d.send("still there").await;
        assert_eq!(c.receive().await, b"still there");
    });
}
