//! A [`Transport`] as a stream of bytes, for code that awaits reads and writes.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_lite::{AsyncRead, AsyncWrite};

use super::transport::Transport;

/// The stream of a socket. It has no buffer.
#[derive(Debug)]
pub(crate) struct Stream<T>(pub(crate) T);

impl<T: Transport> AsyncRead for Stream<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.0.poll_readable(cx))?;
            match self.0.receive(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => {
                    // Only a short read has taken everything: readiness is edge-triggered.
                    if !result.as_ref().is_ok_and(|&count| count < buffer.len()) {
                        self.0.mark_readable();
                    }
                    return Poll::Ready(result);
                }
            }
        }
    }
}

impl<T: Transport> AsyncWrite for Stream<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            match self.0.send(bytes, false) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready!(self.0.poll_writable(cx))?,
                result => return Poll::Ready(result),
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.0.shut_down())
    }
}
