//! The port: what the agent needs of a container engine, in the agent's own types.

use std::collections::BTreeMap;
use std::fmt;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use async_trait::async_trait;
use refloat_model::{AppName, Capability, Hardening, ImageDigest, InstanceName, ProcessName, ReleaseNumber, Resources};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// A container engine. Every call is idempotent: doing it again when it has happened succeeds.
#[async_trait]
pub trait Engine: Send + Sync + 'static {
    /// Version and settings of the engine.
    async fn info(&self) -> Result<EngineInfo, EngineError>;

    /// Makes the app's network, or finds it with the same subnet.
    async fn ensure_network(&self, network: &NetworkSpec) -> Result<(), EngineError>;
    /// Removes the app's network when nothing is attached.
    async fn remove_network(&self, app: &AppName) -> Result<(), EngineError>;

    /// Creates a container, stopped, with restart policy `no`. One that exists under the name is kept as it is.
    async fn create(&self, spec: &InstanceSpec) -> Result<(), EngineError>;
    /// Starts it.
    async fn start(&self, name: &InstanceName) -> Result<(), EngineError>;
    /// Sends SIGTERM, after the grace period SIGKILL. A paused one is thawed first.
    async fn stop(&self, name: &InstanceName, grace_ms: u32) -> Result<(), EngineError>;
    /// Freezes it.
    async fn pause(&self, name: &InstanceName) -> Result<(), EngineError>;
    /// Thaws it.
    async fn unpause(&self, name: &InstanceName) -> Result<(), EngineError>;
    /// Removes it, running or not. Volumes stay.
    async fn remove(&self, name: &InstanceName) -> Result<(), EngineError>;
    /// Sets whether the engine starts it again by itself.
    async fn set_restart(&self, name: &InstanceName, restart: Restart) -> Result<(), EngineError>;

    /// One container, or `None`.
    async fn inspect(&self, name: &InstanceName) -> Result<Option<Observed>, EngineError>;
    /// Every container of this host's agent, by label.
    async fn list(&self) -> Result<Vec<Observed>, EngineError>;
    /// Its last lines of output, oldest first.
    async fn tail(&self, name: &InstanceName, lines: u32) -> Result<Vec<LogLine>, EngineError>;
    /// Its output from `since_ms` (Unix time) on, sent until it ends or the receiver is gone.
    async fn follow(&self, name: &InstanceName, since_ms: u64, to: mpsc::Sender<LogLine>) -> Result<(), EngineError>;
    /// Memory in use in bytes.
    async fn memory_bytes(&self, name: &InstanceName) -> Result<u64, EngineError>;

    /// Whether the engine holds the image, and what it says about itself.
    async fn image(&self, digest: &ImageDigest) -> Result<Option<ImageInfo>, EngineError>;
    /// Puts our tag on it, so that no prune takes it.
    async fn keep_image(&self, digest: &ImageDigest, app: &AppName, release: ReleaseNumber) -> Result<(), EngineError>;
    /// Takes our tag off; the engine removes the image with its last tag.
    async fn release_image(&self, app: &AppName, release: ReleaseNumber) -> Result<(), EngineError>;
    /// Builds an image from a context (a tar archive on disk). Output goes to `output` as it comes.
    async fn build(
        &self,
        request: BuildRequest,
        output: mpsc::Sender<BuildOutput>,
        cancel: CancellationToken,
    ) -> Result<ImageDigest, EngineError>;
    /// The image's whole file system as a tar archive, sent in chunks: creates a container and removes it again.
    async fn export(&self, image: &ImageDigest, to: mpsc::Sender<Vec<u8>>) -> Result<(), EngineError>;

    /// Makes a named volume of the app, or finds it.
    async fn ensure_volume(&self, app: &AppName, volume: &str) -> Result<(), EngineError>;
    /// The app's volumes.
    async fn volumes(&self, app: &AppName) -> Result<Vec<String>, EngineError>;
    /// Removes a volume with its data.
    async fn remove_volume(&self, app: &AppName, volume: &str) -> Result<(), EngineError>;

    /// Runs a one-off container, attached; it is removed after. Answers its exit code.
    async fn run(&self, request: RunRequest, io: RunIo) -> Result<i64, EngineError>;
}

/// What an engine says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineInfo {
    /// "28.5.2".
    pub version: String,
    /// Whether containers outlive it.
    pub live_restore: bool,
    /// "systemd" or "cgroupfs".
    pub cgroup_driver: String,
    /// 1 or 2.
    pub cgroup_version: u8,
    /// The folder that holds its images and containers.
    pub data_root: PathBuf,
}

/// An app's network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkSpec {
    /// The app.
    pub app: AppName,
    /// First address of its /26.
    pub base: Ipv4Addr,
    /// Of the default route, in bytes.
    pub mtu: u16,
}

/// A container, complete: the only thing that a host configuration is made from.
#[derive(Clone, PartialEq, Eq)]
pub struct InstanceSpec {
    /// Its name.
    pub name: InstanceName,
    /// The app.
    pub app: AppName,
    /// The process.
    pub process: ProcessName,
    /// The release that it was first made for.
    pub release: ReleaseNumber,
    /// The image, by config digest.
    pub image: ImageDigest,
    /// Overrides the image's command; empty keeps it.
    pub command: Vec<String>,
    /// The environment, values included.
    pub env: Secrets,
    /// Its fixed address.
    pub ip: Ipv4Addr,
    /// Other names by which processes of the same release find it.
    pub aliases: Vec<String>,
    /// What it may use.
    pub resources: Resources,
    /// How far it is locked down.
    pub hardening: Hardening,
    /// Whether its root file system may be written to.
    pub writable_root: bool,
    /// What an own image is given back of the engine's usual capabilities; a generated one gets none.
    pub capabilities: Vec<Capability>,
    /// Volume names of the app and absolute paths.
    pub volumes: Vec<(String, String)>,
    /// Digest of the runtime specification, for the truth check.
    pub spec_digest: [u8; 32],
}

impl fmt::Debug for InstanceSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InstanceSpec").field("name", &self.name).field("image", &self.image).finish_non_exhaustive()
    }
}

/// Names and values that are never printed.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Secrets(pub BTreeMap<String, String>);

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secrets({} names)", self.0.len())
    }
}

/// Whether the engine starts a container again by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Restart {
    /// Never: standby and candidates.
    No,
    /// After a crash and after a reboot: what serves.
    UnlessStopped,
}

/// A container as the engine sees it now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observed {
    /// Its name.
    pub name: InstanceName,
    /// The app on its label.
    pub app: AppName,
    /// The process on its label.
    pub process: ProcessName,
    /// The release on its label.
    pub release: ReleaseNumber,
    /// What it does.
    pub state: RunState,
    /// Config digest of its image.
    pub image: ImageDigest,
    /// Its address in the app's network.
    pub ip: Option<Ipv4Addr>,
    /// The digest on its label.
    pub spec_digest: [u8; 32],
    /// Whether the engine starts it by itself.
    pub restart: Restart,
    /// How often the engine has restarted it.
    pub restart_count: u32,
    /// Unix time in milliseconds; 0 before its first start.
    pub started_at_ms: u64,
}

/// What a container does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunState {
    /// Made, never started.
    Created,
    /// Runs.
    Running,
    /// Frozen.
    Paused,
    /// The engine is about to start it again after a crash.
    Restarting,
    /// Ended with this code.
    Exited(i64),
    /// Ended because it went over its memory limit.
    OutOfMemory,
    /// The engine cannot remove or start it.
    Dead,
}

/// A line of a container's output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// Unix time in milliseconds.
    pub at_ms: u64,
    /// Whether it came from stderr.
    pub stderr: bool,
    /// The text, without its end of line, at most 16 KiB.
    pub text: String,
}

/// What an image says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageInfo {
    /// TCP ports that it exposes, sorted.
    pub exposed_ports: Vec<u16>,
    /// Size in bytes.
    pub size_bytes: u64,
    /// Its user; empty is root.
    pub user: String,
}

/// A build.
#[derive(Debug)]
pub struct BuildRequest {
    /// The app, for labels.
    pub app: AppName,
    /// A tar archive of the context, the Dockerfile among it.
    pub context: std::path::PathBuf,
    /// Path of the Dockerfile in the context.
    pub dockerfile: String,
    /// Build arguments, never kept in the final image.
    pub args: Secrets,
    /// Control group that every step runs in, as the engine names it; `None`: builds are not capped.
    pub cgroup_parent: Option<String>,
}

/// What a build says while it runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BuildOutput {
    /// A step began: "[2/7] RUN npm ci".
    Step {
        /// Its text.
        text: String,
        /// Steps that are done.
        done: u32,
        /// Steps that are known so far.
        total: u32,
        /// Whether it came from the cache.
        cached: bool,
    },
    /// A line that a step printed.
    Line(String),
}

/// A one-off container.
#[derive(Debug)]
pub struct RunRequest {
    /// As for an instance.
    pub spec: InstanceSpec,
    /// Whether it gets a terminal.
    pub tty: bool,
}

/// The ends of a one-off container's streams.
#[derive(Debug)]
pub struct RunIo {
    /// What it reads.
    pub stdin: mpsc::Receiver<Vec<u8>>,
    /// What it writes: whether to stderr, and the bytes.
    pub output: mpsc::Sender<(bool, Vec<u8>)>,
}

/// Why the engine did not do it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EngineError {
    /// It does not answer.
    #[error("Docker cannot be reached: {0}")]
    Unreachable(String),
    /// It did not answer in time; it may have done it.
    #[error("Docker did not answer {what} within {timeout_ms} ms")]
    Timeout {
        /// What was asked.
        what: &'static str,
        /// How long we waited.
        timeout_ms: u32,
    },
    /// There is no such container, image or network.
    #[error("{0} does not exist")]
    NotFound(String),
    /// The build failed; the last lines say why.
    #[error("the build failed at {step}")]
    BuildFailed {
        /// The step's text.
        step: String,
        /// At most 20 lines.
        lines: Vec<String>,
        /// Whether it was killed at its memory limit.
        out_of_memory: bool,
    },
    /// It was cancelled.
    #[error("the build was cancelled")]
    Cancelled,
    /// It refused.
    #[error("Docker refused {what}: {message}")]
    Refused {
        /// What was asked.
        what: &'static str,
        /// What it said.
        message: String,
    },
}
