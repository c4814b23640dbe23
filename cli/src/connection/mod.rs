//! The way to an agent: a paired server over mutual TLS, a socket on this host, or ssh.
//!
//! Every way ends in one stream of bytes that carries gRPC. A connection is made once; whoever loses it opens another
//! one, so that nothing is sent twice without anybody knowing.

mod address;
pub(crate) mod pairing;
mod ssh;
mod tls;

use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tonic::transport::{Channel, Endpoint};
use tonic::{Response, Status};

use crate::args::Global;
use crate::exit::Exit;
use crate::failure::{Failure, chain};
use crate::home::Home;
use crate::home::server::PairedServer;
use crate::unix;
pub(crate) use address::Address;
use ssh::SshAddress;

/// The agent's port unless the user says otherwise.
pub(crate) const DEFAULT_PORT: u16 = 7443;
/// How long it may take until the server is reached.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a question may take that is answered at once.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// How often a silent connection is probed while something is awaited, and how long the answer may take.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// What the server may send before we have read it: output of a build comes in bursts.
const WINDOW_BYTES: u32 = 1 << 20;
/// Set it to talk to the agent through this socket; set to nothing, an agent on this host is not looked for.
const SOCKET_VARIABLE: &str = "REFLOAT_SOCKET";

/// A stream of bytes in both directions.
trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wire for T {}

/// Which agent is meant, and how it is reached.
#[derive(Debug, Clone)]
pub(crate) enum Target {
    /// A paired server.
    Paired(PairedServer),
    /// A socket on this host.
    Socket(PathBuf),
    /// Through ssh.
    Ssh(SshAddress),
}

impl Target {
    /// As the command line says, else the paired server, else the agent on this host.
    ///
    /// # Errors
    /// When there is none, or several and none was chosen.
    pub(crate) fn choose(global: &Global, home: &Home) -> Result<Self, Failure> {
        if let Some(path) = &global.socket {
            return Ok(Self::Socket(path.clone()));
        }
        if let Some(url) = &global.via {
            return SshAddress::parse(url).map(Self::Ssh);
        }
        let name = global.server.as_deref();
        let socket = std::env::var_os(SOCKET_VARIABLE);
        if let (None, Some(path)) = (name, socket.as_ref().filter(|path| !path.is_empty())) {
            return Ok(Self::Socket(path.into()));
        }
        match home.server(name)? {
            Some(server) => Ok(Self::Paired(server)),
            // The folder stays when the agent is down: then that is what is told, not that this device is not paired.
            None if socket.is_none() && Path::new(unix::AGENT_SOCKET).parent().is_some_and(Path::exists) => {
                Ok(Self::Socket(unix::AGENT_SOCKET.into()))
            }
            None => Err(unpaired()),
        }
    }

    /// The host's name or address as this device reaches it; `None` when it is this host.
    pub(crate) fn host(&self) -> Option<String> {
        match self {
            Self::Paired(server) => Some(Address::parse(&server.file.address, DEFAULT_PORT).ok()?.host),
            Self::Ssh(address) => Some(address.host.clone()),
            Self::Socket(_) => None,
        }
    }

    /// For people.
    pub(crate) fn describe(&self) -> String {
        match self {
            Self::Paired(server) => format!("{} ({})", server.name, server.file.address),
            Self::Ssh(address) => address.to_string(),
            Self::Socket(path) => format!("the agent at {}", path.display()),
        }
    }

    /// Connects.
    ///
    /// # Errors
    /// When the agent cannot be reached or is not the one that was paired.
    pub(crate) async fn connect(&self, home: &Home) -> Result<Channel, Failure> {
        let wire: Box<dyn Wire> = match self {
            Self::Paired(server) => {
                let credentials = home.credentials(&server.name)?;
                let address = Address::parse(&server.file.address, DEFAULT_PORT)?;
                Box::new(tls::connect(&address, &server.file.server_name, &credentials).await?)
            }
            Self::Socket(path) => Box::new(connect_socket(path).await?),
            Self::Ssh(address) => Box::new(address.connect()?),
        };
        channel(wire).await
    }
}

fn unpaired() -> Failure {
    let what = "This device is not paired with a server yet. On the server, `refloatd pair` prints a code.";
    Failure::new(Exit::Unreachable, what).reason("NOT_PAIRED").next("refloat pair SERVER --code CODE")
}

async fn connect_socket(path: &Path) -> Result<unix::LocalStream, Failure> {
    unix::connect_local(path).await.map_err(|error| {
        let failure = Failure::new(Exit::Unreachable, format!("Cannot reach the agent at {}: {error}", path.display()));
        match error.kind() {
            std::io::ErrorKind::PermissionDenied => failure.next("sudo refloat status"),
            _ => failure.next("systemctl status refloatd"),
        }
    })
}

/// gRPC over a stream that is connected already.
async fn channel(wire: Box<dyn Wire>) -> Result<Channel, Failure> {
    let mut wire = Some(TokioIo::new(wire));
    let connector = tower::service_fn(move |_| {
        let wire = wire.take();
        async move { wire.ok_or_else(|| std::io::Error::other("the connection ended")) }
    });
    let endpoint = Endpoint::from_static("http://agent.refloat.internal")
        .user_agent(concat!("refloat/", env!("CARGO_PKG_VERSION")))
        .map_err(unreachable_agent)?
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE)
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(2 * WINDOW_BYTES);
    endpoint.connect_with_connector(connector).await.map_err(unreachable_agent)
}

#[expect(clippy::needless_pass_by_value, reason = "it is what map_err wants")]
fn unreachable_agent(error: tonic::transport::Error) -> Failure {
    Failure::new(Exit::Unreachable, format!("The server does not speak as an agent does: {}", chain(&error)))
}

/// The answer to a question that takes no time.
///
/// # Errors
/// What the server says, or that it says nothing.
pub(crate) async fn answer<T>(question: impl Future<Output = Result<Response<T>, Status>>) -> Result<T, Failure> {
    match tokio::time::timeout(ANSWER_TIMEOUT, question).await {
        Ok(answer) => Ok(answer?.into_inner()),
        Err(_) => {
            let what = format!("The server did not answer within {} seconds.", ANSWER_TIMEOUT.as_secs());
            Err(Failure::new(Exit::Unreachable, what).next("refloat status"))
        }
    }
}
