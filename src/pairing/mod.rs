mod channels;
mod close_cause;
pub mod link;
pub(crate) mod occupants;
pub mod pair_code;
pub mod pair_table;
pub(crate) mod query;
pub(crate) mod seats;
mod shard;
