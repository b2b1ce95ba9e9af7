//! What stands for a setting: text, and what it means. The error says what is needed instead.

use std::fmt;
use std::num::NonZeroU64;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use arc_relay::Config;
use bytesize::ByteSize;

pub(super) fn host(text: &str) -> Result<String, String> {
    match text {
        "" => Err(String::from("an address or a name is needed")),
        host => Ok(host.to_owned()),
    }
}

pub(super) fn is_on(text: &str) -> Result<bool, String> {
    match text {
        "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err(String::from("true or false is needed")),
    }
}

/// What may be missing, but was given.
pub(super) fn some<T>(parse: impl FnOnce(&str) -> Result<T, String>) -> impl FnOnce(&str) -> Result<Option<T>, String> {
    |text| parse(text).map(Some)
}

/// A list with commas.
pub(super) fn list<T: FromStr<Err: fmt::Display>>(text: &str) -> Result<Vec<T>, String> {
    text.split(',').map(|item| item.trim().parse().map_err(|needed: T::Err| needed.to_string())).collect()
}

pub(super) fn size(text: &str) -> Result<u64, String> {
    match text.parse() {
        Ok(ByteSize(0)) | Err(_) => Err(String::from("a size is needed, such as 65536 or 16MiB")),
        Ok(ByteSize(size)) => Ok(size),
    }
}

/// A size in each second.
pub(super) fn rate(text: &str) -> Result<NonZeroU64, String> {
    let rate = size(text).ok().filter(|rate| *rate >= Config::LEAST_RATE).and_then(NonZeroU64::new);
    rate.ok_or_else(|| format!("a size from {} is needed, such as 1MiB", ByteSize(Config::LEAST_RATE)))
}

/// A number that is no less than this.
pub(super) fn from<T: FromStr + PartialOrd + fmt::Display>(least: T) -> impl FnOnce(&str) -> Result<T, String> {
    move |text| {
        let number = text.parse().ok().filter(|number| *number >= least);
        number.ok_or_else(|| format!("a number from {least} is needed"))
    }
}

/// A number within these bounds.
pub(super) fn within<T: FromStr + PartialOrd + fmt::Display>(
    bounds: RangeInclusive<T>,
) -> impl FnOnce(&str) -> Result<T, String> {
    move |text| {
        let number = text.parse().ok().filter(|number| bounds.contains(number));
        number.ok_or_else(|| format!("a number from {} to {} is needed", bounds.start(), bounds.end()))
    }
}

pub(super) fn duration_or_zero(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|_| String::from("a duration is needed, such as 90s or 5m"))
}

/// Zero means none.
pub(super) fn duration_or_none(text: &str) -> Result<Option<Duration>, String> {
    duration_or_zero(text).map(|duration| (!duration.is_zero()).then_some(duration))
}

pub(super) fn duration(text: &str) -> Result<Duration, String> {
    duration_or_none(text)?.ok_or_else(|| String::from("more than zero is needed, such as 90s or 5m"))
}
