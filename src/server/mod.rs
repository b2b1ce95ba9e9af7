pub(crate) mod acceptor;
pub(crate) mod config;
pub(crate) mod context;
pub(crate) mod relay;
pub(crate) mod worker;
