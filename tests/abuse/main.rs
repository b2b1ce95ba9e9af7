//! Hostile, broken and unlucky clients, hosts and networks: none of them harms the relay.
//!
//! Each case uses real sockets against the real binary, and ends with the same check, [`aftermath`].

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod aftermath;
mod clock;
mod crowds;
mod floods;
mod frames;
mod network;
mod process;
mod strangers;
#[path = "../support/mod.rs"]
mod support;
mod worst;
