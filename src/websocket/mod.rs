pub(crate) mod mask;
pub mod reframer;
mod rewrite;
pub(crate) mod utf8;
pub(crate) mod violation;
