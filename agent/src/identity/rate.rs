//! How often an address may try: a token bucket per address, in a map that cannot grow without end.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};

/// Attempts that an address has at once, and gets back within a minute.
pub const ATTEMPTS_PER_MINUTE: u32 = 10;
/// Addresses that are remembered. When all of them are in use, every further address shares one bucket.
const MAX_ADDRESSES: usize = 10_000;
const MINUTE_MS: u64 = 60_000;

/// The buckets.
#[derive(Debug, Default)]
pub struct Attempts {
    buckets: HashMap<Key, Bucket>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Key {
    Address(IpAddr),
    Everyone,
}

/// When the bucket will be full again: one number that holds both level and time.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    full_at_ms: u64,
}

impl Attempts {
    /// Takes one attempt of this address; `Err` says after how many milliseconds the next one may come.
    ///
    /// # Errors
    /// When none is left.
    pub fn take(&mut self, from: IpAddr, now_ms: u64) -> Result<(), u64> {
        const EACH_MS: u64 = MINUTE_MS / ATTEMPTS_PER_MINUTE as u64;
        let key = self.key(from, now_ms);
        let bucket = self.buckets.entry(key).or_insert(Bucket { full_at_ms: now_ms });
        // The upper bound: a clock that was set back must not lock anybody out for longer than a minute.
        bucket.full_at_ms = bucket.full_at_ms.clamp(now_ms, now_ms + MINUTE_MS);
        let taken = bucket.full_at_ms + EACH_MS;
        if taken > now_ms + MINUTE_MS {
            return Err(taken - now_ms - MINUTE_MS);
        }
        bucket.full_at_ms = taken;
        Ok(())
    }

    fn key(&mut self, from: IpAddr, now_ms: u64) -> Key {
        let key = Key::Address(network_of(from));
        if self.buckets.contains_key(&key) || self.buckets.len() < MAX_ADDRESSES {
            return key;
        }
        self.buckets.retain(|_, bucket| bucket.full_at_ms > now_ms);
        if self.buckets.len() < MAX_ADDRESSES { key } else { Key::Everyone }
    }
}

/// What one customer of a provider holds: an IPv4 address, or an IPv6 /64.
pub(crate) fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(v4) => v4.into(),
        IpAddr::V6(v6) => Ipv6Addr::from(u128::from(v6) & !u128::from(u64::MAX)).into(),
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const NOW_MS: u64 = 1_000_000;

    fn take(attempts: &mut Attempts, from: &str, now_ms: u64) -> Result<(), u64> {
        attempts.take(from.parse().unwrap(), now_ms)
    }

    #[test]
    fn ten_attempts_at_once_then_one_every_six_seconds() {
        let mut attempts = Attempts::default();
        for _ in 0..10 {
            assert_eq!(take(&mut attempts, "192.0.2.1", NOW_MS), Ok(()));
        }
        assert_eq!(take(&mut attempts, "192.0.2.1", NOW_MS), Err(6_000));
        assert_eq!(take(&mut attempts, "192.0.2.2", NOW_MS), Ok(()));
        assert_eq!(take(&mut attempts, "192.0.2.1", NOW_MS + 5_999), Err(1));
        assert_eq!(take(&mut attempts, "192.0.2.1", NOW_MS + 6_000), Ok(()));
        assert!(take(&mut attempts, "192.0.2.1", NOW_MS + 6_000).is_err());
    }

    #[test]
    fn an_ipv6_network_counts_as_one_and_a_mapped_address_as_ipv4() {
        let mut attempts = Attempts::default();
        for n in 0..10 {
            assert_eq!(take(&mut attempts, &format!("2001:db8::{n}"), NOW_MS), Ok(()));
        }
        assert!(take(&mut attempts, "2001:db8::ffff", NOW_MS).is_err());
        assert_eq!(network_of("::ffff:192.0.2.1".parse().unwrap()), "192.0.2.1".parse::<IpAddr>().unwrap());
    }

    #[test]
    fn the_map_has_an_end_and_what_is_beyond_shares_one_bucket() {
        let mut attempts = Attempts::default();
        for n in 0..MAX_ADDRESSES as u32 + 10 {
            assert_eq!(attempts.take(Ipv4Addr::from(n).into(), NOW_MS), Ok(()));
        }
        assert_eq!(attempts.buckets.len(), MAX_ADDRESSES + 1);
        assert!(take(&mut attempts, "255.0.0.1", NOW_MS).is_err());
        assert_eq!(take(&mut attempts, "255.0.0.1", NOW_MS + MINUTE_MS), Ok(()));
        assert!(attempts.buckets.len() <= 2);
    }

    #[test]
    fn a_clock_that_was_set_back_locks_nobody_out_for_longer_than_a_minute() {
        let mut attempts = Attempts::default();
        for _ in 0..10 {
            take(&mut attempts, "192.0.2.1", NOW_MS * 9).unwrap();
        }
        assert_eq!(take(&mut attempts, "192.0.2.1", NOW_MS), Err(6_000));
        assert_eq!(take(&mut attempts, "192.0.2.1", NOW_MS + 6_000), Ok(()));
    }
}
