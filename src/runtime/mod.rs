mod addresses;
pub(crate) mod clock;
pub(crate) mod io_error;
mod linux;
pub(crate) mod spawn;
pub(crate) mod stop;
pub(crate) mod stream;
pub(crate) mod sync;
pub(crate) mod transport;

#[cfg(test)]
pub(crate) use linux::tcp;
pub(crate) use linux::{executor, port, reactor, timer};

#[cfg(test)]
mod tests;
