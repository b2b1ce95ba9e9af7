pub(crate) mod code_hash;
pub(crate) mod counters;
pub(crate) mod events;
pub(crate) mod records;
pub(crate) mod rejection;
mod words;
