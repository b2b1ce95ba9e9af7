//! `arc-relay check`: what is right and wrong on the way to a relay.

pub(crate) mod cause;
pub(crate) mod command;
pub(crate) mod context;
pub(crate) mod diagnosis;
pub(crate) mod ends;
pub(crate) mod joining;
pub(crate) mod messages;
pub(crate) mod reach;
pub(crate) mod report;
pub(crate) mod side;
pub(crate) mod speed;
