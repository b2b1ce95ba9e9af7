//! `arc-relay pipe`: standard input to the peer, and what the peer sends to standard output.

pub(crate) mod command;
pub(crate) mod language;
pub(crate) mod standard_streams;
pub(crate) mod totals;
pub(crate) mod transfer;
