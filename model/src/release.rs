//! A release: what runs, immutable, named by the hash of its canonical encoding.
//!
//! The number `rN` is per app and outside the hash: the same content deployed to two servers has one content id.
//! Deliberately absent: domains, certificates and every other live state of the app (they survive a rollback), and
//! every value of the environment (a release names an [`EnvId`], never a value).

use minicbor::{Decode, Encode};

use crate::canonical::{Canonical, domain_digest};
use crate::capability::Capability;
use crate::id::{AppName, ContentId, EnvId, ImageDigest, PlanDigest, ProcessName, ReleaseId, SourceDigest, TreeDigest};
use crate::route::PathPrefix;

/// What can be made to serve, complete and for ever the same.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Release {
    /// The app that it belongs to.
    #[n(0)]
    pub app: AppName,
    /// The uploaded source.
    #[n(1)]
    pub source: SourceDigest,
    /// The build plan that was followed.
    #[n(2)]
    pub plan: PlanDigest,
    /// Every process, sorted by name.
    #[n(3)]
    pub processes: Vec<Process>,
    /// The environment that its instances get.
    #[n(4)]
    pub env: EnvId,
    /// The release that served when this one was made.
    #[n(5)]
    pub parent: Option<ReleaseId>,
    /// Who made it.
    #[n(6)]
    pub author: Author,
}

/// Who made a release: the name in the client's certificate, or `root@host`.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(transparent)]
pub struct Author(#[n(0)] pub String);

impl Canonical for Release {
    const DOMAIN: &'static str = "refloat release 1";
    const SCHEMA: u8 = 1;
}

impl Release {
    /// The release's identity: everything, author and parent included.
    #[must_use]
    pub fn id(&self) -> ReleaseId {
        ReleaseId(self.digest())
    }

    /// Identity of what runs: equal for two deploys of the same source, plan, env and settings, whoever made them.
    #[must_use]
    pub fn content_id(&self) -> ContentId {
        let anonymous = Self { parent: None, author: Author(String::new()), ..self.clone() };
        ContentId(domain_digest("refloat content 1", &anonymous.to_canonical()))
    }

    /// The process of that name.
    #[must_use]
    pub fn process(&self, name: &ProcessName) -> Option<&Process> {
        self.processes.iter().find(|p| p.name == *name)
    }

    /// The processes that run as containers.
    pub fn instance_processes(&self) -> impl Iterator<Item = &Process> {
        self.processes.iter().filter(|p| matches!(p.backend, Backend::Instance { .. }))
    }
}

/// One part of an app.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Process {
    /// Unique within the app.
    #[n(0)]
    pub name: ProcessName,
    /// What it is for.
    #[n(1)]
    pub kind: ProcessKind,
    /// Never two at once: its predecessor is stopped before it starts.
    #[n(2)]
    pub exclusive: bool,
    /// What serves or runs it.
    #[n(3)]
    pub backend: Backend,
    /// Path prefixes that the edge sends to it, sorted; empty unless it is a web process.
    #[n(4)]
    pub routes: Vec<PathPrefix>,
    /// When it counts as healthy.
    #[n(5)]
    pub health: Health,
    /// What it may use.
    #[n(6)]
    pub resources: Resources,
    /// Named volumes, sorted by name.
    #[n(7)]
    pub volumes: Vec<VolumeMount>,
    /// A cron expression; only for [`ProcessKind::Cron`].
    #[n(8)]
    pub schedule: Option<String>,
}

/// What a process is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum ProcessKind {
    /// Receives requests from the edge.
    #[n(0)]
    Web,
    /// Runs beside, without routes.
    #[n(1)]
    Worker,
    /// Runs at times.
    #[n(2)]
    Cron,
}

/// What serves a process.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Backend {
    /// A container.
    #[n(0)]
    Instance {
        /// Config digest of the image.
        #[n(0)]
        image: ImageDigest,
        /// Overrides the image's command; empty keeps it.
        #[n(1)]
        command: Vec<String>,
        /// TCP port that it listens on inside its network; 0 when it has none.
        #[n(2)]
        port: u16,
        /// How far it is locked down.
        #[n(3)]
        hardening: Hardening,
        /// Whether its root file system may be written to.
        #[n(4)]
        writable_root: bool,
        /// What an own image is given back of the engine's usual capabilities, sorted. Without any it is not encoded,
        /// so that releases from before it was known keep their id.
        #[cbor(n(5), skip_if = "Vec::is_empty")]
        capabilities: Vec<Capability>,
    },
    /// Static files that the edge serves itself: no container, no memory.
    #[n(1)]
    Files {
        /// The published tree.
        #[n(0)]
        tree: TreeDigest,
        /// How paths become files.
        #[n(1)]
        rules: StaticRules,
    },
}

/// How far a container is locked down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum Hardening {
    /// Generated image: unprivileged user, no capability at all.
    #[n(0)]
    Generated,
    /// The user's own Dockerfile or image: the engine's usual capabilities cut to CHOWN, DAC_OVERRIDE, FOWNER, SETUID,
    /// SETGID, KILL and NET_BIND_SERVICE.
    #[n(1)]
    Own,
}

/// How a path becomes a file of a tree.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode)]
pub struct StaticRules {
    /// File that answers a page path which names no file (single-page apps), relative to the tree: `index.html`.
    /// Never used for a path with an extension in its last segment or below a prefix in `no_fallback`.
    #[n(0)]
    pub fallback: Option<String>,
    /// File that is the body of a 404, relative to the tree: `404.html`.
    #[n(1)]
    pub not_found: Option<String>,
    /// Prefixes that never fall back, such as `/api`, sorted.
    #[n(2)]
    pub no_fallback: Vec<PathPrefix>,
    /// Prefixes whose names carry a content hash and may be cached for ever, such as `/assets`, sorted.
    #[n(3)]
    pub immutable: Vec<PathPrefix>,
}

/// When an instance counts as healthy: the probe runs from where the edge connects.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Health {
    /// Path that must answer with a status below 400; without one an accepted TCP connection is enough.
    #[n(0)]
    pub path: Option<String>,
    /// How long a start may take before the release fails, in milliseconds.
    #[n(1)]
    pub start_timeout_ms: u32,
}

impl Default for Health {
    /// Any answer on the port within 60 s: what a Node or Python app of the builders reaches even on one slow core.
    fn default() -> Self {
        Self { path: None, start_timeout_ms: 60_000 }
    }
}

/// What an instance may use. Always set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Resources {
    /// Memory limit in MiB; swap is not added.
    #[n(0)]
    pub memory_mib: u32,
    /// CPU limit in thousandths of a core; 0 is no limit.
    #[n(1)]
    pub cpu_millis: u32,
    /// Most processes and threads.
    #[n(2)]
    pub pids: u32,
}

impl Default for Resources {
    fn default() -> Self {
        Self { memory_mib: 512, cpu_millis: 0, pids: 512 }
    }
}

/// A named volume in a process.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub struct VolumeMount {
    /// Name in `refloat.toml`; the Docker volume is `refloat-HOST8.APP.NAME`.
    #[n(0)]
    pub name: ProcessName,
    /// Absolute path in the container.
    #[n(1)]
    pub path: String,
}
