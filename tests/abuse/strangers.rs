//! A few strangers that repeat requests which the relay must refuse.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread;

use crate::aftermath::{A_PAIR, ALLOWANCE, Bounds, round_trip, unharmed};
use crate::frames::{Frames, pair, parse_close};
use crate::support::raw::{expect, frame, head, open, server_frame, upgrade};
use crate::support::{Relay, arc_relay, eventually, scratch};

/// The number of repetitions.
const TIMES: usize = 500;

/// The status of the answer to a request, or an empty text if there is none.
fn status(relay: &Relay, request: &str) -> String {
    let mut socket = relay.socket();
    let _ = socket.write_all(request.as_bytes());
    let _ = socket.shutdown(Shutdown::Write);
    let mut answer = Vec::new();
    let _ = socket.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).split(' ').nth(1).unwrap_or_default().to_owned()
}

#[test]
fn refused_requests_leave_nothing_behind() {
    let relay = Relay::start(&[]);
    let request = upgrade("/?pair=x", "");
    let with = |line: &str| upgrade("/?pair=x", line);
    let refused = [
        ("404", "GET / HTTP/1.1\r\nHost: t\r\n\r\n".to_owned()),
        ("405", "DELETE /?pair=x HTTP/1.1\r\nHost: t\r\n\r\n".to_owned()),
        ("400", upgrade("/?pair=%FF", "")),
        ("400", request.replace("Host: test\r\n", "")),
        ("400", with("Host: another\r\n")),
        ("400", request.replace("HTTP/1.1", "HTTP/1.0")),
        ("400", with("Content-Length: 5\r\n")),
        ("400", with("Transfer-Encoding: chunked\r\n")),
        ("400", with("Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n")),
        ("400", request.replace("dGhlIHNhbXBsZSBub25jZQ==", "short")),
        ("426", request.replace("Version: 13", "Version: 12")),
        ("414", upgrade(&format!("/?pair=x&{}", "y".repeat(9000)), "")),
        ("431", with(&format!("X: {}\r\n", "y".repeat(17_000)))),
        ("431", with(&"X: y\r\n".repeat(101))),
        ("400", "\u{16}\u{3}\u{1}\u{2}\0\u{1}\0\u{1}".to_owned()),
        ("400", with("a line without a colon\r\n")),
    ];
    unharmed(&relay, A_PAIR, |relay| {
        for (expected, request) in &refused {
            for _ in 0..TIMES / 10 {
                assert_eq!(status(relay, request), *expected, "{}", request.escape_debug());
            }
        }
    });
}

#[test]
fn crowd_that_answers_no_pings_loses_its_seats() {
    const CROWD: usize = 200;
    let relay = Relay::start(&["--ping-interval", "3s", "--ping-timeout", "3s"]);
    let bounds = Bounds { memory: 16 * 1024, left: ALLOWANCE + CROWD * 4, ..A_PAIR };
    unharmed(&relay, bounds, |relay| {
        let silent: Vec<_> = (0..CROWD / 2).map(|code| pair(relay, &code.to_string())).collect();
        assert_eq!(relay.pairs(), CROWD / 2);
        eventually("their codes are free, though they are still connected", || relay.pairs() == 0);
        for (a, b) in &silent {
            for side in [a, b] {
                let (first, payload) = Frames::of(side).next_but_pings();
                let (code, reason) = parse_close(&payload);
                let is_given_up = ["ping timeout", "peer connection lost"].contains(&&*reason);
                assert!(first == 0x88 && code == 1011 && is_given_up, "{code} {reason}");
            }
        }
    });
}

#[test]
fn persistent_third_clients_get_only_the_seats_of_dead_clients() {
    const PAIRS: usize = 20;
    let relay = Relay::start(&["--probe-timeout", "2s", "--ping-interval", "0"]);
    let bounds = Bounds { memory: 16 * 1024, left: 2 * ALLOWANCE, ..A_PAIR };
    unharmed(&relay, bounds, |relay| {
        let (mut a, mut b) = pair(relay, "live");
        let dead: Vec<_> = (0..PAIRS).map(|code| pair(relay, &code.to_string())).collect();
        // Both clients of the live pair answer every ping.
        let answer = |side: &TcpStream| {
            let mut side = side.try_clone().unwrap();
            move || {
                let mut frame_head = [0; 2];
                while side.read_exact(&mut frame_head).is_ok() && frame_head == [0x89, 0] {
                    side.write_all(&frame(0x8A, b"")).unwrap();
                }
            }
        };
        let answering = [thread::spawn(answer(&a)), thread::spawn(answer(&b))];
        let try_to_join = |code: &str| {
            let mut third = relay.socket();
            third.write_all(upgrade(&format!("/?pair={code}"), "").as_bytes()).unwrap();
            let is_admitted = head(&mut third).starts_with("HTTP/1.1 101 ");
            is_admitted.then_some(third)
        };
        thread::scope(|scope| {
            for code in 0..PAIRS {
                scope.spawn(move || eventually("a seat is taken over", || try_to_join(&code.to_string()).is_some()));
            }
            scope.spawn(|| (0..TIMES).for_each(|_| assert!(try_to_join("live").is_none(), "a live pair was evicted")));
        });
        // A message ends the threads that answer.
        a.write_all(&frame(0x82, b"")).unwrap();
        b.write_all(&frame(0x82, b"")).unwrap();
        answering.into_iter().for_each(|answering| answering.join().unwrap());
        round_trip(&mut a, &mut b);
        drop(dead);
    });
}

#[test]
fn forged_x_forwarded_for_does_not_evade_the_client_rate() {
    let relay = Relay::start(&["--trusted-proxies", "127.0.0.0/8", "--max-joins-per-minute", "10"]);
    unharmed(&relay, A_PAIR, |relay| {
        let mut judged = 0;
        for number in 0..TIMES {
            let forged = format!("X-Forwarded-For: 198.51.100.{}, {number}, 203.0.113.9\r\n", number % 256);
            match status(relay, &upgrade("/?pair=%FF", &forged)).as_str() {
                "400" => judged += 1,
                "429" => {}
                other => panic!("{other}"),
            }
        }
        // The token bucket holds ten, and gets one in six seconds, of which few have passed.
        assert!((10..30).contains(&judged), "{judged} of {TIMES}");
        // The relay remembers as many clients as there are requests, within bounds.
        for number in 0..TIMES * 4 {
            let other = format!("X-Forwarded-For: 10.{}.{}.1\r\n", number / 256, number % 256);
            assert_eq!(status(relay, &upgrade("/?pair=%FF", &other)), "400");
        }
    });
}

#[test]
fn wrong_tokens_and_origins_are_refused_with_401_and_403() {
    let tokens = scratch("abuse-tokens");
    std::fs::write(&tokens, "let me in").unwrap();
    let mut relay =
        Relay::start(&["--access-token-file", tokens.to_str().unwrap(), "--allow-origin", "https://app.test"]);
    relay.query = "&token=let+me+in";
    unharmed(&relay, A_PAIR, |relay| {
        for number in 0..TIMES {
            let target = format!("/?pair=x&token={number}");
            assert_eq!(status(relay, &upgrade(&target, "")), "401");
            assert_eq!(status(relay, &upgrade("/?pair=x&token=let+me+in", "Origin: https://evil.test\r\n")), "403");
        }
    });
}

#[test]
fn invalid_proxy_protocol_header_is_closed_at_once() {
    let mut command = arc_relay();
    command.args(["start", "--host", "127.0.0.1", "--port", "0", "--proxy-protocol", "--handshake-timeout", "1h"]);
    let relay = Relay::spawn_behind(command, "PROXY UNKNOWN\r\n");
    let header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11";
    unharmed(&relay, A_PAIR, |relay| {
        for number in 0..TIMES {
            for bytes in [
                &b"GET / HTTP/1.1\r\n"[..],
                b"PROXY TCP4 1.1.1 127.0.0.1 80 80\r\n",
                &[header, &[0xFF; 20][..]].concat(),
            ] {
                let mut socket = TcpStream::connect(relay.address).unwrap();
                socket.set_read_timeout(Some(crate::support::PATIENCE)).unwrap();
                let _ = socket.write_all(bytes);
                assert_eq!(socket.read(&mut [0]).unwrap_or(0), 0, "{number}: the relay answers");
            }
        }
    });
}

#[test]
fn client_input_does_not_reach_the_log() {
    let log = scratch("abuse-log");
    let mut command = arc_relay();
    command.args(["start", "--host", "127.0.0.1", "--port", "0", "--log-addresses", "--trusted-proxies", "127.0.0.1"]);
    command.env("ARC_RELAY_LOG_LEVEL", "debug").stderr(std::fs::File::create(&log).unwrap());
    let relay = Relay::spawn(command);
    unharmed(&relay, A_PAIR, |relay| {
        for _ in 0..TIMES {
            let strange = "s3cr3t\u{1b}[2Jx\u{8}\u{7f}";
            let _ = status(relay, &upgrade(&format!("/?pair={strange}"), ""));
            let _ = status(relay, &upgrade("/?pair=%0As3cr3t%1B", &format!("X-Forwarded-For: {strange}\r\n")));
            let _ = status(relay, &upgrade("/?pair=", &format!("Origin: {strange}\r\nUser-Agent: {strange}\r\n")));
            let mut socket = relay.socket();
            open(&mut socket, "/?pair=s3cr3t%0A%1B", b"");
            let reason = [&1000_u16.to_be_bytes()[..], b"s3cr3t\n\x1b"].concat();
            socket.write_all(&frame(0x88, &reason)).unwrap();
            expect(&mut socket, &server_frame(0x88, &1000_u16.to_be_bytes()));
        }
    });
    drop(relay);
    let log = std::fs::read_to_string(&log).unwrap();
    assert!(!log.contains("s3cr3t"), "a client's input is in the log");
    assert!(log.chars().all(|char| char == '\n' || !char.is_control()));
    let is_an_event = |line: &str| line.contains(" debug ") || line.contains(" info ");
    assert!(log.lines().count() > 100 && log.lines().all(is_an_event), "{log}");
}
