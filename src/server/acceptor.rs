//! The acceptor: it hands accepted connections to the workers, and runs the stop of the relay.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures_lite::FutureExt;
use rustix::io::Errno;

use super::context::{Job, RelayContext, Stage};
use crate::limits::slots::Slots;
use crate::runtime::stop::{Stop, StopOnDrop, stop};
use crate::runtime::transport::Listener;
use crate::telemetry::{events, records};

/// The pause after a failed accept. Its usual cause is a lack of file descriptors, so a retry at once would spin.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// The same when handshakes were revoked to have file descriptors again. They take a moment to end.
const REVOCATION_PAUSE: Duration = Duration::from_millis(10);

/// How long connections may take to close: a round trip on a bad line. A client that reads nothing is not waited for.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);

/// The task that owns the listener.
pub(crate) struct Acceptor<L: Listener> {
    pub(crate) listener: L,
    pub(crate) relay: Arc<RelayContext<L::Socket>>,
    /// The signal to stop the relay.
    pub(crate) stop_requested: Stop,
    /// Its drop ends opening handshakes.
    pub(crate) close_door: StopOnDrop,
    /// Its drop closes all connections.
    pub(crate) stop_all: StopOnDrop,
    /// How long pairs may go on after the signal.
    pub(crate) drain_timeout: Duration,
}

impl<L: Listener> Acceptor<L> {
    /// Runs until the relay has stopped.
    pub(crate) async fn run(self) {
        let Self { listener, relay, mut stop_requested, close_door, stop_all, drain_timeout } = self;
        // Each connection holds a clone of `alive`, so `all_ended` is the signal that all have ended.
        let (alive, mut all_ended) = stop();
        let expire = async { relay.door.seats.expire().await };
        let accept = accept(listener, &relay, alive);
        accept.or(expire).or(stop_requested.wait()).await;

        events::stopping();
        // The listener is closed. A waiting client hears that no peer will come; pairs may go on for a while.
        relay.door.seats.close().await;
        drop(close_door);
        let after = |time| relay.clock().sleep_until(relay.clock().now() + time);
        all_ended.wait().or(after(drain_timeout)).await;
        drop(stop_all);
        all_ended.wait().or(after(STOP_TIMEOUT)).await;
        for inbox in &relay.inboxes {
            inbox.close();
        }
    }
}

/// Hands each connection to the next worker, in turn.
async fn accept<L: Listener>(listener: L, relay: &RelayContext<L::Socket>, alive: StopOnDrop) {
    for worker in (0..relay.inboxes.len()).cycle() {
        let (socket, peer) = loop {
            match listener.accept().await {
                Ok(accepted) => break accepted,
                // Whatever it is, the next one may be better.
                Err(error) => {
                    records::accept_failed(&relay.door.telemetry, &error);
                    let pause = pause(&error, &relay.door.handshakes);
                    relay.clock().sleep_until(relay.clock().now() + pause).await;
                }
            }
        };
        let job = Job { alive: alive.clone(), stage: Stage::Handshake(socket, peer) };
        if relay.inboxes[worker].send(job).await.is_err() {
            return;
        }
    }
}

/// The pause after a failed accept.
///
/// If file descriptors are short and handshakes have many of them, the limit of handshakes is too high for this system. So
/// the oldest handshakes make room.
fn pause(error: &io::Error, handshakes: &Slots) -> Duration {
    let want_files = matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE));
    if want_files && handshakes.make_room() { REVOCATION_PAUSE } else { ACCEPT_BACKOFF }
}
