//! What a request asks for, by nothing but the request and the operator's policy.

use async_tungstenite::tungstenite::error::{Error, ProtocolError};
use async_tungstenite::tungstenite::handshake::server::create_response_with_body;
use http_body_util::Full;
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::{HeaderMap, Method, Request, Uri, Version};

use super::rejection::{Answer, Rejected};
use crate::access::policy::Policy;
use crate::pairing::pair_code::PairCode;
use crate::telemetry::rejection::Rejection;

/// How long a request line may be, in bytes: what RFC 9112, section 3, recommends, and twenty times the longest code.
const REQUEST_LINE: usize = 8 * 1024;

/// What a request asks for.
#[derive(Debug)]
pub(super) enum Route {
    /// To be joined; the answer is the 101 that completes the opening handshake.
    Join(PairCode, Answer),
    Health,
}

/// Decides what a request means.
pub(super) fn route(request: &Request<impl Sized>, policy: &Policy) -> Result<Route, Rejected> {
    check_head(request)?;
    let method = request.method();
    if !asks_for_websocket(request.headers()) {
        let health = matches!(request.uri().path(), "/health" | "/health/");
        return match *method {
            Method::GET | Method::HEAD if health => Ok(Route::Health),
            Method::GET | Method::HEAD => Err(Rejection::NotFound.into()),
            _ if health => Err(Rejected::method("GET, HEAD")),
            _ => Err(Rejected::method("GET")),
        };
    }
    let mut answer = create_response_with_body(&plainly(request), Full::default).map_err(|error| match error {
        Error::Protocol(ProtocolError::WrongHttpMethod) => Rejected::method("GET"),
        Error::Protocol(ProtocolError::MissingSecWebSocketVersionHeader) => Rejection::Version.into(),
        Error::Protocol(ProtocolError::WrongHttpVersion) => Rejected::handshake("HTTP/1.1 required"),
        Error::Protocol(ProtocolError::MissingConnectionUpgradeHeader) => {
            Rejected::handshake("Connection: Upgrade required (a proxy has to pass it on)")
        }
        _ => Rejected::handshake("missing or invalid Sec-WebSocket-Key"),
    })?;
    if announces_body(request.headers()) {
        return Err(Rejected::handshake("a body is not allowed on an upgrade"));
    }
    let protocol = first_protocol(request.headers())?;
    let target = request.uri().path_and_query().map_or("", |target| target.as_str());
    let code = policy.admit(target, request.headers())?;
    // Browsers fail the connection if they offered subprotocols and none is chosen. The endpoints know which they
    // speak; the relay takes the first.
    if let Some(protocol) = protocol {
        answer.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, protocol);
    }
    Ok(Route::Join(code, answer))
}

/// What every request has to keep to, whatever it asks for. The rest of it is hyper's.
fn check_head(request: &Request<impl Sized>) -> Result<(), Rejection> {
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

/// Whether a body is to come. Behind an upgrade it would be taken for frames by one reader, and for a body by another.
pub(super) fn announces_body(headers: &HeaderMap) -> bool {
    let is_zero = |length: &HeaderValue| length.to_str().is_ok_and(|length| length.trim() == "0");
    headers.contains_key(header::TRANSFER_ENCODING)
        || headers.get_all(header::CONTENT_LENGTH).iter().any(|length| !is_zero(length))
}

/// Whether the client wants to leave HTTP for WebSocket (RFC 6455, section 4.2.1, item 3).
pub(super) fn asks_for_websocket(headers: &HeaderMap) -> bool {
    elements(headers, header::UPGRADE).any(|protocol| protocol.eq_ignore_ascii_case("websocket"))
}

/// The first subprotocol offered, if there is one. Each has to be a token (RFC 6455, section 11.3.4), and so no answer
/// echoes what is none.
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

/// What of a request tungstenite looks at, with `Upgrade` and `Connection` as it looks for them: it sees a single line
/// only, and no list in the first. Of the others there must not be two (RFC 6455, section 11.3): two are as good as none.
fn plainly(request: &Request<impl Sized>) -> Request<()> {
    let mut plain = Request::new(());
    *plain.method_mut() = request.method().clone();
    *plain.version_mut() = request.version();
    for name in [header::SEC_WEBSOCKET_VERSION, header::SEC_WEBSOCKET_KEY] {
        let mut values = request.headers().get_all(&name).iter();
        if let (Some(value), None) = (values.next(), values.next()) {
            plain.headers_mut().insert(name, value.clone());
        }
    }
    plain.headers_mut().insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    let connection =
        elements(request.headers(), header::CONNECTION).any(|option| option.eq_ignore_ascii_case("upgrade"));
    plain
        .headers_mut()
        .insert(header::CONNECTION, HeaderValue::from_static(if connection { "Upgrade" } else { "close" }));
    plain
}
