//! The examples in docs/commands.md do and print what they say.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::process::{arc_relay, ended};
use crate::support::{Relay, scratch};

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
    let (folder_of_files, mut count) = (scratch("documents"), 0);
    fs::create_dir_all(&folder_of_files).unwrap();
    let needs_client = |line: &str| !line.starts_with("arc-relay health");
    for (line, printed) in examples() {
        if cfg!(not(feature = "client")) && needs_client(line) {
            continue;
        }
        let line = line.replace(ADDRESS, &address);
        let mut shell = Command::new("sh");
        shell
            .env_clear()
            .env("PATH", format!("{folder}:/usr/bin:/bin"))
            .args(["-c", &line])
            .current_dir(&folder_of_files);
        let stdout = ended(&mut shell).succeeded();
        assert_eq!(without_numbers(&stdout.replace(&address, ADDRESS)), without_numbers(printed), "{line}");
        count += 1;
    }
    assert!(count >= 3 || cfg!(not(feature = "client")));
}

/// The text without what was measured: numbers with a point, and their units.
fn without_numbers(text: &str) -> String {
    let is_measured = |word: &str| word.split_once('.').is_some_and(|(whole, _)| whole.parse::<u32>().is_ok());
    let is_unit = |word: &str| ["ms", "s", "KiB/s", "MiB/s", "GiB/s"].contains(&word.trim_matches([',', ';']));
    let line = |line: &str| {
        let words = line.split(' ').map(|word| match word {
            word if is_measured(word) && word.matches('.').count() == 1 => "N",
            word if is_unit(word) => "UNIT",
            word => word,
        });
        words.collect::<Vec<_>>().join(" ")
    };
    text.lines().map(line).collect::<Vec<_>>().join("\n")
}
