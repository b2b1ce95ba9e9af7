//! Answers to requests, and how they are written.

use std::time::SystemTime;

use http::{StatusCode, Version};

/// An answer to a request. It is the last on its connection: behind it come frames, or the end.
#[derive(Debug)]
pub(crate) struct Answer {
    status: StatusCode,
    /// The status line of HTTP/1.1, and the lines of its own fields.
    head: Vec<u8>,
    body: String,
    /// The rest of the body. It is written from where it is: a slow reader does not hold a copy.
    rest: &'static str,
}

/// What the form of an answer takes from the request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Form {
    pub(crate) version: Version,
    /// Whether the body is left out, as `HEAD` wants it.
    pub(crate) is_bare: bool,
}

impl Form {
    /// The form of an answer to a request that could not be understood.
    pub(crate) const UNKNOWN: Self = Self { version: Version::HTTP_11, is_bare: false };
}

/// Where the status line has the digit in which the versions of HTTP/1 differ.
const MINOR_VERSION: usize = "HTTP/1.".len();

/// Room for the heads of most answers, in bytes.
const HEAD: usize = 256;

impl Answer {
    /// An answer without a body.
    pub(crate) fn empty(status: StatusCode) -> Self {
        let mut head = Vec::with_capacity(HEAD);
        let reason = status.canonical_reason().unwrap_or_default();
        for part in ["HTTP/1.1 ", status.as_str(), " ", reason, "\r\n"] {
            head.extend_from_slice(part.as_bytes());
        }
        Self { status, head, body: String::new(), rest: "" }
    }

    /// An answer with a body. It is not to be cached, as a 404 may be by default (RFC 9110, section 15.1).
    pub(crate) fn with_body(status: StatusCode, content_type: &str, body: String) -> Self {
        let answer = Self { body, ..Self::empty(status) };
        answer.with_field("content-type", content_type.as_bytes()).with_field("cache-control", b"no-store")
    }

    /// An answer with a body that is part of the program.
    pub(crate) fn with_static_body(status: StatusCode, content_type: &str, body: &'static str) -> Self {
        Self { rest: body, ..Self::with_body(status, content_type, String::new()) }
    }

    /// An answer with one line of text as its body.
    pub(crate) fn with_line(status: StatusCode, line: &str) -> Self {
        Self::with_body(status, "text/plain; charset=utf-8", format!("{line}\n"))
    }

    /// The answer with one more field. The value must have no end of a line.
    pub(crate) fn with_field(mut self, name: &str, value: &[u8]) -> Self {
        put(&mut self.head, name, value);
        self
    }

    /// The bytes of the answer in this form, up to its [rest](Self::rest).
    pub(crate) fn encode(self, form: Form) -> Vec<u8> {
        let mut bytes = self.head;
        if form.version == Version::HTTP_10 {
            bytes[MINOR_VERSION] = b'0';
        }
        // An answer of the class 1xx needs no date (RFC 9110, section 6.6.1), and the rest is for the others.
        if self.status != StatusCode::SWITCHING_PROTOCOLS {
            put(&mut bytes, "content-length", (self.body.len() + self.rest.len()).to_string().as_bytes());
            put(&mut bytes, "connection", b"close");
            put(&mut bytes, "date", date().as_bytes());
        }
        bytes.extend_from_slice(b"\r\n");
        if !form.is_bare {
            bytes.extend_from_slice(self.body.as_bytes());
        }
        bytes
    }

    /// What follows the [encoded](Self::encode) bytes.
    pub(crate) fn rest(&self, form: Form) -> &'static [u8] {
        if form.is_bare { &[] } else { self.rest.as_bytes() }
    }
}

/// Appends the line of a field.
fn put(bytes: &mut Vec<u8>, name: &str, value: &[u8]) {
    for part in [name.as_bytes(), b": ", value, b"\r\n"] {
        bytes.extend_from_slice(part);
    }
}

/// The date, for caches and people (RFC 9110, section 6.6.1). Nothing is decided by it.
#[expect(clippy::disallowed_methods, reason = "a date is what the wall clock says")]
fn date() -> String {
    httpdate::fmt_http_date(SystemTime::now())
}
