//! One-time signals: between threads, and to all tasks of one worker.
//!
//! [`Stop`] is a channel on which nothing is ever sent. Closing it is the signal. A worker listens to it once, sets a
//! [`StopFlag`], and wakes its tasks. So a task neither takes a lock of all workers nor adds a listener.

use std::cell::Cell;
use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use async_channel::{Receiver, Sender};
use futures_lite::Stream;

/// The sending side of the signal, which is given when this and all of its clones are dropped.
///
/// A clone changes one counter, and nothing that receivers share.
#[derive(Clone, Debug)]
pub(crate) struct StopOnDrop {
    _sender: Arc<Sender<Infallible>>,
}

/// The receiving side of the signal.
#[derive(Clone, Debug)]
pub(crate) struct Stop(Pin<Box<Receiver<Infallible>>>);

/// A signal: its sending and its receiving side.
pub(crate) fn stop() -> (StopOnDrop, Stop) {
    let (sender, receiver) = async_channel::bounded(1);
    (StopOnDrop { _sender: Arc::new(sender) }, Stop(Box::pin(receiver)))
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

/// A signal to the tasks of one worker. The worker sets it, and then wakes them all.
#[derive(Clone, Debug, Default)]
pub(crate) struct StopFlag(Rc<Cell<bool>>);

impl StopFlag {
    /// Gives the signal. All tasks that wait for it have to be woken afterwards.
    pub(crate) fn set(&self) {
        self.0.set(true);
    }

    /// Whether the signal was given.
    pub(crate) fn is_set(&self) -> bool {
        self.0.get()
    }

    /// Waits for the signal. Nothing but the worker wakes the task.
    pub(crate) async fn wait(&self) {
        poll_fn(|_| if self.is_set() { Poll::Ready(()) } else { Poll::Pending }).await;
    }
}
