//! The driver: one deployment from its action to its outcome.
//!
//! ```text
//!  deploy ──▶ build ──▶ release ─┐
//!  env    ──▶ release ───────────┤
//!  rollback, activate, restart ──┴─▶ instances ready ─▶ handovers ─▶ switch ─▶ verify ─▶ outcome
//!                                         │ any error or cancellation: compensate, outcome
//! ```
//!
//! Every step looks at what is there before it acts, so a restarted agent enters the same function with the deployment
//! that it finds in the journal; there is no other recovery. What a stopped deployment leaves behind (candidates) is
//! removed by the app's keeper, not here: a rollback that cancelled it must not wait for a clean-up.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use refloat_model::difference::{self, Side};
use refloat_model::planning;
use refloat_model::{
    Action, AppName, AppServing, AppState, Author, Change as Difference, DeployAction, Deployment, EnvId, EnvRecord,
    Event, InstanceName, InstanceRecord, Origin, Outcome, Phase, PlanDigest, Process, ProcessName, Release,
    ReleaseMeta, ReleaseNumber, ReleaseRecord, RouteTarget, SourceDigest,
};
use tokio::time::Instant;
use tracing::{info, warn};

use super::app_task::empty_report;
use super::feed::Feed;
use super::gate::Gate;
use super::ports::{Ports, Settings};
use super::sequencer::{Change, Sequencer, Switched};
use super::standby_memory::StandbyMemory;
use super::stop::Stop;
use super::update::{Fetched, Report, Update};
use crate::build::{BuildJob, BuildProgress, Built};
use crate::docker::EngineError;
use crate::journal::JournalError;

/// How often an interrupted deployment is picked up before it is given up.
const MAX_RESUMED: u32 = 3;

/// Instances that are being stopped: not to be relied on, whatever Docker says of them for now.
pub(super) type Doomed = Arc<Mutex<HashSet<InstanceName>>>;

/// What every driver of an app shares.
#[derive(Clone)]
pub(super) struct Context {
    pub(super) ports: Ports,
    pub(super) settings: Arc<Settings>,
    pub(super) sequencer: Sequencer,
    pub(super) standby: StandbyMemory,
    pub(super) app: AppName,
    pub(super) doomed: Doomed,
}

/// One run of one deployment.
pub(super) struct Driver {
    pub(super) context: Context,
    pub(super) deployment: Deployment,
    pub(super) local_plan: Option<[u8; 32]>,
    pub(super) gate: Arc<Gate>,
    pub(super) feed: Feed,
    pub(super) began: Instant,
    timings: Vec<(String, Duration)>,
    downtimes: Vec<(ProcessName, Duration)>,
    phase: (Phase, Instant),
    undone: Vec<Difference>,
}

/// What a run came to.
struct Ended {
    outcome: Outcome,
    fetched: Vec<Fetched>,
    addresses: Vec<String>,
}

impl From<Outcome> for Ended {
    fn from(outcome: Outcome) -> Self {
        Self { outcome, fetched: Vec::new(), addresses: Vec::new() }
    }
}

impl Driver {
    pub(super) fn new(context: Context, deployment: Deployment, gate: Arc<Gate>, feed: Feed, began: Instant) -> Self {
        Self {
            context,
            deployment,
            local_plan: None,
            gate,
            feed,
            began,
            timings: Vec::new(),
            downtimes: Vec::new(),
            phase: (Phase::Queued, began),
            undone: Vec::new(),
        }
    }

    /// Runs the deployment to its end and records its outcome. The report is the feed's last update.
    #[tracing::instrument(name = "deployment", skip_all, fields(app = %self.context.app, deployment = ?self.deployment.id, kind = self.deployment.action.kind()))]
    pub(super) async fn run(mut self) {
        let ended = match self.attempt().await {
            Ok(ended) => ended,
            Err(Stop::Cancelled(by)) => Outcome::Cancelled { by: self.gate.cancelled_by().unwrap_or(by) }.into(),
            Err(Stop::Failed(failure)) => Outcome::Failed(failure).into(),
            Err(Stop::Ledger(error)) => return self.end_without_ledger(&error.to_string()),
        };
        if let Err(error) = self.record(&ended.outcome).await {
            return self.end_without_ledger(&error.to_string());
        }
        let release = self.deployment.release.map(tracing::field::display);
        info!(release, outcome = ended.outcome.word(), took_ms = self.began.elapsed().as_millis(), "deployment ended");
        self.enter(Phase::Ended, "");
        let report = self.report(ended).await;
        self.say(Update::Ended(Box::new(report)));
    }

    async fn record(&self, outcome: &Outcome) -> Result<(), JournalError> {
        let event = match (&self.deployment.action, outcome) {
            (Action::Destroy { .. }, Outcome::Done) => Event::AppDestroyed { app: self.context.app.clone() },
            _ => Event::DeploymentEnded {
                app: self.context.app.clone(),
                deployment: self.deployment.id,
                outcome: outcome.clone(),
            },
        };
        self.context.ports.journal.append(&self.deployment.by, event).await
    }

    /// The ledger is closed: the outcome cannot be promised, and is not.
    fn end_without_ledger(&mut self, why: &str) {
        warn!(why, "the ledger does not accept records: the deployment's outcome is open");
        if self.deployment.committed {
            let outcome = Outcome::LiveUnverified(format!("{why}; the commit was made before that"));
            let serving = self.deployment.release.or(self.deployment.serving_before);
            let report = Report { serving, release: self.deployment.release, ..empty_report(outcome) };
            return self.say(Update::Ended(Box::new(report)));
        }
        let failure = refloat_model::Failure {
            reason: "LEDGER".to_owned(),
            message: format!(
                "{why}. What the edge serves is unchanged unless the commit was made; the agent finds out when it starts again"
            ),
            next_command: "systemctl restart refloatd".to_owned(),
            lines: Vec::new(),
        };
        let report = Report {
            serving: self.deployment.serving_before,
            release: self.deployment.release,
            still_fine: "the edge goes on serving".to_owned(),
            ..empty_report(Outcome::Failed(failure))
        };
        self.say(Update::Ended(Box::new(report)));
    }

    async fn attempt(&mut self) -> Result<Ended, Stop> {
        if self.deployment.resumed > MAX_RESUMED && !self.deployment.committed {
            return Err(Stop::failed(
                "INTERRUPTED",
                format!("the agent was restarted {MAX_RESUMED} times during this deployment"),
                "journalctl -u refloatd",
            ));
        }
        match self.deployment.action.clone() {
            Action::Deploy(deploy) => self.deploy(&deploy).await,
            Action::Rollback(number) | Action::Activate(number) => self.activate(number, false).await,
            Action::ChangeEnv { env, no_activate, names } => self.change_env(env, no_activate, &names).await,
            Action::Restart => {
                let serving = self.app_state().await?.serving;
                self.activate(serving.unwrap_or(ReleaseNumber::FIRST), true).await
            }
            Action::Stop => self.stop_app().await,
            Action::Destroy { volumes } => self.destroy(volumes).await,
            Action::SetDomains(domains) => self.set_domains(domains).await,
        }
    }

    // ---- deploy ----------------------------------------------------------------------------------------------

    async fn deploy(&mut self, deploy: &DeployAction) -> Result<Ended, Stop> {
        let number = match self.deployment.release {
            Some(number) => number,
            None => match self.build_release(deploy).await? {
                Some(number) => number,
                None => return Ok(Outcome::Unchanged.into()),
            },
        };
        if deploy.no_activate {
            return Ok(Outcome::Done.into());
        }
        self.activate(number, false).await
    }

    /// Builds and records a release; `None` when what serves is the same.
    #[tracing::instrument(name = "step", skip_all, fields(step = Phase::Planning.word()))]
    async fn build_release(&mut self, deploy: &DeployAction) -> Result<Option<ReleaseNumber>, Stop> {
        self.enter(Phase::Planning, "");
        let state = self.app_state().await?;
        let env = state.env.unwrap_or(EnvId([0; 32]));
        let secrets = self.context.ports.vault.open(&self.context.app, &self.env_record(&env).await?).await?;
        let job = BuildJob {
            app: self.context.app.clone(),
            source: deploy.source,
            prebuilt: deploy.prebuilt,
            folder: deploy.origin.folder.clone(),
            build_env: secrets,
            local_plan: self.local_plan,
        };
        let built = self.build(job).await?;
        let parent = self.serving_record(&state).await?;
        let release = self.release_of(&built, deploy.source, built.plan_digest, env, parent.as_ref());
        if !deploy.force
            && !state.stopped
            && parent.as_ref().is_some_and(|p| p.identity.content == release.content_id())
        {
            return Ok(None);
        }
        self.create_release(&state, release, parent.as_ref(), deploy, built).await.map(Some)
    }

    #[tracing::instrument(name = "step", skip_all, fields(step = Phase::Building.word()))]
    async fn build(&mut self, job: BuildJob) -> Result<Built, Stop> {
        let (progress, mut updates) = tokio::sync::mpsc::channel(256);
        let builder = Arc::clone(&self.context.ports.builder);
        let cancel = self.gate.token().clone();
        let building = builder.build(job, progress, cancel);
        tokio::pin!(building);
        loop {
            tokio::select! {
                biased;
                // Cancel-safe: an update that was not received stays in the channel.
                Some(update) = updates.recv() => self.say_build(update),
                result = &mut building => {
                    while let Ok(update) = updates.try_recv() {
                        self.say_build(update);
                    }
                    return Ok(result?);
                }
            }
        }
    }

    fn say_build(&mut self, progress: BuildProgress) {
        match progress {
            BuildProgress::Plan { shape, processes } => {
                self.enter(Phase::Building, &format!("{shape}: {}", processes.join("; ")))
            }
            BuildProgress::Step { text, done, total, cached } => {
                let what = if cached { format!("{text} (cached)") } else { text };
                self.say(Update::Progress { what, done: done.into(), total: total.into(), unit: "steps" });
            }
            BuildProgress::Line(line) => {
                self.say(Update::Output { source: "build", process: String::new(), line });
            }
            BuildProgress::Note { warn, text } => self.say(Update::Note { warn, text }),
        }
    }

    fn release_of(
        &self,
        built: &Built,
        source: SourceDigest,
        plan: PlanDigest,
        env: EnvId,
        parent: Option<&ReleaseRecord>,
    ) -> Release {
        Release {
            app: self.context.app.clone(),
            source,
            plan,
            processes: built.processes.clone(),
            env,
            parent: parent.map(|p| p.identity.id),
            author: Author(self.deployment.by.name.clone()),
        }
    }

    async fn create_release(
        &mut self,
        state: &AppState,
        release: Release,
        parent: Option<&ReleaseRecord>,
        deploy: &DeployAction,
        built: Built,
    ) -> Result<ReleaseNumber, Stop> {
        let number = state.newest.map_or(ReleaseNumber::FIRST, ReleaseNumber::next);
        let mut changes = match parent {
            Some(parent) => self.differences(&parent.release, &release).await?,
            None => Vec::new(),
        };
        if let Some(parent) = parent
            && parent.release.source != release.source
        {
            let trees = &self.context.ports.trees;
            let paths = trees.changed_paths(&parent.release.source, &release.source, 20).await;
            changes.retain(|c| c.what != "code");
            changes.extend(paths.into_iter().map(|text| Difference { what: "code", text }));
        }
        let kind = self.deployment.action.kind().to_owned();
        let meta = ReleaseMeta {
            created_at_ms: self.context.ports.clock.now_ms(),
            origin: deploy.origin.clone(),
            build_ms: built.build_ms,
            build_env: built.build_env,
            changes: changes.into_iter().map(|c| c.text).take(20).collect(),
            kind,
        };
        self.record_release(number, release, meta).await
    }

    async fn record_release(
        &mut self,
        number: ReleaseNumber,
        release: Release,
        meta: ReleaseMeta,
    ) -> Result<ReleaseNumber, Stop> {
        for process in release.instance_processes() {
            if let refloat_model::Backend::Instance { image, .. } = &process.backend {
                self.context.ports.engine.keep_image(image, &self.context.app, number).await?;
            }
        }
        self.append(Event::ReleaseCreated { deployment: self.deployment.id, number, release, meta }).await?;
        self.deployment.release = Some(number);
        Ok(number)
    }

    // ---- env -------------------------------------------------------------------------------------------------

    async fn change_env(&mut self, env: EnvId, no_activate: bool, names: &[String]) -> Result<Ended, Stop> {
        let state = self.app_state().await?;
        // Nothing is there to make a release of: the first deploy takes the values.
        let Some(serving) = self.serving_record(&state).await? else { return Ok(Outcome::Done.into()) };
        let number = match self.deployment.release {
            Some(number) => number,
            None if serving.release.env == env => return Ok(Outcome::Unchanged.into()),
            None => {
                let (release, meta) = self.with_env(&serving, env, names).await?;
                let number = state.newest.map_or(ReleaseNumber::FIRST, ReleaseNumber::next);
                self.record_release(number, release, meta).await?
            }
        };
        if no_activate {
            return Ok(Outcome::Done.into());
        }
        self.activate(number, false).await
    }

    /// What serves with another environment, built again where the build reads what was changed.
    async fn with_env(
        &mut self,
        serving: &ReleaseRecord,
        env: EnvId,
        names: &[String],
    ) -> Result<(Release, ReleaseMeta), Stop> {
        let mut release = Release {
            env,
            parent: Some(serving.identity.id),
            author: Author(self.deployment.by.name.clone()),
            ..serving.release.clone()
        };
        let mut meta = ReleaseMeta {
            created_at_ms: self.context.ports.clock.now_ms(),
            // The folder's name takes part in the plan.
            origin: Origin { folder: serving.meta.origin.folder.clone(), ..Origin::default() },
            build_ms: 0,
            changes: names.iter().take(20).map(|n| format!("env: {n}")).collect(),
            kind: "env".to_owned(),
            build_env: serving.meta.build_env.clone(),
        };
        if names.iter().any(|name| meta.build_env.contains(name)) {
            self.enter(Phase::Planning, "");
            let job = BuildJob {
                app: self.context.app.clone(),
                source: release.source,
                prebuilt: false,
                folder: meta.origin.folder.clone(),
                build_env: self.context.ports.vault.open(&self.context.app, &self.env_record(&env).await?).await?,
                local_plan: None,
            };
            let built = self.build(job).await?;
            (release.plan, release.processes) = (built.plan_digest, built.processes);
            (meta.build_ms, meta.build_env) = (built.build_ms, built.build_env);
        }
        Ok((release, meta))
    }

    // ---- activate --------------------------------------------------------------------------------------------

    #[tracing::instrument(name = "step", skip_all, fields(step = Phase::Preparing.word(), release = %number))]
    async fn activate(&mut self, number: ReleaseNumber, fresh: bool) -> Result<Ended, Stop> {
        self.deployment.release = Some(number);
        let record = self.release_record(number).await?;
        let state = self.app_state().await?;
        if self.deployment.committed {
            return self.verify(&record).await;
        }
        self.undone = self.undone_by(&state, &record).await?;
        self.enter(Phase::Preparing, "");
        let mut handed = Vec::new();
        let ready = self.make_ready(&record, fresh, &mut handed).await;
        let committed = match ready {
            Ok(instances) => self.commit(&state, &record, &instances, fresh).await,
            Err(stop) => Err(stop),
        };
        match committed {
            Ok(switched) => {
                self.finish_handovers(&handed).await;
                self.after_commit(&record, switched).await
            }
            Err(stop) => {
                self.compensate(&handed).await;
                Err(stop)
            }
        }
    }

    async fn undone_by(&self, state: &AppState, target: &ReleaseRecord) -> Result<Vec<Difference>, Stop> {
        match self.deployment.action {
            Action::Rollback(_) | Action::Activate(_) => match self.serving_record(state).await? {
                Some(serving) => self.differences(&serving.release, &target.release).await,
                None => Ok(Vec::new()),
            },
            _ => Ok(Vec::new()),
        }
    }

    async fn commit(
        &mut self,
        state: &AppState,
        record: &ReleaseRecord,
        instances: &[(ProcessName, InstanceRecord)],
        fresh: bool,
    ) -> Result<Switched, Stop> {
        self.enter(Phase::Staging, "");
        let routes = planning::routes(&record.release, record.number, record.identity.id, &state.domains, instances)
            .ok_or_else(|| Stop::failed("NO_INSTANCE", "a process of the release has no instance", "refloat status"))?;
        let activates = (!fresh).then_some(record.number);
        self.switch(activates, Some(routes)).await
    }

    #[tracing::instrument(name = "step", skip_all, fields(step = Phase::Staging.word()))]
    async fn switch(
        &mut self,
        activates: Option<ReleaseNumber>,
        routes: Option<refloat_model::AppRoutes>,
    ) -> Result<Switched, Stop> {
        self.gate.close().map_err(Stop::Cancelled)?;
        let change = Change {
            app: self.context.app.clone(),
            deployment: self.deployment.id,
            activates,
            routes,
            by: self.deployment.by.clone(),
        };
        let switched = self.context.sequencer.switch(change).await?;
        self.deployment.committed = true;
        self.timings.push(("server".to_owned(), self.began.elapsed()));
        info!(generation = %switched.generation, table = ?switched.table, "committed");
        self.enter(Phase::Committed, &switched.generation.to_string());
        Ok(switched)
    }

    #[tracing::instrument(name = "step", skip_all, fields(step = Phase::Applying.word(), generation = %switched.generation))]
    async fn after_commit(&mut self, record: &ReleaseRecord, switched: Switched) -> Result<Ended, Stop> {
        match switched.not_served {
            Some(why) => Ok(Outcome::CommittedNotServed(why).into()),
            None => self.verify(record).await,
        }
    }

    #[tracing::instrument(name = "step", skip_all, fields(step = Phase::Verifying.word()))]
    async fn verify(&mut self, record: &ReleaseRecord) -> Result<Ended, Stop> {
        self.enter(Phase::Verifying, "");
        let truth = super::verify::truth(&self.context, record).await?;
        let outcome = match truth.doubt {
            None => Outcome::Live,
            Some(doubt) => Outcome::LiveUnverified(doubt),
        };
        Ok(Ended { outcome, fetched: truth.fetched, addresses: truth.addresses })
    }

    // ---- live state ------------------------------------------------------------------------------------------

    async fn stop_app(&mut self) -> Result<Ended, Stop> {
        let state = self.app_state().await?;
        if !self.deployment.committed {
            let host = self.context.ports.journal.host().await?;
            let routes = host.table.app(&self.context.app).cloned();
            let stopped = routes.map(|r| refloat_model::AppRoutes { serving: AppServing::Stopped, ..r });
            let switched = self.switch(None, stopped).await?;
            if let Some(why) = switched.not_served {
                return Ok(Outcome::CommittedNotServed(why).into());
            }
        }
        for instance in &state.instances {
            self.context.ports.engine.set_restart(&instance.name, crate::docker::Restart::No).await.ok();
            match self.context.ports.engine.stop(&instance.name, self.context.settings.stop_grace_ms).await {
                Ok(()) | Err(EngineError::NotFound(_)) => {}
                // Visitors get 503 already; the keeper goes on stopping what should not run.
                Err(error) => warn!(instance = %instance.name, %error, "an instance could not be stopped yet"),
            }
        }
        Ok(Outcome::Done.into())
    }

    async fn set_domains(&mut self, domains: Vec<refloat_model::HostName>) -> Result<Ended, Stop> {
        let host = self.context.ports.journal.host().await?;
        let mut not_served = None;
        // The routes first: a table that is refused must not leave domains behind that no release can be routed with.
        if let Some(routes) = host.table.app(&self.context.app) {
            let (catch_all, hosts) = (domains.is_empty(), domains.clone());
            let next = refloat_model::AppRoutes { catch_all, hosts, ..routes.clone() };
            if next != *routes {
                not_served = self.switch(None, Some(next)).await?.not_served;
            }
        }
        self.gate.close().map_err(Stop::Cancelled)?;
        self.append(Event::DomainsSet { app: self.context.app.clone(), domains }).await?;
        let outcome = not_served.map_or(Outcome::Done, Outcome::CommittedNotServed);
        let addresses = super::verify::addresses(&self.context).await?;
        Ok(Ended { addresses, ..outcome.into() })
    }

    async fn destroy(&mut self, volumes: bool) -> Result<Ended, Stop> {
        let host = self.context.ports.journal.host().await?;
        // An engine that does not answer is found out while everything still serves.
        let observed = self.context.ports.engine.list().await?;
        if host.table.app(&self.context.app).is_some() {
            self.switch(None, None).await?;
        }
        self.gate.close().map_err(Stop::Cancelled)?;
        let engine = &self.context.ports.engine;
        for instance in &self.app_state().await?.instances {
            engine.remove(&instance.name).await?;
        }
        for observed in observed.iter().filter(|o| o.app == self.context.app) {
            engine.remove(&observed.name).await?;
        }
        engine.remove_network(&self.context.app).await?;
        if volumes {
            for volume in engine.volumes(&self.context.app).await? {
                engine.remove_volume(&self.context.app, &volume).await?;
            }
        }
        let releases = self.context.ports.journal.releases(&self.context.app, usize::MAX).await?;
        for release in &releases {
            engine.release_image(&self.context.app, release.number).await?;
        }
        // Last: until here a deploy could still bring the app back.
        for env in self.context.ports.journal.envs(&self.context.app).await? {
            self.context.ports.vault.erase(&self.context.app, &env.variables).await?;
        }
        self.context.ports.output.forget(&self.context.app).await;
        self.context.standby.note(&self.context.app, Vec::new());
        Ok(Outcome::Done.into())
    }

    // ---- what every step uses --------------------------------------------------------------------------------

    pub(super) async fn append(&self, event: Event) -> Result<(), Stop> {
        Ok(self.context.ports.journal.append(&self.deployment.by, event).await?)
    }

    pub(super) async fn app_state(&self) -> Result<AppState, Stop> {
        let state = self.context.ports.journal.app(&self.context.app).await?;
        state.ok_or_else(|| Stop::failed("NO_SUCH_APP", "the app is gone", "refloat status"))
    }

    pub(super) async fn release_record(&self, number: ReleaseNumber) -> Result<ReleaseRecord, Stop> {
        let record = self.context.ports.journal.release(&self.context.app, number).await?;
        record.ok_or_else(|| Stop::failed("NO_SUCH_RELEASE", format!("there is no {number}"), "refloat releases"))
    }

    pub(super) async fn serving_record(&self, state: &AppState) -> Result<Option<ReleaseRecord>, Stop> {
        match state.serving {
            Some(number) => self.release_record(number).await.map(Some),
            None => Ok(None),
        }
    }

    pub(super) async fn env_record(&self, env: &EnvId) -> Result<EnvRecord, Stop> {
        Ok(self.context.ports.journal.env(&self.context.app, env).await?.unwrap_or_default())
    }

    async fn differences(&self, from: &Release, to: &Release) -> Result<Vec<Difference>, Stop> {
        let (a, b) = (self.env_record(&from.env).await?, self.env_record(&to.env).await?);
        Ok(difference::changes(Side { release: from, env: &a.variables }, Side { release: to, env: &b.variables }))
    }

    pub(super) fn is_doomed(&self, name: &InstanceName) -> bool {
        self.context.doomed.lock().unwrap_or_else(PoisonError::into_inner).contains(name)
    }

    /// Waits for `work`, or for the cancellation.
    pub(super) async fn cancellable<T>(&self, work: impl Future<Output = T>) -> Result<T, Stop> {
        tokio::select! {
            biased;
            // The work is dropped: every effect is idempotent and the keeper removes what it leaves.
            () = self.gate.token().cancelled() => {
                Err(Stop::Cancelled(self.gate.cancelled_by().unwrap_or_default()))
            }
            result = work => Ok(result),
        }
    }

    pub(super) fn enter(&mut self, phase: Phase, detail: &str) {
        let (last, since) = std::mem::replace(&mut self.phase, (phase, Instant::now()));
        if last == phase {
            self.phase.1 = since;
        } else {
            self.timings.push((last.word().to_owned(), since.elapsed()));
        }
        if phase != Phase::Ended {
            let detail = (!detail.is_empty()).then_some(detail);
            info!(step = phase.word(), detail, "step began");
        }
        self.say(Update::Phase(phase, detail.to_owned()));
    }

    pub(super) fn say(&self, update: Update) {
        self.feed.push(self.context.ports.clock.now_ms(), update);
    }

    pub(super) fn was_down(&mut self, process: &Process, since: Instant) {
        self.downtimes.push((process.name.clone(), since.elapsed()));
    }

    async fn report(&mut self, ended: Ended) -> Report {
        let state = self.context.ports.journal.app(&self.context.app).await.ok().flatten();
        let host = self.context.ports.journal.host().await.unwrap_or_default();
        // A stopped app, and one whose routes are gone, has a serving release by its record and none for visitors.
        let is_routed = host.table.app(&self.context.app).is_some();
        let serving = state.as_ref().and_then(AppState::serves).filter(|_| is_routed);
        let still_fine = match serving {
            Some(number) => format!("{number} still serves"),
            None if state.as_ref().is_some_and(|s| s.stopped) => "the app is stopped, as before".to_owned(),
            None => "nothing serves now".to_owned(),
        };
        Report {
            outcome: ended.outcome,
            serving,
            release: self.deployment.release,
            still_fine,
            addresses: ended.addresses,
            fetched: ended.fetched,
            timings: std::mem::take(&mut self.timings),
            downtimes: std::mem::take(&mut self.downtimes),
            undone: std::mem::take(&mut self.undone),
            emergency: match self.context.settings.emergency.as_str() {
                "" => String::new(),
                command => format!("{command} {}", self.context.app),
            },
            generation: host.table.generation,
        }
    }
}

/// The instance that a process is routed to now.
pub(super) fn routed_instances(routes: Option<&refloat_model::AppRoutes>) -> Vec<InstanceName> {
    let mut names: Vec<InstanceName> = routes
        .into_iter()
        .flat_map(|r| &r.routes)
        .filter_map(|r| match &r.target {
            RouteTarget::Instance { name, .. } => Some(name.clone()),
            RouteTarget::Files { .. } => None,
        })
        .collect();
    names.dedup();
    names
}
