//! The runtime for all systems but Linux: smol's executor, reactor and timers behind the traits of
//! [`runtime`](super).
//!
//! It uses only what the standard library offers on every system. What it cannot tell, and what follows, is in
//! `docs/systems.md`. On Linux it is there with the feature `portable`, and then uses nothing that only Linux has: so
//! the tests of that build show what other systems get.

pub(crate) mod executor;
pub(crate) mod port;
pub(crate) mod reactor;
pub(crate) mod tcp;
pub(crate) mod timer;
