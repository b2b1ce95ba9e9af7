//! Web origins: the site of a script that opens a connection in a browser.
//!
//! This file only decides whether two origins are the same (RFC 6454).

use std::fmt;
use std::str::FromStr;

/// Ports that an origin does not name (RFC 6454, section 6.2).
const DEFAULT_PORTS: [(&str, u16); 4] = [("http", 80), ("https", 443), ("ws", 80), ("wss", 443)];

/// A web origin, as browsers send it in `Origin`: a scheme, a host and a port, or `null`.
///
/// Scheme and host are compared without regard to case. A missing port is the scheme's default port. There are no
/// wildcards.
///
/// # Examples
///
/// ```
/// use arc_relay::Origin;
///
/// let app: Origin = "https://app.example.org".parse()?;
/// assert_eq!(app, "HTTPS://App.Example.org:443".parse()?);
/// assert_ne!(app, "https://app.example.org:8443".parse()?);
/// assert!("https://app.example.org/".parse::<Origin>().is_err(), "a path is no part of it");
/// # Ok::<(), arc_relay::InvalidOrigin>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin(Kind);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    /// The origin of a page from a file, of a sandboxed page, and the like.
    Null,
    Site {
        scheme: String,
        host: String,
        port: Option<u16>,
    },
}

impl FromStr for Origin {
    type Err = InvalidOrigin;

    fn from_str(text: &str) -> Result<Self, InvalidOrigin> {
        if text == "null" {
            return Ok(Self(Kind::Null));
        }
        let (scheme, rest) = text.split_once("://").ok_or(InvalidOrigin)?;
        let scheme = scheme.to_ascii_lowercase();
        // Behind the last colon is the port, unless that is in the brackets of an IPv6 address.
        let (host, port) = match rest.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => (host, Some(parse_port(port)?)),
            _ => (rest, None),
        };
        if !is_scheme(&scheme) || !is_host(host) {
            return Err(InvalidOrigin);
        }
        let default = DEFAULT_PORTS.iter().find(|(of, _)| *of == scheme).map(|&(_, port)| port);
        Ok(Self(Kind::Site { scheme, host: host.to_ascii_lowercase(), port: port.or(default) }))
    }
}

fn parse_port(digits: &str) -> Result<u16, InvalidOrigin> {
    // `parse` would take a sign.
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(InvalidOrigin);
    }
    digits.parse().map_err(|_| InvalidOrigin)
}

/// RFC 3986, section 3.1.
fn is_scheme(scheme: &str) -> bool {
    scheme.starts_with(|first: char| first.is_ascii_alphabetic())
        && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
}

/// A name, an address, or an IPv6 address in brackets. Names in other scripts are sent as `xn--`.
fn is_host(host: &str) -> bool {
    let (host, also) = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(address) => (address, &b":."[..]),
        None => (host, &b"-._"[..]),
    };
    !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || also.contains(&byte))
}

/// The error for a text that is no origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidOrigin;

impl fmt::Display for InvalidOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an origin is needed, such as https://example.org or null, without a path")
    }
}

impl std::error::Error for InvalidOrigin {}

#[cfg(test)]
mod tests {
    use super::*;

    fn same(one: &str, other: &str) -> bool {
        one.parse::<Origin>().unwrap() == other.parse().unwrap()
    }

    #[test]
    fn scheme_and_host_are_compared_without_regard_to_case() {
        assert!(same("https://example.org", "HTTPS://EXAMPLE.ORG"));
        assert!(!same("https://example.org", "http://example.org"));
        assert!(!same("https://example.org", "https://www.example.org"));
        assert!(!same("https://example.org", "https://example.org.evil.test"));
    }

    #[test]
    fn a_missing_port_is_the_default_of_the_scheme() {
        assert!(same("https://example.org", "https://example.org:443"));
        assert!(same("http://example.org:080", "http://example.org"));
        assert!(!same("https://example.org", "https://example.org:80"));
        assert!(!same("app://example.org", "app://example.org:443"));
        assert!(same("http://[::1]:8080", "http://[::1]:8080"));
        assert!(!same("http://[::1]:8080", "http://[::1]"));
    }

    #[test]
    fn null_equals_only_null() {
        assert!(same("null", "null"));
        assert!(!same("null", "https://null"));
        assert!("NULL".parse::<Origin>().is_err());
    }

    #[test]
    fn malformed_origins_are_rejected() {
        for text in [
            "",
            "*",
            "example.org",
            "https://",
            "https:/example.org",
            "https://example.org/",
            "https://example.org?",
            "https://user@example.org",
            "https://*.example.org",
            "https://example.org:",
            "https://example.org:+443",
            "https://example.org:65536",
            "https://[::1",
            "https://[]",
            "https://ex ample.org",
            "https://exämple.org",
            "1https://example.org",
            "://example.org",
            "https://a, https://b",
        ] {
            assert_eq!(text.parse::<Origin>(), Err(InvalidOrigin), "{text}");
        }
    }
}
