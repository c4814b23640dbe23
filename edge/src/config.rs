//! Configuration: from arguments and inherited sockets to a validated value, before anything is opened.

use std::fmt;
use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;

use clap::Parser;

use crate::limits::{ClientLimit, Timeouts};

/// Longest path of a Unix socket in bytes, with room for a temporary suffix.
const MAX_SOCKET_PATH_BYTES: usize = 96;
/// Most listeners.
const MAX_LISTENERS: usize = 64;

/// The data plane of Refloat: carries public traffic and switches it.
#[derive(Debug, Clone, Parser)]
#[command(name = "refloat-edge", version)]
pub struct Args {
    /// Folder for the last route table, so that it serves after a restart without the agent.
    #[arg(long, value_name = "DIR")]
    pub state_dir: PathBuf,
    /// Folder of published sites, written by the agent; only read here.
    #[arg(long, value_name = "DIR")]
    pub public_dir: PathBuf,
    /// Unix socket on which the agent gives its orders.
    #[arg(long, value_name = "SOCKET")]
    pub control: PathBuf,
    /// Address for public traffic, such as 0.0.0.0:80 or [::]:80; may be given several times. Sockets handed over by
    /// LISTEN_FDS are used as well.
    #[arg(long, value_name = "ADDR")]
    pub listen: Vec<SocketAddr>,
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Nowhere to listen.
    #[error("nowhere to listen: give --listen ADDR or hand over a socket by LISTEN_FDS")]
    NoListener,
    /// Too many listeners.
    #[error("more than {MAX_LISTENERS} addresses to listen on")]
    TooManyListeners,
    /// One address twice.
    #[error("--listen {0} is given twice")]
    Twice(SocketAddr),
    /// A relative path would mean another place after the working folder changed.
    #[error("{flag} must be an absolute path, not {path}")]
    Relative {
        /// Which flag.
        flag: &'static str,
        /// What was given.
        path: PathBuf,
    },
    /// The kernel has a limit.
    #[error("the path of the control socket is longer than {MAX_SOCKET_PATH_BYTES} bytes: {0}")]
    SocketPath(PathBuf),
}

/// What an edge is started with.
pub struct Config {
    /// Folder for the last route table.
    pub state_dir: PathBuf,
    /// Folder of published sites.
    pub public_dir: PathBuf,
    /// The control socket.
    pub control: PathBuf,
    /// Addresses to bind.
    pub listen: Vec<SocketAddr>,
    /// Sockets that are bound already.
    pub inherited: Vec<TcpListener>,
    /// How long things may take.
    pub timeouts: Timeouts,
    /// How many connections one client may have.
    pub client_limit: ClientLimit,
    /// Where the access log goes.
    pub access_log: Box<dyn Write + Send>,
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("state_dir", &self.state_dir)
            .field("public_dir", &self.public_dir)
            .field("control", &self.control)
            .field("listen", &self.listen)
            .field("inherited", &self.inherited)
            .finish_non_exhaustive()
    }
}

impl Config {
    /// Validates what was given.
    ///
    /// # Errors
    /// The first thing that is wrong, as a sentence.
    pub fn new(args: Args, inherited: Vec<TcpListener>) -> Result<Self, ConfigError> {
        match args.listen.len() + inherited.len() {
            0 => return Err(ConfigError::NoListener),
            n if n > MAX_LISTENERS => return Err(ConfigError::TooManyListeners),
            _ => {}
        }
        for (i, address) in args.listen.iter().enumerate() {
            if address.port() != 0 && args.listen[..i].contains(address) {
                return Err(ConfigError::Twice(*address));
            }
        }
        let paths =
            [("--state-dir", &args.state_dir), ("--public-dir", &args.public_dir), ("--control", &args.control)];
        if let Some((flag, path)) = paths.into_iter().find(|(_, path)| !path.is_absolute()) {
            return Err(ConfigError::Relative { flag, path: path.clone() });
        }
        if args.control.as_os_str().len() > MAX_SOCKET_PATH_BYTES {
            return Err(ConfigError::SocketPath(args.control));
        }
        Ok(Self {
            state_dir: args.state_dir,
            public_dir: args.public_dir,
            control: args.control,
            listen: args.listen,
            inherited,
            timeouts: Timeouts::default(),
            client_limit: ClientLimit::default(),
            access_log: Box::new(std::io::stdout()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(listen: &[&str], control: &str) -> Result<Config, ConfigError> {
        let args = Args {
            state_dir: "/state".into(),
            public_dir: "/public".into(),
            control: control.into(),
            listen: listen.iter().map(|a| a.parse().unwrap()).collect(),
        };
        Config::new(args, Vec::new())
    }

    #[test]
    fn what_cannot_work_is_refused_before_a_port_binds() {
        assert!(config(&["127.0.0.1:0", "127.0.0.1:0", "[::1]:80"], "/run/edge.sock").is_ok());
        assert!(matches!(config(&[], "/run/edge.sock"), Err(ConfigError::NoListener)));
        assert!(matches!(config(&["127.0.0.1:80", "127.0.0.1:80"], "/run/e"), Err(ConfigError::Twice(_))));
        assert!(matches!(config(&["127.0.0.1:80"], "edge.sock"), Err(ConfigError::Relative { .. })));
        let long = format!("/{}", "a".repeat(100));
        assert!(matches!(config(&["127.0.0.1:80"], &long), Err(ConfigError::SocketPath(_))));
        assert!(matches!(config(&["127.0.0.1:1"; 65], "/e"), Err(ConfigError::TooManyListeners)));
    }
}
