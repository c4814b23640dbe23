//! The composition root: the one place that knows which implementation stands behind each port.
//!
//! ```text
//! config ─▶ journal ─▶ engine, edge, sources ─▶ deployments ─▶ api ─▶ listeners
//! ```
//!
//! What can fail (ports, ledger, certificate) is tried before anything is served.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use async_trait::async_trait;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::api::connection::Connection;
use crate::api::listener::{SocketListener, TlsListener, bind_all};
use crate::api::port::{HostFacts, HostPort};
use crate::api::stored_sources::StoredSources;
use crate::api::{self, Ports};
use crate::app_logs::{AppLogs, collector};
use crate::cas::Cas;
use crate::clock::{Clock, SystemClock};
use crate::config::Config;
use crate::docker::DockerEngine;
use crate::docker::Engine;
use crate::durable;
use crate::edge::client::EdgeClient;
use crate::edge::spawn::{self, Launch, Supervisor};
use crate::edge::{Edge, EdgeStatus};
use crate::housekeeping::{self, House};
use crate::identity::authority::Authority;
use crate::identity::pairing::Pairing;
use crate::identity::renewal::{self, ServerCertificate};
use crate::journal::Journal;
use crate::journal::{FileJournal, JournalOptions};
use crate::network::HostRoute;
use crate::paths::Paths;
use crate::store::{ProbeWith, StoreReport};
use crate::wiring::{self, Wrap};

/// How long calls and connections may take to end.
pub const SHUTDOWN_GRACE: Duration = Duration::from_secs(3);
/// Accepted connections that wait to be served.
const CONNECTIONS_AHEAD: usize = 64;

/// A running agent.
pub struct Daemon {
    ports: Ports,
    journal: FileJournal,
    house: House,
    certificate: Arc<ServerCertificate>,
    pki: PathBuf,
    listeners: JoinSet<()>,
    accepted: mpsc::Receiver<std::io::Result<Connection>>,
    supervisor: Option<Supervisor>,
    bound: Bound,
}

/// What is bound.
#[derive(Debug, Clone, Default, serde::Serialize)]
struct Bound {
    agent: Vec<String>,
    http: Vec<String>,
}

/// What the driver is built from.
pub struct Parts {
    /// The configuration.
    pub config: Config,
    /// Where things lie.
    pub paths: Paths,
    /// Facts.
    pub journal: FileJournal,
    /// Containers.
    pub engine: Arc<dyn Engine>,
    /// The data plane.
    pub edge: Arc<dyn Edge>,
    /// Uploaded sources.
    pub cas: Arc<Cas>,
    /// Wall-clock time.
    pub clock: Arc<dyn Clock>,
    /// What the agent knows about its host.
    pub facts: HostFacts,
    /// The host's identity, from the ledger.
    pub host_id: [u8; 16],
    /// Output of apps.
    pub logs: Arc<AppLogs>,
}

impl Daemon {
    /// Opens the state, binds every port and starts what runs beside the services.
    ///
    /// # Errors
    /// The first thing that cannot be had.
    pub async fn start(config: Config, paths: Paths, with_edge: bool, wrap: Wrap) -> anyhow::Result<Self> {
        durable::make_dir(&paths.run, 0o711).with_context(|| format!("{} cannot be made", paths.run.display()))?;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let authority = Arc::new(Authority::open(&paths.pki(), clock.now_ms()).context("no certificate authority")?);
        let tls = TlsListener::new(&authority, Arc::clone(&clock))?;
        let sockets = bind_all(&config.listen).context("the agent's ports cannot be bound")?;
        let socket = SocketListener::bind(&paths.agent_socket()).await.context("the Unix socket cannot be bound")?;
        let agent: Vec<String> = sockets.iter().filter_map(|s| Some(s.local_addr().ok()?.to_string())).collect();

        let journal = open_journal(&paths, &clock).await?;
        let host_id = journal.host().await.context("the journal cannot be read")?.host_id;
        let docker = Arc::new(DockerEngine::lazy(Some(&config.docker_socket), host_id));
        let engine: Arc<dyn Engine> = Arc::clone(&docker) as Arc<dyn Engine>;
        let edge: Arc<dyn Edge> = Arc::new(EdgeClient::new(&paths.edge_socket()));
        let (supervisor, status) = start_edge(&config, &paths, Arc::clone(&edge), with_edge).await?;
        let bound = Bound { agent: agent.clone(), http: status.map(|status| status.listen).unwrap_or_default() };
        write_ports(&paths, &bound)?;

        let cas = {
            let folder = paths.cas();
            Arc::new(tokio::task::spawn_blocking(move || Cas::open(&folder)).await?.context("no source store")?)
        };
        let facts = facts(&config, &paths, agent);
        let logs = Arc::new(AppLogs::new(&paths.logs().join("apps")));
        let house = House {
            engine: docker,
            logs: Arc::clone(&logs),
            journal: Arc::new(journal.clone()),
            began_at_ms: clock.now_ms(),
        };
        let parts = Parts {
            config,
            paths: paths.clone(),
            journal: journal.clone(),
            engine: Arc::clone(&engine),
            edge: Arc::clone(&edge),
            cas: Arc::clone(&cas),
            clock: Arc::clone(&clock),
            facts: facts.clone(),
            host_id,
            logs: Arc::clone(&logs),
        };
        let driver = wiring::driver(parts, wrap).await?;
        let ports = Ports {
            journal: Arc::new(journal.clone()),
            engine,
            edge,
            deployments: driver.deployments,
            runs: driver.runs,
            sources: Arc::new(StoredSources::new(cas)),
            host: Arc::new(Host { facts, journal: journal.clone(), build_cap: driver.build_cap }),
            logs,
            pairing: Arc::new(Pairing::new(&paths.pki())),
            authority,
            clock,
        };
        let (certificate, pki) = (tls.certificate(), paths.pki());
        let (to, accepted) = mpsc::channel(CONNECTIONS_AHEAD);
        let mut listeners = JoinSet::new();
        for listener in sockets {
            let (tls, to) = (tls.clone(), to.clone());
            listeners.spawn(async move {
                if let Err(error) = tls.run(listener, to).await {
                    tracing::error!("a port of the agent cannot be used: {error}");
                }
            });
        }
        listeners.spawn(socket.run(to));
        Ok(Self { ports, journal, house, certificate, pki, listeners, accepted, supervisor, bound })
    }

    /// Addresses that the agent listens on.
    #[must_use]
    pub fn agent_addresses(&self) -> &[String] {
        &self.bound.agent
    }

    /// Addresses that the edge listens on; none when it does not answer.
    #[must_use]
    pub fn edge_addresses(&self) -> &[String] {
        &self.bound.http
    }

    /// Name or address of this server as visitors know it, with the port when it is not the usual one.
    #[must_use]
    pub fn public_host(&self) -> String {
        let host = &self.ports.host.facts().public_host;
        let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
        let port = self.bound.http.iter().filter_map(|text| text.parse::<SocketAddr>().ok()).map(|a| a.port()).next();
        match port {
            None | Some(80) => host,
            Some(port) => format!("{host}:{port}"),
        }
    }

    /// Serves until the token is cancelled, then ends within [`SHUTDOWN_GRACE`]. The edge and the apps go on.
    ///
    /// # Errors
    /// When serving fails.
    pub async fn run(self, end: CancellationToken) -> anyhow::Result<()> {
        let Self { ports, journal, house, certificate, pki, mut listeners, accepted, supervisor, .. } = self;
        if let Some(supervisor) = supervisor {
            tokio::spawn(supervisor.run(end.clone()));
        }
        tokio::spawn(collector::run(Arc::clone(&ports.logs), Arc::clone(&ports.engine), end.clone()));
        tokio::spawn(housekeeping::run(house, end.clone()));
        tokio::spawn(renewal::run(certificate, pki, Arc::clone(&ports.clock), end.clone()));
        let served = api::serve(ports, accepted, end.clone());
        tokio::pin!(served);
        let ended = tokio::select! {
            ended = &mut served => ended.context("the services ended"),
            () = after(end, SHUTDOWN_GRACE) => Ok(()),
        };
        tracing::info!("the agent ends; edge and apps go on");
        listeners.shutdown().await;
        let _ = tokio::time::timeout(SHUTDOWN_GRACE, journal.close()).await;
        ended
    }
}

async fn after(end: CancellationToken, grace: Duration) {
    end.cancelled().await;
    tokio::time::sleep(grace).await;
}

async fn open_journal(paths: &Paths, clock: &Arc<dyn Clock>) -> anyhow::Result<FileJournal> {
    let options = JournalOptions::new(paths, ProbeWith::this_program(), Arc::clone(clock));
    let opened = tokio::task::spawn_blocking(move || FileJournal::open(options)).await?;
    opened.context("the ledger cannot be opened")
}

async fn start_edge(
    config: &Config,
    paths: &Paths,
    edge: Arc<dyn Edge>,
    with_edge: bool,
) -> anyhow::Result<(Option<Supervisor>, Option<EdgeStatus>)> {
    if !with_edge {
        return Ok((None, edge.status().await.ok()));
    }
    let launch = Launch {
        program: edge_program(config)?,
        user: spawn::user(config.edge.user.as_deref())?,
        state_dir: paths.edge_state(),
        public_dir: paths.public(),
        control: paths.edge_socket(),
        access_log: paths.logs().join("edge-access.log"),
        listen: config.edge.http.clone(),
    };
    // The edge looks into it from its first moment on.
    durable::make_dir(&launch.public_dir, 0o755)?;
    let (supervisor, status) = Supervisor::start(launch, edge).await?;
    Ok((Some(supervisor), Some(status)))
}

fn edge_program(config: &Config) -> anyhow::Result<PathBuf> {
    match &config.edge.binary {
        Some(program) => Ok(program.clone()),
        None => {
            Ok(std::env::current_exe().context("this program's own path is unknown")?.with_file_name("refloat-edge"))
        }
    }
}

fn write_ports(paths: &Paths, bound: &Bound) -> anyhow::Result<()> {
    let bytes = serde_json::to_vec(bound)?;
    durable::replace(&paths.ports_file(), &bytes, 0o644).context("the file of bound ports cannot be written")
}

fn facts(config: &Config, paths: &Paths, listen: Vec<String>) -> HostFacts {
    HostFacts {
        host: crate::host::name(),
        version: crate::command::VERSION.to_owned(),
        listen,
        public_host: public_host(config),
        state_dir: paths.state.clone(),
        network: config.network,
    }
}

/// Name or address of this server as visitors know it: as configured, else the address that the edge listens on, else
/// the one that the default route goes out from.
#[must_use]
pub fn public_host(config: &Config) -> String {
    if let Some(host) = &config.edge.public_host {
        return host.clone();
    }
    let named = config.edge.http.iter().map(SocketAddr::ip).find(|ip| !ip.is_unspecified());
    named.unwrap_or_else(crate::host::address).to_string()
}

/// What the agent knows about its host.
struct Host {
    facts: HostFacts,
    journal: FileJournal,
    build_cap: wiring::BuildCapText,
}

#[async_trait]
impl HostPort for Host {
    fn facts(&self) -> &HostFacts {
        &self.facts
    }

    async fn build_cap(&self) -> String {
        (self.build_cap)()
    }

    fn routes(&self) -> Vec<HostRoute> {
        crate::host::routes()
    }

    async fn store(&self) -> String {
        store_text(&self.journal.report().store)
    }
}

/// "ok", or what of the store was rebuilt and why.
fn store_text(report: &StoreReport) -> String {
    let text = match (&report.in_memory, &report.rebuilt) {
        (Some(why), _) => format!("only in memory, built from the ledger: {why}"),
        (None, Some(why)) => format!("built again from the ledger: {why}"),
        (None, None) => return "ok".to_owned(),
    };
    match &report.set_aside {
        Some(folder) => format!("{text}; the broken one is in {}", folder.display()),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_servers_address_is_the_configured_one_or_where_the_edge_listens() {
        let mut config = Config::default();
        config.edge.http = vec!["0.0.0.0:80".parse().unwrap(), "127.0.0.1:8080".parse().unwrap()];
        assert_eq!(public_host(&config), "127.0.0.1");
        config.edge.public_host = Some("apps.example.com".to_owned());
        assert_eq!(public_host(&config), "apps.example.com");
    }
}
