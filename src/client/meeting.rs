//! What the messages of one WebSocket mean: those of the relay, which are text, and those of the peer.

use std::time::Duration;

use serde_json::Value;

use super::secret::Secret;
use super::session::{Broken, LONGEST, Received, Session};

/// The subprotocol that a client of this module offers.
pub const SUBPROTOCOL: &str = "arc-relay.v1";

/// The longest time that a control message can name, in seconds.
///
/// A relay that names more is broken, or not a relay.
const LONGEST_TIME: f64 = 3600.0;

/// The longest message of a WebSocket, in bytes, if the peer's may have `longest`.
///
/// Control messages, the handshake and the parts of an encrypted message have to come through, too.
pub fn longest_frame(is_encrypted: bool, longest: usize) -> usize {
    if is_encrypted { LONGEST } else { longest.max(LONGEST) }
}

/// A WebSocket with `arc-relay.v1`, from its opening to its close: at most one peer.
#[derive(Debug)]
pub struct Meeting {
    /// Without one, the messages of the programs go as they are.
    secret: Option<Secret>,
    /// The longest message of the peer, in bytes.
    longest: usize,
    /// Whether this side waited for the other one.
    is_first: bool,
    /// None: the peer is not there yet.
    session: Option<Session>,
}

/// What a message leads to.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing that a program needs to know.
    Nothing,
    /// The other side is not there yet.
    Waiting,
    /// The peer is there, and messages can be sent.
    Paired,
    /// A message of the peer.
    Message(Vec<u8>),
    /// The peer has taken leave. `is_orderly`: nothing it sent is missing.
    Farewell { is_orderly: bool },
    /// The relay closes within this time.
    Draining { within: Duration },
    /// The relay refuses, and a further attempt is of use only after this time.
    Retry { after: Duration },
}

/// What a message leads to, and the answer to the peer.
type Taken = (Step, Option<Vec<u8>>);

impl Meeting {
    /// A meeting in the clear, or with encryption. `longest` bounds the peer's messages.
    pub fn new(secret: Option<Secret>, longest: usize) -> Self {
        Self { secret, longest, is_first: false, session: None }
    }

    /// Takes a control message of the relay.
    ///
    /// Unknown ones are of a later version, and mean nothing here.
    pub fn take_text(&mut self, text: &str) -> Taken {
        let Ok(Value::Object(control)) = serde_json::from_str(text) else { return (Step::Nothing, None) };
        let seconds = |field: &str| {
            let seconds = control.get(field).and_then(Value::as_f64).unwrap_or_default();
            Duration::from_secs_f64(seconds.clamp(0.0, LONGEST_TIME))
        };
        match control.get("type").and_then(Value::as_str) {
            Some("waiting") => {
                self.is_first = true;
                (Step::Waiting, None)
            }
            Some("paired") if self.session.is_none() => self.begin(),
            Some("draining") => (Step::Draining { within: seconds("within") }, None),
            Some("retry") => (Step::Retry { after: seconds("after") }, None),
            _ => (Step::Nothing, None),
        }
    }

    /// The peer is there.
    fn begin(&mut self) -> Taken {
        let (session, opening) = match &self.secret {
            Some(secret) => Session::encrypted(secret, self.is_first, self.longest),
            None => (Session::plain(self.longest), None),
        };
        let step = if session.is_ready() { Step::Paired } else { Step::Nothing };
        self.session = Some(session);
        (step, opening)
    }

    /// Takes a binary message, which is the peer's.
    ///
    /// # Errors
    ///
    /// The meeting has to end.
    pub fn take_binary(&mut self, message: Vec<u8>) -> Result<Taken, Broken> {
        // The relay says `paired` before anything of the peer.
        let session = self.session.as_mut().ok_or(Broken::Forged)?;
        Ok(match session.receive(message)? {
            Received::Ready(answer) => (Step::Paired, answer),
            Received::Nothing => (Step::Nothing, None),
            Received::Message(message) => (Step::Message(message), None),
            Received::Farewell { is_orderly } => (Step::Farewell { is_orderly }, None),
        })
    }

    /// Whether messages can be sent.
    pub fn is_paired(&self) -> bool {
        self.session.as_ref().is_some_and(Session::is_ready)
    }

    /// The session, in which messages can be sent.
    ///
    /// # Panics
    ///
    /// If the peer is not there.
    pub fn session(&mut self) -> &mut Session {
        self.session.as_mut().expect("the peer is there")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret() -> Option<Secret> {
        Some(Secret::from_bytes([7; 32]))
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn two_meetings_with_a_secret_agree() {
        let (mut first, mut second) = (Meeting::new(secret(), 100), Meeting::new(secret(), 100));
        assert_eq!(first.take_text(r#"{"type":"waiting","expires_in":300}"#), (Step::Waiting, None));
        assert_eq!(first.take_text(r#"{"type":"paired"}"#), (Step::Nothing, None));
        let (step, opening) = second.take_text(r#"{"type":"paired"}"#);
        assert_eq!(step, Step::Nothing);
        assert!(!first.is_paired() && !second.is_paired());
        let (step, answer) = first.take_binary(opening.unwrap()).unwrap();
        assert_eq!(step, Step::Paired);
        assert_eq!(second.take_binary(answer.unwrap()), Ok((Step::Paired, None)));
        let record = second.session().seal(b"message", true);
        assert_eq!(first.take_binary(record), Ok((Step::Message(b"message".to_vec()), None)));
        let farewell = first.session().farewell().unwrap();
        assert_eq!(second.take_binary(farewell), Ok((Step::Farewell { is_orderly: true }, None)));
    }

    #[test]
    fn meeting_in_the_clear_begins_when_the_peer_is_there() {
        let mut meeting = Meeting::new(None, 100);
        assert_eq!(meeting.take_binary(vec![1]), Err(Broken::Forged));
        assert_eq!(meeting.take_text(r#"{"type":"paired"}"#), (Step::Paired, None));
        assert_eq!(meeting.take_text(r#"{"type":"paired"}"#), (Step::Nothing, None));
        assert!(meeting.is_paired());
        for length in [0, 1, 100] {
            assert_eq!(meeting.take_binary(vec![1; length]), Ok((Step::Message(vec![1; length]), None)));
        }
        assert_eq!(meeting.session().farewell(), None);
        assert_eq!(meeting.take_binary(vec![1; 101]), Err(Broken::TooLong));
    }

    #[test]
    fn times_of_control_messages_are_bounded_and_others_mean_nothing() {
        for (text, expected) in [
            (r#"{"type":"draining","within":30}"#, Step::Draining { within: seconds(30) }),
            (r#"{"type":"draining"}"#, Step::Draining { within: Duration::ZERO }),
            (r#"{"type":"retry","after":12,"new":[]}"#, Step::Retry { after: seconds(12) }),
            (r#"{"type":"retry","after":0.25}"#, Step::Retry { after: Duration::from_millis(250) }),
            (r#"{"type":"retry","after":1e300}"#, Step::Retry { after: seconds(3600) }),
            (r#"{"type":"retry","after":-1}"#, Step::Retry { after: Duration::ZERO }),
            (r#"{"type":"retry","after":"12"}"#, Step::Retry { after: Duration::ZERO }),
            (r#"{"type":"pong"}"#, Step::Nothing),
            (r#"{"type":"later"}"#, Step::Nothing),
            (r#"{"type":1}"#, Step::Nothing),
            ("[]", Step::Nothing),
            ("", Step::Nothing),
        ] {
            assert_eq!(Meeting::new(None, 1).take_text(text), (expected, None), "{text}");
        }
    }
}
