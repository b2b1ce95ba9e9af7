//! The relay as a whole: listen, accept, hand each connection to a worker, stop.
//!
//! What the threads do is in [`worker`](crate::server::worker).

#[cfg(test)]
mod tests;

use std::io;
use std::net::SocketAddr;
use std::num::{NonZeroU64, NonZeroUsize};
use std::sync::{Arc, RwLock};
use std::thread;
use std::time::Duration;

use crate::access::access_tokens::AccessTokens;
use crate::access::origin::Origin;
use crate::access::policy::Policy;
use crate::buffers::memory::Memory;
use crate::connection::keepalive::KeepaliveConfig;
use crate::http::context::HandshakeContext;
use crate::http::network::Network;
use crate::limits::capacity::{EffectiveLimits, INBOX, RequestedLimits};
use crate::limits::client_limits::ClientLimits;
use crate::limits::clients::{Limits, MOST_JOINS};
use crate::limits::pair_rate::Rates;
use crate::limits::slots::Slots;
use crate::limits::token_bucket::LEAST_RATE;
use crate::pairing::seats::Seats;
use crate::runtime::clock::{Clock, SystemClock};
use crate::runtime::reactor::Reactor;
use crate::runtime::stop::{Stop, StopOnDrop, stop};
use crate::runtime::tcp::Port;
use crate::runtime::transport::Listener;
use crate::server::acceptor::Acceptor;
use crate::server::worker::{Shared, Worker};
use crate::telemetry::counters::{Counters, Telemetry};
use crate::telemetry::events::Running;
use crate::websocket::reframer::Tally;

/// The longest time that can be set for anything. Beyond it, deadlines might not fit into an instant.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// What a relay is to do.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use arc_relay::Config;
///
/// let config = Config { port: 0, pair_ttl: Duration::from_secs(60), ..Config::default() };
/// assert_eq!(config.host, "0.0.0.0");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The address or name to listen on; `::` is every address, IPv4 included.
    pub host: String,
    /// The TCP port to listen on; 0 lets the system choose one.
    pub port: u16,
    /// How long one side may wait alone. At most a hundred years.
    pub pair_ttl: Duration,
    /// The longest message in bytes, if there is to be a limit. Memory does not depend on it.
    pub max_message: Option<u64>,
    /// How many WebSockets there may be at a time; more are refused with 503. No more than the limit of open files has
    /// room for at the start, behind the handshakes and a reserve, and as many as that if it is not said.
    pub max_connections: Option<usize>,
    /// How many sides may wait alone at a time; more are refused with 503, but never whoever comes to one of them. If it
    /// is not said, half as many as there may be connections.
    pub max_waiting: Option<usize>,
    /// How many pair codes may be in use at a time; more are refused with 503.
    pub max_pairs: usize,
    /// After how long a silence a client is asked whether it is still there, by a ping. If none, nobody is asked.
    pub ping_interval: Option<Duration>,
    /// How long it then has for any sign of life. After that it is lost, and its peer is told so.
    pub ping_timeout: Duration,
    /// How long a client may accept nothing of what is sent to it, and its system acknowledge nothing, before it is
    /// lost.
    pub write_timeout: Duration,
    /// How long the system of a client may acknowledge nothing when a third client comes with the code of its pair, before
    /// the third gets its seat. (A silent program has the ping timeout.) Zero: the third is refused at once.
    pub probe_timeout: Duration,
    /// How long a client may take for its request, from when it is accepted to the end of the head, and then for taking
    /// the answer. It is the same for each request of a connection that is kept. At most a hundred years.
    pub handshake_timeout: Duration,
    /// How many connections may be at their request or its answer at a time, at least 1. When another one comes, the
    /// oldest of them is closed, so that those who say nothing keep nobody out. WebSockets do not count.
    pub max_handshakes: usize,
    /// Which sites' scripts may join, by the `Origin` that browsers send; others are refused with 403. All may if there
    /// are none here, and clients that send no origin always may, since they are no browsers.
    pub allowed_origins: Vec<Origin>,
    /// The access tokens of which a client needs one to join, or is refused with 401. Without a list here none is needed.
    /// They can be [exchanged](RelayHandle::set_access_tokens) while the relay runs.
    pub access_tokens: Option<AccessTokens>,
    /// The shortest pair code that is accepted, in characters; shorter ones are refused with 400.
    pub min_code_length: usize,
    /// How long pairs may go on after the relay was told to stop, before they are closed.
    pub drain_timeout: Duration,
    /// Proxies that are believed, by the last entries of `X-Forwarded-For`, for whom they ask. None: the client is whoever
    /// is connected.
    pub trusted_proxies: Vec<Network>,
    /// Whether every connection has to begin with a header of the PROXY protocol (version 1 or 2), which says for whom a
    /// proxy is connected; those that do not are closed. If there are trusted proxies, others are closed, too.
    pub proxy_protocol: bool,
    /// How many connections a client may have at a time, from when it is accepted to the end of its WebSocket; more are
    /// refused with 429. Zero: as many as it likes. A client is an IPv4 address, or the /64 of an IPv6 address.
    pub max_connections_per_client: usize,
    /// How many times in a minute a client may ask to join, refusals included: so many at once, and then one after the
    /// other, evenly. More are refused with 429. Zero: as often as it likes. At most
    /// [`MOST_JOINS_PER_MINUTE`](Self::MOST_JOINS_PER_MINUTE).
    pub max_joins_per_minute: u32,
    /// How many bytes in a second the two clients of a pair may send together, frames and answers to pings included. Who
    /// sends faster is read from more slowly, and nothing is dropped. At least [`LEAST_RATE`](Self::LEAST_RATE).
    pub max_rate_per_pair: Option<NonZeroU64>,
    /// How many bytes in a second all clients may send together, in the same way.
    pub max_rate: Option<NonZeroU64>,
    /// How much memory all buffers of more than 4 KiB may take together, in bytes; each worker may take 256 KiB more at the
    /// same moment. When it is used up, everybody goes on with smaller ones, more slowly, and frames of more than a kibibyte
    /// may arrive in fragments.
    pub max_buffer_memory: usize,
    /// Whether the address of a client is told where something is logged of it. (Its pair code never is.)
    pub log_addresses: bool,
    /// How many threads forward messages.
    pub workers: NonZeroUsize,
}

impl Config {
    /// The most that [`max_joins_per_minute`](Self::max_joins_per_minute) can be: a thousand in a second is no limit any more.
    pub const MOST_JOINS_PER_MINUTE: u32 = MOST_JOINS;

    /// The least that [`max_rate`](Self::max_rate) and [`max_rate_per_pair`](Self::max_rate_per_pair) can be. Less is taken
    /// for this.
    pub const LEAST_RATE: u64 = LEAST_RATE;
}

impl Default for Config {
    /// What `arc-relay start` does without flags.
    fn default() -> Self {
        Self {
            host: String::from("0.0.0.0"),
            port: 8765,
            pair_ttl: Duration::from_secs(300),
            max_message: None,
            // Far beyond the usual limit of open files, which comes first; a bound all the same.
            max_pairs: 1 << 20,
            max_connections: None,
            max_waiting: None,
            ping_interval: Some(Duration::from_secs(20)),
            ping_timeout: Duration::from_secs(20),
            write_timeout: Duration::from_secs(30),
            probe_timeout: Duration::from_secs(2),
            handshake_timeout: Duration::from_secs(10),
            max_handshakes: 1024,
            allowed_origins: Vec::new(),
            access_tokens: None,
            min_code_length: 1,
            drain_timeout: Duration::ZERO,
            trusted_proxies: Vec::new(),
            proxy_protocol: false,
            max_connections_per_client: 0,
            max_joins_per_minute: 0,
            max_rate_per_pair: None,
            max_rate: None,
            // For a machine with a gigabyte: five hundred streams at full speed, or as many that have stalled.
            max_buffer_memory: 256 << 20,
            log_addresses: false,
            workers: NonZeroUsize::MIN,
        }
    }
}

/// The relay. It has no state of its own before it [starts](Self::start) and is a [`RelayHandle`] afterwards.
#[derive(Debug)]
pub struct Relay;

impl Relay {
    /// Starts a relay on threads of its own; it can be used from any executor, or from none.
    ///
    /// It accepts connections when this returns.
    ///
    /// # Errors
    ///
    /// If the host has no address, none of its addresses can be listened on, or no thread can be started.
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
        let port = Port::listen(&config.host, config.port, config.write_timeout)?;
        let local_addr = port.local_addr()?;
        start(&config, port, local_addr)
    }
}

/// Starts the threads of a relay whose listener is there.
fn start<L>(config: &Config, listener: L, local_addr: SocketAddr) -> io::Result<RelayHandle>
where
    L: Listener<Socket: Send> + Send + 'static,
{
    let Parts { seats, telemetry, door, request_stop, acceptor, workers } =
        Parts::new(config, listener, Arc::new(SystemClock));
    let (tell_end, ended) = stop();
    // Its last owner is the last worker.
    let running = Arc::new((Running::new(local_addr.port(), workers.len()), tell_end));
    let mut acceptor = Some(acceptor);
    for worker in workers {
        // The first worker accepts, too.
        let acceptor = acceptor.take();
        let running = Arc::clone(&running);
        let reactor = Reactor::new()?;
        thread::Builder::new().name(format!("relay-{}", worker.index)).spawn(move || {
            worker.run(&reactor, acceptor.map(Acceptor::run));
            drop(running);
        })?;
    }
    Ok(RelayHandle { local_addr, seats, telemetry, door, request_stop, ended })
}

/// All that a relay consists of, before any of it runs. What runs it is threads, or a simulation.
pub(crate) struct Parts<L: Listener> {
    pub(crate) seats: Arc<Seats>,
    pub(crate) telemetry: Arc<Telemetry>,
    pub(crate) door: Arc<HandshakeContext>,
    /// Its drop stops the relay.
    pub(crate) request_stop: StopOnDrop,
    pub(crate) acceptor: Acceptor<L>,
    pub(crate) workers: Vec<Worker<L::Socket>>,
}

impl<L: Listener> Parts<L> {
    pub(crate) fn new(config: &Config, listener: L, clock: Arc<dyn Clock>) -> Self {
        let ttl = config.pair_ttl.min(LONGEST);
        let limits = EffectiveLimits::of_system(RequestedLimits {
            connections: config.max_connections,
            waiting: config.max_waiting,
            pairs: config.max_pairs,
            handshakes: config.max_handshakes,
            workers: config.workers.get(),
        });
        let rates = Rates::new(config.max_rate_per_pair, config.max_rate, clock.now());
        let seats = Seats::new(ttl, limits, config.probe_timeout.min(LONGEST), rates, Arc::clone(&clock));
        let seats = Arc::new(seats);
        let telemetry = Arc::new(Telemetry::default());
        let (request_stop, stop_requested) = stop();
        let (close_door, door_closed) = stop();
        let (stop_all, stopped) = stop();
        let (inboxes, inbox_ends): (Vec<_>, Vec<_>) =
            (0..config.workers.get()).map(|_| async_channel::bounded(INBOX)).unzip();
        let client_limits =
            Limits { connections: config.max_connections_per_client, joins_per_minute: config.max_joins_per_minute };
        let door = Arc::new(HandshakeContext {
            handshakes: Arc::new(Slots::new(limits.handshakes)),
            handshake_timeout: config.handshake_timeout.min(LONGEST),
            policy: Policy {
                allowed_origins: config.allowed_origins.clone(),
                access_tokens: RwLock::new(config.access_tokens.clone()),
                min_code_length: config.min_code_length,
            },
            client_limits: Arc::new(ClientLimits::new(client_limits, Arc::clone(&clock))),
            trusted_proxies: config.trusted_proxies.clone(),
            proxy_protocol: config.proxy_protocol,
            seats: Arc::clone(&seats),
            telemetry: Arc::clone(&telemetry),
            log_addresses: config.log_addresses,
            clock: Arc::clone(&clock),
        });
        let shared = Arc::new(Shared {
            door: Arc::clone(&door),
            seats: Arc::clone(&seats),
            telemetry: Arc::clone(&telemetry),
            buffer_memory: Memory::new(config.max_buffer_memory),
            inboxes,
            door_closed,
            stopped,
            max_message: config.max_message,
            beats: config.ping_interval.is_some() || !config.probe_timeout.is_zero(),
            write_timeout: config.write_timeout.min(LONGEST),
            probe_timeout: config.probe_timeout.min(LONGEST),
            keepalive: KeepaliveConfig::new(
                config.ping_interval.map(|interval| interval.min(LONGEST)),
                config.ping_timeout,
            ),
            clock,
        });
        let acceptor = Acceptor {
            listener,
            shared: Arc::clone(&shared),
            stop_requested,
            close_door,
            stop_all,
            drain_timeout: config.drain_timeout.min(LONGEST),
        };
        let workers = inbox_ends
            .into_iter()
            .enumerate()
            .map(|(index, inbox)| Worker { index, inbox, shared: Arc::clone(&shared) })
            .collect();
        Self { seats, telemetry, door, request_stop, acceptor, workers }
    }
}

/// A relay that runs. Dropping the handle stops it as [`stop`](Self::stop) does, but does not wait for it.
#[derive(Debug)]
pub struct RelayHandle {
    local_addr: SocketAddr,
    seats: Arc<Seats>,
    telemetry: Arc<Telemetry>,
    door: Arc<HandshakeContext>,
    request_stop: StopOnDrop,
    ended: Stop,
}

impl RelayHandle {
    /// The address it listens on, with the port that the system chose if it was asked to.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// How many pair codes are in use, those with one side waiting included: what `/health` says.
    pub fn pairs(&self) -> usize {
        self.seats.pairs()
    }

    /// How many messages were forwarded, with how many bytes, and dropped for being text, since the start.
    pub fn tally(&self) -> Tally {
        self.telemetry.tally()
    }

    /// What it has done since the start, and what it has at the moment.
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
        self.telemetry.counters(self.seats.counts())
    }

    /// Lets those join from now on who have one of these access tokens, and nobody else, whatever was asked for before.
    /// Whoever has joined already stays.
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
        self.door.policy.set_access_tokens(tokens);
    }

    /// Stops gracefully: listens no more, tells those who wait for a peer 1001 `relay stopping`, lets pairs go on until
    /// they end or for [`Config::drain_timeout`], sends them 1001 `relay stopping` after what was received for them, and
    /// waits for their answers, but no longer than 2 seconds.
    pub async fn stop(self) {
        let Self { request_stop, mut ended, .. } = self;
        drop(request_stop);
        ended.wait().await;
    }
}
