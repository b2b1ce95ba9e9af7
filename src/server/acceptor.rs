//! The acceptor of a worker: it takes connections out of the queue that all workers share.
//!
//! There is one listening socket for each address. Each worker waits for it with its own reactor, and accepts for itself. So
//! no connection is bound to a worker that is busy, and a stop has one queue to empty.

#[cfg(test)]
mod tests;

use std::future::poll_fn;
use std::io;
use std::net::IpAddr;
use std::task::Poll;
use std::time::Duration;

use futures_lite::FutureExt;
use futures_lite::future::yield_now;

use super::context::RelayContext;
use crate::limits::slots::Slots;
use crate::runtime::io_error::{is_of_connection, is_out_of_files};
use crate::runtime::stop::StopFlag;
use crate::runtime::transport::Listener;
use crate::telemetry::counters::Telemetry;
use crate::telemetry::records;

/// The most connections that a worker accepts in a turn. Their handshakes run before the next ones.
const MOST_IN_A_TURN: usize = 16;

/// The most connections that a worker accepts at a stop: as many as the queue holds.
const MOST_AT_A_STOP: usize = 4096;

/// The most failed accepts at a stop, with a turn of all tasks behind each.
const MOST_FAILED_AT_A_STOP: usize = 64;

/// The pause after an accept that failed for want of file descriptors or memory.
///
/// A retry at once would spin.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// The same when handshakes were revoked to have file descriptors again. They take a moment to end.
const REVOCATION_PAUSE: Duration = Duration::from_millis(10);

/// Hands accepted connections over to `begin`, until the relay stops.
///
/// Then it empties the queue first: a connection that is closed in the queue is reset without an answer. It leaves an
/// [inherited](Listener::is_inherited) queue as it is, for the next relay.
pub(super) async fn accept<L: Listener>(
    listener: L,
    relay: &RelayContext<L::Socket>,
    telemetry: &Telemetry,
    stop: &StopFlag,
    mut begin: impl FnMut(L::Socket, IpAddr),
) {
    let (mut in_turn, mut at_stop, mut failed_at_stop) = (0, 0, 0);
    while at_stop < MOST_AT_A_STOP && failed_at_stop < MOST_FAILED_AT_A_STOP {
        if listener.is_inherited() && stop.is_set() {
            return;
        }
        at_stop += usize::from(stop.is_set());
        let failed = match listener.accept() {
            Ok((socket, peer)) => {
                begin(socket, peer);
                in_turn += 1;
                if in_turn % MOST_IN_A_TURN == 0 {
                    yield_now().await;
                }
                continue;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if stop.is_set() {
                    return;
                }
                in_turn = 0;
                wait(&listener, stop).await
            }
            Err(error) => Err(error),
        };
        if let Err(error) = failed {
            records::accept_failed(telemetry, &error);
            failed_at_stop += usize::from(stop.is_set());
            // At a stop there is no pause, but other tasks have a turn: they may give back what is short.
            let stopped = async {
                stop.wait().await;
                yield_now().await;
            };
            recover(&error, relay).or(stopped).await;
        }
    }
}

/// Waits until there may be a connection in the queue, or the relay stops.
async fn wait(listener: &impl Listener, stop: &StopFlag) -> io::Result<()> {
    poll_fn(|cx| if stop.is_set() { Poll::Ready(Ok(())) } else { listener.poll_acceptable(cx) }).await
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
