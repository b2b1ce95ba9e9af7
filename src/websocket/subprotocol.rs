//! The subprotocol `arc-relay.v1`: text messages between the relay and one client, each a JSON object.
//!
//! A client that offers it is told what the relay otherwise keeps to itself. No such message crosses to the peer, and a
//! client that does not offer it sees no difference. `docs/protocol.md` specifies it for clients. This file reads and
//! writes the messages; `connection` decides when they go out.

use serde_json::Value;

use super::header::{CLOSE, FIN, TEXT};
use super::violation::Violation;

/// The name of the subprotocol.
pub(crate) const NAME: &[u8] = b"arc-relay.v1";

/// The longest message from a client, in bytes.
pub(super) const LONGEST: usize = 512;

/// The most characters of a ping's `id`.
const LONGEST_ID: usize = 64;

/// The longest frame from the relay, in bytes.
///
/// It is a pong with an `id` of characters that JSON writes as six bytes each.
pub(crate) const LONGEST_FRAME: usize = 4 + r#"{"type":"pong","id":""}"#.len() + 6 * LONGEST_ID;

/// The close code of a refusal is the HTTP status and this, which is in the range for private use.
const REFUSAL: u16 = 4000;

/// A ping of the subprotocol.
///
/// A script in a browser cannot send one of RFC 6455.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TextPing {
    /// What the pong has to carry, if anything.
    pub id: Option<String>,
}

/// Reads a whole message from a client. `None`: the client asks for nothing that this relay knows.
pub(super) fn parse(text: &[u8]) -> Result<Option<TextPing>, Violation> {
    let Ok(Value::Object(mut object)) = serde_json::from_slice(text) else { return Err(Violation::UnsupportedText) };
    match (object.remove("type"), object.remove("id")) {
        (Some(Value::String(kind)), _) if kind != "ping" => Ok(None),
        (Some(Value::String(_)), None) => Ok(Some(TextPing { id: None })),
        (Some(Value::String(_)), Some(Value::String(id))) if id.chars().count() <= LONGEST_ID => {
            Ok(Some(TextPing { id: Some(id) }))
        }
        _ => Err(Violation::UnsupportedText),
    }
}

/// Reads the messages of a client.
///
/// It takes memory only while a part of a message has come, or a ping waits to be taken.
#[derive(Default)]
pub(super) struct TextReader(Option<Box<Kept>>);

/// What is kept of a message: the first `length` bytes, or the ping that it was.
struct Kept {
    length: usize,
    bytes: [u8; LONGEST],
    ping: Option<TextPing>,
}

impl Default for Kept {
    fn default() -> Self {
        Self { length: 0, bytes: [0; LONGEST], ping: None }
    }
}

impl TextReader {
    /// Adds a piece of a message, which has [`LONGEST`] bytes at most. The ping before it has to be taken.
    ///
    /// True if the message `ends` and is a ping.
    pub(super) fn push(&mut self, piece: &[u8], ends: bool) -> Result<bool, Violation> {
        let ping = if ends && self.0.is_none() {
            parse(piece)?
        } else {
            let kept = self.0.get_or_insert_default();
            kept.bytes[kept.length..kept.length + piece.len()].copy_from_slice(piece);
            kept.length += piece.len();
            if !ends {
                return Ok(false);
            }
            let kept = self.0.take().unwrap_or_default();
            parse(&kept.bytes[..kept.length])?
        };
        self.0 = ping.map(|ping| Box::new(Kept { ping: Some(ping), ..Kept::default() }));
        Ok(self.0.is_some())
    }

    /// Takes the ping that has come.
    pub(super) fn take(&mut self) -> Option<TextPing> {
        self.0.take()?.ping
    }

    /// Forgets the message, which will not end.
    pub(super) fn clear(&mut self) {
        self.0 = None;
    }
}

/// A message from the relay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Notice {
    /// The client is the first with its code, and waits for so many seconds at most.
    Waiting { expires_in: u64 },
    /// The peer is there.
    Paired,
    /// The relay stops, and ends the connection within so many seconds.
    Draining { within: u64 },
    /// The answer to a ping.
    Pong(TextPing),
    /// The client is refused, and may come again after so many seconds.
    Retry { after: u64 },
}

impl Notice {
    /// The frame of the message.
    pub(crate) fn frame(self) -> Vec<u8> {
        let json = match self {
            Self::Waiting { expires_in } => format!(r#"{{"type":"waiting","expires_in":{expires_in}}}"#),
            Self::Paired => String::from(r#"{"type":"paired"}"#),
            Self::Draining { within } => format!(r#"{{"type":"draining","within":{within}}}"#),
            Self::Pong(TextPing { id: None }) => String::from(r#"{"type":"pong"}"#),
            Self::Pong(TextPing { id: Some(id) }) => format!(r#"{{"type":"pong","id":{}}}"#, Value::String(id)),
            Self::Retry { after } => format!(r#"{{"type":"retry","after":{after}}}"#),
        };
        frame(FIN | TEXT, json.as_bytes())
    }
}

/// The close frame for a refusal with this status and line.
pub(crate) fn refusal(status: u16, line: &str) -> Vec<u8> {
    frame(FIN | CLOSE, &[&(REFUSAL + status).to_be_bytes(), line.as_bytes()].concat())
}

/// A frame of the relay.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let length = payload.len() as u16; // at most `LONGEST_FRAME`
    let header = match length {
        0..=125 => vec![first, length as u8],
        _ => [&[first, 126], &length.to_be_bytes()[..]].concat(),
    };
    [header, payload.to_vec()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ping(id: &str) -> Result<Option<TextPing>, Violation> {
        Ok(Some(TextPing { id: Some(id.to_owned()) }))
    }

    #[test]
    fn a_ping_is_an_object_with_its_type_and_perhaps_an_id() {
        assert_eq!(parse(br#"{"type":"ping"}"#), Ok(Some(TextPing { id: None })));
        assert_eq!(parse(b" {\"id\" : \"\",\n\"type\":\"ping\"}\t"), ping(""));
        assert_eq!(parse(r#"{"type":"ping","id":"é\u00e9\"","more":[1,{"type":2}]}"#.as_bytes()), ping("éé\""));
        let id = "🐋".repeat(LONGEST_ID);
        assert_eq!(parse(format!(r#"{{"type":"ping","id":"{id}"}}"#).as_bytes()), ping(&id));
    }

    #[test]
    fn an_unknown_type_asks_for_nothing() {
        for text in [r#"{"type":"pong"}"#, r#"{"type":"","id":7}"#, r#"{"type":"Ping","id":null}"#] {
            assert_eq!(parse(text.as_bytes()), Ok(None), "{text}");
        }
    }

    #[test]
    fn anything_else_is_unsupported() {
        let long = format!(r#"{{"type":"ping","id":"{}"}}"#, "x".repeat(LONGEST_ID + 1));
        let not_supported = [
            "",
            "ping",
            "7",
            "[]",
            "null",
            "\"ping\"",
            "{}",
            r#"{"type":7}"#,
            r#"{"type":null}"#,
            r#"{"Type":"ping"}"#,
            r#"{"type":"ping"}{"type":"ping"}"#,
            r#"{"type":"ping","id":7}"#,
            r#"{"type":"ping","id":null}"#,
            r#"{"type":"ping","id":["a"]}"#,
            r#"{"type":"ping",}"#,
            r#"{type:"ping"}"#,
            r#"{"type":"ping","id":"\ud800"}"#,
            "\u{FEFF}{\"type\":\"ping\"}",
            &long,
        ];
        for text in not_supported {
            assert_eq!(parse(text.as_bytes()), Err(Violation::UnsupportedText), "{text}");
        }
    }

    /// The document gives these bounds.
    #[test]
    fn nesting_and_numbers_have_bounds() {
        let nested = |depth: usize| format!(r#"{{"type":"?","x":{}{}}}"#, "[".repeat(depth), "]".repeat(depth));
        assert_eq!(parse(nested(126).as_bytes()), Ok(None));
        assert_eq!(parse(nested(127).as_bytes()), Err(Violation::UnsupportedText));
        let number = |number: &str| parse(format!(r#"{{"type":"?","x":{number}}}"#).as_bytes());
        assert_eq!((number("-1.7e308"), number("123456789012345678901234567890")), (Ok(None), Ok(None)));
        assert_eq!(number("1e309"), Err(Violation::UnsupportedText));
    }

    #[test]
    fn the_last_of_two_equal_fields_counts() {
        assert_eq!(parse(br#"{"type":"?","id":1,"id":"a","type":"ping"}"#), ping("a"));
        assert_eq!(parse(br#"{"type":"ping","id":1,"type":"?"}"#), Ok(None));
    }

    #[test]
    fn pieces_take_memory_until_the_message_ends_and_a_ping_is_taken() {
        let mut reader = TextReader::default();
        assert_eq!(reader.push(br#"{"type":"#, false), Ok(false));
        assert_eq!(reader.push(b"", false), Ok(false));
        assert_eq!(reader.push(br#""ping"}"#, true), Ok(true));
        assert_eq!(reader.take(), Some(TextPing { id: None }));
        assert!(reader.0.is_none());
        assert_eq!(reader.push(b"{", false), Ok(false));
        assert_eq!(reader.push(br#""type":"?"}"#, true), Ok(false));
        assert!(reader.0.is_none());
        assert_eq!(reader.push(b"{", false), Ok(false));
        assert_eq!(reader.push(b"{", true), Err(Violation::UnsupportedText));
        assert!(reader.0.is_none());
    }

    #[test]
    fn the_longest_pong_has_the_longest_frame() {
        let pong = |id: &str| Notice::Pong(TextPing { id: Some(id.repeat(LONGEST_ID)) }).frame().len();
        assert_eq!(pong("\u{1}"), LONGEST_FRAME);
        for id in ["x", "\"", "\\", "🐋", "\u{7F}", "\u{2028}"] {
            assert!(pong(id) < LONGEST_FRAME, "{id:?}");
        }
    }

    #[test]
    fn frames_are_as_documented() {
        let text = |notice: Notice| String::from_utf8(notice.frame()[2..].to_vec()).unwrap();
        assert_eq!(text(Notice::Waiting { expires_in: 300 }), r#"{"type":"waiting","expires_in":300}"#);
        assert_eq!(Notice::Paired.frame(), [&[0x81, 17][..], br#"{"type":"paired"}"#].concat());
        assert_eq!(text(Notice::Draining { within: 30 }), r#"{"type":"draining","within":30}"#);
        assert_eq!(text(Notice::Retry { after: 12 }), r#"{"type":"retry","after":12}"#);
        assert_eq!(text(Notice::Pong(TextPing { id: None })), r#"{"type":"pong"}"#);
        assert_eq!(text(Notice::Pong(TextPing { id: Some("\"".into()) })), r#"{"type":"pong","id":"\""}"#);
        assert_eq!(refusal(409, "pair is full"), [&[0x88, 14, 0x11, 0x39][..], b"pair is full"].concat());
    }
}
