//! The relay as a library: in any executor, with any number of workers.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod support;

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::num::NonZeroUsize;
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use arc_relay::internals::reframer::Tally;
use arc_relay::{Config, Outcome, Rejection, Relay};
use rustix::process::{Pid, Signal, kill_process};
use support::raw::{expect, expect_end, frame, open, server_close, server_frame, upgrade};
use support::tickets::{Key, seconds_from_now};

fn config() -> Config {
    Config { host: "127.0.0.1".into(), port: 0, workers: support::workers(), ..Config::default() }
}

fn connect(relay: &arc_relay::RelayHandle, target: &str) -> TcpStream {
    let mut socket = TcpStream::connect(relay.local_addr()).unwrap();
    socket.set_read_timeout(Some(support::PATIENCE)).unwrap();
    open(&mut socket, target, b"");
    socket
}

/// As systemd passes its socket to each process of a service.
#[test]
fn inherited_socket_is_left_to_the_next_relay() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let start = || Relay::start_inherited(config(), vec![listener.try_clone().unwrap()]).unwrap();
    let previous = start();
    assert_eq!(previous.local_addr(), listener.local_addr().unwrap());
    drop(connect(&previous, "/?pair=x"));
    smol::block_on(previous.stop());
    let mut early = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    early.set_read_timeout(Some(support::PATIENCE)).unwrap();
    let next = start();
    open(&mut early, "/?pair=x", b"");
    assert_eq!(next.pairs(), 1);
}

#[test]
fn clients_on_different_workers_are_paired() {
    for workers in [1, 2, 3] {
        let relay = Relay::start(Config { workers: NonZeroUsize::new(workers), ..config() }).unwrap();
        // The clients of a pair come to different workers, in all combinations.
        let firsts: Vec<_> = (0..10).map(|number| connect(&relay, &format!("/?pair={number}"))).collect();
        let seconds: Vec<_> = (0..10).rev().map(|number| connect(&relay, &format!("/?pair={number}"))).collect();
        assert_eq!(relay.pairs(), 10);
        for (mut a, mut b) in firsts.into_iter().zip(seconds.into_iter().rev()) {
            for _ in 0..100 {
                a.write_all(&frame(0x82, b"there")).unwrap();
                expect(&mut b, &server_frame(0x82, b"there"));
                b.write_all(&frame(0x82, b"and back")).unwrap();
                expect(&mut a, &server_frame(0x82, b"and back"));
            }
            a.write_all(&frame(0x88, b"")).unwrap();
            expect(&mut b, &server_close(1000, "peer disconnected"));
        }
        smol::block_on(relay.stop());
    }
}

#[test]
fn access_tokens_can_be_replaced_and_are_not_printed() {
    let config = Config { access_tokens: Some("hush-1".parse().unwrap()), ..config() };
    assert!(!format!("{config:?}").contains("hush"));
    let relay = Relay::start(config).unwrap();
    assert!(!format!("{relay:?}").contains("hush"));
    connect(&relay, "/?pair=x&token=hush-1");
    relay.set_access_tokens("hush-2".parse().unwrap());
    connect(&relay, "/?pair=x&token=hush-2");
    let mut refused = TcpStream::connect(relay.local_addr()).unwrap();
    refused.write_all(upgrade("/?pair=x&token=hush-1", "").as_bytes()).unwrap();
    expect(&mut refused, b"HTTP/1.1 401 ");
    smol::block_on(relay.stop());
}

#[test]
fn ticket_keys_can_be_replaced_and_are_not_printed() {
    let [old, new] = [Key::Hs256([b'h'; 32]), Key::Ed25519([b'n'; 32])];
    let config = Config { ticket_keys: Some(old.line().parse().unwrap()), ..config() };
    assert!(format!("{config:?}").contains("ticket_keys: Some(TicketKeys(..))"));
    let relay = Relay::start(config).unwrap();
    let target = |key: Key| format!("/?pair=x&token={}", key.sign(&format!(r#"{{"exp":{}}}"#, seconds_from_now(60))));
    connect(&relay, &target(old));
    relay.set_ticket_keys(new.line().parse().unwrap());
    connect(&relay, &target(new));
    let mut refused = TcpStream::connect(relay.local_addr()).unwrap();
    refused.write_all(upgrade(&target(old), "").as_bytes()).unwrap();
    expect(&mut refused, b"HTTP/1.1 401 ");
    smol::block_on(relay.stop());
}

#[test]
fn relay_runs_beside_any_executor() {
    let relay = Relay::start(config()).unwrap();
    let mut a = connect(&relay, "/?pair=x");
    a.write_all(&frame(0x89, b"?")).unwrap();
    expect(&mut a, &server_frame(0x8A, b"?"));
    // The executor of `futures_lite` has no reactor.
    let stopping = thread::spawn(|| futures_lite::future::block_on(relay.stop()));
    expect(&mut a, &server_close(1001, "relay stopping"));
    a.write_all(&frame(0x88, &1001_u16.to_be_bytes())).unwrap();
    expect_end(&mut a);
    stopping.join().unwrap();
}

#[test]
fn dropping_the_handle_stops_the_relay() {
    let relay = Relay::start(config()).unwrap();
    let mut a = connect(&relay, "/?pair=x");
    let address = relay.local_addr();
    drop(relay);
    expect(&mut a, &server_close(1001, "relay stopping"));
    support::eventually("the listener is closed", || TcpStream::connect(address).is_err());
}

#[test]
fn port_can_be_used_again_at_once() {
    let relay = Relay::start(config()).unwrap();
    let port = relay.local_addr().port();
    let _client = connect(&relay, "/?pair=x");
    smol::block_on(relay.stop());
    let relay = Relay::start(Config { port, ..config() }).unwrap();
    assert_eq!(relay.local_addr().port(), port);
}

#[test]
fn code_beyond_max_pairs_is_rejected_with_503_and_other_codes_go_on() {
    let relay = Relay::start(Config { max_pairs: 2, ..config() }).unwrap();
    let _one = connect(&relay, "/?pair=1");
    let _two = connect(&relay, "/?pair=2");
    let mut third = TcpStream::connect(relay.local_addr()).unwrap();
    third.write_all(upgrade("/?pair=3", "").as_bytes()).unwrap();
    let mut response = String::new();
    third.read_to_string(&mut response).unwrap();
    assert!(response.starts_with("HTTP/1.1 503 ") && response.ends_with("\r\n\r\nrelay is full\n"), "{response}");
    assert!(response.contains("retry-after: "), "{response}");
    let _peer = connect(&relay, "/?pair=1");
}

#[test]
fn messages_are_counted() {
    let relay = Relay::start(config()).unwrap();
    let (mut a, mut b) = (connect(&relay, "/?pair=x"), connect(&relay, "/?pair=x"));
    let stream = [frame(0x81, b"text"), frame(0x82, b"one"), frame(0x02, b"tw"), frame(0x80, b"o")].concat();
    a.write_all(&stream).unwrap();
    expect(&mut b, &[server_frame(0x82, b"one"), server_frame(0x02, b"tw"), server_frame(0x80, b"o")].concat());
    assert_eq!(relay.counters().messages, Tally { forwarded: 2, dropped: 1, bytes: 6 });
}

#[test]
fn open_closed_and_rejected_connections_are_counted() {
    let relay =
        Relay::start(Config { ping_interval: None, probe_timeout: Duration::from_secs(30), ..config() }).unwrap();
    let refused = |target: &str| {
        let mut socket = TcpStream::connect(relay.local_addr()).unwrap();
        socket.write_all(upgrade(target, "").as_bytes()).unwrap();
        socket.read_to_string(&mut String::new()).unwrap();
    };
    let (mut a, mut b) = (connect(&relay, "/?pair=x"), connect(&relay, "/?pair=x"));
    let waiting = connect(&relay, "/?pair=y");
    // Without answers to the takeover probe, the third client would get a seat.
    let answers = thread::scope(|scope| {
        let third = scope.spawn(|| refused("/?pair=x"));
        for client in [&mut a, &mut b] {
            expect(client, &server_frame(0x89, b""));
            client.write_all(&frame(0x8A, b"")).unwrap();
        }
        third.join()
    });
    answers.unwrap();
    refused("/");
    refused("/");
    let counters = relay.counters();
    assert_eq!((counters.connections, counters.waiting, counters.paired, counters.probes), (3, 1, 1, 1));
    assert_eq!(counters.pings, 2, "each client of the pair was probed once");
    assert_eq!((counters.pair_waits.count(), counters.pair_durations.count(), counters.unmet), (1, 0, 0));
    for (reason, count) in counters.rejected {
        let expected = match reason {
            Rejection::PairCode => 2,
            Rejection::PairFull => 1,
            _ => 0,
        };
        assert_eq!(count, expected, "{reason:?}");
    }
    a.write_all(&frame(0x88, b"")).unwrap();
    b.set_read_timeout(Some(support::PATIENCE)).unwrap();
    let mut rest = Vec::new();
    b.write_all(&frame(0x88, &1000_u16.to_be_bytes())).unwrap();
    b.read_to_end(&mut rest).unwrap();
    drop((a, b));
    let closed = |outcome| relay.counters().closed.into_iter().find(|(known, _)| *known == outcome).unwrap().1;
    support::eventually("both have ended", || closed(Outcome::Left) + closed(Outcome::PeerLeft) == 2);
    assert_eq!((relay.counters().connections, relay.counters().paired), (1, 0));
    assert_eq!(relay.counters().pair_durations.count(), 1, "once for both");
    drop(waiting);
    support::eventually("the client that waited has ended", || relay.counters().unmet == 1);
}

#[test]
fn error_at_the_start_says_what_failed() {
    let start =
        |host: &str, port| Relay::start(Config { host: host.into(), port, ..config() }).map(|_| ()).unwrap_err();
    for host in ["nowhere.invalid", "", "["] {
        assert!(start(host, 0).to_string().starts_with(&format!("cannot resolve {host:?}: ")), "{host}");
    }
    // An address of another system (RFC 5737).
    let error = start("192.0.2.1", 0);
    assert!(error.to_string().starts_with("cannot listen on 192.0.2.1:0: "), "{error}");
    let other = Relay::start(config()).unwrap();
    let error = start("127.0.0.1", other.local_addr().port());
    assert!(error.to_string().starts_with(&format!("cannot listen on {}: ", other.local_addr())), "{error}");
    assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse);
}

#[test]
fn name_is_listened_on_with_all_of_its_addresses() {
    let relay = Relay::start(Config { host: "localhost".into(), ..config() }).unwrap();
    let addresses = relay.local_addrs().to_vec();
    assert_eq!(addresses[0], relay.local_addr());
    let exists = |address: &SocketAddr| TcpListener::bind((address.ip(), 0)).is_ok();
    let named: BTreeSet<_> = ("localhost", 0).to_socket_addrs().unwrap().filter(exists).collect();
    assert_eq!(addresses.len(), named.len(), "{addresses:?}");
    for address in &addresses {
        assert_eq!(address.port(), relay.local_addr().port());
        let mut socket = TcpStream::connect(address).unwrap();
        open(&mut socket, &format!("/?pair={}", address.is_ipv6()), b"");
    }
}

#[test]
fn longest_pair_ttl_is_accepted() {
    let relay = Relay::start(Config { pair_ttl: Duration::MAX, ..config() }).unwrap();
    let mut a = connect(&relay, "/?pair=x");
    let mut b = connect(&relay, "/?pair=x");
    a.write_all(&frame(0x82, b"patient")).unwrap();
    expect(&mut b, &server_frame(0x82, b"patient"));
}

/// The test below runs it in a process of its own, which can be stopped.
#[test]
#[ignore = "it runs until its standard input ends"]
fn relay_with_short_probes() {
    let relay = Relay::start(Config { probe_timeout: Duration::from_millis(300), ..config() }).unwrap();
    println!("\nport {}", relay.local_addr().port());
    std::io::stdin().read_line(&mut String::new()).unwrap();
}

/// The process is stopped (SIGSTOP) for longer than a probe takes, which is 1.6 s at most.
///
/// So the probe's timer fires on the worker of the third client, maybe before the worker of the pair reads the pongs.
#[test]
fn probe_that_ends_while_the_relay_is_stopped_evicts_no_client() {
    thread::scope(|scope| {
        for workers in [2, 4] {
            scope.spawn(move || stop_during_probes(workers));
        }
    });
}

fn stop_during_probes(workers: usize) {
    const PAIRS: usize = 8;
    let arguments = ["--exact", "relay_with_short_probes", "--ignored", "--nocapture"];
    let mut process = support::runner::command(std::env::current_exe().unwrap())
        .args(arguments)
        .env("ARC_RELAY_WORKERS", workers.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
    let port = lines.find_map(|line| line.unwrap().strip_prefix("port ")?.parse::<u16>().ok()).unwrap();
    let signal = |signal| kill_process(Pid::from_child(&process), signal).unwrap();
    let socket = || {
        let socket = TcpStream::connect(("127.0.0.1", port)).unwrap();
        socket.set_read_timeout(Some(support::PATIENCE)).unwrap();
        socket
    };
    for round in 0..3 {
        let target = |pair| format!("/?pair={round}-{pair}");
        let side = |pair| {
            let mut socket = socket();
            open(&mut socket, &target(pair), b"");
            socket
        };
        let mut pairs: Vec<_> = (0..PAIRS).map(|pair| [side(pair), side(pair)]).collect();
        let mut thirds: Vec<_> = (0..PAIRS).map(|_| socket()).collect();
        for (pair, third) in thirds.iter_mut().enumerate() {
            third.write_all(upgrade(&target(pair), "").as_bytes()).unwrap();
        }
        pairs.iter_mut().flatten().for_each(|side| expect(side, &server_frame(0x89, b"")));
        signal(Signal::STOP);
        pairs.iter_mut().flatten().for_each(|side| side.write_all(&frame(0x8A, b"")).unwrap());
        thread::sleep(Duration::from_millis(2500));
        signal(Signal::CONT);
        thirds.iter_mut().for_each(|third| expect(third, b"HTTP/1.1 409 "));
        for [a, b] in &mut pairs {
            a.write_all(&frame(0x82, b"there")).unwrap();
            expect(b, &server_frame(0x82, b"there"));
        }
    }
    drop(process.stdin.take());
    assert!(process.wait().unwrap().success());
}
