//! One instance as the edge connects to it, and its idle connections.
//!
//! A connection is reused when it is younger in idleness than the app's own keep-alive time and nothing was read from
//! it meanwhile. Whether a failed request may be sent again is decided in `proxy`; this file only says whether a
//! connection was used before.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use refloat_model::InstanceName;
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

use crate::body::Source;
use crate::inflight::{Counter, Counters};
use crate::limits::{APP_NETWORK_BITS, MAX_IDLE_PER_INSTANCE, UPSTREAM_IDLE, UPSTREAM_IDLE_UNREPEATABLE};

/// A connection to an instance.
#[derive(Debug)]
pub struct Link {
    /// Its reading side.
    pub source: Source<OwnedReadHalf>,
    /// Its writing side.
    pub sink: OwnedWriteHalf,
    /// Whether it carried a request before.
    pub reused: bool,
}

impl Link {
    /// Where it leads, as text.
    #[must_use]
    pub fn peer(&self) -> String {
        self.sink.peer_addr().map_or_else(|_| "localhost".to_owned(), |address| address.to_string())
    }

    /// Whether it is open with nothing to read, as an idle connection must be.
    fn is_quiet(&self) -> bool {
        let mut byte = [0];
        let read = self.source.io().try_read(&mut byte);
        self.source.buffer.is_empty() && matches!(read, Err(e) if e.kind() == io::ErrorKind::WouldBlock)
    }
}

/// Whether a connection from this address stays on the link of the instance. The engine makes an app's network some time
/// after a boot; until then its addresses follow the default route, and whoever answers there must see no request.
fn is_beside(local: SocketAddr, instance: Ipv4Addr) -> bool {
    let IpAddr::V4(local) = local.ip() else { return false };
    let network = |address: Ipv4Addr| u32::from(address) >> (u32::BITS - APP_NETWORK_BITS);
    instance.is_loopback() || network(local) == network(instance)
}

#[derive(Debug)]
struct Idle {
    link: Link,
    since: Instant,
}

/// One instance.
#[derive(Debug)]
pub struct Upstream {
    /// Its name.
    pub name: InstanceName,
    /// Where it listens.
    pub address: SocketAddrV4,
    /// What is in flight to it.
    pub in_flight: Counter,
    idle: Mutex<Vec<Idle>>,
}

impl Upstream {
    fn new(name: InstanceName, address: SocketAddrV4, in_flight: Counter) -> Self {
        Self { name, address, in_flight, idle: Mutex::default() }
    }

    /// An idle connection that may be used: the one that was used last. `repeatable` is whether the request may be
    /// sent again if the app closes the connection at the same moment.
    #[must_use]
    pub fn idle_link(&self, repeatable: bool) -> Option<Link> {
        let limit = if repeatable { UPSTREAM_IDLE } else { UPSTREAM_IDLE_UNREPEATABLE };
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(Idle { link, since }) = idle.pop() {
            if since.elapsed() < limit && link.is_quiet() {
                return Some(link);
            }
        }
        None
    }

    /// A new connection.
    ///
    /// # Errors
    /// When the instance does not accept it in time, or when it would be somebody beyond this host who did.
    pub async fn connect(&self, within: Duration) -> io::Result<Link> {
        let stream = tokio::time::timeout(within, TcpStream::connect(self.address))
            .await
            .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        if !is_beside(stream.local_addr()?, *self.address.ip()) {
            return Err(io::Error::new(io::ErrorKind::NetworkUnreachable, "its network is not there (yet)"));
        }
        stream.set_nodelay(true)?;
        let (read, sink) = stream.into_split();
        Ok(Link { source: Source::new(read), sink, reused: false })
    }

    /// Keeps a connection for the next request.
    pub fn put_back(&self, mut link: Link) {
        link.reused = true;
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < MAX_IDLE_PER_INSTANCE && link.source.buffer.is_empty() {
            link.source.buffer = BytesMut::new();
            idle.push(Idle { link, since: Instant::now() });
        }
    }

    fn sweep(&self) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|i| i.since.elapsed() < UPSTREAM_IDLE);
        if idle.is_empty() {
            idle.shrink_to_fit();
        }
    }
}

/// Every instance that a table or a request knows, so that two tables share one's connections.
#[derive(Debug, Default)]
pub struct Upstreams {
    known: Mutex<HashMap<(InstanceName, SocketAddrV4), Weak<Upstream>>>,
    /// What is in flight, by name.
    pub counters: Counters,
}

impl Upstreams {
    /// The instance with this name at this address.
    #[must_use]
    pub fn of(&self, name: &InstanceName, address: SocketAddrV4) -> Arc<Upstream> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, upstream| upstream.strong_count() > 0);
        let key = (name.clone(), address);
        if let Some(upstream) = known.get(&key).and_then(Weak::upgrade) {
            return upstream;
        }
        let upstream = Arc::new(Upstream::new(name.clone(), address, self.counters.of(name)));
        known.insert(key, Arc::downgrade(&upstream));
        upstream
    }

    /// Closes what has idled too long.
    pub fn sweep(&self) {
        let known: Vec<_> = {
            let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            known.values().filter_map(Weak::upgrade).collect()
        };
        known.iter().for_each(|upstream| upstream.sweep());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_that_would_leave_the_host_is_not_used() {
        for (local, instance, used) in [
            ("10.201.0.65:40000", "10.201.0.68", true),
            ("10.201.0.127:40000", "10.201.0.68", true),
            ("10.201.0.129:40000", "10.201.0.68", false),
            ("192.0.2.10:40000", "10.201.0.68", false),
            ("127.0.0.1:40000", "127.0.0.1", true),
            ("127.0.0.1:40000", "127.1.0.9", true),
            ("[::1]:40000", "10.201.0.68", false),
        ] {
            let found = is_beside(local.parse().unwrap(), instance.parse().unwrap());
            assert_eq!(found, used, "from {local} to {instance}");
        }
    }
}
