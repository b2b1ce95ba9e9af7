//! The supervisor: one task that recalls sides that wait, and runs the stop of the relay.

use std::sync::Arc;
use std::time::Duration;

use async_channel::Receiver;
use futures_lite::FutureExt;
use futures_lite::future::pending;

use super::context::{EndOnDrop, RelayContext};
use crate::runtime::stop::{Stop, StopOnDrop};
use crate::telemetry::events;

/// How long connections may take to close: a round trip on a bad line.
///
/// A client that reads nothing is not waited for.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);

/// The task that ends the relay. It runs on the first worker.
pub(crate) struct Supervisor<T> {
    pub(crate) relay: Arc<RelayContext<T>>,
    /// The signal to stop the relay.
    pub(crate) stop_requested: Stop,
    /// Receives a request to tell the sides that wait to come again.
    pub(crate) recalls: Receiver<()>,
    /// Its drop has clients told that the relay stops.
    pub(crate) begin_drain: StopOnDrop,
    /// Its drop ends accepting and opening handshakes.
    pub(crate) close_admission: StopOnDrop,
    /// Its drop closes all connections.
    pub(crate) stop_all: StopOnDrop,
    /// The signals that all connections have ended that a worker has accepted, one for each worker.
    pub(crate) all_ended: Vec<Stop>,
    /// How long clients are admitted after the signal.
    pub(crate) drain_delay: Duration,
    /// How long pairs may go on after that.
    pub(crate) drain_timeout: Duration,
}

impl<T> Supervisor<T> {
    /// Runs until the relay has stopped, and then ends its workers.
    pub(crate) async fn run(self) {
        let Self { relay, mut stop_requested, recalls, begin_drain, close_admission, stop_all, mut all_ended, .. } =
            self;
        let _end = EndOnDrop(Arc::clone(&relay));
        let after = |time| relay.clock().sleep_until(relay.clock().now() + time);
        while is_recall(&mut stop_requested, &recalls).await {
            // The stop waits for its end, which is some turns away.
            events::recalled(relay.handshakes.seats.recall().await);
        }

        events::stopping(self.drain_delay, self.drain_timeout);
        relay.handshakes.readiness.end();
        relay.drain.begin(relay.clock().now() + self.drain_delay + self.drain_timeout);
        drop(begin_drain);
        if !self.drain_delay.is_zero() {
            // Not shorter for a relay without clients: a load balancer still sends some.
            after(self.drain_delay).await;
        }
        // From here on, requests to join are rejected. A waiting client hears that no peer will come.
        relay.handshakes.seats.close().await;
        // Each worker accepts what is in the queue, and closes its handle of the listener. Pairs may go on for a while.
        drop(close_admission);
        wait_for_all(&mut all_ended).or(after(self.drain_timeout - relay.spread)).await;
        drop(stop_all);
        wait_for_all(&mut all_ended).or(after(relay.spread + STOP_TIMEOUT)).await;
    }
}

/// Waits for a request. True for a recall, and false for a stop.
async fn is_recall(stop_requested: &mut Stop, recalls: &Receiver<()>) -> bool {
    let stop = async {
        stop_requested.wait().await;
        false
    };
    let recall = async {
        match recalls.recv().await {
            Ok(()) => true,
            Err(_) => pending().await, // the handle is gone, and the signal to stop is on its way
        }
    };
    stop.or(recall).await
}

/// Waits for all signals.
async fn wait_for_all(signals: &mut [Stop]) {
    for signal in signals {
        signal.wait().await;
    }
}
