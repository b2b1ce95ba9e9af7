//! The PROXY protocol: the header with which a TCP proxy names the client of a connection.
//!
//! proxy-header parses it. This file bounds how much is read, rejects headers that proxy-header takes and the
//! [specification](https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt) does not, and keeps the bytes behind it.

use std::io::{self, ErrorKind};
use std::net::IpAddr;

use futures_lite::{AsyncRead, AsyncReadExt};
use proxy_header::{Error, ParseConfig, ProxyHeader};

/// How long a header may be, in bytes.
///
/// It is the least that a receiver of version 2 has to accept, and five times the longest header of version 1.
const LONGEST: usize = 536;

/// How long a header of version 1 may be, in bytes, with its CRLF (section 2.1 of the specification).
const LONGEST_LINE: usize = 107;

/// The beginnings of headers of version 1 and 2.
///
/// In version 2, the length of the rest is behind two more bytes.
const BEGINNINGS: [&[u8]; 2] = [b"PROXY ", b"\r\n\r\n\0\r\nQUIT\n"];
const LENGTH_AT: usize = 14;

/// The fields behind the addresses (TLVs) are skipped.
const CONFIG: ParseConfig = ParseConfig { include_tlvs: false, allow_v1: true, allow_v2: true };

/// The header of a connection, and what was read behind it.
#[derive(PartialEq, Eq)]
pub(super) struct Preamble {
    /// The address of the client. None: the connection is the proxy's own.
    pub(super) source: Option<IpAddr>,
    /// The bytes that were read behind the header.
    pub(super) read_ahead: Vec<u8>,
}

/// Reads the header.
///
/// # Errors
///
/// [`ErrorKind::InvalidData`] if the header is missing or malformed. Any other: the stream has failed or ended.
pub(super) async fn read(mut stream: impl AsyncRead + Unpin) -> io::Result<Preamble> {
    let no_header = || Err(ErrorKind::InvalidData.into());
    let mut bytes = [0; LONGEST];
    let mut count = 0;
    loop {
        if count == LONGEST {
            return no_header();
        }
        match stream.read(&mut bytes[count..]).await? {
            0 => return Err(ErrorKind::UnexpectedEof.into()),
            more => count += more,
        }
        let read = &bytes[..count];
        if !may_be_header(read) {
            return no_header();
        }
        match ProxyHeader::parse(read, CONFIG) {
            Ok((header, length)) if is_strict(&read[..length]) => {
                let source = header.proxied_address().map(|addresses| addresses.source.ip());
                return Ok(Preamble { source, read_ahead: read[length..].to_vec() });
            }
            Err(Error::BufferTooShort) => {}
            Ok(_) | Err(_) => return no_header(),
        }
    }
}

/// Whether a parsed header of version 1 is as in section 2.1 of the specification.
///
/// proxy-header takes ports with a sign or with leading zeros, a longer line, and anything that begins with `UNKNOWN`. No
/// proxy sends such a line: a client does, or another receiver reads it in another way.
fn is_strict(header: &[u8]) -> bool {
    let line = header.strip_prefix(BEGINNINGS[0]).and_then(|line| line.strip_suffix(b"\r\n"));
    let Some(line) = line else { return header.starts_with(BEGINNINGS[1]) };
    let mut fields = line.split(|&byte| byte == b' ');
    let has_its_form = match fields.next() {
        Some(b"UNKNOWN") => true,                                  // the rest is ignored
        Some(b"TCP4" | b"TCP6") => fields.skip(2).all(is_decimal), // two ports, behind two addresses
        _ => false,
    };
    header.len() <= LONGEST_LINE && has_its_form
}

/// Whether a parsed number is written as digits without leading zeros.
fn is_decimal(number: &[u8]) -> bool {
    number.iter().all(u8::is_ascii_digit) && (number.len() == 1 || !number.starts_with(b"0"))
}

/// Whether this is a header that is not too long, or the beginning of one. Nothing else is waited for.
fn may_be_header(bytes: &[u8]) -> bool {
    let begins = |beginning: &&[u8]| bytes.iter().zip(*beginning).all(|(byte, of_header)| byte == of_header);
    let rest = match bytes {
        [b'\r', ..] => bytes.get(LENGTH_AT..).and_then(<[u8]>::first_chunk),
        _ => None,
    };
    BEGINNINGS.iter().any(begins)
        && rest.is_none_or(|&rest| LENGTH_AT + 2 + usize::from(u16::from_be_bytes(rest)) <= LONGEST)
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_lite::future::block_on;
    use futures_lite::io::Cursor;
    use proptest::prelude::*;
    use std::pin::Pin;
    use std::task::{Context, Poll};

    /// A stream that gives pieces of this length.
    struct Pieces {
        sent: Cursor<Vec<u8>>,
        length: usize,
    }

    impl AsyncRead for Pieces {
        fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
            let length = self.length.min(buffer.len());
            Pin::new(&mut self.sent).poll_read(cx, &mut buffer[..length])
        }
    }

    /// The source that a stream in pieces of this length names, and the bytes behind the header.
    fn read_of(sent: &[u8], length: usize) -> Option<(Option<IpAddr>, Vec<u8>)> {
        let mut pieces = Pieces { sent: Cursor::new(sent.to_vec()), length };
        let Preamble { source, read_ahead } = block_on(read(&mut pieces)).ok()?;
        let left = &sent[usize::try_from(pieces.sent.position()).unwrap()..];
        Some((source, [&read_ahead[..], left].concat()))
    }

    fn version_2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
        [BEGINNINGS[1], &[0x20 | command, family], &length, rest].concat()
    }

    const V4: [u8; 12] = [1, 1, 1, 1, 127, 0, 0, 1, 0, 80, 0, 80];
    const BEHIND: &[u8] = b"GET / HTTP/1.1\r\nX: \r\n\r\n";

    /// Headers, and the source that they name.
    fn headers() -> Vec<(Vec<u8>, Option<&'static str>)> {
        let v6 = [&[0x20, 1, 0xD, 0xB8][..], &[0; 11], &[1], &[0; 16], &[0, 80, 0, 80]].concat();
        vec![
            (b"PROXY TCP4 1.1.1.1 127.0.0.1 80 80\r\n".to_vec(), Some("1.1.1.1")),
            (b"PROXY TCP6 2001:db8::1 ::1 80 80\r\n".to_vec(), Some("2001:db8::1")),
            (b"PROXY TCP4 1.1.1.1 127.0.0.1 0 65535\r\n".to_vec(), Some("1.1.1.1")),
            // As inet_ntop, and so HAProxy, writes an IPv4-mapped address.
            (b"PROXY TCP6 ::ffff:1.1.1.1 ::1 80 80\r\n".to_vec(), Some("::ffff:1.1.1.1")),
            (b"PROXY UNKNOWN\r\n".to_vec(), None),
            // Everything behind UNKNOWN is ignored, up to the longest line.
            (b"PROXY UNKNOWN  +80 \n\0\r\n".to_vec(), None),
            ([b"PROXY UNKNOWN ", &[b'x'; LONGEST_LINE - 16][..], b"\r\n"].concat(), None),
            (b"PROXY UNKNOWN 1.1.1.1 127.0.0.1 80 80\r\n".to_vec(), None),
            (version_2(1, 0x11, &V4), Some("1.1.1.1")),
            (version_2(1, 0x21, &v6), Some("2001:db8::1")),
            (version_2(0, 0x00, &[]), None),
            (version_2(0, 0x11, &V4), None),
            (version_2(1, 0x00, &[]), None),
            (version_2(1, 0x31, &[0; 216]), None),
            (version_2(1, 0x11, &[&V4[..], &[4; 508]].concat()), Some("1.1.1.1")),
        ]
    }

    #[test]
    fn bytes_behind_a_header_are_kept() {
        for (header, source) in headers() {
            let source = source.map(|source| source.parse().unwrap());
            let sent = [&header, BEHIND].concat();
            for length in [1, 2, 15, 16, 17, header.len() - 1, header.len(), header.len() + 1, sent.len()] {
                assert_eq!(read_of(&sent, length), Some((source, BEHIND.to_vec())), "{header:x?} by {length}");
            }
        }
    }

    #[test]
    fn anything_else_is_no_header() {
        let too_long = [b"PROXY UNKNOWN ", &[b'x'; LONGEST_LINE - 15][..], b"\r\n"].concat();
        let long = [b"PROXY UNKNOWN", &[b' '; LONGEST][..], b"\r\n"].concat();
        for sent in [
            &b""[..],
            BEHIND,
            b"PROXY",
            b"PROXY TCP4 1.1.1.1 127.0.0.1 80 80\n",
            b"PROXY TCP4 1.1.1 127.0.0.1 80 80\r\n",
            b"PROXY TCP4 ::1 ::1 80 80\r\n",
            b"PROXY TCP6 1.1.1.1 127.0.0.1 80 80\r\n",
            b"PROXY TCP4 1.1.1.1 127.0.0.1 80 65536\r\n",
            b"PROXY TCP4 1.1.1.1 127.0.0.1 +80 80\r\n",
            b"PROXY TCP4 1.1.1.1 127.0.0.1 80 +80\r\n",
            b"PROXY TCP4 1.1.1.1 127.0.0.1 080 80\r\n",
            b"PROXY TCP4 1.1.1.1 127.0.0.1 80 00\r\n",
            b"PROXY TCP4 1.1.1.1 127.0.0.1 -0 80\r\n",
            b"PROXY TCP4 1.1.1.1 127.0.0.1 80 \r\n",
            b"PROXY TCP4 1.1.1.1 127.0.0.1 80 80 \r\n",
            b"PROXY TCP4 1.1.1.1 127.0.0.1 80 80 80\r\n",
            b"PROXY TCP4 1.1.1.1 127.0.0.1 80  80\r\n",
            b"PROXY TCP4  1.1.1.1 127.0.0.1 80 80\r\n",
            b"PROXY  TCP4 1.1.1.1 127.0.0.1 80 80\r\n",
            b"PROXY TCP4 1.1.1.01 127.0.0.1 80 80\r\n",
            b"PROXY TCP4 1.1.1.1 127.0.0.1 80 80\rX\n",
            b"PROXY TCP6 fe80::1%1 ::1 80 80\r\n",
            b"PROXY TCP6 00001::1 ::1 80 80\r\n",
            b"PROXY TCP6 [::1] ::1 80 80\r\n",
            b"PROXY UNKNOWNX\r\n",
            b"PROXY UNKNOWN\n\r\n",
            &too_long,
            b"proxy TCP4 1.1.1.1 127.0.0.1 80 80\r\n",
            b"PROXY\tTCP4 1.1.1.1 127.0.0.1 80 80\r\n",
            b"PROXY UDP4 1.1.1.1 127.0.0.1 80 80\r\n",
            &long,
            &version_2(1, 0x11, &V4[..11]),
            &version_2(2, 0x11, &V4),
            &version_2(1, 0x41, &V4),
            &version_2(1, 0x11, &[0; LONGEST - 15]),
            &version_2(1, 0x11, &V4)[..27],
        ] {
            for length in [1, 7, 16, LONGEST] {
                assert_eq!(read_of(sent, length), None, "{:?}", sent.escape_ascii().to_string());
            }
        }
    }

    #[test]
    fn the_end_of_the_stream_within_a_header_is_not_invalid_data() {
        let error = |sent: &[u8]| block_on(read(&mut Cursor::new(sent.to_vec()))).err().map(|error| error.kind());
        for (header, _) in headers() {
            assert_eq!(error(&header[..header.len() - 1]), Some(ErrorKind::UnexpectedEof));
        }
        assert_eq!((error(b""), error(BEHIND)), (Some(ErrorKind::UnexpectedEof), Some(ErrorKind::InvalidData)));
    }

    #[test]
    fn a_wrong_beginning_is_not_waited_for() {
        let too_long = [BEGINNINGS[1], &[0x21, 0x11, 0x02, 0x09]].concat();
        for sent in [&b"G"[..], b"POST", b"PROXY\r", b"\r\nGET", &too_long] {
            assert!(!may_be_header(sent), "{sent:x?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_alike_in_any_pieces(start in 0..3_usize, sent in prop::collection::vec(any::<u8>(), 0..600), length in 1..600_usize) {
            let beginning = [&b""[..], b"PROXY TCP4 ", b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00"][start];
            let sent = [beginning, &sent].concat();
            prop_assert_eq!(read_of(&sent, length), read_of(&sent, 1));
        }
    }
}
