//! The examples in docs/commands.md do and print what they say.

use std::path::Path;
use std::process::Command;

use crate::process::{arc_relay, ended};
use crate::support::Relay;

const COMMANDS: &str = include_str!("../../docs/commands.md");

/// The address of the relay in the document.
const ADDRESS: &str = "127.0.0.1:8765";

/// The examples: a command line, and what it prints. Those with `--help` have a test of their own.
fn examples() -> Vec<(&'static str, &'static str)> {
    let blocks = COMMANDS.split("```text\n$ ").skip(1).map(|block| block.split("```").next().unwrap());
    blocks.filter_map(|block| block.split_once('\n')).filter(|(line, _)| !line.ends_with("--help")).collect()
}

#[test]
fn examples_print_what_the_document_says() {
    let relay = Relay::start(&[]);
    let address = relay.address.to_string();
    let folder = arc_relay(&[]).get_program().to_owned();
    let folder = Path::new(&folder).parent().unwrap().display().to_string();
    let mut count = 0;
    for (line, printed) in examples() {
        let line = line.replace(ADDRESS, &address);
        let mut shell = Command::new("sh");
        shell.env_clear().env("PATH", format!("{folder}:/usr/bin:/bin")).args(["-c", &line]);
        let stdout = ended(&mut shell).succeeded();
        assert_eq!(stdout.replace(&address, ADDRESS), printed, "{line}");
        count += 1;
    }
    assert!(count >= 1);
}
