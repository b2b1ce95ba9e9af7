mod close;
pub(crate) mod header;
pub(crate) mod mask;
mod message;
pub mod reframer;
mod rewrite;
pub(crate) mod utf8;
pub(crate) mod violation;
mod whole_messages;
