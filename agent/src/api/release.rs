//! History: read only, from the journal.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use refloat_model::admission::Denial;
use refloat_model::difference::{Side, changes};
use refloat_model::{AppState, EnvRecord, ReleaseNumber, ReleaseRecord, lineage};
use refloat_proto::v1::release_service_server::ReleaseService;
use refloat_proto::v1::{
    DiffReleasesRequest, DiffReleasesResponse, FileChange, GetReleaseRequest, GetReleaseResponse, ListReleasesRequest,
    ListReleasesResponse,
};
use tonic::{Request, Response, Status};

use super::{Ports, convert, status, survey};
use crate::journal::Journal;

const DEFAULT_LIMIT: usize = 20;
const MAX_LIMIT: usize = 1_000;
const MAX_FILES: usize = 200;
/// The history does not wait for Docker: without an answer it shows no standby.
const ENGINE_TIMEOUT: Duration = Duration::from_secs(1);

/// The service.
#[derive(Debug)]
pub struct ReleaseApi {
    ports: Arc<Ports>,
}

impl ReleaseApi {
    /// The service over these ports.
    #[must_use]
    pub fn new(ports: Arc<Ports>) -> Self {
        Self { ports }
    }

    async fn record(&self, app: &AppState, number: ReleaseNumber) -> Result<ReleaseRecord, Status> {
        let record = self.ports.journal.release(&app.app, number).await.map_err(|error| status::journal(&error))?;
        record.ok_or_else(|| status::denial(&Denial::NoSuchRelease { app: app.app.clone(), number }))
    }

    async fn env(&self, app: &AppState, record: &ReleaseRecord) -> Result<EnvRecord, Status> {
        let env = self.ports.journal.env(&app.app, &record.release.env).await;
        Ok(env.map_err(|error| status::journal(&error))?.unwrap_or_default())
    }

    async fn standby(&self, app: &AppState) -> BTreeMap<ReleaseNumber, &'static str> {
        let listed = tokio::time::timeout(ENGINE_TIMEOUT, self.ports.engine.list()).await;
        match listed {
            Ok(Ok(observed)) => survey::standby(app, &observed),
            Ok(Err(_)) | Err(_) => BTreeMap::new(),
        }
    }
}

/// The app of that name; without one, the only app.
///
/// # Errors
/// When there is none, or several, or the journal cannot be read.
pub async fn find_app(journal: &dyn Journal, name: &str) -> Result<AppState, Status> {
    let unreadable = |error| status::journal(&error);
    if let Some(name) = convert::app(name)? {
        let found = journal.app(&name).await.map_err(unreadable)?;
        return found.ok_or_else(|| status::denial(&Denial::NoSuchApp(name)));
    }
    let mut apps = journal.apps().await.map_err(unreadable)?;
    match apps.len() {
        1 => Ok(apps.remove(0)),
        0 => Err(status::denial(&Denial::NoApps)),
        _ => Err(status::denial(&Denial::WhichApp(apps.into_iter().map(|app| app.app).collect()))),
    }
}

/// Every kept release of an app, by number, as far as a list goes.
///
/// # Errors
/// When the journal cannot be read.
pub async fn history(journal: &dyn Journal, app: &AppState) -> Result<BTreeMap<ReleaseNumber, ReleaseRecord>, Status> {
    let releases = journal.releases(&app.app, MAX_LIMIT).await.map_err(|error| status::journal(&error))?;
    Ok(releases.into_iter().map(|record| (record.number, record)).collect())
}

/// The number of a release's parent.
#[must_use]
pub fn parent_of(record: &ReleaseRecord, history: &BTreeMap<ReleaseNumber, ReleaseRecord>) -> Option<ReleaseNumber> {
    let parent = record.release.parent?;
    history.values().find(|other| other.identity.id == parent).map(|other| other.number)
}

/// Where a rollback from this release goes.
#[must_use]
pub fn rollback_to(from: ReleaseNumber, history: &BTreeMap<ReleaseNumber, ReleaseRecord>) -> Option<ReleaseNumber> {
    lineage::rollback_target(from, false, |number| history.get(&number)).ok()
}

#[tonic::async_trait]
impl ReleaseService for ReleaseApi {
    async fn list_releases(
        &self,
        request: Request<ListReleasesRequest>,
    ) -> Result<Response<ListReleasesResponse>, Status> {
        let it = request.into_inner();
        let limit = match usize::try_from(it.limit).unwrap_or(MAX_LIMIT) {
            0 => DEFAULT_LIMIT,
            limit => limit.min(MAX_LIMIT),
        };
        let app = find_app(self.ports.journal.as_ref(), &it.app).await?;
        let (history, standby) = tokio::join!(history(self.ports.journal.as_ref(), &app), self.standby(&app));
        let history = history?;
        let summary = |record: &ReleaseRecord| {
            let standby = standby.get(&record.number).copied().unwrap_or_default();
            convert::summary(record, app.serving, parent_of(record, &history), standby)
        };
        let releases = history.values().rev().take(limit).map(summary).collect();
        Ok(Response::new(ListReleasesResponse { app: app.app.to_string(), releases }))
    }

    async fn get_release(&self, request: Request<GetReleaseRequest>) -> Result<Response<GetReleaseResponse>, Status> {
        let it = request.into_inner();
        let app = find_app(self.ports.journal.as_ref(), &it.app).await?;
        let nothing_serves = || status::denial(&Denial::NothingServes(app.app.clone()));
        let number = convert::release(it.release).or(app.serving).ok_or_else(nothing_serves)?;
        let record = self.record(&app, number).await?;
        let env = self.env(&app, &record).await?;
        let (history, standby) = tokio::join!(history(self.ports.journal.as_ref(), &app), self.standby(&app));
        let history = history?;
        let standby = standby.get(&number).copied().unwrap_or_default();
        Ok(Response::new(GetReleaseResponse {
            summary: Some(convert::summary(&record, app.serving, parent_of(&record, &history), standby)),
            source: record.release.source.0.to_vec(),
            plan: record.release.plan.0.to_vec(),
            processes: record.release.processes.iter().map(convert::process_view).collect(),
            env_names: env.variables.into_iter().map(|variable| variable.name).collect(),
            activations: record.activations.iter().rev().map(convert::activation).collect(),
            rollback_to: convert::number(rollback_to(number, &history)),
        }))
    }

    async fn diff_releases(
        &self,
        request: Request<DiffReleasesRequest>,
    ) -> Result<Response<DiffReleasesResponse>, Status> {
        let it = request.into_inner();
        let app = find_app(self.ports.journal.as_ref(), &it.app).await?;
        let named = |number| convert::release(number).ok_or_else(|| status::invalid("name two releases"));
        let (a, b) = (self.record(&app, named(it.a)?).await?, self.record(&app, named(it.b)?).await?);
        let (env_a, env_b) = (self.env(&app, &a).await?, self.env(&app, &b).await?);
        let from = Side { release: &a.release, env: &env_a.variables };
        let to = Side { release: &b.release, env: &env_b.variables };
        let changes = changes(from, to).into_iter().map(convert::change).collect();
        let compared = self.ports.sources.compare(a.release.source, b.release.source, MAX_FILES).await;
        let (files, truncated) = compared.map_err(|error| status::source(&error))?;
        let file = |file: super::port::ChangedFile| FileChange { path: file.path, kind: file.kind.to_owned() };
        Ok(Response::new(DiffReleasesResponse { changes, files: files.into_iter().map(file).collect(), truncated }))
    }
}
