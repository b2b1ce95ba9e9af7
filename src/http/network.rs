//! Networks of addresses, and the address of a client behind proxies.
//!
//! This file decides which proxies are believed. It prints only what the operator has configured, never the address of a
//! client.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net};

/// The length of the prefix of IPv4-mapped IPv6 addresses (RFC 4291, section 2.5.5.2), in bits.
const MAPPED_PREFIX: u8 = 96;

/// A network of addresses, such as `10.0.0.0/8` or `2001:db8::/32`, or a single address.
///
/// An IPv4-mapped IPv6 address (`::ffff:10.0.0.1`) is the IPv4 address.
///
/// # Examples
///
/// ```
/// use arc_relay::Network;
///
/// let network: Network = "10.0.0.0/8".parse()?;
/// assert!(network.contains("10.1.2.3".parse().unwrap()));
/// assert!(network.contains("::ffff:10.1.2.3".parse().unwrap()));
/// assert!(!network.contains("11.0.0.1".parse().unwrap()));
/// assert_eq!("::1".parse::<Network>()?, "::1/128".parse()?);
/// # Ok::<(), arc_relay::InvalidNetwork>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network(IpNet);

impl Network {
    /// Whether the address is in this network.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.contains(&address.to_canonical())
    }
}

impl FromStr for Network {
    type Err = InvalidNetwork;

    fn from_str(text: &str) -> Result<Self, InvalidNetwork> {
        let network = match text.parse() {
            Ok(address) => IpNet::from(IpAddr::to_canonical(&address)),
            Err(_) => text.parse().map_err(|_| InvalidNetwork)?,
        };
        Ok(Self(canonical(network).trunc()))
    }
}

/// The same network, in IPv4 if it is IPv4-mapped.
fn canonical(network: IpNet) -> IpNet {
    match network.addr().to_canonical() {
        IpAddr::V4(address) if network.addr().is_ipv6() => {
            let length = network.prefix_len().checked_sub(MAPPED_PREFIX);
            length.and_then(|length| Ipv4Net::new(address, length).ok()).map_or(network, IpNet::V4)
        }
        _ => network,
    }
}

/// The error for a text that is no network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidNetwork;

impl fmt::Display for InvalidNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("addresses or networks are needed, such as 127.0.0.1 or 10.0.0.0/8")
    }
}

impl std::error::Error for InvalidNetwork {}

/// The address of the client, from the address that is connected and the lines of `X-Forwarded-For`.
///
/// Each proxy appends the address that its request came from. So the entries are read from the end, for as long as a
/// trusted proxy has added them: a client can make up all entries before these.
pub(crate) fn behind_proxies<'a>(
    peer: IpAddr,
    lines: impl DoubleEndedIterator<Item = &'a [u8]>,
    trusted: &[Network],
) -> IpAddr {
    let mut client = peer;
    let entries = lines.rev().flat_map(|line| line.rsplit(|&byte| byte == b','));
    for entry in entries.map(<[u8]>::trim_ascii).filter(|entry| !entry.is_empty()) {
        if !is_trusted(client, trusted) {
            break;
        }
        let Some(address) = forwarded(entry) else { break };
        client = address;
    }
    client
}

pub(crate) fn is_trusted(address: IpAddr, trusted: &[Network]) -> bool {
    trusted.iter().any(|network| network.contains(address))
}

/// The address in one entry, perhaps with a port, or with brackets around an IPv6 address.
fn forwarded(entry: &[u8]) -> Option<IpAddr> {
    let entry = str::from_utf8(entry).ok()?;
    if let Ok(address) = entry.parse() {
        return Some(address);
    }
    let (host, port) = match entry.strip_prefix('[') {
        Some(entry) => entry.split_once(']').map(|(host, rest)| (host, rest.strip_prefix(':').unwrap_or(rest)))?,
        None => entry.split_once(':')?,
    };
    let address: IpAddr = host.parse().ok()?;
    let is_port = port.len() <= 5 && port.bytes().all(|digit| digit.is_ascii_digit());
    (is_port && entry.starts_with('[') == address.is_ipv6()).then_some(address)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn network(text: &str) -> Network {
        text.parse().unwrap()
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_network_is_an_address_with_or_without_a_prefix_length() {
        for (text, inside, outside) in [
            ("10.0.0.1", "10.0.0.1", "10.0.0.2"),
            ("10.0.0.1/8", "10.255.0.0", "11.0.0.0"),
            ("0.0.0.0/0", "255.0.0.1", "::1"),
            ("2001:db8::/32", "2001:db8:ffff::1", "2001:db9::"),
            ("::1", "::1", "::2"),
            ("::/0", "ff::", "1.2.3.4"),
        ] {
            assert!(network(text).contains(address(inside)), "{text}");
            assert!(!network(text).contains(address(outside)), "{text}");
        }
        for text in
            ["", "x", "10.0.0.0/33", "10.0.0.0/", "10.0.0/8", "10.0.0.0/-1", "::/129", " ::1", "::1%lo", "[::1]"]
        {
            assert_eq!(text.parse::<Network>(), Err(InvalidNetwork), "{text}");
        }
    }

    #[test]
    fn ipv4_mapped_addresses_are_ipv4() {
        assert_eq!(network("::ffff:10.0.0.1"), network("10.0.0.1"));
        assert_eq!(network("::ffff:10.0.0.0/104"), network("10.0.0.0/8"));
        assert!(network("10.0.0.0/8").contains(address("::ffff:10.9.9.9")));
        assert!(network("::ffff:0:0/96").contains(address("1.2.3.4")));
        assert!(!network("::ffff:0:0/95").contains(address("1.2.3.4")));
    }

    fn behind(peer: &str, lines: &[&str]) -> IpAddr {
        let trusted = ["10.0.0.0/8", "fd00::/8"].map(network);
        behind_proxies(address(peer), lines.iter().map(|line| line.as_bytes()), &trusted)
    }

    #[test]
    fn the_last_address_of_no_trusted_proxy_is_the_client() {
        for (peer, lines, client) in [
            ("10.0.0.1", &[][..], "10.0.0.1"),
            ("10.0.0.1", &["1.1.1.1"], "1.1.1.1"),
            ("::ffff:10.0.0.1", &["1.1.1.1"], "1.1.1.1"),
            ("10.0.0.1", &["9.9.9.9, 1.1.1.1"], "1.1.1.1"),
            ("10.0.0.1", &["9.9.9.9", "1.1.1.1,10.0.0.2 ,\tfd00::1"], "1.1.1.1"),
            ("10.0.0.1", &["9.9.9.9, 1.1.1.1", "10.0.0.2"], "1.1.1.1"),
            ("10.0.0.1", &["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
            ("10.0.0.1", &["", " , 1.1.1.1,, "], "1.1.1.1"),
        ] {
            assert_eq!(behind(peer, lines), address(client), "{lines:?}");
        }
    }

    #[test]
    fn x_forwarded_for_of_an_untrusted_peer_is_ignored() {
        assert_eq!(behind("2.2.2.2", &["1.1.1.1"]), address("2.2.2.2"));
        assert_eq!(behind("2.2.2.2", &["10.0.0.1"]), address("2.2.2.2"));
    }

    #[test]
    fn an_entry_without_an_address_ends_the_search() {
        for entry in
            ["unknown", "_hidden", "1.1.1", "1.1.1.1:", "1.1.1.1:x", "1.1.1.1:123456", "[1.1.1.1]", "[::1", "::1]"]
        {
            let lines = format!("9.9.9.9, {entry}, 10.0.0.2");
            let expected = if entry == "1.1.1.1:" { "1.1.1.1" } else { "10.0.0.2" };
            assert_eq!(behind("10.0.0.1", &[&lines]), address(expected), "{entry}");
        }
        let bytes: [&[u8]; 2] = [b"9.9.9.9", b"\xFF, 10.0.0.2"];
        let trusted = [network("10.0.0.0/8")];
        assert_eq!(behind_proxies(address("10.0.0.1"), bytes.into_iter(), &trusted), address("10.0.0.2"));
    }

    #[test]
    fn ports_and_brackets_are_accepted() {
        for (entry, client) in [
            ("1.1.1.1:80", "1.1.1.1"),
            ("[2001:db8::1]", "2001:db8::1"),
            ("[2001:db8::1]:443", "2001:db8::1"),
            ("2001:db8::1", "2001:db8::1"),
            ("::ffff:1.1.1.1", "::ffff:1.1.1.1"),
        ] {
            assert_eq!(behind("10.0.0.1", &[entry]), address(client), "{entry}");
        }
    }

    proptest! {
        #[test]
        fn only_entries_of_trusted_proxies_name_the_client(entries in proptest::collection::vec(0..12_u8, 0..8)) {
            // Digits below six are trusted proxies, and digits above nine stand for no address.
            let text = |digit: &u8| match digit {
                10.. => String::from("unknown"),
                6.. => format!("1.1.1.{digit}"),
                _ => format!("10.0.0.{digit}"),
            };
            let line = entries.iter().map(text).collect::<Vec<_>>().join(", ");
            let proxies = entries.iter().rev().take_while(|&&digit| digit < 6).count();
            let expected = match entries.len().checked_sub(proxies + 1).map(|nth| entries[nth]) {
                Some(digit @ 6..=9) => text(&digit),
                // The first of the proxies.
                _ => entries.get(entries.len() - proxies).filter(|_| proxies > 0).map_or("10.0.0.9".into(), text),
            };
            prop_assert_eq!(behind("10.0.0.9", &[&line]), address(&expected));
        }
    }
}
