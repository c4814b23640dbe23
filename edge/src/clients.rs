//! How many connections each client address has, so that one of them cannot take the memory of all.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

use crate::limits::ClientLimit;

/// The part of an IPv6 address that one subscriber has: a /64 is given to one, and any address in it is his to use.
const IPV6_SUBSCRIBER: u128 = !(u64::MAX as u128);

/// Connections by address; one that has none has no entry.
#[derive(Debug)]
pub struct Clients {
    limit: ClientLimit,
    open: Mutex<HashMap<IpAddr, u32>>,
}

/// One counted connection; dropping it counts it back.
#[derive(Debug)]
pub struct Admitted {
    clients: Arc<Clients>,
    counted: Option<IpAddr>,
}

impl Clients {
    /// Nobody yet.
    #[must_use]
    pub fn new(limit: ClientLimit) -> Arc<Self> {
        Arc::new(Self { limit, open: Mutex::default() })
    }

    /// Counts a connection; `None` when its address has as many as it may.
    #[must_use]
    pub fn admit(self: &Arc<Self>, peer: IpAddr) -> Option<Admitted> {
        let client = subscriber(peer);
        if client.is_loopback() && self.limit.loopback_exempt {
            return Some(Admitted { clients: self.clone(), counted: None });
        }
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let count = open.get(&client).copied().unwrap_or(0);
        if count >= self.limit.connections {
            return None;
        }
        open.insert(client, count + 1);
        Some(Admitted { clients: self.clone(), counted: Some(client) })
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let Some(client) = self.counted else { return };
        let mut open = self.clients.open.lock().unwrap_or_else(PoisonError::into_inner);
        match open.get_mut(&client) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(open.remove(&client)),
        }
    }
}

/// The address under which a client is counted.
fn subscriber(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(address) if !address.is_loopback() => {
            Ipv6Addr::from_bits(address.to_bits() & IPV6_SUBSCRIBER).into()
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clients(loopback_exempt: bool) -> Arc<Clients> {
        Clients::new(ClientLimit { connections: 2, loopback_exempt })
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_address_that_has_its_share_waits_for_one_of_its_own_to_end() {
        let clients = clients(true);
        let first = clients.admit(ip("192.0.2.1")).unwrap();
        let second = clients.admit(ip("::ffff:192.0.2.1")).unwrap();
        assert!(clients.admit(ip("192.0.2.1")).is_none());
        let other = clients.admit(ip("192.0.2.2")).unwrap();
        drop(first);
        let third = clients.admit(ip("192.0.2.1")).unwrap();
        drop((second, third, other));
        assert!(clients.open.lock().unwrap().is_empty(), "who has left is forgotten");
    }

    #[test]
    fn an_ipv6_network_of_64_bits_is_one_client() {
        let clients = clients(true);
        let _held = [clients.admit(ip("2001:db8::1")).unwrap(), clients.admit(ip("2001:db8::ffff:0:0:2")).unwrap()];
        assert!(clients.admit(ip("2001:db8::3")).is_none());
        assert!(clients.admit(ip("2001:db8:0:1::1")).is_some());
    }

    #[test]
    fn loopback_has_no_limit_unless_it_is_asked_for() {
        for address in ["127.0.0.1", "::1", "::ffff:127.0.0.9"] {
            let (exempt, counted) = (clients(true), clients(false));
            let free: Vec<_> = (0..9).map(|_| exempt.admit(ip(address))).collect();
            let held: Vec<_> = (0..9).map(|_| counted.admit(ip(address))).collect();
            assert!(free.iter().all(Option::is_some), "{address}");
            assert_eq!(held.iter().flatten().count(), 2, "{address}");
        }
    }
}
