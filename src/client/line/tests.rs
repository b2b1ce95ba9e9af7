//! A WebSocket that is always ready: what a line over sockets does only by chance.

use std::io;
use std::pin::Pin;
use std::sync::atomic::AtomicUsize;
use std::task::{Context, Poll};

use async_tungstenite::WebSocketStream;
use async_tungstenite::tungstenite::protocol::Role;
use futures_lite::future::block_on;
use futures_lite::{AsyncRead, AsyncWrite};

use super::*;

/// How many messages the peer sends without a pause.
const FLOOD: usize = 1000;

/// A relay that has always a frame to read, until the flood is over, and takes all at once.
#[derive(Default)]
struct Flood {
    read: usize,
    /// How much was read when something was written, behind 1.
    written_at: Arc<AtomicUsize>,
}

impl AsyncRead for Flood {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        self.read += 1;
        let frame: &[u8] = match self.read {
            1 => b"\x81\x11{\"type\":\"paired\"}",
            2..=FLOOD => b"\x82\x01x",
            _ => b"",
        };
        buffer[..frame.len()].copy_from_slice(frame);
        Poll::Ready(Ok(frame.len()))
    }
}

impl AsyncWrite for Flood {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let _ = self.written_at.compare_exchange(0, self.read, Ordering::SeqCst, Ordering::SeqCst);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[test]
fn flood_of_the_peer_does_not_hold_up_the_own_messages() {
    let (outgoing, messages) = bounded(1);
    let (_open, closing) = bounded(1);
    let (_asks, hurry) = bounded(1);
    let (sent, was_sent) = bounded(1);
    outgoing.try_send(Outgoing { message: b"own".to_vec(), sent }).unwrap();
    let shared = Shared {
        options: Options::new("ws://localhost", "code").unwrap(),
        tls: Arc::new(Tls::new(None).unwrap()),
        events: Arc::new(Events::new(usize::MAX)),
        outgoing: messages,
        closing,
        hurry,
        begin: Instant::now(),
    };
    let flood = Flood::default();
    let written_at = Arc::clone(&flood.written_at);
    block_on(async {
        let socket = WebSocketStream::from_raw_socket(Box::new(flood) as Box<dyn Stream>, Role::Client, None).await;
        let mut attempts = Attempts::default();
        let line = Line::new(&shared, Arc::default(), &mut attempts);
        let lost = line.run(socket, &mut UnderWay::default()).await;
        assert_eq!((lost.code, lost.was_paired), (1006, true));
    });
    assert_eq!(was_sent.try_recv(), Ok(()));
    let written_at = written_at.load(Ordering::SeqCst);
    assert!((1..10).contains(&written_at), "written behind {written_at} messages of {FLOOD}");
}
