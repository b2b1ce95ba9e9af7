//! Formats an event as one line, as text or JSON. No field can end the line or control a terminal.

use std::fmt::Write;
use std::time::SystemTime;

use humantime::format_rfc3339_millis;
use log::kv::{self, Key, Value, VisitSource, VisitValue};
use log::{Level, LevelFilter, Record};
use serde_json::{Value as Json, json};

/// The format of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// `TIME LEVEL EVENT FIELD=VALUE...`
    Text,
    /// A JSON object with `time`, `level`, `event` and the fields.
    Json,
}

/// The formats and their names.
pub(super) const FORMATS: &[(&str, Format)] = &[("text", Format::Text), ("json", Format::Json)];

/// The levels and their names. Nothing is logged at the level `trace` of the `log` crate.
pub(super) const LEVELS: &[(&str, LevelFilter)] = &[
    ("off", LevelFilter::Off),
    ("error", LevelFilter::Error),
    ("warn", LevelFilter::Warn),
    ("info", LevelFilter::Info),
    ("debug", LevelFilter::Debug),
];

/// Formats an event.
pub(super) fn format_event(record: &Record<'_>, format: Format, now: SystemTime) -> String {
    let mut fields = Fields::default();
    let _ = record.key_values().visit(&mut fields); // it never fails
    assemble(record.level(), &record.args().to_string(), fields.0, format, now)
}

/// Formats the report of events that were not logged.
pub(super) fn format_missed(level: Level, count: u64, format: Format, now: SystemTime) -> String {
    match format {
        Format::Text => assemble(level, &format!("{count} events were not logged"), vec![], format, now),
        Format::Json => assemble(level, "not_logged", vec![(String::from("count"), json!(count))], format, now),
    }
}

fn assemble(level: Level, event: &str, fields: Vec<(String, Json)>, format: Format, now: SystemTime) -> String {
    let time = format_rfc3339_millis(now).to_string();
    let level = LEVELS[(level as usize).min(LEVELS.len() - 1)].0;
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
            // An object of serde_json sorts its keys. The first three come first for human readers.
            let members: Vec<_> =
                first.chain(fields).map(|(key, value)| format!("{}:{value}", Json::from(key))).collect();
            format!("{{{}}}\n", members.join(","))
        }
    }
}

/// A text field: quoted and escaped, unless all its characters are harmless.
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

/// The fields of an event, without those that are null.
#[derive(Default)]
struct Fields(Vec<(String, Json)>);

impl<'kvs> VisitSource<'kvs> for Fields {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), kv::Error> {
        let mut field = FieldValue(Json::Null);
        value.visit(&mut field)?;
        if !field.0.is_null() {
            self.0.push((key.to_string(), field.0));
        }
        Ok(())
    }
}

/// The value of a field, as JSON.
struct FieldValue(Json);

impl VisitValue<'_> for &mut FieldValue {
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
        format_event(&record, format, SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_123))
    }

    #[test]
    fn text_fields_are_quoted_where_needed() {
        assert_eq!(line(Format::Text, "x.rs:1"), "2023-11-14T22:13:20.123Z info closed conn=7 error=x.rs:1\n");
        assert_eq!(line(Format::Text, "no"), "2023-11-14T22:13:20.123Z info closed conn=7 error=no\n");
        assert_eq!(
            line(Format::Text, "it failed"),
            "2023-11-14T22:13:20.123Z info closed conn=7 error=\"it failed\"\n"
        );
        assert_eq!(line(Format::Text, ""), "2023-11-14T22:13:20.123Z info closed conn=7 error=\"\"\n");
    }

    #[test]
    fn json_line_is_an_object() {
        let parsed: Json = serde_json::from_str(&line(Format::Json, HOSTILE)).unwrap();
        let expected = json!({
            "time": "2023-11-14T22:13:20.123Z", "level": "info", "event": "closed", "conn": 7, "error": HOSTILE,
        });
        assert_eq!(parsed, expected);
    }

    #[test]
    fn control_characters_are_escaped() {
        for format in [Format::Text, Format::Json] {
            let line = line(format, HOSTILE);
            let line = line.strip_suffix('\n').unwrap();
            assert!(!line.chars().any(|c| c < ' '), "{line:?}");
        }
        assert!(line(Format::Text, HOSTILE).trim_end().bytes().all(|byte| matches!(byte, b' '..=b'~')));
    }

    #[test]
    fn missed_events_are_reported_in_both_formats() {
        let now = SystemTime::UNIX_EPOCH;
        assert_eq!(
            format_missed(Level::Debug, 12, Format::Text, now),
            "1970-01-01T00:00:00.000Z debug 12 events were not logged\n"
        );
        let parsed: Json = serde_json::from_str(&format_missed(Level::Debug, 12, Format::Json, now)).unwrap();
        assert_eq!((&parsed["event"], &parsed["count"]), (&json!("not_logged"), &json!(12)));
    }
}
