//! The limits of connections, waiting clients and open files; reaching one disturbs no client.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;

use crate::support::raw::{expect, expect_end, frame, open, server_close, server_frame, upgrade};
use crate::support::runner::words;
use crate::support::{Relay, eventually};

fn enter(relay: &Relay, code: &str) -> TcpStream {
    let mut socket = relay.socket();
    open(&mut socket, &format!("/?pair={code}"), b"");
    socket
}

/// Sends an upgrade request, and returns the status of the answer.
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
fn connections_over_max_connections_are_refused_with_503_until_one_ends() {
    let relay = Relay::start(&["--max-connections", "3"]);
    let (mut a, mut b) = (enter(&relay, "x"), enter(&relay, "x"));
    let alone = enter(&relay, "y");
    for code in ["y", "z"] {
        assert_full(&relay, code);
    }
    assert_eq!(status(&mut relay.socket(), "x"), "409", "a full pair is reported as such");
    assert_joined(&mut a, &mut b);
    drop(alone);
    eventually("a permit is free", || status(&mut relay.socket(), "z") == "101");
}

#[test]
fn connection_counts_until_its_closing_handshake_has_ended() {
    let relay = Relay::start(&["--max-connections", "2"]);
    let (mut a, mut b) = (enter(&relay, "x"), enter(&relay, "x"));
    a.write_all(&frame(0x88, b"")).unwrap();
    expect(&mut a, &[0x88, 0]);
    expect_end(&mut a);
    drop(a);
    expect(&mut b, &server_close(1000, "peer disconnected"));
    assert_eq!(relay.pairs(), 0);
    let mut alone = relay.socket();
    eventually("A has returned its permit", || {
        alone = relay.socket();
        status(&mut alone, "y") == "101"
    });
    assert_full(&relay, "y");
    b.write_all(&frame(0x88, b"")).unwrap();
    expect_end(&mut b);
    drop(b);
    eventually("a permit is free", || status(&mut relay.socket(), "y") == "101");
}

#[test]
fn clients_over_max_waiting_are_refused_with_503_but_their_peers_admitted() {
    let relay = Relay::start(&["--max-waiting", "2"]);
    let (mut first, _second) = (enter(&relay, "1"), enter(&relay, "2"));
    assert_full(&relay, "3");
    let mut peer = enter(&relay, "1");
    assert_joined(&mut first, &mut peer);
    let _third = enter(&relay, "3");
    assert_full(&relay, "4");
}

#[test]
fn soft_file_limit_is_raised_and_connections_are_refused_below_it() {
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -Sn 50 && ulimit -Hn 100 && exec \"$@\"", "sh"]);
    command.args(words(env!("CARGO_BIN_EXE_arc-relay")));
    command.args(["start", "--host", "127.0.0.1", "--port", "0", "--max-waiting", "1000"]);
    let relay = Relay::spawn(command);
    let mut admitted = Vec::new();
    loop {
        let mut socket = relay.socket();
        match &*status(&mut socket, &admitted.len().to_string()) {
            "101" => admitted.push(socket),
            "503" => break,
            other => panic!("{other}"),
        }
    }
    // Of 100 files, a quarter is a reserve, and a quarter of the rest is for handshakes.
    assert_eq!(admitted.len(), 75 - 75 / 4);
    assert!(relay.files() > 50, "{} files", relay.files());
}
