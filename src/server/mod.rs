pub(crate) mod acceptor;
pub(crate) mod relay;
pub(crate) mod worker;
