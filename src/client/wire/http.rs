//! One request of HTTP/1.1 and its answer.

use std::io;

use futures_lite::{AsyncReadExt, AsyncWriteExt};
use http::StatusCode;

use super::failure::{Answer, Failure};
use super::stream::Stream;
use super::target::Target;

/// The most bytes of an answer that are read. The relay's have less than 300.
const LONGEST: usize = 16 << 10;

/// The most fields of an answer.
const MOST_FIELDS: usize = 64;

/// An answer, and what was read of its body.
#[derive(Debug)]
pub struct Response {
    pub status: StatusCode,
    fields: Vec<(String, String)>,
    /// The bytes behind the head: of an upgrade the first frames, of all others the body.
    pub rest: Vec<u8>,
}

/// The head of a request for the target's path and query, without the empty line at its end.
pub fn head(target: &Target, more: &str) -> String {
    format!(
        "GET {} HTTP/1.1\r\nHost: {}\r\nUser-Agent: arc-relay/{}\r\n",
        target.path_and_query(more),
        target.authority(),
        env!("CARGO_PKG_VERSION"),
    )
}

/// Sends `GET` for the target's path, and reads the answer.
///
/// The connection has no other request. `preamble` comes before it.
pub async fn get(stream: &mut dyn Stream, target: &Target, preamble: &str) -> Result<Answer, Failure> {
    let head = head(target, "");
    let response = exchange(stream, &format!("{preamble}{head}Accept: */*\r\nConnection: close\r\n\r\n")).await?;
    Ok(response.into_answer())
}

/// Sends a request, and reads the answer: of an upgrade the head, of all others the body, too.
pub async fn exchange(stream: &mut dyn Stream, request: &str) -> Result<Response, Failure> {
    stream.write_all(request.as_bytes()).await.map_err(Failure::Stream)?;
    stream.flush().await.map_err(Failure::Stream)?;
    let mut bytes = Vec::new();
    loop {
        let mut chunk = [0; 2048];
        let count = match stream.read(&mut chunk).await {
            Ok(count) => count,
            // A server may end TLS, or reset the connection, right behind its answer.
            Err(_) if !bytes.is_empty() => 0,
            Err(error) => return Err(Failure::Stream(error)),
        };
        bytes.extend_from_slice(&chunk[..count]);
        let is_last = count == 0 || bytes.len() >= LONGEST;
        match parse(&bytes)? {
            Some(response) if is_last || response.is_whole() => return Ok(response),
            None if is_last => return Err(Failure::Stream(io::ErrorKind::UnexpectedEof.into())),
            _ => {}
        }
    }
}

/// Parses an answer. None: its head is not whole.
fn parse(bytes: &[u8]) -> Result<Option<Response>, Failure> {
    let malformed = || Failure::Malformed(String::from("the answer is not HTTP"));
    let mut fields = [httparse::EMPTY_HEADER; MOST_FIELDS];
    let mut response = httparse::Response::new(&mut fields);
    let httparse::Status::Complete(head) = response.parse(bytes).map_err(|_| malformed())? else { return Ok(None) };
    let status = response.code.and_then(|code| StatusCode::from_u16(code).ok()).ok_or_else(malformed)?;
    let fields = response.headers.iter();
    let fields = fields.map(|field| (field.name.to_owned(), String::from_utf8_lossy(field.value).into_owned()));
    Ok(Some(Response { status, fields: fields.collect(), rest: bytes[head..].to_vec() }))
}

impl Response {
    /// The value of the first field with this name.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(other, _)| other.eq_ignore_ascii_case(name)).map(|(_, value)| &**value)
    }

    /// What a failed request is told by.
    pub fn into_answer(self) -> Answer {
        Answer {
            status: self.status,
            #[cfg(feature = "client")]
            location: self.field("location").map(str::to_owned),
            #[cfg(feature = "client")]
            retry_after: self.field("retry-after").and_then(|seconds| seconds.trim().parse().ok()),
            line: Answer::line_of(&self.rest),
        }
    }

    fn is_whole(&self) -> bool {
        let length = self.field("content-length").and_then(|length| length.parse::<usize>().ok());
        self.status == StatusCode::SWITCHING_PROTOCOLS || length.is_some_and(|length| self.rest.len() >= length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(answer: &str) -> Option<Response> {
        parse(answer.as_bytes()).expect("HTTP")
    }

    #[test]
    fn answer_is_whole_with_its_body() {
        let answer = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\nX: y\r\n\r\nready\n";
        for end in 0..answer.len() {
            assert!(parsed(&answer[..end]).is_none_or(|response| !response.is_whole()), "{end}");
        }
        let response = parsed(answer).expect("a head");
        assert!(response.is_whole());
        assert_eq!((response.field("x"), response.field("y")), (Some("y"), None));
        let answer = response.into_answer();
        assert_eq!((answer.status.as_u16(), &*answer.line), (200, "ready"));
        let unbounded = parsed("HTTP/1.1 200 OK\r\n\r\nready\n").expect("a head");
        assert!(!unbounded.is_whole(), "the end of the stream is the end of the body");
    }

    #[test]
    fn upgrade_is_whole_with_its_head() {
        let response =
            parsed("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n\u{2}\u{0}").expect("a head");
        assert!(response.is_whole());
        assert_eq!(response.rest, [2, 0]);
    }

    #[test]
    fn other_protocols_are_malformed() {
        for answer in ["SSH-2.0-OpenSSH\r\n", "\u{15}\u{3}\u{1}", "HTTP/1.1 99999 x\r\n\r\n"] {
            assert!(matches!(parse(answer.as_bytes()), Err(Failure::Malformed(_))), "{answer:?}");
        }
    }
}
