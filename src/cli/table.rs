//! Commands as tables: the name, help, environment variable and parser of a flag stand in one row.
//!
//! What a command line says and how the help describes it come from the same rows, so they cannot differ. lexopt takes
//! the command line apart, and errors name the nearest known flag.

use std::ffi::{OsStr, OsString};
use std::iter;

use lexopt::Arg::{Long, Short, Value};
use lexopt::Parser;

use super::environment::{Environment, PREFIX};
use super::nearest::nearest;
use super::values::Parsed;

/// A command with settings of the type `S`.
pub(crate) struct Command<S: 'static> {
    pub(super) name: &'static str,
    /// The line of the command in the list of commands.
    pub(super) summary: &'static str,
    /// The paragraphs between usage and flags.
    pub(super) about: &'static str,
    /// The argument that is no flag, if the command has one.
    pub(super) argument: Option<Argument<S>>,
    pub(super) flags: &'static [Flag<S>],
    /// Whether each flag has a variable in the environment.
    pub(super) has_variables: bool,
}

/// An argument that is no flag.
pub(super) struct Argument<S: 'static> {
    /// As the usage has it, such as `<url>`, or `[url]` if it may be left out.
    pub(super) usage: &'static str,
    pub(super) set: Set<S>,
}

/// A row of a table.
pub(super) struct Flag<S: 'static> {
    pub(super) group: &'static str,
    /// The name with underscores and without dashes.
    pub(super) field: &'static str,
    /// The kind of value, such as `<port>`. A switch has none: it is `true` or `false`.
    pub(super) value: &'static str,
    /// The lines of the help.
    pub(super) help: &'static [&'static str],
    pub(super) set: Set<S>,
}

/// Parses a value into the settings.
type Set<S> = fn(&mut S, &OsStr) -> Parsed<()>;

/// Declares the flags of a command in groups, as a table.
///
/// The doc comment of a flag is its help. A flag without a `<value>` is a switch.
macro_rules! flags {
    ($table:ident: $settings:ty; $($group:literal {$(
        $(#[doc = $help:literal])+
        $field:ident $(<$value:ident>)? => $($setting:ident).+ = $parse:expr;
    )+})+) => {
        static $table: &[$crate::cli::table::Flag<$settings>] = &[$($($crate::cli::table::Flag {
            group: $group,
            field: stringify!($field),
            value: concat!($("<", stringify!($value), ">")?),
            help: &[$($help),+],
            set: |settings, value| {
                settings.$($setting).+ = $parse(value)?;
                Ok(())
            },
        }),+),+];
    };
}
pub(super) use flags;

/// What the arguments behind the name of a command ask for.
#[derive(Debug, PartialEq)]
pub(super) enum Wish<S> {
    Help,
    Version,
    Run(S),
}

/// What a list of commands needs to know of each, whatever its settings are.
pub(super) trait Described: Sync {
    fn name(&self) -> &'static str;
    fn summary(&self) -> &'static str;
    fn help(&self) -> String;
    /// The names of its flags, without dashes.
    fn flags(&self) -> Vec<String>;
}

impl<S> Described for Command<S> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn summary(&self) -> &'static str {
        self.summary
    }

    fn help(&self) -> String {
        let argument = self.argument.as_ref().map(|argument| format!(" {}", argument.usage)).unwrap_or_default();
        let mut help = format!("Usage: arc-relay {}{argument} [options]\n\n{}\n", self.name, self.about);
        for group in self.flags.chunk_by(|one, next| one.group == next.group) {
            help += &format!("\n{}:\n", group[0].group);
            for flag in group {
                let name = format!("--{} {}", flag.name(), flag.value);
                let is_true = if flag.value.is_empty() { "=true" } else { "" };
                let variables = flag.variables().join(", ");
                let variables = if self.has_variables { format!(" [{variables}{is_true}]") } else { String::new() };
                help += &format!("  {}{variables}\n", name.trim_end());
                flag.help.iter().for_each(|line| help += &format!("      {}\n", line.trim()));
            }
        }
        help + "\nOther options:\n  -h, --help\n      print this help and exit\n  \
            -V, --version\n      print the version and exit"
    }

    fn flags(&self) -> Vec<String> {
        self.flags.iter().map(Flag::name).collect()
    }
}

impl<S: Default> Command<S> {
    /// Combines arguments, environment and defaults.
    ///
    /// # Errors
    ///
    /// The error is one line that names the wrong argument or variable.
    pub(super) fn parse(&self, arguments: Parser, environment: &Environment) -> Result<Wish<S>, String> {
        let Given { argument, values } = match self.take_apart(arguments)? {
            Wish::Run(given) => given,
            Wish::Help => return Ok(Wish::Help),
            Wish::Version => return Ok(Wish::Version),
        };
        let mut settings = S::default();
        if let Some(Argument { usage, set }) = &self.argument {
            let usage = usage.trim_matches(['<', '>', '[', ']']);
            match argument {
                // The value of a URL may hold secrets.
                Some(value) => set(&mut settings, &value).map_err(|needed| format!("{usage}: {needed}"))?,
                None if self.needs_argument() => {
                    return Err(format!("{}: the {usage} is missing{}", self.name, self.see_help()));
                }
                None => {}
            }
        }
        for (flag, value) in iter::zip(self.flags, &values) {
            let variables = if self.has_variables { flag.variables() } else { Vec::new() };
            let given = value.as_deref().map(|value| (format!("--{}", flag.name()), value));
            let from_environment =
                || environment.find(&variables).map(|(variable, value)| (variable.to_owned(), value));
            if let Some((source, value)) = given.or_else(from_environment) {
                (flag.set)(&mut settings, value).map_err(|needed| invalid(&source, value, &needed))?;
            }
        }
        Ok(Wish::Run(settings))
    }

    /// Finds the value of each flag.
    fn take_apart(&self, mut arguments: Parser) -> Result<Wish<Given>, String> {
        let mut given = Given { argument: None, values: vec![None; self.flags.len()] };
        while let Some(argument) = arguments.next().map_err(|error| format!("{error}{}", self.see_help()))? {
            let name = match argument {
                Short('h') => return Ok(Wish::Help),
                Short('V') => return Ok(Wish::Version),
                Short(letter) => return Err(self.unknown(&format!("-{letter}"))),
                Long(name) => name.to_owned(),
                Value(word) if word == "help" => return Ok(Wish::Help),
                Value(word) if self.argument.is_some() && given.argument.is_none() => {
                    given.argument = Some(word);
                    continue;
                }
                // A URL may hold secrets, so it is not repeated.
                Value(_) if self.argument.is_some() => {
                    return Err(format!("one URL is needed, and not several: quote it{}", self.see_help()));
                }
                Value(word) => return Err(format!("unknown argument {word:?}{}", self.see_help())),
            };
            match &*name {
                "help" => return Ok(Wish::Help),
                "version" => return Ok(Wish::Version),
                _ => {}
            }
            let found = self.flags.iter().position(|flag| flag.name() == name);
            let index = found.ok_or_else(|| self.unknown(&format!("--{name}")))?;
            let value = match self.flags[index].value {
                "" => Some(arguments.optional_value().unwrap_or_else(|| "true".into())),
                _ => arguments.value().ok(),
            };
            let value = value.ok_or_else(|| format!("--{name}: a value is missing{}", self.see_help()))?;
            if given.values[index].replace(value).is_some() {
                return Err(format!("--{name}: given more than once{}", self.see_help()));
            }
        }
        Ok(Wish::Run(given))
    }

    fn needs_argument(&self) -> bool {
        self.argument.as_ref().is_some_and(|argument| argument.usage.starts_with('<'))
    }

    /// Names an unknown flag, and the nearest known one.
    fn unknown(&self, flag: &str) -> String {
        let known = self.flags();
        let known = known.iter().map(String::as_str).chain(["help", "version"]);
        let suggestion = nearest(flag.trim_start_matches('-'), known).map(|name| format!("--{name}"));
        format!("{}{}", unknown_flag(flag, suggestion), self.see_help())
    }

    fn see_help(&self) -> String {
        format!(" (see arc-relay {} --help)", self.name)
    }
}

/// What was given on a command line.
#[derive(Debug)]
struct Given {
    argument: Option<OsString>,
    /// One for each flag.
    values: Vec<Option<OsString>>,
}

impl<S> Flag<S> {
    pub(super) fn name(&self) -> String {
        self.field.replace('_', "-")
    }

    /// The environment variables of the flag.
    ///
    /// The port and the host have a second one, common to several relays.
    pub(super) fn variables(&self) -> Vec<String> {
        let name = self.field.to_ascii_uppercase();
        let common = matches!(self.field, "host" | "port").then(|| format!("RELAY_{name}"));
        iter::once(format!("{PREFIX}{name}")).chain(common).collect()
    }
}

/// Names an unknown flag, and what to write instead.
pub(super) fn unknown_flag(flag: &str, suggestion: Option<String>) -> String {
    let suggestion = suggestion.map(|suggestion| format!(": did you mean {suggestion}?")).unwrap_or_default();
    format!("unknown flag {flag:?}{suggestion}")
}

fn invalid(source: &str, value: &OsStr, needed: &str) -> String {
    format!("{source}: invalid value {value:?}: {needed}")
}
