//! The parser of a client's received bytes, and their comparison with the case.

use super::cases::{Case, End};

/// The received server frames, parsed from arbitrary pieces.
#[derive(Debug, Default)]
pub(crate) struct Received {
    bytes: Vec<u8>,
    begun: Option<Vec<u8>>,
    pub(crate) messages: Vec<Vec<u8>>,
    pub(crate) pongs: Vec<Vec<u8>>,
    pub(crate) close: Option<(Option<u16>, String)>,
    /// The first violation by the relay.
    pub(crate) wrong: Option<String>,
}

impl Received {
    /// Parses the next received bytes.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend(bytes);
        let bytes = std::mem::take(&mut self.bytes);
        let mut rest = &bytes[..];
        while let Some((frame, more)) = Frame::parse(rest) {
            self.take(&frame);
            rest = more;
        }
        self.bytes = rest.to_vec();
    }

    fn take(&mut self, &Frame { first, payload, wrong }: &Frame<'_>) {
        let mut is_wrong = |what: &str| {
            self.wrong.get_or_insert_with(|| format!("{what}: a frame that begins with {first:#x}"));
        };
        if let Some(what) = wrong {
            return is_wrong(what);
        }
        if self.close.is_some() {
            return is_wrong("behind a close frame");
        }
        match (first, &mut self.begun) {
            (0x02 | 0x82, None) => self.begun = Some(payload.to_vec()),
            (0x00 | 0x80, Some(message)) => message.extend(payload),
            (0x8A, _) => return self.pongs.push(payload.to_vec()),
            (0x88, _) => {
                let code = payload.first_chunk().map(|code| u16::from_be_bytes(*code));
                let reason = String::from_utf8_lossy(payload.get(2..).unwrap_or_default()).into_owned();
                self.close = Some((code, reason));
                return;
            }
            _ => return is_wrong("not allowed here"),
        }
        if first & 0x80 != 0 {
            self.messages.extend(self.begun.take());
        }
    }
}

/// A server frame, or an attempt at one.
struct Frame<'b> {
    first: u8,
    payload: &'b [u8],
    /// The violation in its header.
    wrong: Option<&'static str>,
}

impl<'b> Frame<'b> {
    /// The first frame, if it is complete, and the bytes behind it.
    fn parse(bytes: &'b [u8]) -> Option<(Self, &'b [u8])> {
        let &[first, second, ref rest @ ..] = bytes else { return None };
        let (length, least, header) = match second & 0x7F {
            126 => (u64::from(u16::from_be_bytes(*rest.first_chunk()?)), 126, 4),
            127 => (u64::from_be_bytes(*rest.first_chunk()?), 65_536, 10),
            short => (u64::from(short), 0, 2),
        };
        let (payload, more) = bytes[header..].split_at_checked(usize::try_from(length).ok()?)?;
        let wrong = match second {
            0x80.. => Some("masked"),
            _ => (length < least).then_some("a length that is not minimal"),
        };
        Some((Self { first, payload, wrong }, more))
    }
}

/// The differences between a case and its outcome, if any.
pub(crate) fn judge(case: &Case, client: &Received, peer: &Received) -> Option<String> {
    let close = |code, reason: &str| Some((Some(code), reason.to_owned()));
    let (to_client, to_peer) = match case.end {
        End::Open => (None, None),
        End::Closed(code) => (Some((code, String::new())), close(1000, "peer disconnected")),
        End::Refused(code, reason) => (close(code, reason), close(1011, "peer connection lost")),
    };
    let lengths = |messages: &[Vec<u8>]| messages.iter().map(Vec::len).collect::<Vec<_>>();
    let found = [
        client.wrong.clone(),
        peer.wrong.clone(),
        (client.close != to_client).then(|| format!("the client is closed by {:?}, not {to_client:?}", client.close)),
        (peer.close != to_peer).then(|| format!("the peer is closed by {:?}, not {to_peer:?}", peer.close)),
        (client.pongs != case.pongs).then(|| format!("pongs {:?}, not {:?}", client.pongs, case.pongs)),
        (!client.messages.is_empty()).then(|| "the client receives a message".to_owned()),
        (!peer.pongs.is_empty()).then(|| "the peer receives a pong".to_owned()),
        (peer.messages != case.messages)
            .then(|| format!("messages of {:?} bytes, not {:?}", lengths(&peer.messages), lengths(&case.messages))),
    ];
    let found: Vec<_> = found.into_iter().flatten().collect();
    let Case { id, section, title, .. } = case;
    (!found.is_empty()).then(|| format!("{id} (RFC 6455, {section}; {title}): {}", found.join("; ")))
}
