//! Arbitrary bytes from an untrusted client to the whole relay, in memory.
//!
//! The first byte says how the bytes are split; the rest is sent. The expected response follows from the first request,
//! independently of the relay: rule by rule, in no particular order.

#![no_main]

use std::io::Cursor;

use async_tungstenite::tungstenite::handshake::derive_accept_key;
use async_tungstenite::tungstenite::protocol::frame::FrameHeader;
use libfuzzer_sys::fuzz_target;

/// The head that HTTP/2 begins with (RFC 9113, section 3.4). Its client could read no answer.
const HTTP_2: &[u8] = b"PRI * HTTP/2.0\r\n\r\n";

fuzz_target!(|input: &[u8]| {
    let Some((&seed, bytes)) = input.split_first() else { return };
    let response = arc_relay::internals::respond(bytes, seed.into());
    // The head begins behind empty lines, and ends at the next.
    let begin = bytes.iter().position(|byte| !matches!(byte, b'\r' | b'\n')).unwrap_or(bytes.len());
    let end = bytes[begin..].windows(4).position(|found| found == b"\r\n\r\n").map(|length| begin + length + 4);
    let head = &bytes[..end.unwrap_or(bytes.len())];
    // A line feed without a carriage return is refused immediately, whether or not the head has an end.
    let is_bare = |at: usize| head[at] == b'\n' && (at == 0 || head[at - 1] != b'\r');
    let has_bare_line_feed = (0..head.len()).any(is_bare);
    // A head that comes in pieces is judged only at its end.
    let may_be_waited_for = end.is_none() && !has_bare_line_feed;
    // The beginning of HTTP/2 may be split where it cannot be recognized yet.
    let is_http_2 = head == HTTP_2;
    if (may_be_waited_for || is_http_2) && response.is_empty() {
        return;
    }
    if has_bare_line_feed {
        assert!(is_malformed(&response), "{:?}", show(&response));
        return;
    }
    match Expected::of(bytes) {
        // The relay sends no response before the head of the request is complete.
        Expected::Nothing => assert!(response.is_empty() || is_malformed(&response), "{:?}", show(&response)),
        // Bytes that are no HTTP are rejected with a bare status.
        Expected::Malformed => assert!(is_malformed(&response), "{:?}", show(&response)),
        Expected::Perhaps(expected) => {
            if !is_malformed(&response) {
                expected.check(&response);
            }
        }
        Expected::Answer(expected) => expected.check(&response),
    }
});

enum Expected {
    Nothing,
    Malformed,
    /// This, unless the length of the body is indefinite.
    Perhaps(Answer),
    Answer(Answer),
}

struct Answer {
    /// Any of these: each is the answer to one of the rules that the request breaks.
    statuses: Vec<u16>,
    has_body: bool,
    accept: Option<String>,
    /// The close code of a refusal behind the 101, if the client speaks `arc-relay.v1` and is refused.
    v1: Option<Option<u16>>,
}

impl Expected {
    fn of(bytes: &[u8]) -> Self {
        let mut headers = [httparse::EMPTY_HEADER; 100];
        let mut request = httparse::Request::new(&mut headers);
        match request.parse(bytes) {
            Ok(httparse::Status::Partial) => return Self::Nothing,
            Err(_) => return Self::Malformed,
            Ok(httparse::Status::Complete(_)) => {}
        }
        let (method, target) = (request.method.unwrap(), request.path.unwrap());
        let Ok(uri) = target.parse::<http::Uri>() else { return Self::Malformed };
        let values = |name: &'static str| {
            let named = request.headers.iter().filter(move |header| header.name.eq_ignore_ascii_case(name));
            named.map(|header| header.value)
        };
        // A field with anything but visible ASCII is ignored.
        let lists = |name, element: &str| {
            let lines = values(name).filter(|line| line.iter().all(|byte| matches!(byte, b'\t' | b' '..=b'~')));
            let mut elements = lines.flat_map(|line| std::str::from_utf8(line).unwrap().split(','));
            elements.any(|found| found.trim().eq_ignore_ascii_case(element))
        };
        let only = |name| {
            let mut values = values(name);
            values.next().filter(|_| values.next().is_none())
        };
        let mut statuses = Vec::new();
        let (mut accept, mut v1) = (None, None);
        let hosts = values("host").count();
        if hosts > 1 || (hosts == 0 && request.version == Some(1)) {
            statuses.push(400);
        }
        // The length excludes a fragment. If an absolute target has no path, it excludes everything before the path,
        // too.
        let target_length = target.split('#').next().unwrap_or_default().len();
        let too_long = method.len() + target_length + " HTTP/1.1 ".len() > 8192;
        if too_long {
            statuses.push(414);
        }
        if lists("upgrade", "websocket") {
            let key = only("sec-websocket-key");
            if method != "GET" {
                statuses.push(405);
            }
            if only("sec-websocket-version") != Some(b"13") {
                statuses.push(426);
            }
            if values("transfer-encoding").next().is_some() || values("content-length").any(|length| length != b"0") {
                statuses.push(400);
            }
            if request.version != Some(1) || !lists("connection", "upgrade") || !key.is_some_and(is_key) {
                statuses.push(400);
            }
            if !values("sec-websocket-protocol").all(is_list_of_tokens) {
                statuses.push(400);
            }
            let refusal = match code(uri.query().unwrap_or_default()) {
                None => Some(400),
                Some(code) if code == "x" => Some(409),
                Some(_) => None,
            };
            // A client of the relay's own subprotocol is refused behind the 101, if the request is well-formed.
            let offers_v1 = || values("sec-websocket-protocol").any(|line| has_element(line, b"arc-relay.v1"));
            if statuses.is_empty() && offers_v1() {
                v1 = Some(refusal.map(|status| 4000 + status));
            } else {
                statuses.extend(refusal);
            }
            if let (true, Some(key)) = (statuses.is_empty(), key) {
                statuses.push(101);
                accept = Some(derive_accept_key(key));
            }
        } else if statuses.is_empty() {
            let is_health = matches!(uri.path(), "/health" | "/health/");
            statuses.push(match method {
                "GET" | "HEAD" if is_health => 200,
                "GET" | "HEAD" => 404,
                _ => 405,
            });
        }
        let answer = Answer { statuses, has_body: method != "HEAD", accept, v1 };
        let has_length = values("content-length").chain(values("transfer-encoding")).next().is_some();
        if has_length || method == "CONNECT" { Self::Perhaps(answer) } else { Self::Answer(answer) }
    }
}

/// Whether a key is sixteen bytes in Base64 (RFC 6455, section 4.1).
///
/// It has 22 digits, and the last one ends in zeros.
fn is_key(key: &[u8]) -> bool {
    let Some(digits) = key.strip_suffix(b"==") else { return false };
    let is_digit = |digit: &u8| digit.is_ascii_alphanumeric() || matches!(digit, b'+' | b'/');
    digits.len() == 22 && digits.iter().all(is_digit) && matches!(digits[21], b'A' | b'Q' | b'g' | b'w')
}

/// Whether a field is a list of tokens, or of nothing (RFC 9110, sections 5.6.1 and 5.6.2).
fn is_list_of_tokens(line: &[u8]) -> bool {
    // All other visible characters are delimiters. White space may be around an element, but not in it.
    let is_token = |byte: &u8| matches!(byte, b'!'..=b'~') && !b"(),/:;<=>?@[\\]{}\"".contains(byte);
    line.split(|byte| *byte == b',').all(|element| element.trim_ascii().iter().all(is_token))
}

/// Whether a list has this element.
fn has_element(line: &[u8], element: &[u8]) -> bool {
    line.split(|byte| *byte == b',').any(|found| found.trim_ascii() == element)
}

/// The pair code, or `None` if it is missing or invalid.
fn code(query: &str) -> Option<String> {
    let pairs = form_urlencoded::parse(query.as_bytes());
    let (_, value) = pairs.into_iter().find(|(name, _)| name == "pair")?;
    // The parser replaces bytes that are not UTF-8 with this character. A target that really contains it is not tried.
    let valid = !value.is_empty() && value.chars().count() <= 256 && !value.contains('\u{FFFD}');
    valid.then(|| value.into_owned())
}

/// Whether it is a rejection of bytes that are no request: a status and nothing else.
fn is_malformed(response: &[u8]) -> bool {
    let head = response.strip_suffix(b"\r\n\r\n").unwrap_or_default();
    let head = String::from_utf8_lossy(head).to_lowercase();
    let status = head.strip_prefix("http/1.1 4").is_some() || head.strip_prefix("http/1.0 4").is_some();
    status && !head.contains("content-type")
}

impl Answer {
    fn check(&self, response: &[u8]) {
        let mut headers = [httparse::EMPTY_HEADER; 20];
        let mut parsed = httparse::Response::new(&mut headers);
        let Ok(httparse::Status::Complete(length)) = parsed.parse(response) else {
            panic!("{:?} instead of {:?}", show(response), self.statuses)
        };
        let status = parsed.code.unwrap();
        assert!(self.statuses.contains(&status), "{:?} instead of {:?}", show(response), self.statuses);
        let header = |name: &str| {
            let found = parsed.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
            found.map(|header| std::str::from_utf8(header.value).unwrap())
        };
        let rest = &response[length..];
        match status {
            101 => {
                assert_eq!(header("sec-websocket-accept"), self.accept.as_deref());
                let chosen = header("sec-websocket-protocol");
                assert!(!chosen.is_some_and(|chosen| chosen.starts_with("arc-relay.token.")));
                assert_eq!(chosen == Some("arc-relay.v1"), self.v1.is_some());
                check_frames(rest, self.v1);
            }
            200 => {
                assert_eq!(header("connection"), Some("close"));
                assert_eq!(rest, if self.has_body { &b"{\"ok\":true,\"pairs\":1}"[..] } else { b"" });
            }
            _ => {
                // A rejection is the last response, and its body has one line.
                assert_eq!(header("connection"), Some("close"));
                assert_eq!(header("cache-control"), Some("no-store"));
                let body = std::str::from_utf8(rest).unwrap();
                assert!(!self.has_body || body.find('\n') == Some(body.len() - 1), "{body:?}");
                assert!(!self.has_body || header("content-length") == Some(&body.len().to_string()));
                assert!(status != 405 || header("allow").is_some());
                assert!(status != 426 || header("sec-websocket-version") == Some("13"));
            }
        }
    }
}

/// Checks the frames behind a 101 to a client without a peer: pongs, and perhaps a close frame.
///
/// A client of `arc-relay.v1` gets text, too, or a refusal.
fn check_frames(bytes: &[u8], v1: Option<Option<u16>>) {
    let mut cursor = Cursor::new(bytes);
    let mut closed = false;
    while (cursor.position() as usize) < bytes.len() {
        assert!(!closed, "a frame follows a close frame");
        let first = bytes[cursor.position() as usize];
        let (header, length) = FrameHeader::parse(&mut cursor).unwrap().expect("a whole header");
        let payload = &bytes[cursor.position() as usize..][..length as usize];
        match (first, v1) {
            (0x88, Some(Some(code))) => assert!(payload.starts_with(&code.to_be_bytes()), "{payload:?}"),
            (0x88 | 0x8A, None | Some(None)) => assert!(length <= 125),
            (0x81, Some(None)) => assert!(payload.starts_with(b"{\"type\":\"") && payload.ends_with(b"}")),
            _ => panic!("a frame that begins with {first:#x}"),
        }
        assert!(header.mask.is_none());
        closed = first == 0x88;
        cursor.set_position(cursor.position() + length);
    }
    assert!(closed || !matches!(v1, Some(Some(_))), "a refusal without a close frame");
    assert_eq!(cursor.position() as usize, bytes.len(), "the last frame is incomplete");
}

fn show(response: &[u8]) -> String {
    String::from_utf8_lossy(response).into_owned()
}
