pub(crate) mod access_tokens;
pub(crate) mod credentials;
pub(crate) mod origin;
pub(crate) mod policy;
pub(crate) mod secrets;
pub(crate) mod ticket;
pub(crate) mod ticket_keys;
