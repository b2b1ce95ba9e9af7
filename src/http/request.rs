//! The meaning of a request, decided by nothing but the request and the operator's policy.

use data_encoding::BASE64;
use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, Method, Request, StatusCode, Uri, Version};
use sha1::{Digest, Sha1};

use super::answer::{self, Answer};
use super::rejection::Rejected;
use crate::access::policy::Policy;
use crate::pairing::pair_code::PairCode;
use crate::telemetry::rejection::Rejection;

/// How long a request line may be, in bytes.
///
/// RFC 9112, section 3, recommends it, and it is twenty times the longest code.
const REQUEST_LINE: usize = 8 * 1024;

/// The resource that a request asks for.
#[derive(Debug)]
pub(super) enum Route {
    /// A seat at this pair code. The answer is the 101 that completes the opening handshake.
    Join(PairCode, Answer),
    Health,
}

/// Decides what a request asks for.
pub(super) fn route(request: &Request<()>, policy: &Policy) -> Result<Route, Rejected> {
    check_head(request)?;
    let headers = request.headers();
    if !asks_for_websocket(headers) {
        let health = matches!(request.uri().path(), "/health" | "/health/");
        return match *request.method() {
            Method::GET | Method::HEAD if health => Ok(Route::Health),
            Method::GET | Method::HEAD => Err(Rejection::NotFound.into()),
            _ if health => Err(Rejected::method("GET, HEAD")),
            _ => Err(Rejected::method("GET")),
        };
    }
    let mut answer = upgrade(request)?;
    // Browsers fail the connection if they offered subprotocols and none is chosen. The endpoints know which they
    // speak; the relay takes the first.
    if let Some(protocol) = first_protocol(headers)? {
        answer.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, protocol);
    }
    let target = request.uri().path_and_query().map_or("", |target| target.as_str());
    let code = policy.admit(target, headers)?;
    Ok(Route::Join(code, answer))
}

/// Checks what is required of every request.
fn check_head(request: &Request<()>) -> Result<(), Rejection> {
    // The method, the target without its fragment, `HTTP/1.1`, and two spaces.
    if request.method().as_str().len() + target_length(request.uri()) + 10 > REQUEST_LINE {
        return Err(Rejection::TargetTooLong);
    }
    // RFC 9112, section 3.2. HTTP/1.0 need not have one, but two are as contradictory there.
    match request.headers().get_all(header::HOST).iter().count() {
        1 => Ok(()),
        0 if request.version() < Version::HTTP_11 => Ok(()),
        _ => Err(Rejection::Host),
    }
}

fn target_length(uri: &Uri) -> usize {
    let scheme = uri.scheme_str().map_or(0, |scheme| scheme.len() + "://".len());
    let authority = uri.authority().map_or(0, |authority| authority.as_str().len());
    scheme + authority + uri.path_and_query().map_or(0, |target| target.as_str().len())
}

/// Whether the client wants to leave HTTP for WebSocket (RFC 6455, section 4.2.1, item 3).
pub(super) fn asks_for_websocket(headers: &HeaderMap) -> bool {
    elements(headers, header::UPGRADE).any(|protocol| protocol.eq_ignore_ascii_case("websocket"))
}

/// The 101 for a request to upgrade, which is checked (RFC 6455, section 4.2).
fn upgrade(request: &Request<()>) -> Result<Answer, Rejected> {
    let headers = request.headers();
    if request.method() != Method::GET {
        return Err(Rejected::method("GET"));
    }
    if request.version() < Version::HTTP_11 {
        return Err(Rejected::handshake("HTTP/1.1 required"));
    }
    if !elements(headers, header::CONNECTION).any(|option| option.eq_ignore_ascii_case("upgrade")) {
        return Err(Rejected::handshake("Connection: Upgrade required (a proxy has to pass it on)"));
    }
    if single(headers, header::SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        return Err(Rejection::Version.into());
    }
    let key = single(headers, header::SEC_WEBSOCKET_KEY).map(HeaderValue::as_bytes).filter(|key| is_key(key));
    let key = key.ok_or_else(|| Rejected::handshake("missing or invalid Sec-WebSocket-Key"))?;
    if announces_body(headers) {
        return Err(Rejected::handshake("a body is not allowed on an upgrade"));
    }
    let mut answer = answer::empty(StatusCode::SWITCHING_PROTOCOLS);
    let accept = HeaderValue::try_from(accept_of(key)).expect("Base64 is visible ASCII");
    answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    answer.headers_mut().insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    answer.headers_mut().insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    Ok(answer)
}

/// The value of a field that has to be given once (RFC 6455, section 11.3): two are as good as none.
fn single(headers: &HeaderMap, name: HeaderName) -> Option<&HeaderValue> {
    let mut values = headers.get_all(name).into_iter();
    values.next().filter(|_| values.next().is_none())
}

/// Whether this is 16 bytes in Base64 (RFC 6455, section 4.1).
fn is_key(key: &[u8]) -> bool {
    BASE64.decode(key).is_ok_and(|bytes| bytes.len() == 16)
}

/// The value of `Sec-WebSocket-Accept` for a key (RFC 6455, section 4.2.2, item 5.4).
fn accept_of(key: &[u8]) -> String {
    let hash = Sha1::new().chain_update(key).chain_update(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").finalize();
    BASE64.encode(&hash)
}

/// Whether a body is to come.
///
/// Behind an upgrade one reader would take it for frames, and another for a body.
fn announces_body(headers: &HeaderMap) -> bool {
    let is_zero = |length: &HeaderValue| length.to_str().is_ok_and(|length| length.trim() == "0");
    headers.contains_key(header::TRANSFER_ENCODING)
        || headers.get_all(header::CONTENT_LENGTH).iter().any(|length| !is_zero(length))
}

/// The first subprotocol offered, if there is one.
///
/// Each has to be a token (RFC 6455, section 11.3.4), and so no answer echoes anything else.
///
/// RFC 6455, section 4.1, item 10, tells clients to offer none twice. Section 4.2.1 does not tell servers to check it, and
/// the choice of the first is the same with and without a repetition: such clients are let in.
fn first_protocol(headers: &HeaderMap) -> Result<Option<HeaderValue>, Rejected> {
    let lines = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL);
    let is_readable = lines.iter().all(|line| line.to_str().is_ok());
    if !is_readable || !elements(headers, header::SEC_WEBSOCKET_PROTOCOL).all(is_token) {
        return Err(Rejected::handshake("invalid Sec-WebSocket-Protocol"));
    }
    Ok(elements(headers, header::SEC_WEBSOCKET_PROTOCOL).next().and_then(|first| HeaderValue::from_str(first).ok()))
}

/// Whether a list's element, which is never empty, is a token (RFC 9110, section 5.6.2).
fn is_token(element: &str) -> bool {
    element.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

/// The elements of a field that is a list, from all of its lines (RFC 9110, sections 5.3 and 5.6.1).
fn elements(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = &str> {
    let lines = headers.get_all(name).into_iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).map(str::trim).filter(|element| !element.is_empty())
}
