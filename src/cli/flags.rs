//! The command `start`: its flags, as a table of names, helps, settings and parsers.
//!
//! A flag wins over its environment variable, and the variable over the default.

use std::path::PathBuf;

use arc_relay::Config;
use arc_relay::internals::pair_code::MAX_CHARACTERS;
use log::LevelFilter;

use super::log_line::{FORMATS, Format, LEVELS};
use super::table::{Command, Flag, flags};
use super::values::{
    boolean, duration, duration_or_none, duration_or_zero, from, host, list, memory, needed, one_of, path, rate,
    segment, size, some, within, workers,
};

/// What the command line and the environment ask for.
#[derive(Debug, PartialEq)]
pub(crate) struct Settings {
    /// All but the access tokens and the ticket keys.
    pub(crate) config: Config,
    pub(crate) access_token_file: Option<PathBuf>,
    pub(crate) ticket_key_file: Option<PathBuf>,
    pub(crate) log_level: LevelFilter,
    pub(crate) log_format: Format,
}

/// Runs the relay.
pub(super) static START: Command<Settings> = Command {
    name: "start",
    summary: "run the relay until SIGINT or SIGTERM",
    about: "Run the relay until SIGINT or SIGTERM. Write --flag VALUE or --flag=VALUE, or set the variable in\n\
        brackets in the environment. A flag wins over its variable.",
    argument: None,
    flags: FLAGS,
    has_variables: true,
};

flags! {
    FLAGS: Settings;
    "Listening" {
        /// TCP port to listen on, 0 for any free one; default 8765
        port <port> => config.port = within(0..=u16::MAX);
        /// address or name to listen on (all addresses of a name), :: for IPv4 and IPv6; default 0.0.0.0
        host <host> => config.host = host;
        /// address of the operations listener, such as 127.0.0.1:9090, with metrics for Prometheus and
        /// a page; it asks for no token, so only operators may reach it; default none
        ops_address <address> => config.ops_address = some(needed);
        /// serve a page at / that shows what the relay does, between two browsers, for trying it;
        /// the page needs no token, but joining does as ever
        demo => config.demo = boolean;
    }
    "Pairs" {
        /// how long a client may wait for its peer, such as 90s or 5m; default 5m
        pair_ttl <duration> => config.pair_ttl = duration;
        /// longest message accepted, such as 16MiB; default none, as memory does not depend on it
        max_message <size> => config.max_message = some(size);
        /// how long everything but /readyz goes on after a signal to stop, so that a load balancer sends
        /// new clients elsewhere; default 0
        drain_delay <duration> => config.drain_delay = duration_or_zero;
        /// how long pairs may go on after that; default 0
        drain_timeout <duration> => config.drain_timeout = duration_or_zero;
    }
    "Access" {
        /// web origins that may join, such as https://example.org,null; default all
        /// (programs other than browsers send no origin and may always join)
        allow_origin <origins> => config.allowed_origins = list;
        /// file of access tokens, one per line; a client needs one of them to join; SIGHUP reads the file
        /// again; default none, no token is needed
        access_token_file <path> => access_token_file = path;
        /// file of keys, one per line, that tickets are signed with: "hs256 SECRET" or "ed25519 KEY"; a
        /// ticket counts as an access token; SIGHUP reads the file again; default none
        ticket_key_file <path> => ticket_key_file = path;
        /// shortest pair code accepted, in characters, up to 256; default 1
        min_code_length <number> => config.min_code_length = within(1..=MAX_CHARACTERS);
    }
    "Timeouts" {
        /// silence after which a client is pinged, 0 for no pings; default 20s
        ping_interval <duration> => config.ping_interval = duration_or_none;
        /// how long a pinged client may stay silent; default 20s
        ping_timeout <duration> => config.ping_timeout = duration;
        /// how long a client may accept nothing of what is sent to it; default 30s
        write_timeout <duration> => config.write_timeout = duration;
        /// longest TCP segment, in bytes, 0 for that of the system; default 0
        /// (a client on the same host queues 20 to 30 segments for a slow peer)
        max_segment <number> => config.max_segment = segment;
        /// how long the system of a client may acknowledge nothing when a third client asks for its seat,
        /// 0 to refuse third clients at once; default 2s
        probe_timeout <duration> => config.probe_timeout = duration_or_zero;
        /// how long a client may take to send its request, and then to take the answer; default 10s
        handshake_timeout <duration> => config.handshake_timeout = duration;
    }
    "Limits" {
        /// maximum WebSocket connections; default as many as memory and open files allow
        max_connections <number> => config.max_connections = some(from(2));
        /// maximum clients waiting for a peer; default half of the connections
        max_waiting <number> => config.max_waiting = some(from(1));
        /// maximum concurrent handshakes; the oldest is closed to admit a new one; default 1024
        max_handshakes <number> => config.max_handshakes = from(1);
        /// maximum connections of one client, 0 for no maximum; default 0
        /// (here a client is an IPv4 address or an IPv6 /64)
        max_connections_per_client <number> => config.max_connections_per_client = from(0);
        /// maximum attempts of one client to join in a minute, up to 60000, 0 for no maximum; default 0
        max_joins_per_minute <number> => config.max_joins_per_minute = within(0..=Config::MOST_JOINS_PER_MINUTE);
        /// maximum bytes per second of the two clients of a pair together, such as 1MiB, at least 1KiB;
        /// default none
        max_rate_per_pair <size> => config.max_rate_per_pair = some(rate);
        /// maximum bytes per second of all clients together, such as 10MiB, at least 1KiB; default none
        max_rate <size> => config.max_rate = some(rate);
        /// maximum memory of all buffers of more than 4KiB; when it is used up, connections go on with
        /// smaller buffers, more slowly; default 256MiB, and at most a quarter of the memory
        max_buffer_memory <size> => config.max_buffer_memory = memory;
    }
    "Proxies" {
        /// proxies trusted to name the client in X-Forwarded-For, such as 127.0.0.1,10.0.0.0/8;
        /// default none, a client is the address that connects
        trusted_proxies <networks> => config.trusted_proxies = list;
        /// connections have to begin with a PROXY protocol header, version 1 or 2, as HAProxy sends it;
        /// only from the trusted proxies, if there are any
        proxy_protocol => config.proxy_protocol = boolean;
    }
    "Threads" {
        /// threads that accept connections and forward messages, up to 256, or auto for one on each
        /// processor that the process may use, up to 16; default 1
        workers <number> => config.workers = workers;
    }
    "Logging" {
        /// most detailed level logged to standard error: off, error, warn, info or debug; default info
        log_level <level> => log_level = one_of(LEVELS);
        /// format of the log: text or json; default text
        log_format <format> => log_format = one_of(FORMATS);
        /// log the addresses of clients, too
        log_addresses => config.log_addresses = boolean;
        /// log a hash of the pair code, too, with a key that changes at each start: lines with the same
        /// hash are of the same pair
        log_code_hash => config.log_code_hash = boolean;
    }
}

impl Default for Settings {
    fn default() -> Self {
        let (log_level, log_format) = (LevelFilter::Info, Format::Text);
        let (access_token_file, ticket_key_file) = (None, None);
        Self { config: Config::default(), access_token_file, ticket_key_file, log_level, log_format }
    }
}

/// The environment variables of all flags.
pub(super) fn variables() -> Vec<String> {
    FLAGS.rows.iter().flat_map(Flag::variables).collect()
}

#[cfg(test)]
mod tests {
    use super::super::environment::Environment;
    use super::super::table::{Described, Wish};
    use super::*;
    use std::ffi::OsString;
    use std::iter;
    use std::num::{NonZeroU64, NonZeroUsize};
    use std::time::Duration;

    fn settings(flags: &[&str], environment: &[(&str, &str)]) -> Result<Settings, String> {
        parse(flags, &environment.iter().map(|(variable, value)| ((*variable).into(), value.into())).collect())
    }

    /// Parses flags with a value each. A switch takes one behind an equals sign only.
    fn parse(flags: &[&str], environment: &Environment) -> Result<Settings, String> {
        let flags: Vec<_> = flags.chunks(2).map(|flag| flag.join("=")).collect();
        let flags: Vec<_> = flags.iter().map(String::as_str).collect();
        match START.parse(&flags, environment)? {
            Wish::Run(settings) => Ok(settings),
            other => panic!("{other:?}"),
        }
    }

    fn config(flags: &[&str], environment: &[(&str, &str)]) -> Result<Config, String> {
        settings(flags, environment).map(|settings| settings.config)
    }

    #[test]
    fn defaults_are_those_of_the_library() {
        assert_eq!(config(&[], &[]), Ok(Config::default()));
    }

    #[test]
    fn each_flag_sets_its_setting() {
        let flags = [
            ["--port", "1"],
            ["--host", "::1"],
            ["--ops-address", "[::1]:9090"],
            ["--pair-ttl", "2m 3s"],
            ["--max-message", "16MiB"],
            ["--ping-interval", "7s"],
            ["--ping-timeout", "8s"],
            ["--write-timeout", "9s"],
            ["--max-segment", "9000"],
            ["--probe-timeout", "10ms"],
            ["--drain-delay", "15s"],
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
            ["--workers", "3"],
            ["--log-code-hash", "true"],
            ["--demo", "true"],
        ];
        let flags = [flags.as_flattened(), &["--proxy-protocol", "true", "--log-addresses", "TRUE"]].concat();
        assert_eq!(flags.len() / 2 + 4, FLAGS.rows.len(), "the other four have tests of their own");
        let expected = Config {
            port: 1,
            host: "::1".into(),
            ops_address: Some("[::1]:9090".parse().unwrap()),
            pair_ttl: Duration::from_secs(123),
            max_message: Some(16 << 20),
            ping_interval: Some(Duration::from_secs(7)),
            ping_timeout: Duration::from_secs(8),
            write_timeout: Duration::from_secs(9),
            max_segment: 9000,
            probe_timeout: Duration::from_millis(10),
            drain_delay: Duration::from_secs(15),
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
            log_addresses: true,
            log_code_hash: true,
            demo: true,
            workers: NonZeroUsize::new(3),
            ..Config::default()
        };
        assert_eq!(config(&flags, &[]), Ok(expected));
    }

    #[test]
    fn help_is_at_most_100_columns_wide() {
        let help = START.help();
        let wide: Vec<_> = help.lines().filter(|line| line.len() > 100).collect();
        assert!(wide.is_empty(), "{wide:?}");
        assert_eq!(FLAGS.rows.chunk_by(|one, next| one.group == next.group).count(), 8, "groups are contiguous");
    }

    #[test]
    fn defaults_in_the_help_are_the_defaults() {
        let mut count = 0;
        for flag in FLAGS.rows {
            let help = flag.help.join(" ");
            let Some((_, default)) = help.split_once("default ") else { continue };
            let default = default.split([' ', ';', ',']).next().unwrap();
            if matches!(default, "none" | "all" | "as" | "half") {
                continue;
            }
            let name = format!("--{}", flag.name());
            assert_eq!(settings(&[&name, default], &[]), settings(&[], &[]), "{name} {default}");
            count += 1;
        }
        assert!(count >= 13, "{count}");
    }

    #[test]
    fn each_flag_has_a_variable() {
        let value_of = |flag: &Flag<Settings>| match flag.value {
            "<duration>" => "7s",
            "<number>" | "<port>" => "100",
            "<size>" => "7MiB",
            "<networks>" => "10.0.0.0/8",
            "<address>" => "10.0.0.1:7",
            "<level>" => "warn",
            "<format>" => "json",
            "" => "true",
            _ => "null",
        };
        for flag in FLAGS.rows {
            let name = format!("--{}", flag.name());
            for variable in flag.variables() {
                let set = settings(&[], &[(&variable, value_of(flag))]).unwrap();
                assert_eq!(set, settings(&[&name, value_of(flag)], &[]).unwrap());
                assert_ne!(set, Settings::default(), "{name}");
            }
        }
    }

    #[test]
    fn workers_are_a_number_or_auto() {
        let workers = |value| config(&["--workers", value], &[]).map(|config| config.workers);
        assert_eq!(["1", "256"].map(workers), [1, 256].map(|number| Ok(NonZeroUsize::new(number))));
        assert_eq!(["auto", "AUTO"].map(workers), [Ok(None), Ok(None)]);
        for value in ["0", "257", "-1", "1.5", "all"] {
            let expected = format!("--workers: invalid value {value:?}: auto or a number from 1 to 256 is needed");
            assert_eq!(workers(value), Err(expected));
        }
        assert_eq!(config(&["--workers", "2"], &[("ARC_RELAY_WORKERS", "3")]).unwrap().workers, NonZeroUsize::new(2));
    }

    #[test]
    fn zero_turns_pings_and_probes_off() {
        let off = config(&["--ping-interval", "0", "--probe-timeout", "0s"], &[]).unwrap();
        assert_eq!((off.ping_interval, off.probe_timeout), (None, Duration::ZERO));
    }

    #[test]
    fn flag_wins_over_the_environment_and_that_over_the_default() {
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
    fn ticket_key_file_is_a_flag_or_a_variable() {
        let environment = [("ARC_RELAY_TICKET_KEY_FILE", "/b")];
        let file = |flags, environment| settings(flags, environment).unwrap().ticket_key_file;
        assert_eq!(file(&[], &[]), None);
        assert_eq!(file(&[], &environment), Some("/b".into()));
        assert_eq!(file(&["--ticket-key-file", "/a"], &environment), Some("/a".into()));
    }

    #[test]
    fn access_token_file_is_a_flag_or_a_variable() {
        let environment = [("ARC_RELAY_ACCESS_TOKEN_FILE", "/b")];
        let file = |flags, environment| settings(flags, environment).unwrap().access_token_file;
        assert_eq!(file(&[], &[]), None);
        assert_eq!(file(&[], &environment), Some("/b".into()));
        assert_eq!(file(&["--access-token-file", "/a"], &environment), Some("/a".into()));
    }

    #[cfg(unix)] // elsewhere a file's name has no arbitrary bytes
    #[test]
    fn access_token_file_need_not_be_utf8() {
        let no_text: OsString = std::os::unix::ffi::OsStringExt::from_vec(b"/caf\xE9".to_vec());
        let variable = (String::from("ARC_RELAY_ACCESS_TOKEN_FILE"), no_text.clone());
        let settings = parse(&[], &iter::once(variable).collect());
        assert_eq!(settings.unwrap().access_token_file, Some(no_text.into()));
    }

    #[test]
    fn switch_is_true_or_false_in_any_case() {
        for (value, is_on) in [
            ("true", Ok(true)),
            ("TRUE", Ok(true)),
            ("1", Ok(true)),
            ("False", Ok(false)),
            ("0", Ok(false)),
            ("", Ok(false)),
        ] {
            let config = config(&[], &[("ARC_RELAY_PROXY_PROTOCOL", value)]);
            assert_eq!(config.map(|config| config.proxy_protocol), is_on, "{value}");
        }
        assert!(config(&["--proxy-protocol", "true"], &[("ARC_RELAY_PROXY_PROTOCOL", "0")]).unwrap().proxy_protocol);
        let error = config(&[], &[("ARC_RELAY_PROXY_PROTOCOL", "on")]).unwrap_err();
        assert_eq!(error, "ARC_RELAY_PROXY_PROTOCOL: invalid value \"on\": true or false is needed");
    }

    #[test]
    fn log_is_set_by_flags_or_variables() {
        let log = |flags, environment| {
            let Settings { config, log_level, log_format, .. } = settings(flags, environment).unwrap();
            (log_level, log_format, config.log_addresses)
        };
        assert_eq!(log(&[], &[]), (LevelFilter::Info, Format::Text, false));
        let flags = ["--log-level", "Debug", "--log-format", "JSON", "--log-addresses", "true"];
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
    fn empty_variable_counts_as_unset() {
        assert_eq!(config(&[], &[("ARC_RELAY_PORT", ""), ("RELAY_PORT", "4")]).unwrap().port, 4);
    }

    #[test]
    fn error_names_the_bad_value_and_its_source() {
        for (flag, bad) in [
            ("--port", "x"),
            ("--port", "65536"),
            ("--port", "-1"),
            ("--host", ""),
            ("--ops-address", ""),
            ("--ops-address", "9090"),
            ("--ops-address", ":9090"),
            ("--ops-address", "127.0.0.1:65536"),
            ("--pair-ttl", "5"),
            ("--pair-ttl", "0s"),
            ("--ping-interval", "x"),
            ("--ping-timeout", "0"),
            ("--write-timeout", "0s"),
            ("--max-segment", "87"),
            ("--max-segment", "32768"),
            ("--probe-timeout", "2"),
            ("--drain-delay", "15"),
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
            ("--ticket-key-file", ""),
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
