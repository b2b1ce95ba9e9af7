//! A worker: a thread with an executor and a reactor. Its tasks never leave it.
//!
//! The opening handshake runs on the worker that has accepted the connection. Once the pair code is known, the connection moves to the worker of its pair. So
//! the core that has read a batch also writes it, and buffers need no locks. A panic in a task ends its own connection and
//! nothing else: unwinding drops the link, which tells the peer 1011.

use std::cell::Cell;
use std::future::{Future, pending};
use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::{Rc, Weak};
use std::sync::Arc;

use async_channel::{Receiver, Sender};
use futures_lite::FutureExt;

use super::acceptor::accept;
use super::context::{EndOnDrop, Job, RelayContext};
use crate::buffers::pool::Pool;
use crate::connection::{Connection, PORTIONS, WorkerContext};
use crate::http::opening::{self, Admitted};
use crate::pairing::link::SpareChannels;
use crate::runtime::executor::Executor;
use crate::runtime::reactor::Reactor;
use crate::runtime::spawn::Spawn;
use crate::runtime::stop::{StopFlag, StopOnDrop};
use crate::runtime::transport::{Listener, Transport};
use crate::telemetry::counters::Telemetry;
use crate::telemetry::events::Outcome;
use crate::websocket::reframer::Reframer;

/// The number of shares of the connections.
///
/// One share looks at its clients at each beat, so that none waits for all others.
const SHARES: usize = 4;

/// A worker that is about to run.
pub(crate) struct Worker<L: Listener> {
    pub(crate) index: usize,
    pub(crate) listener: L,
    pub(crate) inbox: Receiver<Job<L::Socket>>,
    /// Each connection that this worker accepts holds a clone.
    ///
    /// It keeps that on another worker, where none is made any more. So once all clones of a worker are dropped, none follows.
    pub(crate) alive: StopOnDrop,
    pub(crate) relay: Arc<RelayContext<L::Socket>>,
}

/// What the opening handshakes of a worker share.
struct Reception<T, S> {
    index: usize,
    relay: Arc<RelayContext<T>>,
    telemetry: Rc<Telemetry>,
    /// Whether no client is admitted any more. All tasks are woken when this changes.
    admission_closed: StopFlag,
    context: Rc<WorkerContext>,
    /// The executor, which owns the tasks that hold this.
    executor: Weak<S>,
    /// Tells the beat that a connection has come.
    came: Sender<()>,
}

impl<T: Transport, S: Spawn> Reception<T, S> {
    /// The worker for a client that comes first.
    fn place(&self) -> usize {
        self.relay.loads.place(self.index, self.context.connections.get())
    }

    /// Makes a connection of this worker's a task.
    fn begin(&self, Job { alive, admitted }: Job<T>) {
        let Some(executor) = self.executor.upgrade() else { return };
        let Some(connection) = connection(admitted, alive, &self.relay, &self.context) else { return };
        executor.spawn(connection);
        self.relay.loads.tell(self.index, self.context.connections.get());
        let _ = self.came.try_send(()); // full: the beat is awake already
    }
}

impl<L: Listener> Worker<L> {
    /// Runs connections on this thread, and `extra` beside them, until the inbox is closed.
    ///
    /// Its own end, also by a panic, ends the relay.
    pub(crate) fn run(self, reactor: &Arc<Reactor>, extra: Option<impl Future<Output = ()> + 'static>) {
        let _end = EndOnDrop(Arc::clone(&self.relay));
        let executor = Rc::new(Executor::default());
        if let Some(extra) = extra {
            executor.spawn(extra);
        }
        let pool = Rc::new(Pool::new(Arc::clone(&self.relay.buffer_memory)));
        reactor.block_on(executor.run(self.serve(&executor, pool)));
    }

    /// Accepts connections, and makes each that comes a task of the executor, until the inbox is closed.
    pub(crate) async fn serve(self, executor: &Rc<impl Spawn + 'static>, pool: Rc<Pool>) {
        let Self { index, listener, inbox, alive, relay } = self;
        let telemetry = Rc::new(relay.handshakes.telemetry.add_worker());
        let context = Rc::new(worker_context(&relay, pool, Rc::clone(&telemetry), executor.turn()));
        let (came, comes) = async_channel::bounded(1);
        let reception = Rc::new(Reception {
            index,
            relay: Arc::clone(&relay),
            telemetry,
            admission_closed: StopFlag::default(),
            context: Rc::clone(&context),
            executor: Rc::downgrade(executor),
            came,
        });
        // One task waits for the signals and sets flags for all other tasks: a listener each would cost memory, and each
        // handshake a lock that all workers share.
        let stop = async {
            relay.drain_begun.clone().wait().await;
            executor.wake(0, 1);
            relay.admission_closed.clone().wait().await;
            reception.admission_closed.set();
            executor.wake(0, 1);
            relay.stopped.clone().wait().await;
            stop_in_portions(&relay, &context, &**executor).await;
            pending::<()>().await;
        };
        // Each stage is a task of its own: a task is as large as its largest stage, and a handshake is large, but short.
        let begin = {
            let reception = Rc::clone(&reception);
            move |socket, peer| executor.spawn(handshake(alive.clone(), socket, peer, Rc::clone(&reception)))
        };
        let accept = async {
            accept(listener, &relay, &reception.telemetry, &reception.admission_closed, begin).await;
            pending::<()>().await;
        };
        let receive = async {
            while let Ok(job) = inbox.recv().await {
                reception.begin(job);
            }
        };
        let expire = relay.handshakes.seats.expire(index);
        // The stop comes first: the acceptor looks at its flag.
        let serve = stop.or(accept).or(receive).or(expire);
        serve.or(beat(&relay, index, &context, &**executor, &comes)).await;
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
        channels: SpareChannels::default(),
        clock: Arc::clone(&relay.handshakes.clock),
        telemetry,
        stopping: Cell::new(0),
        drain: Arc::clone(&relay.drain),
        turn,
        beat: Cell::new(0),
        connections: Cell::new(0),
        keepalive: relay.keepalive,
        pair_ttl: relay.pair_ttl,
        write_timeout: relay.write_timeout,
        probe_timeout: relay.probe_timeout,
        lingering: relay.handshakes.seats.lingering(),
    }
}

/// Tells all connections of a worker that the relay stops, a portion of the pairs at a time.
///
/// All at once, their clients would also come again at once.
async fn stop_in_portions<T>(relay: &RelayContext<T>, context: &WorkerContext, executor: &impl Spawn) {
    let pause = relay.spread / u32::from(PORTIONS);
    let first = if pause.is_zero() { PORTIONS } else { 1 };
    for portions in first..=PORTIONS {
        context.stopping.set(portions);
        executor.wake(0, 1);
        relay.clock().sleep_until(relay.clock().now() + pause).await;
    }
}

/// Wakes a share of the connections at each beat. It never ends.
///
/// Without pings and takeover probes, too: the write timeout counts at beats, and so does the time for bytes in flight.
async fn beat<T>(
    relay: &RelayContext<T>,
    index: usize,
    context: &Rc<WorkerContext>,
    executor: &impl Spawn,
    connection_comes: &Receiver<()>,
) {
    loop {
        relay.loads.tell(index, context.connections.get());
        if context.connections.get() == 0 {
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

/// The task of an opening handshake. It ends with the connection on the worker of its pair.
async fn handshake<T: Transport, S: Spawn>(alive: StopOnDrop, socket: T, peer: IpAddr, reception: Rc<Reception<T, S>>) {
    let Reception { index, relay, telemetry, admission_closed, .. } = &*reception;
    let place = || reception.place();
    let opened = opening::receive(socket, peer, &relay.handshakes, telemetry, *index, place, admission_closed);
    let Some(mut admitted) = opened.await else { return };
    let worker = admitted.claim.worker;
    if worker == *index {
        // Without a turn of the executor in between, as the inbox takes.
        return reception.begin(Job { alive, admitted });
    }
    relay.loads.expect(worker);
    admitted.socket = admitted.socket.deregister();
    // An error says that the relay has stopped meanwhile. The connection in it then departs.
    let _ = relay.inboxes[worker].send(Job { alive, admitted }).await;
}
