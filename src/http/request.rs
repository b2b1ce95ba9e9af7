//! The meaning of a request, decided by nothing but the request and the operator's policy.

use data_encoding::{BASE64, BASE64_NOPAD};
use http::{StatusCode, Uri, Version};
use sha1::{Digest, Sha1};

use super::answer::Answer;
use super::context::HandshakeContext;
use super::demo::Demo;
use super::fields::{Fields, is_text};
use super::head::Request;
use super::probe::Probe;
use super::rejection::Rejected;
use crate::access::credentials::{Credentials, is_token_protocol};
use crate::access::policy::{Permitted, Refusal};
use crate::telemetry::rejection::Rejection;
use crate::websocket::subprotocol;

/// How long a request line may be, in bytes.
///
/// RFC 9112, section 3, recommends it, and it is twenty times the longest code.
const REQUEST_LINE: usize = 8 * 1024;

/// The field of subprotocols: those that a client offers, and the one that is chosen.
const PROTOCOL: &str = "sec-websocket-protocol";

/// The resource that a request asks for.
#[derive(Debug)]
pub(super) enum Route {
    /// A seat, by a well-formed opening handshake.
    Upgrade(Upgrade),
    Probe(Probe),
    /// The demo's page.
    Demo(Answer),
}

/// What completes a well-formed opening handshake.
#[derive(Debug)]
pub(super) struct Upgrade {
    /// The 101.
    pub(super) answer: Answer,
    /// Whether the client speaks [`arc-relay.v1`](crate::websocket::subprotocol).
    pub(super) speaks_v1: bool,
}

/// Decides what a request asks for. There may be a demo.
///
/// The caller knows whether it [asks for a WebSocket](asks_for_websocket).
pub(super) fn route(request: &Request<'_>, asks_for_websocket: bool, demo: Option<&Demo>) -> Result<Route, Rejected> {
    check_head(request)?;
    if !asks_for_websocket {
        let page = || demo.filter(|_| Demo::is_at(&request.uri)).map(|demo| Route::Demo(demo.answer()));
        let found = Probe::at(request.uri.path()).map(Route::Probe).or_else(page);
        return match (request.method, found) {
            ("GET" | "HEAD", Some(found)) => Ok(found),
            ("GET" | "HEAD", None) => Err(Rejection::NotFound.into()),
            (_, Some(_)) => Err(Rejected::method("GET, HEAD")),
            (_, None) => Err(Rejected::method("GET")),
        };
    }
    let mut answer = upgrade(request)?;
    let protocol = chosen_protocol(request.fields)?;
    if let Some(protocol) = protocol {
        answer = answer.with_field(PROTOCOL, protocol);
    }
    Ok(Route::Upgrade(Upgrade { answer, speaks_v1: protocol == Some(subprotocol::NAME) }))
}

/// The seat that an upgrade asks for, and what its ticket says, if its client may join.
pub(super) fn admit(request: &Request<'_>, context: &HandshakeContext) -> Result<Permitted, Refusal> {
    let fields = request.fields;
    let target = request.uri.path_and_query().map_or("", |target| target.as_str());
    let credentials = || Credentials {
        authorization: fields.single("authorization"),
        protocol: fields.elements(PROTOCOL).find(|protocol| is_token_protocol(protocol)),
    };
    context.policy.admit(target, fields.all("origin"), credentials, &*context.clock)
}

/// Checks what is required of every request.
pub(crate) fn check_head(request: &Request<'_>) -> Result<(), Rejection> {
    // The method, the target without its fragment, `HTTP/1.1`, and two spaces.
    if request.method.len() + target_length(&request.uri) + 10 > REQUEST_LINE {
        return Err(Rejection::TargetTooLong);
    }
    // RFC 9112, section 3.2. HTTP/1.0 need not have one, but two are as contradictory there.
    match request.fields.all("host").count() {
        1 => Ok(()),
        0 if request.version < Version::HTTP_11 => Ok(()),
        _ => Err(Rejection::Host),
    }
}

fn target_length(uri: &Uri) -> usize {
    let scheme = uri.scheme_str().map_or(0, |scheme| scheme.len() + "://".len());
    let authority = uri.authority().map_or(0, |authority| authority.as_str().len());
    scheme + authority + uri.path_and_query().map_or(0, |target| target.as_str().len())
}

/// Whether the client wants to leave HTTP for WebSocket (RFC 6455, section 4.2.1, item 3).
pub(super) fn asks_for_websocket(fields: Fields<'_>) -> bool {
    fields.elements("upgrade").any(|protocol| protocol.eq_ignore_ascii_case(b"websocket"))
}

/// The 101 for a request to upgrade, which is checked (RFC 6455, sections 4.2 and 11.3).
fn upgrade(request: &Request<'_>) -> Result<Answer, Rejected> {
    let fields = request.fields;
    if request.method != "GET" {
        return Err(Rejected::method("GET"));
    }
    if request.version < Version::HTTP_11 {
        return Err(Rejected::handshake("HTTP/1.1 required"));
    }
    if !fields.elements("connection").any(|option| option.eq_ignore_ascii_case(b"upgrade")) {
        return Err(Rejected::handshake("Connection: Upgrade required (a proxy has to pass it on)"));
    }
    if fields.single("sec-websocket-version") != Some(b"13") {
        return Err(Rejection::Version.into());
    }
    let key = fields.single("sec-websocket-key").filter(|key| is_key(key));
    let key = key.ok_or_else(|| Rejected::handshake("missing or invalid Sec-WebSocket-Key"))?;
    if announces_body(fields) {
        return Err(Rejected::handshake("a body is not allowed on an upgrade"));
    }
    Ok(Answer::empty(StatusCode::SWITCHING_PROTOCOLS)
        .with_field("connection", b"Upgrade")
        .with_field("upgrade", b"websocket")
        .with_field("sec-websocket-accept", &accept_of(key)))
}

/// Whether this is 16 bytes in Base64 (RFC 6455, section 4.1).
///
/// Padding is its end and nothing else: the decoder for padded texts takes it between digits, too.
fn is_key(key: &[u8]) -> bool {
    let mut bytes = [0; 16];
    key.strip_suffix(b"==").is_some_and(|digits| {
        BASE64_NOPAD.decode_len(digits.len()) == Ok(bytes.len()) && BASE64_NOPAD.decode_mut(digits, &mut bytes).is_ok()
    })
}

/// The value of `Sec-WebSocket-Accept` for a key (RFC 6455, section 4.2.2, item 5.4).
fn accept_of(key: &[u8]) -> [u8; 28] {
    let hash = Sha1::new().chain_update(key).chain_update(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").finalize();
    let mut encoded = [0; 28];
    BASE64.encode_mut(&hash, &mut encoded);
    encoded
}

/// Whether a body is to come.
///
/// Behind an upgrade one reader would take it for frames, and another for a body.
fn announces_body(fields: Fields<'_>) -> bool {
    fields.has("transfer-encoding") || fields.all("content-length").any(|length| length != b"0")
}

/// Whether the client offers the relay's own subprotocol.
pub(super) fn offers_v1(fields: Fields<'_>) -> bool {
    fields.elements(PROTOCOL).any(|protocol| protocol == subprotocol::NAME)
}

/// The subprotocol that is chosen: the relay's own, or else the first that is no access token.
///
/// Browsers fail the connection if they offered subprotocols and none is chosen. The endpoints know which of theirs they
/// speak, and the relay does not. An access token is never chosen: the answer would repeat it.
///
/// Each has to be a token (RFC 6455, section 11.3.4), and so no answer echoes anything else.
///
/// RFC 6455, section 4.1, item 10, tells clients to offer none twice. Section 4.2.1 does not tell servers to check it, and
/// the choice is the same with and without a repetition: such clients are let in.
fn chosen_protocol(fields: Fields<'_>) -> Result<Option<&[u8]>, Rejected> {
    if !fields.has(PROTOCOL) {
        return Ok(None); // as most clients that are no browsers
    }
    if !fields.all(PROTOCOL).all(is_text) || !fields.elements(PROTOCOL).all(is_token) {
        return Err(Rejected::handshake("invalid Sec-WebSocket-Protocol"));
    }
    if offers_v1(fields) {
        return Ok(Some(subprotocol::NAME));
    }
    Ok(fields.elements(PROTOCOL).find(|protocol| !is_token_protocol(protocol)))
}

/// Whether a list's element, which is never empty, is a token (RFC 9110, section 5.6.2).
fn is_token(element: &[u8]) -> bool {
    element.iter().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte))
}
