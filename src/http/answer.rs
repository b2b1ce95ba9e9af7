//! Answers to requests, and how they are written.

use std::time::SystemTime;

use http::header::{self, HeaderName};
use http::{HeaderValue, Method, Request, Response, StatusCode, Version};

/// An answer to a request. It is the last on its connection: behind it come frames, or the end.
pub(super) type Answer = Response<String>;

/// An answer with a body. It is not to be cached, as a 404 may be by default (RFC 9110, section 15.1).
pub(super) fn with_body(status: StatusCode, content_type: &'static str, body: String) -> Answer {
    let mut answer = empty(status);
    let mut set = |name, value| answer.headers_mut().insert(name, HeaderValue::from_static(value));
    set(header::CONTENT_TYPE, content_type);
    set(header::CACHE_CONTROL, "no-store");
    *answer.body_mut() = body;
    answer
}

/// An answer without a body.
pub(super) fn empty(status: StatusCode) -> Answer {
    let mut answer = Answer::default();
    *answer.status_mut() = status;
    answer
}

/// The bytes of an answer to this request. None: the request could not be understood.
pub(super) fn encode(answer: &Answer, request: Option<&Request<()>>) -> Vec<u8> {
    let version = request.map_or(Version::HTTP_11, Request::version);
    let mut bytes = format!("{version:?} {}\r\n", answer.status()).into_bytes();
    let mut put = |name: &HeaderName, value: &[u8]| {
        bytes.extend([name.as_str().as_bytes(), b": ", value, b"\r\n"].concat());
    };
    for (name, value) in answer.headers() {
        put(name, value.as_bytes());
    }
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        put(&header::CONTENT_LENGTH, answer.body().len().to_string().as_bytes());
        put(&header::CONNECTION, b"close");
    }
    put(&header::DATE, date().as_bytes());
    bytes.extend(b"\r\n");
    if request.is_none_or(|request| request.method() != Method::HEAD) {
        bytes.extend(answer.body().as_bytes());
    }
    bytes
}

/// The date, for caches and people (RFC 9110, section 6.6.1). Nothing is decided by it.
#[expect(clippy::disallowed_methods, reason = "a date is what the wall clock says")]
fn date() -> String {
    httpdate::fmt_http_date(SystemTime::now())
}
