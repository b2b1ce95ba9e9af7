//! Admission: limits of the whole relay, handshake limits, and the access policy.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod caps;
mod handshakes;
mod policy;
#[path = "../support/mod.rs"]
mod support;
mod tickets;
mod tokens;
