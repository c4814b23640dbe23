//! The port: what a deployment asks of a build and what it gets.

use async_trait::async_trait;
use refloat_model::{AppName, ImageDigest, PlanDigest, Process, SourceDigest, TreeDigest};
use refloat_plan::plan::Note;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::error::BuildError;
use crate::docker::Secrets;

/// Makes backends of a source. Idempotent: the same job again finds what it made.
#[async_trait]
pub trait Builder: Send + Sync + 'static {
    /// Plans and builds. Progress goes out as it comes; nobody has to listen. A cancelled build ends soon, with
    /// [`BuildError::Cancelled`].
    async fn build(
        &self,
        job: BuildJob,
        progress: mpsc::Sender<BuildProgress>,
        cancel: CancellationToken,
    ) -> Result<Built, BuildError>;
}

/// Frees memory before a build starts: standby goes first.
#[async_trait]
pub trait MakeRoom: Send + Sync + 'static {
    /// Returns when what can go is gone.
    async fn make_room(&self);
}

/// What is to be built.
#[derive(Debug, Clone)]
pub struct BuildJob {
    /// The app.
    pub app: AppName,
    /// Root of the uploaded tree.
    pub source: SourceDigest,
    /// The source is build output: no build command is run.
    pub prebuilt: bool,
    /// Last component of the folder that the source came from; the app's name when nothing else gives one.
    pub folder: String,
    /// The app's environment. Only names that the plan lists become build arguments.
    pub build_env: Secrets,
    /// Digest of the client's own plan, to report a difference.
    pub local_plan: Option<[u8; 32]>,
}

/// What a build made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Built {
    /// The plan that was followed.
    pub plan_digest: PlanDigest,
    /// What runs, sorted by name.
    pub processes: Vec<Process>,
    /// What the user should know: from the plan, then from publishing. All of it was said as progress already, so that it
    /// is known when a build fails.
    pub notes: Vec<Note>,
    /// What was recognised: "Vite single-page app".
    pub shape: String,
    /// Names of the variables that it reads.
    pub build_env: Vec<String>,
    /// How long it took, planning included, in milliseconds.
    pub build_ms: u64,
    /// Whether everything was there already and nothing was built.
    pub unchanged: bool,
    /// The images, in the plan's order.
    pub images: Vec<BuiltImage>,
    /// The trees, in the plan's order.
    pub trees: Vec<BuiltTree>,
}

/// An image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuiltImage {
    /// Its name in the plan.
    pub name: String,
    /// Its identity.
    pub digest: ImageDigest,
    /// Its size in bytes.
    pub size_bytes: u64,
}

/// A published tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuiltTree {
    /// Its name in the plan.
    pub name: String,
    /// Its identity.
    pub digest: TreeDigest,
    /// How many files it has.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// What a build says while it runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BuildProgress {
    /// The plan is made.
    Plan {
        /// What was recognised.
        shape: String,
        /// One line for each process: "web: container on port 3000".
        processes: Vec<String>,
    },
    /// A step began.
    Step {
        /// "[2/7] RUN npm ci".
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
    /// Something worth knowing.
    Note {
        /// Whether it will probably hurt.
        warn: bool,
        /// A sentence or two.
        text: String,
    },
}
