//! The relay as a whole: its start, its threads, and the handle that stops it.

#[cfg(test)]
mod failure_tests;
#[cfg(test)]
mod operations_tests;
#[cfg(test)]
#[path = "../../tests/support/runner.rs"]
mod runner;
#[cfg(test)]
mod tests;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread;

use async_channel::Sender;

use super::config::Config;
use super::context::{RelayContext, Signals};
use super::supervisor::Supervisor;
use super::worker::Worker;
use crate::access::access_tokens::AccessTokens;
use crate::access::ticket_keys::TicketKeys;
use crate::http::context::HandshakeContext;
use crate::limits::capacity::{EffectiveLimits, RequestedLimits};
use crate::limits::resources::Resources;
use crate::operations::listener::{self, Operations};
use crate::operations::overview::Overview;
use crate::runtime::clock::{Clock, SystemClock};
use crate::runtime::io_error::context;
use crate::runtime::port::Port;
use crate::runtime::reactor::Reactor;
use crate::runtime::stop::{Stop, StopOnDrop, stop};
use crate::runtime::transport::Listener;
use crate::telemetry::counters::Counters;
use crate::telemetry::events::{self, Running};

/// The relay. It has no state before it [starts](Self::start), and is a [`RelayHandle`] afterwards.
#[derive(Debug)]
pub struct Relay;

impl Relay {
    /// Starts a relay on threads of its own. It can be used from any executor, or from none.
    ///
    /// It accepts connections when this returns.
    ///
    /// # Errors
    ///
    /// If the host has no address that can be listened on, or a thread cannot be started. The error's text says what failed.
    ///
    /// # Examples
    ///
    /// ```
    /// use arc_relay::{Config, Relay};
    ///
    /// let config = Config { host: "127.0.0.1".into(), port: 0, ..Config::default() };
    /// let relay = Relay::start(config)?;
    /// println!("ws://{}/?pair=CODE", relay.local_addr());
    /// smol::block_on(relay.stop());
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn start(config: Config) -> io::Result<RelayHandle> {
        let port = Port::listen(&config.host, config.port, config.sockets())?;
        Self::start_with(port, config)
    }

    /// Starts a relay that accepts connections from these sockets, and not from `host` and `port`.
    ///
    /// Another process, such as systemd, listens with them and keeps them. So connections that come when this relay stops wait
    /// for the next one.
    ///
    /// # Errors
    ///
    /// If there is no socket, one of them does not listen, or a thread cannot be started.
    pub fn start_inherited(config: Config, listeners: Vec<TcpListener>) -> io::Result<RelayHandle> {
        let port = Port::inherit(listeners, config.sockets())?;
        Self::start_with(port, config)
    }

    fn start_with(port: Port, config: Config) -> io::Result<RelayHandle> {
        let local_addrs = port.local_addrs()?;
        start(config, port, local_addrs, Arc::new(SystemClock))
    }
}

/// The operations listener's sockets and addresses, if there is to be one.
fn listen_for_operations(config: &Config) -> io::Result<Option<(Port, SocketAddr)>> {
    let Some(address) = &config.ops_address else { return Ok(None) };
    let port =
        Port::listen(address.host(), address.port(), listener::SOCKETS).map_err(context("operations listener"))?;
    let local_addr = port.local_addrs()?[0];
    Ok(Some((port, local_addr)))
}

/// Starts the threads of a relay.
fn start<L>(config: Config, listener: L, local_addrs: Vec<SocketAddr>, clock: Arc<dyn Clock>) -> io::Result<RelayHandle>
where
    L: Listener<Socket: Send> + Send + 'static,
{
    let mut resources = Resources::of_system();
    let operations = listen_for_operations(&config)?;
    if operations.is_some() {
        resources.files -= listener::FILES.min(resources.files / 8);
    }
    let Parts { capacity, request_stop, request_recall, supervisor, workers } =
        Parts::new(&config, &listener, clock, resources);
    warn_of_lowered_limits(&config, &capacity);
    let handshakes = Arc::clone(&supervisor.relay.handshakes);
    let (tell_end, ended) = stop();
    // It answers until the last worker has ended.
    let (tell_workers_ended, workers_ended) = stop();
    let ops_addr = operations.as_ref().map(|(_, local_addr)| *local_addr);
    if let Some((listener, _)) = operations {
        let overview = Overview {
            handshakes: Arc::clone(&handshakes),
            buffer_memory: Arc::clone(&supervisor.relay.buffer_memory),
            limits: capacity,
            workers: workers.len(),
            began: supervisor.relay.clock().now(),
        };
        let (operations, alive) = (Operations { listener, overview }, tell_end.clone());
        let run = move |reactor: &_| {
            operations.run(reactor, workers_ended);
            drop(alive);
        };
        spawn(String::from("arc-relay-ops"), run)?;
    }
    let running = Running::new(local_addrs[0].port(), ops_addr.map(|address| address.port()), workers.len(), &capacity);
    // The last worker to end drops it.
    let running = Arc::new((running, tell_workers_ended, tell_end));
    // The first worker also runs the supervisor.
    let mut supervisor = Some(supervisor);
    for worker in workers {
        let supervisor = supervisor.take();
        let running = Arc::clone(&running);
        let name = format!("relay-{}", worker.index);
        spawn(name, move |reactor| {
            worker.run(reactor, supervisor.map(Supervisor::run));
            drop(running);
        })?;
    }
    Ok(RelayHandle { local_addrs, ops_addr, handshakes, request_stop, request_recall, ended })
}

/// Starts a thread that waits for sockets and timers with a reactor of its own.
fn spawn(name: String, run: impl FnOnce(&Arc<Reactor>) + Send + 'static) -> io::Result<()> {
    let reactor = Reactor::new().map_err(context(format!("cannot poll sockets in thread {name}")))?;
    let cannot_start = context(format!("cannot start thread {name}"));
    thread::Builder::new().name(name).spawn(move || run(&reactor)).map_err(cannot_start)?;
    Ok(())
}

/// Warns of each wish that is above what is possible. A default is no wish.
fn warn_of_lowered_limits(config: &Config, capacity: &EffectiveLimits) {
    let wish = |wish: usize, default: usize| Some(wish).filter(|_| wish != default);
    let default = Config::default();
    for (limit, wish, effective) in [
        ("max_connections", config.max_connections, capacity.connections),
        ("max_waiting", config.max_waiting, capacity.waiting),
        ("max_handshakes", wish(config.max_handshakes, default.max_handshakes), capacity.handshakes),
        ("max_buffer_memory", wish(config.max_buffer_memory, default.max_buffer_memory), capacity.buffer_memory),
    ] {
        if let Some(wish) = wish.filter(|&wish| wish > effective) {
            events::limit_lowered(limit, wish, effective);
        }
    }
}

/// The parts of a relay before they run, on threads or in a simulation.
pub(crate) struct Parts<L: Listener> {
    pub(crate) capacity: EffectiveLimits,
    /// Its drop stops the relay.
    pub(crate) request_stop: StopOnDrop,
    /// Each message on it recalls the sides that wait then.
    pub(crate) request_recall: Sender<()>,
    pub(crate) supervisor: Supervisor<L::Socket>,
    pub(crate) workers: Vec<Worker<L>>,
}

impl<L: Listener> Parts<L> {
    pub(crate) fn new(config: &Config, listener: &L, clock: Arc<dyn Clock>, resources: Resources) -> Self {
        let config = config.clone().with_bounded_times();
        let wish = RequestedLimits {
            connections: config.max_connections,
            waiting: config.max_waiting,
            pairs: config.max_pairs,
            handshakes: config.max_handshakes,
            buffer_memory: config.max_buffer_memory,
            workers: config.workers_on(resources.processors),
        };
        let capacity = EffectiveLimits::new(wish, resources);
        let (request_stop, stop_requested) = stop();
        let (request_recall, recalls) = async_channel::bounded(1);
        let (begin_drain, drain_begun) = stop();
        let (close_admission, admission_closed) = stop();
        let (stop_all, stopped) = stop();
        let (relay, inboxes) = RelayContext::new(
            &config,
            wish.workers,
            capacity,
            Signals { drain_begun, admission_closed, stopped },
            clock,
        );
        let relay = Arc::new(relay);
        let (mut workers, mut all_ended) = (Vec::new(), Vec::new());
        for (index, inbox) in inboxes.into_iter().enumerate() {
            let (alive, ended) = stop();
            all_ended.push(ended);
            workers.push(Worker { index, listener: listener.share(), inbox, alive, relay: Arc::clone(&relay) });
        }
        let supervisor = Supervisor {
            relay,
            stop_requested,
            recalls,
            begin_drain,
            close_admission,
            stop_all,
            all_ended,
            drain_delay: config.drain_delay,
            drain_timeout: config.drain_timeout,
        };
        Self { capacity, request_stop, request_recall, supervisor, workers }
    }
}

/// A running relay.
///
/// Dropping the handle stops the relay as [`stop`](Self::stop) does, but does not wait for the end.
#[derive(Debug)]
pub struct RelayHandle {
    local_addrs: Vec<SocketAddr>,
    ops_addr: Option<SocketAddr>,
    handshakes: Arc<HandshakeContext>,
    request_stop: StopOnDrop,
    request_recall: Sender<()>,
    ended: Stop,
}

impl RelayHandle {
    /// The first address of the listener, with the port that the system chose if the configured one is 0.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addrs[0]
    }

    /// All addresses of the listener. A host name may have several, which have the same port.
    pub fn local_addrs(&self) -> &[SocketAddr] {
        &self.local_addrs
    }

    /// The first address of the operations listener, if there is one.
    ///
    /// It has the port that the system chose if the configured one is 0.
    pub fn ops_addr(&self) -> Option<SocketAddr> {
        self.ops_addr
    }

    /// The number of pair codes in use, as in `/health`. Pairs with one waiting side count.
    pub fn pairs(&self) -> usize {
        self.handshakes.seats.pairs()
    }

    /// What the relay has done since its start, and its current state.
    ///
    /// # Examples
    ///
    /// ```
    /// use arc_relay::{Config, Relay};
    ///
    /// let relay = Relay::start(Config { port: 0, ..Config::default() })?;
    /// let counters = relay.counters();
    /// assert_eq!((counters.connections, counters.waiting, counters.paired), (0, 0, 0));
    /// for (reason, count) in counters.rejected {
    ///     println!("{}: {count}", reason.name());
    /// }
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn counters(&self) -> Counters {
        self.handshakes.telemetry.counters(self.handshakes.seats.counts())
    }

    /// Replaces the access tokens.
    ///
    /// From now on a client needs one of these to join, even if none was needed before.
    ///
    /// Clients that have joined stay.
    ///
    /// # Examples
    ///
    /// ```
    /// use arc_relay::{Config, Relay};
    ///
    /// let config = Config { port: 0, access_tokens: Some("old".parse()?), ..Config::default() };
    /// let relay = Relay::start(config)?;
    /// relay.set_access_tokens("old\nnew".parse()?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn set_access_tokens(&self, tokens: AccessTokens) {
        self.handshakes.policy.secrets.set_access_tokens(tokens);
    }

    /// Replaces the keys that tickets are signed with.
    ///
    /// From now on a client needs a ticket of one of these keys, or an access token, to join, even if none was needed before.
    ///
    /// Clients that have joined stay.
    ///
    /// # Examples
    ///
    /// ```
    /// use arc_relay::{Config, Relay};
    ///
    /// let relay = Relay::start(Config { port: 0, ..Config::default() })?;
    /// relay.set_ticket_keys("ed25519 11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo".parse()?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn set_ticket_keys(&self, keys: TicketKeys) {
        self.handshakes.policy.secrets.set_ticket_keys(keys);
    }

    /// Tells the sides that wait for a peer to come again, with 1012 `service restart`. Pairs go on.
    ///
    /// It is for several relays behind a load balancer, when the set of relays has changed: a side that came before may wait
    /// on another relay than the one that its peer is sent to. `arc-relay start` does this on SIGUSR1.
    ///
    /// It does not wait until they are told.
    ///
    /// # Examples
    ///
    /// ```
    /// use arc_relay::{Config, Relay};
    ///
    /// let relay = Relay::start(Config { port: 0, ..Config::default() })?;
    /// // Another relay has been added.
    /// relay.recall_waiting();
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn recall_waiting(&self) {
        let _ = self.request_recall.try_send(()); // full: one that has not begun is as good
    }

    /// Waits for a failure of the relay: a bug has ended one of its threads, and so the relay.
    ///
    /// It never ends as long as the relay works. A program races it against what else may end the relay. After a failure,
    /// [`stop`](Self::stop) returns at once.
    ///
    /// # Examples
    ///
    /// ```
    /// use arc_relay::{Config, Relay};
    /// use futures_lite::FutureExt;
    ///
    /// let relay = Relay::start(Config { port: 0, ..Config::default() })?;
    /// let error = smol::block_on(async {
    ///     let request_to_stop = async { None }; // such as a signal
    ///     request_to_stop.or(async { Some(relay.failed().await) }).await
    /// });
    /// assert!(error.is_none(), "the relay has failed");
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub async fn failed(&self) -> io::Error {
        // The relay ends when the handle is dropped or by a failure, and the handle is here.
        self.ended.clone().wait().await;
        io::Error::other("the relay has ended because of a bug: one of its tasks or threads has panicked")
    }

    /// Stops the relay gracefully, and waits for its end.
    ///
    /// 1. `/readyz` is 503 from now on, and clients of `arc-relay.v1` are told. Everything else goes on for
    ///    [`Config::drain_delay`].
    /// 2. It empties the queue of the listener and closes it, and waiting clients get 1001 `relay stopping`.
    /// 3. Pairs may go on until they end, or for [`Config::drain_timeout`].
    /// 4. Their clients get what was received for them, then 1001 `relay stopping`, and have 2 seconds to answer.
    pub async fn stop(self) {
        let Self { request_stop, mut ended, .. } = self;
        drop(request_stop);
        ended.wait().await;
    }
}
