//! The other end of a relay's connection, which shares nothing with the relay.
//!
//! [`Secret`] is what two programs have in common whose messages the relay is not to read.

#[cfg(feature = "client")]
#[doc(hidden)]
pub mod meeting;
#[cfg(feature = "client")]
mod noise;
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
pub use secret::{InvalidSecret, Secret};
