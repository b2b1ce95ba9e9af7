//! `arc-relay manual`: the manual page, for man(1).

use roff::{Roff, bold, italic, roman};

use crate::cli::table::{Command, Described, Row, flags};

/// What the command line asks for: nothing but the page.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Manual;

pub(crate) static MANUAL: Command<Manual> = Command {
    name: "manual",
    summary: "print the manual page",
    about: "Print the manual page: arc-relay manual > /usr/share/man/man1/arc-relay.1",
    argument: None,
    flags: FLAGS,
    has_variables: false,
};

flags! { FLAGS: Manual; }

/// The page of all these commands, which begins with this description.
pub(crate) fn page(description: &str, commands: &[&dyn Described]) -> String {
    let mut page = Roff::new();
    let version = concat!("arc-relay ", env!("CARGO_PKG_VERSION"));
    page.control("TH", ["ARC-RELAY", "1", "", version, "User Commands"]);
    page.control("SH", ["NAME"]).text([roman("arc-relay - a self-hosted WebSocket relay")]);
    page.control("SH", ["SYNOPSIS"]);
    page.text([bold("arc-relay"), roman(" "), italic("COMMAND"), roman(" [options]")]);
    page.control("SH", ["DESCRIPTION"]).text([roman(description)]);
    page.control("SH", ["COMMANDS"]);
    for command in commands {
        page.control("TP", []).text([bold(command.name())]).text([roman(command.summary())]);
    }
    for command in commands {
        page.control("SH", [&*format!("arc-relay {}", command.name()).to_uppercase()]);
        let argument = command.argument().map(|usage| format!(" {usage}")).unwrap_or_default();
        page.text([bold(format!("arc-relay {}", command.name())), roman(format!("{argument} [options]"))]);
        for paragraph in command.about().split("\n\n") {
            page.control("PP", []);
            for line in paragraph.split('\n') {
                page.text([roman(line)]);
                if paragraph.lines().all(|line| line.contains(": ")) {
                    page.control("br", []);
                }
            }
        }
        let rows = command.rows();
        for group in rows.chunk_by(|one, next| one.group == next.group) {
            page.control("SS", [group[0].group]);
            group.iter().for_each(|row| write_row(&mut page, row));
        }
    }
    page.render()
}

fn write_row(page: &mut Roff, row: &Row) {
    let mut term = vec![bold(format!("--{}", row.name))];
    if !row.value.is_empty() {
        term.extend([roman(" "), italic(row.value.trim_matches(['<', '>']))]);
    }
    page.control("TP", []).text(term);
    page.text([roman(row.help.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" "))]);
    if !row.variables.is_empty() {
        page.control("RS", []).text([roman(format!("Variable: {}", row.variables.join(", ")))]).control("RE", []);
    }
}
