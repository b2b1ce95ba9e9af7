//! The head of a request: its end is found, its size is bounded, and it is parsed.
//!
//! httparse is the parser. It takes a line feed alone for the end of a line, as RFC 9112, section 2.2, allows. A proxy in
//! front may not, and then sees other requests in the same bytes than the relay: request smuggling. So a head with a bare
//! line feed is rejected before it is parsed.
//!
//! There is one request on a connection. What is behind its head are frames, a body, or another request, and never
//! looked at here.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::mem::{self, MaybeUninit};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_lite::AsyncRead;
use http::{Uri, Version};
use httparse::{Error, Header, Status};
use memchr::memchr_iter;

use super::fields::Fields;
use super::rejection::Rejected;
use crate::buffers::buffer::HEADROOM;
use crate::buffers::pool::SMALLEST;
use crate::runtime::sync::thread_local;
use crate::telemetry::rejection::Rejection;

/// How large the head of a request may be, in bytes. Browsers with many cookies send half of it.
const HEAD_SIZE: usize = 16 * 1024;

/// How many fields a head may have.
const HEAD_FIELDS: usize = 100;

/// How much is read at a time, in bytes.
///
/// The bytes behind a head come from the same read, so that they have room in the smallest buffer.
const PIECE: usize = SMALLEST - HEADROOM;

/// The head that HTTP/2 begins with (RFC 9113, section 3.4). Its client could read no answer.
const HTTP_2: &[u8] = b"PRI * HTTP/2.0\r\n\r\n";

thread_local! {
    /// Room for a read, which is zeroed only once. No client's bytes stay here beyond a read.
    static ROOM: RefCell<[u8; PIECE]> = const { RefCell::new([0; PIECE]) };
}

/// The bytes of a head, and those that were read behind it.
#[derive(Debug)]
pub(crate) struct Head {
    bytes: Vec<u8>,
    pub(super) read_ahead: Vec<u8>,
}

/// Room for the fields of a head.
pub(crate) type FieldRoom<'a> = [MaybeUninit<Header<'a>>; HEAD_FIELDS];

/// Room for the fields of a head, which costs nothing to make.
pub(crate) fn field_room<'a>() -> FieldRoom<'a> {
    [const { MaybeUninit::uninit() }; HEAD_FIELDS]
}

/// A request, in the bytes of its head.
#[derive(Debug)]
pub(crate) struct Request<'a> {
    pub(crate) method: &'a str,
    pub(crate) uri: Uri,
    pub(crate) version: Version,
    pub(crate) fields: Fields<'a>,
}

impl Head {
    /// Parses the head.
    pub(crate) fn parse<'a>(&'a self, room: &'a mut FieldRoom<'a>) -> Result<Request<'a>, Rejected> {
        parse(&self.bytes, room)?.ok_or_else(|| Rejection::Malformed.into())
    }
}

/// Reads a head, which begins with the bytes that were `read` already.
///
/// # Errors
///
/// The outer one is the stream's, which may have ended. The inner one rejects the request.
pub(crate) async fn read(
    stream: &mut (impl AsyncRead + Unpin),
    mut read: Vec<u8>,
) -> io::Result<Result<Head, Rejected>> {
    let mut scanner = Scanner::default();
    let mut is_parsed = false;
    loop {
        match scanner.scan(&read) {
            Scan::End(length) if length <= HEAD_SIZE => {
                let read_ahead = read.split_off(length);
                return Ok(Ok(Head { bytes: read, read_ahead }));
            }
            Scan::BareLineFeed => return Ok(Err(Rejection::Malformed.into())),
            Scan::Partial if read.len() < HEAD_SIZE => {}
            Scan::End(_) | Scan::Partial => return Ok(Err(Rejected::head_too_large())),
        }
        // A TLS client waits for an answer before it sends more. Only the first piece is parsed before the end of the
        // head: to parse after each byte would be quadratic.
        if !read.is_empty()
            && !mem::replace(&mut is_parsed, true)
            && let Err(rejected) = parse(&read, &mut field_room())
        {
            return Ok(Err(rejected));
        }
        read_piece(stream, &mut read).await?;
    }
}

/// Reads the next bytes, at most [`PIECE`].
pub(super) async fn read_piece(stream: &mut (impl AsyncRead + Unpin), read: &mut Vec<u8>) -> io::Result<()> {
    // Not in the future: a client that pauses within a head costs what it has sent.
    let mut poll_read = |cx: &mut Context<'_>, room: &mut [u8]| {
        let count = ready!(Pin::new(&mut *stream).poll_read(cx, room))?;
        read.extend_from_slice(&room[..count]);
        room[..count].fill(0);
        Poll::Ready(if count == 0 { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) })
    };
    poll_fn(|cx| ROOM.with(|room| poll_read(cx, &mut *room.borrow_mut()))).await
}

/// Finds the end of a head, in bytes that become more.
#[derive(Debug, Default)]
struct Scanner {
    /// How many bytes were scanned.
    scanned: usize,
    /// Where the present line begins.
    line: usize,
    /// Whether a line was not empty. Empty lines in front are skipped (RFC 9112, section 2.2).
    has_begun: bool,
}

/// What a [`Scanner`] has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scan {
    /// The head has no end yet.
    Partial,
    /// The head has this length, with the empty line at its end.
    End(usize),
    /// A line feed without a carriage return.
    BareLineFeed,
}

impl Scanner {
    /// Scans what was added to these bytes since the last time.
    fn scan(&mut self, bytes: &[u8]) -> Scan {
        for at in memchr_iter(b'\n', &bytes[self.scanned..]).map(|at| self.scanned + at) {
            if at == self.line || bytes[at - 1] != b'\r' {
                return Scan::BareLineFeed;
            }
            let is_empty = at - 1 == self.line;
            if is_empty && self.has_begun {
                return Scan::End(at + 1);
            }
            self.has_begun |= !is_empty;
            self.line = at + 1;
        }
        self.scanned = bytes.len();
        Scan::Partial
    }
}

/// Parses a head, or its beginning, for which there is no request yet.
fn parse<'a>(bytes: &'a [u8], room: &'a mut FieldRoom<'a>) -> Result<Option<Request<'a>>, Rejected> {
    let mut head = httparse::Request::new(&mut []);
    match head.parse_with_uninit_headers(bytes, room) {
        Ok(Status::Complete(_)) => {}
        Ok(Status::Partial) => return Ok(None),
        Err(Error::Version) if bytes.starts_with(HTTP_2) => return Err(Rejected::unanswered(Rejection::Malformed)),
        Err(Error::TooManyHeaders) => return Err(Rejected::head_too_large()),
        Err(_) => return Err(Rejection::Malformed.into()),
    }
    let version = if head.version == Some(0) { Version::HTTP_10 } else { Version::HTTP_11 };
    let uri = Uri::try_from(head.path.unwrap_or_default()).map_err(|_| Rejection::Malformed)?;
    let request = Request { method: head.method.unwrap_or_default(), uri, version, fields: Fields(head.headers) };
    if has_definite_length(&request) { Ok(Some(request)) } else { Err(Rejection::Malformed.into()) }
}

/// Whether the length of the body is certain (RFC 9112, section 6.3).
///
/// A proxy in front could otherwise find another length.
fn has_definite_length(request: &Request<'_>) -> bool {
    let mut lengths = request.fields.all("content-length");
    if let Some(last) = request.fields.all("transfer-encoding").next_back() {
        let last = last.rsplit(|&byte| byte == b',').next().unwrap_or_default();
        let is_chunked = last.trim_ascii().eq_ignore_ascii_case(b"chunked");
        return request.version == Version::HTTP_11 && is_chunked && lengths.next().is_none();
    }
    let Some(first) = lengths.next() else { return true };
    !first.is_empty() && first.iter().all(u8::is_ascii_digit) && lengths.all(|length| length == first)
}

#[cfg(test)]
mod tests {
    use futures_lite::future::block_on;
    use futures_lite::io::Cursor;
    use http::StatusCode;
    use proptest::prelude::*;

    use super::*;

    /// A stream that gives no more than this at a time.
    struct Pieces(Cursor<Vec<u8>>, usize);

    impl AsyncRead for Pieces {
        fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
            let length = self.1.min(buffer.len());
            Pin::new(&mut self.0).poll_read(cx, &mut buffer[..length])
        }
    }

    /// Reads and parses the head of the bytes `before` and of those `sent` in pieces.
    ///
    /// Also returns the unread bytes.
    fn read_head(before: &[u8], sent: &[u8], size: usize) -> (io::Result<Result<Head, Rejected>>, Vec<u8>) {
        let mut pieces = Pieces(Cursor::new(sent.to_vec()), size);
        let head = block_on(read(&mut pieces, before.to_vec()));
        let head = head.map(|head| head.and_then(|head| head.parse(&mut field_room()).map(drop).map(|()| head)));
        let at = usize::try_from(pieces.0.position()).unwrap();
        (head, sent[at..].to_vec())
    }

    /// The status with which these bytes are rejected. None: there is no answer, or no rejection.
    fn status(sent: &[u8], size: usize) -> Option<StatusCode> {
        read_head(b"", sent, size).0.ok()?.err()?.status
    }

    /// A head, perhaps behind empty lines, in which each line ends in CRLF.
    fn head() -> impl Strategy<Value = String> {
        (0..3_usize, "[A-Z]{1,9} /[a-z]{1,9}", prop::collection::vec("[a-z]{1,9}: ?[!-~]{0,9}", 0..4)).prop_map(
            |(empty, line, fields)| {
                let lines: String = fields.iter().map(|field| format!("x-{field}\r\n")).collect();
                format!("{}{line} HTTP/1.1\r\n{lines}\r\n", "\r\n".repeat(empty))
            },
        )
    }

    /// Bytes that look like ends of lines more often than chance would have it.
    fn behind() -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(prop_oneof![Just(b'\r'), Just(b'\n'), any::<u8>()], 0..60)
    }

    proptest! {
        #[test]
        fn bytes_behind_a_head_are_unchanged(
            head in head(),
            behind in behind(),
            split: prop::sample::Index,
            size in 1..70_usize,
        ) {
            let sent = [head.as_bytes(), &behind].concat();
            let (before, sent) = sent.split_at(split.index(sent.len() + 1));
            let (result, unread) = read_head(before, sent, size);
            let read_ahead = result.unwrap().unwrap().read_ahead;
            prop_assert_eq!([read_ahead, unread].concat(), behind);
        }

        #[test]
        fn a_bare_line_feed_is_rejected_wherever_it_is(head in head(), at: prop::sample::Index, removes: bool, size in 1..70_usize) {
            let mut sent = head.into_bytes();
            if removes {
                // The carriage return in front of it is missing.
                let ends: Vec<_> = (0..sent.len()).filter(|&at| sent[at] == b'\r').collect();
                sent.remove(ends[at.index(ends.len())]);
            } else {
                // It stands anywhere but behind a carriage return, where it would end the line.
                let places: Vec<_> = (0..sent.len()).filter(|&at| at == 0 || sent[at - 1] != b'\r').collect();
                sent.insert(places[at.index(places.len())], b'\n');
            }
            prop_assert_eq!(status(&sent, size), Some(StatusCode::BAD_REQUEST));
        }

        #[test]
        fn any_bytes_are_read_alike_in_any_pieces(sent in prop_oneof![behind(), prop::collection::vec(any::<u8>(), 0..99)]) {
            let sent = [&sent[..], b"\r\n\r\n\r\n"].concat();
            prop_assert_eq!(status(&sent, 1), status(&sent, sent.len()));
        }
    }

    #[test]
    fn what_is_behind_a_head_has_room_in_the_smallest_buffer() {
        let sent = [&b"GET / HTTP/1.1\r\n\r\n"[..], &[7; 100_000]].concat();
        let head = read_head(b"", &sent, usize::MAX).0.unwrap().unwrap();
        assert_eq!(head.read_ahead.len() + 18 + HEADROOM, SMALLEST);
    }

    #[test]
    fn http_2_is_rejected_without_an_answer() {
        let sent = [HTTP_2, b"SM\r\n\r\n"].concat();
        for size in [1, 18, 24] {
            let rejected = read_head(b"", &sent, size).0.unwrap().unwrap_err();
            assert!(rejected.status.is_none(), "{size}");
        }
    }

    #[test]
    fn a_body_of_indefinite_length_is_rejected() {
        let is_rejected = |version: &str, fields: &str| {
            let sent = format!("POST / HTTP/{version}\r\nHost: x\r\n{fields}\r\n\r\n");
            status(sent.as_bytes(), usize::MAX).is_some()
        };
        for fields in [
            "Content-Length: 1",
            "Content-Length: 1\r\nContent-Length: 1",
            "Transfer-Encoding: chunked",
            "Transfer-Encoding: gzip, Chunked",
            "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked",
        ] {
            assert!(!is_rejected("1.1", fields), "{fields}");
        }
        for fields in [
            "Content-Length: ",
            "Content-Length: x",
            "Content-Length: +1",
            "Content-Length: 1, 1",
            "Content-Length: 1\r\nContent-Length: 2",
            "Transfer-Encoding: chunked, gzip",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: gzip",
            "Transfer-Encoding: chunked\r\nContent-Length: 1",
        ] {
            assert!(is_rejected("1.1", fields), "{fields}");
        }
        assert!(is_rejected("1.0", "Transfer-Encoding: chunked"));
    }
}
