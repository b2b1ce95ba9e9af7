pub mod buffer;
pub(crate) mod memory;
pub(crate) mod pool;
