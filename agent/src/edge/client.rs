//! The edge over its control socket.
//!
//! One connection, made when it is needed and made again when it broke. Every call has a short limit: a deployment
//! would rather be told "not served yet" than wait for an edge that hangs.

use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use hyper_util::rt::TokioIo;
use refloat_model::{AppName, Canonical as _, Epoch, Generation, InstanceName, RouteTable, TableDigest};
use refloat_proto::edge::v1 as wire;
use refloat_proto::edge::v1::control_client::ControlClient;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Code, Status};

use super::{Edge, EdgeError, EdgeStatus};

/// How long one call may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(2);
/// How long staging and applying may take: the edge opens every tree and syncs its table to disk.
const TABLE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long connecting may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Largest table that is sent, in bytes: 1,000 apps with long names and many hosts are below it.
const MAX_MESSAGE_BYTES: usize = 32 << 20;

/// A client of the edge that listens on one socket.
#[derive(Debug, Clone)]
pub struct EdgeClient {
    control: ControlClient<Channel>,
    socket: PathBuf,
}

impl EdgeClient {
    /// A client for the edge at `socket`; connects with the first call.
    ///
    /// # Panics
    /// Never: the endpoint's name is a constant.
    #[must_use]
    pub fn new(socket: &Path) -> Self {
        let path = socket.to_owned();
        // The name is never resolved: the connector opens the socket.
        let channel = Endpoint::from_static("http://edge")
            .connect_timeout(CONNECT_TIMEOUT)
            .connect_with_connector_lazy(tower::service_fn(move |_: Uri| {
                let path = path.clone();
                async move { UnixStream::connect(path).await.map(TokioIo::new) }
            }));
        let control = ControlClient::new(channel).max_encoding_message_size(MAX_MESSAGE_BYTES);
        Self { control, socket: socket.to_owned() }
    }

    /// Where the edge listens for us.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }
}

async fn within<T>(
    limit: Duration,
    call: impl Future<Output = Result<tonic::Response<T>, Status>>,
) -> Result<T, Status> {
    match tokio::time::timeout(limit, call).await {
        Ok(answer) => answer.map(tonic::Response::into_inner),
        Err(_) => Err(Status::deadline_exceeded(format!("no answer within {} s", limit.as_secs()))),
    }
}

fn unreachable(status: &Status) -> EdgeError {
    EdgeError::Unreachable(match status.code() {
        Code::Unavailable | Code::Unknown => format!("it does not run, or its socket is gone ({})", status.message()),
        _ => status.message().to_owned(),
    })
}

fn stage_error(status: &Status) -> EdgeError {
    match status.code() {
        Code::InvalidArgument | Code::FailedPrecondition => EdgeError::Refused(status.message().to_owned()),
        _ => unreachable(status),
    }
}

fn apply_error(status: &Status) -> EdgeError {
    match status.code() {
        Code::FailedPrecondition => EdgeError::NotStaged,
        _ => unreachable(status),
    }
}

fn version(generation: Generation, table: TableDigest) -> wire::TableVersion {
    wire::TableVersion { epoch: generation.epoch.0, number: generation.number, digest: table.0.to_vec() }
}

#[async_trait]
impl Edge for EdgeClient {
    async fn status(&self) -> Result<EdgeStatus, EdgeError> {
        let mut control = self.control.clone();
        let status = within(CALL_TIMEOUT, control.get_status(wire::GetStatusRequest {})).await;
        let status = status.map_err(|s| unreachable(&s))?;
        let active = status.active.unwrap_or_default();
        Ok(EdgeStatus {
            active: Generation { epoch: Epoch(active.epoch), number: active.number },
            active_digest: TableDigest::from_slice(&active.digest).unwrap_or(TableDigest([0; 32])),
            rss_bytes: status.rss_bytes,
            version: status.version,
            listen: status.listen,
        })
    }

    async fn stage(&self, table: &RouteTable) -> Result<(), EdgeError> {
        let mut control = self.control.clone();
        let request = wire::StageRequest { table: table.to_canonical() };
        within(TABLE_TIMEOUT, control.stage(request)).await.map_err(|s| stage_error(&s))?;
        Ok(())
    }

    async fn apply(&self, generation: Generation, table: TableDigest) -> Result<(), EdgeError> {
        let mut control = self.control.clone();
        let request = wire::ApplyRequest { version: Some(version(generation, table)) };
        within(TABLE_TIMEOUT, control.apply(request)).await.map_err(|s| apply_error(&s))?;
        Ok(())
    }

    async fn hold(&self, app: &AppName, deadline_ms: u32) -> Result<(), EdgeError> {
        let mut control = self.control.clone();
        let request = wire::HoldRequest { app: app.to_string(), deadline_ms };
        within(CALL_TIMEOUT, control.hold(request)).await.map_err(|s| unreachable(&s))?;
        Ok(())
    }

    async fn release(&self, app: &AppName) -> Result<(), EdgeError> {
        let mut control = self.control.clone();
        let request = wire::ReleaseRequest { app: app.to_string() };
        within(CALL_TIMEOUT, control.release(request)).await.map_err(|s| unreachable(&s))?;
        Ok(())
    }

    async fn in_flight(&self, instances: &[InstanceName]) -> Result<Vec<u32>, EdgeError> {
        let mut control = self.control.clone();
        let request = wire::InFlightRequest { instances: instances.iter().map(ToString::to_string).collect() };
        let answer = within(CALL_TIMEOUT, control.in_flight(request)).await.map_err(|s| unreachable(&s))?;
        let count =
            |name: &InstanceName| answer.counts.iter().find(|c| c.instance == name.as_str()).map_or(0, |c| c.requests);
        Ok(instances.iter().map(count).collect())
    }
}
