//! A signal that is given once and heard by everyone, also by those who come later. It is a channel on which nothing
//! is ever sent: closing it is the signal.

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};

use async_channel::{Receiver, Sender};
use futures_lite::Stream;

/// Gives the signal when it is dropped, or when all of its clones are.
#[derive(Clone, Debug)]
pub(crate) struct StopOnDrop {
    _sender: Sender<Infallible>,
}

/// Hears the signal.
#[derive(Clone, Debug)]
pub(crate) struct Stop(Pin<Box<Receiver<Infallible>>>);

pub(crate) fn stop() -> (StopOnDrop, Stop) {
    let (sender, receiver) = async_channel::bounded(1);
    (StopOnDrop { _sender: sender }, Stop(Box::pin(receiver)))
}

impl Stop {
    /// Ready once the signal is given, and from then on.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.0.as_mut().poll_next(cx).map(|never| debug_assert!(never.is_none()))
    }

    /// Waits for the signal.
    pub(crate) async fn wait(&mut self) {
        poll_fn(|cx| self.poll(cx)).await;
    }
}
