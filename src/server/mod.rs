pub(crate) mod acceptor;
pub(crate) mod config;
pub(crate) mod context;
pub(crate) mod relay;
mod supervisor;
pub(crate) mod worker;
