//! The commands that connect to a relay, run as a user runs them.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

#[cfg(feature = "client")]
mod check;
mod completions;
mod documents;
mod health;
#[cfg(feature = "client")]
mod pipe;
mod process;
#[cfg(feature = "client")]
mod secret;
#[path = "../support/mod.rs"]
mod support;
#[cfg(feature = "client")]
mod tls_front;
