//! The command line: output, exit codes, environment.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod support;

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::process::{Command, Output, Stdio};

use rustix::process::Signal;
use serde_json::{Value, json};
use support::{Relay, arc_relay, run, scratch};

fn command() -> Command {
    let mut command = arc_relay();
    for (variable, _) in std::env::vars_os() {
        let name = variable.to_string_lossy();
        if name.starts_with("ARC_RELAY_") || name.starts_with("RELAY_") {
            command.env_remove(variable);
        }
    }
    command
}

fn output(command: &mut Command) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = command.stdin(Stdio::null()).output().unwrap();
    (status.code(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

/// Runs a relay with these variables, stops it, and returns its log.
fn log_with(name: &str, variables: &[(&str, &str)]) -> String {
    let log = scratch(name);
    let mut start = command();
    start.args(["start", "--host", "127.0.0.1"]).envs(variables.iter().copied()).stderr(File::create(&log).unwrap());
    let mut relay = Relay::spawn(start);
    relay.signal(Signal::TERM);
    assert_eq!(relay.wait().code(), Some(0));
    fs::read_to_string(log).unwrap()
}

#[test]
fn version_and_help_are_on_stdout() {
    let version = concat!("arc-relay ", env!("CARGO_PKG_VERSION"), "\n");
    for arguments in [&["--version"][..], &["-V"], &["start", "--version"], &["start", "--port", "1", "-V"]] {
        assert_eq!(output(command().args(arguments)), (Some(0), version.into(), String::new()), "{arguments:?}");
    }
    for arguments in [&["--help"][..], &["-h"], &["help"], &["start", "--help"], &["start", "-h"], &["help", "start"]] {
        let (code, stdout, stderr) = output(command().args(arguments));
        assert_eq!((code, &*stderr), (Some(0), ""));
        let usage = if arguments.contains(&"start") { "start [options]" } else { "COMMAND [options]" };
        assert!(stdout.starts_with(&format!("Usage: arc-relay {usage}\n")), "{stdout}");
        assert!(stdout.lines().all(|line| line.len() <= 100), "{stdout}");
        assert_eq!(stdout.contains("--port <port>"), arguments.contains(&"start"), "{arguments:?}: {stdout}");
    }
}

#[test]
fn usage_errors_are_one_line_and_exit_2() {
    for (arguments, expected) in [
        (&[][..], "a command is missing: arc-relay start"),
        (&["begin"], "unknown command \"begin\": one of start, health"),
        (&["strat"], "unknown command \"strat\": did you mean arc-relay start?"),
        (&["-x"], "unknown flag \"-x\" (see arc-relay --help)"),
        (&["start", "-x"], "unknown flag \"-x\" (see arc-relay start --help)"),
        (&["--port=1"], "unknown flag \"--port\": did you mean arc-relay start --port?"),
        (&["start", "--prot", "1"], "unknown flag \"--prot\": did you mean --port?"),
        (&["start", "--max-conections=1"], "unknown flag \"--max-conections\": did you mean --max-connections?"),
        (&["start", "--verison"], "unknown flag \"--verison\": did you mean --version?"),
        (&["start", "--colour"], "unknown flag \"--colour\" (see arc-relay start --help)"),
        (&["start", "extra\nline"], "unknown argument \"extra\\nline\""),
        (&["start", "--port"], "--port: a value is missing"),
        (&["start", "--port", "1", "--port=2"], "--port: given more than once"),
        (&["start", "--port", "http"], "--port: invalid value \"http\""),
        (&["start", "--port="], "--port: invalid value \"\""),
        (&["start", "--port", "65536"], "--port: invalid value \"65536\""),
        (&["start", "--pair-ttl", "5"], "--pair-ttl: invalid value \"5\""),
        (&["start", "--max-message", "many"], "--max-message: invalid value \"many\""),
        (&["start", "--host", "-x:1"], "--host: invalid value \"-x:1\": write --host -x --port 1"),
        (&["start", "--access-token-file", "--port=1", "--host"], "--host: a value is missing"),
        (&["start", "--", "--port=1"], "unknown argument \"--port=1\" (see arc-relay start --help)"),
        (&["--", "--port"], "unknown command \"--port\": one of start"),
        (&["start", "--version=1"], "--version: it takes no value (see arc-relay start --help)"),
        (&["--help=all"], "--help: it takes no value (see arc-relay --help)"),
        (&["start", "--log-addresses=maybe"], "--log-addresses: invalid value \"maybe\""),
    ] {
        let (code, stdout, stderr) = output(command().args(arguments));
        assert_eq!((code, &*stdout), (Some(2), ""), "{arguments:?}");
        assert!(stderr.starts_with(&format!("arc-relay: {expected}")), "{stderr}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
    }
    let (code, _, stderr) = output(command().arg("start").env("ARC_RELAY_PAIR_TTL", "soon"));
    assert_eq!(code, Some(2));
    assert_eq!(
        stderr,
        "arc-relay: ARC_RELAY_PAIR_TTL: invalid value \"soon\": a duration is needed, such as 90s or 5m\n"
    );
}

#[test]
fn arguments_have_to_be_utf8_and_a_path_in_a_variable_need_not_be() {
    let no_text = OsStr::from_bytes(b"/nowhere/caf\xE9");
    let variable = ("ARC_RELAY_ACCESS_TOKEN_FILE", no_text);
    let (code, _, stderr) = output(command().args(["start", "--port", "0"]).env(variable.0, variable.1));
    assert_eq!(code, Some(1));
    assert!(stderr.starts_with("arc-relay: cannot read access tokens from \"/nowhere/caf\\xE9\": "), "{stderr}");
    let (code, _, stderr) = output(command().arg("start").env("ARC_RELAY_HOST", no_text));
    assert_eq!(code, Some(2));
    assert!(stderr.starts_with("arc-relay: ARC_RELAY_HOST: invalid value \"/nowhere/caf\\xE9\": "), "{stderr}");
    for (arguments, expected) in [
        (&[][..], "arc-relay: argument 1 is not UTF-8\n"),
        (&["start", "--access-token-file"], "arc-relay: argument 3 is not UTF-8\n"),
    ] {
        let (code, stdout, stderr) = output(command().args(arguments).arg(no_text));
        assert_eq!((code, &*stdout, &*stderr), (Some(2), "", expected));
    }
}

#[test]
fn host_with_a_port_is_answered_with_the_flags_to_write() {
    for (host, flags) in [
        ("0.0.0.0:9000", "--host 0.0.0.0 --port 9000"),
        ("[::]:9000", "--host :: --port 9000"),
        ("ws://localhost:9000/", "--host localhost --port 9000"),
    ] {
        let (code, _, stderr) = output(command().args(["start", "--host", host]));
        assert_eq!(code, Some(2));
        assert_eq!(stderr, format!("arc-relay: --host: invalid value {host:?}: write {flags}\n"));
    }
}

#[test]
fn flags_take_their_value_behind_an_equals_sign() {
    let mut start = command();
    start.args([
        "start",
        "--port=0",
        "--host=127.0.0.1",
        "--pair-ttl=200ms",
        "--log-addresses",
        "--proxy-protocol=FALSE",
    ]);
    let relay = Relay::spawn(start);
    run(async {
        let mut alone = relay.connect("x").await;
        assert_eq!(alone.closed().await, (1001, "pair expired".into()));
    });
}

#[test]
fn names_of_values_are_accepted_in_any_case() {
    let variables = [
        ("RELAY_PORT", "0"),
        ("ARC_RELAY_LOG_LEVEL", "INFO"),
        ("ARC_RELAY_LOG_FORMAT", "Json"),
        ("ARC_RELAY_LOG_ADDRESSES", "TRUE"),
    ];
    let log = log_with("cli-any-case", &variables);
    assert!(log.contains("\"event\":\"started\""), "{log}");
}

#[test]
fn unknown_variable_is_one_warning_in_the_format_of_the_log() {
    let variables = [
        ("RELAY_PORT", "0"),
        ("ARC_RELAY_LOG_LEVEL", "warn"),
        ("ARC_RELAY_LOG_FORMAT", "json"),
        ("ARC_RELAY_PIAR_TTL", "s3cr3t"),
    ];
    let log = log_with("cli-unknown-variable", &variables);
    let mut event: Value = serde_json::from_str(&log).unwrap();
    event["time"].take();
    let expected = json!({
        "time": null, "level": "warn", "event": "variable_unknown",
        "variable": "ARC_RELAY_PIAR_TTL", "nearest": "ARC_RELAY_PAIR_TTL",
    });
    assert_eq!(event, expected);
    let log = log_with(
        "cli-unknown-variable-text",
        &[("RELAY_PORT", "0"), ("ARC_RELAY_LOG_LEVEL", "warn"), ("ARC_RELAY_X", "1")],
    );
    assert!(log.ends_with(" warn variable_unknown variable=ARC_RELAY_X\n") && log.lines().count() == 1, "{log}");
}

#[test]
fn warning_is_logged_before_a_failed_start() {
    let mut start = command();
    start.args(["start", "--host", "192.0.2.1", "--port", "0"]).env("ARC_RELAY_X", "1");
    let (code, _, stderr) = output(&mut start);
    assert_eq!(code, Some(1));
    assert_eq!(stderr.matches("variable_unknown").count(), 1, "{stderr}");
    assert!(stderr.lines().next_back().unwrap().starts_with("arc-relay: "), "{stderr}");
}

/// Kubernetes sets them in each pod that starts after a Service `arc-relay`.
#[test]
fn kubernetes_service_variables_are_ignored_with_one_warning() {
    let variables = [
        ("RELAY_PORT", "0"),
        ("ARC_RELAY_LOG_LEVEL", "warn"),
        ("ARC_RELAY_SERVICE_HOST", "10.0.0.1"),
        ("ARC_RELAY_SERVICE_PORT", "8765"),
        ("ARC_RELAY_PORT", "tcp://10.0.0.1:8765"),
        ("ARC_RELAY_PORT_8765_TCP", "tcp://10.0.0.1:8765"),
        ("ARC_RELAY_PORT_8765_TCP_PROTO", "tcp"),
        ("ARC_RELAY_PORT_8765_TCP_PORT", "8765"),
        ("ARC_RELAY_PORT_8765_TCP_ADDR", "10.0.0.1"),
    ];
    let log = log_with("cli-kubernetes", &variables);
    assert!(log.ends_with(" warn variable_ignored variable=ARC_RELAY_PORT\n") && log.lines().count() == 1, "{log}");
}

#[test]
fn failure_to_listen_is_one_line_and_exits_with_1() {
    let relay = Relay::start(&[]);
    let port = relay.address.port().to_string();
    for (host, port, reason) in [
        ("127.0.0.1", &*port, "in use"),
        // An address of another host (RFC 5737).
        ("192.0.2.1", "0", "Cannot assign requested address"),
        ("relay..invalid", "0", "failed to lookup address information"),
    ] {
        let (code, stdout, stderr) = output(command().args(["start", "--host", host, "--port", port]));
        assert_eq!((code, &*stdout), (Some(1), ""), "{host}");
        assert!(stderr.starts_with("arc-relay: ") && stderr.contains(reason), "{stderr}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
    }
}

#[test]
fn unreadable_access_tokens_are_one_line_and_exit_1() {
    let empty = scratch("cli-no-access-tokens");
    fs::write(&empty, "\n# secret\n").unwrap();
    for (path, reason) in [(empty.to_str().unwrap(), "there is no access token"), ("/nowhere", "No such file")] {
        let (code, stdout, stderr) = output(command().args(["start", "--port", "0", "--access-token-file", path]));
        assert_eq!((code, &*stdout), (Some(1), ""));
        assert!(
            stderr.starts_with(&format!("arc-relay: cannot read access tokens from {path:?}: {reason}")),
            "{stderr}"
        );
        assert!(stderr.lines().count() == 1 && !stderr.contains("secret"), "{stderr}");
    }
}

#[test]
fn unreadable_ticket_keys_are_one_line_and_exit_1() {
    let short = scratch("cli-short-ticket-key");
    fs::write(&short, "# of the backend\n\nhs256 c2VjcmV0\n").unwrap();
    let fault = "line 3: a secret of at least 32 bytes in Base64 is needed\n";
    for (path, reason) in [(short.to_str().unwrap(), fault), ("/nowhere", "No such file")] {
        let (code, stdout, stderr) = output(command().args(["start", "--port", "0", "--ticket-key-file", path]));
        assert_eq!((code, &*stdout), (Some(1), ""));
        assert!(stderr.starts_with(&format!("arc-relay: cannot read ticket keys from {path:?}: {reason}")), "{stderr}");
        assert!(stderr.lines().count() == 1 && !stderr.contains("c2VjcmV0"), "{stderr}");
    }
}

#[test]
fn flags_win_over_the_environment_and_that_over_defaults() {
    let mut from_environment = command();
    from_environment
        .arg("start")
        .env("RELAY_PORT", "0")
        .env("RELAY_HOST", "127.0.0.1")
        .env("ARC_RELAY_PAIR_TTL", "200ms");
    let relay = Relay::spawn(from_environment);
    run(async {
        let mut alone = relay.connect("x").await;
        assert_eq!(alone.closed().await, (1001, "pair expired".into()));
    });
    let mut flags = command();
    flags
        .args(["start", "--port", "0", "--host", "127.0.0.1"])
        .env("ARC_RELAY_PORT", "1")
        .env("ARC_RELAY_HOST", "192.0.2.1");
    Relay::spawn(flags);
}

#[test]
fn double_colon_listens_on_ipv6_and_ipv4() {
    for (host, clients) in [("::1", &["[::1]"][..]), ("[::1]", &["[::1]"]), ("::", &["[::1]", "127.0.0.1"])] {
        let mut ipv6 = command();
        ipv6.args(["start", "--port", "0", "--host", host]);
        let mut relay = Relay::spawn(ipv6);
        let port = relay.address.port();
        for client in clients {
            relay.address = format!("{client}:{port}").parse().unwrap();
            run(async {
                let (mut a, mut b) = relay.pair("x").await;
                a.send("six").await;
                assert_eq!(b.receive().await, b"six");
            });
        }
    }
}

#[test]
fn relay_runs_without_a_reader_of_its_output() {
    // The first line goes to a pipe with a closed read end. Only a signal may end the relay.
    let mut child = command()
        .args(["start", "--port", "0", "--host", "127.0.0.1"])
        .stdout(std::io::pipe().unwrap().1)
        .spawn()
        .unwrap();
    // The process catches signals before it starts the workers.
    let runs = || {
        let Ok(tasks) = fs::read_dir(format!("/proc/{}/task", child.id())) else { return false };
        let names = tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("comm")).ok());
        names.into_iter().any(|name| name == "relay-0\n")
    };
    support::eventually("the workers run", runs);
    assert_eq!(child.try_wait().unwrap(), None);
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
}
