mod closing;
#[expect(clippy::module_inception, reason = "the folder's main file has its name")]
mod connection;
mod context;
mod in_flight;
mod inbound;
pub(crate) mod keepalive;
mod notices;
mod outbound;
mod peer_link;
mod read_size;
mod reader;
mod takeover;
mod throttle;
mod window;
mod write_timeout;

pub(crate) use connection::Connection;
pub(crate) use context::{Drain, PORTIONS, WorkerContext};
