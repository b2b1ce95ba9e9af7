//! The environment: variables that stand for flags, and warnings about the others.
//!
//! Kubernetes sets variables for each Service in the namespace of a pod. For a Service `arc-relay` they begin with
//! `ARC_RELAY_`, and `ARC_RELAY_PORT` is a URL.

use std::collections::BTreeMap;
use std::env;
use std::ffi::{OsStr, OsString};

use super::nearest::nearest;

/// Prefix of the variables that stand for flags.
pub(super) const PREFIX: &str = "ARC_RELAY_";

/// The variables that have a value.
///
/// An empty variable counts as unset, so that a compose file can pass on unset variables.
#[derive(Debug)]
pub(crate) struct Environment(BTreeMap<String, OsString>);

/// A variable without effect. The value is never logged: it may be a secret.
#[derive(Debug, PartialEq, Eq)]
enum Warning<'a> {
    Unknown { variable: &'a str, nearest: Option<String> },
    Ignored { variable: &'a str },
}

impl Environment {
    /// The environment of this process.
    pub(crate) fn of_process() -> Self {
        env::vars_os().map(|(variable, value)| (variable.to_string_lossy().into_owned(), value)).collect()
    }

    /// Finds the first of these variables that has a value.
    pub(super) fn find(&self, variables: &[String]) -> Option<(&str, &OsStr)> {
        let mut found = variables.iter().filter_map(|variable| self.0.get_key_value(variable));
        let (variable, value) = found.find(|(variable, value)| !is_service_address(variable, value))?;
        Some((variable, value))
    }

    /// Logs a warning for each variable that looks like a setting and is none.
    pub(crate) fn warn(&self, known: &[String]) {
        for warning in self.warnings(known) {
            match warning {
                Warning::Unknown { variable, nearest } => log::warn!(variable, nearest; "variable_unknown"),
                Warning::Ignored { variable } => log::warn!(variable; "variable_ignored"),
            }
        }
    }

    fn warnings(&self, known: &[String]) -> Vec<Warning<'_>> {
        self.0.iter().filter_map(|(variable, value)| warning(variable, value, known)).collect()
    }
}

fn warning<'a>(variable: &'a str, value: &OsStr, known: &[String]) -> Option<Warning<'a>> {
    if known.iter().any(|known| known == variable) {
        return is_service_address(variable, value).then_some(Warning::Ignored { variable });
    }
    let name = variable.strip_prefix(PREFIX)?;
    if is_service_address(variable, value) || is_service_variable(variable) {
        return None;
    }
    let names = known.iter().filter_map(|variable| variable.strip_prefix(PREFIX));
    Some(Warning::Unknown { variable, nearest: nearest(name, names).map(|name| format!("{PREFIX}{name}")) })
}

impl FromIterator<(String, OsString)> for Environment {
    fn from_iter<I: IntoIterator<Item = (String, OsString)>>(variables: I) -> Self {
        Self(variables.into_iter().filter(|(_, value)| !value.is_empty()).collect())
    }
}

/// Whether Kubernetes set the variable to the address of a Service, such as `tcp://10.0.0.1:8765`.
fn is_service_address(variable: &str, value: &OsStr) -> bool {
    let schemes = ["tcp://", "udp://", "sctp://"];
    variable.ends_with("_PORT") && schemes.iter().any(|scheme| value.as_encoded_bytes().starts_with(scheme.as_bytes()))
}

/// Whether Kubernetes sets a variable of this name for a Service.
///
/// Examples: `ARC_RELAY_SERVICE_HOST`, `ARC_RELAY_PORT_8765_TCP_ADDR`.
fn is_service_variable(variable: &str) -> bool {
    let is_port = |(_, rest): (&str, &str)| {
        let protocol = rest.trim_start_matches(|c: char| c.is_ascii_digit());
        protocol.len() < rest.len() && ["_TCP", "_UDP", "_SCTP"].iter().any(|known| protocol.starts_with(known))
    };
    variable.ends_with("_SERVICE_HOST")
        || variable.ends_with("_SERVICE_PORT")
        || variable.contains("_SERVICE_PORT_")
        || variable.split_once("_PORT_").is_some_and(is_port)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(variables: &[(&str, &str)]) -> Environment {
        variables.iter().map(|(variable, value)| (String::from(*variable), OsString::from(value))).collect()
    }

    fn known() -> Vec<String> {
        ["ARC_RELAY_PORT", "ARC_RELAY_PAIR_TTL", "RELAY_PORT"].map(String::from).to_vec()
    }

    #[test]
    fn unknown_variables_are_reported_with_the_nearest_known_one() {
        let environment = environment(&[
            ("ARC_RELAY_PAIR_TTL", "1s"),
            ("ARC_RELAY_PIAR_TTL", "1s"),
            ("ARC_RELAY_COLOUR", "red"),
            ("ARC_RELAY_EMPTY", ""),
            ("RELAY_COLOUR", "red"),
            ("PATH", "/"),
        ]);
        let unknown =
            |variable, nearest: Option<&str>| Warning::Unknown { variable, nearest: nearest.map(str::to_owned) };
        assert_eq!(
            environment.warnings(&known()),
            [unknown("ARC_RELAY_COLOUR", None), unknown("ARC_RELAY_PIAR_TTL", Some("ARC_RELAY_PAIR_TTL"))]
        );
    }

    /// For the Services `arc-relay`, `arc-relay-metrics` and `relay`.
    #[test]
    fn kubernetes_service_variables_are_ignored() {
        let environment = environment(&[
            ("ARC_RELAY_SERVICE_HOST", "10.0.0.1"),
            ("ARC_RELAY_SERVICE_PORT", "8765"),
            ("ARC_RELAY_SERVICE_PORT_WS", "8765"),
            ("ARC_RELAY_PORT", "tcp://10.0.0.1:8765"),
            ("ARC_RELAY_PORT_8765_TCP", "tcp://10.0.0.1:8765"),
            ("ARC_RELAY_PORT_8765_TCP_PROTO", "tcp"),
            ("ARC_RELAY_PORT_8765_TCP_PORT", "8765"),
            ("ARC_RELAY_PORT_8765_TCP_ADDR", "10.0.0.1"),
            ("ARC_RELAY_METRICS_SERVICE_HOST", "10.0.0.2"),
            ("ARC_RELAY_METRICS_PORT", "udp://10.0.0.2:9100"),
            ("RELAY_PORT", "tcp://10.0.0.3:1"),
        ]);
        let ignored = |variable| Warning::Ignored { variable };
        assert_eq!(environment.warnings(&known()), [ignored("ARC_RELAY_PORT"), ignored("RELAY_PORT")]);
        assert_eq!(environment.find(&["ARC_RELAY_PORT".into(), "RELAY_PORT".into()]), None);
    }
}
