//! A worker: a thread with an executor and a reactor. Its tasks never leave it.
//!
//! The opening handshake runs on any worker. Once the pair code is known, the connection moves to the worker of its pair. So
//! the core that has read a batch also writes it, and buffers need no locks. A panic in a task ends its own connection and
//! nothing else: unwinding drops the link, which tells the peer 1011.

use std::cell::Cell;
use std::future::{Future, pending};
use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;

use async_channel::Receiver;
use futures_lite::FutureExt;

use super::context::{EndOnDrop, Job, RelayContext, Stage};
use crate::buffers::pool::Pool;
use crate::connection::{Connection, WorkerContext};
use crate::http::opening::{self, Admitted};
use crate::runtime::executor::Executor;
use crate::runtime::reactor::Reactor;
use crate::runtime::spawn::Spawn;
use crate::runtime::stop::{StopFlag, StopOnDrop};
use crate::runtime::transport::Transport;
use crate::telemetry::counters::Telemetry;
use crate::telemetry::events::Outcome;
use crate::websocket::reframer::Reframer;

/// The number of shares of the connections.
///
/// One share looks at its clients at each beat, so that none waits for all others.
const SHARES: usize = 4;

/// A worker that is about to run.
#[derive(Debug)]
pub(crate) struct Worker<T> {
    pub(crate) index: usize,
    pub(crate) inbox: Receiver<Job<T>>,
    pub(crate) relay: Arc<RelayContext<T>>,
}

impl<T: Transport> Worker<T> {
    /// Runs connections on this thread, and `extra` beside them, until the inbox is closed.
    ///
    /// Its own end, also by a panic, ends the relay.
    pub(crate) fn run(self, reactor: &Arc<Reactor>, extra: Option<impl Future<Output = ()> + 'static>) {
        let _end = EndOnDrop(Arc::clone(&self.relay));
        let executor = Executor::default();
        if let Some(extra) = extra {
            executor.spawn(extra);
        }
        let pool = Rc::new(Pool::new(Arc::clone(&self.relay.buffer_memory)));
        reactor.block_on(executor.run(self.serve(&executor, pool)));
    }

    /// Makes each connection that comes in a task of the executor, until the inbox is closed.
    pub(crate) async fn serve(self, executor: &impl Spawn, pool: Rc<Pool>) {
        let Self { index, inbox, relay } = self;
        let telemetry = Rc::new(relay.handshakes.telemetry.add_worker());
        let context = Rc::new(worker_context(&relay, pool, Rc::clone(&telemetry), executor.turn()));
        let admission_closed = StopFlag::default();
        // One task waits for the signals and sets flags for all other tasks: a listener each would cost memory, and each
        // handshake a lock that all workers share.
        let stop = async {
            relay.admission_closed.clone().wait().await;
            admission_closed.set();
            executor.wake(0, 1);
            relay.stopped.clone().wait().await;
            context.stopping.set(true);
            executor.wake(0, 1);
            pending::<()>().await;
        };
        let (came, comes) = async_channel::bounded(1);
        let serve = async {
            while let Ok(Job { alive, stage }) = inbox.recv().await {
                relay.room.tell();
                // Each stage is a task of its own: a task is as large as its largest stage, and a handshake is large, but
                // short.
                match stage {
                    Stage::Handshake(socket, peer) => {
                        let (telemetry, relay) = (Rc::clone(&telemetry), Arc::clone(&relay));
                        let stop = admission_closed.clone();
                        executor.spawn(handshake(alive, socket, peer, index, telemetry, relay, stop));
                    }
                    Stage::Connection(admitted) => {
                        let Some(connection) = connection(admitted, alive, &relay, &context) else { continue };
                        executor.spawn(connection);
                        let _ = came.try_send(()); // full: the beat is awake already
                    }
                }
            }
        };
        serve.or(stop).or(beat(&relay, &context, executor, &comes)).await;
    }
}

/// The context of a worker's connections.
fn worker_context<T>(
    relay: &RelayContext<T>,
    pool: Rc<Pool>,
    telemetry: Rc<Telemetry>,
    turn: Rc<Cell<u32>>,
) -> WorkerContext {
    WorkerContext {
        pool,
        clock: Arc::clone(&relay.handshakes.clock),
        telemetry,
        stopping: Cell::new(false),
        turn,
        beat: Cell::new(0),
        keepalive: relay.keepalive,
        write_timeout: relay.write_timeout,
        probe_timeout: relay.probe_timeout,
        lingering: relay.handshakes.seats.lingering(),
    }
}

/// Wakes a share of the connections at each beat. It never ends.
///
/// Without pings and takeover probes, too: the write timeout counts at beats, and so does the time for bytes in flight.
async fn beat<T>(
    relay: &RelayContext<T>,
    context: &Rc<WorkerContext>,
    executor: &impl Spawn,
    connection_comes: &Receiver<()>,
) {
    loop {
        if Rc::strong_count(context) == 1 {
            // There are no connections, and the thread may sleep until there is one.
            let _ = connection_comes.recv().await;
        }
        let due = relay.clock().now() + relay.keepalive.beat;
        relay.clock().sleep_until(due).await;
        let beat = context.beat.get().wrapping_add(1);
        context.beat.set(beat);
        executor.wake(beat as usize % SHARES, SHARES);
    }
}

/// The task of an admitted client's connection, unless its beginning panics.
///
/// That ends this connection and no other.
fn connection<T: Transport>(
    admitted: Admitted<T>,
    alive: StopOnDrop,
    relay: &RelayContext<T>,
    context: &Rc<WorkerContext>,
) -> Option<Connection<T>> {
    let Admitted { socket, read_ahead, claim, client_guard } = admitted;
    let begin = || {
        let reframer = Reframer::new(relay.max_message);
        Connection::new(socket, &read_ahead, claim, reframer, Rc::clone(context), client_guard, alive)
    };
    // Unwinding drops the parts of the connection. Nothing else sees a half-made one.
    let connection = catch_unwind(AssertUnwindSafe(begin)).ok();
    if connection.is_none() {
        context.telemetry.closed(Outcome::Panicked);
    }
    connection
}

/// The task of an opening handshake. It ends by sending the connection to the worker of its pair.
async fn handshake<T: Transport>(
    alive: StopOnDrop,
    socket: T,
    peer: IpAddr,
    index: usize,
    telemetry: Rc<Telemetry>,
    relay: Arc<RelayContext<T>>,
    admission_closed: StopFlag,
) {
    let admitted = opening::receive(socket, peer, &relay.handshakes, &telemetry, index, &admission_closed).await;
    if let Some(mut admitted) = admitted {
        let worker = admitted.claim.worker;
        if worker != index {
            admitted.socket = admitted.socket.deregister();
        }
        // An error says that the relay has stopped meanwhile. The connection in it then departs.
        let _ = relay.inboxes[worker].send(Job { alive, stage: Stage::Connection(admitted) }).await;
    }
}
