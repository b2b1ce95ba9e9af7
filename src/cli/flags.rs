//! The flags of `arc-relay start`, and their environment variables: a flag wins over the environment, and that over
//! the default. An empty variable counts as none, so that a compose file can pass on what is not set.

use std::ffi::OsString;
use std::path::PathBuf;

use arc_relay::Config;
use arc_relay::internals::pair_code::MAX_CHARACTERS;
use argh::FromArgs;
use log::LevelFilter;

use super::environment::{Sources, invalid};
use super::log_line::{FORMATS, Format, LEVELS};
use super::values::{duration, duration_or_none, duration_or_zero, from, host, is_on, list, rate, size, some, within};

/// Run the relay until SIGINT or SIGTERM. Each flag can be set in the environment, too (the name is in brackets); a
/// flag wins.
#[derive(FromArgs)]
#[argh(subcommand, name = "start")]
pub(crate) struct Start {
    /// TCP port to listen on, 0 for any free one; default 8765 [ARC_RELAY_PORT, RELAY_PORT]
    #[argh(option, arg_name = "port")]
    port: Option<String>,
    /// address to listen on, :: for IPv4 and IPv6; default 0.0.0.0 [ARC_RELAY_HOST, RELAY_HOST]
    #[argh(option, arg_name = "host")]
    host: Option<String>,
    /// how long one side may wait for the other, such as 90s or 5m; default 5m [ARC_RELAY_PAIR_TTL]
    #[argh(option, arg_name = "duration")]
    pair_ttl: Option<String>,
    /// longest message accepted, such as 16MiB; default none, as memory does not depend on it [ARC_RELAY_MAX_MESSAGE]
    #[argh(option, arg_name = "size")]
    max_message: Option<String>,
    /// after how long a silence a client is pinged, 0 for never; default 20s [ARC_RELAY_PING_INTERVAL]
    #[argh(option, arg_name = "duration")]
    ping_interval: Option<String>,
    /// how long it then has for any sign of life; default 20s [ARC_RELAY_PING_TIMEOUT]
    #[argh(option, arg_name = "duration")]
    ping_timeout: Option<String>,
    /// how long a client may accept nothing of what is sent to it; default 30s [ARC_RELAY_WRITE_TIMEOUT]
    #[argh(option, arg_name = "duration")]
    write_timeout: Option<String>,
    /// how long the system of a client may acknowledge nothing when a third one comes for its seat, 0 to refuse thirds at
    /// once; default 2s [ARC_RELAY_PROBE_TIMEOUT]
    #[argh(option, arg_name = "duration")]
    probe_timeout: Option<String>,
    /// how long pairs may go on after a signal to stop; default 0 [ARC_RELAY_DRAIN_TIMEOUT]
    #[argh(option, arg_name = "duration")]
    drain_timeout: Option<String>,
    /// how long a client may take for its request, and then for the answer, such as 10s; default 10s
    /// [ARC_RELAY_HANDSHAKE_TIMEOUT]
    #[argh(option, arg_name = "duration")]
    handshake_timeout: Option<String>,
    /// how many WebSockets there may be at a time; default as many as the limit of open files allows
    /// [ARC_RELAY_MAX_CONNECTIONS]
    #[argh(option, arg_name = "number")]
    max_connections: Option<String>,
    /// how many sides may wait alone at a time; default half of the connections [ARC_RELAY_MAX_WAITING]
    #[argh(option, arg_name = "number")]
    max_waiting: Option<String>,
    /// how many connections may be at that at a time; the oldest makes room for the next; default 1024
    /// [ARC_RELAY_MAX_HANDSHAKES]
    #[argh(option, arg_name = "number")]
    max_handshakes: Option<String>,
    /// sites whose scripts may join, such as https://example.org,null; default all. Clients that are no browsers always
    /// may [ARC_RELAY_ALLOW_ORIGIN]
    #[argh(option, arg_name = "origins")]
    allow_origin: Option<String>,
    /// file of access tokens, one a line, of which a client needs one to join; read again on SIGHUP; default none is
    /// needed [ARC_RELAY_ACCESS_TOKEN_FILE]
    #[argh(option, arg_name = "path")]
    access_token_file: Option<String>,
    /// shortest pair code accepted, in characters, up to 256; default 1 [ARC_RELAY_MIN_CODE_LENGTH]
    #[argh(option, arg_name = "number")]
    min_code_length: Option<String>,
    /// proxies that say in X-Forwarded-For for whom they ask, such as 127.0.0.1,10.0.0.0/8; default none: the client is
    /// whoever is connected [ARC_RELAY_TRUSTED_PROXIES]
    #[argh(option, arg_name = "networks")]
    trusted_proxies: Option<String>,
    /// every connection has to begin with a header of the PROXY protocol, version 1 or 2, as HAProxy sends it; only from
    /// the trusted proxies, if there are any [ARC_RELAY_PROXY_PROTOCOL=true]
    #[argh(switch)]
    proxy_protocol: bool,
    /// how many connections a client may have at a time, 0 for any number; default 0. A client is an IPv4 address or an
    /// IPv6 /64 [ARC_RELAY_MAX_CONNECTIONS_PER_CLIENT]
    #[argh(option, arg_name = "number")]
    max_connections_per_client: Option<String>,
    /// how many times in a minute a client may ask to join, up to 60000, 0 for any number; default 0
    /// [ARC_RELAY_MAX_JOINS_PER_MINUTE]
    #[argh(option, arg_name = "number")]
    max_joins_per_minute: Option<String>,
    /// how many bytes in a second the two clients of a pair may send together, such as 1MiB, from 1KiB; default none
    /// [ARC_RELAY_MAX_RATE_PER_PAIR]
    #[argh(option, arg_name = "size")]
    max_rate_per_pair: Option<String>,
    /// how many bytes in a second all clients may send together, such as 10MiB; default none [ARC_RELAY_MAX_RATE]
    #[argh(option, arg_name = "size")]
    max_rate: Option<String>,
    /// how much memory all buffers of more than 4KiB may take together; when it is used up, everybody goes on with smaller
    /// ones, more slowly; default 256MiB [ARC_RELAY_MAX_BUFFER_MEMORY]
    #[argh(option, arg_name = "size")]
    max_buffer_memory: Option<String>,
    /// what is logged to standard error: off, error, warn, info or debug; default info [ARC_RELAY_LOG_LEVEL]
    #[argh(option, arg_name = "level")]
    log_level: Option<String>,
    /// what its lines are: text or json; default text [ARC_RELAY_LOG_FORMAT]
    #[argh(option, arg_name = "format")]
    log_format: Option<String>,
    /// log clients' addresses, too [ARC_RELAY_LOG_ADDRESSES=true]
    #[argh(switch)]
    log_addresses: bool,
}

/// What the command line and the environment ask for.
#[derive(Debug, PartialEq)]
pub(crate) struct Settings {
    /// All but the access tokens.
    pub(crate) config: Config,
    /// Where the access tokens are.
    pub(crate) access_token_file: Option<PathBuf>,
    /// What is logged, and how.
    pub(crate) log_level: LevelFilter,
    pub(crate) log_format: Format,
}

impl Start {
    /// What the flags, the environment and the defaults say together.
    pub(crate) fn into_settings(self, environment: impl Fn(&str) -> Option<OsString>) -> Result<Settings, String> {
        let sources = Sources { environment };
        let switch = |is_on: bool| is_on.then(|| String::from("true"));
        let (mut log_level, mut log_format) = (LevelFilter::Info, Format::Text);
        let mut config = Config::default();
        let c = &mut config;
        sources.set("--host", self.host, &mut c.host, host)?;
        sources.set("--port", self.port, &mut c.port, within(0..=u16::MAX))?;
        sources.set("--pair-ttl", self.pair_ttl, &mut c.pair_ttl, duration)?;
        sources.set("--max-message", self.max_message, &mut c.max_message, some(size))?;
        sources.set("--ping-interval", self.ping_interval, &mut c.ping_interval, duration_or_none)?;
        sources.set("--ping-timeout", self.ping_timeout, &mut c.ping_timeout, duration)?;
        sources.set("--write-timeout", self.write_timeout, &mut c.write_timeout, duration)?;
        sources.set("--probe-timeout", self.probe_timeout, &mut c.probe_timeout, duration_or_zero)?;
        sources.set("--drain-timeout", self.drain_timeout, &mut c.drain_timeout, duration_or_zero)?;
        sources.set("--handshake-timeout", self.handshake_timeout, &mut c.handshake_timeout, duration)?;
        sources.set("--max-connections", self.max_connections, &mut c.max_connections, some(from(2)))?;
        sources.set("--max-waiting", self.max_waiting, &mut c.max_waiting, some(from(1)))?;
        sources.set("--max-handshakes", self.max_handshakes, &mut c.max_handshakes, from(1))?;
        sources.set("--allow-origin", self.allow_origin, &mut c.allowed_origins, list)?;
        // A path need not be text.
        let access_token_file = match sources.find("--access-token-file", self.access_token_file) {
            Some((source, path)) if path.is_empty() => return Err(invalid(&source, "", "a path is needed")),
            path => path.map(|(_, path)| PathBuf::from(path)),
        };
        sources.set("--min-code-length", self.min_code_length, &mut c.min_code_length, within(1..=MAX_CHARACTERS))?;
        sources.set("--trusted-proxies", self.trusted_proxies, &mut c.trusted_proxies, list)?;
        sources.set("--proxy-protocol", switch(self.proxy_protocol), &mut c.proxy_protocol, is_on)?;
        sources.set(
            "--max-connections-per-client",
            self.max_connections_per_client,
            &mut c.max_connections_per_client,
            from(0),
        )?;
        sources.set(
            "--max-joins-per-minute",
            self.max_joins_per_minute,
            &mut c.max_joins_per_minute,
            within(0..=Config::MOST_JOINS_PER_MINUTE),
        )?;
        sources.set("--max-rate-per-pair", self.max_rate_per_pair, &mut c.max_rate_per_pair, some(rate))?;
        sources.set("--max-rate", self.max_rate, &mut c.max_rate, some(rate))?;
        sources.set("--max-buffer-memory", self.max_buffer_memory, &mut c.max_buffer_memory, |text| {
            size(text).map(|size| usize::try_from(size).unwrap_or(usize::MAX))
        })?;
        sources.set("--log-level", self.log_level, &mut log_level, |text| {
            value_named(LEVELS, text).ok_or("one of off, error, warn, info, debug is needed".into())
        })?;
        sources.set("--log-format", self.log_format, &mut log_format, |text| {
            value_named(FORMATS, text).ok_or("text or json is needed".into())
        })?;
        sources.set("--log-addresses", switch(self.log_addresses), &mut c.log_addresses, is_on)?;
        Ok(Settings { config, access_token_file, log_level, log_format })
    }
}

fn value_named<T: Copy>(names: &[(&str, T)], name: &str) -> Option<T> {
    names.iter().find_map(|(known, value)| (*known == name).then_some(*value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::environment::variables;
    use std::num::NonZeroU64;
    use std::os::unix::ffi::OsStringExt;
    use std::time::Duration;

    fn settings(flags: &[&str], environment: &[(&str, &str)]) -> Result<Settings, String> {
        let start = Start::from_args(&["arc-relay", "start"], flags).map_err(|exit| exit.output)?;
        start.into_settings(|name| {
            let value = environment.iter().find(|(variable, _)| *variable == name)?.1;
            Some(value.into())
        })
    }

    fn config(flags: &[&str], environment: &[(&str, &str)]) -> Result<Config, String> {
        settings(flags, environment).map(|settings| settings.config)
    }

    #[test]
    fn defaults_are_the_library_s() {
        assert_eq!(config(&[], &[]), Ok(Config::default()));
    }

    #[test]
    fn flags_set_everything() {
        let flags = [
            ["--port", "1"],
            ["--host", "::1"],
            ["--pair-ttl", "2m 3s"],
            ["--max-message", "16MiB"],
            ["--ping-interval", "7s"],
            ["--ping-timeout", "8s"],
            ["--write-timeout", "9s"],
            ["--probe-timeout", "10ms"],
            ["--drain-timeout", "1h"],
            ["--handshake-timeout", "3s"],
            ["--max-handshakes", "9"],
            ["--max-connections", "99"],
            ["--max-waiting", "33"],
            ["--allow-origin", "https://a.test, null"],
            ["--min-code-length", "22"],
            ["--trusted-proxies", "10.0.0.0/8, ::1"],
            ["--max-connections-per-client", "6"],
            ["--max-joins-per-minute", "60000"],
            ["--max-rate-per-pair", "1KiB"],
            ["--max-rate", "10MiB"],
            ["--max-buffer-memory", "64MiB"],
        ];
        let flags = [flags.as_flattened(), &["--proxy-protocol"]].concat();
        let expected = Config {
            port: 1,
            host: "::1".into(),
            pair_ttl: Duration::from_secs(123),
            max_message: Some(16 << 20),
            ping_interval: Some(Duration::from_secs(7)),
            ping_timeout: Duration::from_secs(8),
            write_timeout: Duration::from_secs(9),
            probe_timeout: Duration::from_millis(10),
            drain_timeout: Duration::from_secs(3600),
            handshake_timeout: Duration::from_secs(3),
            max_handshakes: 9,
            max_connections: Some(99),
            max_waiting: Some(33),
            allowed_origins: vec!["https://a.test".parse().unwrap(), "null".parse().unwrap()],
            min_code_length: 22,
            trusted_proxies: vec!["10.0.0.0/8".parse().unwrap(), "::1".parse().unwrap()],
            proxy_protocol: true,
            max_connections_per_client: 6,
            max_joins_per_minute: 60_000,
            max_rate_per_pair: NonZeroU64::new(1024),
            max_rate: NonZeroU64::new(10 << 20),
            max_buffer_memory: 64 << 20,
            ..Config::default()
        };
        assert_eq!(config(&flags, &[]), Ok(expected));
    }

    #[test]
    fn each_flag_has_the_variable_that_its_help_names() {
        let help = Start::from_args(&["arc-relay", "start"], &["--help"]).err().unwrap().output;
        // Lines of a flag's help are joined first.
        let words: Vec<_> = help.split_whitespace().collect();
        let help = words.join(" ");
        let (_, options) = help.split_once("Options: ").unwrap();
        let options: Vec<_> = options.split(" --").map(|option| option.trim_start_matches("--")).collect();
        let options = options.iter().filter(|option| !option.starts_with("help"));
        let mut count = 0;
        for option in options {
            let flag = format!("--{}", option.split(' ').next().unwrap());
            let named = option.rsplit_once('[').unwrap().1.trim_end_matches(']').trim_end_matches("=true");
            assert_eq!(named, variables(&flag).collect::<Vec<_>>().join(", "), "{option}");
            count += 1;
        }
        assert!(count > 20);
    }

    /// What the help calls a default is what there is without the flag.
    #[test]
    fn the_defaults_in_the_help_are_the_defaults() {
        let help = Start::from_args(&["arc-relay", "start"], &["--help"]).err().unwrap().output;
        let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
        let mut count = 0;
        for option in help.split(" --") {
            let Some((flag, about)) = option.split_once(' ') else { continue };
            let Some((_, default)) = about.split_once("default ") else { continue };
            let default = default.split([' ', ';', ',', ':']).next().unwrap().trim_end_matches('.');
            if matches!(default, "none" | "all" | "as" | "half") {
                continue;
            }
            assert_eq!(settings(&[&format!("--{flag}"), default], &[]), settings(&[], &[]), "--{flag} {default}");
            count += 1;
        }
        assert!(count >= 13, "{count}");
    }

    #[test]
    fn zero_turns_questions_off() {
        let off = config(&["--ping-interval", "0", "--probe-timeout", "0s"], &[]).unwrap();
        assert_eq!((off.ping_interval, off.probe_timeout), (None, Duration::ZERO));
    }

    #[test]
    fn a_flag_wins_over_the_environment_and_that_over_the_default() {
        let environment =
            [("RELAY_PORT", "1"), ("ARC_RELAY_PORT", "2"), ("RELAY_HOST", "h"), ("ARC_RELAY_PAIR_TTL", "7s")];
        assert_eq!(config(&["--port", "3"], &environment).unwrap().port, 3);
        assert_eq!(config(&[], &environment).unwrap().port, 2);
        assert_eq!(config(&[], &environment[..1]).unwrap().port, 1);
        assert_eq!(config(&[], &environment).unwrap().host, "h");
        assert_eq!(config(&[], &environment).unwrap().pair_ttl, Duration::from_secs(7));
        assert_eq!(config(&[], &[("ARC_RELAY_MAX_MESSAGE", "5k")]).unwrap().max_message, Some(5000));
    }

    #[test]
    fn the_limits_of_handshakes_can_come_from_the_environment() {
        let environment = [("ARC_RELAY_HANDSHAKE_TIMEOUT", "1m"), ("ARC_RELAY_MAX_HANDSHAKES", "7")];
        let config = config(&[], &environment).unwrap();
        assert_eq!((config.handshake_timeout, config.max_handshakes), (Duration::from_secs(60), 7));
    }

    #[test]
    fn who_may_join_can_come_from_the_environment() {
        let environment = [("ARC_RELAY_ALLOW_ORIGIN", "https://a.test"), ("ARC_RELAY_MIN_CODE_LENGTH", "256")];
        let config = config(&[], &environment).unwrap();
        assert_eq!((config.allowed_origins.len(), config.min_code_length), (1, 256));
    }

    #[test]
    fn the_access_tokens_file_is_named_by_flag_or_variable() {
        let environment = [("ARC_RELAY_ACCESS_TOKEN_FILE", "/b")];
        let file = |flags, environment| settings(flags, environment).unwrap().access_token_file;
        assert_eq!(file(&[], &[]), None);
        assert_eq!(file(&[], &environment), Some("/b".into()));
        assert_eq!(file(&["--access-token-file", "/a"], &environment), Some("/a".into()));
        let no_text = OsString::from_vec(b"/caf\xE9".to_vec());
        let start = Start::from_args(&["arc-relay", "start"], &[]).unwrap();
        let settings = start.into_settings(|name| (name == "ARC_RELAY_ACCESS_TOKEN_FILE").then(|| no_text.clone()));
        assert_eq!(settings.unwrap().access_token_file, Some(no_text.into()));
    }

    #[test]
    fn what_a_client_may_do_can_come_from_the_environment() {
        let environment = [("ARC_RELAY_MAX_CONNECTIONS_PER_CLIENT", "7"), ("ARC_RELAY_MAX_JOINS_PER_MINUTE", "0")];
        let config = config(&[], &environment).unwrap();
        assert_eq!((config.max_connections_per_client, config.max_joins_per_minute), (7, 0));
    }

    #[test]
    fn who_is_to_be_believed_can_come_from_the_environment() {
        let config = config(&[], &[("ARC_RELAY_TRUSTED_PROXIES", "10.0.0.0/8,127.0.0.1")]).unwrap();
        assert_eq!(config.trusted_proxies.len(), 2);
    }

    #[test]
    fn a_switch_can_come_from_the_environment() {
        for (value, is_on) in
            [("true", Ok(true)), ("1", Ok(true)), ("false", Ok(false)), ("0", Ok(false)), ("", Ok(false))]
        {
            let config = config(&[], &[("ARC_RELAY_PROXY_PROTOCOL", value)]);
            assert_eq!(config.map(|config| config.proxy_protocol), is_on, "{value}");
        }
        assert!(config(&["--proxy-protocol"], &[("ARC_RELAY_PROXY_PROTOCOL", "0")]).unwrap().proxy_protocol);
        let error = config(&[], &[("ARC_RELAY_PROXY_PROTOCOL", "on")]).unwrap_err();
        assert_eq!(error, "ARC_RELAY_PROXY_PROTOCOL: invalid value \"on\": true or false is needed");
    }

    #[test]
    fn what_is_logged_is_said_by_flags_or_variables() {
        let log = |flags, environment| {
            let Settings { config, log_level, log_format, .. } = settings(flags, environment).unwrap();
            (log_level, log_format, config.log_addresses)
        };
        assert_eq!(log(&[], &[]), (LevelFilter::Info, Format::Text, false));
        let flags = ["--log-level", "debug", "--log-format", "json", "--log-addresses"];
        assert_eq!(log(&flags, &[]), (LevelFilter::Debug, Format::Json, true));
        let environment =
            [("ARC_RELAY_LOG_LEVEL", "off"), ("ARC_RELAY_LOG_FORMAT", "json"), ("ARC_RELAY_LOG_ADDRESSES", "true")];
        assert_eq!(log(&[], &environment), (LevelFilter::Off, Format::Json, true));
        assert!(!log(&[], &[("ARC_RELAY_LOG_ADDRESSES", "false")]).2);
        let error = settings(&[], &[("ARC_RELAY_LOG_ADDRESSES", "yes")]).unwrap_err();
        assert!(error.starts_with("ARC_RELAY_LOG_ADDRESSES: invalid value \"yes\""), "{error}");
        assert!(log(&[], &[("ARC_RELAY_LOG_ADDRESSES", "1")]).2);
    }

    #[test]
    fn an_empty_variable_is_none() {
        assert_eq!(config(&[], &[("ARC_RELAY_PORT", ""), ("RELAY_PORT", "4")]).unwrap().port, 4);
    }

    #[test]
    fn a_bad_value_is_named_with_its_source() {
        for (flag, bad) in [
            ("--port", "x"),
            ("--port", "65536"),
            ("--port", "-1"),
            ("--host", ""),
            ("--pair-ttl", "5"),
            ("--pair-ttl", "0s"),
            ("--ping-interval", "x"),
            ("--ping-timeout", "0"),
            ("--write-timeout", "0s"),
            ("--probe-timeout", "2"),
            ("--drain-timeout", "x"),
            ("--max-connections", "0"),
            ("--max-waiting", "some"),
            ("--max-message", "big"),
            ("--max-message", "0"),
            ("--handshake-timeout", "0s"),
            ("--handshake-timeout", "10"),
            ("--max-handshakes", "0"),
            ("--max-handshakes", "many"),
            ("--allow-origin", ""),
            ("--allow-origin", "*"),
            ("--allow-origin", "https://a.test,"),
            ("--allow-origin", "https://a.test/"),
            ("--access-token-file", ""),
            ("--min-code-length", "0"),
            ("--min-code-length", "257"),
            ("--trusted-proxies", ""),
            ("--trusted-proxies", "10.0.0.0/33"),
            ("--trusted-proxies", "10.0.0.1,proxy.test"),
            ("--trusted-proxies", "10.0.0.1,"),
            ("--max-connections-per-client", "-1"),
            ("--max-connections-per-client", "few"),
            ("--max-joins-per-minute", "60001"),
            ("--max-joins-per-minute", "1/s"),
            ("--max-rate-per-pair", "1023"),
            ("--max-rate", "fast"),
            ("--log-level", "trace"),
            ("--log-level", "loud"),
            ("--log-format", "xml"),
            ("--log-format", ""),
        ] {
            let error = config(&[flag, bad], &[]).unwrap_err();
            assert!(error.contains(flag) && error.contains(&format!("{bad:?}")), "{error}");
        }
        let error = config(&[], &[("ARC_RELAY_PAIR_TTL", "soon")]).unwrap_err();
        assert!(error.starts_with("ARC_RELAY_PAIR_TTL: invalid value \"soon\""), "{error}");
    }
}
