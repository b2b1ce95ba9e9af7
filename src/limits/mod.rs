pub(crate) mod capacity;
pub(crate) mod client_limits;
pub(crate) mod clients;
pub(crate) mod fair_rate;
pub(crate) mod pair_rate;
pub(crate) mod permits;
pub(crate) mod slots;
pub(crate) mod token_bucket;
