//! The opening handshake, the rejections, and the health endpoint, over real sockets.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod support;

use std::io::{Read, Write};
use std::net::Shutdown;

use data_encoding::BASE64;
use sha2::{Digest, Sha256};
use support::raw::{expect, frame, open, server_frame, upgrade};
use support::{Relay, run};

/// The status line, the headers in lower case, and the body.
fn split(response: &str) -> (&str, String, &str) {
    let (head, body) = response.split_once("\r\n\r\n").expect("a head and a body");
    let (status, headers) = head.split_once("\r\n").expect("a status line and headers");
    (status, format!("{}\r\n", headers.to_lowercase()), body)
}

#[test]
fn health_reports_the_number_of_codes_in_use() {
    let relay = Relay::start(&[]);
    run(async {
        let _alone = relay.connect("alone").await;
        let (_a, _b) = relay.pair("pair").await;
        for target in ["/health", "/health/", "/health?x=y"] {
            let response = relay.http(&format!("GET {target} HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n"));
            let (status, headers, body) = split(&response);
            assert_eq!((status, body), ("HTTP/1.1 200 OK", "{\"ok\":true,\"pairs\":2}"));
            assert!(headers.contains("content-type: application/json\r\n"), "{headers}");
        }
        let response = relay.http("HEAD /health HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n");
        let (status, headers, body) = split(&response);
        assert_eq!((status, body), ("HTTP/1.1 200 OK", ""));
        assert!(headers.contains("content-length: 21\r\n"), "{headers}");
    });
}

/// Neither probe is like another path, and a WebSocket may have any path.
#[test]
fn probes_of_load_balancers_are_answered() {
    let relay = Relay::start(&[]);
    for (target, expected) in [("/livez", "alive\n"), ("/readyz", "ready\n"), ("/readyz?verbose", "ready\n")] {
        let response = relay.http(&format!("GET {target} HTTP/1.1\r\nHost: t\r\n\r\n"));
        let (status, headers, body) = split(&response);
        assert_eq!((status, body), ("HTTP/1.1 200 OK", expected));
        assert!(headers.contains("content-type: text/plain; charset=utf-8\r\n"), "{headers}");
        assert!(headers.contains("cache-control: no-store\r\n"), "{headers}");
        let head = relay.http(&format!("HEAD {target} HTTP/1.0\r\n\r\n"));
        assert_eq!((split(&head).0, split(&head).2), ("HTTP/1.0 200 OK", ""));
    }
    run(async {
        let mut first = relay.try_connect("/livez?pair=x").await.unwrap();
        let mut second = relay.try_connect("/readyz?pair=x").await.unwrap();
        first.send("joined").await;
        assert_eq!(second.receive().await, b"joined");
    });
}

#[test]
fn demo_is_a_page_at_the_root_that_its_policy_allows() {
    let page = include_str!("../src/http/demo.html");
    let relay = Relay::start(&["--demo"]);
    for target in ["/", "/?from=a-link", "http://relay.test/"] {
        let response = relay.http(&format!("GET {target} HTTP/1.1\r\nHost: t\r\n\r\n"));
        let (status, headers, body) = split(&response);
        assert_eq!(status, "HTTP/1.1 200 OK", "{target}");
        assert!(body == page, "{target}: the body is not the page");
        for field in [
            "content-type: text/html; charset=utf-8\r\n",
            &format!("content-length: {}\r\n", page.len()),
            "cache-control: no-store\r\n",
            "referrer-policy: no-referrer\r\n",
            "x-content-type-options: nosniff\r\n",
            "cross-origin-opener-policy: same-origin\r\n",
            "cross-origin-resource-policy: same-origin\r\n",
            "connection: close\r\n",
        ] {
            assert!(headers.contains(field), "{field}: {headers}");
        }
        let (_, policy) = response.split_once("content-security-policy: ").expect("a policy");
        let policy: Vec<_> = policy.split("\r\n").next().unwrap().split("; ").collect();
        let hash = |element: &str| {
            let (_, rest) = page.split_once(&format!("<{element}>")).unwrap();
            BASE64.encode(&Sha256::digest(rest.split_once(&format!("</{element}>")).unwrap().0))
        };
        for directive in [
            "default-src 'none'",
            "connect-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
            &format!("style-src 'sha256-{}'", hash("style")),
            &format!("script-src 'sha256-{}'", hash("script")),
        ] {
            assert!(policy.contains(&directive), "{directive}: {policy:?}");
        }
    }
    let response = relay.http("HEAD / HTTP/1.1\r\nHost: t\r\n\r\n");
    let (status, headers, body) = split(&response);
    assert_eq!((status, body), ("HTTP/1.1 200 OK", ""));
    assert!(headers.contains(&format!("content-length: {}\r\n", page.len())), "{headers}");
}

/// A request for a seat that lost its `Upgrade` on the way is told so, with the demo as without it.
#[test]
fn demo_changes_no_other_request() {
    let relay = Relay::start(&["--demo"]);
    for target in ["/?pair=x", "/?a=b&p%61ir=x", "/index.html", "//", "/relay/"] {
        let response = relay.http(&format!("GET {target} HTTP/1.1\r\nHost: t\r\n\r\n"));
        let expected = ("HTTP/1.1 404 Not Found", "not found: connect to /?pair=CODE with a WebSocket\n");
        assert_eq!((split(&response).0, split(&response).2), expected, "{target}");
    }
    let response = relay.http("POST / HTTP/1.1\r\nHost: t\r\n\r\n");
    assert!(split(&response).1.contains("allow: get, head\r\n"), "{response}");
    assert!(relay.http(&upgrade("/", "")).starts_with("HTTP/1.1 400 "));
    run(async {
        let (mut a, mut b) = relay.pair("x").await;
        a.send("joined").await;
        assert_eq!(b.receive().await, b"joined");
    });
}

#[test]
fn half_closed_request_is_still_answered() {
    let relay = Relay::start(&[]);
    for _ in 0..50 {
        let mut socket = relay.socket();
        socket.write_all(b"GET /health HTTP/1.1\r\nHost: t\r\n\r\n").unwrap();
        socket.shutdown(Shutdown::Write).unwrap();
        let mut response = String::new();
        socket.read_to_string(&mut response).unwrap();
        assert_eq!(split(&response).0, "HTTP/1.1 200 OK");
    }
}

#[test]
fn health_response_is_the_last_on_its_connection() {
    let relay = Relay::start(&[]);
    for (version, fields, body) in [
        ("1.1", "", ""),
        ("1.1", "Connection: keep-alive\r\n", ""),
        ("1.0", "Connection: keep-alive\r\n", ""),
        ("1.1", "Content-Length: 4\r\n", "\n\r\n\n"),
        ("1.1", "Transfer-Encoding: chunked\r\n", "4\r\n\n\r\n\n\r\n0\r\n\r\n"),
        ("1.0", "Content-Length: 4\r\nConnection: keep-alive\r\n", "\n\r\n\n"),
    ] {
        let request = format!("GET /health HTTP/{version}\r\nHost: t\r\n{fields}\r\n{body}");
        let response = relay.http(&request.repeat(2));
        let (status, headers, body) = split(&response);
        assert_eq!(status, format!("HTTP/{version} 200 OK"));
        let connection: Vec<_> = headers.lines().filter(|line| line.starts_with("connection:")).collect();
        assert_eq!((connection, body), (vec!["connection: close"], "{\"ok\":true,\"pairs\":0}"), "{fields}");
    }
}

#[test]
fn rejection_has_its_status_a_one_line_body_and_connection_close() {
    let relay = Relay::start(&[]);
    let plain = |line: &str| format!("{line}\r\nHost: t\r\n\r\n");
    let change = |from: &str, to: &str| {
        let request = upgrade("/?pair=x", "");
        assert!(request.contains(from));
        request.replace(from, to)
    };
    let not_found = "not found: connect to /?pair=CODE with a WebSocket\n";
    let key = "missing or invalid Sec-WebSocket-Key\n";
    let cases = [
        (plain("GET / HTTP/1.1"), "404 Not Found", "", not_found),
        (plain("GET /?pair=x HTTP/1.1"), "404 Not Found", "", not_found),
        (plain("GET /healthy HTTP/1.1"), "404 Not Found", "", not_found),
        (plain("POST /?pair=x HTTP/1.1"), "405 Method Not Allowed", "allow: get\r\n", "method not allowed\n"),
        (plain("GET /readyz/ HTTP/1.1"), "404 Not Found", "", not_found),
        (plain("POST /readyz HTTP/1.1"), "405 Method Not Allowed", "allow: get, head\r\n", "method not allowed\n"),
        (plain("DELETE /health HTTP/1.1"), "405 Method Not Allowed", "allow: get, head\r\n", "method not allowed\n"),
        (change("GET", "PUT"), "405 Method Not Allowed", "allow: get\r\n", "method not allowed\n"),
        (
            change("Version: 13", "Version: 8"),
            "426 Upgrade Required",
            "sec-websocket-version: 13\r\n",
            "WebSocket version 13 required\n",
        ),
        (
            change("Sec-WebSocket-Version: 13\r\n", ""),
            "426 Upgrade Required",
            "sec-websocket-version: 13\r\n",
            "WebSocket version 13 required\n",
        ),
        (
            change("Connection: Upgrade", "Connection: keep-alive"),
            "400 Bad Request",
            "",
            "Connection: Upgrade required (a proxy has to pass it on)\n",
        ),
        (change("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", ""), "400 Bad Request", "", key),
        (change("dGhlIHNhbXBsZSBub25jZQ==", "dA==IHNhbXBsZSBub25jZSBi"), "400 Bad Request", "", key), // 16 bytes, too
        (change("dGhlIHNhbXBsZSBub25jZQ==", "c2hvcnQ="), "400 Bad Request", "", key),
        (change("?pair=x", "?pair="), "400 Bad Request", "", "missing or invalid pair code\n"),
        (change("?pair=x", ""), "400 Bad Request", "", "missing or invalid pair code\n"),
    ];
    for (request, status, header, body) in cases {
        let response = relay.http(&request);
        let (status_line, headers, found) = split(&response);
        assert_eq!((status_line, found), (&*format!("HTTP/1.1 {status}"), body), "{request}");
        assert!(headers.contains(header) && headers.contains("connection: close\r\n"), "{headers}");
        assert!(headers.contains("cache-control: no-store\r\n"), "{headers}");
    }
    assert_eq!(relay.pairs(), 0);
}

#[test]
fn request_line_over_8_kib_is_refused_with_414() {
    let relay = Relay::start(&[]);
    let request = |length: usize| {
        let room = length - "GET /health? HTTP/1.1".len();
        format!("GET /health?{} HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n", "x".repeat(room))
    };
    assert!(relay.http(&request(8192)).starts_with("HTTP/1.1 200 "));
    let response = relay.http(&request(8193));
    let (status, headers, body) = split(&response);
    assert_eq!((status, body), ("HTTP/1.1 414 URI Too Long", "request target too long\n"));
    assert!(headers.contains("connection: close\r\n"), "{headers}");
    let absolute = format!("http://{}/?pair=x", "h".repeat(8192));
    assert!(relay.http(&upgrade(&absolute, "")).starts_with("HTTP/1.1 414 "));
}

#[test]
fn every_request_needs_exactly_one_host() {
    let relay = Relay::start(&[]);
    for request in [String::from("GET /health HTTP/1.1\r\nHost: test\r\n\r\n"), upgrade("/?pair=x", "")] {
        for hosts in ["", "Host: test\r\nHost: test\r\n", "Host: a\r\nX: y\r\nhost: b\r\n"] {
            let response = relay.http(&request.replace("Host: test\r\n", hosts));
            let (status, _, body) = split(&response);
            assert_eq!((status, body), ("HTTP/1.1 400 Bad Request", "exactly one Host header required\n"), "{hosts}");
        }
    }
    assert!(relay.http("GET /health HTTP/1.0\r\n\r\n").starts_with("HTTP/1.0 200 "));
    let response = relay.http("GET /health HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n");
    assert!(response.starts_with("HTTP/1.0 400 "), "{response}");
}

#[test]
fn upgrade_with_a_body_is_refused_with_400() {
    let relay = Relay::start(&[]);
    for field in ["Content-Length: 5", "Transfer-Encoding: chunked", "Content-Length: 1\r\nExpect: 100-continue"] {
        let response = relay.http(&upgrade("/?pair=x", &format!("{field}\r\n")));
        let (status, _, body) = split(&response);
        assert_eq!((status, body), ("HTTP/1.1 400 Bad Request", "a body is not allowed on an upgrade\n"), "{field}");
    }
    assert_eq!(relay.pairs(), 0);
    let mut socket = relay.socket();
    socket.write_all(upgrade("/?pair=x", "Content-Length: 0\r\n").as_bytes()).unwrap();
    expect(&mut socket, b"HTTP/1.1 101 ");
}

#[test]
fn duplicate_key_or_version_is_refused() {
    let relay = Relay::start(&[]);
    for (field, status, expected) in [
        ("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", 400, "missing or invalid Sec-WebSocket-Key\n"),
        ("Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==", 400, "missing or invalid Sec-WebSocket-Key\n"),
        ("Sec-WebSocket-Version: 8", 426, "WebSocket version 13 required\n"),
        ("Sec-WebSocket-Version: 13", 426, "WebSocket version 13 required\n"),
    ] {
        let response = relay.http(&upgrade("/?pair=x", &format!("{field}\r\n")));
        assert!(response.starts_with(&format!("HTTP/1.1 {status} ")), "{field}: {response}");
        assert_eq!(split(&response).2, expected, "{field}");
    }
    assert_eq!(relay.pairs(), 0);
}

#[test]
fn upgrade_over_http_1_0_is_refused_with_connection_close() {
    let relay = Relay::start(&[]);
    for connection in ["Upgrade", "keep-alive, Upgrade"] {
        let request = upgrade("/?pair=x", "").replace("HTTP/1.1", "HTTP/1.0");
        let request = request.replace("Connection: Upgrade", &format!("Connection: {connection}"));
        let response = relay.http(&request);
        let (status_line, headers, body) = split(&response);
        assert_eq!((status_line, body), ("HTTP/1.0 400 Bad Request", "HTTP/1.1 required\n"));
        let fields: Vec<_> = headers.lines().filter(|line| line.starts_with("connection:")).collect();
        assert_eq!(fields, ["connection: close"]);
    }
}

#[test]
fn bytes_that_are_not_http_are_refused_with_400_at_once() {
    let relay = Relay::start(&["--handshake-timeout", "1h"]);
    // A TLS ClientHello is among them: a client that expects TLS must not wait for a timeout.
    for bytes in [&b"\x16\x03\x01\x02\x00\x01\x00\x01\xFC\x03\x03"[..], b"\0\0\0\0\r\n\r\n", b"nonsense\r\n\r\n"] {
        let mut socket = relay.socket();
        socket.write_all(bytes).unwrap();
        expect(&mut socket, b"HTTP/1.1 400 ");
    }
}

#[test]
fn bare_line_feed_in_a_head_is_refused_at_once() {
    let relay = Relay::start(&["--handshake-timeout", "1h"]);
    let whole = upgrade("/?pair=x", "");
    // A bare line feed at the end of each line in turn, in front of the head, at all ends, and in unfinished heads.
    let ends: Vec<_> = whole.match_indices('\r').map(|(at, _)| at).collect();
    let mut heads: Vec<_> = ends.iter().map(|&at| format!("{}{}", &whole[..at], &whole[at + 1..])).collect();
    heads.push(format!("\n{whole}"));
    heads.push(format!("\r\n\n{whole}"));
    heads.push(whole.replace('\r', ""));
    heads.push(String::from("GET /health HTTP/1.1\n"));
    heads.push(String::from("GET /health HTTP/1.1\r\nHost: t\r\nX: y\n"));
    for head in heads {
        for size in [1, 7, head.len()] {
            let mut socket = relay.socket();
            for piece in head.as_bytes().chunks(size) {
                // The relay may refuse the head, and stop reading, before its end.
                let _ = socket.write_all(piece);
            }
            expect(&mut socket, b"HTTP/1.1 400 ");
        }
    }
    assert_eq!(relay.pairs(), 0);
}

#[test]
fn frames_behind_a_head_are_unchanged() {
    let relay = Relay::start(&[]);
    let payload = b"\n\r\n\r\n\nGET / HTTP/1.1\n\n";
    let mut peer = relay.socket();
    open(&mut peer, "/?pair=x", b"");
    let mut socket = relay.socket();
    let request = format!("\r\n{}", upgrade("/?pair=x", ""));
    socket.write_all(&[request.as_bytes(), &frame(0x82, payload), &frame(0x82, b"\n")].concat()).unwrap();
    expect(&mut socket, b"HTTP/1.1 101 ");
    expect(&mut peer, &server_frame(0x82, payload));
    expect(&mut peer, &server_frame(0x82, b"\n"));
}

#[test]
fn head_that_is_too_large_is_refused_with_431() {
    let relay = Relay::start(&[]);
    let fields = "X: y\r\n".repeat(101);
    assert!(relay.http(&upgrade("/?pair=x", &fields)).starts_with("HTTP/1.1 431 "));
    let field = format!("X: {}\r\n", "y".repeat(17_000));
    assert!(relay.http(&upgrade("/?pair=x", &field)).starts_with("HTTP/1.1 431 "));
    assert_eq!(relay.pairs(), 0);
}

#[test]
fn first_offered_subprotocol_that_is_no_token_is_echoed_and_no_extension_is_accepted() {
    let relay = Relay::start(&[]);
    for (offered, chosen) in [
        ("Sec-WebSocket-Protocol: chat.v2, chat\r\n", Some("chat.v2")),
        ("Sec-WebSocket-Protocol: one\r\nSec-WebSocket-Protocol: two\r\n", Some("one")),
        ("Sec-WebSocket-Protocol: , chat\r\n", Some("chat")),
        ("Sec-WebSocket-Protocol: chat, other, chat\r\n", Some("chat")),
        ("Sec-WebSocket-Protocol: ,\t, chat\t ,chat,\r\n", Some("chat")),
        ("Sec-WebSocket-Protocol: !#$%&'*+-.^_`|~09az\r\n", Some("!#$%&'*+-.^_`|~09az")),
        ("Sec-WebSocket-Protocol: arc-relay.token.Ymx1ZQ, chat\r\n", Some("chat")),
        ("Sec-WebSocket-Protocol: chat, arc-relay.token.Ymx1ZQ\r\n", Some("chat")),
        ("Sec-WebSocket-Protocol: arc-relay.token.\r\nSec-WebSocket-Protocol: arc-relay.token.!\r\n", None),
        ("Sec-WebSocket-Protocol: arc-relay.token, chat\r\n", Some("arc-relay.token")),
        ("Sec-WebSocket-Protocol: \r\n", None),
        ("", None),
    ] {
        let mut socket = relay.socket();
        let extensions = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n";
        socket.write_all(upgrade("/?pair=x", &format!("{offered}{extensions}")).as_bytes()).unwrap();
        let response = support::raw::head(&mut socket).to_lowercase();
        let found = response.split_once("sec-websocket-protocol: ").and_then(|(_, rest)| rest.split("\r\n").next());
        assert_eq!(found, chosen);
        assert!(!response.contains("extensions"), "{response}");
        socket.shutdown(Shutdown::Both).unwrap();
        support::eventually("the pair code is free", || relay.pairs() == 0);
    }
}

#[test]
fn subprotocol_that_is_not_a_token_is_refused_with_400() {
    let relay = Relay::start(&[]);
    for offered in [
        "two words",
        "quality;q=1",
        "key=value",
        "a/b",
        "\"quoted\"",
        "(comment)",
        "caf\u{E9}",
        "first, second is no token",
        "first\r\nSec-WebSocket-Protocol: second is no token",
        "first\r\nSec-WebSocket-Protocol: caf\u{E9}",
    ] {
        let mut socket = relay.socket();
        socket.write_all(upgrade("/?pair=x", &format!("Sec-WebSocket-Protocol: {offered}\r\n")).as_bytes()).unwrap();
        let head = support::raw::head(&mut socket);
        assert!(head.starts_with("HTTP/1.1 400 "), "{offered}: {head}");
        let mut body = String::new();
        socket.read_to_string(&mut body).unwrap();
        assert_eq!(body, "invalid Sec-WebSocket-Protocol\n");
    }
    assert_eq!(relay.pairs(), 0);
}

#[test]
fn opening_handshake_is_answered_as_in_rfc_6455() {
    let relay = Relay::start(&[]);
    let mut socket = relay.socket();
    let head = open(&mut socket, "/?pair=x", b"").to_lowercase();
    // The key and the accept value are the example of RFC 6455, section 1.3.
    for line in
        ["connection: upgrade\r\n", "upgrade: websocket\r\n", "sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo=\r\n"]
    {
        assert!(head.contains(line), "{head}");
    }
}

#[test]
fn upgrade_and_connection_headers_may_be_lists() {
    let relay = Relay::start(&[]);
    let whole = upgrade("/?pair=x", "");
    for (from, to) in [
        ("Upgrade: websocket", "Upgrade: h2c, WebSocket"),
        ("Upgrade: websocket", "Upgrade: h2c\r\nUpgrade: websocket"),
        ("Connection: Upgrade", "Connection: keep-alive\r\nConnection: Upgrade"),
        ("Connection: Upgrade", "Connection: keep-alive,\tupgrade"),
    ] {
        let mut socket = relay.socket();
        socket.write_all(whole.replace(from, to).as_bytes()).unwrap();
        let mut start = [0; 12];
        socket.read_exact(&mut start).unwrap();
        assert_eq!(&start, b"HTTP/1.1 101", "{to}");
        drop(socket);
        support::eventually("the pair code is free", || relay.pairs() == 0);
    }
}

#[test]
fn refused_client_that_keeps_sending_still_gets_its_answer() {
    let relay = Relay::start(&[]);
    let mut socket = relay.socket();
    let request = [upgrade("/?nothing", "").into_bytes(), vec![0; 100_000]].concat();
    socket.write_all(&request).unwrap();
    let mut response = String::new();
    socket.read_to_string(&mut response).unwrap();
    assert!(response.starts_with("HTTP/1.1 400 "), "{response}");
}
