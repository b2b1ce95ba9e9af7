//! Where a URL leads.

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

use http::Uri;

/// What a URL says, for `ws`, `wss`, `http` and `https`.
///
/// Its text is without the query, which may hold a pair code and a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub is_secure: bool,
    /// A name or an address, which for IPv6 is without brackets.
    pub host: String,
    pub port: u16,
    /// It begins with a slash.
    pub path: String,
    /// Without the question mark.
    pub query: String,
}

/// The error says what is needed.
impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let needed = || String::from("a URL is needed, such as wss://relay.example.org");
        let url: Uri = text.parse().map_err(|_| needed())?;
        let is_secure = match url.scheme_str() {
            Some("ws" | "http") => false,
            Some("wss" | "https") => true,
            _ => return Err(needed()),
        };
        let authority = url.authority().ok_or_else(needed)?;
        if authority.as_str().contains('@') {
            return Err(String::from("a URL without a user is needed"));
        }
        let host = authority.host().trim_matches(['[', ']']).to_owned();
        let port = match authority.port() {
            Some(port) => port.as_u16(),
            None if authority.as_str().ends_with(':') || !authority.as_str().ends_with(authority.host()) => {
                return Err(needed());
            }
            None => {
                if is_secure {
                    443
                } else {
                    80
                }
            }
        };
        if host.is_empty() || port == 0 {
            return Err(needed());
        }
        let (path, query) = (url.path().to_owned(), url.query().unwrap_or_default().to_owned());
        Ok(Self { is_secure, host, port, path, query })
    }
}

impl Target {
    /// The `Host` field of a request, and the authority of a URL.
    pub fn authority(&self) -> String {
        let host = match self.host.parse::<Ipv6Addr>() {
            Ok(_) => format!("[{}]", self.host),
            Err(_) => self.host.clone(),
        };
        let is_default = self.port == if self.is_secure { 443 } else { 80 };
        if is_default { host } else { format!("{host}:{}", self.port) }
    }

    /// Path and query, with more fields behind the query.
    pub fn path_and_query(&self, more: &str) -> String {
        let fields: Vec<_> = [&*self.query, more].into_iter().filter(|part| !part.is_empty()).collect();
        if fields.is_empty() { self.path.clone() } else { format!("{}?{}", self.path, fields.join("&")) }
    }

    /// Whether the query has a field of this name.
    #[cfg(feature = "client")]
    pub fn has(&self, name: &str) -> bool {
        self.query.split('&').any(|field| field.split('=').next() == Some(name))
    }

    /// As a URL of HTTP, without the query.
    pub fn http(&self) -> String {
        format!("{}://{}{}", if self.is_secure { "https" } else { "http" }, self.authority(), self.path)
    }
}

/// As a URL of a WebSocket, without the query.
impl fmt::Display for Target {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}://{}{}", if self.is_secure { "wss" } else { "ws" }, self.authority(), self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_taken_apart() {
        for (text, is_secure, host, port, path, query) in [
            ("ws://localhost", false, "localhost", 80, "/", ""),
            ("http://127.0.0.1:8765/readyz", false, "127.0.0.1", 8765, "/readyz", ""),
            ("wss://relay.example.org/a/b?token=x%20y", true, "relay.example.org", 443, "/a/b", "token=x%20y"),
            ("https://[::1]:8443?a=b&pair=c", true, "::1", 8443, "/", "a=b&pair=c"),
            ("wss://[::1]", true, "::1", 443, "/", ""),
        ] {
            let expected = Target { is_secure, host: host.into(), port, path: path.into(), query: query.into() };
            assert_eq!(text.parse(), Ok(expected), "{text}");
        }
        for text in [
            "",
            "localhost",
            "localhost:8765",
            "/x",
            "ftp://a",
            "ws://",
            "ws://:80",
            "ws://a:",
            "ws://a:0",
            "ws://a:65536",
            "ws://a:x",
            "ws://u:p@a",
            "ws://a b",
            "wss://b\u{fc}cher.example",
        ] {
            assert!(text.parse::<Target>().is_err(), "{text}");
        }
    }

    #[test]
    fn text_of_a_url_is_without_its_query() {
        for (text, expected) in [
            ("wss://a/b?pair=secret", "wss://a/b"),
            ("https://[::1]:8443/?token=secret", "wss://[::1]:8443/"),
            ("ws://a:80", "ws://a/"),
        ] {
            assert_eq!(text.parse::<Target>().expect("a URL").to_string(), expected);
        }
    }

    #[test]
    fn fields_are_added_to_the_query() {
        let target: Target = "ws://a/b?token=x&spare".parse().expect("a URL");
        assert_eq!(target.path_and_query("pair=y"), "/b?token=x&spare&pair=y");
        assert_eq!(Target { query: String::new(), ..target.clone() }.path_and_query("pair=y"), "/b?pair=y");
        assert_eq!(Target { query: String::new(), ..target.clone() }.path_and_query(""), "/b");
    }
}
