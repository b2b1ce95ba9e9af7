//! `arc-relay secret`, and `arc-relay pipe --secret-file`: what is sent is encrypted.

use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::thread;

use arc_relay::client::Secret;
use arc_relay::client::meeting::{Meeting, SUBPROTOCOL, Step};
use async_tungstenite::client_async;
use async_tungstenite::tungstenite::Message;
use async_tungstenite::tungstenite::client::IntoClientRequest;
use async_tungstenite::tungstenite::http::HeaderValue;
use smol::Async;

use crate::process::{Ended, arc_relay, ended};
use crate::support::{Client, NO_PINGS, Relay, pattern, run, scratch};

/// A file with this secret.
fn file(name: &str, secret: &Secret) -> PathBuf {
    let path = scratch(name);
    fs::write(&path, secret.link("https://app.example/pair")).unwrap();
    path
}

fn pipe(relay: &Relay, file: &Path, flags: &[&str]) -> Child {
    let url = relay.url("/");
    let mut command = arc_relay(&[&["pipe", &url, "--secret-file", file.to_str().unwrap()], flags].concat());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn finish(mut child: Child, input: Vec<u8>) -> (Option<i32>, Vec<u8>, String) {
    let mut stdin = child.stdin.take().unwrap();
    let writer = thread::spawn(move || drop(stdin.write_all(&input)));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    (output.status.code(), output.stdout, String::from_utf8(output.stderr).unwrap())
}

/// The other side of a pipe: what a program with a client of its own does.
struct Peer {
    client: Client,
    meeting: Meeting,
    /// All binary messages that came, as the relay saw them.
    seen: Vec<u8>,
}

impl Peer {
    async fn connect(relay: &Relay, secret: &Secret) -> Self {
        let mut request = relay.url(&format!("/?pair={}", secret.code())).into_client_request().unwrap();
        request.headers_mut().insert("Sec-WebSocket-Protocol", HeaderValue::from_static(SUBPROTOCOL));
        let socket = Async::<std::net::TcpStream>::connect(relay.address).await.unwrap();
        let (socket, _) = client_async(request, socket).await.unwrap();
        Self { client: Client { socket }, meeting: Meeting::new(Some(secret.clone()), 1 << 20), seen: Vec::new() }
    }

    /// The next step that means something to a program.
    async fn step(&mut self) -> Step {
        loop {
            let (step, answer) = match self.client.next().await {
                Message::Text(text) => self.meeting.take_text(&text),
                Message::Binary(message) => {
                    self.seen.extend_from_slice(&message);
                    self.meeting.take_binary(message.into()).unwrap()
                }
                Message::Close(frame) => panic!("closed with {frame:?}"),
                _ => continue,
            };
            if let Some(answer) = answer {
                self.client.send(answer).await;
            }
            if !matches!(step, Step::Nothing | Step::Waiting) {
                return step;
            }
        }
    }

    async fn send(&mut self, message: &[u8]) {
        let record = self.meeting.session().seal(message, true);
        self.client.send(record).await;
    }
}

#[test]
fn encrypted_streams_arrive_whole_and_then_both_sides_end() {
    let relay = Relay::start(NO_PINGS);
    let secret = file("secret-both", &Secret::random());
    for flags in
        [[&[][..], &[]], [&["--send-only"], &["--recv-only"]], [&["--send-only"], &[]], [&[], &["--recv-only"]]]
    {
        let [a, b] = [1, 2].map(|seed| pattern(3_000_000 + seed as usize, seed));
        let b = if flags.concat().is_empty() { b } else { Vec::new() };
        let [one, other] = flags.map(|flags| pipe(&relay, &secret, flags));
        let sent = a.clone();
        let one = thread::spawn(move || finish(one, sent));
        let (code, received, error) = finish(other, b.clone());
        assert_eq!((code, &*error), (Some(0), ""), "{flags:?}");
        assert!(received == a, "{flags:?}: not what was sent");
        let (code, received, error) = one.join().unwrap();
        assert_eq!((code, &*error), (Some(0), ""), "{flags:?}");
        assert!(received == b, "{flags:?}: not what was sent");
    }
}

#[test]
fn relay_sees_nothing_of_the_text_and_the_peer_all_of_it() {
    let relay = Relay::start(NO_PINGS);
    let secret = Secret::random();
    let file = file("secret-peer", &secret);
    for comes_first in [true, false] {
        let (child, mut peer) = run(async {
            if comes_first {
                let child = pipe(&relay, &file, &[]);
                while relay.pairs() == 0 {}
                (child, Peer::connect(&relay, &secret).await)
            } else {
                let mut peer = Peer::connect(&relay, &secret).await;
                let waiting = peer.client.next().await;
                assert_eq!(peer.meeting.take_text(waiting.to_text().unwrap()), (Step::Waiting, None));
                (pipe(&relay, &file, &[]), peer)
            }
        });
        let child = thread::spawn(move || finish(child, b"a letter to the peer".to_vec()));
        run(async {
            assert_eq!(peer.step().await, Step::Paired);
            assert_eq!(peer.step().await, Step::Message(b"a letter to the peer".to_vec()));
            assert_eq!(peer.step().await, Step::Farewell { is_orderly: true });
            assert!(!peer.seen.windows(6).any(|window| window == b"letter"), "the relay saw it");
            // An empty message is a message as any other one.
            peer.send(b"").await;
            peer.send(b"an answer").await;
            let farewell = peer.meeting.session().farewell().unwrap();
            peer.client.send(farewell).await;
            assert_eq!(peer.client.closed().await.0, 1000);
        });
        assert_eq!(child.join().unwrap(), (Some(0), b"an answer".to_vec(), String::new()));
    }
}

/// The relay, or anything on the way, can close a connection as if the peer had left.
///
/// It cannot take leave for the peer.
#[test]
fn end_without_a_farewell_and_forged_messages_are_errors() {
    let relay = Relay::start(NO_PINGS);
    let secret = Secret::random();
    let file = file("secret-forged", &secret);
    for (forged, expected) in [
        (None, "the peer left without a farewell, so something may be missing"),
        (Some(&[7; 40][..]), "a message is not of the peer, or the peer has another secret"),
        (Some(&[]), "a message is not of the peer, or the peer has another secret"),
    ] {
        let child = run(async {
            let child = pipe(&relay, &file, &[]);
            let mut peer = Peer::connect(&relay, &secret).await;
            assert_eq!(peer.step().await, Step::Paired);
            peer.send(b"so far").await;
            if let Some(forged) = forged {
                peer.client.send(forged).await;
                peer.client.closed().await;
            } else {
                peer.client.close(1000, "").await;
            }
            child
        });
        let (code, output, error) = finish(child, Vec::new());
        assert_eq!((code, output, error), (Some(1), b"so far".to_vec(), format!("arc-relay: {expected}\n")));
    }
}

#[test]
fn refusals_and_other_relays_are_one_line() {
    let relay = Relay::start(NO_PINGS);
    let secret = file("secret-refused", &Secret::random());
    let [one, other] = [(); 2].map(|()| pipe(&relay, &secret, &[]));
    while relay.pairs() == 0 {}
    let (mut one, mut other) = (one, other);
    one.stdin.as_mut().unwrap().write_all(b"x").unwrap();
    other.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
    let (code, _, error) = finish(pipe(&relay, &secret, &[]), Vec::new());
    assert_eq!((code, &*error), (Some(1), "arc-relay: refused with 409 pair is full\n"));
    drop(other.stdin.take());
    assert_eq!(finish(one, Vec::new()).0, Some(0));
    assert_eq!(other.wait().unwrap().code(), Some(0));

    let missing = ended(&mut arc_relay(&["pipe", "ws://127.0.0.1:1", "--secret-file", "/nowhere"])).failed(1);
    assert!(missing.starts_with("cannot read the secret from \"/nowhere\": No such file"), "{missing}");
    let other = scratch("secret-other");
    fs::write(&other, "# none\nAAAA\n").unwrap();
    let other = other.to_str().unwrap();
    let none = ended(&mut arc_relay(&["pipe", "ws://127.0.0.1:1", "--secret-file", other])).failed(1);
    let expected = "a secret is 43 characters of base64url, alone or behind the # of a link";
    assert_eq!(none, format!("cannot read the secret from {other:?}: {expected}"));
    assert_eq!(secret_command(&["--from", other]).failed(1), none);
}

fn secret_command(arguments: &[&str]) -> Ended {
    ended(&mut arc_relay(&[&["secret"], arguments].concat()))
}

#[test]
fn secrets_are_printed_as_text_as_link_and_as_code() {
    let printed = |arguments: &[&str]| secret_command(arguments).succeeded().trim_end_matches('\n').to_owned();
    let [one, other] = [(); 2].map(|()| printed(&[]).parse::<Secret>().unwrap());
    assert_ne!(one.as_bytes(), other.as_bytes());

    let path = file("secret-print", &one);
    let from = ["--from", path.to_str().unwrap()];
    let with = |more: &[&str]| printed(&[&from[..], more].concat());
    assert_eq!(with(&[]), one.to_text());
    assert_eq!(with(&["--code"]), one.code());
    assert_eq!(with(&["--link", "https://app.example/#old"]), one.link("https://app.example/"));
    assert_eq!(with(&["--device", "phone"]), one.device("phone").to_text());
    assert_eq!(with(&["--device", "phone", "--code"]), one.device("phone").code());

    let text = with(&["--link", "https://app.example/", "--qr"]);
    let mut lines = text.lines();
    assert_eq!(lines.next().unwrap(), one.link("https://app.example/"));
    // A square of 33 to 41 modules and a margin of 4 on each side, two rows a line.
    let modules = |line: &str| line.chars().filter(|c| " \u{2580}\u{2584}\u{2588}".contains(*c)).count();
    let width = modules(lines.clone().next().unwrap());
    assert!((41..=49).contains(&width), "{text}");
    assert!(lines.clone().all(|line| modules(line) == width), "{text}");
    assert_eq!(lines.count(), width.div_ceil(2));
}

#[test]
fn wrong_arguments_are_one_line() {
    for (arguments, expected) in [
        (&["--code"][..], "--code: a secret is needed: add --from"),
        (&["--device", "phone"], "--device: a secret is needed: add --from"),
        (&["--from", "x", "--code", "--link", "a:b"], "--code and --link exclude each other"),
        (
            &["--link", "app example"],
            "--link: invalid value \"app example\": a URL is needed, such as https://app.example.org/pair",
        ),
        (&["--from", "x", "--device", ""], "--device: invalid value \"\": a name is needed"),
    ] {
        let error = secret_command(arguments).failed(2);
        assert!(error.starts_with(expected), "{error}");
    }
    let url = "ws://localhost";
    for (arguments, expected) in [
        (&[url, "--pair-file", "x", "--secret-file", "y"][..], "--pair-file and --secret-file exclude each other"),
        (&["ws://localhost?pair=x", "--secret-file", "y"], "--secret-file: the URL has a pair code already"),
    ] {
        let error = ended(&mut arc_relay(&[&["pipe"], arguments].concat())).failed(2);
        assert!(error.starts_with(expected), "{error}");
    }
}
