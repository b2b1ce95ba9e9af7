//! Where a setting comes from: its flag, or its variable in the environment.

use std::ffi::OsString;

/// Where settings come from, beside the command line.
pub(super) struct Sources<E> {
    pub(super) environment: E,
}

impl<E: Fn(&str) -> Option<OsString>> Sources<E> {
    /// Sets `setting` to what was given with its flag, or else to what its variable says, if that says anything.
    pub(super) fn set<T>(
        &self,
        flag: &str,
        given: Option<String>,
        setting: &mut T,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Result<(), String> {
        if let Some((source, value)) = self.find(flag, given) {
            let value = value.to_string_lossy();
            *setting = parse(&value).map_err(|needed| invalid(&source, &value, &needed))?;
        }
        Ok(())
    }

    /// What was said of this flag, and by whom.
    pub(super) fn find(&self, flag: &str, given: Option<String>) -> Option<(String, OsString)> {
        if let Some(value) = given {
            return Some((flag.to_owned(), value.into()));
        }
        variables(flag).find_map(|variable| {
            let value = (self.environment)(&variable).filter(|value| !value.is_empty())?;
            Some((variable, value))
        })
    }
}

pub(super) fn invalid(source: &str, value: &str, needed: &str) -> String {
    format!("{source}: invalid value {value:?}: {needed}")
}

/// The environment variables that stand for a flag: its name with our prefix, and one that other relays have, too.
pub(super) fn variables(flag: &str) -> impl Iterator<Item = String> + use<> {
    let name = flag.trim_start_matches('-').replace('-', "_").to_ascii_uppercase();
    let common = matches!(flag, "--host" | "--port").then(|| format!("RELAY_{name}"));
    [format!("ARC_RELAY_{name}")].into_iter().chain(common)
}
