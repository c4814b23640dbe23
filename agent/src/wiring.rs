//! The driver's part of the composition root: from the agent's parts to what deploys.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use async_trait::async_trait;
use refloat_model::{AppName, DeploymentId, Principal};

use crate::api::port::{DeploymentsPort, RunPort, Updates};
use crate::app_logs::AppLogs;
use crate::build::space::Disks;
use crate::build::{EngineBuilder, MakeRoom, Parts as BuildParts, Settings as BuildSettings, SourcePlanner};
use crate::cgroup::limits::Limits;
use crate::cgroup::{BuildCap, Wanted, choose};
use crate::config::Config;
use crate::daemon::Parts;
use crate::deploy::fetch::HttpFetch;
use crate::deploy::one_off::Command;
use crate::deploy::ports::{Output, Ports, Routes, Settings};
use crate::deploy::request::{Denied, Submit};
use crate::deploy::sealed_vault::SealedVault;
use crate::deploy::stored::StoredTrees;
use crate::deploy::{AppOverview, Deployments, StandbyRoom, Watch};
use crate::docker::{EngineInfo, RunIo};
use crate::network::HostRoute;
use crate::probe::TcpProbe;
use crate::public::{Publication, Publisher};
use crate::{host, sealed};

/// How long a displaced instance may finish its requests: the default of the field's proxies.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);
/// How long an app may take to end after SIGTERM, in milliseconds: Docker's own default.
const STOP_GRACE_MS: u32 = 10_000;
/// How often an app at rest is compared with what it should be.
const RECONCILE_EVERY: Duration = Duration::from_secs(5);
/// Where the kernel shows its control groups.
const CGROUP_ROOT: &str = "/sys/fs/cgroup";
/// Where the images of Docker's containerd store are: outside Docker's own folder, and Docker does not say where.
const CONTAINERD_DATA: &str = "/var/lib/containerd";

/// Says how builds are capped.
pub type BuildCapText = Box<dyn Fn() -> String + Send + Sync>;

/// Puts something between the driver and its ports. Only tests put anything there.
pub type Wrap = Box<dyn FnOnce(Ports) -> Ports + Send>;

/// What deploys.
pub struct Driver {
    /// Everything that changes what serves.
    pub deployments: Arc<dyn DeploymentsPort>,
    /// One-off containers.
    pub runs: Arc<dyn RunPort>,
    /// How builds are capped.
    pub build_cap: BuildCapText,
}

/// Builds the driver. Interrupted deployments go on at once.
///
/// # Errors
/// When a part of it cannot be had.
pub async fn driver(parts: Parts, wrap: Wrap) -> anyhow::Result<Driver> {
    let cap = build_cap(&parts).await;
    let room = Arc::new(StandbyRoom::default());
    let ports = ports(&parts, Arc::clone(&cap), Arc::clone(&room) as Arc<dyn MakeRoom>).await?;
    let deployments = Deployments::start(wrap(ports), settings(&parts)).await.context("the journal cannot be read")?;
    room.of(&deployments);
    let deployments = Arc::new(deployments);
    Ok(Driver {
        deployments: Arc::clone(&deployments) as Arc<dyn DeploymentsPort>,
        runs: deployments,
        build_cap: Box::new(move || cap.apply().to_string()),
    })
}

async fn ports(parts: &Parts, cap: Arc<dyn BuildCap>, room: Arc<dyn MakeRoom>) -> anyhow::Result<Ports> {
    let (public, sealed_folder, cas) = (parts.paths.public(), parts.paths.sealed(), Arc::clone(&parts.cas));
    let opened = tokio::task::spawn_blocking(move || -> anyhow::Result<_> {
        let publication = Publication::open(&public, cas).context("published files cannot be opened")?;
        let vault = sealed::Vault::open(&sealed_folder).context("sealed values cannot be opened")?;
        Ok((publication, vault))
    });
    let (publication, vault) = opened.await??;
    let publisher: Arc<dyn Publisher> = Arc::new(publication);
    // A key that only this server has. No variable's name has a space, so no value's fingerprint is this key.
    let memo_key = vault.fingerprint(&AppName::new("refloat")?, "build memo", "1");
    let build = BuildParts {
        engine: Arc::clone(&parts.engine),
        publisher: Arc::clone(&publisher),
        cas: Arc::clone(&parts.cas),
        planner: Arc::new(SourcePlanner),
        cap,
        room,
        disks: Disks::new(vec![parts.paths.state.clone(), PathBuf::from(CONTAINERD_DATA)]),
    };
    let settings =
        BuildSettings { folder: parts.paths.state.join("builds"), memo_key, timeout: parts.config.build.timeout };
    let builder = tokio::task::spawn_blocking(move || EngineBuilder::open(build, settings)).await?;
    Ok(Ports {
        journal: Arc::new(parts.journal.clone()),
        engine: Arc::clone(&parts.engine),
        edge: Arc::clone(&parts.edge),
        builder: Arc::new(builder.context("the builder's folder cannot be opened")?),
        probe: Arc::new(TcpProbe),
        trees: Arc::new(StoredTrees::new(publisher, Arc::clone(&parts.cas))),
        vault: Arc::new(SealedVault::new(Arc::new(vault), Arc::clone(&parts.clock))),
        fetch: Arc::new(HttpFetch),
        output: Arc::new(KeptOutput(Arc::clone(&parts.logs))),
        routes: Arc::new(KernelRoutes),
        clock: Arc::clone(&parts.clock),
    })
}

struct KernelRoutes;

impl Routes for KernelRoutes {
    fn routes(&self) -> Vec<HostRoute> {
        host::routes()
    }
}

fn settings(parts: &Parts) -> Settings {
    let public_host = parts.facts.public_host.clone();
    Settings {
        host_id: parts.host_id,
        network: parts.config.network,
        mtu: host::mtu(),
        emergency: match parts.config.edge.public_host {
            Some(_) => format!("ssh root@{public_host} refloat rollback"),
            None => String::new(),
        },
        public_host,
        standby: parts.config.standby,
        drain_timeout: DRAIN_TIMEOUT,
        stop_grace_ms: STOP_GRACE_MS,
        reconcile_every: RECONCILE_EVERY,
    }
}

/// The cap on builds that this host's engine honours, applied once so that its self-test is told at the start.
async fn build_cap(parts: &Parts) -> Arc<dyn BuildCap> {
    let info = match parts.engine.info().await {
        Ok(info) => info,
        Err(error) => {
            tracing::warn!(%error, "Docker does not answer; its control groups are guessed from the host");
            guessed()
        }
    };
    let cap: Arc<dyn BuildCap> = Arc::from(choose(&info, Path::new(CGROUP_ROOT), &group(parts), limits(&parts.config)));
    let status = cap.apply();
    if status.is_incomplete() {
        tracing::warn!("{status}");
    } else {
        tracing::info!("{status}");
    }
    cap
}

/// What the engine would most likely say.
fn guessed() -> EngineInfo {
    let unified = Path::new(CGROUP_ROOT).join("cgroup.controllers").exists();
    let systemd = Path::new("/run/systemd/system").exists();
    EngineInfo {
        version: String::new(),
        live_restore: false,
        cgroup_driver: if systemd { "systemd" } else { "cgroupfs" }.to_owned(),
        cgroup_version: if unified { 2 } else { 1 },
        data_root: PathBuf::new(),
    }
}

/// One group per agent, so that several agents on one host do not change each other's limits.
fn group(parts: &Parts) -> String {
    let is_the_hosts = parts.paths.state == crate::paths::Paths::default().state;
    if is_the_hosts {
        return "refloat-build".to_owned();
    }
    let id: String = parts.host_id[..4].iter().map(|byte| format!("{byte:02x}")).collect();
    format!("refloat-build-{id}")
}

fn limits(config: &Config) -> Wanted {
    let (total, cores) = (host::memory_bytes(Path::new(CGROUP_ROOT)), host::cores());
    let spare = Limits::for_host(total, cores);
    let (memory_mib, cpu_millis) = (config.build.memory_mib, config.build.cpu_millis);
    let limits = Limits {
        memory_bytes: memory_mib.map_or(spare.memory_bytes, |mib| u64::from(mib) << 20),
        cpu_millis: cpu_millis.unwrap_or(spare.cpu_millis),
        ..spare
    };
    if memory_mib.or(cpu_millis).is_some() { Wanted::Configured(limits) } else { Wanted::Spare(limits) }
}

struct KeptOutput(Arc<AppLogs>);

#[async_trait]
impl Output for KeptOutput {
    async fn forget(&self, app: &AppName) {
        let (logs, app) = (Arc::clone(&self.0), app.clone());
        let forgotten = tokio::task::spawn_blocking(move || logs.forget(&app)).await;
        if let Ok(Err(error)) = forgotten {
            tracing::warn!(%error, "the output of an app that is gone cannot be removed yet");
        }
    }
}

fn updates(watch: Watch) -> Updates {
    Box::pin(tokio_stream::wrappers::ReceiverStream::new(forward(watch)))
}

/// A watch as a channel: it ends when the reader is gone or the deployment has ended.
fn forward(mut watch: Watch) -> tokio::sync::mpsc::Receiver<crate::deploy::update::Numbered> {
    let (to, updates) = tokio::sync::mpsc::channel(64);
    tokio::spawn(async move {
        while let Some(numbered) = watch.next().await {
            if to.send(numbered).await.is_err() {
                return;
            }
        }
    });
    updates
}

#[async_trait]
impl DeploymentsPort for Deployments {
    async fn submit(&self, submit: Submit) -> Result<Updates, Denied> {
        Self::submit(self, submit).await.map(updates)
    }

    async fn watch(&self, id: DeploymentId) -> Option<Updates> {
        Self::watch(self, id).await.map(updates)
    }

    async fn watch_app(&self, app: &AppName) -> Option<Updates> {
        Self::watch_app(self, app).await.map(updates)
    }

    async fn cancel(&self, app: Option<&AppName>, by: &Principal) -> Result<Option<DeploymentId>, Denied> {
        Self::cancel(self, app, by).await
    }

    async fn may_deploy(&self, app: &AppName) -> Result<(), Denied> {
        Self::may_deploy(self, app).await
    }

    async fn running(&self) -> Vec<AppOverview> {
        self.overview().await
    }
}

#[async_trait]
impl RunPort for Deployments {
    async fn run(&self, command: Command, io: RunIo) -> Result<i64, Denied> {
        Self::run(self, command, io).await
    }
}
