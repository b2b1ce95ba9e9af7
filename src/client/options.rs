//! What a connection is to be.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use data_encoding::BASE64URL_NOPAD;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::noise::fill_random;
use super::secret::Secret;
use super::wire::dial::Tls;
use super::wire::target::Target;

/// Where a [`Connection`](super::Connection) leads, and how it behaves.
///
/// # Examples
///
/// ```
/// use arc_relay::client::{Options, Secret};
///
/// let secret = Secret::random();
/// let options = Options::encrypted("wss://relay.example.org", &secret)?.token("blue")?.max_message(1 << 20);
/// # Ok::<(), arc_relay::client::InvalidOptions>(())
/// ```
#[derive(Clone)]
pub struct Options {
    pub(super) target: Target,
    pub(super) secret: Option<Secret>,
    code: String,
    side: String,
    pub(super) token: Option<String>,
    pub(super) tls: Option<Arc<Tls>>,
    pub(super) max_message: usize,
    pub(super) max_queue: usize,
    pub(super) heartbeat: Duration,
    pub(super) patience: Duration,
}

/// Options that no connection can have. Its text is one line that says which.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidOptions(String);

impl InvalidOptions {
    pub(super) fn new(what: String) -> Self {
        Self(what)
    }
}

impl fmt::Display for InvalidOptions {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

impl std::error::Error for InvalidOptions {}

impl Options {
    /// A connection in the clear: the relay can read all messages.
    ///
    /// The URL's scheme is `ws`, `wss`, `http` or `https`. Its query is kept but for `pair` and `side`.
    ///
    /// # Errors
    ///
    /// If the URL is none, or has a user.
    pub fn new(url: &str, code: &str) -> Result<Self, InvalidOptions> {
        let mut target: Target = url.parse().map_err(|error| InvalidOptions(format!("url: {error}")))?;
        let is_own = |field: &&str| !["pair", "side"].contains(&field.split('=').next().unwrap_or_default());
        target.query = target.query.split('&').filter(is_own).collect::<Vec<_>>().join("&");
        let mut side = [0; 16];
        fill_random(&mut side);
        Ok(Self {
            target,
            secret: None,
            code: code.to_owned(),
            side: BASE64URL_NOPAD.encode(&side),
            token: None,
            tls: None,
            max_message: 64 << 20,
            max_queue: 1 << 20,
            heartbeat: Duration::from_secs(25),
            patience: Duration::from_secs(20),
        })
    }

    /// A connection that the relay cannot read. The pair code follows from the secret.
    ///
    /// # Errors
    ///
    /// As for [`new`](Self::new).
    pub fn encrypted(url: &str, secret: &Secret) -> Result<Self, InvalidOptions> {
        Ok(Self { secret: Some(secret.clone()), ..Self::new(url, &secret.code())? })
    }

    /// The access token or ticket for the relay.
    ///
    /// # Errors
    ///
    /// If it is empty, or a field of HTTP cannot hold it.
    pub fn token(self, token: &str) -> Result<Self, InvalidOptions> {
        if token.trim() != token || token.is_empty() || token.chars().any(char::is_control) {
            return Err(InvalidOptions(String::from("token: a line without white space around it is needed")));
        }
        Ok(Self { token: Some(token.to_owned()), ..self })
    }

    /// The name of this side, in place of a random one: 1 to 64 characters.
    ///
    /// A side takes its own earlier place at once, so a program that starts again with the same name need not wait until
    /// the relay has noticed the end of the old process. The two sides of a pair need different names.
    #[must_use]
    pub fn side(self, side: &str) -> Self {
        Self { side: side.to_owned(), ..self }
    }

    /// A file of certificates in PEM that may sign the relay's, besides those of Mozilla's list.
    ///
    /// # Errors
    ///
    /// If the file cannot be read, or holds none.
    pub fn ca_file(self, path: &Path) -> Result<Self, InvalidOptions> {
        Ok(Self { tls: Some(Arc::new(Tls::new(Some(path)).map_err(InvalidOptions)?)), ..self })
    }

    /// The longest message of the peer, in bytes. It is held in memory. Default: 64 MiB.
    #[must_use]
    pub fn max_message(self, bytes: usize) -> Self {
        Self { max_message: bytes, ..self }
    }

    /// How many bytes of messages wait until the program takes them. Default: 1 MiB.
    ///
    /// Then the peer has to wait.
    /// The last of them may go beyond.
    #[must_use]
    pub fn max_queue(self, bytes: usize) -> Self {
        Self { max_queue: bytes, ..self }
    }

    /// After this long without a sign of life, the relay is asked for one. Default: 25 s.
    #[must_use]
    pub fn heartbeat(self, silence: Duration) -> Self {
        Self { heartbeat: silence, ..self }
    }

    /// How long a connection attempt, and an answer to a ping, may take. Default: 20 s.
    #[must_use]
    pub fn patience(self, longest: Duration) -> Self {
        Self { patience: longest, ..self }
    }

    /// The fields of the query.
    pub(super) fn query(&self) -> String {
        let encoded = |text| utf8_percent_encode(text, NON_ALPHANUMERIC);
        format!("pair={}&side={}", encoded(&self.code), encoded(&self.side))
    }
}

/// Without code, secret and token.
impl fmt::Debug for Options {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut fields = out.debug_struct("Options");
        fields.field("url", &self.target.to_string()).field("is_encrypted", &self.secret.is_some());
        fields.finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn query_of_the_url_is_kept_but_for_the_own_fields() {
        let options = Options::new("wss://relay.example/a?x=1&pair=old&side&y", "a b&c").unwrap().side("d=e");
        assert_eq!(options.target.path_and_query(&options.query()), "/a?x=1&y&pair=a%20b%26c&side=d%3De");
        let [one, other] = [(); 2].map(|()| Options::new("ws://a", "b").unwrap().query());
        assert_ne!(one, other);
    }

    #[test]
    fn wrong_options_are_told_in_one_line_and_debug_output_shows_no_secrets() {
        let error = |result: Result<Options, InvalidOptions>| result.unwrap_err().to_string();
        let options = || Options::encrypted("ws://a?token=hidden", &Secret::from_bytes([7; 32])).unwrap();
        assert_eq!(error(Options::new("localhost", "x")), "url: a URL is needed, such as wss://relay.example.org");
        for token in ["", " ", "a ", "a\r\nb"] {
            assert_eq!(error(options().token(token)), "token: a line without white space around it is needed");
        }
        assert!(error(options().ca_file(Path::new("/nowhere"))).starts_with("cannot read certificates from"));
        let shown = format!("{:?}", options().token("hidden").unwrap());
        assert_eq!(shown, r#"Options { url: "ws://a/", is_encrypted: true, .. }"#);
    }
}
