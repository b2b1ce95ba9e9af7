//! `arc-relay completions`: a script that lets a shell complete commands and flags.

use std::ffi::OsStr;

use argh_complete::Generator;
use argh_complete::bash::Bash;
use argh_complete::fish::Fish;
use argh_complete::zsh::Zsh;
use argh_shared::{CommandInfoWithArgs, FlagInfo, FlagInfoKind, Optionality, PositionalInfo, SubCommandInfo};

use crate::cli::table::{Argument, Command, Described, Row, flags};
use crate::cli::values::Parsed;

/// What the command line asks for.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Completions {
    shell: Shell,
}

/// A shell that the script is for.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum Shell {
    #[default]
    Bash,
    Fish,
    Zsh,
}

const SHELLS: [(&str, Shell); 3] = [("bash", Shell::Bash), ("fish", Shell::Fish), ("zsh", Shell::Zsh)];

pub(crate) static COMPLETIONS: Command<Completions> = Command {
    name: "completions",
    summary: "print a script that completes commands and flags in a shell",
    about: "Print a script that completes commands and flags in bash, fish (version 4) or zsh.\n\n\
        bash: arc-relay completions bash > /usr/share/bash-completion/completions/arc-relay\n\
        fish: arc-relay completions fish > /usr/share/fish/vendor_completions.d/arc-relay.fish\n\
        zsh: arc-relay completions zsh > /usr/share/zsh/vendor-completions/_arc-relay",
    argument: Some(Argument {
        usage: "<shell>",
        set: |settings, value| {
            settings.shell = shell(value)?;
            Ok(())
        },
    }),
    flags: FLAGS,
    has_variables: false,
};

flags! { FLAGS: Completions; }

fn shell(value: &OsStr) -> Parsed<Shell> {
    let known = SHELLS.iter().find(|(name, _)| value == *name);
    known.map(|&(_, shell)| shell).ok_or_else(|| String::from("bash, fish or zsh is needed"))
}

impl Completions {
    /// The script for all these commands.
    pub(crate) fn script(&self, commands: &[&dyn Described]) -> String {
        let rows: Vec<Vec<Row>> = commands.iter().map(|command| command.rows()).collect();
        let texts: Vec<Vec<(String, String)>> =
            rows.iter().map(|rows| rows.iter().map(flag_and_help).collect()).collect();
        let flags: Vec<Vec<FlagInfo<'_>>> = rows
            .iter()
            .zip(&texts)
            .map(|(rows, texts)| rows.iter().zip(texts).map(flag_info).chain(common()).collect())
            .collect();
        let arguments: Vec<Vec<PositionalInfo<'_>>> =
            commands.iter().map(|command| command.argument().map(argument_info).into_iter().collect()).collect();
        let subcommands = commands.iter().zip(flags.iter().zip(&arguments)).map(|(command, (flags, positionals))| {
            let (name, description) = (command.name(), command.summary());
            let command = CommandInfoWithArgs { name, description, flags, positionals, ..Default::default() };
            SubCommandInfo { name, command }
        });
        let common: Vec<_> = common().collect();
        let all = CommandInfoWithArgs {
            name: "arc-relay",
            flags: &common,
            commands: subcommands.collect(),
            ..CommandInfoWithArgs::default()
        };
        match self.shell {
            Shell::Bash => Bash::generate("arc-relay", &all),
            Shell::Fish => Fish::generate("arc-relay", &all),
            Shell::Zsh => Zsh::generate("arc-relay", &all),
        }
    }
}

/// The name of a flag with its dashes, and its help up to the first part that says more.
fn flag_and_help(row: &Row) -> (String, String) {
    let help = row.help.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" ");
    let first = help.split([';', '(']).next().unwrap_or_default().trim();
    (format!("--{}", row.name), first.trim_end_matches(',').to_owned())
}

fn flag_info<'a>((row, (long, description)): (&Row, &'a (String, String))) -> FlagInfo<'a> {
    let kind = if row.value.is_empty() { FlagInfoKind::Switch } else { FlagInfoKind::Option { arg_name: row.value } };
    FlagInfo { kind, optionality: Optionality::Optional, long, short: None, description, hidden: false }
}

fn argument_info(usage: &'static str) -> PositionalInfo<'static> {
    PositionalInfo { name: usage, description: "", optionality: Optionality::Optional, hidden: false }
}

/// The flags that each command has.
fn common<'a>() -> impl Iterator<Item = FlagInfo<'a>> {
    [("--help", 'h', "print this help and exit"), ("--version", 'V', "print the version and exit")].into_iter().map(
        |(long, short, description)| FlagInfo {
            kind: FlagInfoKind::Switch,
            optionality: Optionality::Optional,
            long,
            short: Some(short),
            description,
            hidden: false,
        },
    )
}
