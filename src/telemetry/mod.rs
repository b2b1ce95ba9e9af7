pub(crate) mod code_hash;
mod counter;
pub(crate) mod counters;
pub(crate) mod events;
pub(crate) mod histogram;
pub(crate) mod records;
pub(crate) mod rejection;
mod words;
