//! `host`, `host:port`, `[v6]:port`.

use crate::failure::Failure;

/// Where something listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Address {
    /// A name or an address, without brackets.
    pub(crate) host: String,
    /// The port.
    pub(crate) port: u16,
}

impl Address {
    /// Parses it; `port` is for one that has none.
    ///
    /// # Errors
    /// When it is neither a name nor an address.
    pub(crate) fn parse(text: &str, port: u16) -> Result<Self, Failure> {
        let wrong =
            || Failure::usage(format!("{text:?} is not a server: write it as name, name:port or [address]:port."));
        let (host, rest) = split(text).ok_or_else(wrong)?;
        let port = match rest {
            None => port,
            Some(digits) => digits.parse().ok().filter(|p| *p > 0).ok_or_else(wrong)?,
        };
        if is_host(host) { Ok(Self { host: host.to_owned(), port }) } else { Err(wrong()) }
    }
}

/// The host and what follows its colon.
fn split(text: &str) -> Option<(&str, Option<&str>)> {
    if let Some(rest) = text.strip_prefix('[') {
        let (host, rest) = rest.split_once(']')?;
        return match rest {
            "" => Some((host, None)),
            _ => Some((host, Some(rest.strip_prefix(':')?))),
        };
    }
    match text.split_once(':') {
        // More than one colon and no brackets: an address of IPv6 without a port.
        Some((_, rest)) if rest.contains(':') => Some((text, None)),
        Some((host, port)) => Some((host, Some(port))),
        None => Some((text, None)),
    }
}

/// A name or an address, and nothing that a program could take for an option.
pub(super) fn is_host(host: &str) -> bool {
    if host.parse::<std::net::Ipv6Addr>().is_ok() {
        return true;
    }
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
    !host.is_empty() && host.len() <= 253 && !host.starts_with(['-', '.']) && host.bytes().all(plain)
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_names_or_addresses_with_or_without_a_port() {
        for (text, host, port) in [
            ("vps", "vps", 7443),
            ("vps.example.com:99", "vps.example.com", 99),
            ("192.0.2.1", "192.0.2.1", 7443),
            ("[2001:db8::1]:99", "2001:db8::1", 99),
            ("[2001:db8::1]", "2001:db8::1", 7443),
            ("2001:db8::1", "2001:db8::1", 7443),
        ] {
            assert_eq!(Address::parse(text, 7443), Ok(Address { host: host.to_owned(), port }), "{text}");
        }
    }

    #[test]
    fn what_is_no_server_is_refused() {
        for text in [
            "",
            ":1",
            "-oProxyCommand=x",
            "a b",
            "vps:",
            "vps:0",
            "vps:99999",
            "vps/x",
            "[::1",
            "[::1]x",
            "a:b:c",
            ".x",
        ] {
            assert!(Address::parse(text, 7443).is_err(), "{text:?}");
        }
    }

    #[test]
    fn an_address_is_written_as_it_is_read() {
        for text in ["vps:99", "[2001:db8::1]:99"] {
            assert_eq!(Address::parse(text, 7443).expect("it is one").to_string(), text);
        }
    }
}
