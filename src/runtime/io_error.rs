//! Errors that say what failed.

use std::fmt::Display;
use std::io;

/// Puts what failed in front of an error of the system. Its kind stays.
pub(crate) fn context(what: impl Display) -> impl FnOnce(io::Error) -> io::Error {
    move |error| io::Error::new(error.kind(), format!("{what}: {error}"))
}
