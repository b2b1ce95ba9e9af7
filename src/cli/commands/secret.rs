//! `arc-relay secret`: the secret of a pair that encrypts, and what follows from it.

use std::ffi::OsStr;
use std::io::{self, IsTerminal};
use std::path::PathBuf;

use arc_relay::client::Secret as PairSecret;
use qrcode::QrCode;
use qrcode::render::unicode::Dense1x2;

use crate::cli::table::{Command, flags};
use crate::cli::token::secret_in;
use crate::cli::values::{Parsed, boolean, path};

/// Black on white on any terminal: some cameras take no inverted code.
const BLACK_ON_WHITE: &str = "\x1b[30;107m";

/// Back to the terminal's own colours.
const RESET: &str = "\x1b[0m";

/// What the command line asks for.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Secret {
    from: Option<PathBuf>,
    device: Option<String>,
    code: bool,
    link: Option<String>,
    qr: bool,
}

/// Prints a secret.
pub(crate) static SECRET: Command<Secret> = Command {
    name: "secret",
    summary: "print a new secret for a pair that encrypts",
    about: "Print a new secret for a pair that encrypts: 32 random bytes as 43 characters. Both sides derive\n\
        the pair code and the key from it. The relay learns the code alone.\n\n\
        Keep it where no other user can read it: (umask 077; arc-relay secret > pair.secret)\n\n\
        Exit codes: 0 printed, 1 the file has no secret, 2 wrong arguments.",
    argument: None,
    flags: FLAGS,
    has_variables: false,
};

flags! {
    FLAGS: Secret;
    "Options" {
        /// file with a secret, in place of a new one
        from <path> => from = path;
        /// secret of one of several devices, derived from the one of --from
        device <name> => device = name;
        /// print the pair code of --from in place of the secret
        code => code = boolean;
        /// print a link to this page, with the secret in its fragment, which browsers send to no server
        link <page> => link = page;
        /// print a QR code, too
        qr => qr = boolean;
    }
}

fn name(value: &OsStr) -> Parsed<Option<String>> {
    let name = value.to_str().filter(|name| !name.is_empty()).ok_or("a name is needed")?;
    Ok(Some(name.to_owned()))
}

/// Any URL, also of an app's own scheme.
fn page(value: &OsStr) -> Parsed<Option<String>> {
    let is_page = |page: &&str| page.contains(':') && !page.contains(|c: char| c.is_whitespace() || c.is_control());
    let page = value.to_str().filter(is_page).ok_or("a URL is needed, such as https://app.example.org/pair")?;
    Ok(Some(page.to_owned()))
}

impl Secret {
    /// Refuses what the flags cannot say one by one.
    pub(crate) fn checked(self) -> Parsed<Self> {
        match &self {
            Self { from: None, device: Some(_), .. } => Err(String::from("--device: a secret is needed: add --from")),
            Self { from: None, code: true, .. } => Err(String::from("--code: a secret is needed: add --from")),
            Self { code: true, link: Some(_), .. } => Err(String::from("--code and --link exclude each other")),
            _ => Ok(self),
        }
    }

    /// What is printed.
    ///
    /// # Errors
    ///
    /// The error is one line, and names nothing of the file's content.
    pub(crate) fn text(&self) -> Result<String, String> {
        let secret = self.from.as_deref().map_or_else(|| Ok(PairSecret::random()), secret_in)?;
        let secret = self.device.as_deref().map_or(secret.clone(), |device| secret.device(device));
        let text = match &self.link {
            _ if self.code => secret.code(),
            Some(page) => secret.link(page),
            None => secret.to_text(),
        };
        Ok(if self.qr { format!("{text}\n{}", qr(&text)?) } else { text })
    }
}

/// A QR code of two rows a line, with colours on a terminal.
fn qr(text: &str) -> Result<String, String> {
    let code = QrCode::new(text).map_err(|_| String::from("the link is too long for a QR code"))?;
    let image = code.render::<Dense1x2>().build();
    let (begin, end) = if io::stdout().is_terminal() { (BLACK_ON_WHITE, RESET) } else { ("", "") };
    let lines = image.lines().map(|line| format!("{begin}{line}{end}"));
    Ok(lines.collect::<Vec<_>>().join("\n"))
}
