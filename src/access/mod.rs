pub(crate) mod access_tokens;
pub(crate) mod credentials;
pub(crate) mod origin;
pub(crate) mod policy;
