//! How many may be there at a time, and that nobody who is there is touched for those who come.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;

use crate::support::raw::{expect, expect_end, frame, open, server_close, server_frame, upgrade};
use crate::support::{Relay, eventually};

fn enter(relay: &Relay, code: &str) -> TcpStream {
    let mut socket = relay.socket();
    open(&mut socket, &format!("/?pair={code}"), b"");
    socket
}

/// Asks to join, and returns the status.
fn status(socket: &mut TcpStream, code: &str) -> String {
    socket.write_all(upgrade(&format!("/?pair={code}"), "").as_bytes()).unwrap();
    let mut line = [0; 12];
    socket.read_exact(&mut line).unwrap();
    String::from_utf8(line[9..].to_vec()).unwrap()
}

fn assert_full(relay: &Relay, code: &str) {
    let response = relay.http(&upgrade(&format!("/?pair={code}"), ""));
    assert!(response.starts_with("HTTP/1.1 503 ") && response.ends_with("\r\n\r\nrelay is full\n"), "{response}");
    assert!(response.contains("retry-after: 5\r\n"), "{response}");
}

fn assert_joined(a: &mut TcpStream, b: &mut TcpStream) {
    a.write_all(&frame(0x82, b"there")).unwrap();
    expect(b, &server_frame(0x82, b"there"));
}

#[test]
fn more_connections_than_there_may_be_are_refused_until_one_ends() {
    let relay = Relay::start(&["--max-connections", "3"]);
    let (mut a, mut b) = (enter(&relay, "x"), enter(&relay, "x"));
    let alone = enter(&relay, "y");
    for code in ["y", "z"] {
        assert_full(&relay, code);
    }
    assert_eq!(status(&mut relay.socket(), "x"), "409", "that pair is full anyway");
    assert_joined(&mut a, &mut b);
    drop(alone);
    eventually("there is room", || status(&mut relay.socket(), "z") == "101");
}

#[test]
fn a_connection_counts_until_it_has_ended() {
    let relay = Relay::start(&["--max-connections", "2"]);
    let (mut a, mut b) = (enter(&relay, "x"), enter(&relay, "x"));
    a.write_all(&frame(0x88, b"")).unwrap();
    expect(&mut a, &[0x88, 0]);
    expect_end(&mut a);
    drop(a);
    expect(&mut b, &server_close(1000, "peer disconnected"));
    assert_eq!(relay.pairs(), 0);
    let _alone = enter(&relay, "y"); // in the place of the one that has gone
    assert_full(&relay, "y");
    b.write_all(&frame(0x88, b"")).unwrap();
    expect_end(&mut b);
    drop(b);
    eventually("there is room", || status(&mut relay.socket(), "y") == "101");
}

#[test]
fn more_than_may_wait_are_refused_but_not_whom_somebody_waits_for() {
    let relay = Relay::start(&["--max-waiting", "2"]);
    let (mut first, _second) = (enter(&relay, "1"), enter(&relay, "2"));
    assert_full(&relay, "3");
    let mut peer = enter(&relay, "1");
    assert_joined(&mut first, &mut peer);
    let _third = enter(&relay, "3");
    assert_full(&relay, "4");
}

#[test]
fn the_limit_of_open_files_is_raised_and_connections_are_refused_before_it_is_reached() {
    let mut command = Command::new("sh");
    command.args([
        "-c",
        "ulimit -Sn 50 && ulimit -Hn 100 && exec \"$0\" start --host 127.0.0.1 --port 0 --max-waiting 1000",
        env!("CARGO_BIN_EXE_arc-relay"),
    ]);
    let relay = Relay::spawn(command);
    let mut inside = Vec::new();
    loop {
        let mut socket = relay.socket();
        match &*status(&mut socket, &inside.len().to_string()) {
            "101" => inside.push(socket),
            "503" => break,
            other => panic!("{other}"),
        }
    }
    // 100 files, without a quarter in reserve, and a quarter of the rest for handshakes.
    assert_eq!(inside.len(), 75 - 75 / 4);
    assert!(relay.files() > 50, "{} files", relay.files());
}
