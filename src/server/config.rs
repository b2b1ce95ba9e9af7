//! The configuration of a relay.

use std::num::{NonZeroU64, NonZeroUsize};
use std::time::Duration;

use crate::access::access_tokens::AccessTokens;
use crate::access::origin::Origin;
use crate::access::ticket_keys::TicketKeys;
use crate::http::network::Network;
use crate::limits::clients::MOST_JOINS;
use crate::limits::token_bucket::LEAST_RATE;
use crate::operations::address::OpsAddress;
use crate::runtime::addresses::SocketConfig;

/// The longest time of a [`Config`]: a hundred years.
///
/// With a longer one, a deadline might not fit into an `Instant`.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// The default of [`Config::max_buffer_memory`].
///
/// 500 streams at full speed take it, or as many that have stalled.
const BUFFER_MEMORY: usize = 256 << 20;

/// The most workers that are started for as many processors.
///
/// One forwards gigabytes in a second, so more are no gain for a relay, and on large machines each takes memory.
const MOST_AUTOMATIC_WORKERS: usize = 16;

/// The configuration of a relay.
///
/// Any value is accepted. A limit that the system has no room for is lowered when the relay starts, and a time of more than a
/// hundred years counts as that. The log's event `started` says the limits in effect.
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
    /// The address or name to listen on. Default: `0.0.0.0`.
    ///
    /// A name stands for all of its addresses on this system, so `localhost` is IPv4 and IPv6. `::` is every address, IPv4
    /// included.
    pub host: String,
    /// The TCP port to listen on. Default: 8765. With 0 the system chooses one.
    pub port: u16,
    /// The address of the operations listener. Default: none, and there is no such listener.
    ///
    /// It answers `/metrics`, `/livez`, `/readyz` and `/info`, and has a page at `/`, on a thread of its own. It asks for no
    /// access token: give it an address that only operators and their programs reach, such as `127.0.0.1:9090`.
    pub ops_address: Option<OpsAddress>,
    /// Whether the relay has a demo: a page at `/` with which two browsers meet. Default: no.
    ///
    /// A client gets it without an access token. To join, the page needs one as any client does, and asks for it.
    pub demo: bool,
    /// How long a side may wait for its peer.
    ///
    /// Default: 5 minutes. Then it is closed with 1001 `pair expired`.
    pub pair_ttl: Duration,
    /// The longest message in bytes.
    ///
    /// Default: none. A longer one is a violation (1009). Memory does not depend on it.
    pub max_message: Option<u64>,
    /// The maximum number of WebSockets. More are rejected with 503.
    ///
    /// The default is what the memory and the limit of open files allow. A higher number than the open files allow is lowered
    /// to that, behind a reserve and the handshakes.
    pub max_connections: Option<usize>,
    /// The maximum number of sides that wait alone.
    ///
    /// Default: half of the connections. More are rejected with 503. A second side is never rejected for this limit.
    pub max_waiting: Option<usize>,
    /// The maximum number of pair codes in use.
    ///
    /// Default: 1,048,576, far beyond what other limits allow. More are rejected with 503.
    pub max_pairs: usize,
    /// The silence of a client after which it is pinged. Default: 20 s. `None` turns pings off.
    pub ping_interval: Option<Duration>,
    /// The silence after a ping after which the client is lost (1011). Default: 20 s.
    pub ping_timeout: Duration,
    /// How long a client and its system may accept and acknowledge nothing. Default: 30 s.
    ///
    /// Then the client is lost, and its peer gets 1011.
    pub write_timeout: Duration,
    /// The most bytes of a TCP segment. Default: 0, which leaves it to the systems.
    ///
    /// It matters for clients on the relay's host, such as proxies. They have segments of 64 KiB, and their system queues some
    /// megabytes of them. A client's pings wait behind that if its peer is slow.
    pub max_segment: u16,
    /// How long a probed client's system may acknowledge nothing. Default: 2 s.
    ///
    /// Then a third client gets its seat. A silent program has [`ping_timeout`](Self::ping_timeout). With zero there are no
    /// takeover probes, and a third client is rejected with 409 at once.
    pub probe_timeout: Duration,
    /// How long a client may take for its request, and then again for taking the answer. Default: 10 s.
    ///
    /// The request's time begins with accept. A connection that takes longer is closed without an answer.
    pub handshake_timeout: Duration,
    /// The maximum number of opening handshakes, at least 1.
    ///
    /// Default: 1024. The oldest is closed to admit a new one.
    ///
    /// WebSockets do not count. It is lowered to a quarter of the open files, and to what a sixteenth of the memory holds.
    pub max_handshakes: usize,
    /// Sites with scripts that may join, by the `Origin` header.
    ///
    /// Default: none listed, and any origin may join.
    ///
    /// Other origins are rejected with 403. A client that sends no origin is no browser and may always join.
    pub allowed_origins: Vec<Origin>,
    /// Access tokens.
    ///
    /// A client without one of them is rejected with 401. Default: `None`, and no token is needed.
    ///
    /// They can be [replaced](crate::RelayHandle::set_access_tokens) while the relay runs.
    pub access_tokens: Option<AccessTokens>,
    /// Keys that tickets are signed with.
    ///
    /// A ticket counts as an access token. Default: `None`, and no ticket does. With access tokens, too, either suffices.
    ///
    /// They can be [replaced](crate::RelayHandle::set_ticket_keys) while the relay runs.
    pub ticket_keys: Option<TicketKeys>,
    /// The shortest pair code in characters. Default: 1. A shorter one is rejected with 400.
    pub min_code_length: usize,
    /// How long the relay goes on as before after it was told to stop, but for `/readyz`. Default: zero.
    ///
    /// `/readyz` is 503 meanwhile, so that a load balancer sends new clients elsewhere before the listener is closed.
    pub drain_delay: Duration,
    /// How long pairs may go on after that. Default: zero.
    ///
    /// Their ends are spread over the last tenth of it, or its last 5 s if that is less.
    pub drain_timeout: Duration,
    /// Proxies with a trusted `X-Forwarded-For` header.
    ///
    /// Default: none, and the client is the peer of the socket.
    pub trusted_proxies: Vec<Network>,
    /// Whether every connection begins with a header of the PROXY protocol, version 1 or 2. Default: no.
    ///
    /// A connection without one is closed, and one from elsewhere than [`trusted_proxies`](Self::trusted_proxies), if there
    /// are any.
    pub proxy_protocol: bool,
    /// The maximum number of connections of one client, from accept to the end of the WebSocket.
    ///
    /// Default: 0, no limit.
    ///
    /// More are rejected with 429. A client is an IPv4 address, or the /64 of an IPv6 address.
    pub max_connections_per_client: usize,
    /// The maximum number of requests to join in a minute of one client. Default: 0, no limit.
    ///
    /// A token bucket: so many at once, and then evenly. Rejected requests count, but not those that this limit rejects,
    /// with 429. At most [`MOST_JOINS_PER_MINUTE`](Self::MOST_JOINS_PER_MINUTE).
    pub max_joins_per_minute: u32,
    /// The maximum rate of a pair, in bytes per second that its two clients send. Default: none.
    ///
    /// Frames and answers to pings count. Faster clients are read from more slowly, and nothing is dropped. At least
    /// [`LEAST_RATE`](Self::LEAST_RATE).
    pub max_rate_per_pair: Option<NonZeroU64>,
    /// The maximum rate of all clients, in bytes per second that they send.
    ///
    /// Default: none. Each pair has an equal share.
    pub max_rate: Option<NonZeroU64>,
    /// The memory in bytes of all buffers of more than 4 KiB. Default: 256 MiB.
    ///
    /// It is lowered to a quarter of the memory of the system, or of the control group. Each worker may take 256 KiB more at
    /// the same moment. When it is used up, all connections go on with smaller buffers, more slowly, and frames of more than
    /// a kibibyte may arrive in fragments.
    pub max_buffer_memory: usize,
    /// Whether events have the address of the client. Default: no. (They never have its pair code.)
    pub log_addresses: bool,
    /// Whether events have a hash of the pair code, with a key of this relay's own. Default: no.
    ///
    /// It shows which events are of one pair, and not the code.
    pub log_code_hash: bool,
    /// The number of threads that accept connections and forward messages. Default: 1.
    ///
    /// `None` is one for each processor that the process may use, at most 16. More than
    /// [`MOST_WORKERS`](Self::MOST_WORKERS) count as that.
    pub workers: Option<NonZeroUsize>,
}

impl Config {
    /// The highest value of [`max_joins_per_minute`](Self::max_joins_per_minute), a thousand in a second.
    pub const MOST_JOINS_PER_MINUTE: u32 = MOST_JOINS;

    /// The lowest [`max_rate`](Self::max_rate) and [`max_rate_per_pair`](Self::max_rate_per_pair).
    ///
    /// Less counts as this.
    pub const LEAST_RATE: u64 = LEAST_RATE;

    /// The highest number of [`workers`](Self::workers).
    pub const MOST_WORKERS: usize = 256;

    /// The number of workers, if the process may use this many processors.
    pub(super) fn workers_on(&self, processors: usize) -> usize {
        self.workers.map_or(processors.clamp(1, MOST_AUTOMATIC_WORKERS), |wish| wish.get().min(Self::MOST_WORKERS))
    }

    /// The least [`max_segment`](Self::max_segment) that Linux takes. Less counts as this.
    pub const LEAST_SEGMENT: u16 = 88;
    /// The most [`max_segment`](Self::max_segment) that Linux takes. More counts as this.
    pub const MOST_SEGMENT: u16 = 32767;

    /// The options of all sockets.
    pub(super) fn sockets(&self) -> SocketConfig {
        let segment = self.max_segment;
        SocketConfig {
            write_timeout: self.write_timeout,
            max_segment: if segment == 0 { 0 } else { segment.clamp(Self::LEAST_SEGMENT, Self::MOST_SEGMENT) },
        }
    }

    /// The same configuration with times that deadlines can be computed from.
    pub(super) fn with_bounded_times(mut self) -> Self {
        for time in [
            &mut self.pair_ttl,
            &mut self.ping_timeout,
            &mut self.write_timeout,
            &mut self.probe_timeout,
            &mut self.handshake_timeout,
            &mut self.drain_delay,
            &mut self.drain_timeout,
        ] {
            *time = LONGEST.min(*time);
        }
        self.ping_interval = self.ping_interval.map(|interval| interval.min(LONGEST));
        self
    }
}

impl Default for Config {
    /// The configuration of `arc-relay start` without flags.
    fn default() -> Self {
        Self {
            host: String::from("0.0.0.0"),
            port: 8765,
            ops_address: None,
            demo: false,
            pair_ttl: Duration::from_secs(300),
            max_message: None,
            max_pairs: 1 << 20,
            max_connections: None,
            max_waiting: None,
            ping_interval: Some(Duration::from_secs(20)),
            ping_timeout: Duration::from_secs(20),
            write_timeout: Duration::from_secs(30),
            max_segment: 0,
            probe_timeout: Duration::from_secs(2),
            handshake_timeout: Duration::from_secs(10),
            max_handshakes: 1024,
            allowed_origins: Vec::new(),
            access_tokens: None,
            ticket_keys: None,
            min_code_length: 1,
            drain_delay: Duration::ZERO,
            drain_timeout: Duration::ZERO,
            trusted_proxies: Vec::new(),
            proxy_protocol: false,
            max_connections_per_client: 0,
            max_joins_per_minute: 0,
            max_rate_per_pair: None,
            max_rate: None,
            max_buffer_memory: BUFFER_MEMORY,
            log_addresses: false,
            log_code_hash: false,
            workers: Some(NonZeroUsize::MIN),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_are_as_many_as_asked_for_or_as_processors() {
        let workers = |wish, processors| Config { workers: wish, ..Config::default() }.workers_on(processors);
        assert_eq!([0, 1, 2, 16, 17, 1000].map(|processors| workers(None, processors)), [1, 1, 2, 16, 16, 16]);
        assert_eq!([1, 3, 256, 257].map(|wish| workers(NonZeroUsize::new(wish), 2)), [1, 3, 256, 256]);
    }
}
