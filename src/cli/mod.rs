//! The command line and the log of the binary. Only this folder reads flags, the environment and files.

#[cfg(feature = "client")]
pub(crate) mod check;
pub(crate) mod command_line;
pub(crate) mod commands;
pub(crate) mod environment;
pub(crate) mod flags;
pub(crate) mod log_budget;
pub(crate) mod log_line;
pub(crate) mod logging;
pub(crate) mod nearest;
#[cfg(feature = "client")]
pub(crate) mod pipe;
pub(crate) mod run;
pub(crate) mod secret_file;
pub(crate) mod service_manager;
pub(crate) mod table;
#[cfg(feature = "client")]
pub(crate) mod token;
pub(crate) mod values;
