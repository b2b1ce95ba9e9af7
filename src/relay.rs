//! The relay as a whole: listen, accept, hand each connection to a worker, stop.
//!
//! What the threads do is in [`worker`](crate::worker).

#[cfg(test)]
mod tests;

use std::io;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crate::acceptor::Acceptor;
use crate::clock::{Clock, SystemClock};
use crate::reactor::Reactor;
use crate::reframe::Tally;
use crate::seats::Seats;
use crate::stats::Stats;
use crate::stop::{Stop, StopOnDrop, stop};
use crate::tcp::Port;
use crate::transport::Listener;
use crate::worker::{Shared, Worker};

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
        let port = Port::listen(&config.host, config.port)?;
        let local_addr = port.local_addr()?;
        start(&config, port, local_addr)
    }
}

/// Starts the threads of a relay whose listener is there.
fn start<L>(config: &Config, listener: L, local_addr: SocketAddr) -> io::Result<RelayHandle>
where
    L: Listener<Socket: Send> + Send + 'static,
{
    let Parts { seats, stats, request_stop, acceptor, workers } = Parts::new(config, listener, Arc::new(SystemClock));
    let (running, ended) = stop();
    let mut acceptor = Some(acceptor);
    for worker in workers {
        // The first worker accepts, too.
        let acceptor = acceptor.take();
        let running = running.clone();
        let reactor = Reactor::new()?;
        thread::Builder::new().name(format!("relay-{}", worker.index)).spawn(move || {
            worker.run(&reactor, acceptor.map(Acceptor::run));
            drop(running);
        })?;
    }
    Ok(RelayHandle { local_addr, seats, stats, request_stop, ended })
}

/// All that a relay consists of, before any of it runs. What runs it is threads, or a simulation.
pub(crate) struct Parts<L: Listener> {
    pub(crate) seats: Arc<Seats>,
    pub(crate) stats: Arc<Stats>,
    /// Its drop stops the relay.
    pub(crate) request_stop: StopOnDrop,
    pub(crate) acceptor: Acceptor<L>,
    pub(crate) workers: Vec<Worker<L::Socket>>,
}

impl<L: Listener> Parts<L> {
    pub(crate) fn new(config: &Config, listener: L, clock: Arc<dyn Clock>) -> Self {
        let seats = Arc::new(Seats::new(config.pair_ttl.min(MAX_PAIR_TTL), config.max_pairs, Arc::clone(&clock)));
        let stats = Arc::new(Stats::default());
        let (request_stop, stop_requested) = stop();
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
        let acceptor = Acceptor { listener, shared: Arc::clone(&shared), stop_requested, stop_all };
        let workers = inbox_ends
            .into_iter()
            .enumerate()
            .map(|(index, inbox)| Worker { index, inbox, shared: Arc::clone(&shared) })
            .collect();
        Self { seats, stats, request_stop, acceptor, workers }
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
