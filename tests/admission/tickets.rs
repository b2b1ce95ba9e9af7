//! Tickets over sockets, and reloading their keys. `src/access/ticket/tests.rs` has the claims.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;

use rustix::process::Signal;

use crate::policy::{ADMITTED, join, refused};
use crate::support::tickets::{Key, encode, seconds_from_now};
use crate::support::{Relay, arc_relay, eventually, run, scratch};

const SECRET: Key = Key::Hs256(*b"a secret of thirty-two bytes ...");
const OTHER: Key = Key::Hs256(*b"another secret of 32 bytes .....");
const PRIVATE: Key = Key::Ed25519(*b"a private key of 32 bytes ......");

fn file(name: &str, text: &str) -> PathBuf {
    let path = scratch(name);
    fs::write(&path, text).unwrap();
    path
}

fn start(name: &str, keys: &[Key]) -> Relay {
    let keys: String = keys.iter().map(|key| key.line()).collect();
    Relay::start(&["--ticket-key-file", file(name, &keys).to_str().unwrap()])
}

/// A ticket of this key for a minute, with further claims.
fn ticket(key: Key, claims: &str) -> String {
    key.sign(&format!(r#"{{"exp":{}{claims}}}"#, seconds_from_now(60)))
}

/// The answer to a client that sends this ticket in the query.
fn ask(relay: &Relay, code: &str, ticket: &str) -> (u16, String) {
    join(relay, &format!("/?pair={code}&token={ticket}"), "")
}

#[test]
fn ticket_is_admitted_in_the_places_of_a_token() {
    let relay = start("tickets-places", &[SECRET, PRIVATE]);
    for key in [SECRET, PRIVATE] {
        let ticket = ticket(key, r#","pair":"x y""#);
        let target = "/?pair=x%20y";
        assert_eq!(join(&relay, &format!("{target}&token={ticket}"), ""), ADMITTED);
        assert_eq!(join(&relay, target, &format!("Authorization: Bearer {ticket}\r\n")), ADMITTED);
        let protocol = format!("Sec-WebSocket-Protocol: chat, arc-relay.token.{}\r\n", encode(ticket.as_bytes()));
        eventually("the clients before have left", || join(&relay, target, &protocol) == ADMITTED);
        eventually("the clients before have left", || relay.pairs() == 0);
    }
}

#[test]
fn fault_of_a_ticket_is_told_in_one_line() {
    let relay = start("tickets-faults", &[SECRET]);
    let good = ticket(SECRET, "");
    let of = |claims: &str| SECRET.sign(claims);
    let (past, future) = (seconds_from_now(-60), seconds_from_now(60));
    let asked = format!("{}&side=tablet", ticket(SECRET, r#","side":"phone""#));
    for (ticket, line) in [
        (String::new(), "invalid ticket\n"),
        (String::from("blue"), "invalid ticket\n"),
        (good.replace('.', "-"), "invalid ticket\n"),
        (ticket(OTHER, ""), "invalid ticket\n"),
        (ticket(PRIVATE, ""), "invalid ticket\n"),
        (of("{}"), "ticket has no exp\n"),
        (of(&format!(r#"{{"exp":{future}000}}"#)), "ticket has an exp that is not in seconds\n"),
        (of(&format!(r#"{{"exp":{past}}}"#)), "ticket expired\n"),
        (ticket(SECRET, &format!(r#","nbf":{future}"#)), "ticket not valid yet\n"),
        (ticket(SECRET, r#","aud":"https://other.test""#), "ticket is for another audience\n"),
        (ticket(SECRET, r#","pair":"y""#), "ticket is for another pair\n"),
        (asked, "ticket is for another side\n"),
    ] {
        assert_eq!(ask(&relay, "x", &ticket), refused(401, line), "{ticket}");
    }
    assert_eq!(join(&relay, "/?pair=x", ""), refused(401, "access token required\n"));
    let first = format!("Authorization: Bearer {}\r\n", ticket(OTHER, ""));
    assert_eq!(join(&relay, &format!("/?pair=x&token={good}"), &first), refused(401, "invalid ticket\n"));
    assert_eq!(join(&relay, &format!("/?token={good}"), "").0, 400, "without a pair code, the ticket is not the fault");
    assert_eq!(ask(&relay, "x", &good), ADMITTED);
}

#[test]
fn rejection_of_a_ticket_has_www_authenticate() {
    let relay = start("tickets-how", &[SECRET]);
    let response = relay.http(&crate::support::raw::upgrade("/?pair=x&token=blue", ""));
    assert!(response.to_lowercase().contains("\r\nwww-authenticate: bearer error=\"invalid_token\"\r\n"), "{response}");
}

#[test]
fn token_or_ticket_suffices_if_there_are_both() {
    let (tokens, keys) = (file("tickets-tokens", "blue\na.b.c"), file("tickets-both", &SECRET.line()));
    let files = ["--access-token-file", tokens.to_str().unwrap(), "--ticket-key-file", keys.to_str().unwrap()];
    let relay = Relay::start(&files);
    let bearer = |token: &str| format!("Authorization: Bearer {token}\r\n");
    assert_eq!(ask(&relay, "1", "blue"), ADMITTED);
    assert_eq!(ask(&relay, "2", "a.b.c"), ADMITTED, "a token that looks like a ticket");
    assert_eq!(ask(&relay, "3", &ticket(SECRET, "")), ADMITTED);
    assert_eq!(join(&relay, "/?pair=4&token=wrong", &bearer(&ticket(SECRET, ""))), ADMITTED);
    assert_eq!(join(&relay, "/?pair=5&token=blue", &bearer(&ticket(OTHER, ""))), ADMITTED);
    assert_eq!(ask(&relay, "6", "red"), refused(401, "access token required\n"));
    assert_eq!(ask(&relay, "7", &ticket(OTHER, "")), refused(401, "invalid ticket\n"));
    assert_eq!(join(&relay, "/?pair=8", ""), refused(401, "access token required\n"));
}

#[test]
fn connection_outlasts_its_ticket_and_its_key() {
    let keys = file("tickets-outlast", &SECRET.line());
    let relay = Relay::start(&["--ticket-key-file", keys.to_str().unwrap()]);
    run(async {
        // It is valid for some seconds, by the leeway.
        let short = SECRET.sign(&format!(r#"{{"exp":{}}}"#, seconds_from_now(-1)));
        let mut a = relay.try_connect(&format!("/?pair=x&token={short}")).await.unwrap();
        let mut b = relay.try_connect(&format!("/?pair=x&token={}", ticket(SECRET, ""))).await.unwrap();
        eventually("the ticket has expired", || ask(&relay, "y", &short) == refused(401, "ticket expired\n"));
        fs::write(&keys, OTHER.line()).unwrap();
        relay.signal(Signal::HUP);
        eventually("the key is gone", || ask(&relay, "y", &ticket(SECRET, "")) == refused(401, "invalid ticket\n"));
        a.send("still there").await;
        assert_eq!(b.receive().await, b"still there");
    });
}

/// Clients join all the time, while keys come and go and the file is sometimes bad.
#[test]
fn keys_are_exchanged_without_a_gap_while_clients_join() {
    /// Ends the clients, also if the test fails.
    struct EndOnDrop<'a>(&'a AtomicBool);
    impl Drop for EndOnDrop<'_> {
        fn drop(&mut self) {
            self.0.store(true, Relaxed);
        }
    }

    let (keys, errors) = (file("tickets-exchange", &SECRET.line()), file("tickets-exchange-errors", ""));
    let relay = start_logging(&keys, &errors);
    let lines = |text: &str| fs::read_to_string(&errors).unwrap().matches(text).count();
    let mut asked = 0;
    let mut knows_other = || {
        asked += 1;
        ask(&relay, &format!("other-{asked}"), &ticket(OTHER, "")) == ADMITTED
    };
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let clients = ["a", "b"].map(|code| {
            let (relay, is_over) = (&relay, &is_over);
            scope.spawn(move || {
                let mut count = 0;
                while !is_over.load(Relaxed) {
                    assert_eq!(ask(relay, &format!("{code}-{count}"), &ticket(SECRET, "")), ADMITTED);
                    count += 1;
                }
                count
            })
        });
        let end = EndOnDrop(&is_over);
        for nth in 1..=20 {
            let text = match nth % 4 {
                0 => SECRET.line() + &PRIVATE.line() + &OTHER.line()[..40],
                1 => OTHER.line() + &SECRET.line() + &PRIVATE.line(),
                2 => String::from("# nothing\n"),
                _ => SECRET.line(),
            };
            // In one step, as an editor should do it.
            let new = file("tickets-exchange-new", &text);
            fs::rename(new, &keys).unwrap();
            relay.signal(Signal::HUP);
            match nth % 4 {
                1 => eventually("the other key was added", &mut knows_other),
                3 => eventually("the other key was removed", || !knows_other()),
                _ => {
                    eventually("the bad file was read", || lines(" ticket_keys_kept ") == nth / 2);
                    assert_eq!(knows_other(), nth % 4 == 2, "the keys before stay");
                }
            }
        }
        drop(end);
        assert!(clients.map(|client| client.join().unwrap()).iter().all(|&count| count > 20));
    });
    assert_eq!(lines("ticket_keys_kept error=\"cannot read ticket keys from "), 10);
    assert_eq!(lines(": line 3: a secret of at least 32 bytes in Base64 is needed\""), 5);
    assert_eq!(lines(": there is no ticket key\""), 5);
    assert_eq!(lines(&SECRET.line()[6..20]), 0, "no key is logged");
}

/// Starts a relay that logs its errors to a file.
fn start_logging(keys: &Path, errors: &Path) -> Relay {
    let mut command = arc_relay();
    command.args(["start", "--host", "127.0.0.1", "--port", "0", "--ticket-key-file", keys.to_str().unwrap()]);
    command.args(["--log-level", "error"]).stderr(File::create(errors).unwrap());
    Relay::spawn(command)
}
