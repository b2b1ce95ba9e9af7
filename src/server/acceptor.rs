//! Accepts connections until the relay is to stop, and then sees to its end.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures_lite::FutureExt;
use rustix::io::Errno;

use crate::limits::slots::Slots;
use crate::runtime::stop::{Stop, StopOnDrop, stop};
use crate::runtime::transport::Listener;
use crate::server::worker::{Job, Shared, Stage};
use crate::telemetry::{events, records};

/// How long to wait after a failed accept, most likely for want of file descriptors: trying again at once would spin.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// How long those who were given up, to have file descriptors again, may take to go.
const ROOM_IS_MADE: Duration = Duration::from_millis(10);

/// How long closing may take: a round trip on a bad line. Who does not read is not waited for.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);

/// The one task that knows the listener.
pub(crate) struct Acceptor<L: Listener> {
    pub(crate) listener: L,
    pub(crate) shared: Arc<Shared<L::Socket>>,
    /// Tells it to stop the relay.
    pub(crate) stop_requested: Stop,
    /// Its drop tells everybody who is at the front door that nobody comes in any more.
    pub(crate) close_door: StopOnDrop,
    /// Its drop tells every connection to close.
    pub(crate) stop_all: StopOnDrop,
    /// How long pairs may go on after it was told to stop.
    pub(crate) drain_timeout: Duration,
}

impl<L: Listener> Acceptor<L> {
    /// Runs until the relay has stopped.
    pub(crate) async fn run(self) {
        let Self { listener, shared, mut stop_requested, close_door, stop_all, drain_timeout } = self;
        // Each connection holds a clone of the one, so that the other tells when all have ended.
        let (alive, mut all_ended) = stop();
        let expire = async { shared.seats.expire().await };
        let accept = accept(listener, &shared, alive);
        accept.or(expire).or(stop_requested.wait()).await;

        events::stopping();
        // Nobody listens any more. Who waits for a peer hears that none will come; pairs may finish what they are at.
        shared.seats.close().await;
        drop(close_door);
        let after = |time| shared.clock.sleep_until(shared.clock.now() + time);
        all_ended.wait().or(after(drain_timeout)).await;
        drop(stop_all);
        all_ended.wait().or(after(STOP_TIMEOUT)).await;
        for inbox in &shared.inboxes {
            inbox.close();
        }
    }
}

/// Hands each connection to the next worker, in turn.
async fn accept<L: Listener>(listener: L, shared: &Shared<L::Socket>, alive: StopOnDrop) {
    for worker in (0..shared.inboxes.len()).cycle() {
        let (socket, peer) = loop {
            match listener.accept().await {
                Ok(accepted) => break accepted,
                // Whatever it is, the next one may be better.
                Err(error) => {
                    records::accept_failed(&shared.telemetry, &error);
                    let pause = pause(&error, &shared.door.handshakes);
                    shared.clock.sleep_until(shared.clock.now() + pause).await;
                }
            }
        };
        let job = Job { alive: alive.clone(), stage: Stage::Handshake(socket, peer) };
        if shared.inboxes[worker].send(job).await.is_err() {
            return;
        }
    }
}

/// How long to wait after a failed accept. If file descriptors are short, and handshakes have many of them, the limit of
/// handshakes is too high for this system's; but they must not keep others out for that.
fn pause(error: &io::Error, handshakes: &Slots) -> Duration {
    let want_files = matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE));
    if want_files && handshakes.make_room() { ROOM_IS_MADE } else { ACCEPT_BACKOFF }
}
