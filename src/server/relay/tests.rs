//! A panic within one connection, in the threads of a real relay.
//!
//! There is no known way to cause one from outside, so a socket lies about its bytes. The panics are the relay's own checks.

use std::io::{self, Read, Write};
use std::net::{IpAddr, TcpStream};
use std::num::NonZeroUsize;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use super::*;
use crate::runtime::tcp::Tcp;
use crate::runtime::transport::Transport;
use crate::telemetry::events::Outcome;

/// The bytes that the socket lies about: in a received message, in a sent one, in a request.
const WHEN_RECEIVED: &[u8] = b"a secret that is received";
const WHEN_SENT: &[u8] = b"a secret that is sent";
const WHEN_REQUESTED: &[u8] = b"GET /?a-secret-code-of-a-handshake";

const CODE: &str = "a-secret-code";

/// A listener with lying sockets.
struct Liars(Port);

#[derive(Clone, Debug)]
struct Liar(Tcp);

impl Listener for Liars {
    type Socket = Liar;

    fn share(&self) -> Self {
        Self(self.0.share())
    }

    fn poll_acceptable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.poll_acceptable(cx)
    }

    fn accept(&self) -> io::Result<(Liar, IpAddr)> {
        self.0.accept().map(|(socket, peer)| (Liar(socket), peer))
    }
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

impl Transport for Liar {
    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.poll_readable(cx)
    }
    fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.poll_writable(cx)
    }
    fn poll_ended(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.poll_ended(cx)
    }
    fn mark_readable(&self) {
        self.0.mark_readable();
    }
    fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.0.receive(buffer)?;
        Ok(if [WHEN_RECEIVED, WHEN_REQUESTED].iter().any(|word| contains(&buffer[..count], word)) {
            usize::MAX / 2
        } else {
            count
        })
    }
    fn send(&self, bytes: &[u8], ends: bool) -> io::Result<usize> {
        if contains(bytes, WHEN_SENT) { Ok(usize::MAX / 2) } else { self.0.send(bytes, ends) }
    }
    fn report_when_sent(&self) {
        self.0.report_when_sent();
    }
    fn report_room(&self) {
        self.0.report_room();
    }
    fn set_ack_timeout(&self, timeout: Duration) {
        self.0.set_ack_timeout(timeout);
    }
    fn bound_receive_buffer(&self, is_bounded: bool) {
        self.0.bound_receive_buffer(is_bounded);
    }
    fn shut_down(&self) -> io::Result<()> {
        self.0.shut_down()
    }
    fn deregister(self) -> Self {
        Self(self.0.deregister())
    }
}

/// A client with nothing but a socket.
fn connect(relay: &RelayHandle, code: &str) -> TcpStream {
    let mut socket = TcpStream::connect(relay.local_addr()).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let request = format!(
        "GET /?pair={code} HTTP/1.1\r\nHost: test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    socket.write_all(request.as_bytes()).unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        socket.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    assert!(head.starts_with(b"HTTP/1.1 101 "), "a seat is free");
    socket
}

/// Sends a message with a mask of zeros.
fn send(mut socket: &TcpStream, message: &[u8]) {
    socket.write_all(&[&[0x82, 0x80 | message.len() as u8, 0, 0, 0, 0], message].concat()).unwrap();
}

fn expect(mut socket: &TcpStream, first: u8, payload: &[u8]) {
    let expected = [&[first, payload.len() as u8], payload].concat();
    let mut received = vec![0; expected.len()];
    socket.read_exact(&mut received).unwrap();
    assert!(received == expected, "another frame than expected");
}

/// The connection is closed, and nothing comes before that.
fn expect_end(mut socket: &TcpStream) {
    match socket.read(&mut [0]) {
        Ok(0) => {}
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {}
        other => panic!("{other:?}"),
    }
}

fn eventually(relay: &RelayHandle, is_so: impl Fn(&Counters) -> bool) {
    let start = Instant::now();
    while !is_so(&relay.counters()) {
        assert!(start.elapsed() < Duration::from_secs(60), "{:?}", relay.counters());
        thread::yield_now();
    }
}

fn eventually_no_code_but(relay: &RelayHandle, codes: usize) {
    eventually(relay, |counters| counters.waiting + counters.paired == codes);
}

#[test]
fn panic_ends_its_connection_and_nothing_else() {
    for workers in [1, 2] {
        let port = Port::listen("127.0.0.1", 0, Config::default().sockets()).unwrap();
        let address = port.local_addrs().unwrap()[0];
        let config = Config { workers: NonZeroUsize::new(workers), ..Config::default() };
        let relay = start(config, Liars(port), vec![address], Arc::new(SystemClock)).unwrap();
        let (a, b) = (connect(&relay, "others"), connect(&relay, "others"));
        for round in 0..10 {
            for fatal in [WHEN_RECEIVED, WHEN_SENT] {
                let (victim, peer) = (connect(&relay, CODE), connect(&relay, CODE));
                send(&victim, b"before");
                expect(&peer, 0x82, b"before");
                send(if fatal == WHEN_RECEIVED { &victim } else { &peer }, fatal);
                expect_end(&victim);
                expect(&peer, 0x88, b"\x03\xF3peer connection lost");
                drop(peer);
                eventually_no_code_but(&relay, 1);
            }
            // A panic also frees the code of a waiting client. One in the handshake has none to free.
            let alone = connect(&relay, CODE);
            send(&alone, WHEN_RECEIVED);
            expect_end(&alone);
            let mut handshake = TcpStream::connect(address).unwrap();
            handshake.write_all(WHEN_REQUESTED).unwrap();
            expect_end(&handshake);
            eventually_no_code_but(&relay, 1);

            send(&a, &[round]);
            expect(&b, 0x82, &[round]);
            send(&b, &[round; 2]);
            expect(&a, 0x82, &[round; 2]);
        }
        // In each round three connections and a handshake panic, and two peers are lost.
        eventually(&relay, |counters| {
            counters.connections == 2
                && counters.panics == 10 * 4
                && counters.closed.contains(&(Outcome::Panicked, 10 * 3))
                && counters.closed.contains(&(Outcome::PeerLost, 10 * 2))
        });
        // The stop does not wait for connections that have panicked.
        smol::block_on(futures_lite::future::zip(relay.stop(), async {
            expect(&a, 0x88, b"\x03\xE9relay stopping");
            expect(&b, 0x88, b"\x03\xE9relay stopping");
            drop((a, b));
        }));
    }
}

#[test]
fn panic_prints_nothing_that_a_client_said() {
    let test = "server::relay::tests::panic_ends_its_connection_and_nothing_else";
    let this = std::env::current_exe().unwrap();
    let output = runner::command(this).args(["--exact", test, "--nocapture"]).output().unwrap();
    let printed = [output.stdout, output.stderr].concat();
    let panics = String::from_utf8_lossy(&printed).matches("panicked at").count();
    assert!(output.status.success());
    assert!(panics >= 2 * 10 * 4, "it is printed that something panicked: {panics}");
    for secret in ["secret", "before", "others"] {
        assert!(!contains(&printed, secret.as_bytes()), "{secret} is printed: {}", String::from_utf8_lossy(&printed));
    }
}
