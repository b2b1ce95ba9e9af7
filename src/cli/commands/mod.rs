//! The commands that talk to a running relay.

pub(crate) mod health;
#[cfg(feature = "client")]
pub(crate) mod pipe;
#[cfg(feature = "client")]
pub(crate) mod progress;
#[cfg(feature = "client")]
mod standard_streams;
