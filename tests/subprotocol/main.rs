//! The subprotocol `arc-relay.v1`: what a client that offers it sees in addition.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod client;
mod messages;
mod pairing;
mod refusals;
mod stopping;
#[path = "../support/mod.rs"]
mod support;
mod vectors;
