//! Secrets from files, because other users of a machine see the arguments of a process.

use std::fs;
use std::path::Path;

use arc_relay::client::Secret;

/// The first line of a file that is neither blank nor a comment, without white space around it.
///
/// A file of access tokens, as the relay reads it, serves as the file of a client.
///
/// # Errors
///
/// The error names the file, and nothing of its content.
pub(crate) fn first_line(path: &Path, what: &str) -> Result<String, String> {
    let failed = |error: &str| format!("cannot read the {what} from {path:?}: {error}");
    let text = fs::read_to_string(path).map_err(|error| failed(&error.to_string()))?;
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let line = lines.next().ok_or_else(|| failed("there is none"))?;
    // It becomes a part of a request.
    if line.chars().any(char::is_control) { Err(failed("it has a control character")) } else { Ok(line.to_owned()) }
}

/// The secret of a pair in a file: as `arc-relay secret` prints it, or a link with one.
///
/// # Errors
///
/// The error names the file, and nothing of its content.
pub(crate) fn secret_in(path: &Path) -> Result<Secret, String> {
    let text = first_line(path, "secret")?;
    text.parse().map_err(|error| format!("cannot read the secret from {path:?}: {error}"))
}
