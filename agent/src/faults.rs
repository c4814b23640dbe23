//! What goes wrong at the n-th effect of an agent's life. For tests; never shipped.
//!
//! Every port of the driver gets a wrapper that counts effects and shares one plan: at the n-th one the agent dies before or
//! after it, it fails, or it happens and the answer is lost. In memory a dead agent never answers again; as a process of
//! its own ([`Faults::kill_process`]) it is killed.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use refloat_model::{
    AppName, AppState, DeploymentId, DeploymentRecord, EnvId, EnvRecord, Event, Generation, HostState, ImageDigest,
    InstanceName, OneOffId, OneOffRecord, Principal, ReleaseNumber, ReleaseRecord, RouteTable, TableDigest,
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::build::{BuildError, BuildJob, BuildProgress, Builder, Built};
use crate::deploy::ports::Ports;
use crate::docker::{
    BuildOutput, BuildRequest, Engine, EngineError, EngineInfo, ImageInfo, InstanceSpec, LogLine, NetworkSpec,
    Observed, Restart, RunIo, RunRequest,
};
use crate::edge::{Edge, EdgeError, EdgeStatus};
use crate::journal::{Journal, JournalError};

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// The agent dies, the effect does not happen.
    CrashBefore,
    /// The effect happens, then the agent dies.
    CrashAfter,
    /// The effect does not happen, and the agent is told so.
    Fail,
    /// The effect happens, and the agent is told that it did not.
    LostAnswer,
    /// The effect happens, then a process of its own is stopped until somebody lets it go on: what happens to others meanwhile is
    /// decided there.
    StopAfter,
}

impl Mode {
    /// All that need no process of their own.
    pub const ALL: [Self; 4] = [Self::CrashBefore, Self::CrashAfter, Self::Fail, Self::LostAnswer];
}

/// The effect of a record.
const APPEND: &str = "journal.append";

/// The plan, shared by every port of one agent's life.
#[derive(Clone, Default)]
pub struct Faults(Arc<Mutex<Plan>>);

#[derive(Default)]
struct Plan {
    effects: Vec<&'static str>,
    at: Option<(usize, Mode)>,
    /// Effects before a deployment is accepted do not count.
    from_acceptance: bool,
    kills_process: bool,
    dead: bool,
    ledger_closed: bool,
}

enum Fate {
    Go,
    Hit(Mode),
    Dead,
}

impl Faults {
    /// Nothing goes wrong; effects are counted.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// At the n-th effect from the acceptance of the next deployment on, counted from 0, this process is killed.
    #[must_use]
    pub fn kill_process(n: usize, mode: Mode) -> Self {
        let faults = Self::default();
        *faults.plan() = Plan { at: Some((n, mode)), from_acceptance: true, kills_process: true, ..Plan::default() };
        faults
    }

    /// At the n-th effect from now, counted from 0.
    pub fn arm(&self, n: usize, mode: Mode) {
        let mut plan = self.plan();
        plan.effects.clear();
        plan.at = Some((n, mode));
    }

    /// Counts again from here.
    pub fn reset_count(&self) {
        self.plan().effects.clear();
    }

    /// Names of the effects so far.
    #[must_use]
    pub fn effects(&self) -> Vec<&'static str> {
        self.plan().effects.clone()
    }

    /// Whether the effect that happens now is a record whose answer is lost: on the disk, and to nobody's knowledge.
    #[must_use]
    pub fn loses_record(&self) -> bool {
        let plan = self.plan();
        let lost = plan.at.is_some_and(|(at, mode)| mode == Mode::LostAnswer && at + 1 == plan.effects.len());
        lost && plan.effects.last() == Some(&APPEND)
    }

    /// Whether this agent can only be restarted.
    #[must_use]
    pub fn must_restart(&self) -> bool {
        let plan = self.plan();
        plan.dead || plan.ledger_closed
    }

    /// The same ports with this plan between them and the driver.
    #[must_use]
    pub fn wrap(&self, ports: Ports) -> Ports {
        let faults = || self.clone();
        Ports {
            edge: Arc::new(FaultyEdge { inner: ports.edge, journal: Arc::clone(&ports.journal), faults: faults() }),
            journal: Arc::new(FaultyJournal { inner: ports.journal, faults: faults() }),
            engine: Arc::new(FaultyEngine { inner: ports.engine, faults: faults() }),
            builder: Arc::new(FaultyBuilder { inner: ports.builder, faults: faults() }),
            ..ports
        }
    }

    fn plan(&self) -> MutexGuard<'_, Plan> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next(&self, what: &'static str) -> Fate {
        let mut plan = self.plan();
        if plan.dead {
            return Fate::Dead;
        }
        if plan.from_acceptance {
            return Fate::Go;
        }
        let n = plan.effects.len();
        plan.effects.push(what);
        match plan.at {
            Some((at, mode)) if at == n => Fate::Hit(mode),
            _ => Fate::Go,
        }
    }

    async fn die<T>(&self) -> T {
        let kills = {
            let mut plan = self.plan();
            plan.dead = true;
            plan.kills_process
        };
        if kills {
            // The kernel does not answer a process that it kills; there is nothing to do about an error.
            let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        }
        std::future::pending().await
    }

    /// Returns when the process was let go on.
    fn stop(&self) {
        if self.plan().kills_process {
            // As above.
            let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::STOP);
        }
    }

    async fn effect<T, E>(
        &self,
        what: &'static str,
        run: impl Future<Output = Result<T, E>>,
        failed: impl FnOnce() -> E,
        lost: impl FnOnce() -> E,
    ) -> Result<T, E> {
        match self.next(what) {
            Fate::Go => run.await,
            Fate::Dead => std::future::pending().await,
            Fate::Hit(Mode::CrashBefore) => self.die().await,
            Fate::Hit(Mode::CrashAfter) => {
                run.await.ok();
                self.die().await
            }
            Fate::Hit(Mode::StopAfter) => {
                let done = run.await;
                self.stop();
                done
            }
            Fate::Hit(Mode::Fail) => Err(failed()),
            Fate::Hit(Mode::LostAnswer) => {
                run.await.ok();
                Err(lost())
            }
        }
    }

    /// Reads of a dead agent never answer.
    async fn alive(&self) {
        if self.plan().dead {
            std::future::pending::<()>().await;
        }
    }
}

struct FaultyJournal {
    inner: Arc<dyn Journal>,
    faults: Faults,
}

#[async_trait]
impl Journal for FaultyJournal {
    async fn append(&self, by: &Principal, event: Event) -> Result<(), JournalError> {
        self.faults.alive().await;
        if self.faults.plan().ledger_closed {
            return Err(JournalError::Closed("an earlier sync failed".into()));
        }
        if matches!(event, Event::DeploymentAccepted { .. }) {
            self.faults.plan().from_acceptance = false;
        }
        let closes = || {
            self.faults.plan().ledger_closed = true;
            JournalError::NotDurable("injected".into())
        };
        self.faults.effect(APPEND, self.inner.append(by, event), closes, closes).await
    }
    async fn host(&self) -> Result<HostState, JournalError> {
        self.faults.alive().await;
        self.inner.host().await
    }
    async fn app(&self, app: &AppName) -> Result<Option<AppState>, JournalError> {
        self.faults.alive().await;
        self.inner.app(app).await
    }
    async fn apps(&self) -> Result<Vec<AppState>, JournalError> {
        self.faults.alive().await;
        self.inner.apps().await
    }
    async fn release(&self, app: &AppName, number: ReleaseNumber) -> Result<Option<ReleaseRecord>, JournalError> {
        self.faults.alive().await;
        self.inner.release(app, number).await
    }
    async fn releases(&self, app: &AppName, limit: usize) -> Result<Vec<ReleaseRecord>, JournalError> {
        self.faults.alive().await;
        self.inner.releases(app, limit).await
    }
    async fn deployment(&self, id: &DeploymentId) -> Result<Option<DeploymentRecord>, JournalError> {
        self.faults.alive().await;
        self.inner.deployment(id).await
    }
    async fn env(&self, app: &AppName, env: &EnvId) -> Result<Option<EnvRecord>, JournalError> {
        self.faults.alive().await;
        self.inner.env(app, env).await
    }
    async fn envs(&self, app: &AppName) -> Result<Vec<EnvRecord>, JournalError> {
        self.faults.alive().await;
        self.inner.envs(app).await
    }
    async fn one_off(&self, app: &AppName, id: OneOffId) -> Result<Option<OneOffRecord>, JournalError> {
        self.faults.alive().await;
        self.inner.one_off(app, id).await
    }
}

struct FaultyEdge {
    inner: Arc<dyn Edge>,
    journal: Arc<dyn Journal>,
    faults: Faults,
}

impl FaultyEdge {
    async fn effect<T>(
        &self,
        what: &'static str,
        run: impl Future<Output = Result<T, EdgeError>>,
    ) -> Result<T, EdgeError> {
        let away = || EdgeError::Unreachable("injected".into());
        self.faults.effect(what, run, away, away).await
    }

    /// The rule of the commit point: nothing is applied that is not in the ledger.
    async fn is_committed(&self, generation: Generation, table: TableDigest) {
        let committed = self.journal.host().await.unwrap_or_default().table;
        let is = committed.generation == generation && committed.table_digest() == table;
        assert!(is, "{generation} is applied, {} is committed", committed.generation);
    }
}

#[async_trait]
impl Edge for FaultyEdge {
    async fn status(&self) -> Result<EdgeStatus, EdgeError> {
        self.faults.alive().await;
        self.inner.status().await
    }
    async fn stage(&self, table: &RouteTable) -> Result<(), EdgeError> {
        self.effect("edge.stage", self.inner.stage(table)).await
    }
    async fn apply(&self, generation: Generation, table: TableDigest) -> Result<(), EdgeError> {
        self.faults.alive().await;
        self.is_committed(generation, table).await;
        self.effect("edge.apply", self.inner.apply(generation, table)).await
    }
    async fn hold(&self, app: &AppName, deadline_ms: u32) -> Result<(), EdgeError> {
        self.effect("edge.hold", self.inner.hold(app, deadline_ms)).await
    }
    async fn release(&self, app: &AppName) -> Result<(), EdgeError> {
        self.effect("edge.release", self.inner.release(app)).await
    }
    async fn in_flight(&self, instances: &[InstanceName]) -> Result<Vec<u32>, EdgeError> {
        self.faults.alive().await;
        self.inner.in_flight(instances).await
    }
}

struct FaultyBuilder {
    inner: Arc<dyn Builder>,
    faults: Faults,
}

#[async_trait]
impl Builder for FaultyBuilder {
    async fn build(
        &self,
        job: BuildJob,
        progress: mpsc::Sender<BuildProgress>,
        cancel: CancellationToken,
    ) -> Result<Built, BuildError> {
        let failed = || BuildError::Cancelled;
        self.faults.effect("builder.build", self.inner.build(job, progress, cancel), failed, failed).await
    }
}

struct FaultyEngine {
    inner: Arc<dyn Engine>,
    faults: Faults,
}

impl FaultyEngine {
    async fn effect<T>(
        &self,
        what: &'static str,
        run: impl Future<Output = Result<T, EngineError>>,
    ) -> Result<T, EngineError> {
        let failed = || EngineError::Refused { what, message: "injected".into() };
        let lost = || EngineError::Timeout { what, timeout_ms: 1 };
        self.faults.effect(what, run, failed, lost).await
    }
}

#[async_trait]
impl Engine for FaultyEngine {
    async fn info(&self) -> Result<EngineInfo, EngineError> {
        self.faults.alive().await;
        self.inner.info().await
    }
    async fn ensure_network(&self, network: &NetworkSpec) -> Result<(), EngineError> {
        self.effect("engine.ensure_network", self.inner.ensure_network(network)).await
    }
    async fn remove_network(&self, app: &AppName) -> Result<(), EngineError> {
        self.effect("engine.remove_network", self.inner.remove_network(app)).await
    }
    async fn create(&self, spec: &InstanceSpec) -> Result<(), EngineError> {
        self.effect("engine.create", self.inner.create(spec)).await
    }
    async fn start(&self, name: &InstanceName) -> Result<(), EngineError> {
        self.effect("engine.start", self.inner.start(name)).await
    }
    async fn stop(&self, name: &InstanceName, grace_ms: u32) -> Result<(), EngineError> {
        self.effect("engine.stop", self.inner.stop(name, grace_ms)).await
    }
    async fn pause(&self, name: &InstanceName) -> Result<(), EngineError> {
        self.effect("engine.pause", self.inner.pause(name)).await
    }
    async fn unpause(&self, name: &InstanceName) -> Result<(), EngineError> {
        self.effect("engine.unpause", self.inner.unpause(name)).await
    }
    async fn remove(&self, name: &InstanceName) -> Result<(), EngineError> {
        self.effect("engine.remove", self.inner.remove(name)).await
    }
    async fn set_restart(&self, name: &InstanceName, restart: Restart) -> Result<(), EngineError> {
        self.effect("engine.set_restart", self.inner.set_restart(name, restart)).await
    }
    async fn inspect(&self, name: &InstanceName) -> Result<Option<Observed>, EngineError> {
        self.faults.alive().await;
        self.inner.inspect(name).await
    }
    async fn list(&self) -> Result<Vec<Observed>, EngineError> {
        self.faults.alive().await;
        self.inner.list().await
    }
    async fn tail(&self, name: &InstanceName, lines: u32) -> Result<Vec<LogLine>, EngineError> {
        self.faults.alive().await;
        self.inner.tail(name, lines).await
    }
    async fn follow(&self, name: &InstanceName, since_ms: u64, to: mpsc::Sender<LogLine>) -> Result<(), EngineError> {
        self.faults.alive().await;
        self.inner.follow(name, since_ms, to).await
    }
    async fn memory_bytes(&self, name: &InstanceName) -> Result<u64, EngineError> {
        self.faults.alive().await;
        self.inner.memory_bytes(name).await
    }
    async fn image(&self, digest: &ImageDigest) -> Result<Option<ImageInfo>, EngineError> {
        self.faults.alive().await;
        self.inner.image(digest).await
    }
    async fn keep_image(&self, digest: &ImageDigest, app: &AppName, release: ReleaseNumber) -> Result<(), EngineError> {
        self.effect("engine.keep_image", self.inner.keep_image(digest, app, release)).await
    }
    async fn release_image(&self, app: &AppName, release: ReleaseNumber) -> Result<(), EngineError> {
        self.effect("engine.release_image", self.inner.release_image(app, release)).await
    }
    async fn build(
        &self,
        request: BuildRequest,
        output: mpsc::Sender<BuildOutput>,
        cancel: CancellationToken,
    ) -> Result<ImageDigest, EngineError> {
        self.effect("engine.build", self.inner.build(request, output, cancel)).await
    }
    async fn export(&self, image: &ImageDigest, to: mpsc::Sender<Vec<u8>>) -> Result<(), EngineError> {
        self.faults.alive().await;
        self.inner.export(image, to).await
    }
    async fn ensure_volume(&self, app: &AppName, volume: &str) -> Result<(), EngineError> {
        self.effect("engine.ensure_volume", self.inner.ensure_volume(app, volume)).await
    }
    async fn volumes(&self, app: &AppName) -> Result<Vec<String>, EngineError> {
        self.faults.alive().await;
        self.inner.volumes(app).await
    }
    async fn remove_volume(&self, app: &AppName, volume: &str) -> Result<(), EngineError> {
        self.effect("engine.remove_volume", self.inner.remove_volume(app, volume)).await
    }
    async fn run(&self, request: RunRequest, io: RunIo) -> Result<i64, EngineError> {
        self.effect("engine.run", self.inner.run(request, io)).await
    }
}
