//! The relay as a whole: listen, accept, hand each connection to a worker, stop.
//!
//! What the threads do is in [`worker`](crate::worker).

use std::io;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use futures_lite::FutureExt;
use smol::Timer;
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};

use crate::reframe::Tally;
use crate::seats::Seats;
use crate::stats::Stats;
use crate::stop::{Stop, StopOnDrop, stop};
use crate::transport::{Clock, SystemClock};
use crate::worker::{Job, Shared, Stage, Worker};

/// How many connections may wait to be accepted. The system may allow fewer (`net.core.somaxconn`).
const BACKLOG: i32 = 4096;

/// How long to wait after a failed accept, most likely for want of file descriptors: trying again at once would spin.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// How long a connection may be quiet before the system asks whether the client is still there, and how often then.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(30);
const KEEPALIVE_EVERY: Duration = Duration::from_secs(10);

/// How long the system waits for a client to acknowledge or to accept anything: beyond it, the client is dead. Longer
/// than a phone takes between two networks, or a stopped process to be started again.
const DEAD_AFTER: Duration = Duration::from_secs(90);

/// How long a graceful stop may take: a closing handshake, and a little for the way to it.
const STOP_TIMEOUT: Duration = Duration::from_secs(6);

/// The longest time to live of a waiting side. Beyond it, deadlines might not fit into an instant.
const MAX_PAIR_TTL: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// How many connections may be on their way to a worker. It is a matter of one turn of its executor.
const INBOX: usize = 64;

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
    /// How many pair codes may be in use at a time; more are refused with 503.
    pub max_pairs: usize,
    /// How many threads forward messages.
    pub workers: NonZeroUsize,
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
        let listener = listen(&config.host, config.port)?;
        let local_addr = listener.local_addr()?;
        let listener = async_net::TcpListener::try_from(listener)?;

        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let seats = Arc::new(Seats::new(config.pair_ttl.min(MAX_PAIR_TTL), config.max_pairs, Arc::clone(&clock)));
        let stats = Arc::new(Stats::default());
        let (request_stop, stop_requested) = stop();
        let (running, ended) = stop();
        let (stop_all, stopped) = stop();
        let (inboxes, inbox_ends): (Vec<_>, Vec<_>) =
            (0..config.workers.get()).map(|_| async_channel::bounded(INBOX)).unzip();

        let shared = Arc::new(Shared {
            seats: Arc::clone(&seats),
            stats: Arc::clone(&stats),
            inboxes,
            stopped,
            max_message: config.max_message,
            clock,
        });
        let mut acceptor = Some(Acceptor { listener, shared: Arc::clone(&shared), stop_requested, stop_all });
        for (index, inbox) in inbox_ends.into_iter().enumerate() {
            let worker = Worker { index, inbox, shared: Arc::clone(&shared) };
            // The first worker accepts, too.
            let acceptor = acceptor.take();
            let running = running.clone();
            thread::Builder::new().name(format!("relay-{index}")).spawn(move || {
                worker.run(acceptor.map(Acceptor::run));
                drop(running);
            })?;
        }
        Ok(RelayHandle { local_addr, seats, stats, request_stop, ended })
    }
}

/// A relay that runs. Dropping the handle stops it as [`stop`](Self::stop) does, but does not wait for it.
#[derive(Debug)]
pub struct RelayHandle {
    local_addr: SocketAddr,
    seats: Arc<Seats>,
    stats: Arc<Stats>,
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

    /// How many messages were forwarded, and dropped for being text, since the start.
    pub fn tally(&self) -> Tally {
        self.stats.tally()
    }

    /// Stops gracefully: accepts nobody any more, sends every client 1001 `relay stopping` after what was received
    /// for it, and waits for their answers, but not longer than 6 seconds.
    pub async fn stop(self) {
        let Self { request_stop, mut ended, .. } = self;
        drop(request_stop);
        ended.wait().await;
    }
}

/// Accepts connections until the relay is to stop, and then sees to its end.
struct Acceptor {
    listener: async_net::TcpListener,
    shared: Arc<Shared>,
    stop_requested: Stop,
    stop_all: StopOnDrop,
}

impl Acceptor {
    async fn run(self) {
        let Self { listener, shared, mut stop_requested, stop_all } = self;
        // Each connection holds a clone of the one, so that the other tells when all have ended.
        let (alive, mut all_ended) = stop();
        let expire = async { shared.seats.expire().await };
        let accept = Self::accept(listener, &shared, alive);
        accept.or(expire).or(stop_requested.wait()).await;

        // In this order: who waits for a peer hears from the table why none will come, before its seat is gone.
        shared.seats.close();
        drop(stop_all);
        let timeout = async {
            Timer::after(STOP_TIMEOUT).await;
        };
        all_ended.wait().or(timeout).await;
        for inbox in &shared.inboxes {
            inbox.close();
        }
    }

    async fn accept(listener: async_net::TcpListener, shared: &Shared, alive: StopOnDrop) {
        for worker in (0..shared.inboxes.len()).cycle() {
            let stream = loop {
                match listener.accept().await {
                    Ok((stream, _)) => break stream,
                    // Whatever it is, the next one may be better.
                    Err(_) => Timer::after(ACCEPT_BACKOFF).await,
                };
            };
            configure(&stream);
            let job = Job { alive: alive.clone(), stage: Stage::Handshake(stream.into()) };
            if shared.inboxes[worker].send(job).await.is_err() {
                return;
            }
        }
    }
}

/// Sets what every connection has in common. None of it can fail but on a socket that is gone already.
fn configure(stream: &async_net::TcpStream) {
    let socket = SockRef::from(stream);
    // Batches are written whole: there is nothing to be gained from waiting for more.
    let _ = socket.set_tcp_nodelay(true);
    // Who vanished without a word would keep its code for ever: ask those who are quiet, and give up on those who do
    // not answer, or who let what is sent to them lie.
    let probes = TcpKeepalive::new().with_time(KEEPALIVE_AFTER).with_interval(KEEPALIVE_EVERY);
    let _ = socket.set_tcp_keepalive(&probes);
    let _ = socket.set_tcp_user_timeout(Some(DEAD_AFTER));
}

/// Listens on the first address of `host` that can be listened on.
fn listen(host: &str, port: u16) -> io::Result<TcpListener> {
    let mut failure = io::Error::new(io::ErrorKind::NotFound, "no address of that name");
    // Brackets are customary around an IPv6 address that a port follows.
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    for address in (host, port).to_socket_addrs()? {
        match listen_on(address) {
            Ok(listener) => return Ok(listener),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

fn listen_on(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // Connections of an earlier relay that are still closing must not keep a new one from its port.
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}
