//! The limits for each client, and the client's address behind proxies.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod client;
mod limits;
mod proxies;
mod proxy_protocol;
#[path = "../support/mod.rs"]
mod support;
