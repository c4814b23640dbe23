//! Numbers that tests of one machine must not share: ports and networks.
//!
//! Each is a file in the system's temporary folder, locked as long as the reservation lives. A port stays reserved
//! while its program is down, so that it can come back on it.

use std::fs::{File, TryLockError};
use std::net::{Ipv4Addr, TcpListener};

/// Below what the kernel hands out by itself (`ip_local_port_range` begins at 32768).
const PORTS: std::ops::Range<u16> = 20_000..32_000;
/// Networks of 64 apps each: 10.224.0.0/20 up to 10.239.240.0/20.
const NETWORKS: std::ops::Range<u16> = 0..256;

/// A number that is ours until dropped.
#[derive(Debug)]
pub struct Reservation {
    number: u16,
    _lock: File,
}

impl Reservation {
    /// A loopback port that nobody listens on.
    ///
    /// # Panics
    /// When there is none left.
    #[must_use]
    pub fn port() -> Self {
        let free = |port: u16| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok();
        Self::first("port", PORTS, free).expect("a free port")
    }

    /// A number for networks.
    ///
    /// # Panics
    /// When there is none left.
    #[must_use]
    pub fn network() -> Self {
        Self::first("network", NETWORKS, |_| true).expect("a free network")
    }

    /// This very network, unless somebody has it.
    #[must_use]
    pub fn this_network(number: u16) -> Option<Self> {
        Self::first("network", number..number.saturating_add(1), |_| NETWORKS.contains(&number))
    }

    /// The number.
    #[must_use]
    pub fn number(&self) -> u16 {
        self.number
    }

    /// The subnet of a network's number, in CIDR notation.
    #[must_use]
    pub fn subnet(&self) -> String {
        format!("10.{}.{}.0/20", 224 + self.number / 16, self.number % 16 * 16)
    }

    fn first(kind: &str, mut range: std::ops::Range<u16>, free: impl Fn(u16) -> bool) -> Option<Self> {
        range.find_map(|number| {
            let path = std::env::temp_dir().join(format!("refloat-test-{kind}-{number}.lock"));
            let lock = File::options().create(true).append(true).open(path).ok()?;
            match lock.try_lock() {
                Ok(()) if free(number) => Some(Self { number, _lock: lock }),
                Ok(()) | Err(TryLockError::WouldBlock | TryLockError::Error(_)) => None,
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_reserved_is_not_given_twice() {
        let (a, b) = (Reservation::port(), Reservation::port());
        assert_ne!(a.number(), b.number());
        let network = Reservation::network();
        assert_ne!(network.subnet(), "");
        assert!(Reservation::this_network(network.number()).is_none(), "it is taken");
    }

    #[test]
    fn there_is_no_network_beyond_the_last() {
        assert!(Reservation::this_network(NETWORKS.end).is_none());
    }

    #[test]
    fn networks_are_of_4096_addresses_each() {
        let network = |number| {
            let lock = tempfile::tempfile().expect("a temporary file can be made");
            Reservation { number, _lock: lock }
        };
        for (number, subnet) in [(0, "10.224.0.0/20"), (17, "10.225.16.0/20"), (255, "10.239.240.0/20")] {
            assert_eq!(network(number).subnet(), subnet);
        }
    }
}
