//! The control service: what the agent may ask, in the words of the wire.
//!
//! Translates and nothing else; `tables` and `router` decide. Whoever can open the socket may ask: it is a file that
//! only the edge's user and root can open.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use refloat_model::{AppName, Epoch, Generation, TableDigest};
use refloat_proto::edge::v1::control_server::Control;
use refloat_proto::edge::v1::{
    ApplyRequest, ApplyResponse, GetStatusRequest, GetStatusResponse, HoldRequest, HoldResponse, InFlightRequest,
    InFlightResponse, ReleaseRequest, ReleaseResponse, StageRequest, StageResponse, TableVersion, in_flight_response,
};
use tonic::{Request, Response, Status};

use crate::limits::MAX_HOLD;
use crate::shared::Shared;
use crate::tables::{ApplyError, StageError, Tables, Version};

/// The service.
#[derive(Debug)]
pub struct ControlService {
    shared: Arc<Shared>,
    tables: Arc<Tables>,
    listen: Vec<SocketAddr>,
    started: SystemTime,
}

impl ControlService {
    /// A service for one edge.
    #[must_use]
    pub fn new(shared: Arc<Shared>, tables: Arc<Tables>, listen: Vec<SocketAddr>) -> Self {
        Self { shared, tables, listen, started: SystemTime::now() }
    }
}

/// An error and its causes, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

fn stage_status(error: &StageError) -> Status {
    match error {
        StageError::NotNewer { .. } => Status::failed_precondition(chain(error)),
        StageError::Decode(_) | StageError::Rule(_) | StageError::Site(_) => Status::invalid_argument(chain(error)),
    }
}

fn apply_status(error: &ApplyError) -> Status {
    match error {
        ApplyError::NotStaged { .. } => Status::failed_precondition(chain(error)),
        ApplyError::Store(_) => Status::unavailable(chain(error)),
    }
}

fn to_wire((generation, digest): Version) -> TableVersion {
    TableVersion { epoch: generation.epoch.0, number: generation.number, digest: digest.0.to_vec() }
}

fn from_wire(version: Option<TableVersion>) -> Result<Version, Status> {
    let version = version.ok_or_else(|| Status::invalid_argument("the version is missing"))?;
    let digest = TableDigest::from_slice(&version.digest)
        .ok_or_else(|| Status::invalid_argument("the digest does not have 32 bytes"))?;
    Ok((Generation { epoch: Epoch(version.epoch), number: version.number }, digest))
}

fn app_name(text: String) -> Result<AppName, Status> {
    AppName::new(text).map_err(|error| Status::invalid_argument(error.to_string()))
}

/// Runs what blocks on the disk off the reactor.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Status> {
    tokio::task::spawn_blocking(work).await.map_err(|_| Status::internal("the edge failed inside; see its log"))
}

fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|l| l.split_whitespace().next()).and_then(|n| n.parse::<u64>().ok());
    kib.unwrap_or(0).saturating_mul(1024)
}

#[tonic::async_trait]
impl Control for ControlService {
    async fn get_status(&self, _: Request<GetStatusRequest>) -> Result<Response<GetStatusResponse>, Status> {
        let started = self.started.duration_since(UNIX_EPOCH).unwrap_or_default();
        let none = (Generation::default(), TableDigest([0; 32]));
        Ok(Response::new(GetStatusResponse {
            active: Some(to_wire(self.tables.active().unwrap_or(none))),
            staged: self.tables.staged().map(to_wire),
            started_at_unix_ms: u64::try_from(started.as_millis()).unwrap_or(u64::MAX),
            requests_total: self.shared.requests_total.load(Ordering::Relaxed),
            rss_bytes: resident_bytes(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            listen: self.listen.iter().map(ToString::to_string).collect(),
        }))
    }

    async fn stage(&self, request: Request<StageRequest>) -> Result<Response<StageResponse>, Status> {
        let (tables, bytes) = (self.tables.clone(), request.into_inner().table);
        let staged = blocking(move || tables.stage(&bytes)).await?.map_err(|e| stage_status(&e))?;
        Ok(Response::new(StageResponse { staged: Some(to_wire(staged)) }))
    }

    async fn apply(&self, request: Request<ApplyRequest>) -> Result<Response<ApplyResponse>, Status> {
        let version = from_wire(request.into_inner().version)?;
        let tables = self.tables.clone();
        let displaced = blocking(move || tables.apply(version)).await?.map_err(|e| apply_status(&e))?;
        Ok(Response::new(ApplyResponse { active: Some(to_wire(version)), displaced }))
    }

    async fn hold(&self, request: Request<HoldRequest>) -> Result<Response<HoldResponse>, Status> {
        let HoldRequest { app, deadline_ms } = request.into_inner();
        let wanted = Duration::from_millis(deadline_ms.into());
        if wanted.is_zero() || wanted > MAX_HOLD {
            return Err(Status::invalid_argument("the deadline must be between 1 ms and 10 minutes"));
        }
        self.shared.router.hold(&app_name(app)?, Instant::now() + wanted);
        Ok(Response::new(HoldResponse {}))
    }

    async fn release(&self, request: Request<ReleaseRequest>) -> Result<Response<ReleaseResponse>, Status> {
        let held = self.shared.router.release(&app_name(request.into_inner().app)?);
        Ok(Response::new(ReleaseResponse { held }))
    }

    async fn in_flight(&self, request: Request<InFlightRequest>) -> Result<Response<InFlightResponse>, Status> {
        let count = |instance: String| in_flight_response::Count {
            requests: self.shared.upstreams.counters.count(&instance),
            instance,
        };
        let counts = request.into_inner().instances.into_iter().map(count).collect();
        Ok(Response::new(InFlightResponse { counts }))
    }
}
