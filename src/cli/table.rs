//! Commands as tables: the name, help, environment variable and parser of a flag stand in one row.
//!
//! What a command line says and how the help describes it come from the same rows, so they cannot differ. argh parses
//! the command line, with two additions: `--flag=value` is split before, and an error becomes one line that names the
//! nearest known flag. The help is not argh's, which has neither groups nor variables.

use std::ffi::OsStr;
use std::iter;

use argh::EarlyExit;

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
    pub(super) flags: Flags<S>,
    /// Whether each flag has a variable in the environment.
    pub(super) has_variables: bool,
}

/// An argument that is no flag.
pub(super) struct Argument<S: 'static> {
    /// As the usage has it, such as `<url>`, or `[url]` if it may be left out.
    pub(super) usage: &'static str,
    pub(super) set: Set<S>,
}

/// The flags of a command.
pub(super) struct Flags<S: 'static> {
    pub(super) rows: &'static [Flag<S>],
    /// argh's parser for these rows.
    pub(super) parse: fn(&[&str]) -> Result<Given, EarlyExit>,
}

/// What a row of a table says, whatever the settings of its command are.
#[derive(Debug)]
pub(crate) struct Row {
    pub(super) group: &'static str,
    /// Without dashes.
    pub(super) name: String,
    /// The kind of value, such as `<port>`, or empty for a switch.
    pub(super) value: &'static str,
    pub(super) help: &'static [&'static str],
    pub(super) variables: Vec<String>,
}

/// What was given on a command line.
#[derive(Debug)]
pub(super) struct Given {
    pub(super) version: bool,
    /// What is neither a flag nor the value of one.
    pub(super) words: Vec<String>,
    /// One for each flag.
    pub(super) values: Vec<Option<String>>,
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

/// Declares the flags of a command in groups: makes the table, and the struct for argh.
///
/// The doc comment of a flag is its help. A flag without a `<value>` is a switch. For argh, it is an option, too, so that
/// `--switch=false` is possible.
macro_rules! flags {
    ($table:ident: $settings:ty; $($group:literal {$(
        $(#[doc = $help:literal])+
        $field:ident $(<$value:ident>)? => $($setting:ident).+ = $parse:expr;
    )+})*) => {
        const $table: $crate::cli::table::Flags<$settings> = {
            #[derive(argh::FromArgs)]
            #[argh(description = "the arguments of a command", help_triggers("-h", "--help", "help"))]
            struct Arguments {
                #[argh(switch, short = 'V', hidden_help)]
                version: bool,
                #[argh(positional, hidden_help)]
                words: Vec<String>,
                $($(
                    #[argh(option, hidden_help)]
                    $field: Option<String>,
                )+)*
            }

            $crate::cli::table::Flags {
                rows: &[$($($crate::cli::table::Flag {
                    group: $group,
                    field: stringify!($field),
                    value: concat!($("<", stringify!($value), ">")?),
                    help: &[$($help),+],
                    set: |settings, value| {
                        settings.$($setting).+ = $parse(value)?;
                        Ok(())
                    },
                }),+),*],
                parse: |arguments| {
                    let given = <Arguments as argh::FromArgs>::from_args(&["arc-relay"], arguments)?;
                    Ok($crate::cli::table::Given {
                        version: given.version,
                        words: given.words,
                        values: vec![$($(given.$field),+),*],
                    })
                },
            }
        };
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
pub(crate) trait Described: Sync {
    fn name(&self) -> &'static str;
    fn summary(&self) -> &'static str;
    fn about(&self) -> &'static str;
    /// The argument that is no flag, as the usage has it.
    fn argument(&self) -> Option<&'static str>;
    fn rows(&self) -> Vec<Row>;
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

    fn about(&self) -> &'static str {
        self.about
    }

    fn argument(&self) -> Option<&'static str> {
        self.argument.as_ref().map(|argument| argument.usage)
    }

    fn rows(&self) -> Vec<Row> {
        let row = |flag: &Flag<S>| {
            let variables = if self.has_variables { flag.variables() } else { Vec::new() };
            Row { group: flag.group, name: flag.name(), value: flag.value, help: flag.help, variables }
        };
        self.flags.rows.iter().map(row).collect()
    }

    fn help(&self) -> String {
        let argument = self.argument().map(|usage| format!(" {usage}")).unwrap_or_default();
        let mut help = format!("Usage: arc-relay {}{argument} [options]\n\n{}\n", self.name, self.about);
        for group in self.rows().chunk_by(|one, next| one.group == next.group) {
            help += &format!("\n{}:\n", group[0].group);
            for Row { name, value, variables, help: lines, .. } in group {
                let name = format!("--{name} {value}");
                let is_true = if value.is_empty() { "=true" } else { "" };
                let variables =
                    if variables.is_empty() { String::new() } else { format!(" [{}{is_true}]", variables.join(", ")) };
                help += &format!("  {}{variables}\n", name.trim_end());
                lines.iter().for_each(|line| help += &format!("      {}\n", line.trim()));
            }
        }
        help + "\nOther options:\n  -h, --help\n      print this help and exit\n  \
            -V, --version\n      print the version and exit"
    }

    fn flags(&self) -> Vec<String> {
        self.flags.rows.iter().map(Flag::name).collect()
    }
}

impl<S: Default> Command<S> {
    /// Combines arguments, environment and defaults.
    ///
    /// # Errors
    ///
    /// The error is one line that names the wrong argument or variable.
    pub(super) fn parse(&self, arguments: &[&str], environment: &Environment) -> Result<Wish<S>, String> {
        let Given { version, words, values } = match (self.flags.parse)(&self.take_apart(arguments)) {
            Ok(given) => given,
            Err(exit) if asks_for_help(&exit) => return Ok(Wish::Help),
            Err(exit) => return Err(format!("{}{}", one_line(&exit, |flag| self.nearest(flag)), self.see_help())),
        };
        if version {
            return Ok(Wish::Version);
        }
        let mut settings = S::default();
        // The argument is a URL, which may hold secrets, so it is not repeated.
        match (&self.argument, &*words) {
            (Some(Argument { usage, set }), [word]) => {
                set(&mut settings, word.as_ref()).map_err(|needed| format!("{}: {needed}", bare(usage)))?;
            }
            (Some(Argument { usage, .. }), []) if usage.starts_with('<') => {
                return Err(format!("{}: the {} is missing{}", self.name, bare(usage), self.see_help()));
            }
            (_, []) => {}
            (Some(Argument { usage: "<url>" | "[url]", .. }), _) => {
                return Err(format!("one URL is needed, and not several: quote it{}", self.see_help()));
            }
            (Some(Argument { usage, .. }), _) => {
                return Err(format!("one {} is needed, and not several{}", bare(usage), self.see_help()));
            }
            (None, [word, ..]) => return Err(format!("unknown argument {word:?}{}", self.see_help())),
        }
        for (flag, value) in iter::zip(self.flags.rows, &values) {
            let variables = if self.has_variables { flag.variables() } else { Vec::new() };
            let given = value.as_ref().map(|value| (format!("--{}", flag.name()), OsStr::new(value)));
            let from_environment =
                || environment.find(&variables).map(|(variable, value)| (variable.to_owned(), value));
            if let Some((source, value)) = given.or_else(from_environment) {
                (flag.set)(&mut settings, value).map_err(|needed| invalid(&source, value, &needed))?;
            }
        }
        Ok(Wish::Run(settings))
    }

    /// Splits `--flag=value`, and gives a switch without a value the value `true`.
    ///
    /// A value stays as it is, and so does everything after `--`.
    fn take_apart<'a>(&self, arguments: &[&'a str]) -> Vec<&'a str> {
        let (mut apart, mut rest) = (Vec::new(), arguments.iter().copied());
        while let Some(argument) = rest.next() {
            let (flag, value) = argument.split_once('=').map_or((argument, None), |(flag, value)| (flag, Some(value)));
            let name = flag.strip_prefix("--");
            let known = self.flags.rows.iter().find(|known| Some(known.name().as_str()) == name);
            match (known, value) {
                (Some(_), Some(value)) => apart.extend([flag, value]),
                (Some(Flag { value: "", .. }), None) => apart.extend([flag, "true"]),
                (Some(_), None) => apart.extend(iter::once(flag).chain(rest.next())),
                (None, _) if argument == "--" => apart.extend(iter::once(argument).chain(rest.by_ref())),
                (None, _) => apart.push(argument),
            }
        }
        apart
    }

    /// The known flag that is most similar to an unknown one.
    fn nearest(&self, flag: &str) -> Option<String> {
        let known = self.flags();
        let known = known.iter().map(String::as_str).chain(["help", "version"]);
        nearest(flag.trim_start_matches('-'), known).map(|name| format!("--{name}"))
    }

    fn see_help(&self) -> String {
        format!(" (see arc-relay {} --help)", self.name)
    }
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

/// Whether argh ended early since help was asked for.
///
/// argh refuses flags that follow `--help`. Here help was asked for all the same.
pub(super) fn asks_for_help(exit: &EarlyExit) -> bool {
    exit.status.is_ok() || exit.output.starts_with("Trailing arguments are not allowed after `help`")
}

/// Turns an error of argh into one line that says what to write instead of an unknown flag.
pub(super) fn one_line(exit: &EarlyExit, suggest: impl FnOnce(&str) -> Option<String>) -> String {
    let error = exit.output.strip_suffix('\n').unwrap_or(&exit.output);
    if let Some(flag) = error.strip_prefix("Unrecognized argument: ") {
        return match flag.split_once('=').map_or(flag, |(flag, _)| flag) {
            flag @ ("-h" | "--help" | "-V" | "--version") => format!("{flag}: it takes no value"),
            flag => {
                let suggestion = suggest(flag).map(|flag| format!(": did you mean {flag}?")).unwrap_or_default();
                format!("unknown flag {flag:?}{suggestion}")
            }
        };
    }
    let flag = error.split('\'').nth(1).unwrap_or_default();
    if error.starts_with("No value provided for") {
        format!("{flag}: a value is missing")
    } else if error.ends_with("duplicate values provided") {
        format!("{flag}: given more than once")
    } else {
        error.escape_debug().to_string()
    }
}

/// The name of an argument without the brackets of the usage.
fn bare(usage: &str) -> &str {
    usage.trim_matches(['<', '>', '[', ']'])
}

fn invalid(source: &str, value: &OsStr, needed: &str) -> String {
    format!("{source}: invalid value {value:?}: {needed}")
}
