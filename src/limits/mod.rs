pub(crate) mod capacity;
pub(crate) mod clients;
pub(crate) mod fair_rate;
pub(crate) mod pair_rate;
pub(crate) mod permits;
pub(crate) mod resources;
pub(crate) mod slots;
pub(crate) mod token_bucket;
