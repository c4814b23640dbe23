//! Sockets: binding them, and accepting for as long as the edge lives.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixListener};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::clients::Clients;
use crate::connection;
use crate::limits::{ACCEPT_BACK_OFF, ACCEPT_BACKLOG};
use crate::shared::Shared;

/// Why a socket is not there.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// A public address.
    #[error("{address} cannot be listened on")]
    Address {
        /// Which.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A socket that was handed over.
    #[error("a socket that was handed over cannot be used")]
    Inherited(#[source] io::Error),
    /// The control socket.
    #[error("the control socket {path} cannot be made")]
    Control {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Binds a public address. An IPv6 address is only that, so that `[::]` and `0.0.0.0` stand side by side.
///
/// # Errors
/// When it is taken or not allowed.
pub fn bind(address: SocketAddr) -> Result<TcpListener, ListenError> {
    let bound = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        if address.is_ipv6() {
            rustix::net::sockopt::set_ipv6_v6only(&socket, true)?;
        }
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(ACCEPT_BACKLOG)
    };
    bound().map_err(|source| ListenError::Address { address, source })
}

/// Takes a socket that was bound by whoever started the edge.
///
/// # Errors
/// When it cannot be used.
pub fn adopt(listener: std::net::TcpListener) -> Result<TcpListener, ListenError> {
    let adopted = || {
        listener.set_nonblocking(true)?;
        TcpListener::from_std(listener)
    };
    adopted().map_err(ListenError::Inherited)
}

/// Makes the control socket: bound under another name, closed to others, then moved over a stale one, so that at no
/// moment anybody else can open it. Only one edge has the state folder, so whatever lies there is stale.
///
/// # Errors
/// When it cannot be made.
pub fn bind_control(path: &Path) -> Result<UnixListener, ListenError> {
    let bound = || {
        let mut new = path.as_os_str().to_owned();
        new.push(".new");
        let _ = fs::remove_file(&new);
        let listener = UnixListener::bind(&new)?;
        fs::set_permissions(&new, fs::Permissions::from_mode(0o600))?;
        fs::rename(&new, path)?;
        Ok(listener)
    };
    bound().map_err(|source| ListenError::Control { path: path.to_owned(), source })
}

/// Everything that accepting needs.
#[derive(Debug, Clone)]
pub struct Acceptor {
    /// What connections share.
    pub shared: Arc<Shared>,
    /// Cancelled when the edge is about to end.
    pub stop: CancellationToken,
    /// One permit per connection.
    pub slots: Arc<Semaphore>,
    /// Connections by address.
    pub clients: Arc<Clients>,
    /// The connections.
    pub tasks: TaskTracker,
}

impl Acceptor {
    /// Accepts until the edge is about to end.
    pub async fn run(self, listener: TcpListener) {
        loop {
            let next = async {
                // One more than the limit waits in the kernel's queue.
                let slot = self.slots.clone().acquire_owned().await.ok();
                (slot, listener.accept().await)
            };
            let (slot, accepted) = tokio::select! {
                // Dropping an accept that has not completed loses no connection.
                () = self.stop.cancelled() => return,
                next = next => next,
            };
            match accepted {
                Ok((stream, peer)) => {
                    let Some(admitted) = self.clients.admit(peer.ip()) else {
                        tracing::debug!(%peer, "closed a connection: its address has as many as it may");
                        continue;
                    };
                    let acceptor = self.clone();
                    self.tasks.spawn(async move {
                        acceptor.serve(stream, peer).await;
                        drop((admitted, slot));
                    });
                }
                Err(error) => back_off(&error).await,
            }
        }
    }

    async fn serve(self, stream: TcpStream, peer: SocketAddr) {
        if stream.set_nodelay(true).is_ok() {
            connection::serve(stream, peer.ip(), self.shared, self.stop).await;
        }
    }
}

/// A connection that went away before it was accepted is nothing; without descriptors it takes a while until one is free.
async fn back_off(error: &io::Error) {
    let gone = [io::ErrorKind::ConnectionAborted, io::ErrorKind::ConnectionReset, io::ErrorKind::Interrupted];
    if !gone.contains(&error.kind()) {
        tracing::error!(%error, "cannot accept a connection");
        tokio::time::sleep(ACCEPT_BACK_OFF).await;
    }
}
