//! A client's connection to the agent's own Unix socket, for `refloatd`'s subcommands.

use std::path::Path;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint, Error, Uri};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Connects.
///
/// # Errors
/// When nobody answers.
pub async fn agent(socket: &Path) -> Result<Channel, Error> {
    let socket = socket.to_owned();
    let connector = tower::service_fn(move |_: Uri| {
        let socket = socket.clone();
        async move { UnixStream::connect(socket).await.map(TokioIo::new) }
    });
    // The address is never looked at: the connector knows where to go.
    Endpoint::from_static("http://agent.invalid")
        .connect_timeout(CONNECT_TIMEOUT)
        .connect_with_connector(connector)
        .await
}
