//! The world of one seed: it decides when clients come and when they leave.

use std::cell::RefCell;
use std::num::{NonZeroU64, NonZeroUsize};
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::client::{Client, Ending, Handle, MAX_MESSAGE, client};
use super::executor::Random;
use super::line::Line;
use super::network::{Cable, Socket};
use super::proxy::Pace;
use super::stage::Stage;
use super::trace::{self, trace};
use super::visitor::{Visitor, visitor};
use crate::runtime::clock::Clock;
use crate::server::config::Config;

/// The simulated pair TTL: how long a client may wait for its peer.
pub(super) const PAIR_TTL: Duration = Duration::from_secs(30);

/// Longer than any task sleeps.
///
/// The relay may keep the socket of a closed client for an hour. A world has ended when nothing happens within this
/// time.
const LONGEST_SLEEP: Duration = Duration::from_secs(61 * 60);

/// The world of one seed.
pub(super) struct World {
    pub(super) stage: Stage,
    pub(super) clients: Vec<Handle>,
    pub(super) visitors: Vec<(Rc<RefCell<Visitor>>, Cable)>,
    /// When the relay was told to stop.
    pub(super) relay_stopped_at: Option<Instant>,
    /// When the sides that waited were told to come again.
    pub(super) recalled_at: Option<Instant>,
    /// The last time at which all available pair codes were in use.
    pub(super) full_at: Option<Instant>,
    /// Decides which clients speak `arc-relay.v1`, if any do.
    v1: Option<Random>,
    /// Decides which clients have a side identity, if any have.
    sides: Option<Random>,
}

impl World {
    pub(super) fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        // Half of the relays send no pings and no takeover probes. Their clients may take their time.
        let asks = random.once_in(2);
        let defaults = Config::default();
        let config = Config {
            ping_interval: defaults.ping_interval.filter(|_| asks),
            probe_timeout: if asks { defaults.probe_timeout } else { Duration::ZERO },
            pair_ttl: PAIR_TTL,
            max_message: Some(MAX_MESSAGE as u64),
            max_pairs: if random.once_in(6) { 1 + random.below(2) } else { 100 },
            // High enough that transfers take seconds.
            max_rate_per_pair: if random.once_in(8) { NonZeroU64::new(1 << (20 + random.below(3))) } else { None },
            // From no memory at all to as much as two streams use.
            max_buffer_memory: if random.once_in(8) { random.below(1 << 20) } else { defaults.max_buffer_memory },
            drain_delay: Duration::from_secs(random.below(2) as u64 * random.below(10) as u64),
            drain_timeout: Duration::from_secs(random.below(2) as u64 * random.below(20) as u64),
            // No client reaches this limit. The checks at the end verify that no connection is still counted.
            max_connections_per_client: 100,
            workers: NonZeroUsize::new(1 + random.below(3)),
            max_rate: if random.once_in(8) { NonZeroU64::new(1 << (20 + random.below(3))) } else { None },
            ..defaults
        };
        let stage = Stage::new(random, config);
        // In a quarter of all worlds, two thirds of the clients. The other worlds do without these decisions.
        let v1 = (seed % 4 == 1).then(|| Random::new(!seed));
        let sides = matches!(seed % 4, 1 | 2).then(|| Random::new(seed.rotate_left(32)));
        let (relay_stopped_at, recalled_at, full_at) = (None, None, None);
        Self { stage, clients: vec![], visitors: vec![], relay_stopped_at, recalled_at, full_at, v1, sides }
    }

    fn socket(&mut self, client: usize) -> (Socket, Cable) {
        let capacity = self.capacity();
        self.stage.socket(client, capacity)
    }

    /// Connects a client, in a third of all cases through a proxy.
    ///
    /// Half of the proxied lines never stall, so that no stall excuses a loss.
    fn line(&mut self, client: usize) -> (Socket, Line) {
        if !self.stage.random.once_in(3) {
            let (socket, cable) = self.socket(client);
            return (socket, Line::direct(cable));
        }
        let capacity = self.capacity();
        let paces = [Pace::prompt(&mut self.stage.random), Pace::of_a_line(&mut self.stage.random)];
        let (socket, line) = self.stage.proxied_socket(client, capacity, paces);
        if self.stage.random.once_in(2) {
            line.hold_steady();
        }
        (socket, line)
    }

    /// The room for the next connection. In some cases, the accept before it fails.
    fn capacity(&mut self) -> usize {
        if self.stage.random.once_in(12) {
            self.stage.relay.fail_accept();
        }
        [200, 5000, 100_000, 1_000_000][self.stage.random.below(4)]
    }

    fn connect(&mut self) {
        let number = self.clients.len();
        let line = self.line(number);
        let clock = self.stage.shared_clock();
        let asks = self.stage.config.ping_interval.is_some();
        let speaks_v1 = self.v1.as_mut().is_some_and(|random| !random.once_in(3));
        let (handle, writer, reader) = client(number, line, [asks, speaks_v1], &mut self.stage.random, &clock);
        self.name(&handle);
        trace(|| {
            let client = handle.state.borrow();
            let lengths: Vec<_> = client.messages.iter().map(Vec::len).collect();
            let traits = [
                (client.deaf, "deaf"),
                (client.slow, "slow"),
                (client.dreamy, "dreamy"),
                (client.acknowledges, "acknowledges"),
                (client.v1.is_some(), "speaks arc-relay.v1"),
            ];
            let traits: Vec<_> = traits.iter().filter_map(|(is, what)| is.then_some(what)).collect();
            let proxy =
                handle.line.proxy_rate().map(|rate| format!(", behind a proxy of {rate} bytes/s")).unwrap_or_default();
            let Client { code, side, ending, .. } = &*client;
            format!("client {number}: code {code}, side {side:?}, messages {lengths:?}, {ending:?}, {traits:?}{proxy}")
        });
        self.stage.executor.spawn(("writer of client", number), writer);
        self.stage.executor.spawn(("reader of client", number), reader);
        self.clients.push(handle);
    }

    /// Gives half of the clients a side identity, if any have one.
    ///
    /// A third come with the code and the side of an earlier one, which may be alive, half-open or gone.
    fn name(&mut self, handle: &Handle) {
        let Some(random) = &mut self.sides else { return };
        let client = &mut *handle.state.borrow_mut();
        client.side = random.once_in(2).then(|| random.below(3));
        if !self.clients.is_empty() && random.once_in(3) {
            let earlier = self.clients[random.below(self.clients.len())].state.borrow();
            (client.code, client.side) = (earlier.code, earlier.side);
        }
    }

    fn visit(&mut self) {
        let number = 100 + self.visitors.len();
        let (near, cable) = self.socket(number);
        let (state, task) = visitor(near, self.stage.random.split(), self.stage.shared_clock());
        trace(|| format!("client {number}: a visitor that expects {:?}", state.borrow().expected));
        self.stage.executor.spawn(("visitor", number), task);
        self.visitors.push((state, cable));
    }

    /// Runs until only the clock or a decision can change anything.
    fn settle(&mut self) {
        let patience = self.stage.clock.now() + Duration::from_secs(20);
        loop {
            while self.stage.step() {
                self.check_step();
                let cables = self.stage.all_cables().count();
                if self.stage.random.once_in(4000) && cables > 0 {
                    let nth = self.stage.random.below(cables);
                    self.stage.all_cables().nth(nth).unwrap().break_down();
                }
            }
            // A connection that its rate throttles waits for some moments.
            let Config { max_rate, max_rate_per_pair, .. } = self.stage.config;
            let may_wait = max_rate.or(max_rate_per_pair).is_some() && self.stage.clock.now() < patience;
            if !may_wait || !self.stage.clock.advance(Duration::from_millis(250)) {
                break;
            }
        }
        self.check_rest();
    }

    /// Runs to the end with all checks, and returns the fingerprint of all decisions.
    pub(super) fn run(mut self) -> u64 {
        let clients = 1 + self.stage.random.below(6);
        let stops_at = if self.stage.random.once_in(6) { Some(self.stage.random.below(20)) } else { None };
        let recalls_at = if self.stage.random.once_in(6) { Some(self.stage.random.below(20)) } else { None };
        for round in 0.. {
            if self.stage.random.once_in(8) && self.visitors.len() < 3 {
                self.visit();
            }
            if self.clients.len() < clients && (round == 0 || self.stage.random.once_in(2)) {
                self.connect();
                if self.stage.random.once_in(2) {
                    continue; // another client comes at once
                }
            }
            // A relay that is told to stop at the same moment need not tell them.
            if recalls_at == Some(round) && stops_at != recalls_at && self.relay_stopped_at.is_none() {
                trace(|| "the relay is to recall waiting clients".into());
                self.stage.relay.recall_waiting();
                self.recalled_at = Some(self.stage.clock.now());
            }
            if stops_at == Some(round) {
                trace(|| "the relay is to stop".into());
                self.stage.relay.running = None;
                self.relay_stopped_at = Some(self.stage.clock.now());
            }
            self.settle();
            if self.clients.len() < clients {
                continue;
            }
            // The keep-alive beat runs until all connections are gone, so the clock can always advance. A client leaves
            // only now and then.
            let time_helps = self.stage.clock.advance(Duration::from_secs(3));
            if time_helps && !self.stage.random.once_in(60) {
                continue;
            }
            // A client that stays decides to leave. If there is none, time has to help.
            let staying = self.clients.iter().find(|handle| {
                let client = handle.state.borrow();
                client.ending == Ending::Stay && client.end.is_none() && client.status == Some(101)
            });
            match staying {
                Some(handle) if self.stage.random.once_in(2) => handle.leave(),
                _ if time_helps || self.stage.clock.advance(LONGEST_SLEEP) => {}
                Some(handle) => handle.leave(),
                None => break,
            }
        }
        // The checks come before the stop, which would clean up leftovers.
        self.stage.check_deserted();
        self.stage.relay.running = None;
        while {
            self.settle();
            self.stage.clock.advance(LONGEST_SLEEP)
        } {}
        self.check_end();
        self.stage.fingerprint
    }
}

/// Runs one seed, with a trace if it runs `alone`.
pub(super) fn simulate(seed: u64, alone: bool) -> u64 {
    let world = World::new(seed);
    trace::begin(alone.then(|| world.stage.clock.now()));
    world.run()
}
