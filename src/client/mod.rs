//! The other end of a relay's connection, which shares nothing with the relay.
//!
//! A [`Connection`] joins a program with the peer that has the same [`Secret`] or pair code.

/// The programs of `clients/rust/README.md` compile.
#[cfg(all(doctest, feature = "client"))]
#[doc = include_str!("../../clients/rust/README.md")]
struct Readme;

#[cfg(feature = "client")]
mod closing;
#[cfg(feature = "client")]
mod connection;
#[cfg(feature = "client")]
mod event;
#[cfg(feature = "client")]
mod life;
#[cfg(feature = "client")]
mod line;
#[cfg(feature = "client")]
#[doc(hidden)]
pub mod meeting;
#[cfg(feature = "client")]
mod noise;
#[cfg(feature = "client")]
mod options;
#[cfg(feature = "client")]
mod secret;
#[cfg(feature = "client")]
#[doc(hidden)]
pub mod session;
#[cfg(all(test, feature = "client"))]
mod vectors;
#[doc(hidden)]
pub mod wire;

#[cfg(feature = "client")]
pub use connection::Connection;
#[cfg(feature = "client")]
pub use event::{Closed, Event};
#[cfg(feature = "client")]
pub use options::{InvalidOptions, Options};
#[cfg(feature = "client")]
pub use secret::{InvalidSecret, Secret};
