//! The command line, as typed: output, exit codes, environment.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod support;

use std::process::{Command, Output, Stdio};

use support::{Relay, run};

fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_arc-relay"));
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

#[test]
fn version_and_help_are_on_stdout() {
    let version = concat!("arc-relay ", env!("CARGO_PKG_VERSION"), "\n");
    assert_eq!(output(command().arg("--version")), (Some(0), version.into(), String::new()));
    for arguments in [&["--help"][..], &["help"], &["start", "--help"]] {
        let (code, stdout, stderr) = output(command().args(arguments));
        assert_eq!((code, &*stderr), (Some(0), ""));
        assert!(stdout.starts_with("Usage: arc-relay"), "{stdout}");
    }
}

#[test]
fn usage_errors_are_one_line_and_exit_2() {
    for (arguments, told) in [
        (&[][..], "arc-relay start"),
        (&["begin"], "begin"),
        (&["start", "--prot", "1"], "--prot"),
        (&["start", "extra"], "extra"),
        (&["start", "--port"], "--port"),
        (&["start", "--port", "http"], "--port: invalid value \"http\""),
        (&["start", "--port", "65536"], "--port: invalid value \"65536\""),
        (&["start", "--pair-ttl", "5"], "--pair-ttl: invalid value \"5\""),
        (&["start", "--max-message", "many"], "--max-message: invalid value \"many\""),
    ] {
        let (code, stdout, stderr) = output(command().args(arguments));
        assert_eq!((code, &*stdout), (Some(2), ""), "{arguments:?}");
        assert!(stderr.starts_with("arc-relay: ") && stderr.contains(told), "{stderr}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
    }
    let (code, _, stderr) = output(command().arg("start").env("ARC_RELAY_PAIR_TTL", "soon"));
    assert_eq!(code, Some(2));
    assert!(stderr.contains("ARC_RELAY_PAIR_TTL: invalid value \"soon\""), "{stderr}");
}

#[test]
fn what_cannot_be_listened_on_is_one_line_and_exit_1() {
    let relay = Relay::start(&[]);
    let port = relay.address.port().to_string();
    let (code, stdout, stderr) = output(command().args(["start", "--host", "127.0.0.1", "--port", &port]));
    assert_eq!((code, &*stdout), (Some(1), ""));
    assert!(stderr.starts_with(&format!("arc-relay: cannot listen on 127.0.0.1:{port}: ")), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");

    let (code, _, stderr) = output(command().args(["start", "--host", "192.0.2.1", "--port", "0"]));
    assert_eq!(code, Some(1), "an address of somebody else (RFC 5737)");
    assert!(stderr.starts_with("arc-relay: cannot listen on 192.0.2.1:0: "), "{stderr}");
}

#[test]
fn access_tokens_that_cannot_be_had_are_one_line_and_exit_1() {
    let empty = support::scratch("cli-no-access-tokens");
    std::fs::write(&empty, "\n# secret\n").unwrap();
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
fn the_environment_is_used_and_flags_win_over_it() {
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
fn ipv6_is_listened_on_and_double_colon_means_ipv4_too() {
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
fn nobody_reading_its_output_does_it_no_harm() {
    // Its first line meets a pipe that nobody reads any more. It must not end for that, only when it is told to.
    let mut child = command()
        .args(["start", "--port", "0", "--host", "127.0.0.1"])
        .stdout(std::io::pipe().unwrap().1)
        .spawn()
        .unwrap();
    // Its workers come after it has begun to catch signals.
    let runs = || {
        let Ok(tasks) = std::fs::read_dir(format!("/proc/{}/task", child.id())) else { return false };
        let names = tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok());
        names.into_iter().any(|name| name == "relay-0\n")
    };
    support::eventually("its workers run", runs);
    assert_eq!(child.try_wait().unwrap(), None);
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), rustix::process::Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
}
