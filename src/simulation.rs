//! The whole relay, from accept to the close, on a network in memory and a clock that is set by hand.
//!
//! It is the code that runs on sockets, generic over its transport, its time and what runs its tasks, and not a copy of
//! it. A seed decides which task runs next, what the network delivers, when, and in which pieces, and what the clients
//! do; the same seed does the same again. The clients know exactly what they sent and what they may receive, and when
//! nothing can run any more, everybody has to have a reason to wait.
//!
//! `cargo test --lib simulation` runs some thousand seeds. `ARC_RELAY_SEEDS=FIRST..LAST cargo test --release --lib
//! simulation` runs these; a failing one is named, and runs alone, with a trace, as `FIRST..FIRST+1`.

mod checks;
mod client;
mod executor;
mod network;
mod time;
mod trace;
mod visitor;

use std::cell::RefCell;
use std::io;
use std::num::NonZeroUsize;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_channel::Sender;

use crate::buffer;
use crate::clock::Clock;
use crate::pool::Pool;
use crate::relay::{Config, Parts};
use crate::seats::Seats;
use crate::stop::StopOnDrop;

use client::{Ending, Handle, MAX_MESSAGE, client};
use executor::{Executor, Random, Tasks};
use network::{Cable, Socket, connection, listener};
use time::{SimulatedClock, sleep};
use trace::trace;
use visitor::{Visitor, visitor};

/// How long a side may wait for the other, in simulated time.
const PAIR_TTL: Duration = Duration::from_secs(30);

/// More steps than any seed takes: a world that does not come to rest spins.
const STEPS: usize = 2_000_000;

/// The relay, as it is started on threads, but as tasks.
struct Relay {
    arrivals: Sender<io::Result<Socket>>,
    seats: Arc<Seats>,
    pools: Vec<Rc<Pool>>,
    /// Until it is stopped.
    running: Option<StopOnDrop>,
}

impl Relay {
    fn start(config: &Config, executor: &Rc<Executor>, clock: Arc<dyn Clock>) -> Self {
        let (arrivals, listener) = listener();
        let Parts { seats, request_stop, acceptor, workers, .. } = Parts::new(config, listener, clock);
        executor.spawn(("acceptor", 0), acceptor.run());
        let mut pools = Vec::new();
        for worker in workers {
            let tasks = Tasks { executor: Rc::clone(executor), worker: worker.index, spawned: RefCell::default() };
            let pool = Rc::default();
            pools.push(Rc::clone(&pool));
            executor.spawn(("worker", worker.index), async move { worker.serve(&tasks, pool).await });
        }
        Self { arrivals, seats, pools, running: Some(request_stop) }
    }

    /// Lets a socket come to its listener. It is closed if nobody listens.
    fn accept(&self, socket: Socket) {
        let _ = self.arrivals.try_send(Ok(socket));
    }

    /// Makes the next accept fail, as it does when there are no file descriptors left.
    fn fail_accept(&self) {
        let _ = self.arrivals.try_send(Err(io::Error::other("out of file descriptors")));
    }

    fn is_stopped(&self) -> bool {
        self.running.is_none()
    }

    /// The memory, in bytes, in buffers that are not free.
    fn memory(&self) -> usize {
        buffer::allocated() - self.pools.iter().map(|pool| pool.held()).sum::<usize>()
    }
}

/// The world of one seed.
struct World {
    random: Random,
    executor: Rc<Executor>,
    clock: Arc<SimulatedClock>,
    config: Config,
    relay: Relay,
    cables: Vec<Cable>,
    clients: Vec<Handle>,
    visitors: Vec<(Rc<RefCell<Visitor>>, Cable)>,
    steps: usize,
    relay_stopped_at: Option<Instant>,
    /// The most codes that were ever in use.
    most_pairs: usize,
    /// Follows from everything that was decided: two runs of a seed have the same.
    fingerprint: u64,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let executor = Rc::new(Executor::default());
        let clock = Arc::new(SimulatedClock::new());
        let config = Config {
            pair_ttl: PAIR_TTL,
            max_message: Some(MAX_MESSAGE as u64),
            max_pairs: if random.once_in(6) { 1 + random.below(2) } else { 100 },
            workers: NonZeroUsize::MIN.saturating_add(random.below(3)),
            ..Config::default()
        };
        let relay = Relay::start(&config, &executor, Arc::<SimulatedClock>::clone(&clock));
        Self {
            random,
            executor,
            clock,
            config,
            relay,
            cables: vec![],
            clients: vec![],
            visitors: vec![],
            steps: 0,
            relay_stopped_at: None,
            most_pairs: 0,
            fingerprint: seed,
        }
    }

    /// A new connection to the relay; returns the client's side.
    fn socket(&mut self, client: usize) -> (Socket, Cable) {
        if self.random.once_in(12) {
            self.relay.fail_accept();
        }
        let capacity = [200, 5000, 100_000, 1_000_000][self.random.below(4)];
        let (near, far, cable) = connection(client, capacity, self.random.split());
        self.relay.accept(far);
        self.cables.push(cable.clone());
        (near, cable)
    }

    fn connect(&mut self) {
        let number = self.clients.len();
        let socket = self.socket(number);
        let clock: Arc<dyn Clock> = Arc::<SimulatedClock>::clone(&self.clock);
        let (handle, writer, reader) = client(number, socket, &mut self.random, &clock);
        trace(|| {
            let client = handle.state.borrow();
            let lengths: Vec<_> = client.messages.iter().map(Vec::len).collect();
            let traits = [(client.deaf, "deaf"), (client.slow, "slow"), (client.dreamy, "dreamy")];
            let traits: Vec<_> = traits.iter().filter_map(|(is, what)| is.then_some(what)).collect();
            format!("client {number}: code {}, messages {lengths:?}, {:?}, {traits:?}", client.code, client.ending)
        });
        self.executor.spawn(("writer of client", number), writer);
        self.executor.spawn(("reader of client", number), reader);
        self.clients.push(handle);
    }

    fn visit(&mut self) {
        let number = 100 + self.visitors.len();
        let (near, cable) = self.socket(number);
        let (state, task) = visitor(near, self.random.split(), Arc::<SimulatedClock>::clone(&self.clock));
        trace(|| format!("client {number}: a visitor who expects {:?}", state.borrow().expected));
        self.executor.spawn(("visitor", number), task);
        self.visitors.push((state, cable));
    }

    /// Runs until nothing can happen but by time or by somebody's decision.
    fn settle(&mut self) {
        loop {
            self.steps += 1;
            assert!(self.steps < STEPS, "it does not come to rest");
            let busy: Vec<_> = self.cables.iter().filter(|cable| cable.is_busy()).collect();
            let runnable = self.executor.runnable();
            if busy.len() + runnable == 0 {
                self.check_rest();
                return;
            }
            let nth = self.random.below(busy.len() + runnable);
            self.fingerprint = (self.fingerprint.rotate_left(5) ^ nth as u64).wrapping_mul(0x100_0000_01B3);
            match nth.checked_sub(runnable) {
                None => self.executor.run(nth),
                Some(nth) => {
                    if let Some(stall) = busy[nth].deliver() {
                        let (clock, cable): (Arc<dyn Clock>, _) = (Arc::clone(&self.clock) as _, busy[nth].clone());
                        self.executor.spawn(("stall", 0), async move {
                            sleep(&clock, stall).await;
                            cable.resume();
                        });
                    }
                }
            }
            self.check_step();
        }
    }

    /// Runs to the end, checks everything on the way, and returns the fingerprint.
    fn run(mut self) -> u64 {
        let clients = 1 + self.random.below(6);
        let stops_at = if self.random.once_in(6) { Some(self.random.below(20)) } else { None };
        for round in 0.. {
            if self.random.once_in(8) && self.visitors.len() < 3 {
                self.visit();
            }
            if self.clients.len() < clients && (round == 0 || self.random.once_in(2)) {
                self.connect();
                if self.random.once_in(2) {
                    continue; // and another one at once
                }
            }
            if stops_at == Some(round) {
                trace(|| "the relay is to stop".into());
                self.relay.running = None;
                self.relay_stopped_at = Some(self.clock.now());
            }
            self.settle();
            if self.clients.len() < clients || self.clock.advance(Duration::from_secs(3)) {
                continue;
            }
            // Time does not help soon, so somebody who stays decides to leave; if nobody does, time has to help.
            let staying = self.clients.iter().find(|handle| {
                let client = handle.state.borrow();
                client.ending == Ending::Stay && client.end.is_none() && client.status == Some(101)
            });
            match staying {
                Some(handle) if self.random.once_in(2) => handle.leave(),
                _ if self.clock.advance(Duration::from_secs(120)) => {}
                Some(handle) => handle.leave(),
                None => break,
            }
        }
        self.relay.running = None;
        while {
            self.settle();
            self.clock.advance(Duration::from_secs(120))
        } {}
        self.check_end();
        self.fingerprint
    }
}

/// Runs one seed.
fn simulate(seed: u64, alone: bool) -> u64 {
    let world = World::new(seed);
    trace::begin(alone.then(|| world.clock.now()));
    world.run()
}

#[test]
fn every_seed_keeps_the_contract() {
    let seeds = match std::env::var("ARC_RELAY_SEEDS") {
        Err(_) => 0..3000,
        Ok(range) => {
            let (first, last) = range.split_once("..").expect("FIRST..LAST");
            first.parse::<u64>().expect("a number")..last.parse().expect("a number")
        }
    };
    let alone = seeds.end - seeds.start == 1;
    for seed in seeds {
        let result = std::panic::catch_unwind(|| simulate(seed, alone));
        assert!(result.is_ok(), "seed {seed}: ARC_RELAY_SEEDS={seed}..{} shows it alone", seed + 1);
    }
}

#[test]
fn a_seed_does_the_same_again() {
    for seed in 0..50 {
        assert_eq!(simulate(seed, false), simulate(seed, false), "seed {seed}");
    }
}
