//! The address of the operations listener.

use std::fmt;
use std::str::FromStr;

/// An address or name with a port, such as `127.0.0.1:9090`, `[::1]:9090` or `localhost:9090`.
///
/// # Examples
///
/// ```
/// use arc_relay::OpsAddress;
///
/// let address: OpsAddress = "[::1]:9090".parse()?;
/// assert_eq!((address.host(), address.port()), ("::1", 9090));
/// assert_eq!(address.to_string(), "[::1]:9090");
/// # Ok::<(), arc_relay::InvalidOpsAddress>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpsAddress {
    /// Without brackets.
    host: String,
    port: u16,
}

impl OpsAddress {
    /// The address or name, without brackets. A name stands for all of its addresses on this system.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The TCP port. With 0 the system chooses one.
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl FromStr for OpsAddress {
    type Err = InvalidOpsAddress;

    fn from_str(text: &str) -> Result<Self, InvalidOpsAddress> {
        let (host, port) = text.rsplit_once(':').ok_or(InvalidOpsAddress)?;
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        // Without brackets, the last part of an IPv6 address could be taken for a port.
        let host = if host.contains(':') { bare.ok_or(InvalidOpsAddress)? } else { host };
        if host.is_empty() || host.contains(['[', ']', '/']) {
            return Err(InvalidOpsAddress);
        }
        Ok(Self { host: host.to_owned(), port: port.parse().map_err(|_| InvalidOpsAddress)? })
    }
}

impl fmt::Display for OpsAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

/// The text is no address or name with a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct InvalidOpsAddress;

impl fmt::Display for InvalidOpsAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an address and a port are needed, such as 127.0.0.1:9090")
    }
}

impl std::error::Error for InvalidOpsAddress {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_a_host_and_a_port() {
        for (text, host, port) in [
            ("127.0.0.1:9090", "127.0.0.1", 9090),
            ("[::]:0", "::", 0),
            ("[fe80::1%eth0]:1", "fe80::1%eth0", 1),
            ("relay.example.org:65535", "relay.example.org", 65535),
        ] {
            let address: OpsAddress = text.parse().unwrap();
            assert_eq!((address.host(), address.port()), (host, port));
            assert_eq!(address.to_string(), text);
        }
        for text in [
            "",
            "9090",
            ":9090",
            "127.0.0.1",
            "127.0.0.1:",
            "h:65536",
            "h:-1",
            "::1:9090",
            "[::1]",
            "[]:1",
            "http://h:1",
        ] {
            assert_eq!(text.parse::<OpsAddress>(), Err(InvalidOpsAddress), "{text}");
        }
    }
}
