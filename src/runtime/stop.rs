//! A one-time signal to any number of tasks, later ones included.
//!
//! It is a channel on which nothing is ever sent. Closing it is the signal.

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};

use async_channel::{Receiver, Sender};
use futures_lite::Stream;

/// The sending side of the signal, which is given when this and all of its clones are dropped.
#[derive(Clone, Debug)]
pub(crate) struct StopOnDrop {
    _sender: Sender<Infallible>,
}

/// The receiving side of the signal.
#[derive(Clone, Debug)]
pub(crate) struct Stop(Pin<Box<Receiver<Infallible>>>);

/// A signal: its sending and its receiving side.
pub(crate) fn stop() -> (StopOnDrop, Stop) {
    let (sender, receiver) = async_channel::bounded(1);
    (StopOnDrop { _sender: sender }, Stop(Box::pin(receiver)))
}

impl Stop {
    /// Ready from the moment that the signal is given.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.0.as_mut().poll_next(cx).map(|never| debug_assert!(never.is_none()))
    }

    /// Waits for the signal.
    pub(crate) async fn wait(&mut self) {
        poll_fn(|cx| self.poll(cx)).await;
    }
}
