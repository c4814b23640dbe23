//! Where clients connect: TLS on TCP, and a Unix socket for root on this host.
//!
//! Three kinds of places bound what a stranger can hold: handshakes under way, connections without a certificate of
//! ours, and connections with one. A stranger takes places from strangers only. A connection that finds no place is
//! closed at once. Handshakes are also counted by address: one that never ends its own leaves places for all others.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;

use super::connection::Connection;
use crate::clock::Clock;
use crate::identity::authority::Authority;
use crate::identity::caller::Peer;
use crate::identity::rate::network_of;
use crate::identity::renewal::ServerCertificate;
use crate::identity::tls;
use crate::identity::trust::{Presented, TrustStore};
use crate::identity::user::User;

const MAX_HANDSHAKES: usize = 64;
/// Handshakes under way of one address, or of one IPv6 /64: each takes some milliseconds, so that an office behind one
/// address, or everybody behind one tunnel, has enough, and an eighth of all.
const MAX_HANDSHAKES_PER_ADDRESS: usize = 8;
const MAX_STRANGERS: usize = 32;
const MAX_CLIENTS: usize = 256;
const MAX_LOCAL: usize = 128;
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// After a failing accept (no descriptor left): others need a moment to close theirs.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
const BACKLOG: i32 = 256;

/// Where accepted connections go.
pub type Accepted = mpsc::Sender<io::Result<Connection>>;

/// Why the agent cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// An address cannot be bound.
    #[error("cannot listen on {address}")]
    Bind {
        /// Which.
        address: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The authority's files make no usable server.
    #[error("TLS cannot be set up: {0}")]
    Tls(String),
}

/// Binds an address; an IPv6 socket leaves IPv4 alone, so that both can be bound to one port.
///
/// # Errors
/// When it cannot be bound.
pub fn bind(address: SocketAddr) -> Result<std::net::TcpListener, ListenError> {
    try_bind(address).map_err(|source| ListenError::Bind { address: address.to_string(), source })
}

fn try_bind(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
    // A restarted agent must get its port back although old connections linger.
    sockopt::set_socket_reuseaddr(&socket, true)?;
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    rustix::net::bind(&socket, &address)?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(socket.into())
}

/// Binds every address. An unspecified IPv6 address on a host without IPv6 is left out.
///
/// # Errors
/// When another address cannot be bound, or nothing is left.
pub fn bind_all(addresses: &[SocketAddr]) -> Result<Vec<std::net::TcpListener>, ListenError> {
    let mut bound = Vec::new();
    let mut left_out = None;
    for address in addresses {
        match try_bind(*address) {
            Ok(listener) => bound.push(listener),
            Err(error) if address.is_ipv6() && address.ip().is_unspecified() && has_no_ipv6(&error) => {
                left_out = Some((*address, error));
            }
            Err(source) => return Err(ListenError::Bind { address: address.to_string(), source }),
        }
    }
    match left_out {
        Some((address, source)) if bound.is_empty() => Err(ListenError::Bind { address: address.to_string(), source }),
        _ => Ok(bound),
    }
}

fn has_no_ipv6(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AddrNotAvailable
        || error.raw_os_error() == Some(rustix::io::Errno::AFNOSUPPORT.raw_os_error())
}

/// What every TLS connection of the agent needs.
#[derive(Clone)]
pub struct TlsListener {
    acceptor: TlsAcceptor,
    certificate: Arc<ServerCertificate>,
    trust: TrustStore,
    clock: Arc<dyn Clock>,
    places: Places,
}

impl std::fmt::Debug for TlsListener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TlsListener").finish_non_exhaustive()
    }
}

#[derive(Debug, Clone)]
struct Places {
    handshakes: Arc<Semaphore>,
    by_address: Arc<ByAddress>,
    strangers: Arc<Semaphore>,
    clients: Arc<Semaphore>,
}

/// Handshakes under way by address. Never more entries than places for handshakes: one that ends takes its own away.
#[derive(Debug, Default)]
struct ByAddress(Mutex<HashMap<IpAddr, usize>>);

impl ByAddress {
    fn take(self: &Arc<Self>, from: IpAddr) -> Option<AddressPlace> {
        let network = network_of(from);
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(network).or_default();
        if *count >= MAX_HANDSHAKES_PER_ADDRESS {
            return None;
        }
        *count += 1;
        Some(AddressPlace { of: Arc::clone(self), network })
    }
}

/// One handshake of an address; over when this is dropped.
#[derive(Debug)]
struct AddressPlace {
    of: Arc<ByAddress>,
    network: IpAddr,
}

impl Drop for AddressPlace {
    fn drop(&mut self) {
        let mut counts = self.of.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.network) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.network);
            }
        }
    }
}

impl TlsListener {
    /// A listener that trusts exactly this authority.
    ///
    /// # Errors
    /// When its files make no usable server.
    pub fn new(authority: &Authority, clock: Arc<dyn Clock>) -> Result<Self, ListenError> {
        let unusable = |error: rustls::Error| ListenError::Tls(error.to_string());
        let certificate = Arc::new(ServerCertificate::of(authority).map_err(unusable)?);
        let config: Arc<ServerConfig> = tls::server_config(Arc::clone(&certificate)).map_err(unusable)?;
        let trust = TrustStore::of(authority).map_err(|error| ListenError::Tls(error.to_string()))?;
        let places = Places {
            handshakes: Arc::new(Semaphore::new(MAX_HANDSHAKES)),
            by_address: Arc::default(),
            strangers: Arc::new(Semaphore::new(MAX_STRANGERS)),
            clients: Arc::new(Semaphore::new(MAX_CLIENTS)),
        };
        Ok(Self { acceptor: TlsAcceptor::from(config), certificate, trust, clock, places })
    }

    /// What its handshakes show.
    #[must_use]
    pub fn certificate(&self) -> Arc<ServerCertificate> {
        Arc::clone(&self.certificate)
    }

    /// Accepts until the receiver is gone.
    ///
    /// # Errors
    /// When the socket cannot be used at all.
    pub async fn run(self, listener: std::net::TcpListener, to: Accepted) -> io::Result<()> {
        let listener = TcpListener::from_std(listener)?;
        loop {
            let accepted = tokio::select! {
                () = to.closed() => return Ok(()),
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, from)) => self.handshake(stream, from, to.clone()),
                Err(error) => {
                    tracing::warn!("a connection could not be accepted: {error}");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn handshake(&self, stream: TcpStream, from: SocketAddr, to: Accepted) {
        let Ok(place) = Arc::clone(&self.places.handshakes).try_acquire_owned() else {
            tracing::debug!(%from, "connection closed: {MAX_HANDSHAKES} handshakes are under way");
            return;
        };
        let Some(of_address) = self.places.by_address.take(from.ip()) else {
            tracing::debug!(%from, "connection closed: {MAX_HANDSHAKES_PER_ADDRESS} handshakes of its address are under way");
            return;
        };
        let this = self.clone();
        tokio::spawn(async move {
            let finished = tokio::time::timeout(HANDSHAKE_TIMEOUT, this.finish(stream, from)).await;
            drop((place, of_address));
            match finished {
                // A closed receiver means that the agent is ending.
                Ok(Ok(Some(connection))) => drop(to.send(Ok(connection)).await),
                Ok(Ok(None)) => tracing::debug!(%from, "connection closed: there are too many"),
                Ok(Err(error)) => tracing::debug!(%from, "handshake failed: {error}"),
                Err(_) => tracing::debug!(%from, "handshake not done within {} s", HANDSHAKE_TIMEOUT.as_secs()),
            }
        });
    }

    async fn finish(&self, stream: TcpStream, from: SocketAddr) -> io::Result<Option<Connection>> {
        // Without it a small answer waits for an acknowledgement that waits for it.
        stream.set_nodelay(true)?;
        let stream = self.acceptor.accept(stream).await?;
        let presented = self.trust.judge(stream.get_ref().1.peer_certificates(), self.clock.now_ms());
        let places = match presented {
            Presented::Ours(_) => &self.places.clients,
            Presented::Foreign | Presented::Nothing => &self.places.strangers,
        };
        let Ok(place) = Arc::clone(places).try_acquire_owned() else {
            return Ok(None);
        };
        Ok(Some(Connection::tls(stream, Peer::Network { from, presented }, place)))
    }
}

/// The Unix socket. Its file goes when this is dropped.
#[derive(Debug)]
pub struct SocketListener {
    listener: UnixListener,
    path: PathBuf,
    own_uid: u32,
}

impl SocketListener {
    /// Binds the socket, for its owner alone; a file that a dead agent left behind is replaced.
    ///
    /// # Errors
    /// When a living agent has it, or it cannot be bound.
    pub async fn bind(path: &Path) -> Result<Self, ListenError> {
        let bound = Self::try_bind(path).await;
        bound.map_err(|source| ListenError::Bind { address: path.display().to_string(), source })
    }

    async fn try_bind(path: &Path) -> io::Result<Self> {
        if UnixStream::connect(path).await.is_ok() {
            return Err(io::Error::new(io::ErrorKind::AddrInUse, "another agent answers there"));
        }
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(path)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
        Ok(Self { listener, path: path.to_owned(), own_uid: rustix::process::geteuid().as_raw() })
    }

    /// Accepts until the receiver is gone.
    pub async fn run(self, to: Accepted) {
        let places = Arc::new(Semaphore::new(MAX_LOCAL));
        loop {
            let accepted = tokio::select! {
                () = to.closed() => return,
                accepted = self.listener.accept() => accepted,
            };
            let Ok((stream, _)) = accepted else {
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            };
            let (Some(peer), Ok(place)) = (self.peer(&stream), Arc::clone(&places).try_acquire_owned()) else {
                continue;
            };
            if to.send(Ok(Connection::unix(stream, peer, place))).await.is_err() {
                return;
            }
        }
    }

    fn peer(&self, stream: &UnixStream) -> Option<Peer> {
        let uid = stream.peer_cred().ok()?.uid();
        if !may_connect(uid, self.own_uid) {
            tracing::warn!(uid, "connection to the Unix socket refused: only root may use it");
            return None;
        }
        Some(Peer::Socket { uid, name: User::name_of(uid) })
    }
}

impl Drop for SocketListener {
    fn drop(&mut self) {
        // The next agent replaces a file that stays behind.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Whether a user may use the Unix socket: root, and whoever runs the agent.
#[must_use]
pub fn may_connect(uid: u32, own_uid: u32) -> bool {
    uid == 0 || uid == own_uid
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_root_and_the_agents_own_user_may_use_the_socket() {
        for (uid, own, ok) in [(0, 0, true), (0, 1_000, true), (1_000, 1_000, true), (1_000, 0, false), (5, 6, false)] {
            assert_eq!(may_connect(uid, own), ok, "{uid} {own}");
        }
    }

    #[tokio::test]
    async fn one_address_cannot_take_every_handshake() {
        use tokio::io::AsyncReadExt as _;

        let folder = tempfile::tempdir().unwrap();
        let clock = crate::clock::ManualClock::at(1_800_000_000_000);
        let authority = Authority::create(folder.path(), clock.now_ms()).unwrap();
        let listener = bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        let (to, _accepted) = mpsc::channel(1);
        tokio::spawn(TlsListener::new(&authority, Arc::new(clock)).unwrap().run(listener, to));
        let connect = async |from: &str| {
            let socket = tokio::net::TcpSocket::new_v4().unwrap();
            socket.bind(format!("{from}:0").parse().unwrap()).unwrap();
            socket.connect(address).await.unwrap()
        };
        let mut half_open = Vec::new();
        for _ in 0..MAX_HANDSHAKES_PER_ADDRESS {
            half_open.push(connect("127.0.0.1").await);
        }
        // Connections are accepted in order: the next one finds those before it under way.
        let mut refused = connect("127.0.0.1").await;
        let ended = tokio::time::timeout(HANDSHAKE_TIMEOUT / 2, refused.read(&mut [0])).await;
        assert_eq!(ended.expect("closed at once").unwrap(), 0);
        // TLS answers what is no handshake with an alert: somebody listens.
        let mut other = connect("127.0.0.2").await;
        tokio::io::AsyncWriteExt::write_all(&mut other, b"no handshake at all").await.unwrap();
        let answered = tokio::time::timeout(HANDSHAKE_TIMEOUT / 2, other.read(&mut [0])).await;
        assert_eq!(answered.expect("answered at once").unwrap(), 1);
    }

    #[test]
    fn an_ipv6_network_is_one_address_and_a_place_is_given_back() {
        let places = Arc::new(ByAddress::default());
        let take = |n: usize| places.take(format!("2001:db8::{n}").parse().unwrap());
        let taken: Vec<_> = (0..MAX_HANDSHAKES_PER_ADDRESS).map(|n| take(n).unwrap()).collect();
        assert!(take(99).is_none());
        assert!(places.take("2001:db8:0:1::1".parse().unwrap()).is_some());
        drop(taken);
        assert!(places.0.lock().unwrap().is_empty());
        assert!(take(99).is_some());
    }

    #[tokio::test]
    async fn the_socket_is_for_its_owner_alone_and_replaces_only_a_dead_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let socket = SocketListener::bind(&path).await.unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let second = SocketListener::bind(&path).await.unwrap_err();
        assert_eq!(std::error::Error::source(&second).unwrap().to_string(), "another agent answers there");
        drop(socket);
        assert!(!path.exists());
    }

    #[test]
    fn one_port_is_bound_for_both_families() {
        let v4 = bind("0.0.0.0:0".parse().unwrap()).unwrap();
        let port = v4.local_addr().unwrap().port();
        let both = bind_all(&[format!("[::]:{port}").parse().unwrap()]);
        // A host without IPv6 has nothing to bind there, and says so.
        assert!(both.is_ok() || both.is_err_and(|e| std::error::Error::source(&e).is_some()));
        assert!(bind(format!("0.0.0.0:{port}").parse().unwrap()).is_err());
    }
}
