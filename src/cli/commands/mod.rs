//! The commands that talk to a running relay.

pub(crate) mod health;
