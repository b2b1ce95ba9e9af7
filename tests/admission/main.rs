//! Who gets in, and who does not: what strangers may cost, and what the operator asks of those who join.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod caps;
mod handshakes;
mod policy;
#[path = "../support/mod.rs"]
mod support;
mod tokens;
