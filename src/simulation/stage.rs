//! The relay with its network and its clock, but without clients: scenes and worlds add these.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use async_channel::Sender;

use super::executor::{Executor, Random, Tasks};
use super::line::Line;
use super::network::{Cable, Door, Socket, connection};
use super::proxy::{Pace, Proxy};
use super::time::{SimulatedClock, sleep};
use crate::buffers::buffer;
use crate::buffers::pool::Pool;
use crate::limits::clients::ClientLimits;
use crate::limits::resources::Resources;
use crate::pairing::seats::Seats;
use crate::runtime::clock::Clock;
use crate::runtime::stop::StopOnDrop;
use crate::server::config::Config;
use crate::server::relay::Parts;
use crate::telemetry::counters::{Counters, RelayTelemetry};

/// More steps than any seed takes. A world that exceeds this limit spins.
const STEPS: usize = 2_000_000;

/// The relay's tasks, without its threads.
pub(super) struct Relay {
    pub(super) door: Door,
    pub(super) seats: Arc<Seats>,
    client_limits: Arc<ClientLimits>,
    telemetry: Arc<RelayTelemetry>,
    pools: Vec<Rc<Pool>>,
    request_recall: Sender<()>,
    /// Dropping this value stops the relay.
    pub(super) running: Option<StopOnDrop>,
}

impl Relay {
    pub(super) fn start(config: &Config, executor: &Rc<Executor>, clock: Arc<dyn Clock>) -> Self {
        let door = Door::default();
        let Parts { request_stop, request_recall, supervisor, workers, .. } =
            Parts::new(config, &door.listener(), clock, Resources::AMPLE);
        let handshakes = Arc::clone(&supervisor.relay.handshakes);
        executor.spawn(("supervisor", 0), supervisor.run());
        let mut pools = Vec::new();
        for worker in workers {
            let tasks =
                Rc::new(Tasks { executor: Rc::clone(executor), worker: worker.index, spawned: RefCell::default() });
            let pool = Rc::new(Pool::new(Arc::clone(&worker.relay.buffer_memory)));
            pools.push(Rc::clone(&pool));
            executor.spawn(("worker", worker.index), async move { worker.serve(&tasks, pool).await });
        }
        let (seats, client_limits) = (Arc::clone(&handshakes.seats), Arc::clone(&handshakes.client_limits));
        let telemetry = Arc::clone(&handshakes.telemetry);
        Self { door, seats, client_limits, telemetry, pools, request_recall, running: Some(request_stop) }
    }

    /// Delivers a socket to the listener. The socket is closed if the listener is gone.
    fn accept(&self, socket: Socket) {
        self.door.deliver(Ok(socket));
    }

    /// Makes the next accept fail, like one without free file descriptors.
    pub(super) fn fail_accept(&self) {
        self.door.deliver(Err(io::Error::other("out of file descriptors")));
    }

    /// Tells the sides that wait to come again, unless the relay was told to stop.
    pub(super) fn recall_waiting(&self) {
        let _ = self.request_recall.try_send(());
    }

    pub(super) fn counters(&self) -> Counters {
        self.telemetry.counters(self.seats.counts())
    }

    /// The memory in use by buffers, in bytes. Free buffers in a pool do not count.
    pub(super) fn memory(&self) -> usize {
        buffer::allocated() - self.pools.iter().map(|pool| pool.held()).sum::<usize>()
    }
}

/// A relay, its network, its clock and the source of all random decisions.
pub(super) struct Stage {
    pub(super) random: Random,
    pub(super) executor: Rc<Executor>,
    pub(super) clock: Arc<SimulatedClock>,
    pub(super) config: Config,
    pub(super) relay: Relay,
    /// The cables that end at the relay.
    pub(super) cables: Vec<Cable>,
    /// The cables between a client and its proxy.
    pub(super) cables_to_proxies: Vec<Cable>,
    steps: usize,
    /// A hash of all decisions so far: two runs of a seed have the same fingerprint.
    pub(super) fingerprint: u64,
}

impl Stage {
    pub(super) fn new(random: Random, config: Config) -> Self {
        let executor = Rc::new(Executor::default());
        let clock = Arc::new(SimulatedClock::new());
        let relay = Relay::start(&config, &executor, Arc::<SimulatedClock>::clone(&clock));
        Self {
            random,
            executor,
            clock,
            config,
            relay,
            cables: vec![],
            cables_to_proxies: vec![],
            steps: 0,
            fingerprint: 0,
        }
    }

    /// The clock, as a shared trait object.
    pub(super) fn shared_clock(&self) -> Arc<dyn Clock> {
        Arc::<SimulatedClock>::clone(&self.clock)
    }

    /// Opens a connection with this much room in each direction. Returns the client's side.
    pub(super) fn socket(&mut self, client: usize, capacity: usize) -> (Socket, Cable) {
        self.socket_from("the client", client, capacity)
    }

    fn socket_from(&mut self, end: &'static str, client: usize, capacity: usize) -> (Socket, Cable) {
        let (near, far, cable) = connection(client, [end, "the relay"], capacity, self.random.split());
        self.relay.accept(far);
        self.cables.push(cable.clone());
        (near, cable)
    }

    /// Opens a connection to a new proxy, which connects to the relay. Returns the client's side.
    ///
    /// Both connections have this much room in each direction. The first pace is towards the relay, the second towards
    /// the client.
    pub(super) fn proxied_socket(&mut self, client: usize, capacity: usize, paces: [Pace; 2]) -> (Socket, Line) {
        let (to_relay, cable) = self.socket_from("the proxy", client, capacity);
        let (near, to_client, cable_to_proxy) =
            connection(client, ["the client", "the proxy"], capacity, self.random.split());
        self.cables_to_proxies.push(cable_to_proxy.clone());
        let proxy = Proxy::new(client, to_client, to_relay, paces, &self.shared_clock());
        let line = Line::proxied(cable_to_proxy, cable, proxy.loads(), paces[1]);
        self.executor.spawn(("proxy of client", client), proxy.run());
        (near, line)
    }

    /// All cables, those between clients and proxies last.
    pub(super) fn all_cables(&self) -> impl Iterator<Item = &Cable> {
        self.cables.iter().chain(&self.cables_to_proxies)
    }

    /// Runs one of the possible events: a step of a task, or a delivery. Returns false if there is none.
    pub(super) fn step(&mut self) -> bool {
        self.steps += 1;
        assert!(self.steps < STEPS, "the simulation does not come to rest");
        let busy: Vec<_> = self.cables.iter().chain(&self.cables_to_proxies).filter(|cable| cable.is_busy()).collect();
        let runnable = self.executor.runnable();
        if busy.len() + runnable == 0 {
            return false;
        }
        let nth = self.random.below(busy.len() + runnable);
        for decided in [nth, runnable, busy.len(), self.relay.memory()] {
            self.fingerprint = (self.fingerprint.rotate_left(5) ^ decided as u64).wrapping_mul(0x100_0000_01B3);
        }
        match nth.checked_sub(runnable) {
            None => {
                self.executor.run(nth);
                self.watch_acks();
            }
            Some(nth) => {
                if let Some(stall) = busy[nth].deliver() {
                    let (clock, cable) = (self.shared_clock(), busy[nth].clone());
                    self.executor.spawn(("stall", 0), async move {
                        sleep(&clock, stall).await;
                        cable.resume();
                    });
                }
            }
        }
        true
    }

    /// Simulates the kernel's acknowledgement timeouts for cables on which the relay has just set one.
    ///
    /// A timeout begins with the first retransmission, after one second.
    fn watch_acks(&self) {
        for cable in &self.cables {
            if let Some((timeout, arrivals)) = cable.take_ack_timeout() {
                let (clock, cable) = (self.shared_clock(), cable.clone());
                self.executor.spawn(("ack timeout", 0), async move {
                    sleep(&clock, timeout + Duration::from_secs(1)).await;
                    cable.check_ack(arrivals);
                });
            }
        }
    }

    /// Runs until only the clock or a decision can change anything.
    pub(super) fn settle(&mut self) {
        while self.step() {}
    }

    /// Advances the clock by `duration`, and runs everything that becomes due.
    pub(super) fn pass(&mut self, duration: Duration) {
        let end = self.clock.now() + duration;
        self.settle();
        while self.clock.advance(end - self.clock.now()) {
            self.settle();
        }
        self.clock.set(end);
    }

    /// Stops the relay, and runs until no task waits for the clock.
    pub(super) fn stop(&mut self) {
        self.relay.running = None;
        self.settle();
        while self.clock.advance(Duration::from_secs(120)) {
            self.settle();
        }
    }

    /// Checks that nothing is left of clients that have all gone.
    pub(super) fn check_deserted(&self) {
        assert!(self.cables.iter().all(Cable::is_closed_by_relay), "the relay has a socket left");
        assert_eq!(self.relay.seats.pairs(), 0, "a seat outlives its connection");
        assert_eq!(self.relay.client_limits.connections(), 0, "the client limits count a closed connection");
        assert_eq!(self.relay.memory(), 0, "buffers are left");
        let counters = self.relay.counters();
        assert_eq!((counters.connections, counters.panics), (0, 0), "the counters count closed connections or panics");
        let mut tasks = self.executor.tasks();
        tasks.retain(|(what, _)| !matches!(*what, "supervisor" | "worker"));
        assert!(tasks.is_empty(), "tasks are left: {tasks:?}");
    }

    /// Checks that nothing is left at all, the relay's own tasks included.
    pub(super) fn check_empty(&self) {
        self.check_deserted();
        let tasks = self.executor.tasks();
        assert!(tasks.is_empty(), "tasks are left: {tasks:?}");
    }
}
