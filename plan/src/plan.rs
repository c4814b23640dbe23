//! A build plan: what is built, how, and what runs, each with its reason.
//!
//! A plan is data. Two equal sources give two equal plans, and a plan's digest is part of the release.

use minicbor::{Decode, Encode};
use serde::Serialize;

use crate::capability::Capability;

/// What is to be built and run.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize)]
pub struct Plan {
    /// Name of the app: from `refloat.toml`, then `package.json`, then the folder. A valid label.
    #[n(0)]
    pub app: String,
    /// Which builder exported it, for people: "Lovable", "Bolt", …
    #[n(1)]
    pub builder: Option<String>,
    /// What was recognised, in a few words: "Vite single-page app", "Node server".
    #[n(2)]
    pub shape: String,
    /// Images and trees to be built, in order.
    #[n(3)]
    pub builds: Vec<Build>,
    /// What runs, sorted by name.
    #[n(4)]
    pub processes: Vec<ProcessPlan>,
    /// Why: one line for each decision, in the order they were made.
    #[n(5)]
    pub reasons: Vec<Reason>,
    /// What the user should know: will not run, not reproducible, …
    #[n(6)]
    pub notes: Vec<Note>,
    /// Names of variables that the build reads and that end up in its output (`VITE_…`), sorted.
    #[n(7)]
    pub build_env: Vec<String>,
    /// Values of such variables from a committed `.env`, sorted by name: their only source in some exports. Only names
    /// with a prefix that publishes them anyway.
    #[n(8)]
    pub build_env_defaults: Vec<(String, String)>,
    /// Names of variables that `refloat.toml` requires to be set before a release may serve, sorted.
    #[n(9)]
    pub required_env: Vec<String>,
}

/// One decision.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize)]
pub struct Reason {
    /// What was decided: "package manager: npm".
    #[n(0)]
    pub decision: String,
    /// The evidence: "package-lock.json matches package.json".
    #[n(1)]
    pub because: String,
}

/// Something the user should know.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize)]
pub struct Note {
    /// Whether it will probably hurt.
    #[n(0)]
    pub warn: bool,
    /// A sentence or two.
    #[n(1)]
    pub text: String,
}

/// Something that is built from the source.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Build {
    /// A Dockerfile over the uploaded tree; its final stage is the image of the processes that name it.
    #[n(0)]
    Image {
        /// Unique within the plan: "app".
        #[n(0)]
        name: String,
        /// Text of the Dockerfile. Never with a `# syntax=` line.
        #[n(1)]
        dockerfile: String,
        /// Folder of the source that is the build's context, without slashes at its ends; empty for the root.
        #[n(2)]
        context: String,
        /// Whether the Dockerfile is the user's own.
        #[n(3)]
        own: bool,
        /// Paths that are kept out of the context, in `.dockerignore` syntax.
        #[n(4)]
        ignore: Vec<String>,
    },
    /// A Dockerfile whose final stage holds nothing but the files to publish, at its root.
    #[n(1)]
    Tree {
        /// Unique within the plan: "web".
        #[n(0)]
        name: String,
        /// Text of the Dockerfile.
        #[n(1)]
        dockerfile: String,
        /// As for an image.
        #[n(2)]
        context: String,
        /// As for an image.
        #[n(3)]
        ignore: Vec<String>,
    },
    /// Files of the source that are published as they are: no build at all.
    #[n(2)]
    Folder {
        /// Unique within the plan: "web".
        #[n(0)]
        name: String,
        /// Folder of the source; empty for the root.
        #[n(1)]
        folder: String,
    },
}

impl Build {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Image { name, .. } | Self::Tree { name, .. } | Self::Folder { name, .. } => name,
        }
    }
}

/// Whether the image of that name is built from the user's own Dockerfile.
#[must_use]
pub fn is_own(builds: &[Build], image: &str) -> bool {
    builds.iter().any(|build| matches!(build, Build::Image { name, own: true, .. } if name == image))
}

/// One process.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize)]
pub struct ProcessPlan {
    /// Its name, a valid label.
    #[n(0)]
    pub name: String,
    /// `web`, `worker` or `cron`.
    #[n(1)]
    pub kind: Kind,
    /// Never two at once.
    #[n(2)]
    pub exclusive: bool,
    /// What serves it.
    #[n(3)]
    pub backend: BackendPlan,
    /// Path prefixes, sorted.
    #[n(4)]
    pub routes: Vec<String>,
    /// Path that must answer below 400; `None`: a TCP connection is enough.
    #[n(5)]
    pub health_path: Option<String>,
    /// How long a start may take, in milliseconds.
    #[n(6)]
    pub start_timeout_ms: u32,
    /// Memory limit in MiB.
    #[n(7)]
    pub memory_mib: u32,
    /// CPU limit in thousandths of a core; 0 is none.
    #[n(8)]
    pub cpu_millis: u32,
    /// Most processes and threads.
    #[n(9)]
    pub pids: u32,
    /// Named volumes and where they are mounted, sorted.
    #[n(10)]
    pub volumes: Vec<(String, String)>,
}

/// What a process is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode, Serialize)]
#[cbor(index_only)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Receives requests.
    #[n(0)]
    Web,
    /// Runs beside.
    #[n(1)]
    Worker,
    /// Runs at times.
    #[n(2)]
    Cron,
}

/// What serves a process.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum BackendPlan {
    /// A container of the image with that name.
    #[n(0)]
    Instance {
        /// Name of a [`Build::Image`].
        #[n(0)]
        build: String,
        /// Command as an argument array; empty keeps the image's.
        #[n(1)]
        command: Vec<String>,
        /// Port; `None` for an own Dockerfile without `EXPOSE`: the image's configuration decides, else 8080.
        #[n(2)]
        port: Option<u16>,
        /// Whether its root file system may be written to.
        #[n(3)]
        writable_root: bool,
        /// What the container of an own Dockerfile gets beside [`KEPT`](crate::capability::KEPT), sorted.
        #[cbor(n(4), skip_if = "Vec::is_empty")]
        #[serde(skip_serializing_if = "Vec::is_empty")]
        capabilities: Vec<Capability>,
    },
    /// Files that the edge serves.
    #[n(1)]
    Files {
        /// Name of a [`Build::Tree`] or [`Build::Folder`].
        #[n(0)]
        build: String,
        /// As `StaticRules` of the model: `index.html` or none.
        #[n(1)]
        fallback: Option<String>,
        /// Body of a 404, `404.html` or none.
        #[n(2)]
        not_found: Option<String>,
        /// Prefixes that never fall back, sorted.
        #[n(3)]
        no_fallback: Vec<String>,
        /// Prefixes that may be cached for ever, sorted.
        #[n(4)]
        immutable: Vec<String>,
    },
}

impl Plan {
    /// BLAKE3 of the plan's encoding under its own domain. Reasons and notes are no part of it.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        let bare = Self { reasons: Vec::new(), notes: Vec::new(), ..self.clone() };
        let mut bytes = vec![1];
        match minicbor::encode(&bare, &mut bytes) {
            Ok(()) => {}
            Err(error) => unreachable!("encoding to memory failed: {error}"),
        }
        let mut hasher = blake3::Hasher::new_derive_key("refloat plan 1");
        hasher.update(&bytes);
        *hasher.finalize().as_bytes()
    }
}
