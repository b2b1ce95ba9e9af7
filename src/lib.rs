//! A self-hosted WebSocket relay, which joins two clients that know the same pair code.
//!
//! Binary messages are forwarded between them, unread.
//!
//! [`Relay::start`] runs a relay inside any program. The `arc-relay` binary is a thin user of it.
//!
//! A folder imports only from folders below it in this list:
//!
//! | folder | subject |
//! |---|---|
//! | `cli` | command line and log of the binary |
//! | `simulation` | the whole relay on an in-memory network (tests and fuzzing) |
//! | `checks` | model checks of what workers share (tests) |
//! | `server` | [`Relay`], [`Config`], supervisor and workers |
//! | `operations` | the operations listener: metrics, probes, a page |
//! | `http` | the opening handshake: from an accepted socket to 101 or a rejection |
//! | `access` | origins, access tokens and tickets, length of pair codes |
//! | `connection` | one task for each connection: inbound, outbound, closing handshake, keep-alive |
//! | `pairing` | pair codes, the table of pairs, seats, links |
//! | `telemetry` | events and counters |
//! | `limits` | limits on connections, handshakes, clients and rates |
//! | `websocket` | RFC 6455 frames, rewritten in place |
//! | `buffers` | buffers and their pool |
//! | `runtime` | executor, reactor, sockets, clock |
//! | `client` | the other end: from a URL to a stream, an answer or a WebSocket |

mod access;
mod buffers;
#[cfg(feature = "client")]
pub mod client;
#[cfg(not(feature = "client"))]
mod client;
mod connection;
mod http;
mod limits;
mod operations;
mod pairing;
mod runtime;
mod server;
mod telemetry;
mod websocket;

#[cfg(all(test, shuttle))]
mod checks;
#[cfg(test)]
mod simulation;

#[cfg(all(fuzzing, not(test)))]
mod simulation;

/// The pure cores and the parts of the client, for this project's own binary, tests and benchmarks.
///
/// They may change at any time.
#[doc(hidden)]
pub mod internals {
    pub use crate::buffers::buffer;
    pub use crate::client::wire as client;
    pub use crate::pairing::{link, pair_code, pair_table, side_id};
    #[cfg(all(fuzzing, not(test)))]
    pub use crate::simulation::respond;
    pub use crate::websocket::reframer;
}

pub use self::http::network::{InvalidNetwork, Network};
pub use access::access_tokens::{AccessTokens, NoAccessToken};
pub use access::origin::{InvalidOrigin, Origin};
pub use access::ticket_keys::{InvalidTicketKeys, TicketKeys};
pub use operations::address::{InvalidOpsAddress, OpsAddress};
pub use server::config::Config;
pub use server::relay::{Relay, RelayHandle};
pub use telemetry::counters::Counters;
pub use telemetry::events::Outcome;
pub use telemetry::histogram::Distribution;
pub use telemetry::rejection::Rejection;
