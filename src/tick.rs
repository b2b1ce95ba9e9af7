//! One timer for all connections of a worker: for what has to be looked at now and then, because no event tells it.
//!
//! Each timer in the reactor makes all of its turns slower, so connections do not have any of their own for this. Who
//! needs a tick asks for the next one; if nobody does, none is made.

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crate::clock::Clock;
use async_channel::{Receiver, Sender};

/// The time from the first who asks to the tick: whoever asks later waits for less.
const PERIOD: Duration = Duration::from_secs(1);

/// The worker's side: counts, and wakes those who asked.
#[derive(Debug)]
pub(crate) struct Tick {
    count: Cell<u64>,
    /// Those who asked, each once in a period. Bounded by the number of connections.
    asked: RefCell<Vec<Waker>>,
    /// Says that somebody asks after nobody did.
    first: (Sender<()>, Receiver<()>),
    clock: Arc<dyn Clock>,
}

/// A connection's side: when it has asked.
#[derive(Debug, Default)]
pub(crate) struct Asked(Option<u64>);

impl Tick {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        Self { count: Cell::new(0), asked: RefCell::default(), first: async_channel::bounded(1), clock }
    }

    /// Ready at a tick after the first call, and then once for each time that it is asked again.
    pub(crate) fn poll(&self, asked: &mut Asked, cx: &mut Context<'_>) -> Poll<()> {
        match asked.0 {
            Some(count) if count == self.count.get() => Poll::Pending, // a task's waker stays the same
            Some(_) => {
                asked.0 = None;
                Poll::Ready(())
            }
            None => {
                asked.0 = Some(self.count.get());
                let mut wakers = self.asked.borrow_mut();
                if wakers.is_empty() {
                    let _ = self.first.0.try_send(()); // full: it is said already
                }
                wakers.push(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    /// Ticks while somebody asks, for as long as it runs.
    pub(crate) async fn run(&self) {
        while self.first.1.recv().await.is_ok() {
            self.clock.sleep_until(self.clock.now() + PERIOD).await;
            self.count.set(self.count.get() + 1);
            let asked = std::mem::take(&mut *self.asked.borrow_mut());
            asked.into_iter().for_each(Waker::wake);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_lite::FutureExt;
    use std::future::poll_fn;

    #[test]
    fn whoever_asks_gets_a_tick_and_another_one_when_asking_again() {
        let tick = Tick::new(Arc::new(crate::clock::SystemClock));
        let ask = async {
            let (mut one, mut other) = (Asked::default(), Asked::default());
            poll_fn(|cx| tick.poll(&mut one, cx)).await;
            assert_eq!(tick.count.get(), 1);
            assert!(poll_fn(|cx| Poll::Ready(tick.poll(&mut one, cx))).await.is_pending());
            poll_fn(|cx| tick.poll(&mut other, cx)).await;
            poll_fn(|cx| tick.poll(&mut one, cx)).await;
            assert_eq!(tick.count.get(), 2);
            assert!(tick.asked.borrow().is_empty());
        };
        smol::block_on(ask.or(tick.run()));
    }
}
