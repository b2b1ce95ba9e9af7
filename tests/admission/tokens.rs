//! Access tokens, and reloading their file.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::Signal;

use crate::policy::{ADMITTED, join, refused};
use crate::support::raw::upgrade;
use crate::support::{Relay, arc_relay, eventually, run, scratch};

const TOKEN: &str = "access token required\n";

/// Creates a file with this text.
fn file(name: &str, text: &str) -> PathBuf {
    let path = scratch(name);
    fs::write(&path, text).unwrap();
    path
}

fn start(tokens: &Path) -> Relay {
    Relay::start(&["--access-token-file", tokens.to_str().unwrap()])
}

/// Starts a relay that logs its errors to a file.
fn start_logging(tokens: &Path, errors: &Path) -> Relay {
    let mut command = arc_relay();
    command.args(["start", "--host", "127.0.0.1", "--port", "0", "--access-token-file", tokens.to_str().unwrap()]);
    command.stderr(File::create(errors).unwrap());
    Relay::spawn(command)
}

#[test]
fn valid_token_in_the_header_a_subprotocol_or_the_query_is_admitted() {
    let relay = start(&file("lets-in", "# the phones\nred+green fish\n\n  blue  \ncaf\u{E9}\n"));
    let header = |value: &str| format!("Authorization: {value}\r\n");
    let offer = |names: &str| format!("Sec-WebSocket-Protocol: {names}\r\n");
    let none = || refused(401, TOKEN);
    for (code, (target, extra, answer)) in [
        ("&token=blue", String::new(), ADMITTED),
        ("&token=red%2Bgreen+fish", String::new(), ADMITTED),
        ("&t%6Fken=bl%75e&token=wrong", String::new(), ADMITTED),
        ("", header("Bearer blue"), ADMITTED),
        ("", header("bearer  blue"), ADMITTED),
        ("&token=wrong", header("Bearer blue"), ADMITTED),
        ("&token=blue", header("Basic eDp5"), ADMITTED),
        ("", offer("arc-relay.token.Ymx1ZQ"), ADMITTED),
        ("", offer("chat, arc-relay.token.Ymx1ZQ"), ADMITTED),
        ("", offer("chat") + &offer("arc-relay.token.Ymx1ZQ"), ADMITTED),
        ("", offer("arc-relay.token.Y2Fmw6k, chat"), ADMITTED),
        ("&token=wrong", header("Bearer wrong") + &offer("arc-relay.token.Ymx1ZQ"), ADMITTED),
        ("&token=blue", offer("arc-relay.token.d3Jvbmc"), ADMITTED),
        ("", offer("arc-relay.token.blue"), none()),
        ("", offer("arc-relay.token."), none()),
        ("", offer("arc-relay.token.d3Jvbmc, arc-relay.token.Ymx1ZQ"), none()), // the first one counts
        ("", offer("arc-relay.token.Ymx1ZR"), none()),                          // not what an encoder makes
        ("", offer("Arc-Relay.Token.Ymx1ZQ"), none()),
        ("", offer("Ymx1ZQ"), none()),
        ("", String::new(), none()),
        ("&token", String::new(), none()),
        ("&token=", String::new(), none()),
        ("&token=Blue", String::new(), none()),
        ("&token=blue%00", String::new(), none()),
        ("&token=blu", String::new(), none()),
        ("&token=bluer", String::new(), none()),
        ("&token=%23+the+phones", String::new(), none()),
        ("&token=wrong&token=blue", String::new(), none()),
        ("", header("Bearer"), none()),
        ("", header("Bearer blue").repeat(2), none()),
        ("", header("Bearer wrong"), none()),
        ("", header("Bearerblue"), none()),
        ("", header("Basic blue"), none()),
        ("", header("blue"), none()),
    ]
    .into_iter()
    .enumerate()
    {
        assert_eq!(join(&relay, &format!("/?pair={code}{target}"), &extra), answer, "{target} {extra}");
    }
}

#[test]
fn rejection_without_a_token_has_www_authenticate() {
    let relay = start(&file("how", "blue"));
    let response = relay.http(&upgrade("/?pair=x", "")).to_lowercase();
    assert!(response.contains("\r\nwww-authenticate: bearer\r\n"), "{response}");
}

#[test]
fn health_requests_need_no_token() {
    let relay = start(&file("health", "blue"));
    assert_eq!(relay.pairs(), 0);
}

#[test]
fn checks_are_in_order_origin_token_pair_code() {
    let tokens = file("order", "blue");
    let relay = Relay::start(&["--access-token-file", tokens.to_str().unwrap(), "--allow-origin", "https://app.test"]);
    assert_eq!(join(&relay, "/", "Origin: https://evil.test\r\n").0, 403);
    assert_eq!(join(&relay, "/", ""), refused(401, TOKEN));
    assert_eq!(join(&relay, "/?token=blue", "").0, 400);
}

#[test]
fn sighup_replaces_the_tokens_and_keeps_connected_clients() {
    let tokens = file("exchange", "old");
    let relay = start(&tokens);
    run(async {
        let mut a = relay.try_connect("/?pair=x&token=old").await.unwrap();
        fs::write(&tokens, "new").unwrap();
        relay.signal(Signal::HUP);
        eventually("the new token is admitted", || join(&relay, "/?pair=y&token=new", "").0 == 101);
        assert_eq!(join(&relay, "/?pair=y&token=old", ""), refused(401, TOKEN));
        let mut b = relay.try_connect("/?pair=x&token=new").await.unwrap();
        a.send("still there").await;
        assert_eq!(b.receive().await, b"still there");
    });
}

#[test]
fn failed_reload_keeps_the_old_tokens() {
    let tokens = file("stay", "old-secret");
    let errors = file("stay-errors", "");
    let relay = start_logging(&tokens, &errors);
    let lines = || fs::read_to_string(&errors).unwrap().lines().map(str::to_owned).collect::<Vec<_>>();

    fs::write(&tokens, "# new-secret").unwrap();
    relay.signal(Signal::HUP);
    eventually("the empty list is logged as an error", || lines().len() == 1);
    fs::remove_file(&tokens).unwrap();
    relay.signal(Signal::HUP);
    eventually("the missing file is logged as an error", || lines().len() == 2);
    assert_eq!(join(&relay, "/?pair=x&token=old-secret", ""), ADMITTED);
    assert_eq!(join(&relay, "/?pair=y", ""), refused(401, TOKEN));
    for line in lines() {
        let is_error = line.contains(" error tokens_kept error=\"cannot read access tokens from ");
        assert!(is_error && !line.contains("secret"), "{line}");
    }
}

#[test]
fn reload_from_a_pipe_fails_and_blocks_no_later_reload() {
    let tokens = file("pipe", "old");
    let errors = file("pipe-errors", "");
    let mut relay = start_logging(&tokens, &errors);
    let lines = || fs::read_to_string(&errors).unwrap().lines().map(str::to_owned).collect::<Vec<_>>();
    fs::remove_file(&tokens).unwrap();
    make_pipe(&tokens);
    for nth in 1..=2 {
        relay.signal(Signal::HUP);
        eventually("the pipe is logged as an error", || lines().len() == nth);
    }
    assert_eq!(join(&relay, "/?pair=x&token=old", ""), ADMITTED);

    fs::remove_file(&tokens).unwrap();
    fs::write(&tokens, "new").unwrap();
    relay.signal(Signal::HUP);
    eventually("the new token is admitted", || join(&relay, "/?pair=y&token=new", "") == ADMITTED);
    relay.signal(Signal::TERM);
    assert_eq!(relay.wait().code(), Some(0));
    assert_eq!(lines().len(), 2);
    for line in lines() {
        assert!(line.contains(" tokens_kept ") && line.contains("not a regular file"), "{line}");
    }
}

/// A shell's process substitution is a pipe.
#[test]
fn tokens_can_be_read_from_a_pipe_at_start() {
    let tokens = scratch("pipe-at-start");
    make_pipe(&tokens);
    let writer = std::thread::spawn({
        let tokens = tokens.clone();
        move || fs::write(tokens, "# by a program\nblue\n").unwrap()
    });
    let relay = start(&tokens);
    writer.join().unwrap();
    assert_eq!(join(&relay, "/?pair=x&token=blue", ""), ADMITTED);
    assert_eq!(join(&relay, "/?pair=y", ""), refused(401, TOKEN));
    fs::remove_file(&tokens).unwrap();
}

fn make_pipe(path: &Path) {
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

#[test]
fn sighup_without_a_token_file_is_harmless() {
    let relay = Relay::start(&[]);
    relay.signal(Signal::HUP);
    run(async {
        let (mut a, mut b) = relay.pair("x").await;
        a.send("still there").await;
        assert_eq!(b.receive().await, b"still there");
    });
}

#[test]
fn sighup_does_not_cut_a_graceful_stop_short() {
    let mut relay = Relay::start(&[]);
    run(async {
        let mut client = relay.connect("x").await;
        relay.signal(Signal::TERM);
        // The relay waits for the client's close frame now.
        let close = client.next().await;
        assert!(close.is_close());
        relay.signal(Signal::HUP);
    });
    assert_eq!(relay.wait().code(), Some(0));
}
