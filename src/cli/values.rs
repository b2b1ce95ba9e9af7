//! Parsers for the values of settings. An error says what is needed instead.
//!
//! They take an `OsStr`: a path may be other than UTF-8.

use std::ffi::OsStr;
use std::fmt;
use std::num::{NonZeroU64, NonZeroUsize};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use arc_relay::Config;
use arc_relay::internals::client::target::Target;
use bytesize::ByteSize;

/// The result of a parser.
pub(super) type Parsed<T> = Result<T, String>;

/// A name or an address, without a port.
pub(super) fn host(value: &OsStr) -> Parsed<String> {
    let text = value.to_str().filter(|text| !text.is_empty()).ok_or("an address or a name is needed")?;
    match instead_of(text) {
        None => Ok(text.to_owned()),
        Some(flags) => Err(format!("write {flags}")),
    }
}

/// The flags to write instead of a URL or of an address with a port.
///
/// None for a name or an address alone, which is right as it is.
fn instead_of(text: &str) -> Option<String> {
    let after_scheme = text.split_once("://").map(|(_, rest)| rest.split(['/', '?', '#']).next().unwrap_or_default());
    let authority = after_scheme.unwrap_or(text);
    let (host, port) = match authority.rsplit_once(':') {
        // The last colon of an IPv6 address without brackets precedes no port.
        Some((host, port)) if !host.contains(':') || host.ends_with(']') => (host, port),
        _ if after_scheme.is_some() => (authority, ""),
        _ => return None,
    };
    let flag = |name, value: &str| if value.is_empty() { String::new() } else { format!("{name} {value}") };
    let host = flag("--host", host.trim_matches(['[', ']']));
    Some(format!("{host} {}", flag("--port", port)).trim().escape_debug().to_string())
}

/// A URL of a relay.
pub(super) fn url(value: &OsStr) -> Parsed<Target> {
    // What is not UTF-8 is no URL either.
    value.to_string_lossy().parse()
}

/// A path, of whatever bytes.
pub(super) fn path(value: &OsStr) -> Parsed<Option<PathBuf>> {
    if value.is_empty() { Err(String::from("a path is needed")) } else { Ok(Some(value.into())) }
}

pub(super) fn boolean(value: &OsStr) -> Parsed<bool> {
    named(value, &[("true", true), ("1", true), ("false", false), ("0", false)])
        .ok_or_else(|| String::from("true or false is needed"))
}

/// One of these names, in upper or lower case.
pub(super) fn one_of<T: Copy>(names: &[(&str, T)]) -> impl FnOnce(&OsStr) -> Parsed<T> {
    move |value| {
        let known: Vec<_> = names.iter().map(|(name, _)| *name).collect();
        named(value, names).ok_or_else(|| format!("one of {} is needed", known.join(", ")))
    }
}

fn named<T: Copy>(value: &OsStr, names: &[(&str, T)]) -> Option<T> {
    names.iter().find_map(|(name, meaning)| value.eq_ignore_ascii_case(name).then_some(*meaning))
}

/// The value of a setting that is optional.
pub(super) fn some<T>(parse: impl FnOnce(&OsStr) -> Parsed<T>) -> impl FnOnce(&OsStr) -> Parsed<Option<T>> {
    |value| parse(value).map(Some)
}

/// A comma-separated list.
pub(super) fn list<T: FromStr<Err: fmt::Display>>(value: &OsStr) -> Parsed<Vec<T>> {
    value.to_string_lossy().split(',').map(|item| needed(item.trim().as_ref())).collect()
}

/// A value that says itself what is needed instead.
pub(super) fn needed<T: FromStr<Err: fmt::Display>>(value: &OsStr) -> Parsed<T> {
    value.to_string_lossy().parse().map_err(|needed: T::Err| needed.to_string())
}

pub(super) fn size(value: &OsStr) -> Parsed<u64> {
    let size = parsed(value).filter(|ByteSize(size)| *size > 0);
    size.map(|ByteSize(size)| size).ok_or_else(|| String::from("a size is needed, such as 65536 or 16MiB"))
}

/// A size in memory.
pub(super) fn memory(value: &OsStr) -> Parsed<usize> {
    size(value).map(|size| usize::try_from(size).unwrap_or(usize::MAX))
}

/// A size per second.
pub(super) fn rate(value: &OsStr) -> Parsed<NonZeroU64> {
    let rate = size(value).ok().filter(|rate| *rate >= Config::LEAST_RATE).and_then(NonZeroU64::new);
    rate.ok_or_else(|| format!("a size from {} is needed, such as 1MiB", ByteSize(Config::LEAST_RATE)))
}

/// A number of workers, or none for as many as there are processors.
pub(super) fn workers(value: &OsStr) -> Parsed<Option<NonZeroUsize>> {
    if value.eq_ignore_ascii_case("auto") {
        return Ok(None);
    }
    let number = parsed(value).filter(|number: &NonZeroUsize| number.get() <= Config::MOST_WORKERS);
    number.map(Some).ok_or_else(|| format!("auto or a number from 1 to {} is needed", Config::MOST_WORKERS))
}

/// The size of a TCP segment, or 0.
pub(super) fn segment(value: &OsStr) -> Parsed<u16> {
    let (least, most) = (Config::LEAST_SEGMENT, Config::MOST_SEGMENT);
    let size = parsed(value).filter(|size| *size == 0 || (least..=most).contains(size));
    size.ok_or_else(|| format!("0 or a number from {least} to {most} is needed"))
}

/// A number with a minimum.
pub(super) fn from<T: FromStr + PartialOrd + fmt::Display>(least: T) -> impl FnOnce(&OsStr) -> Parsed<T> {
    move |value| {
        let number = parsed(value).filter(|number| *number >= least);
        number.ok_or_else(|| format!("a number from {least} is needed"))
    }
}

/// A number within bounds.
pub(super) fn within<T: FromStr + PartialOrd + fmt::Display>(
    bounds: RangeInclusive<T>,
) -> impl FnOnce(&OsStr) -> Parsed<T> {
    move |value| {
        let number = parsed(value).filter(|number| bounds.contains(number));
        number.ok_or_else(|| format!("a number from {} to {} is needed", bounds.start(), bounds.end()))
    }
}

pub(super) fn duration_or_zero(value: &OsStr) -> Parsed<Duration> {
    let duration = value.to_str().and_then(|text| humantime::parse_duration(text).ok());
    duration.ok_or_else(|| String::from("a duration is needed, such as 90s or 5m"))
}

/// A duration, or none if it is zero.
pub(super) fn duration_or_none(value: &OsStr) -> Parsed<Option<Duration>> {
    duration_or_zero(value).map(|duration| (!duration.is_zero()).then_some(duration))
}

pub(super) fn duration(value: &OsStr) -> Parsed<Duration> {
    duration_or_none(value)?.ok_or_else(|| String::from("more than zero is needed, such as 90s or 5m"))
}

fn parsed<T: FromStr>(value: &OsStr) -> Option<T> {
    value.to_str()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_and_ports_are_taken_apart() {
        for (text, expected) in [
            ("0.0.0.0:9000", "--host 0.0.0.0 --port 9000"),
            ("[::]:9000", "--host :: --port 9000"),
            ("localhost:", "--host localhost"),
            (":9000", "--port 9000"),
            ("ws://0.0.0.0:9000/?pair=x", "--host 0.0.0.0 --port 9000"),
            ("https://[::1]:443", "--host ::1 --port 443"),
            ("http://relay.example.org", "--host relay.example.org"),
        ] {
            assert_eq!(instead_of(text).as_deref(), Some(expected), "{text}");
        }
        for text in ["0.0.0.0", "localhost", "::", "::1", "[::1]", "fe80::1%eth0", "2001:db8::9000"] {
            assert_eq!(instead_of(text), None, "{text}");
        }
    }
}
