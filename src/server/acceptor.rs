//! The acceptor: it hands accepted connections to the workers, and runs the stop of the relay.

#[cfg(test)]
mod tests;

use std::future::pending;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use async_channel::TrySendError;
use futures_lite::FutureExt;
use futures_lite::future::yield_now;

use super::context::{EndOnDrop, Job, RelayContext, Stage};
use crate::limits::slots::Slots;
use crate::runtime::io_error::{is_of_connection, is_out_of_files};
use crate::runtime::stop::{Stop, StopOnDrop, stop};
use crate::runtime::transport::Listener;
use crate::telemetry::{events, records};

/// The pause after an accept that failed for want of file descriptors or memory.
///
/// A retry at once would spin.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// The same when handshakes were revoked to have file descriptors again. They take a moment to end.
const REVOCATION_PAUSE: Duration = Duration::from_millis(10);

/// How long connections may take to close: a round trip on a bad line.
///
/// A client that reads nothing is not waited for.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);

/// The task that owns the listener.
pub(crate) struct Acceptor<L: Listener> {
    pub(crate) listener: L,
    pub(crate) relay: Arc<RelayContext<L::Socket>>,
    /// The signal to stop the relay.
    pub(crate) stop_requested: Stop,
    /// Its drop ends opening handshakes.
    pub(crate) close_admission: StopOnDrop,
    /// Its drop closes all connections.
    pub(crate) stop_all: StopOnDrop,
    /// How long pairs may go on after the signal.
    pub(crate) drain_timeout: Duration,
}

impl<L: Listener> Acceptor<L> {
    /// Runs until the relay has stopped, and then ends its workers.
    pub(crate) async fn run(self) {
        let Self { listener, relay, mut stop_requested, close_admission, stop_all, drain_timeout } = self;
        let _end = EndOnDrop(Arc::clone(&relay));
        // Each connection holds a clone of `alive`, so `all_ended` is the signal that all have ended.
        let (alive, mut all_ended) = stop();
        let expire = async { relay.handshakes.seats.expire().await };
        let accept = accept(listener, &relay, alive);
        accept.or(expire).or(stop_requested.wait()).await;

        events::stopping();
        // The listener is closed. A waiting client hears that no peer will come; pairs may go on for a while.
        relay.handshakes.seats.close().await;
        drop(close_admission);
        let after = |time| relay.clock().sleep_until(relay.clock().now() + time);
        all_ended.wait().or(after(drain_timeout)).await;
        drop(stop_all);
        all_ended.wait().or(after(STOP_TIMEOUT)).await;
    }
}

/// Hands accepted connections to the workers. It never ends.
async fn accept<L: Listener>(listener: L, relay: &RelayContext<L::Socket>, alive: StopOnDrop) {
    let mut next = 0;
    let telemetry = relay.handshakes.telemetry.add_worker();
    loop {
        match listener.accept().await {
            Ok((socket, peer)) => {
                let job = Job { alive: alive.clone(), stage: Stage::Handshake(socket, peer) };
                next = hand_over(job, next, relay).await;
            }
            Err(error) => {
                records::accept_failed(&telemetry, &error);
                recover(&error, relay).await;
            }
        }
    }
}

/// Sends a job to the first worker from `next` on with room in its inbox.
///
/// Returns the next worker in turn.
///
/// So a busy worker keeps no client waiting while another worker has room.
async fn hand_over<T>(mut job: Job<T>, next: usize, relay: &RelayContext<T>) -> usize {
    let workers = relay.inboxes.len();
    loop {
        for worker in (0..workers).map(|nth| (next + nth) % workers) {
            match relay.inboxes[worker].try_send(job) {
                Ok(()) => return (worker + 1) % workers,
                Err(TrySendError::Full(returned)) => job = returned,
                Err(TrySendError::Closed(_)) => return pending().await, // the relay is about to end
            }
        }
        relay.room.wait().await;
    }
}

/// Waits after a failed accept, until the next one may succeed.
async fn recover<T>(error: &io::Error, relay: &RelayContext<T>) {
    if is_of_connection(error) {
        // The connection is gone from the queue. Other tasks have a turn, however many such connections there are.
        return yield_now().await;
    }
    let pause = pause(error, &relay.handshakes.slots);
    relay.clock().sleep_until(relay.clock().now() + pause).await;
}

/// The pause after an accept that failed for want of a resource, or for an unknown reason.
///
/// If file descriptors are short and handshakes have many of them, the limit of handshakes is too high for this system. So
/// the oldest handshakes make room.
fn pause(error: &io::Error, handshakes: &Slots) -> Duration {
    if is_out_of_files(error) && handshakes.make_room() { REVOCATION_PAUSE } else { ACCEPT_BACKOFF }
}
