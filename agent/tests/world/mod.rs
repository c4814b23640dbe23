//! A whole host in memory: what outlives an agent (journal, Docker, the edge) and the agents that come and go.
#![allow(dead_code, missing_docs, clippy::unwrap_used, clippy::panic, unreachable_pub)]

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use refloat_agent::build::{BuildError, BuildJob, BuildProgress, Builder, Built};
use refloat_agent::clock::Clock;
use refloat_agent::deploy::ports::{Fetch, Output, Ports, Routes, Settings, Trees, Vault, VaultError};
use refloat_agent::deploy::request::{Ask, Denied, Submit};
use refloat_agent::deploy::update::{Report, Update};
use refloat_agent::deploy::{Deployments, Watch};
use refloat_agent::docker::fake::{Behaviour, FakeDocker};
use refloat_agent::docker::{Engine, RunState, Secrets};

use refloat_agent::edge::fake::FakeEdge;
use refloat_agent::faults::Faults;
use refloat_agent::journal::Journal;
use refloat_agent::journal::{MemoryDisk, MemoryJournal};
use refloat_agent::network::{HostRoute, Subnet};
use refloat_agent::probe::FakeProbe;
use refloat_model::standby::StandbyPolicy;
use refloat_model::*;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

pub const HOST: [u8; 16] = [7; 16];

/// What outlives an agent.
#[derive(Clone)]
pub struct World {
    pub disk: MemoryDisk,
    pub journal: Arc<MemoryJournal>,
    pub docker: FakeDocker,
    pub edge: FakeEdge,
    pub builder: ScriptedBuilder,
    /// What this host reaches besides its apps.
    pub routes: Arc<Mutex<Vec<HostRoute>>>,
    ids: Arc<Mutex<u8>>,
}

impl World {
    pub async fn new() -> Self {
        let disk = MemoryDisk::new();
        let journal = Arc::new(MemoryJournal::open(&disk, Arc::new(TokioClock)).unwrap());
        let docker = FakeDocker::new();
        Self {
            disk,
            journal,
            docker,
            edge: FakeEdge::default(),
            builder: ScriptedBuilder::default(),
            routes: Arc::default(),
            ids: Arc::default(),
        }
    }

    /// The same host to an agent that reads its ledger again.
    pub fn reloaded(&self) -> Self {
        let journal = Arc::new(MemoryJournal::open(&self.disk, Arc::new(TokioClock)).unwrap());
        Self { journal, ..self.clone() }
    }

    /// An agent on this host, with what goes wrong for it.
    pub async fn agent(&self, faults: &Faults) -> Agent {
        let ports = faults.wrap(Ports {
            journal: self.journal.clone(),
            engine: Arc::new(self.docker.agent(HOST)),
            edge: Arc::new(self.edge.clone()),
            builder: Arc::new(self.builder.clone()),
            probe: Arc::new(FakeProbe(self.docker.clone())),
            trees: Arc::new(AllTrees),
            vault: Arc::new(PlainVault),
            fetch: Arc::new(FetchThroughEdge { edge: self.edge.clone(), docker: self.docker.clone() }),
            output: Arc::new(NoOutput),
            routes: Arc::new(self.clone()),
            clock: Arc::new(TokioClock),
        });
        let deployments = loop {
            match Deployments::start(ports.clone(), settings()).await {
                Ok(deployments) => break deployments,
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        };
        Agent { world: self.clone(), deployments }
    }

    pub async fn healthy_agent(&self) -> Agent {
        self.agent(&Faults::none()).await
    }

    /// A source that builds to one container process.
    pub fn source(&self, n: u8, shape: Shape) -> SourceDigest {
        let image = self.docker.image(&format!("image-{n}"), shape.behaviour.clone());
        let process = Process {
            name: ProcessName::new("web").unwrap(),
            kind: ProcessKind::Web,
            exclusive: shape.exclusive,
            backend: Backend::Instance {
                image,
                command: vec![],
                port: 8080,
                hardening: shape.hardening,
                writable_root: false,
                capabilities: Vec::new(),
            },
            routes: vec![PathPrefix::root()],
            health: Health { path: None, start_timeout_ms: 5_000 },
            resources: Resources::default(),
            volumes: vec![],
            schedule: None,
        };
        self.build_of(n, vec![process], shape.build_ms)
    }

    /// A source that builds to a tree of files.
    pub fn files(&self, n: u8) -> SourceDigest {
        let rules = StaticRules { fallback: None, not_found: None, no_fallback: vec![], immutable: vec![] };
        let process = Process {
            name: ProcessName::new("web").unwrap(),
            kind: ProcessKind::Web,
            exclusive: false,
            backend: Backend::Files { tree: TreeDigest([n; 32]), rules },
            routes: vec![PathPrefix::root()],
            health: Health::default(),
            resources: Resources::default(),
            volumes: vec![],
            schedule: None,
        };
        self.build_of(n, vec![process], 0)
    }

    fn build_of(&self, n: u8, processes: Vec<Process>, build_ms: u64) -> SourceDigest {
        let source = SourceDigest([n; 32]);
        let built = Built {
            plan_digest: PlanDigest([n; 32]),
            processes,
            shape: "test".into(),
            build_env: vec![],
            build_ms,
            notes: vec![],
            unchanged: false,
            images: vec![],
            trees: vec![],
        };
        self.builder.made.lock().unwrap().insert(source, built);
        source
    }

    /// From now on the build of this source reads this variable.
    pub fn build_reads(&self, source: SourceDigest, name: &str) {
        let mut made = self.builder.made.lock().unwrap();
        made.get_mut(&source).expect("the source is known").build_env.push(name.to_owned());
    }

    pub fn id(&self) -> DeploymentId {
        let mut ids = self.ids.lock().unwrap();
        *ids += 1;
        DeploymentId([*ids; 16])
    }

    pub async fn app(&self, app: &AppName) -> AppState {
        self.journal.app(app).await.unwrap().expect("the app exists")
    }

    /// Which release answers a request for the app now, if any does.
    pub fn answers(&self, app: &AppName) -> Option<ReleaseNumber> {
        let table = self.edge.active();
        let routes = table.app(app)?;
        let route = routes.route_for_path("/")?;
        let up = match &route.target {
            RouteTarget::Instance { ip, port, .. } => self.docker.is_listening(Ipv4Addr::from(*ip), *port),
            RouteTarget::Files { .. } => true,
        };
        (up && routes.serving == AppServing::Serving).then_some(routes.release)
    }

    /// Waits until the app rests and everything is what the journal says; fails with what is off.
    pub async fn settled(&self, app: &AppName) {
        let mut off = String::new();
        for _ in 0..6_000 {
            match self.off(app).await {
                None => return,
                Some(why) => off = why,
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("after ten minutes the app is still not what the journal says: {off}");
    }

    /// The invariants of an app at rest; the first that does not hold.
    async fn off(&self, app: &AppName) -> Option<String> {
        let host = self.journal.host().await.unwrap();
        let state = self.journal.app(app).await.unwrap()?;
        if state.deployment.is_some() {
            return Some("a deployment runs".into());
        }
        if self.edge.active().table_digest() != host.table.table_digest() && host.table.generation.number > 0 {
            return Some("I1: the edge serves another table than is committed".into());
        }
        if self.edge.is_held(app) {
            return Some("requests are held".into());
        }
        let observed = self.docker.agent(HOST).list().await.unwrap();
        let routed: Vec<_> = host.table.app(app).into_iter().flat_map(|r| r.instances().cloned()).collect();
        for name in routed.iter().filter(|_| !state.stopped) {
            let up = observed.iter().any(|o| o.name == *name && o.state == RunState::Running);
            if !up {
                return Some(format!("I3: {name} is routed and does not run"));
            }
        }
        let known: Vec<_> = state.instances.iter().map(|i| &i.name).collect();
        if let Some(stray) = observed.iter().find(|o| o.app == *app && !known.contains(&&o.name)) {
            return Some(format!("I7: {} is in no record", stray.name));
        }
        let keep = [state.serving, state.displaced];
        let surplus = state.instances.iter().find(|i| !routed.contains(&i.name) && !keep.contains(&Some(i.release)));
        surplus.map(|i| format!("I7: {} is kept for nothing", i.name))
    }
}

impl Routes for World {
    fn routes(&self) -> Vec<HostRoute> {
        self.routes.lock().unwrap().clone()
    }
}

/// One agent's life.
pub struct Agent {
    pub world: World,
    pub deployments: Deployments,
}

impl Agent {
    pub async fn submit(&self, app: &AppName, ask: Ask) -> Result<Watch, Denied> {
        let by = Principal { name: "anna".into(), via: Via::Socket(0), from: "test".into() };
        let submit = Submit { app: Some(app.clone()), id: self.world.id(), ask, by, reason: String::new() };
        self.deployments.submit(submit).await
    }

    pub async fn deploy(&self, app: &AppName, source: SourceDigest) -> Report {
        report(self.submit(app, deploy(source)).await.unwrap()).await
    }

    pub async fn rollback(&self, app: &AppName) -> Report {
        report(self.submit(app, rollback()).await.unwrap()).await
    }
}

pub fn deploy(source: SourceDigest) -> Ask {
    Ask::Deploy {
        source,
        force: false,
        no_activate: false,
        prebuilt: false,
        origin: Origin::default(),
        local_plan: None,
    }
}

pub fn rollback() -> Ask {
    Ask::Rollback { to: None, code: false, dry_run: false }
}

/// The last update of a deployment; fails when it does not come within ten minutes.
pub async fn report(watch: Watch) -> Report {
    maybe_report(watch, Duration::from_secs(600)).await.expect("the deployment ends")
}

pub async fn maybe_report(mut watch: Watch, within: Duration) -> Option<Report> {
    let last = async {
        while let Some(numbered) = watch.next().await {
            if let Update::Ended(report) = numbered.update {
                return Some(*report);
            }
        }
        None
    };
    tokio::time::timeout(within, last).await.ok().flatten()
}

pub fn app(name: &str) -> AppName {
    AppName::new(name).unwrap()
}

pub fn settings() -> Settings {
    Settings {
        host_id: HOST,
        network: Subnet { base: Ipv4Addr::new(10, 201, 0, 0), apps: 1024 },
        mtu: 1500,
        public_host: "server.test".into(),
        standby: StandbyPolicy::default(),
        drain_timeout: Duration::from_secs(30),
        stop_grace_ms: 10_000,
        reconcile_every: Duration::from_secs(10),
        emergency: "ssh root@server.test refloat rollback".into(),
    }
}

/// How a source behaves once it is built.
#[derive(Clone)]
pub struct Shape {
    pub behaviour: Behaviour,
    pub exclusive: bool,
    pub build_ms: u64,
    pub hardening: Hardening,
}

impl Shape {
    pub fn good() -> Self {
        let behaviour = Behaviour::slow(8080, 300);
        Self { behaviour, exclusive: false, build_ms: 100, hardening: Hardening::Generated }
    }

    pub fn exclusive() -> Self {
        Self { exclusive: true, ..Self::good() }
    }

    pub fn behaving(behaviour: Behaviour) -> Self {
        Self { behaviour, ..Self::good() }
    }
}

/// Builds what it was told, after the time that it was told.
#[derive(Clone, Default)]
pub struct ScriptedBuilder {
    made: Arc<Mutex<HashMap<SourceDigest, Built>>>,
    /// The variables that each build got, in order.
    pub got: Arc<Mutex<Vec<Secrets>>>,
}

#[async_trait]
impl Builder for ScriptedBuilder {
    async fn build(
        &self,
        job: BuildJob,
        progress: mpsc::Sender<BuildProgress>,
        cancel: CancellationToken,
    ) -> Result<Built, BuildError> {
        let built = self.made.lock().unwrap().get(&job.source).cloned().expect("the source is known");
        self.got.lock().unwrap().push(job.build_env);
        progress.send(BuildProgress::Plan { shape: "test".into(), processes: vec!["web".into()] }).await.ok();
        tokio::select! {
            () = cancel.cancelled() => Err(BuildError::Cancelled),
            () = tokio::time::sleep(Duration::from_millis(built.build_ms)) => Ok(built),
        }
    }
}

struct AllTrees;

#[async_trait]
impl Trees for AllTrees {
    async fn is_published(&self, _tree: &TreeDigest) -> bool {
        true
    }
    async fn changed_paths(&self, _from: &SourceDigest, _to: &SourceDigest, _limit: usize) -> Vec<String> {
        vec!["src/App.tsx".into()]
    }
}

struct NoOutput;

#[async_trait]
impl Output for NoOutput {
    async fn forget(&self, _app: &AppName) {}
}

/// Keeps values in the open: the driver's tests are not about sealing.
struct PlainVault;

static VALUES: Mutex<Option<HashMap<[u8; 16], String>>> = Mutex::new(None);

#[async_trait]
impl Vault for PlainVault {
    async fn open(&self, _app: &AppName, env: &EnvRecord) -> Result<Secrets, VaultError> {
        let values = VALUES.lock().unwrap();
        let find = |id: &[u8; 16]| values.as_ref().and_then(|v| v.get(id)).cloned().unwrap_or_default();
        Ok(Secrets(env.variables.iter().map(|v| (v.name.clone(), find(&v.sealed))).collect()))
    }

    async fn seal(
        &self,
        _app: &AppName,
        by: &Principal,
        base: &EnvRecord,
        set: &Secrets,
        unset: &[String],
    ) -> Result<(EnvId, Vec<EnvVariable>), VaultError> {
        let mut all: Vec<EnvVariable> = base.variables.clone();
        all.retain(|v| !unset.contains(&v.name) && !set.0.contains_key(&v.name));
        for (name, value) in &set.0 {
            let fingerprint = *blake3::hash(format!("{name}={value}").as_bytes()).as_bytes();
            let mut sealed = [0; 16];
            sealed.copy_from_slice(&fingerprint[..16]);
            VALUES.lock().unwrap().get_or_insert_default().insert(sealed, value.clone());
            let changed_by = by.name.clone();
            all.push(EnvVariable { name: name.clone(), sealed, fingerprint, changed_at_ms: 0, changed_by });
        }
        all.sort_by(|a, b| a.name.cmp(&b.name));
        let mut hasher = blake3::Hasher::new();
        all.iter().for_each(|v| {
            hasher.update(&v.fingerprint);
        });
        Ok((EnvId(*hasher.finalize().as_bytes()), all))
    }

    async fn erase(&self, _app: &AppName, variables: &[EnvVariable]) -> Result<(), VaultError> {
        for variable in variables {
            VALUES.lock().unwrap().get_or_insert_default().remove(&variable.sealed);
        }
        Ok(())
    }
}

/// How many values are kept on this host.
pub fn values_kept() -> usize {
    VALUES.lock().unwrap().as_ref().map_or(0, HashMap::len)
}

struct FetchThroughEdge {
    edge: FakeEdge,
    docker: FakeDocker,
}

#[async_trait]
impl Fetch for FetchThroughEdge {
    async fn get(&self, _at: SocketAddr, host: &str, path: &str) -> Result<u16, String> {
        let table = self.edge.active();
        let routes = table.app_for_host(host).ok_or("no app has this host")?;
        match routes.route_for_path(path).map(|r| &r.target) {
            Some(RouteTarget::Files { .. }) => Ok(200),
            Some(RouteTarget::Instance { ip, port, .. }) if self.docker.is_listening(Ipv4Addr::from(*ip), *port) => {
                Ok(200)
            }
            _ => Err("nothing listens".into()),
        }
    }
}

struct TokioClock;

impl Clock for TokioClock {
    fn now_ms(&self) -> u64 {
        use std::sync::OnceLock;
        thread_local!(static BORN: OnceLock<tokio::time::Instant> = const { OnceLock::new() });
        let born = BORN.with(|b| *b.get_or_init(tokio::time::Instant::now));
        1_700_000_000_000 + u64::try_from(born.elapsed().as_millis()).unwrap()
    }
}
