//! Starts the edge as a process and user of its own, which outlives the agent.
//!
//! An edge that answers on its control socket is adopted as it is. Otherwise the public ports are bound here, where the
//! privilege is, and handed over, and the edge is started without any; it is started again, after a growing pause, when
//! it dies while the agent lives. When the agent ends, nothing happens to the edge: it is in a process group of its own
//! and holds its sockets itself.

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use command_fds::{CommandFdExt as _, FdMapping};
use tokio::process::{Child, Command};
use tokio::time::Instant;
use tracing::{info, warn};

use super::client::EdgeClient;
use super::{Edge as _, EdgeError, EdgeStatus};

/// First descriptor of a hand-over, by systemd's convention.
const FIRST_HANDED: i32 = 3;
/// How long a new edge may take to answer.
const ANSWERS_WITHIN: Duration = Duration::from_secs(10);
/// How often the edge is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Pauses before it is started again.
const AGAIN: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));
/// Connections that wait in the kernel.
const BACKLOG: i32 = 4_096;

/// How the edge is started.
#[derive(Debug, Clone)]
pub struct EdgeProcess {
    /// Its program.
    pub binary: PathBuf,
    /// Its own folder.
    pub state_dir: PathBuf,
    /// The published trees.
    pub public_dir: PathBuf,
    /// Its control socket, in a folder that it may write to.
    pub control: PathBuf,
    /// File for its access log and diagnostics.
    pub log: PathBuf,
    /// Addresses for visitors.
    pub http: Vec<SocketAddr>,
    /// User and group that it runs as; `None`: as the agent does, which only an agent without privilege may ask for.
    pub user: Option<(u32, u32)>,
}

/// Why there is no edge.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// Its folders cannot be made.
    #[error("the edge's folder {} cannot be made", path.display())]
    Folder {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A public port cannot be bound.
    #[error("port {} cannot be used for visitors ({address})", address.port())]
    Bind {
        /// Which.
        address: SocketAddr,
        /// Why: usually another web server has it.
        #[source]
        source: io::Error,
    },
    /// It cannot be started.
    #[error("{} cannot be started", binary.display())]
    Start {
        /// Its program.
        binary: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It was started and does not answer.
    #[error("the edge was started and does not answer; its log is {}", log.display())]
    Silent {
        /// Where its log is.
        log: PathBuf,
        /// What the last call said.
        #[source]
        source: EdgeError,
    },
}

impl EdgeProcess {
    /// Adopts a running edge or starts one, and waits until it answers.
    ///
    /// # Errors
    /// Why there is no edge.
    pub async fn ensure(&self, client: &EdgeClient) -> Result<EdgeStatus, SpawnError> {
        if let Ok(status) = client.status().await {
            info!(version = %status.version, listen = ?status.listen, "the edge runs already");
            return Ok(status);
        }
        let child = self.start()?;
        info!(pid = child.id(), "the edge is started");
        reap(child);
        self.wait(client).await
    }

    /// Keeps an edge running for as long as the agent lives.
    pub async fn keep(self, client: EdgeClient) {
        let mut pause = AGAIN.0;
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            if client.status().await.is_ok() {
                pause = AGAIN.0;
                continue;
            }
            warn!("the edge does not answer; it is started again");
            if let Err(error) = self.ensure(&client).await {
                warn!(error = &error as &dyn std::error::Error, "the edge cannot be started");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(AGAIN.1);
            }
        }
    }

    async fn wait(&self, client: &EdgeClient) -> Result<EdgeStatus, SpawnError> {
        let deadline = Instant::now() + ANSWERS_WITHIN;
        loop {
            match client.status().await {
                Ok(status) => return Ok(status),
                Err(source) if Instant::now() >= deadline => {
                    return Err(SpawnError::Silent { log: self.log.clone(), source });
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    }

    fn start(&self) -> Result<Child, SpawnError> {
        self.folders()?;
        let sockets = self.http.iter().map(|a| bind(*a)).collect::<Result<Vec<_>, _>>()?;
        let failed = |source| SpawnError::Start { binary: self.binary.clone(), source };
        let log = fs::OpenOptions::new().create(true).append(true).open(&self.log).map_err(failed)?;
        let mut command = std::process::Command::new(&self.binary);
        command
            .arg("--state-dir")
            .arg(&self.state_dir)
            .arg("--public-dir")
            .arg(&self.public_dir)
            .arg("--control")
            .arg(&self.control)
            .env_clear()
            .env("LISTEN_FDS", sockets.len().to_string())
            .stdin(Stdio::null())
            .stdout(log.try_clone().map_err(failed)?)
            .stderr(log);
        let mappings = sockets.into_iter().zip(FIRST_HANDED..);
        let mappings = mappings.map(|(socket, child_fd)| FdMapping { parent_fd: socket.into(), child_fd }).collect();
        command.fd_mappings(mappings).map_err(|e| failed(io::Error::other(e)))?;
        let mut command = Command::from(command);
        // Its own group: a signal to the agent's group is not for the edge.
        command.process_group(0).kill_on_drop(false);
        if let Some((user, group)) = self.user {
            command.uid(user).gid(group);
        }
        command.spawn().map_err(failed)
    }

    fn folders(&self) -> Result<(), SpawnError> {
        let control = self.control.parent().unwrap_or(Path::new("/"));
        for folder in [self.state_dir.as_path(), control] {
            let made = || {
                fs::create_dir_all(folder)?;
                fs::set_permissions(folder, fs::Permissions::from_mode(0o700))?;
                match self.user {
                    Some((user, group)) => chown(folder, Some(user), Some(group)),
                    None => Ok(()),
                }
            };
            made().map_err(|source| SpawnError::Folder { path: folder.to_owned(), source })?;
        }
        Ok(())
    }
}

fn bind(address: SocketAddr) -> Result<TcpListener, SpawnError> {
    use rustix::net;
    let bound = || -> io::Result<TcpListener> {
        let family = if address.is_ipv4() { net::AddressFamily::INET } else { net::AddressFamily::INET6 };
        let socket = net::socket_with(family, net::SocketType::STREAM, net::SocketFlags::CLOEXEC, None)?;
        net::sockopt::set_socket_reuseaddr(&socket, true)?;
        if address.is_ipv6() {
            net::sockopt::set_ipv6_v6only(&socket, true)?;
        }
        net::bind(&socket, &address)?;
        net::listen(&socket, BACKLOG)?;
        Ok(TcpListener::from(socket))
    };
    bound().map_err(|source| SpawnError::Bind { address, source })
}

/// Collects the exit of an edge that dies before the agent does, so that it does not stay as a zombie.
fn reap(mut child: Child) {
    tokio::spawn(async move {
        match child.wait().await {
            Ok(status) => warn!(%status, "the edge ended"),
            Err(error) => warn!(%error, "the edge's end is unknown"),
        }
    });
}
