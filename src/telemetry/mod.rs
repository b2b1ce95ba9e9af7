pub(crate) mod counters;
pub(crate) mod events;
