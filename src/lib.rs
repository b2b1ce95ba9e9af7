//! A self-hosted WebSocket relay: two endpoints that know the same pair code are joined, and binary messages are
//! forwarded between them, unread.
//!
//! [`Relay::start`] runs it; `arc-relay start` is a thin user of that. Below are the cores, which decide everything
//! and do no I/O, and which can be used and tested on their own:
//!
//! - [`pair_code`]: which code a request names,
//! - [`pair_table`]: who waits, who is paired, until when,
//! - [`reframe`]: masked client frames in, unmasked server frames out, in place (in a [`buffer`]),
//! - [`link`]: what joins the two sides of a pair.
//!
//! A module uses only modules of the floors above it in this file, and of its own; see `ARCHITECTURE.md` for the map.

// Floor 0: pure.
mod access_tokens;
pub mod buffer;
mod clients;
mod in_flight;
mod liveness;
mod mask;
mod network;
mod origin;
pub mod pair_code;
pub mod pair_table;
mod query;
mod rate;
pub mod reframe;
mod utf8;

// Floor 1: shared between tasks.
mod allowance;
mod capacity;
mod client_limits;
mod clock;
mod events;
mod executor;
mod fair_rate;
pub mod link;
mod occupants;
mod pool;
mod reactor;
mod seats;
mod slots;
mod stats;
mod stop;
mod tcp;
mod tickets;
mod transport;

// Floor 2: a connection's life.
mod connection;
mod front_door;
mod policy;

// Floor 3: all of them.
mod acceptor;
mod relay;
mod worker;

#[cfg(test)]
mod simulation;

#[cfg(all(fuzzing, not(test)))]
mod simulation;
#[cfg(all(fuzzing, not(test)))]
pub use simulation::respond;

pub use access_tokens::{AccessTokens, NoAccessToken};
pub use events::{Outcome, Rejection};
pub use network::{InvalidNetwork, Network};
pub use origin::{InvalidOrigin, Origin};
pub use relay::{Config, Relay, RelayHandle};
pub use stats::Counters;
