//! The client of the commands: from a URL to a stream, an answer or a WebSocket.

pub(crate) mod dial;
pub(crate) mod failure;
pub(crate) mod http;
pub(crate) mod target;
#[cfg(feature = "client")]
pub(crate) mod tls;
#[cfg(feature = "client")]
pub(crate) mod token;
#[cfg(feature = "client")]
pub(crate) mod websocket;
