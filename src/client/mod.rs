//! The other end of a relay's connection, which shares nothing with the relay.

pub mod wire;
