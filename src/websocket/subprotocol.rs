//! The subprotocol `arc-relay.v1`: text messages between the relay and one client, each a JSON object.
//!
//! A client that offers it is told what the relay otherwise keeps to itself. No such message crosses to the peer, and a
//! client that does not offer it sees no difference. `docs/protocol.md` specifies it for clients.

use super::header::{CLOSE, CONTROL_PAYLOAD, FIN, TEXT};

/// The name of the subprotocol.
pub(crate) const NAME: &[u8] = b"arc-relay.v1";

/// The close code of a refusal is the HTTP status and this, which is in the range for private use.
const REFUSAL: u16 = 4000;

/// A message from the relay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Notice<'n> {
    /// The client may come again after so many seconds.
    Retry { after: &'n str },
}

impl Notice<'_> {
    /// Appends the frame.
    pub(crate) fn append_to(&self, frames: &mut Vec<u8>) {
        let json = match self {
            Self::Retry { after } => format!(r#"{{"type":"retry","after":{after}}}"#),
        };
        append(FIN | TEXT, json.as_bytes(), frames);
    }
}

/// Appends the close frame for a refusal with this status and line.
pub(crate) fn append_refusal(status: u16, line: &str, frames: &mut Vec<u8>) {
    append(FIN | CLOSE, &[&(REFUSAL + status).to_be_bytes(), line.as_bytes()].concat(), frames);
}

/// Appends a frame with a payload of at most 125 bytes.
fn append(first: u8, payload: &[u8], frames: &mut Vec<u8>) {
    debug_assert!(payload.len() <= CONTROL_PAYLOAD);
    frames.extend([first, payload.len() as u8]);
    frames.extend(payload);
}
