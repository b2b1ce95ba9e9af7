pub(crate) mod address;
mod exposition;
mod history;
pub(crate) mod listener;
mod metrics;
pub(crate) mod overview;
mod page;
mod process;
mod site;
