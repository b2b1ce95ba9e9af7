//! How long a handshake may take, and how many there may be at a time.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use async_tungstenite::tungstenite::Error;
use socket2::{Domain, Socket, Type};

use crate::support::{Client, PATIENCE, Relay, eventually, raise_file_limit, run};

const HEALTH: &str = "GET /health HTTP/1.1\r\nHost: t\r\n\r\n";

/// Sends these bytes over and over, one at a time, until the relay ends the connection. They must not extend its time.
fn drip(socket: &mut TcpStream, bytes: &[u8]) {
    socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    let start = Instant::now();
    for byte in bytes.iter().cycle() {
        let _ = socket.write_all(&[*byte]);
        match socket.read(&mut [0]) {
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Ok(0) | Err(_) => return,
            Ok(_) => panic!("there is nothing to answer"),
        }
        assert!(start.elapsed() < PATIENCE, "it goes on for ever");
    }
}

/// Reads the answer to a request for `/health`.
fn read_answer(socket: &mut TcpStream) {
    let mut answer = Vec::new();
    while !answer.ends_with(b"\"pairs\":0}") {
        let mut byte = [0];
        socket.read_exact(&mut byte).unwrap();
        answer.push(byte[0]);
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
fn bytes_that_drip_do_not_extend_the_time_for_the_head() {
    let relay = Relay::start(&["--handshake-timeout", "3s"]);
    let mut socket = relay.socket();
    socket.write_all(b"GET /?pair=x HTTP/1.1\r\nX: ").unwrap();
    drip(&mut socket, b"x");
}

#[test]
fn blank_lines_do_not_extend_the_time_for_the_head() {
    let relay = Relay::start(&["--handshake-timeout", "3s"]);
    drip(&mut relay.socket(), b"\r\n");
}

#[test]
fn a_connection_that_is_kept_has_the_same_time_for_each_head() {
    let relay = Relay::start(&["--handshake-timeout", "6s"]);
    let mut socket = relay.socket();
    // Longer in all than one request may take.
    for _ in 0..4 {
        thread::sleep(Duration::from_secs(2));
        socket.write_all(HEALTH.as_bytes()).unwrap();
        read_answer(&mut socket);
    }
    drip(&mut socket, b"GET /health HTTP/1.1\r\nHost: t\r\nX: x");
}

/// A socket that takes little before it is read from.
fn small_socket(relay: &Relay) -> TcpStream {
    let socket = Socket::new(Domain::for_address(relay.address), Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.connect(&relay.address.into()).unwrap();
    socket.into()
}

#[test]
fn who_asks_and_asks_and_takes_no_answer_is_given_up() {
    let relay = Relay::start(&["--handshake-timeout", "3s"]);
    let mut socket = small_socket(&relay);
    socket.set_nonblocking(true).unwrap();
    // It asks for as long as the relay lives with that.
    let start = Instant::now();
    loop {
        match socket.write(HEALTH.repeat(100).as_bytes()) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => thread::yield_now(),
            Err(_) => break,
        }
        assert!(start.elapsed() < PATIENCE, "it goes on for ever");
    }
}

#[test]
fn the_oldest_silent_connection_makes_room_for_the_next() {
    let relay = Relay::start(&["--max-handshakes", "3", "--handshake-timeout", "1h"]);
    let before = relay.files();
    let mut silent: Vec<_> = (0..3).map(|_| relay.socket()).collect();
    for nth in 0..3 {
        assert_eq!(relay.pairs(), 0, "an honest client is answered");
        eventually("the oldest is given up", || has_ended(&mut silent[nth]));
        assert!(silent[nth + 1..].iter_mut().all(|socket| !has_ended(socket)), "and only the oldest");
        eventually("the honest one has left its place", || relay.files() <= before + 2);
        silent.push(relay.socket());
    }
}

#[test]
fn who_has_become_a_websocket_makes_room_for_nobody() {
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

/// Joins and talks while this many silent connections come, and then among them all. None of them goes by itself.
fn join_in_a_flood(relay: &Relay, many: usize) -> Vec<TcpStream> {
    thread::scope(|scope| {
        let flood = scope.spawn(|| (0..many).map(|_| relay.socket()).collect());
        while !flood.is_finished() {
            join_and_talk(relay);
        }
        join_and_talk(relay);
        flood.join().unwrap()
    })
}

fn join_and_talk(relay: &Relay) {
    run(async {
        let (mut a, mut b) = (join(relay).await, join(relay).await);
        a.send("through the flood").await;
        assert_eq!(b.receive().await, b"through the flood");
        a.close(1000, "").await;
        assert_eq!(b.closed().await.0, 1000);
    });
}

/// Joins, and comes again if it is given up: on a busy machine hundreds may come before it has said what it wants.
async fn join(relay: &Relay) -> Client {
    loop {
        match relay.try_connect("/?pair=x").await {
            Ok(client) => return client,
            Err(Error::Http(response)) => panic!("refused: {}", response.status()),
            Err(_) => {}
        }
    }
}

#[test]
fn thousands_of_silent_connections_keep_no_honest_client_out() {
    assert!(raise_file_limit() > 4500, "there have to be file descriptors for this test");
    let relay = Relay::start(&["--handshake-timeout", "1h", "--max-handshakes", "500"]);
    let before = relay.files();
    let silent = join_in_a_flood(&relay, 4000);
    eventually("no more sockets are held than there is room for", || relay.files() <= before + 500);
    drop(silent);
}

#[test]
fn silent_connections_that_take_all_files_keep_no_honest_client_out() {
    raise_file_limit();
    let relay = env!("CARGO_BIN_EXE_arc-relay");
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -n 200; exec \"$0\" start --host 127.0.0.1 --port 0 --handshake-timeout 1h", relay]);
    let relay = Relay::spawn(command);
    let silent = join_in_a_flood(&relay, 1000);
    drop(silent);
}
