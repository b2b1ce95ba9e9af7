//! What a request or a WebSocket goes over.

use futures_lite::{AsyncRead, AsyncWrite};

/// A stream of bytes, plain or encrypted.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}
