pub(crate) mod executor;
pub(crate) mod notifier;
pub(crate) mod port;
pub(crate) mod reactor;
mod serials;
mod sources;
pub(crate) mod tcp;
pub(crate) mod timer;
mod timers;
