//! Panics that end the relay, in the threads of a real one.
//!
//! The clock, the listener and the logger plant them.

use std::io::{Read, Write};
use std::net::{IpAddr, TcpStream};
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures_lite::FutureExt;
use smol::Timer;

use super::*;
use crate::runtime::clock::Sleep;
use crate::runtime::tcp::Tcp;

/// The system's clock, which panics when it is asked for a sleep of such a length.
#[derive(Debug)]
struct Trap(fn(Duration) -> bool);

impl Clock for Trap {
    fn now(&self) -> Instant {
        SystemClock.now()
    }

    fn sleep_until(&self, deadline: Instant) -> Sleep {
        assert!(!self.0(deadline.saturating_duration_since(self.now())), "a planted bug");
        SystemClock.sleep_until(deadline)
    }

    fn since_epoch(&self) -> Duration {
        SystemClock.since_epoch()
    }
}

/// A listener that panics instead of accepting a second connection, on any worker.
struct AcceptsOne(Port, Arc<AtomicBool>);

impl Listener for AcceptsOne {
    type Socket = Tcp;

    fn share(&self) -> Self {
        Self(self.0.share(), Arc::clone(&self.1))
    }

    fn poll_acceptable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.poll_acceptable(cx)
    }

    fn accept(&self) -> io::Result<(Tcp, IpAddr)> {
        let accepted = self.0.accept()?;
        assert!(!self.1.swap(true, Relaxed), "a planted bug");
        Ok(accepted)
    }
}

fn port() -> (Port, Vec<SocketAddr>) {
    let port = Port::listen("127.0.0.1", 0, Config::default().sockets()).unwrap();
    let addresses = port.local_addrs().unwrap();
    (port, addresses)
}

fn config(workers: usize) -> Config {
    let pair_ttl = Duration::from_secs(5000);
    Config { workers: NonZeroUsize::new(workers), pair_ttl, ..Config::default() }
}

/// A client that waits for its peer, if it gets that far.
fn join(relay: &RelayHandle, code: &str) -> TcpStream {
    let mut socket = TcpStream::connect(relay.local_addr()).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let request = format!(
        "GET /?pair={code} HTTP/1.1\r\nHost: test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    socket.write_all(request.as_bytes()).unwrap();
    socket
}

fn read_until(socket: &mut TcpStream, end: &[u8]) {
    let mut received = Vec::new();
    while !received.ends_with(end) {
        let mut byte = [0];
        socket.read_exact(&mut byte).unwrap();
        received.push(byte[0]);
    }
}

/// The relay fails, closes its sockets, and a stop does not hang.
fn expect_failure(relay: RelayHandle, clients: Vec<TcpStream>) {
    let address = relay.local_addr();
    let failed = async {
        let error = relay.failed().await;
        assert!(error.to_string().starts_with("the relay has ended because of a bug: "), "{error}");
        relay.stop().await;
    };
    smol::block_on(failed.or(async {
        Timer::after(Duration::from_secs(60)).await;
        panic!("the relay is deaf, and nothing says so");
    }));
    assert!(TcpStream::connect(address).is_err(), "the listener is open");
    for mut client in clients {
        match client.read_to_end(&mut Vec::new()) {
            Ok(_) => {}
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::ConnectionReset),
        }
    }
}

#[test]
fn panic_in_accept_ends_the_relay() {
    for workers in [1, 2] {
        let (port, addresses) = port();
        let listener = AcceptsOne(port, Arc::default());
        let relay = start(config(workers), listener, addresses, Arc::new(SystemClock)).unwrap();
        let clients = vec![join(&relay, "x"), TcpStream::connect(relay.local_addr()).unwrap()];
        expect_failure(relay, clients);
    }
}

#[test]
fn panic_in_expiry_ends_the_relay() {
    for workers in [1, 2] {
        let (port, addresses) = port();
        let clock = Arc::new(Trap(|wait| wait > Duration::from_secs(4000)));
        let relay = start(config(workers), port, addresses, clock).unwrap();
        let clients = vec![join(&relay, "x")];
        expect_failure(relay, clients);
    }
}

#[test]
fn panic_in_a_worker_ends_the_relay() {
    for workers in [1, 2, 3] {
        let (port, addresses) = port();
        // A worker sleeps so until its next beat.
        let clock = Arc::new(Trap(|wait| wait < Duration::from_secs(1)));
        let relay = start(config(workers), port, addresses, clock).unwrap();
        // The second one is on the second worker, if there is one.
        let clients = vec![TcpStream::connect(relay.local_addr()).unwrap(), join(&relay, "x")];
        expect_failure(relay, clients);
    }
}

/// A logger that panics at the first event of a connection, which is its beginning.
struct Panics;

impl log::Log for Panics {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        assert_ne!(record.args().to_string(), "waiting", "a planted bug");
    }

    fn flush(&self) {}
}

/// It runs in a process of its own, as there is one logger in a process.
#[test]
fn panic_at_the_beginning_of_a_connection_ends_that_connection_alone() {
    const VARIABLE: &str = "ARC_RELAY_TEST_PANICS";
    if std::env::var_os(VARIABLE).is_none() {
        let name = "server::relay::failure_tests::panic_at_the_beginning_of_a_connection_ends_that_connection_alone";
        let mut command = runner::command(std::env::current_exe().unwrap());
        let output = command.args(["--exact", name]).env(VARIABLE, "1").output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        return;
    }
    let (port, addresses) = port();
    let relay = start(config(1), port, addresses, Arc::new(SystemClock)).unwrap();
    let mut before = join(&relay, "x");
    before.write_all(&[0x89, 0x80, 0, 0, 0, 0]).unwrap();
    read_until(&mut before, &[0x8A, 0]);
    log::set_logger(&Panics).unwrap();
    log::set_max_level(log::LevelFilter::Info);
    let mut victim = join(&relay, "y");
    assert!(victim.read_to_end(&mut Vec::new()).is_ok_and(|count| count > 0), "it has its 101, and then nothing");
    // The other connection is there, and its peer still comes.
    let mut peer = join(&relay, "x");
    let start = Instant::now();
    while (relay.counters().paired, relay.counters().panics, relay.counters().connections) != (1, 1, 2) {
        assert!(start.elapsed() < Duration::from_secs(60), "{:?}", relay.counters());
        thread::yield_now();
    }
    before.write_all(&[0x82, 0x81, 0, 0, 0, 0, 7]).unwrap();
    read_until(&mut peer, &[0x82, 1, 7]);
}
