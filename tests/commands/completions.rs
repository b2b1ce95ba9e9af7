//! Completions in bash, and the manual page.

use std::process::Command;

use crate::process::{arc_relay, ended};

/// What bash offers for the last of these words.
fn offered(words: &[&str]) -> Vec<String> {
    let script = ended(&mut arc_relay(&["completions", "bash"])).succeeded();
    let complete = format!(
        "{script}\nCOMP_WORDS=({}); COMP_CWORD={}; _arc-relay; printf '%s\\n' \"${{COMPREPLY[@]}}\"",
        words.join(" "),
        words.len() - 1
    );
    let offered = ended(Command::new("bash").args(["--norc", "-c", &complete])).succeeded();
    offered.lines().map(str::to_owned).collect()
}

#[test]
fn bash_completes_commands_and_their_flags() {
    assert_eq!(offered(&["arc-relay", "st"]), ["start"]);
    assert_eq!(offered(&["arc-relay", "start", "--max-joins"]), ["--max-joins-per-minute"]);
    assert_eq!(offered(&["arc-relay", "health", "--ti"]), ["--timeout"]);
    assert_eq!(offered(&["arc-relay", "start", "--port", ""]), [""], "a value is not a flag");
}

#[test]
fn each_shell_has_a_script_with_all_flags() {
    let help = ended(&mut arc_relay(&["start", "--help"])).succeeded();
    let flags: Vec<_> = help.lines().filter_map(|line| line.strip_prefix("  --")?.split(' ').next()).collect();
    assert!(flags.len() > 20, "{help}");
    for shell in ["bash", "fish", "zsh"] {
        let script = ended(&mut arc_relay(&["completions", shell])).succeeded();
        for flag in &flags {
            assert!(script.contains(flag), "{shell} does not know {flag}");
        }
    }
}

#[test]
fn another_shell_is_an_error_of_one_line() {
    let ended = ended(&mut arc_relay(&["completions", "tcsh"]));
    assert_eq!(ended.failed(2), "shell: bash, fish or zsh is needed");
}

#[test]
fn manual_page_has_each_command_flag_and_variable() {
    let page = ended(&mut arc_relay(&["manual"])).succeeded();
    let plain = page.replace("\\-", "-").replace("\\fB", "").replace("\\fR", "").replace("\\fI", "");
    for command in ["start", "health", "completions", "manual"] {
        assert!(plain.contains(&format!("\narc-relay {command}")), "{command}");
        let help = ended(&mut arc_relay(&[command, "--help"])).succeeded();
        for line in help.lines().filter(|line| line.starts_with("  --") && !line.starts_with("  --version")) {
            let flag = line.trim().split(' ').next().unwrap();
            assert!(plain.contains(flag), "{flag}");
        }
    }
    assert!(plain.contains("ARC_RELAY_PORT") && page.starts_with(".ie"), "{}", &page[..200]);
}
