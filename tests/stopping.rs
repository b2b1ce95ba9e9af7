//! The stop and the recall of a relay behind a load balancer: its readiness, and what clients see.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod support;

use std::fs::{self, File};
use std::io::Write;
use std::net::TcpStream;
#[cfg(target_os = "linux")]
use std::os::unix::net::UnixDatagram;

use rustix::process::Signal;
use support::raw::{head, upgrade};
use support::{PATIENCE, Relay, arc_relay, eventually, run, scratch};

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

/// Its connection is accepted before, and its request comes after.
#[test]
fn client_that_connects_just_before_the_stop_gets_an_answer() {
    let mut relay = Relay::start(&[]);
    let (mut begun, mut silent) = (relay.socket(), relay.socket());
    let request = upgrade("/?pair=x", "");
    begun.write_all(&request.as_bytes()[..20]).unwrap();
    // The relay has the other connections when it has answered one behind them.
    assert_eq!(probe(&relay, "/readyz"), (200, "ready\n".into()));
    relay.signal(Signal::TERM);
    eventually("the relay does not listen any more", || TcpStream::connect(relay.address).is_err());
    begun.write_all(&request.as_bytes()[20..]).unwrap();
    silent.write_all(request.as_bytes()).unwrap();
    for socket in [&mut begun, &mut silent] {
        let head = head(socket);
        assert!(head.starts_with("HTTP/1.1 503 ") && head.contains("retry-after: "), "{head}");
    }
    assert_eq!(relay.wait().code(), Some(0));
}

#[test]
fn sigusr1_tells_waiting_clients_to_come_again_and_leaves_pairs_alone() {
    let relay = Relay::start(&[]);
    run(async {
        let (mut a, mut b) = relay.pair("x").await;
        for _ in 0..2 {
            let mut alone = relay.connect("y").await;
            relay.signal(Signal::USR1);
            assert_eq!(alone.closed().await, (1012, "service restart".into()));
        }
        assert_eq!(probe(&relay, "/readyz"), (200, "ready\n".into()));
        let (mut c, mut d) = relay.pair("y").await;
        c.send("met").await;
        assert_eq!(d.receive().await, b"met");
        a.send("goes on").await;
        assert_eq!(b.receive().await, b"goes on");
    });
}

/// A relay that is told to stop ignores SIGUSR1, which would end a process that does not know it.
#[test]
fn sigusr1_during_the_drain_delay_changes_nothing() {
    let mut relay = Relay::start(&["--drain-delay", "1s"]);
    run(async {
        let mut alone = relay.connect("x").await;
        relay.signal(Signal::TERM);
        relay.signal(Signal::USR1);
        let (code, reason) = alone.closed().await;
        // Signals have no order: the recall may come first.
        let is_known = [(1001, "relay stopping"), (1012, "service restart")].contains(&(code, &*reason));
        assert!(is_known, "{code} {reason}");
    });
    assert_eq!(relay.wait().code(), Some(0));
}

/// A relay that tells its state to this socket, and its log.
#[cfg(target_os = "linux")]
fn start_service(socket: &std::path::Path, log: &std::path::Path) -> Relay {
    let mut command = arc_relay();
    command.args(["start", "--host", "127.0.0.1", "--port", "0", "--log-level", "warn"]).env("NOTIFY_SOCKET", socket);
    command.stderr(File::create(log).unwrap());
    Relay::spawn(command)
}

#[test]
#[cfg(target_os = "linux")]
fn service_manager_is_told_of_the_beginning_and_of_the_stop() {
    let (path, log) = (scratch("notify"), scratch("notify-log"));
    let _ = fs::remove_file(&path);
    let told = UnixDatagram::bind(&path).unwrap();
    told.set_read_timeout(Some(PATIENCE)).unwrap();
    let next = || {
        let mut message = [0; 100];
        let length = told.recv(&mut message).unwrap();
        String::from_utf8(message[..length].to_vec()).unwrap()
    };
    let mut relay = start_service(&path, &log);
    assert_eq!(next(), "READY=1\n");
    relay.signal(Signal::TERM);
    assert_eq!(next(), "STOPPING=1\n");
    assert_eq!(relay.wait().code(), Some(0));
    assert_eq!(fs::read_to_string(&log).unwrap(), "");

    // The relay goes on without it.
    let _ = fs::remove_file(&path);
    let relay = start_service(&path, &log);
    eventually("the failure is logged", || {
        fs::read_to_string(&log).unwrap().contains("warn service_manager_not_told error=")
    });
    assert_eq!(probe(&relay, "/readyz"), (200, "ready\n".into()));
}
