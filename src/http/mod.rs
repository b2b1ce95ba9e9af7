pub(crate) mod client_address;
pub(crate) mod deadline;
pub(crate) mod heads;
pub(crate) mod network;
pub(crate) mod opening;
pub(crate) mod proxy_protocol;
pub(crate) mod rejection;
pub(crate) mod request;
