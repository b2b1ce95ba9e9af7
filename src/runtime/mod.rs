pub(crate) mod addresses;
pub(crate) mod clock;
pub(crate) mod io_error;
#[cfg(all(target_os = "linux", not(feature = "portable")))]
mod linux;
#[cfg(not(all(target_os = "linux", not(feature = "portable"))))]
mod portable;
pub(crate) mod spawn;
pub(crate) mod stop;
pub(crate) mod stream;
pub(crate) mod sync;
pub(crate) mod transport;

#[cfg(all(target_os = "linux", not(feature = "portable")))]
use linux as system;
#[cfg(not(all(target_os = "linux", not(feature = "portable"))))]
use portable as system;

#[cfg(all(test, shuttle))]
pub(crate) use system::notifier;
#[cfg(test)]
pub(crate) use system::tcp;
pub(crate) use system::{executor, port, reactor, timer};

#[cfg(test)]
mod tests;
