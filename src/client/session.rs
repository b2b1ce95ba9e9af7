//! Between the messages of a program and those of the relay: nothing, or encryption.
//!
//! A session is for one meeting with a peer.
//!
//! docs/protocol.md, "End-to-end encryption", has the format, and clients/js and clients/python the same in their languages.

#[cfg(test)]
mod tests;

use std::fmt;
use std::mem;

use snow::{HandshakeState, TransportState};
use zeroize::Zeroizing;

use super::noise::{GREETING, TAG, handshake};
use super::secret::Secret;

/// The longest encrypted message, in bytes: the longest of Noise, which the relay forwards whole.
pub(super) const LONGEST: usize = 65_535;

/// The most bytes of a message in one record: without the byte of its kind, and what authenticates it.
pub const PART: usize = LONGEST - TAG - 1;

/// The kinds of records.
const LAST: u8 = 0;
const MORE: u8 = 1;
const FAREWELL: u8 = 2;

/// One meeting.
pub struct Session {
    state: State,
    /// The parts of a message whose last one has not come.
    parts: Vec<u8>,
    /// The longest message, in bytes.
    longest: usize,
    /// Whether the peer has taken leave.
    is_over: bool,
}

enum State {
    Plain,
    Greeting(Box<HandshakeState>),
    Keyed(Box<TransportState>),
    /// Something was wrong. Nothing more is taken.
    Broken,
}

/// What a message of the peer leads to.
#[derive(Debug, PartialEq, Eq)]
pub enum Received {
    /// From now on there are keys. The answer, if there is one, is sent first.
    Ready(Option<Vec<u8>>),
    /// A part of a message.
    Nothing,
    /// A whole message for the program.
    Message(Vec<u8>),
    /// The peer has taken leave. `is_orderly`: nothing it sent is missing.
    Farewell { is_orderly: bool },
}

/// Why a meeting cannot go on. Its text is one line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// A message that is none of this meeting: changed, repeated, reordered, or of another secret.
    Forged,
    TooLong,
    UnknownKind,
    BehindFarewell,
}

impl fmt::Display for Broken {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Forged => "a message is not of the peer, or the peer has another secret",
            Self::TooLong => "a message is too long",
            Self::UnknownKind => "an unknown kind of record",
            Self::BehindFarewell => "a record behind the farewell",
        })
    }
}

impl Session {
    /// A meeting in the clear.
    pub fn plain(longest: usize) -> Self {
        Self::of(State::Plain, longest)
    }

    /// A meeting with encryption, and what is sent at once.
    ///
    /// The first side is the one that waited.
    ///
    /// # Panics
    ///
    /// If the system has no random numbers.
    pub fn encrypted(secret: &Secret, is_first: bool, longest: usize) -> (Self, Option<Vec<u8>>) {
        let mut state = Box::new(handshake(&secret.key(), !is_first));
        let opening = (!is_first).then(|| greet(&mut state).expect("the system has random numbers"));
        (Self::of(State::Greeting(state), longest), opening)
    }

    fn of(state: State, longest: usize) -> Self {
        Self { state, parts: Vec::new(), longest, is_over: false }
    }

    /// Whether messages of the program can be sent.
    pub fn is_ready(&self) -> bool {
        matches!(self.state, State::Plain | State::Keyed(_))
    }

    /// Takes a message of the peer.
    ///
    /// # Errors
    ///
    /// The meeting has to end. All further messages are refused, too.
    pub fn receive(&mut self, message: Vec<u8>) -> Result<Received, Broken> {
        let received = self.take(message);
        if received.is_err() {
            self.state = State::Broken;
            self.parts = Vec::new();
        }
        received
    }

    fn take(&mut self, message: Vec<u8>) -> Result<Received, Broken> {
        match mem::replace(&mut self.state, State::Broken) {
            State::Plain if message.len() > self.longest => Err(Broken::TooLong),
            State::Plain => {
                self.state = State::Plain;
                Ok(Received::Message(message))
            }
            State::Greeting(state) => self.finish(state, &message),
            State::Keyed(mut keys) => {
                let mut record = Zeroizing::new(vec![0; message.len()]);
                let length = keys.read_message(&message, &mut record).map_err(|_| Broken::Forged)?;
                self.state = State::Keyed(keys);
                self.open(&record[..length])
            }
            State::Broken => Err(Broken::Forged),
        }
    }

    /// Takes the peer's part of the handshake.
    fn finish(&mut self, mut state: Box<HandshakeState>, message: &[u8]) -> Result<Received, Broken> {
        if message.len() != GREETING {
            return Err(Broken::Forged);
        }
        state.read_message(message, &mut []).map_err(|_| Broken::Forged)?;
        // A peer that has the secret can still send a public key of low order.
        let answer = (!state.is_initiator()).then(|| greet(&mut state)).transpose()?;
        self.state = State::Keyed(Box::new(state.into_transport_mode().expect("both messages are exchanged")));
        Ok(Received::Ready(answer))
    }

    fn open(&mut self, record: &[u8]) -> Result<Received, Broken> {
        if self.is_over {
            return Err(Broken::BehindFarewell);
        }
        let (kind, part) = record.split_first().ok_or(Broken::UnknownKind)?;
        match *kind {
            FAREWELL => {
                self.is_over = true;
                Ok(Received::Farewell { is_orderly: self.parts.is_empty() })
            }
            MORE | LAST if self.parts.len() + part.len() > self.longest => Err(Broken::TooLong),
            MORE => {
                self.parts.extend_from_slice(part);
                Ok(Received::Nothing)
            }
            LAST => {
                let mut whole = mem::take(&mut self.parts);
                whole.extend_from_slice(part);
                Ok(Received::Message(whole))
            }
            _ => Err(Broken::UnknownKind),
        }
    }

    /// How many bytes of a message go into one binary message.
    pub fn part_length(&self) -> usize {
        if matches!(self.state, State::Plain) { usize::MAX } else { PART }
    }

    /// What is sent for a part of a message: at most [`part_length`](Self::part_length) bytes of it.
    ///
    /// # Panics
    ///
    /// If the session is not ready.
    pub fn seal(&mut self, part: &[u8], is_last: bool) -> Vec<u8> {
        match self.state {
            State::Plain => part.to_vec(),
            _ => self.record(if is_last { LAST } else { MORE }, part),
        }
    }

    /// What is sent before the connection is closed.
    pub fn farewell(&mut self) -> Option<Vec<u8>> {
        matches!(self.state, State::Keyed(_)).then(|| self.record(FAREWELL, &[]))
    }

    fn record(&mut self, kind: u8, part: &[u8]) -> Vec<u8> {
        let State::Keyed(keys) = &mut self.state else { panic!("the session is not ready") };
        let mut plaintext = Zeroizing::new(Vec::with_capacity(1 + part.len()));
        plaintext.push(kind);
        plaintext.extend_from_slice(part);
        let mut record = vec![0; plaintext.len() + TAG];
        let length = keys.write_message(&plaintext, &mut record);
        // 2^64 messages take longer than any program runs.
        assert_eq!(length.expect("numbers are left, and the part is short"), record.len());
        record
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self.state {
            State::Plain => "Session(plain)",
            State::Greeting(_) => "Session(greeting)",
            State::Keyed(_) => "Session(keyed)",
            State::Broken => "Session(broken)",
        })
    }
}

/// This side's message of the handshake.
fn greet(state: &mut HandshakeState) -> Result<Vec<u8>, Broken> {
    let mut message = vec![0; GREETING];
    state.write_message(&[], &mut message).map_err(|_| Broken::Forged)?;
    Ok(message)
}
