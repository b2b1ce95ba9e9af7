//! The environment: variables that stand for flags.

use std::collections::BTreeMap;
use std::env;
use std::ffi::{OsStr, OsString};

/// Prefix of the variables that stand for flags.
pub(super) const PREFIX: &str = "ARC_RELAY_";

/// The variables that have a value. An empty one counts as unset, so that a compose file can pass on unset variables.
#[derive(Debug)]
pub(crate) struct Environment(BTreeMap<String, OsString>);

impl Environment {
    /// The environment of this process.
    pub(crate) fn of_process() -> Self {
        env::vars_os().map(|(variable, value)| (variable.to_string_lossy().into_owned(), value)).collect()
    }

    /// Finds the first of these variables that has a value.
    pub(super) fn find(&self, variables: &[String]) -> Option<(&str, &OsStr)> {
        let (variable, value) = variables.iter().find_map(|variable| self.0.get_key_value(variable))?;
        Some((variable, value))
    }
}

impl FromIterator<(String, OsString)> for Environment {
    fn from_iter<I: IntoIterator<Item = (String, OsString)>>(variables: I) -> Self {
        Self(variables.into_iter().filter(|(_, value)| !value.is_empty()).collect())
    }
}
