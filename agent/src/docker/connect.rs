//! The connection to the engine: how long each call may take, and what its failures mean in our words.
//!
//! Owns the client and every time limit. Deliberately absent: retries (the driver decides) and TCP (the engine's
//! socket is root on the host and stays a file).

use std::error::Error as StdError;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bollard::errors::Error;
use bollard::{API_DEFAULT_VERSION, Docker};
use futures_util::{Stream, StreamExt};
use tokio::sync::OnceCell;

use super::engine::EngineError;

/// Where the engine listens unless told otherwise.
pub const DEFAULT_SOCKET: &str = "/var/run/docker.sock";

/// Reading something: the engine answers from memory, except on a host that swaps.
pub(super) const READ_TIMEOUT_MS: u32 = 20_000;
/// Changing something: creating, removing, updating, tagging.
pub(super) const CHANGE_TIMEOUT_MS: u32 = 60_000;
/// Starting: a slow disk reads the image for the first time here.
pub(super) const START_TIMEOUT_MS: u32 = 60_000;
/// Freezing and thawing.
pub(super) const FREEZE_TIMEOUT_MS: u32 = 20_000;
/// What a stop may take on top of its grace period.
pub(super) const STOP_MARGIN_MS: u32 = 20_000;
/// Silence on a stream that should always flow.
pub(super) const STREAM_IDLE_TIMEOUT_MS: u32 = 120_000;
/// Silence of a build: a compiler may say nothing for long. The caller's own limit is shorter.
pub(super) const BUILD_IDLE_TIMEOUT_MS: u32 = 3_600_000;
/// The client's own limit until headers arrive. Ours are shorter and name what was asked.
const CLIENT_TIMEOUT_S: u64 = 24 * 3_600;

/// A client that connects when it is first used, so that the agent can start before the engine does.
#[derive(Debug)]
pub(super) struct Connection {
    socket: PathBuf,
    client: OnceCell<Docker>,
}

impl Connection {
    pub(super) fn new(socket: Option<&Path>) -> Self {
        let socket = socket.unwrap_or_else(|| Path::new(DEFAULT_SOCKET)).to_owned();
        Self { socket, client: OnceCell::new() }
    }

    pub(super) fn socket(&self) -> &Path {
        &self.socket
    }

    /// The client, once the engine has told which version of its API it speaks.
    pub(super) async fn client(&self) -> Result<&Docker, EngineError> {
        self.client.get_or_try_init(|| self.open()).await
    }

    async fn open(&self) -> Result<Docker, EngineError> {
        let path = self.socket.to_string_lossy();
        let client = Docker::connect_with_unix(&path, CLIENT_TIMEOUT_S, API_DEFAULT_VERSION)
            .map_err(|e| Fault::from(e).refused("the connection"))?;
        within("its version", READ_TIMEOUT_MS, client.negotiate_version()).await.map_err(|f| f.refused("its version"))
    }
}

/// Why a call failed, while its caller still has to decide what that means.
#[derive(Debug)]
pub(super) enum Fault {
    /// The engine answered with an error status.
    Answered { status: u16, message: String },
    /// It did not answer, or not in time.
    Lost(EngineError),
}

impl Fault {
    pub(super) fn is_status(&self, wanted: u16) -> bool {
        matches!(self, Self::Answered { status, .. } if *status == wanted)
    }

    /// For a call whose subject must exist.
    pub(super) fn about(self, what: &'static str, subject: &str) -> EngineError {
        if self.is_status(404) { EngineError::NotFound(subject.to_owned()) } else { self.refused(what) }
    }

    /// For a call whose every error status is a refusal.
    pub(super) fn refused(self, what: &'static str) -> EngineError {
        match self {
            Self::Answered { message, .. } => EngineError::Refused { what, message },
            Self::Lost(error) => error,
        }
    }
}

impl From<EngineError> for Fault {
    fn from(error: EngineError) -> Self {
        Self::Lost(error)
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        match error {
            Error::DockerResponseServerError { status_code, message } => {
                Self::Answered { status: status_code, message }
            }
            Error::DockerStreamError { error } => Self::Answered { status: 500, message: error },
            // Never its text: it quotes the answer, and an answer may hold an environment.
            Error::JsonDataError { .. } | Error::JsonSerdeError { .. } => {
                Self::Answered { status: 500, message: "its answer could not be read".to_owned() }
            }
            other => Self::Lost(EngineError::Unreachable(plain_words(&other))),
        }
    }
}

/// Waits for a call at most this long.
pub(super) async fn within<T>(
    what: &'static str,
    timeout_ms: u32,
    call: impl Future<Output = Result<T, Error>>,
) -> Result<T, Fault> {
    in_time(what, timeout_ms, call).await?.map_err(Fault::from)
}

/// Waits for anything at most this long.
pub(super) async fn in_time<T>(
    what: &'static str,
    timeout_ms: u32,
    wait: impl Future<Output = T>,
) -> Result<T, EngineError> {
    let waited = tokio::time::timeout(Duration::from_millis(timeout_ms.into()), wait).await;
    waited.map_err(|_| EngineError::Timeout { what, timeout_ms })
}

/// The next item of a stream, waited for at most this long.
pub(super) async fn next_within<T, S>(what: &'static str, timeout_ms: u32, stream: &mut S) -> Result<Option<T>, Fault>
where
    S: Stream<Item = Result<T, Error>> + Unpin,
{
    within(what, timeout_ms, async { stream.next().await.transpose() }).await
}

fn plain_words(error: &Error) -> String {
    if let Error::SocketNotFoundError(path) = error {
        return format!("there is no {path}. Is Docker installed and running? Try: systemctl status docker");
    }
    match io_kind(error) {
        Some(std::io::ErrorKind::PermissionDenied) => {
            "its socket may not be opened by this user; the agent has to run as root".to_owned()
        }
        Some(std::io::ErrorKind::ConnectionRefused | std::io::ErrorKind::NotFound) => {
            "nobody answers on its socket. Is it running? Try: systemctl status docker".to_owned()
        }
        _ => format!("the connection broke ({error}). Try: systemctl status docker"),
    }
}

fn io_kind(error: &Error) -> Option<std::io::ErrorKind> {
    let mut cause: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(current) = cause {
        if let Some(io) = current.downcast_ref::<std::io::Error>() {
            return Some(io.kind());
        }
        cause = current.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn without_a_socket_the_message_says_what_to_try() {
        let connection = Connection::new(Some(Path::new("/nonexistent/docker.sock")));
        let error = connection.client().await.map(|_| ()).unwrap_err();
        assert!(matches!(&error, EngineError::Unreachable(_)), "{error}");
        assert!(error.to_string().contains("systemctl status docker"), "{error}");
    }

    #[tokio::test]
    async fn a_socket_that_nobody_serves_is_unreachable_in_plain_words() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("docker.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let error = Connection::new(Some(&path)).client().await.map(|_| ()).unwrap_err();
        assert_eq!(
            error,
            EngineError::Unreachable(
                "nobody answers on its socket. Is it running? Try: systemctl status docker".into()
            )
        );
    }

    #[tokio::test(start_paused = true)]
    async fn an_engine_that_accepts_and_says_nothing_times_out() {
        let call = std::future::pending::<Result<(), Error>>();
        let fault = within("the start", START_TIMEOUT_MS, call).await.unwrap_err();
        assert_eq!(
            fault.refused("the start"),
            EngineError::Timeout { what: "the start", timeout_ms: START_TIMEOUT_MS }
        );
    }
}
