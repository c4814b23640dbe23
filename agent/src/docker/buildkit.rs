//! BuildKit's own gRPC inside of Docker, over two upgraded connections to the engine's socket.
//!
//! `/grpc` carries what we ask (solve, status), `/session` what BuildKit asks of us: the build's files. The engine's
//! `/build` would need less, but it drops the control group of the build; here it is an attribute of the frontend.
//!
//! Everything that a build opens belongs to [`BuildKit`] and ends with it: BuildKit stops a build whose client is gone.

use std::path::{Path, PathBuf};
use std::pin::Pin;

use bollard::moby::buildkit::v1::control_client::ControlClient;
use bollard::moby::upload::v1::BytesMessage;
use bollard::moby::upload::v1::upload_server::{Upload, UploadServer};
use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use http_body_util::Empty;
use hyper::upgrade::Upgraded;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use tokio::fs::File;
use tokio::net::UnixStream;
use tokio_util::io::ReaderStream;
use tokio_util::task::AbortOnDropHandle;
use tonic::service::Routes;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Response, Status, Streaming};

use super::connect::{READ_TIMEOUT_MS, in_time};
use super::engine::EngineError;

/// Bytes of the context in one message; BuildKit takes 16 MiB at most.
const CONTEXT_CHUNK_BYTES: usize = 64 * 1024;
/// Largest message that is taken: a burst of a step's output.
const MAX_MESSAGE_BYTES: usize = 16 * 1024 * 1024;
const WHAT: &str = "to open a build";

/// Where BuildKit looks for a build's files, in the session of the build. No two builds have the same address: BuildKit
/// takes one address for one source, and two builds at once would share the files of the first.
pub(super) fn context_url(build: &str) -> String {
    format!("http://buildkit-session/{build}")
}

/// The connections of one build.
pub(super) struct BuildKit {
    pub(super) control: ControlClient<Channel>,
    _session: AbortOnDropHandle<()>,
}

impl BuildKit {
    /// Opens both; `session` is the id by which a solve names its session.
    pub(super) async fn open(socket: &Path, session: &str, context: &Path) -> Result<Self, EngineError> {
        in_time(WHAT, READ_TIMEOUT_MS, Self::connect(socket, session, context)).await?
    }

    async fn connect(socket: &Path, session: &str, context: &Path) -> Result<Self, EngineError> {
        let method = "/moby.upload.v1.Upload/Pull";
        let headers = [("x-docker-expose-session-uuid", session), ("x-docker-expose-session-grpc-method", method)];
        let stream = upgrade(socket, "/session", &headers).await.map_err(|e| e.told())?;
        let serving = tokio::spawn(serve(stream, context.to_owned()));
        let control =
            ControlClient::new(channel(socket.to_owned()).await?).max_decoding_message_size(MAX_MESSAGE_BYTES);
        Ok(Self { control, _session: AbortOnDropHandle::new(serving) })
    }
}

async fn channel(socket: PathBuf) -> Result<Channel, EngineError> {
    let connector = tower::service_fn(move |_| {
        let socket = socket.clone();
        async move { upgrade(&socket, "/grpc", &[]).await }
    });
    let endpoint = Endpoint::from_static("http://buildkit");
    endpoint.connect_with_connector(connector).await.map_err(|e| EngineError::Unreachable(with_causes(&e)))
}

/// Answers BuildKit until it or we hang up.
async fn serve(stream: Upgraded, context: PathBuf) {
    let (_reporter, health) = tonic_health::server::health_reporter();
    let routes = Routes::new(UploadServer::new(Context(context))).add_service(health);
    let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    // How it ended says nothing: the solve tells whether the build has what it needs.
    let _ = server.serve_connection(stream, TowerToHyperService::new(routes.prepare())).await;
}

/// The tar archive with the build's files. BuildKit may read it more than once.
struct Context(PathBuf);

#[tonic::async_trait]
impl Upload for Context {
    type PullStream = Pin<Box<dyn Stream<Item = Result<BytesMessage, Status>> + Send>>;

    async fn pull(&self, _: Request<Streaming<BytesMessage>>) -> Result<Response<Self::PullStream>, Status> {
        let file = File::open(&self.0).await.map_err(|e| Status::unavailable(format!("the build's files: {e}")))?;
        let chunks = ReaderStream::with_capacity(file, CONTEXT_CHUNK_BYTES);
        Ok(Response::new(Box::pin(chunks.map(|chunk| Ok(BytesMessage { data: chunk?.to_vec() })))))
    }
}

#[derive(Debug, thiserror::Error)]
enum UpgradeError {
    #[error("its socket cannot be opened: {0}")]
    Socket(#[source] std::io::Error),
    #[error("the connection broke: {0}")]
    Connection(#[source] hyper::Error),
    #[error("{path} answered {status}")]
    Refused { path: &'static str, status: http::StatusCode },
    #[error("a header cannot be sent: {0}")]
    Header(#[source] http::Error),
}

impl UpgradeError {
    fn told(self) -> EngineError {
        let message = self.to_string();
        match self {
            Self::Refused { .. } | Self::Header(_) => EngineError::Refused { what: WHAT, message },
            Self::Socket(_) | Self::Connection(_) => {
                EngineError::Unreachable(format!("{message}. Try: systemctl status docker"))
            }
        }
    }
}

/// Turns a connection to the engine into one to BuildKit.
async fn upgrade(
    socket: &Path,
    path: &'static str,
    headers: &[(&'static str, &str)],
) -> Result<Upgraded, UpgradeError> {
    let stream = UnixStream::connect(socket).await.map_err(UpgradeError::Socket)?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(UpgradeError::Connection)?;
    // Ends with the answer: an upgraded connection is handed over.
    tokio::spawn(connection.with_upgrades());
    let mut request = http::Request::post(path).header("host", "docker").header("connection", "Upgrade");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.header("upgrade", "h2c").body(Empty::<Bytes>::new()).map_err(UpgradeError::Header)?;
    let response = sender.send_request(request).await.map_err(UpgradeError::Connection)?;
    if response.status() != http::StatusCode::SWITCHING_PROTOCOLS {
        return Err(UpgradeError::Refused { path, status: response.status() });
    }
    hyper::upgrade::on(response).await.map_err(UpgradeError::Connection)
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(current) = cause {
        text = format!("{text}: {current}");
        cause = current.source();
    }
    text
}
