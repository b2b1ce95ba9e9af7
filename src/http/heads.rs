//! Where the heads of requests end, and that each of their lines ends in CRLF.
//!
//! hyper takes a line feed alone for the end of a line, as RFC 9112, section 2.2, allows. A proxy in front may not, and
//! then sees other requests in the same bytes than the relay: request smuggling. So this scanner stands between the
//! socket and hyper, and a bare line feed in a head becomes a byte that hyper refuses.
//!
//! A read ends where a head ends. What is behind it can be the next head, a body, or frames, which only the answer
//! decides; until the answer asks for [another](Heads::another) head, bytes are never looked at. The counterpart is
//! `Timed` in `deadline`, which keeps the bytes behind a head until then.

use std::cell::Cell;

/// The end of a head: of its last line, and an empty line.
const END: &[u8] = b"\r\n\r\n";

/// The beginning of HTTP/2 (RFC 9113, section 3.4). hyper refuses it without an answer, which its client could not read,
/// but has to see all of it at once.
const HTTP_2: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Follows the heads on a connection. It begins in front of the first.
#[derive(Debug, Default)]
pub(super) struct Heads {
    /// With how many bytes of [`END`] the bytes so far end. With all of them: the head has ended.
    matched: Cell<usize>,
    /// Whether anything but empty lines has come. Those in front of a request are skipped (RFC 9112, section 2.2).
    begun: Cell<bool>,
}

/// What hyper may have of some bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    /// How many of them: all, or those up to the end of a head.
    pub(super) length: usize,
    /// Whether the last of these is a bare line feed.
    pub(super) is_refused: bool,
}

impl Heads {
    /// Another head follows behind the one that has ended.
    pub(super) fn another(&self) {
        self.matched.set(0);
        self.begun.set(false);
    }

    /// Scans the bytes that come next. Those beyond the piece have to be scanned again.
    pub(super) fn scan(&self, bytes: &[u8]) -> Piece {
        let whole = Piece { length: bytes.len(), is_refused: false };
        if !self.begun.get() && bytes.starts_with(HTTP_2) {
            self.matched.set(END.len());
        }
        if self.matched.get() == END.len() {
            return whole;
        }
        for (length, &byte) in (1..).zip(bytes) {
            let is_refused = !self.take(byte);
            if is_refused || self.matched.get() == END.len() {
                self.matched.set(END.len());
                return Piece { length, is_refused };
            }
        }
        whole
    }

    /// Takes the next byte of a head, unless it is a bare line feed.
    fn take(&self, byte: u8) -> bool {
        let matched = self.matched.get();
        self.matched.set(match byte {
            _ if byte == END[matched] => matched + 1,
            b'\n' => return false,
            b'\r' => 1,
            _ => 0,
        });
        if !matches!(byte, b'\r' | b'\n') {
            self.begun.set(true);
        } else if byte == b'\n' && !self.begun.get() {
            self.matched.set(0); // an empty line in front is no end
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Scans in pieces of these lengths up to the first that is cut; returns how much that is, and whether it is refused.
    fn scan(heads: &Heads, bytes: &[u8], lengths: &[usize]) -> (usize, bool) {
        let (mut at, mut lengths) = (0, lengths.iter().cycle());
        while at < bytes.len() {
            let offered = &bytes[at..bytes.len().min(at + lengths.next().unwrap())];
            let Piece { length, is_refused } = heads.scan(offered);
            at += length;
            if is_refused || length < offered.len() {
                return (at, is_refused);
            }
        }
        (at, false)
    }

    /// A head, perhaps behind empty lines, in which each line ends in CRLF.
    fn head() -> impl Strategy<Value = String> {
        (0..3_usize, "[!-~]{1,9} [!-~]{1,9}", prop::collection::vec("[!-~]{1,9}: ?[ -~]{0,9}", 0..4)).prop_map(
            |(empty, line, fields)| {
                let lines: String = fields.iter().map(|field| format!("{field}\r\n")).collect();
                format!("{}{line}\r\n{lines}\r\n", "\r\n".repeat(empty))
            },
        )
    }

    fn lengths() -> impl Strategy<Value = Vec<usize>> {
        prop::collection::vec(1..40_usize, 1..9)
    }

    /// Bytes that look like ends of lines more often than chance would have it.
    fn behind() -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(prop_oneof![Just(b'\r'), Just(b'\n'), any::<u8>()], 0..60)
    }

    proptest! {
        #[test]
        fn heads_end_at_their_empty_line_and_what_is_behind_the_last_is_not_looked_at(
            all in prop::collection::vec(head(), 1..4),
            behind in behind(),
            lengths in lengths(),
        ) {
            let heads = Heads::default();
            let sent = [all.concat().as_bytes(), &behind].concat();
            let mut at = 0;
            for (nth, head) in all.iter().enumerate() {
                if nth > 0 {
                    heads.another();
                }
                prop_assert_eq!(scan(&heads, &sent[at..at + head.len()], &lengths), (head.len(), false));
                at += head.len();
            }
            prop_assert_eq!(scan(&heads, &behind, &lengths), (behind.len(), false));
        }

        #[test]
        fn a_piece_ends_where_a_head_does(head in head(), behind in behind(), lengths in lengths()) {
            let sent = [head.as_bytes(), &behind].concat();
            let (heads, mut lengths, mut at) = (Heads::default(), lengths.iter().cycle(), 0);
            while at < head.len() {
                let Piece { length, is_refused } = heads.scan(&sent[at..sent.len().min(at + lengths.next().unwrap())]);
                prop_assert!(!is_refused);
                at += length;
            }
            prop_assert_eq!(at, head.len());
        }

        #[test]
        fn a_bare_line_feed_is_found_wherever_it_is(head in head(), at: prop::sample::Index, removes: bool, lengths in lengths()) {
            let mut sent = head.into_bytes();
            let ends: Vec<_> = (0..sent.len()).filter(|&at| sent[at] == b'\r').collect();
            let at = if removes {
                // The carriage return in front of it is missing.
                let at = ends[at.index(ends.len())];
                sent.remove(at);
                at
            } else {
                // It stands anywhere but behind a carriage return, where it would end the line.
                let places: Vec<_> = (0..sent.len()).filter(|&at| at == 0 || sent[at - 1] != b'\r').collect();
                let at = places[at.index(places.len())];
                sent.insert(at, b'\n');
                at
            };
            prop_assert_eq!(scan(&Heads::default(), &sent, &lengths), (at + 1, true));
        }
    }

    #[test]
    fn the_beginning_of_http_2_is_passed_on_whole() {
        let length = |bytes: &[u8]| Heads::default().scan(bytes).length;
        let sent = [HTTP_2, b"\0\0\0\x04\n"].concat();
        assert_eq!(length(&sent), sent.len());
        // Not all of it: an ordinary head, and what is behind it.
        assert_eq!(length(&sent[..HTTP_2.len() - 1]), b"PRI * HTTP/2.0\r\n\r\n".len());
    }
}
