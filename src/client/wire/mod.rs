//! What each client of a relay needs: from a URL to a stream, an answer or a WebSocket.

#![allow(missing_docs, reason = "only this project's own binary sees it")]

pub mod dial;
pub mod failure;
pub mod http;
pub mod stream;
pub mod target;
#[cfg(feature = "client")]
pub mod tls;
#[cfg(feature = "client")]
pub mod websocket;
