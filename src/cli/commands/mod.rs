//! All commands but `start` and `check`.

pub(crate) mod completions;
pub(crate) mod health;
pub(crate) mod manual;
#[cfg(feature = "client")]
pub(crate) mod progress;
#[cfg(feature = "client")]
pub(crate) mod secret;
