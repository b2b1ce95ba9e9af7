//! Why a connection to a relay, or an answer, did not come about.

use std::fmt;
use std::io;
use std::net::SocketAddr;

use http::StatusCode;

/// A failure, with what a diagnosis needs to know of it.
///
/// Its text is one line without the query of the URL.
#[derive(Debug)]
pub enum Failure {
    /// The name has no address.
    Lookup { host: String, error: io::Error },
    /// No address accepts. The last one gave this error.
    Connect { address: SocketAddr, error: io::Error },
    /// The TLS handshake failed.
    #[cfg(feature = "client")]
    Tls(io::Error),
    /// This build has no TLS.
    #[cfg(not(feature = "client"))]
    NoTls,
    /// Something else than a WebSocket was the answer.
    #[cfg(feature = "client")]
    Refused(Answer),
    /// The answer is not as HTTP or RFC 6455 wants it.
    Malformed(String),
    /// The connection failed, or ended early.
    Stream(io::Error),
    /// The time is over.
    Timeout,
}

/// An answer to a request.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    /// The value of `Location`, if there is one.
    #[cfg(feature = "client")]
    pub location: Option<String>,
    /// The seconds of `Retry-After`, if it has some.
    #[cfg(feature = "client")]
    pub retry_after: Option<u64>,
    /// The first line of the body, without control characters.
    pub line: String,
}

/// The most characters of a body that are shown.
const SHOWN: usize = 200;

impl Answer {
    /// The first line of a body, as far as a terminal and a log may show it.
    pub fn line_of(body: &[u8]) -> String {
        let text = String::from_utf8_lossy(body);
        let line = text.trim_start().lines().next().unwrap_or_default();
        line.chars().filter(|c| !c.is_control()).take(SHOWN).collect::<String>().trim_end().to_owned()
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} {}", self.status.as_str(), self.line)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lookup { host, error } => write!(out, "cannot look up {host}: {error}"),
            Self::Connect { address, error } => write!(out, "cannot connect to {address}: {error}"),
            #[cfg(feature = "client")]
            Self::Tls(error) => write!(out, "no TLS: {error}"),
            #[cfg(not(feature = "client"))]
            Self::NoTls => out.write_str("TLS needs a build with the feature client"),
            #[cfg(feature = "client")]
            Self::Refused(answer) => write!(out, "refused with {answer}"),
            Self::Malformed(what) => out.write_str(what),
            Self::Stream(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                out.write_str("the connection was closed without an answer")
            }
            Self::Stream(error) => write!(out, "the connection failed: {error}"),
            Self::Timeout => out.write_str("no answer in time"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_of_a_body_is_short_and_harmless() {
        let long = "x".repeat(1000);
        for (body, expected) in [
            ("ready\n", "ready"),
            ("", ""),
            ("\r\n  <html>\r\n<head>", "<html>"),
            ("\u{1b}[31mred\u{7}\nnext", "[31mred"),
            (&*long, &long[..SHOWN]),
        ] {
            assert_eq!(Answer::line_of(body.as_bytes()), expected);
        }
        assert_eq!(Answer::line_of(b"caf\xE9"), "caf\u{fffd}");
    }
}
