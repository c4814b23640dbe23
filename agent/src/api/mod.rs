//! The agent's gRPC services: what a client may ask, as [`crate::identity`] permits it.
//!
//! ```text
//! listener (TLS, Unix socket) ──▶ gate: caller and permission ──▶ service: wire → domain ──▶ ports
//! ```
//!
//! Owns the listeners, the conversion between wire and domain, and the shape of errors. Deliberately absent: decisions
//! (they are in `refloat-model`) and effects on apps (they are in [`crate::deploy`]). Both listeners serve the same
//! services; which of them may be called from where is a column of the permission table.

pub mod app;
pub mod connection;
pub mod convert;
pub mod deployment;
pub mod dial;
pub mod gate;
pub mod identity;
pub mod listener;
pub mod port;
pub mod release;
pub mod source;
pub mod status;
pub mod stored_sources;
pub mod survey;

use std::sync::Arc;
use std::time::Duration;

use refloat_proto::v1::app_service_server::AppServiceServer;
use refloat_proto::v1::deployment_service_server::DeploymentServiceServer;
use refloat_proto::v1::identity_service_server::IdentityServiceServer;
use refloat_proto::v1::release_service_server::ReleaseServiceServer;
use refloat_proto::v1::source_service_server::SourceServiceServer;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

use self::app::Apps;
use self::connection::Connection;
use self::deployment::DeploymentApi;
use self::gate::Gate;
use self::identity::IdentityApi;
use self::port::{DeploymentsPort, HostPort, RunPort, SourcesPort};
use self::release::ReleaseApi;
use self::source::SourceApi;
use crate::app_logs::AppLogs;
use crate::clock::Clock;
use crate::docker::Engine;
use crate::edge::Edge;
use crate::identity::authority::Authority;
use crate::identity::pairing::Pairing;
use crate::journal::Journal;

/// Largest message in bytes: a manifest of 100,000 objects is 3.4 MB, a piece of an upload 1 MiB.
const MAX_MESSAGE_BYTES: usize = 8 << 20;
/// Largest message of a service that strangers may call, in bytes: a request to pair is 2 KB. It is held in memory before
/// anything can judge who sends it.
const MAX_STRANGER_MESSAGE_BYTES: usize = 32 << 10;
/// Calls that one connection has at the same time.
const MAX_CALLS_PER_CONNECTION: u32 = 64;
/// Largest headers of one request in bytes.
const MAX_HEADER_BYTES: u32 = 16 << 10;
/// Uploads are the only bulk: 1 MiB on its way per stream.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
/// A peer that is gone without a word is noticed within these two.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);

/// Everything that the services speak to.
#[derive(Clone)]
pub struct Ports {
    /// Facts.
    pub journal: Arc<dyn Journal>,
    /// Containers, to see what is there.
    pub engine: Arc<dyn Engine>,
    /// The data plane, to see what is there.
    pub edge: Arc<dyn Edge>,
    /// Everything that changes what serves.
    pub deployments: Arc<dyn DeploymentsPort>,
    /// One-off containers.
    pub runs: Arc<dyn RunPort>,
    /// Uploaded sources.
    pub sources: Arc<dyn SourcesPort>,
    /// What the agent knows about its host.
    pub host: Arc<dyn HostPort>,
    /// Kept output of apps.
    pub logs: Arc<AppLogs>,
    /// The certificate authority.
    pub authority: Arc<Authority>,
    /// The one-time code.
    pub pairing: Arc<Pairing>,
    /// Wall-clock time.
    pub clock: Arc<dyn Clock>,
}

impl std::fmt::Debug for Ports {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("api::Ports").finish_non_exhaustive()
    }
}

/// Serves every connection until the token is cancelled, then lets calls end.
///
/// # Errors
/// When reflection cannot read the contract, or serving fails.
pub async fn serve(
    ports: Ports,
    connections: mpsc::Receiver<std::io::Result<Connection>>,
    end: CancellationToken,
) -> Result<(), ServeError> {
    let gate = Gate::new(Arc::clone(&ports.journal), Arc::clone(&ports.clock));
    let routes = routes(ports)?;
    tonic::transport::Server::builder()
        .max_concurrent_streams(MAX_CALLS_PER_CONNECTION)
        .http2_max_header_list_size(MAX_HEADER_BYTES)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(2 * STREAM_WINDOW_BYTES)
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .layer(gate)
        .add_routes(routes)
        .serve_with_incoming_shutdown(ReceiverStream::new(connections), end.cancelled_owned())
        .await
        .map_err(ServeError::Transport)
}

/// Why the services do not run.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The contract's descriptors cannot be read.
    #[error("the descriptors of the services cannot be read")]
    Reflection(#[source] tonic_reflection::server::Error),
    /// The server ended.
    #[error("the services ended")]
    Transport(#[source] tonic::transport::Error),
}

fn routes(ports: Ports) -> Result<Routes, ServeError> {
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(refloat_proto::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()
        .map_err(ServeError::Reflection)?;
    let (_, health) = tonic_health::server::health_reporter();
    let ports = Arc::new(ports);
    let mut routes = Routes::builder();
    routes
        .add_service(
            IdentityServiceServer::new(IdentityApi::new(Arc::clone(&ports)))
                .max_decoding_message_size(MAX_STRANGER_MESSAGE_BYTES),
        )
        .add_service(
            SourceServiceServer::new(SourceApi::new(Arc::clone(&ports))).max_decoding_message_size(MAX_MESSAGE_BYTES),
        )
        .add_service(ReleaseServiceServer::new(ReleaseApi::new(Arc::clone(&ports))))
        .add_service(
            DeploymentServiceServer::new(DeploymentApi::new(Arc::clone(&ports)))
                .max_decoding_message_size(MAX_MESSAGE_BYTES),
        )
        .add_service(AppServiceServer::new(Apps::new(ports)))
        .add_service(health.max_decoding_message_size(MAX_STRANGER_MESSAGE_BYTES))
        .add_service(reflection);
    Ok(routes.routes())
}
