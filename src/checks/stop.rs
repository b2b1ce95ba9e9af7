//! The stop of a relay with two workers, and its end by a failure, while clients come, move and leave.

use std::num::NonZeroUsize;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use shuttle::rand::{Rng, thread_rng};
use shuttle::thread::{self, JoinHandle};

use super::check;
use super::stage::{Door, Handle, Socket, Still, Tasks};
use crate::buffers::pool::Pool;
use crate::http::context::HandshakeContext;
use crate::limits::resources::Resources;
use crate::runtime::spawn::Spawn;
use crate::runtime::stop::StopOnDrop;
use crate::server::config::Config;
use crate::server::context::RelayContext;
use crate::server::relay::Parts;

/// A relay with two workers.
struct Relay {
    door: Door,
    threads: Vec<JoinHandle<()>>,
    context: Arc<RelayContext<Socket>>,
    request_stop: StopOnDrop,
}

impl Relay {
    fn start() -> Self {
        let config = Config {
            workers: NonZeroUsize::new(2),
            drain_timeout: Duration::ZERO,
            ping_interval: None,
            ..Config::default()
        };
        let door = Door::default();
        let parts: Parts<Handle> =
            Parts::new(&config, &door.listen(), Arc::new(Still(Instant::now())), Resources::AMPLE);
        let Parts { request_stop, supervisor, workers, .. } = parts;
        let context = Arc::clone(&supervisor.relay);
        let mut supervisor = Some(supervisor);
        let threads = workers.into_iter().map(|worker| {
            let supervisor = supervisor.take();
            thread::spawn(move || {
                let tasks = Rc::new(Tasks::default());
                if let Some(supervisor) = supervisor {
                    let handshakes = Arc::clone(&supervisor.relay.handshakes);
                    tasks.spawn(async move {
                        supervisor.run().await;
                        // No timeout is ever over, so it has waited for all.
                        assert_deserted(&handshakes);
                    });
                }
                let pool = Rc::new(Pool::new(Arc::clone(&worker.relay.buffer_memory)));
                tasks.run(worker.serve(&tasks, pool));
            })
        });
        let threads = threads.collect();
        Self { door, threads, context, request_stop }
    }
}

fn assert_deserted(handshakes: &HandshakeContext) {
    assert_eq!(handshakes.seats.pairs(), 0, "a seat is left");
    assert_eq!(handshakes.slots.len(), 0, "a handshake is left");
    let counters = handshakes.telemetry.counters(handshakes.seats.counts());
    assert_eq!((counters.connections, counters.panics), (0, 0), "a connection is left");
}

/// Lets other threads go on for a while.
fn pass() {
    for _ in 0..thread_rng().gen_range(0..64) {
        thread::yield_now();
    }
}

/// Clients come to both workers while the relay stops, and one of them may leave.
///
/// No timeout is ever over. So the supervisor sees the end when all connections have ended, or this never ends.
#[test]
fn stop_tells_every_client_that_was_accepted_and_ends_behind_the_last() {
    check(|| {
        let Relay { door, threads, context, request_stop } = Relay::start();
        let clients = ["x", "x"].map(|code| {
            let (door, leaves) = (door.clone(), thread_rng().gen_bool(0.25));
            thread::spawn(move || {
                let client = door.connect(code);
                if leaves {
                    pass();
                    client.leave();
                }
                (client, leaves)
            })
        });
        pass();
        drop(request_stop);
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert_deserted(&context.handshakes);
        for (client, leaves) in clients.map(|client| client.join().unwrap()) {
            assert!(client.is_closed(), "a socket is left");
            match client.told() {
                (Some(101), is_closed) => assert!(is_closed || leaves, "its connection ended without a close frame"),
                (Some(503), _) => {}
                (status, _) => assert!(status.is_none() && !client.is_accepted(), "answered with {status:?}"),
            }
        }
    });
}

/// The relay fails while clients are on their way to another worker.
///
/// A failure closes the inboxes, and so ends the workers.
#[test]
fn nothing_is_left_of_a_client_that_moves_to_a_worker_that_ends() {
    check(|| {
        let Relay { door, threads, context, request_stop } = Relay::start();
        let clients = ["x", "x", "y"].map(|code| {
            let door = door.clone();
            thread::spawn(move || door.connect(code))
        });
        pass();
        let nth = thread_rng().gen_range(0..2);
        [nth, 1 - nth].into_iter().for_each(|nth| _ = context.inboxes[nth].close());
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert!(clients.into_iter().all(|client| client.join().unwrap().is_closed()), "a socket is left");
        assert_deserted(&context.handshakes);
        drop(request_stop);
    });
}
