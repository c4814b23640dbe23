//! The surroundings of one check, and the removal of everything that a run leaves in Docker.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use refloat_agent::docker::{Engine, EngineError, InstanceSpec, NetworkSpec, RunState, Secrets};
use refloat_model::{AppName, Hardening, ImageDigest, InstanceName, ProcessName, ReleaseNumber, Resources};

/// Two agents on one engine.
#[derive(Clone)]
pub(crate) struct Engines {
    pub(crate) ours: Arc<dyn Engine>,
    pub(crate) others: Arc<dyn Engine>,
}

/// One app with its network.
pub(crate) struct World {
    pub(crate) engine: Arc<dyn Engine>,
    pub(crate) other: Arc<dyn Engine>,
    pub(crate) app: AppName,
    pub(crate) network: NetworkSpec,
    pub(crate) image: ImageDigest,
    folder: tempfile::TempDir,
    made: AtomicU32,
}

pub(crate) const SERVE: [&str; 5] = ["/bin/busybox", "httpd", "-f", "-p", "8080"];

impl World {
    pub(crate) async fn new(engines: Engines, image: ImageDigest, number: u32) -> Self {
        let app = AppName::new(format!("contract-{number}")).unwrap();
        let network = free_network(&engines.ours, &app).await;
        let folder = tempfile::tempdir().unwrap();
        let (engine, other) = (engines.ours, engines.others);
        Self { engine, other, app, network, image, folder, made: AtomicU32::new(0) }
    }

    /// An instance that was never made before.
    pub(crate) fn spec(&self, command: &[&str]) -> InstanceSpec {
        let number = self.made.fetch_add(1, Ordering::Relaxed);
        let process = ProcessName::new("web").unwrap();
        let mut spec_digest = [0; 32];
        spec_digest[..4].copy_from_slice(&number.to_be_bytes());
        spec_digest[4..8].copy_from_slice(&std::process::id().to_be_bytes());
        spec_digest[8..12].copy_from_slice(&self.network.base.octets());
        InstanceSpec {
            name: InstanceName::derive(&self.app, &process, &spec_digest, 0),
            app: self.app.clone(),
            process,
            release: ReleaseNumber(7),
            image: self.image.clone(),
            command: command.iter().map(|word| (*word).to_owned()).collect(),
            env: Secrets::default(),
            ip: Ipv4Addr::from(u32::from(self.network.base) + 2 + number),
            aliases: vec![format!("web-{number}")],
            resources: Resources { memory_mib: 64, cpu_millis: 0, pids: 32 },
            hardening: Hardening::Own,
            writable_root: true,
            capabilities: Vec::new(),
            volumes: vec![],
            spec_digest,
        }
    }

    pub(crate) fn shell(&self, script: &str) -> InstanceSpec {
        self.spec(&["/bin/busybox", "sh", "-c", script])
    }

    pub(crate) async fn start(&self, spec: &InstanceSpec) -> InstanceName {
        self.engine.create(spec).await.unwrap();
        self.engine.start(&spec.name).await.unwrap();
        spec.name.clone()
    }

    /// A container that serves until it is stopped.
    pub(crate) async fn serving(&self) -> InstanceName {
        self.start(&self.spec(&SERVE)).await
    }

    pub(crate) async fn state(&self, name: &InstanceName) -> RunState {
        self.engine.inspect(name).await.unwrap().unwrap().state
    }

    pub(crate) async fn becomes(&self, name: &InstanceName, wanted: RunState) {
        eventually(&format!("{name} is {wanted:?}"), async || self.state(name).await == wanted).await;
    }

    /// A build context as a tar archive.
    pub(crate) fn context(&self, files: &[(&str, &str)]) -> PathBuf {
        let path = self.folder.path().join(format!("context-{}.tar", self.made.fetch_add(1, Ordering::Relaxed)));
        write_context(&path, files);
        path
    }
}

pub(crate) fn write_context(path: &std::path::Path, files: &[(&str, &str)]) {
    let mut archive = tar::Builder::new(std::fs::File::create(path).unwrap());
    for (name, text) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, name, text.as_bytes()).unwrap();
    }
    archive.finish().unwrap();
}

pub(crate) fn refused<T: std::fmt::Debug>(answer: Result<T, EngineError>) -> String {
    match answer {
        Err(EngineError::Refused { message, .. }) => message,
        other => panic!("not refused: {other:?}"),
    }
}

pub(crate) fn not_found<T: std::fmt::Debug>(answer: Result<T, EngineError>) -> String {
    match answer {
        Err(EngineError::NotFound(what)) => what,
        other => panic!("found: {other:?}"),
    }
}

/// Waits until it is so; 60 s is what nothing here takes.
pub(crate) async fn eventually(what: &str, is_so: impl AsyncFn() -> bool) {
    const TRIES: u32 = 1_200;
    for _ in 0..TRIES {
        if is_so().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("it never came that {what}");
}

/// A /26 of 10.201.0.0/16 that no other run uses.
async fn free_network(engine: &Arc<dyn Engine>, app: &AppName) -> NetworkSpec {
    const SUBNETS: u32 = 1_024;
    const SUBNET_ADDRESSES: u32 = 64;
    let first = std::process::id().wrapping_mul(2_654_435_761) >> 22;
    for n in 0..SUBNETS {
        let index = (first + n) % SUBNETS;
        let base = Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 201, 0, 0)) + index * SUBNET_ADDRESSES);
        let network = NetworkSpec { app: app.clone(), base, mtu: 1_400 };
        match engine.ensure_network(&network).await {
            Ok(()) => return network,
            Err(EngineError::Refused { message, .. }) if message.contains("is in use") => {}
            Err(error) => panic!("{error}"),
        }
    }
    panic!("every subnet of 10.201.0.0/16 is in use");
}

/// Removes from Docker what this run made, also when a test panics; made, it removes what dead runs left.
pub(crate) struct Leftovers {
    hosts: [String; 2],
}

/// Ends the host id of every agent of this suite; the process id and a number come before it.
const MARK: &[u8; 8] = b"contract";

impl Leftovers {
    pub(crate) fn of_this_run() -> (Self, [u8; 16], [u8; 16]) {
        let id = |number: u8| {
            let mut id = [number; 16];
            id[..4].copy_from_slice(&(std::process::id() * 8 + u32::from(number)).to_be_bytes());
            id[8..].copy_from_slice(MARK);
            id
        };
        remove_dead_runs();
        let (ours, others) = (id(1), id(2));
        (Self { hosts: [ours, others].map(hex) }, ours, others)
    }
}

impl Drop for Leftovers {
    fn drop(&mut self) {
        for host in &self.hosts {
            remove(host);
        }
    }
}

fn remove_dead_runs() {
    let mark = hex(*MARK);
    let labels = "{{.Label \"dev.refloat.host\"}}{{.Label \"dev.refloat.one-off\"}}";
    let found = [["ps", "-a"], ["network", "ls"], ["volume", "ls"]]
        .map(|list| ask(&[&list[..], &["--format", labels]].concat()));
    let hosts: BTreeMap<_, _> = found.iter().flat_map(|hosts| hosts.lines()).map(|host| (host, ())).collect();
    for host in hosts.keys().filter(|host| host.ends_with(&mark)) {
        let pid = u32::from_str_radix(&host[..8], 16).unwrap_or(0) / 8;
        if !PathBuf::from(format!("/proc/{pid}")).exists() {
            remove(host);
        }
    }
}

fn remove(host: &str) {
    for label in ["host", "one-off"] {
        let filter = format!("label=dev.refloat.{label}={host}");
        remove_all(&["ps", "-aq", "--filter", &filter], &["rm", "-fv"]);
        remove_all(&["network", "ls", "-q", "--filter", &filter], &["network", "rm"]);
        remove_all(&["volume", "ls", "-q", "--filter", &filter], &["volume", "rm"]);
    }
    let images = format!("reference=refloat-{}/*", &host[..8]);
    remove_all(&["images", "--format", "{{.Repository}}:{{.Tag}}", "--filter", &images], &["rmi", "-f"]);
}

fn remove_all(list: &[&str], remove: &[&str]) {
    let found = ask(list);
    let found: Vec<_> = found.lines().collect();
    if !found.is_empty() {
        ask(&[remove, &found].concat());
    }
}

/// What the `docker` program answers. Tests may use it; the agent never does.
pub(crate) fn ask(arguments: &[&str]) -> String {
    let output = Command::new("docker").args(arguments).output().unwrap();
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

fn hex<const N: usize>(bytes: [u8; N]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
