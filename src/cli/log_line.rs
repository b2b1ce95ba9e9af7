//! What an event looks like as a line. Nothing in it can end the line or control a terminal.

use std::fmt::Write;
use std::time::SystemTime;

use humantime::format_rfc3339_millis;
use log::kv::{self, Key, Value, VisitSource, VisitValue};
use log::{Level, Record};
use serde_json::{Value as Json, json};

use super::logging::name_of;

/// What lines look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// `TIME LEVEL EVENT FIELD=VALUE...`
    Text,
    /// An object with `time`, `level`, `event` and the fields.
    Json,
}

impl Format {
    /// By its name.
    pub(crate) fn named(name: &str) -> Option<Self> {
        match name {
            "text" => Some(Self::Text),
            "json" => Some(Self::Json),
            _ => None,
        }
    }
}

/// The line for an event.
pub(super) fn of(record: &Record<'_>, format: Format, now: SystemTime) -> String {
    let mut fields = Fields::default();
    let _ = record.key_values().visit(&mut fields); // it never fails
    assemble(record.level(), &record.args().to_string(), fields.0, format, now)
}

/// The line that says how many events of a level were not logged.
pub(super) fn missed(level: Level, count: u64, format: Format, now: SystemTime) -> String {
    match format {
        Format::Text => assemble(level, &format!("{count} events were not logged"), vec![], format, now),
        Format::Json => assemble(level, "not_logged", vec![(String::from("count"), json!(count))], format, now),
    }
}

fn assemble(level: Level, event: &str, fields: Vec<(String, Json)>, format: Format, now: SystemTime) -> String {
    let (time, level) = (format_rfc3339_millis(now).to_string(), name_of(level));
    match format {
        Format::Text => {
            let mut line = format!("{time} {level} {}", event.escape_debug());
            for (key, value) in fields {
                let _ = match &value {
                    Json::String(text) => write!(line, " {key}={}", Quoted(text)),
                    other => write!(line, " {key}={other}"),
                };
            }
            line + "\n"
        }
        Format::Json => {
            let first = [("time", time.into()), ("level", level.into()), ("event", event.into())];
            let first = first.into_iter().map(|(key, value): (_, Json)| (key.to_owned(), value));
            // Not as an object of serde_json's, which sorts its keys: people read this, too.
            let members: Vec<_> =
                first.chain(fields).map(|(key, value)| format!("{}:{value}", Json::from(key))).collect();
            format!("{{{}}}\n", members.join(","))
        }
    }
}

/// A text as the value of a field: in quotes, and escaped, unless it consists of what is harmless.
struct Quoted<'a>(&'a str);

impl std::fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let is_harmless = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:[]".contains(&byte);
        if !self.0.is_empty() && self.0.bytes().all(is_harmless) {
            f.write_str(self.0)
        } else {
            write!(f, "{:?}", self.0)
        }
    }
}

/// The fields of an event that have a value.
#[derive(Default)]
struct Fields(Vec<(String, Json)>);

impl<'kvs> VisitSource<'kvs> for Fields {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), kv::Error> {
        let mut found = Found(Json::Null);
        value.visit(&mut found)?;
        if !found.0.is_null() {
            self.0.push((key.to_string(), found.0));
        }
        Ok(())
    }
}

/// The value of a field.
struct Found(Json);

impl VisitValue<'_> for &mut Found {
    fn visit_any(&mut self, value: Value<'_>) -> Result<(), kv::Error> {
        self.0 = value.to_string().into();
        Ok(())
    }

    fn visit_null(&mut self) -> Result<(), kv::Error> {
        Ok(())
    }

    fn visit_u64(&mut self, value: u64) -> Result<(), kv::Error> {
        self.0 = value.into();
        Ok(())
    }

    fn visit_i64(&mut self, value: i64) -> Result<(), kv::Error> {
        self.0 = value.into();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const HOSTILE: &str = "a\r\nb\u{1b}[31m\"\\\u{7f}\u{85}\u{2028}\u{202e}c";

    fn line(format: Format, text: &str) -> String {
        let fields = [("conn", Value::from(7)), ("error", Value::from(text)), ("status", Value::null())];
        let message = format_args!("closed");
        let record = Record::builder().level(Level::Info).args(message).key_values(&fields).build();
        of(&record, format, SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_123))
    }

    #[test]
    fn an_event_is_a_line_of_text() {
        assert_eq!(line(Format::Text, "x.rs:1"), "2023-11-14T22:13:20.123Z info closed conn=7 error=x.rs:1\n");
        assert_eq!(line(Format::Text, "no"), "2023-11-14T22:13:20.123Z info closed conn=7 error=no\n");
        assert_eq!(
            line(Format::Text, "it failed"),
            "2023-11-14T22:13:20.123Z info closed conn=7 error=\"it failed\"\n"
        );
        assert_eq!(line(Format::Text, ""), "2023-11-14T22:13:20.123Z info closed conn=7 error=\"\"\n");
    }

    #[test]
    fn an_event_is_an_object() {
        let parsed: Json = serde_json::from_str(&line(Format::Json, HOSTILE)).unwrap();
        let expected = json!({
            "time": "2023-11-14T22:13:20.123Z", "level": "info", "event": "closed", "conn": 7, "error": HOSTILE,
        });
        assert_eq!(parsed, expected);
    }

    #[test]
    fn nothing_ends_a_line_or_controls_a_terminal() {
        for format in [Format::Text, Format::Json] {
            let line = line(format, HOSTILE);
            let line = line.strip_suffix('\n').unwrap();
            assert!(!line.chars().any(|c| c < ' '), "{line:?}");
        }
        assert!(line(Format::Text, HOSTILE).trim_end().bytes().all(|byte| matches!(byte, b' '..=b'~')));
    }

    #[test]
    fn what_was_not_logged_is_a_line() {
        let now = SystemTime::UNIX_EPOCH;
        assert_eq!(
            missed(Level::Debug, 12, Format::Text, now),
            "1970-01-01T00:00:00.000Z debug 12 events were not logged\n"
        );
        let parsed: Json = serde_json::from_str(&missed(Level::Debug, 12, Format::Json, now)).unwrap();
        assert_eq!((&parsed["event"], &parsed["count"]), (&json!("not_logged"), &json!(12)));
    }
}
