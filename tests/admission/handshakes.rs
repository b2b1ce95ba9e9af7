//! The handshake timeout, and the limit of concurrent handshakes.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use async_tungstenite::tungstenite::Error;
use socket2::{Domain, Socket, Type};

use crate::support::runner::words;
use crate::support::{Client, PATIENCE, Relay, eventually, raise_file_limit, run};

const HEALTH: &str = "GET /health HTTP/1.1\r\nHost: t\r\n\r\n";

/// Sends these bytes repeatedly, one at a time, until the relay ends the connection.
///
/// Panics if the relay answers, or if the bytes extend the handshake timeout.
fn drip(socket: &mut TcpStream, bytes: &[u8]) {
    socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    let start = Instant::now();
    for byte in bytes.iter().cycle() {
        let _ = socket.write_all(&[*byte]);
        match socket.read(&mut [0]) {
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Ok(0) | Err(_) => return,
            Ok(_) => panic!("the relay answers an incomplete request"),
        }
        assert!(start.elapsed() < PATIENCE, "the relay never ends the connection");
    }
}

/// Whether the relay has ended this connection, on which nothing was said.
fn has_ended(socket: &mut TcpStream) -> bool {
    socket.set_nonblocking(true).unwrap();
    match socket.read(&mut [0]) {
        Err(error) => error.kind() != ErrorKind::WouldBlock,
        Ok(count) => count == 0,
    }
}

#[test]
fn dripping_bytes_do_not_extend_the_handshake_timeout() {
    let relay = Relay::start(&["--handshake-timeout", "3s"]);
    let mut socket = relay.socket();
    socket.write_all(b"GET /?pair=x HTTP/1.1\r\nX: ").unwrap();
    drip(&mut socket, b"x");
}

#[test]
fn blank_lines_do_not_extend_the_handshake_timeout() {
    let relay = Relay::start(&["--handshake-timeout", "3s"]);
    drip(&mut relay.socket(), b"\r\n");
}

/// A socket that takes little before it is read from.
fn small_socket(relay: &Relay) -> TcpStream {
    let socket = Socket::new(Domain::for_address(relay.address), Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.connect(&relay.address.into()).unwrap();
    socket.into()
}

#[test]
fn client_that_reads_no_answer_is_closed_after_the_handshake_timeout() {
    let relay = Relay::start(&["--handshake-timeout", "3s"]);
    let mut socket = small_socket(&relay);
    socket.set_nonblocking(true).unwrap();
    // Send requests until the relay ends the connection.
    let start = Instant::now();
    loop {
        match socket.write(HEALTH.repeat(100).as_bytes()) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => thread::yield_now(),
            Err(_) => break,
        }
        assert!(start.elapsed() < PATIENCE, "the relay never ends the connection");
    }
}

#[test]
fn oldest_silent_connection_is_closed_to_admit_a_new_one() {
    let relay = Relay::start(&["--max-handshakes", "3", "--handshake-timeout", "1h"]);
    let before = relay.files();
    let mut silent = Vec::new();
    for nth in 1..=3 {
        silent.push(relay.socket());
        // Another worker may accept the next one, and must not be the first to do so.
        eventually("the connection is accepted", || relay.files() >= before + nth);
    }
    for nth in 0..3 {
        assert_eq!(relay.pairs(), 0, "a health request is answered");
        eventually("the oldest connection is closed", || has_ended(&mut silent[nth]));
        assert!(silent[nth + 1..].iter_mut().all(|socket| !has_ended(socket)), "only the oldest is closed");
        eventually("the health request's connection is closed", || relay.files() <= before + 2);
        silent.push(relay.socket());
        eventually("the connection is accepted", || relay.files() >= before + 3);
    }
}

#[test]
fn paired_clients_hold_no_handshake_slot() {
    let relay = Relay::start(&["--max-handshakes", "1"]);
    run(async {
        let mut pairs = Vec::new();
        for code in 0..10 {
            pairs.push(relay.pair(&code.to_string()).await);
        }
        for (a, b) in &mut pairs {
            a.send("still there").await;
            assert_eq!(b.receive().await, b"still there");
        }
    });
}

/// Connects pairs while this many silent connections arrive, and one pair after that.
///
/// Returns the silent connections, none of which ends by itself.
fn connect_pairs_in_a_flood(relay: &Relay, many: usize) -> Vec<TcpStream> {
    thread::scope(|scope| {
        let flood = scope.spawn(|| (0..many).map(|_| relay.socket()).collect());
        while !flood.is_finished() {
            connect_a_pair(relay);
        }
        connect_a_pair(relay);
        flood.join().unwrap()
    })
}

/// Connects a pair, exchanges a message, and closes.
fn connect_a_pair(relay: &Relay) {
    run(async {
        let (mut a, mut b) = (connect(relay).await, connect(relay).await);
        a.send("through the flood").await;
        assert_eq!(b.receive().await, b"through the flood");
        a.close(1000, "").await;
        assert_eq!(b.closed().await.0, 1000);
    });
}

/// Connects, and tries again if the relay closes the connection for newer ones.
///
/// On a busy machine, hundreds of connections may arrive before this one has sent its request.
async fn connect(relay: &Relay) -> Client {
    loop {
        match relay.try_connect("/?pair=x").await {
            Ok(client) => return client,
            Err(Error::Http(response)) => panic!("refused: {}", response.status()),
            Err(_) => {}
        }
    }
}

#[test]
fn clients_are_admitted_among_thousands_of_silent_connections() {
    assert!(raise_file_limit() > 4500, "this test needs more open files");
    let relay = Relay::start(&["--handshake-timeout", "1h", "--max-handshakes", "500"]);
    let before = relay.files();
    let silent = connect_pairs_in_a_flood(&relay, 4000);
    eventually("the relay holds no more connections than it has handshake slots", || relay.files() <= before + 500);
    drop(silent);
}

#[test]
fn clients_are_admitted_while_silent_connections_use_up_all_files() {
    raise_file_limit();
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -n 200; exec \"$@\"", "sh"]).args(words(env!("CARGO_BIN_EXE_arc-relay")));
    command.args(["start", "--host", "127.0.0.1", "--port", "0", "--handshake-timeout", "1h"]);
    let relay = Relay::spawn(command);
    let silent = connect_pairs_in_a_flood(&relay, 1000);
    drop(silent);
}
