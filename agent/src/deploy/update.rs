//! What a deployment says while it runs, and its report at the end.

use std::time::Duration;

pub use refloat_model::Change;
use refloat_model::{AppName, DeploymentId, Generation, Outcome, Phase, ProcessName, ReleaseNumber};

/// An update with its place: from 1, without a gap, per deployment.
#[derive(Debug, Clone)]
pub struct Numbered {
    /// Its place.
    pub sequence: u64,
    /// Unix time in milliseconds.
    pub at_ms: u64,
    /// What it says.
    pub update: Update,
}

/// What a deployment says.
#[derive(Debug, Clone)]
pub enum Update {
    /// It began; always the first.
    Accepted(Accepted),
    /// It is in this phase now; the text says more.
    Phase(Phase, String),
    /// Countable progress.
    Progress {
        /// "[2/7] RUN npm ci".
        what: String,
        /// How much is done.
        done: u64,
        /// Of how much; 0 when unknown.
        total: u64,
        /// "steps", "bytes".
        unit: &'static str,
    },
    /// A line that the build or the app printed.
    Output {
        /// `build` or `app`.
        source: &'static str,
        /// The process, or empty.
        process: String,
        /// The line.
        line: String,
    },
    /// Something worth knowing.
    Note {
        /// Whether it will probably hurt.
        warn: bool,
        /// A sentence.
        text: String,
    },
    /// It ended; always the last.
    Ended(Box<Report>),
}

/// The first update.
#[derive(Debug, Clone)]
pub struct Accepted {
    /// The attempt.
    pub deployment: DeploymentId,
    /// The app.
    pub app: AppName,
    /// `deploy`, `rollback`, …
    pub kind: &'static str,
    /// What serves now.
    pub serving: Option<ReleaseNumber>,
    /// What is to serve, when that is known.
    pub target: Option<ReleaseNumber>,
    /// A deployment that this one cancelled.
    pub cancelled: Option<DeploymentId>,
    /// For rollback and activate: what is different from what serves now.
    pub undoes: Vec<Change>,
}

/// The last update.
#[derive(Debug, Clone)]
pub struct Report {
    /// How it ended.
    pub outcome: Outcome,
    /// What serves now.
    pub serving: Option<ReleaseNumber>,
    /// The release that it was about.
    pub release: Option<ReleaseNumber>,
    /// What is not affected: "r6 still serves".
    pub still_fine: String,
    /// Where the app answers.
    pub addresses: Vec<String>,
    /// The addresses as seen from the server.
    pub fetched: Vec<Fetched>,
    /// How long each phase took, and `server`: from the request to the applied commit.
    pub timings: Vec<(String, Duration)>,
    /// Exclusive processes and how long each was down.
    pub downtimes: Vec<(ProcessName, Duration)>,
    /// For rollback and activate: what was undone.
    pub undone: Vec<Change>,
    /// The line for an emergency, or empty.
    pub emergency: String,
    /// The table's generation.
    pub generation: Generation,
}

/// An address that was fetched.
#[derive(Debug, Clone)]
pub struct Fetched {
    /// The address.
    pub address: String,
    /// Its status, or why it did not answer.
    pub result: Result<u16, String>,
    /// How long it took.
    pub took: Duration,
}
