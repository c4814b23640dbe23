//! What is there now: asked of Docker and the edge, side by side, and set beside what the journal says should be there.
//!
//! Neither Docker nor the edge can make the question fail: what does not answer in time is reported as a problem.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::future::join_all;
use refloat_model::admission::Denial;
use refloat_model::{
    AppName, AppState, HostState, InstanceName, InstanceRecord, Process, ProcessName, ReleaseNumber, ReleaseRecord,
    RouteTable, RouteTarget, planning,
};
use refloat_proto::v1 as wire;
use tonic::Status;

use super::port::HostFacts;
use super::{Ports, convert, release, status};
use crate::deploy::AppOverview;
use crate::docker::{Engine, EngineError, EngineInfo, Observed, Restart, RunState};
use crate::edge::{EdgeError, EdgeStatus};
use crate::network::{HostRoute, Subnet};

const ENGINE_TIMEOUT: Duration = Duration::from_secs(3);
const EDGE_TIMEOUT: Duration = Duration::from_secs(2);
/// Memory is worth less than a quick answer.
const MEMORY_TIMEOUT: Duration = Duration::from_secs(1);

/// What Docker and the edge answered.
#[derive(Debug)]
pub struct Survey {
    engine: Result<EngineInfo, String>,
    observed: Vec<Observed>,
    edge: Result<EdgeStatus, String>,
    in_flight: BTreeMap<InstanceName, u32>,
    memory: BTreeMap<InstanceName, u64>,
    host_id: [u8; 16],
    table: RouteTable,
    subnets: Vec<(AppName, u16)>,
    network: Subnet,
    routes: Vec<HostRoute>,
    running: Vec<AppOverview>,
}

impl Survey {
    /// Asks.
    ///
    /// # Errors
    /// Only when the journal cannot be read.
    pub async fn take(ports: &Ports) -> Result<Self, Status> {
        let (host, info, list, edge, running) = tokio::join!(
            ports.journal.host(),
            engine(ports.engine.info()),
            engine(ports.engine.list()),
            edge(ports.edge.status()),
            ports.deployments.running(),
        );
        let HostState { host_id, table, subnets, .. } = host.map_err(|error| status::journal(&error))?;
        let (network, routes) = (ports.host.facts().network, ports.host.routes());
        let observed = list.clone().unwrap_or_default();
        let running_now: Vec<InstanceName> =
            observed.iter().filter(|it| it.state == RunState::Running).map(|it| it.name.clone()).collect();
        let (in_flight, memory) =
            tokio::join!(in_flight(ports, &running_now), memory(ports.engine.as_ref(), &running_now));
        let engine = info.and_then(|info| list.map(|_| info));
        Ok(Self { engine, observed, edge, in_flight, memory, host_id, table, subnets, network, routes, running })
    }
}

async fn engine<T>(asked: impl Future<Output = Result<T, EngineError>>) -> Result<T, String> {
    match tokio::time::timeout(ENGINE_TIMEOUT, asked).await {
        Ok(answer) => answer.map_err(|error| error.to_string()),
        Err(_) => Err(format!("Docker did not answer within {} s", ENGINE_TIMEOUT.as_secs())),
    }
}

async fn edge<T>(asked: impl Future<Output = Result<T, EdgeError>>) -> Result<T, String> {
    match tokio::time::timeout(EDGE_TIMEOUT, asked).await {
        Ok(answer) => answer.map_err(|error| error.to_string()),
        Err(_) => Err(format!("the edge did not answer within {} s", EDGE_TIMEOUT.as_secs())),
    }
}

async fn in_flight(ports: &Ports, names: &[InstanceName]) -> BTreeMap<InstanceName, u32> {
    match edge(ports.edge.in_flight(names)).await {
        Ok(counts) => names.iter().cloned().zip(counts).collect(),
        Err(_) => BTreeMap::new(),
    }
}

async fn memory(engine: &dyn Engine, names: &[InstanceName]) -> BTreeMap<InstanceName, u64> {
    let asked = names.iter().map(|name| async move {
        let bytes = tokio::time::timeout(MEMORY_TIMEOUT, engine.memory_bytes(name)).await.ok()?.ok()?;
        Some((name.clone(), bytes))
    });
    join_all(asked).await.into_iter().flatten().collect()
}

impl Survey {
    /// One app's status.
    ///
    /// # Errors
    /// When the journal cannot be read.
    pub async fn app(&self, ports: &Ports, app: &AppState) -> Result<wire::AppStatus, Status> {
        let history = release::history(ports.journal.as_ref(), app).await?;
        let serving = app.serving.and_then(|number| history.get(&number));
        let back = app.serving.and_then(|number| release::rollback_to(number, &history));
        let summary =
            serving.map(|record| convert::summary(record, app.serving, release::parent_of(record, &history), ""));
        Ok(wire::AppStatus {
            app: app.app.to_string(),
            serving: convert::number(app.serving),
            stopped: app.stopped,
            addresses: addresses(ports.host.facts(), app, self.listen()),
            domains: app.domains.iter().map(ToString::to_string).collect(),
            instances: self.instances(app),
            deployment: self.running.iter().find(|running| running.app == app.app).map(deployment),
            release: summary,
            rollback_to: convert::number(back),
            rollback_estimate: back
                .and_then(|number| history.get(&number))
                .map(|record| estimate(self.host_id, app, record, |name| self.state(name)).to_owned())
                .unwrap_or_default(),
            problems: self.problems(app, serving),
        })
    }

    fn state(&self, name: &InstanceName) -> Option<RunState> {
        self.observed.iter().find(|it| it.name == *name).map(|it| it.state)
    }

    fn listen(&self) -> &[String] {
        self.edge.as_ref().map_or(&[], |edge| &edge.listen)
    }

    fn instances(&self, app: &AppState) -> Vec<wire::InstanceStatus> {
        let ours = app.instances.iter().map(|record| self.instance(app, record));
        let known = |it: &&Observed| app.instances.iter().any(|record| record.name == it.name);
        let strays = self.observed.iter().filter(|it| it.app == app.app && !known(it)).map(|it| self.stray(it));
        ours.chain(strays).collect()
    }

    fn instance(&self, app: &AppState, record: &InstanceRecord) -> wire::InstanceStatus {
        let observed = self.observed.iter().find(|it| it.name == record.name);
        let missing = if self.engine.is_ok() { "missing" } else { "unknown" };
        wire::InstanceStatus {
            name: record.name.to_string(),
            process: record.process.to_string(),
            release: record.release.0,
            state: observed.map_or(missing.to_owned(), |it| state_word(it.state)),
            role: self.role(app, record, observed).to_owned(),
            memory_bytes: self.memory.get(&record.name).copied().unwrap_or_default(),
            restarts: observed.map_or(0, |it| it.restart_count),
            address: address_of(record),
        }
    }

    fn stray(&self, it: &Observed) -> wire::InstanceStatus {
        wire::InstanceStatus {
            name: it.name.to_string(),
            process: it.process.to_string(),
            release: it.release.0,
            state: state_word(it.state),
            role: "stray".to_owned(),
            memory_bytes: self.memory.get(&it.name).copied().unwrap_or_default(),
            restarts: it.restart_count,
            address: it.ip.map(|ip| ip.to_string()).unwrap_or_default(),
        }
    }

    /// Routed, or kept running by the engine: it serves. Else what it was made for, or what still holds requests, says.
    fn role(&self, app: &AppState, record: &InstanceRecord, observed: Option<&Observed>) -> &'static str {
        let kept_running = observed.is_some_and(|it| it.restart == Restart::UnlessStopped);
        if routed(&self.table, &app.app, &record.name) || kept_running {
            return "serving";
        }
        if self.in_flight.get(&record.name).is_some_and(|requests| *requests > 0) {
            return "draining";
        }
        let made_for = app.deployment.as_ref().and_then(|deployment| deployment.release);
        let candidate = made_for == Some(record.release) && app.serving != made_for;
        if candidate { "candidate" } else { "standby" }
    }

    fn problems(&self, app: &AppState, serving: Option<&ReleaseRecord>) -> Vec<wire::Problem> {
        let mut problems = Vec::new();
        if let Some(number) = app.serves().filter(|_| self.table.app(&app.app).is_none()) {
            problems.push(wire::Problem {
                reason: "NOT_ROUTED".to_owned(),
                message: format!("{number} should serve, and the edge has no route to it: visitors get 404."),
                next_command: format!("refloat activate {} {number}", app.app),
                ..wire::Problem::default()
            });
        }
        if let Some(record) = serving.filter(|_| self.engine.is_ok() && !app.stopped) {
            let down = record.release.instance_processes().filter(|process| !self.runs(app, &process.name));
            problems.extend(down.map(|process| wire::Problem {
                reason: "NOT_RUNNING".to_owned(),
                message: format!("{} of {} does not run.", process.name, record.number),
                next_command: format!("refloat logs {}", app.app),
                ..wire::Problem::default()
            }));
        }
        if let Some(route) = self.network.hidden_by(app.subnet, &self.routes) {
            problems.push(wire::Problem {
                reason: "NETWORK_HIDDEN".to_owned(),
                message: format!(
                    "The app's network overlaps {}, which this server reaches through {}: addresses of the one hide \
                     those of the other.",
                    route.net, route.link
                ),
                next_command: "ip route".to_owned(),
                ..wire::Problem::default()
            });
        }
        problems
    }

    fn runs(&self, app: &AppState, process: &ProcessName) -> bool {
        let serves = |record: &&InstanceRecord| record.process == *process;
        let running = |record: &InstanceRecord| {
            let observed = self.observed.iter().find(|it| it.name == record.name);
            let serves = self.role(app, record, observed) == "serving";
            serves && observed.is_some_and(|it| it.state == RunState::Running)
        };
        app.instances.iter().filter(serves).any(running)
    }

    /// The host's status.
    pub async fn host(&self, ports: &Ports) -> wire::HostStatus {
        let facts = ports.host.facts();
        let (build_cap, store) = tokio::join!(ports.host.build_cap(), ports.host.store());
        wire::HostStatus {
            host: facts.host.clone(),
            version: facts.version.clone(),
            engine: self.engine.as_ref().map_or_else(Clone::clone, |info| format!("Docker {}", info.version)),
            engine_reachable: self.engine.is_ok(),
            edge_reachable: self.edge.is_ok(),
            edge_version: self.edge.as_ref().map(|edge| edge.version.clone()).unwrap_or_default(),
            live_restore: self.engine.as_ref().is_ok_and(|info| info.live_restore),
            build_cap,
            disk_free_bytes: disk_free_bytes(&facts.state_dir),
            store,
            problems: self.host_problems(ports.logs.dropped()),
            agent_rss_bytes: own_rss_bytes(),
            edge_rss_bytes: self.edge.as_ref().map_or(0, |edge| edge.rss_bytes),
        }
    }

    fn host_problems(&self, dropped_lines: u64) -> Vec<wire::Problem> {
        let problem = |reason: &str, message: String, still_fine: &str, next_command: &str| wire::Problem {
            reason: reason.to_owned(),
            message,
            still_fine: still_fine.to_owned(),
            next_command: next_command.to_owned(),
            lines: Vec::new(),
        };
        let mut problems = Vec::new();
        if let Err(why) = &self.engine {
            let fine = "The edge serves on as long as the containers run.";
            problems.push(problem("ENGINE_UNREACHABLE", status::sentence(why), fine, "systemctl restart docker"));
        }
        if let Err(why) = &self.edge {
            let fine = "Containers run on; nothing is lost.";
            problems.push(problem("EDGE_UNREACHABLE", status::sentence(why), fine, "journalctl -u refloatd -n 50"));
        }
        if self.engine.as_ref().is_ok_and(|info| !info.live_restore) {
            let message = "Docker's live-restore is off: a restart of Docker stops every app. To turn it on, set \
                 \"live-restore\": true in /etc/docker/daemon.json, then reload Docker."
                .to_owned();
            problems.push(problem("NO_LIVE_RESTORE", message, "", "systemctl reload docker"));
        }
        match &self.edge {
            // Before the first commit there is no table to serve.
            Ok(edge) if edge.active.number == 0 && self.table.generation.number == 0 => {}
            Ok(edge) if edge.active != self.table.generation => {
                let message = format!("The edge serves table {}, committed is {}.", edge.active, self.table.generation);
                problems.push(problem("EDGE_BEHIND", message, "It is told again until it follows.", "refloat status"));
            }
            Ok(_) | Err(_) => {}
        }
        if let Err(denial @ Denial::SubnetInUse { .. }) = self.network.free(&self.subnets, &self.routes) {
            let fine = "Apps that are there are not affected; only a new one is refused.";
            problems.push(problem(
                denial.reason(),
                status::sentence(&denial.to_string()),
                fine,
                &denial.next_command(),
            ));
        }
        if dropped_lines > 0 {
            let message = format!("{dropped_lines} lines of apps' output could not be kept.");
            problems.push(problem("LOG_LINES_DROPPED", message, "The apps are not affected.", "df -h"));
        }
        problems
    }
}

fn routed(table: &RouteTable, app: &AppName, name: &InstanceName) -> bool {
    let routes = table.apps.iter().filter(|routes| routes.app == *app).flat_map(|routes| &routes.routes);
    routes
        .into_iter()
        .any(|route| matches!(&route.target, RouteTarget::Instance { name: routed, .. } if routed == name))
}

fn deployment(running: &AppOverview) -> wire::RunningDeployment {
    wire::RunningDeployment {
        deployment: running.deployment.to_string(),
        kind: running.kind.to_owned(),
        phase: running.phase.to_owned(),
        started_at_unix_ms: running.started_at_ms,
        by: running.by.clone(),
    }
}

fn state_word(state: RunState) -> String {
    match state {
        RunState::Created => "created".to_owned(),
        RunState::Running => "running".to_owned(),
        RunState::Paused => "paused".to_owned(),
        RunState::Restarting => "restarting".to_owned(),
        RunState::Exited(code) => format!("exited ({code})"),
        RunState::OutOfMemory => "out of memory".to_owned(),
        RunState::Dead => "dead".to_owned(),
    }
}

fn address_of(record: &InstanceRecord) -> String {
    if record.port == 0 { record.address().to_string() } else { format!("{}:{}", record.address(), record.port) }
}

/// How the releases that do not serve are kept warm: by the warmest of their containers.
#[must_use]
pub fn standby(app: &AppState, observed: &[Observed]) -> BTreeMap<ReleaseNumber, &'static str> {
    let mut kept = BTreeMap::new();
    for record in app.instances.iter().filter(|record| Some(record.release) != app.serving) {
        let Some(it) = observed.iter().find(|it| it.name == record.name && it.restart == Restart::No) else {
            continue;
        };
        let word = match it.state {
            RunState::Running => "running",
            RunState::Paused => "paused",
            RunState::Exited(_) | RunState::Created => "stopped",
            RunState::Restarting | RunState::OutOfMemory | RunState::Dead => continue,
        };
        let warmth = |word: &str| ["stopped", "paused", "running"].iter().position(|known| *known == word);
        let warmest = kept.entry(record.release).or_insert(word);
        if warmth(word) > warmth(warmest) {
            *warmest = word;
        }
    }
    kept
}

/// How ready a container is for its release to serve again, the least ready first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Readiness {
    Gone,
    Stopped,
    Awake,
}

/// What a rollback to this release costs, honestly: as much as its least ready process. A container that was made for another
/// release counts when it is the very one that this release would make: same image, settings and environment.
fn estimate(
    host_id: [u8; 16],
    app: &AppState,
    record: &ReleaseRecord,
    state: impl Fn(&InstanceName) -> Option<RunState>,
) -> &'static str {
    let readiness = |process: &Process| {
        let spec = planning::runtime_spec(host_id, &record.release, process);
        let same = app.instances.iter().filter(|it| it.process == process.name && it.spec == spec);
        let ready = same.filter_map(|it| state(&it.name)).map(|state| match state {
            RunState::Running | RunState::Paused => Readiness::Awake,
            RunState::Exited(_) | RunState::Created => Readiness::Stopped,
            RunState::Restarting | RunState::OutOfMemory | RunState::Dead => Readiness::Gone,
        });
        ready.max().unwrap_or(Readiness::Gone)
    };
    match record.release.instance_processes().map(readiness).min() {
        None => "warm, about 20 ms: files only",
        Some(Readiness::Awake) => "warm, about 50 ms",
        Some(Readiness::Stopped) => "cold, as long as the app takes to start: a container is stopped",
        Some(Readiness::Gone) => "cold, as long as the app takes to start: a container is made again",
    }
}

/// Where an app answers: at its domains, or at the server's own address.
#[must_use]
pub fn addresses(facts: &HostFacts, app: &AppState, listen: &[String]) -> Vec<String> {
    let parsed = listen.iter().filter_map(|text| text.parse::<SocketAddr>().ok());
    let Some(at) = parsed.min_by_key(|address| !address.is_ipv4()) else {
        return Vec::new();
    };
    let port = if at.port() == 80 { String::new() } else { format!(":{}", at.port()) };
    if app.domains.is_empty() {
        return vec![format!("http://{}{port}/", url_host(&facts.public_host))];
    }
    app.domains.iter().map(|domain| format!("http://{domain}{port}/")).collect()
}

fn url_host(host: &str) -> String {
    if host.contains(':') { format!("[{host}]") } else { host.to_owned() }
}

fn disk_free_bytes(folder: &std::path::Path) -> u64 {
    rustix::fs::statvfs(folder).map_or(0, |stat| stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// Resident memory of this process, as the kernel counts it.
fn own_rss_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    kib.unwrap_or_default().saturating_mul(1_024)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use refloat_model::{EnvId, Event};

    use super::*;
    use crate::clock::SystemClock;
    use crate::journal::sample::{History, ada, app};
    use crate::journal::{Journal as _, MemoryDisk, MemoryJournal};

    const HOST: [u8; 16] = [7; 16];

    /// r1 with one container for each of its processes.
    async fn first_release() -> (AppState, ReleaseRecord) {
        let journal = MemoryJournal::open(&MemoryDisk::new(), Arc::new(SystemClock)).unwrap();
        let mut history = History::default();
        let created = history.create("shop");
        for event in std::iter::once(created).chain(history.deploy("shop", 1)) {
            journal.append(&ada(), event).await.unwrap();
        }
        let record = journal.release(&app("shop"), ReleaseNumber(1)).await.unwrap().unwrap();
        for process in record.release.instance_processes() {
            let spec = planning::runtime_spec(HOST, &record.release, process);
            let name = InstanceName::derive(&app("shop"), &process.name, &spec, 0);
            let instance = InstanceRecord { name, process: process.name.clone(), spec, ..History::instance("shop", 1) };
            journal.append(&ada(), Event::InstancePlanned { app: app("shop"), instance }).await.unwrap();
        }
        (journal.app(&app("shop")).await.unwrap().unwrap(), record)
    }

    #[tokio::test]
    async fn a_rollback_is_as_warm_as_its_least_ready_process() {
        let (app, mut record) = first_release().await;
        let all = |state| move |_: &InstanceName| Some(state);
        assert!(estimate(HOST, &app, &record, all(RunState::Paused)).starts_with("warm"));
        let worker = record.release.instance_processes().find(|p| p.name.as_str() == "worker").unwrap().clone();
        let of_worker = app.instances.iter().find(|it| it.process == worker.name).unwrap().name.clone();
        let one = |worker: Option<RunState>| {
            let of_worker = of_worker.clone();
            move |name: &InstanceName| if *name == of_worker { worker } else { Some(RunState::Running) }
        };
        assert!(estimate(HOST, &app, &record, one(Some(RunState::Exited(0)))).ends_with("stopped"));
        assert!(estimate(HOST, &app, &record, one(None)).ends_with("made again"));
        record.release.env = EnvId([9; 32]);
        let said = estimate(HOST, &app, &record, all(RunState::Running));
        assert!(said.ends_with("made again"), "with another environment no container fits: {said}");
        record.release.processes.retain(|p| p.name.as_str() == "site");
        assert!(estimate(HOST, &app, &record, |_| None).ends_with("files only"));
    }
}
