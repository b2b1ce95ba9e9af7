//! The whole relay, from the opening handshake to the close, on a network in memory and a clock that is set by hand.
//!
//! It is the code that runs on sockets, generic over its transport and its time, and not a copy of it. A seed decides
//! which task runs next, what the network delivers and in which pieces, and what the clients do; the same seed does
//! the same again. The clients know exactly what they sent and what they may receive, and when nothing can run any
//! more, everybody has to have a reason to wait.
//!
//! `cargo test --lib simulation` runs some thousand seeds. `ARC_RELAY_SEEDS=FIRST..LAST cargo test --release --lib
//! simulation` runs these; a failing one is named, and runs alone, with a trace, as `FIRST..FIRST+1`.

mod client;
mod executor;
mod network;

use std::cell::Ref;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use crate::connection::{Connection, Surroundings};
use crate::front_door::{self, Admitted};
use crate::pool::Pool;
use crate::reframe::Reframer;
use crate::seats::Seats;
use crate::stats::Stats;
use crate::stop::{Stop, StopOnDrop, stop};
use crate::tick::Tick;
use crate::transport::Clock;

use client::{Client, Ending, Handle, MAX_MESSAGE, client, origin};
use executor::{Executor, Random, SimulatedClock};
use network::{Cable, Socket, connection};

/// How long a side may wait for the other, in simulated time.
const PAIR_TTL: Duration = Duration::from_secs(30);

/// More steps than any seed takes: a world that does not come to rest spins.
const STEPS: usize = 2_000_000;

/// The relay's side: what its workers do, with any transport.
struct Relay {
    executor: Rc<Executor>,
    seats: Arc<Seats>,
    stats: Arc<Stats>,
    pool: Rc<Pool>,
    tick: Rc<Tick>,
    clock: Arc<dyn Clock>,
    stopped: Stop,
    alive: StopOnDrop,
}

impl Relay {
    fn accept(self: &Rc<Self>, socket: Socket) {
        let relay = Rc::clone(self);
        self.executor.spawn(async move {
            let admitted = front_door::receive(socket, &relay.seats, 0, relay.stopped.clone(), &relay.clock).await;
            if let Some(Admitted { socket, read_ahead, claim }) = admitted {
                let surroundings = Surroundings {
                    pool: Rc::clone(&relay.pool),
                    tick: Rc::clone(&relay.tick),
                    clock: Arc::clone(&relay.clock),
                    stats: Arc::clone(&relay.stats),
                    stop: relay.stopped.clone(),
                    alive: relay.alive.clone(),
                };
                let reframer = Reframer::new(Some(MAX_MESSAGE));
                relay.executor.spawn(Connection::new(socket, &read_ahead, claim, reframer, surroundings));
            }
        });
    }
}

/// The world of one seed.
struct World {
    random: Random,
    executor: Rc<Executor>,
    clock: Arc<SimulatedClock>,
    relay: Rc<Relay>,
    stop_all: Option<StopOnDrop>,
    cables: Vec<Cable>,
    clients: Vec<Handle>,
    trace: bool,
}

impl World {
    fn new(seed: u64, trace: bool) -> Self {
        let executor = Rc::new(Executor::default());
        let clock = Arc::new(SimulatedClock::new());
        let (stop_all, stopped) = stop();
        let (alive, _) = stop();
        let shared: Arc<dyn Clock> = Arc::<SimulatedClock>::clone(&clock);
        let relay = Rc::new(Relay {
            executor: Rc::clone(&executor),
            seats: Arc::new(Seats::new(PAIR_TTL, 100, Arc::clone(&shared))),
            stats: Arc::default(),
            pool: Rc::default(),
            tick: Rc::new(Tick::new(Arc::clone(&shared))),
            clock: shared,
            stopped,
            alive,
        });
        let (seats, tick) = (Arc::clone(&relay.seats), Rc::clone(&relay.tick));
        executor.spawn(async move { seats.expire().await });
        executor.spawn(async move { tick.run().await });
        let random = Random::new(seed);
        Self { random, executor, clock, relay, stop_all: Some(stop_all), cables: vec![], clients: vec![], trace }
    }

    fn connect(&mut self) {
        let number = self.clients.len();
        let capacity = [200, 5000, 100_000, 1_000_000][self.random.below(4)];
        let wire = Random::new(self.random.below(usize::MAX >> 34) as u64);
        let (near, far, cable) = connection(capacity, wire);
        let clock: Rc<dyn Clock> = Rc::new(SharedClock(Arc::clone(&self.clock)));
        let (handle, writer, reader) = client(number, near, &mut self.random, &clock);
        if self.trace {
            let client = handle.state.borrow();
            let lengths: Vec<_> = client.messages.iter().map(Vec::len).collect();
            println!(
                "client {number}: code {}, messages {lengths:?}, then {:?}{}; room for {capacity}",
                client.code,
                client.ending,
                if client.deaf { ", deaf" } else { "" },
            );
        }
        self.executor.spawn(writer);
        self.executor.spawn(reader);
        self.relay.accept(far);
        self.cables.push(cable);
        self.clients.push(handle);
    }

    /// Runs until nothing can happen but by time or by somebody's decision.
    fn settle(&mut self, steps: &mut usize) {
        loop {
            *steps += 1;
            assert!(*steps < STEPS, "it does not come to rest");
            let busy: Vec<_> = self.cables.iter().filter(|cable| cable.is_busy()).collect();
            let runnable = self.executor.runnable();
            if busy.len() + runnable == 0 {
                return;
            }
            let nth = self.random.below(busy.len() + runnable);
            match nth.checked_sub(runnable) {
                None => self.executor.run(nth),
                Some(nth) => busy[nth].deliver(),
            }
        }
    }

    fn run(mut self) {
        let mut steps = 0;
        let clients = 1 + self.random.below(6);
        let stops_at = if self.random.once_in(6) { Some(self.random.below(20)) } else { None };
        for round in 0.. {
            if self.clients.len() < clients && (round == 0 || self.random.once_in(2)) {
                self.connect();
                if self.random.once_in(2) {
                    continue; // and another one at once
                }
            }
            if stops_at == Some(round) {
                self.relay.seats.close();
                self.stop_all = None;
            }
            self.settle(&mut steps);
            if self.clients.len() < clients || self.clock.advance(Duration::from_secs(3)) {
                continue;
            }
            self.check_rest();
            // Time does not help soon, so somebody who stays decides to leave; if nobody does, time has to help.
            let staying = self.clients.iter().find(|handle| {
                let client = handle.state.borrow();
                client.ending == Ending::Stay && client.end.is_none() && client.status == Some(101)
            });
            match staying {
                Some(handle) if self.random.once_in(2) => {
                    handle.state.borrow_mut().ending = Ending::Close(4999);
                    let _ = handle.nudge.try_send(());
                }
                _ if self.clock.advance(Duration::from_secs(60)) => {}
                Some(handle) => {
                    handle.state.borrow_mut().ending = Ending::Close(4999);
                    let _ = handle.nudge.try_send(());
                }
                None => break,
            }
        }
        self.check_end();
    }

    /// When nothing can run, nothing that was sent is still on its way between two who are there and read.
    fn check_rest(&self) {
        for (number, handle) in self.clients.iter().enumerate() {
            let client = handle.state.borrow();
            let told = client.close.is_some() || client.end.is_some() || client.pausing || client.status != Some(101);
            assert!(self.stop_all.is_some() || told, "the relay has stopped, but client {number} was not told");
        }
        let mut there: HashMap<usize, Vec<Ref<'_, Client>>> = HashMap::new();
        for handle in &self.clients {
            let client = handle.state.borrow();
            if client.status == Some(101) && client.end.is_none() && client.close.is_none() && client.idle {
                there.entry(client.code).or_default().push(client);
            }
        }
        for pair in there.values() {
            let [a, b] = &pair[..] else { continue };
            if [a, b].iter().any(|client| client.pausing || client.ending != Ending::Stay) {
                continue;
            }
            assert_eq!(a.received.len(), b.sent, "something got stuck between two who are there");
            assert_eq!(b.received.len(), a.sent, "something got stuck between two who are there");
            assert_eq!((a.pongs.len(), b.pongs.len()), (a.pings.len(), b.pings.len()), "a ping is not answered");
        }
    }

    /// When all are gone, each has seen what it had to see, and nothing is left of them.
    fn check_end(&self) {
        for (number, handle) in self.clients.iter().enumerate() {
            let client = handle.state.borrow();
            if self.trace {
                println!(
                    "client {number}: status {:?}, sent {}, received {}, close {:?}, end {:?}",
                    client.status,
                    client.sent,
                    client.received.len(),
                    client.close,
                    client.end
                );
            }
            self.check_client(number, &client);
        }
        assert!(self.cables.iter().all(|cable| cable.is_closed_by(1)), "the relay has a socket left");
        assert_eq!(self.relay.seats.pairs(), 0, "somebody is gone, but not its seat");
        assert_eq!(self.executor.tasks(), 2, "only the two that always run may be left");
    }

    fn check_client(&self, number: usize, client: &Client) {
        let peer = self.check_received(number, client);
        assert!(client.end.is_some(), "client {number} waits for nothing");
        match client.status {
            Some(101) => {}
            Some(409) => {
                let others = self.clients.iter().filter(|other| other.state.borrow().code == client.code).count();
                assert!(others > 2, "client {number} was refused, but only {others} have its code");
                return;
            }
            Some(503) | None if self.stop_all.is_none() => return,
            None if client.ending == Ending::Reset => return,
            None => assert!(client.departed, "client {number} got no response"),
            status => panic!("client {number} got {status:?}"),
        }
        assert!(client.pings.starts_with(&client.pongs) || client.pongs.len() < client.pings.len(), "an odd pong");
        // Both have closed, so nothing is left to wait for: the relay ends the connection, and not only its timeout.
        if let (Some(answered), Some(ended), Some(Ok(()))) = (client.answered_at, client.ended_at, client.end) {
            assert!(ended < answered + Duration::from_secs(4), "client {number} was left waiting for the end");
        }
        let Some((code, reason)) = &client.close else {
            let unfriendly = matches!(client.ending, Ending::Reset | Ending::End | Ending::CutOff);
            // Where it is reset for what it did not read, a close frame may be lost.
            let was_reset = client.end == Some(Err(std::io::ErrorKind::ConnectionReset));
            // Who has left by itself and does not read is not waited for.
            let gave_up = client.slow && client.departed;
            assert!(
                unfriendly || was_reset || gave_up || client.status.is_none(),
                "client {number} got no close frame"
            );
            return;
        };
        let others = || self.clients.iter().enumerate().filter(|(other, _)| *other != number);
        let caused = |causes: &dyn Fn(&Client) -> bool| {
            others().any(|(other, handle)| {
                let other_client = handle.state.borrow();
                other_client.code == client.code && peer.is_none_or(|peer| peer == other) && causes(&other_client)
            })
        };
        match (code, reason.as_str()) {
            (Some(1000), "peer disconnected") => assert!(
                caused(&|peer| {
                    let left = matches!(peer.ending, Ending::Close(_) | Ending::End) || peer.close.is_some();
                    left && peer.sent == client.received.len()
                }),
                "client {number} got 1000, but its peer did not leave, or not all of it has come"
            ),
            (Some(1011), "peer connection lost") => assert!(
                caused(&|peer| match peer.ending {
                    _ if peer.status.is_none() => true, // its handshake did not come to its end
                    // What was whole before it went wrong has come.
                    Ending::CutOff | Ending::Violation(_) => peer.sent == client.received.len() || peer.close.is_some(),
                    Ending::Reset => true,
                    // The end of a stream while a message is written, or a reset for what was not read.
                    _ => peer.end.is_some_and(|end| end.is_err()) || peer.deaf || peer.sent < peer.messages.len(),
                }),
                "client {number} got 1011, but its peer is not lost, or not all of it has come"
            ),
            (Some(1001), "pair expired") => assert_eq!(peer, None, "client {number} had a peer and expired"),
            (Some(1001), "relay stopping") => assert!(self.stop_all.is_none(), "nobody stopped the relay"),
            (Some(code @ (1002 | 1007 | 1009)), _) => assert_eq!(client.ending, Ending::Violation(*code)),
            (Some(code), "") => assert_eq!(client.ending, Ending::Close(*code)),
            other => panic!("client {number} got {other:?}"),
        }
    }

    /// What a client received is a prefix of what one other client with its code has sent, which is its peer.
    fn check_received(&self, number: usize, client: &Client) -> Option<usize> {
        let mut peer = None;
        for (nth, message) in client.received.iter().enumerate() {
            let (from, which) = origin(message);
            assert!(from != number && *peer.get_or_insert(from) == from, "client {number} hears several");
            let sender = self.clients[from].state.borrow();
            assert_eq!(which, nth, "client {number} misses a message");
            assert!(sender.code == client.code && sender.messages[nth] == *message, "client {number} got another one");
        }
        peer
    }
}

/// The clients' way to the same clock.
#[derive(Debug)]
struct SharedClock(Arc<SimulatedClock>);

impl Clock for SharedClock {
    fn now(&self) -> std::time::Instant {
        self.0.now()
    }

    fn sleep_until(&self, deadline: std::time::Instant) -> crate::transport::Sleep {
        self.0.sleep_until(deadline)
    }
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
        let result = std::panic::catch_unwind(|| World::new(seed, alone).run());
        assert!(result.is_ok(), "seed {seed}: ARC_RELAY_SEEDS={seed}..{} shows it alone", seed + 1);
    }
}
