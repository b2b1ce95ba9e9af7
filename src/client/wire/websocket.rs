//! A WebSocket: its opening handshake, and how it ended.

use std::fmt;
use std::io;
use std::time::Duration;

pub use async_tungstenite::tungstenite::Error;
use async_tungstenite::tungstenite::Message;
use async_tungstenite::tungstenite::error::ProtocolError;
use async_tungstenite::tungstenite::handshake::client::generate_key;
use async_tungstenite::tungstenite::handshake::derive_accept_key;
use async_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use async_tungstenite::{WebSocketReceiver, WebSocketStream};
use futures_lite::{FutureExt, StreamExt};
use http::StatusCode;
use smol::Timer;

use super::failure::{Answer, Failure};
use super::http::{exchange, head};
use super::stream::Stream;
use super::target::Target;

/// What is read at a time, and collected before it is written, in bytes.
const BUFFER: usize = 64 << 10;

/// A WebSocket to a relay.
pub type Socket = WebSocketStream<Box<dyn Stream>>;

/// What an opening handshake asks for.
#[derive(Clone, Copy, Debug)]
pub struct Opening<'a> {
    pub target: &'a Target,
    /// Fields for the query, behind the target's own.
    pub query: &'a str,
    pub token: Option<&'a str>,
    /// The subprotocols that are offered, with commas between them.
    pub subprotocols: &'a str,
    /// The longest message that is accepted, in bytes.
    pub max_message: usize,
}

/// Opens a WebSocket on a stream, and returns the chosen subprotocol, too.
///
/// The handshake is not the library's, because a diagnosis needs the whole body of a refusal.
pub async fn open(mut stream: Box<dyn Stream>, opening: Opening<'_>) -> Result<(Socket, Option<String>), Failure> {
    let key = generate_key();
    let mut request = head(opening.target, opening.query);
    request += "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n";
    request += &format!("Sec-WebSocket-Key: {key}\r\n");
    if !opening.subprotocols.is_empty() {
        request += &format!("Sec-WebSocket-Protocol: {}\r\n", opening.subprotocols);
    }
    if let Some(token) = opening.token {
        request += &format!("Authorization: Bearer {token}\r\n");
    }
    request += "\r\n";
    let response = exchange(&mut *stream, &request).await?;
    if response.status != StatusCode::SWITCHING_PROTOCOLS {
        return Err(Failure::Refused(response.into_answer()));
    }
    // RFC 6455, section 4.1.
    let has = |name, value: &str| {
        response.field(name).is_some_and(|list| list.split(',').any(|item| item.trim().eq_ignore_ascii_case(value)))
    };
    if !has("upgrade", "websocket") || !has("connection", "upgrade") {
        return Err(Failure::Malformed(String::from("the answer 101 is not to a WebSocket")));
    }
    if response.field("sec-websocket-accept") != Some(&derive_accept_key(key.as_bytes())) {
        return Err(Failure::Malformed(String::from("the answer 101 is to another request")));
    }
    let subprotocol = response.field("sec-websocket-protocol").map(str::to_owned);
    let config = WebSocketConfig::default().read_buffer_size(BUFFER).write_buffer_size(BUFFER);
    let config = config.max_message_size(Some(opening.max_message)).max_frame_size(Some(opening.max_message));
    let socket = WebSocketStream::from_partially_read(stream, response.rest, Role::Client, Some(config)).await;
    Ok((socket, subprotocol))
}

/// How a WebSocket ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// By a close frame of the relay, or of something in front of it.
    Closed { code: u16, reason: String },
    /// Without a close frame.
    Cut,
    /// By a message that is longer than this client accepts.
    TooLong,
    /// By something that this client does not accept.
    Failed(String),
}

impl Ending {
    pub fn of_frame(frame: Option<CloseFrame>) -> Self {
        // RFC 6455, section 7.1.5: a close frame without a code counts as 1005.
        let (code, reason) = frame.map_or((1005, String::new()), |frame| (frame.code.into(), frame.reason.to_string()));
        Self::Closed { code, reason: Answer::line_of(reason.as_bytes()) }
    }

    pub fn of_error(error: &Error) -> Self {
        match error {
            Error::ConnectionClosed | Error::AlreadyClosed => Self::Cut,
            Error::Protocol(ProtocolError::ResetWithoutClosingHandshake | ProtocolError::SendAfterClosing) => Self::Cut,
            Error::Io(error) => match error.kind() {
                io::ErrorKind::UnexpectedEof
                | io::ErrorKind::ConnectionReset
                | io::ErrorKind::ConnectionAborted
                | io::ErrorKind::BrokenPipe => Self::Cut,
                _ => Self::Failed(error.to_string()),
            },
            Error::Capacity(_) => Self::TooLong,
            other => Self::Failed(other.to_string()),
        }
    }
}

impl fmt::Display for Ending {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // A refusal after the opening handshake, as `arc-relay.v1` has it: the status and 4000.
            Self::Closed { code: code @ 4400..4600, reason } => {
                write!(out, "refused with {}", format!("{} {reason}", code - 4000).trim_end())
            }
            Self::Closed { code, reason } => write!(out, "closed with {}", format!("{code} {reason}").trim_end()),
            Self::Cut => out.write_str("the connection was cut without a close frame"),
            Self::TooLong => out.write_str("a message is too long"),
            Self::Failed(error) => out.write_str(error),
        }
    }
}

/// Waits for the next message.
///
/// # Errors
///
/// The end of the WebSocket, behind which there is no message. The closing handshake is then under way.
pub async fn next(receiver: &mut WebSocketReceiver<Box<dyn Stream>>) -> Result<Message, Ending> {
    match receiver.next().await {
        Some(Ok(Message::Close(frame))) => Err(Ending::of_frame(frame)),
        Some(Ok(message)) => Ok(message),
        Some(Err(error)) => Err(Ending::of_error(&error)),
        None => Err(Ending::Cut),
    }
}

/// Answers the relay's close frame, and waits for the end of the stream, but not longer than this.
pub async fn answer_close(receiver: &mut WebSocketReceiver<Box<dyn Stream>>, longest: Duration) {
    let ended = async { while receiver.next().await.is_some_and(|rest| rest.is_ok()) {} };
    let timeout = async {
        Timer::after(longest).await;
    };
    ended.or(timeout).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endings_are_told_in_one_line() {
        let closed = |code, reason: &str| Ending::Closed { code, reason: reason.into() }.to_string();
        assert_eq!(closed(1011, "peer connection lost"), "closed with 1011 peer connection lost");
        assert_eq!(closed(1005, ""), "closed with 1005");
        assert_eq!(closed(4401, "access token required"), "refused with 401 access token required");
        assert_eq!(Ending::of_frame(None), Ending::Closed { code: 1005, reason: String::new() });
        let cut = io::Error::from(io::ErrorKind::ConnectionReset);
        assert_eq!(Ending::of_error(&Error::Io(cut)), Ending::Cut);
    }
}
