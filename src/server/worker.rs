//! A worker: a thread with an executor of its own, whose tasks never leave it.
//!
//! A connection's handshake runs on any worker; once its pair code is known the connection moves to where its pair
//! runs, so that a batch is written by the core that has just read it, and buffers need no locks. A task that panics
//! ends its own connection (its peer is told 1011 by what unwinding drops) and nothing else.

use std::cell::Cell;
use std::future::{Future, pending};
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use async_channel::{Receiver, Sender};
use futures_lite::FutureExt;

use crate::buffers::memory::Memory;
use crate::buffers::pool::Pool;
use crate::connection::keepalive::KeepaliveConfig;
use crate::connection::{Connection, WorkerContext};
use crate::http::context::HandshakeContext;
use crate::http::opening::{self, Admitted};
use crate::pairing::seats::Seats;
use crate::runtime::clock::Clock;
use crate::runtime::executor::{Executor, Spawn};
use crate::runtime::reactor::Reactor;
use crate::runtime::stop::{Stop, StopOnDrop};
use crate::runtime::transport::Transport;
use crate::telemetry::counters::Telemetry;
use crate::websocket::reframer::Reframer;

/// At a beat, one in so many connections looks at its client: none waits for all the others.
const SHARES: usize = 4;

/// What all workers share.
#[derive(Debug)]
pub(crate) struct Shared<T> {
    pub(crate) door: Arc<HandshakeContext>,
    pub(crate) seats: Arc<Seats>,
    pub(crate) telemetry: Arc<Telemetry>,
    pub(crate) buffer_memory: Arc<Memory>,
    /// The way to each worker.
    pub(crate) inboxes: Vec<Sender<Job<T>>>,
    /// Tells those at the front door that nobody comes in any more.
    pub(crate) door_closed: Stop,
    /// Tells connections to close.
    pub(crate) stopped: Stop,
    pub(crate) max_message: Option<u64>,
    pub(crate) keepalive: KeepaliveConfig,
    pub(crate) write_timeout: Duration,
    pub(crate) probe_timeout: Duration,
    /// Whether there are beats: somebody is asked whether it is there, at some time.
    pub(crate) beats: bool,
    pub(crate) clock: Arc<dyn Clock>,
}

/// A connection on its way to a worker.
pub(crate) struct Job<T> {
    /// Held for as long as the connection lives.
    pub(crate) alive: StopOnDrop,
    pub(crate) stage: Stage<T>,
}

/// How far a connection has come.
pub(crate) enum Stage<T> {
    /// Accepted, from this address.
    Handshake(T, IpAddr),
    /// A WebSocket, with its seat.
    Connection(Admitted<T>),
}

/// A worker that is about to run.
#[derive(Debug)]
pub(crate) struct Worker<T> {
    pub(crate) index: usize,
    pub(crate) inbox: Receiver<Job<T>>,
    pub(crate) shared: Arc<Shared<T>>,
}

impl<T: Transport> Worker<T> {
    /// Runs connections on this thread, and `extra` beside them, until the inbox is closed.
    pub(crate) fn run(self, reactor: &Arc<Reactor>, extra: Option<impl Future<Output = ()> + 'static>) {
        let executor = Executor::default();
        if let Some(extra) = extra {
            executor.spawn(extra);
        }
        let pool = Rc::new(Pool::new(Arc::clone(&self.shared.buffer_memory)));
        reactor.block_on(executor.run(self.serve(&executor, pool)));
    }

    /// Makes each connection that comes in a task of the executor, until the inbox is closed.
    pub(crate) async fn serve(self, executor: &impl Spawn, pool: Rc<Pool>) {
        let Self { index, inbox, shared } = self;
        let context = Rc::new(WorkerContext {
            pool,
            clock: Arc::clone(&shared.clock),
            telemetry: Arc::clone(&shared.telemetry),
            stopping: Cell::new(false),
            turn: executor.turn(),
            beat: Cell::new(0),
            keepalive: shared.keepalive,
            write_timeout: shared.write_timeout,
            probe_timeout: shared.probe_timeout,
            lingering: shared.seats.lingering(),
        });
        // One waits for the signal in the place of all, which costs each of them a flag instead of a listener.
        let stop = async {
            shared.stopped.clone().wait().await;
            context.stopping.set(true);
            executor.wake(0, 1);
            pending::<()>().await;
        };
        let (came, comes) = async_channel::bounded(1);
        let beats = async {
            if !shared.beats {
                pending::<()>().await;
            }
            loop {
                if Rc::strong_count(&context) == 1 {
                    // All connections are gone, and the thread may sleep until there is one.
                    let _ = comes.recv().await;
                }
                let due = shared.clock.now() + shared.keepalive.beat;
                shared.clock.sleep_until(due).await;
                let beat = context.beat.get().wrapping_add(1);
                context.beat.set(beat);
                executor.wake(beat as usize % SHARES, SHARES);
            }
        };
        let serve = async {
            while let Ok(Job { alive, stage }) = inbox.recv().await {
                // The two stages are tasks of their own, because a task is as large as its largest stage, and a
                // handshake is large, but short.
                match stage {
                    Stage::Handshake(socket, peer) => {
                        executor.spawn(handshake(alive, socket, peer, index, Arc::clone(&shared)));
                    }
                    Stage::Connection(Admitted { socket, read_ahead, claim, client_guard }) => {
                        let context = Rc::clone(&context);
                        let reframer = Reframer::new(shared.max_message);
                        let connection =
                            Connection::new(socket, &read_ahead, claim, reframer, context, client_guard, alive);
                        executor.spawn(connection);
                        let _ = came.try_send(()); // full: it is told already
                    }
                }
            }
        };
        serve.or(stop).or(beats).await;
    }
}

async fn handshake<T: Transport>(alive: StopOnDrop, socket: T, peer: IpAddr, index: usize, shared: Arc<Shared<T>>) {
    let admitted = opening::receive(socket, peer, &shared.door, index, shared.door_closed.clone()).await;
    if let Some(mut admitted) = admitted {
        let worker = admitted.claim.worker;
        if worker != index {
            admitted.socket = admitted.socket.deregister();
        }
        let inbox = &shared.inboxes[worker];
        // It fails if the relay has stopped meanwhile; what is in it then departs.
        let _ = inbox.send(Job { alive, stage: Stage::Connection(admitted) }).await;
    }
}
