//! A deployment: one attempt to change what serves. It has a phase and ends in exactly one outcome.
//!
//! ```text
//! Queued → Planning → Building → Preparing → Gating → [HandingOver] → Staging → Committed → Applying → Verifying → Ended
//!    │         │          │          │          │           │            │          │
//!    └─────────┴──────────┴──────────┴──────────┴───────────┴────────────┘          └─ only forward from here
//!                 any failure or cancellation: Ended, the old release serves
//! ```
//!
//! A rollback, an activation and a restart enter at `Preparing`: they make no release.

use std::fmt;

use crate::id::{DeploymentId, EnvId, ProcessName, ReleaseNumber, SourceDigest};
use crate::principal::Principal;
use crate::route::HostName;

/// What a deployment is to do.
#[derive(Debug, Clone, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
pub enum Action {
    /// Make a release of an uploaded source and activate it.
    #[n(0)]
    Deploy(#[n(0)] DeployAction),
    /// Go back to an older release.
    #[n(1)]
    Rollback(#[n(0)] ReleaseNumber),
    /// Activate any release, forward too.
    #[n(2)]
    Activate(#[n(0)] ReleaseNumber),
    /// Make a release from the serving one with another environment, and activate it unless told not to.
    #[n(3)]
    ChangeEnv {
        /// The new environment, already sealed.
        #[n(0)]
        env: EnvId,
        /// Only keep it for the next deploy.
        #[n(1)]
        no_activate: bool,
        /// The names that it changes, for people.
        #[n(2)]
        names: Vec<String>,
    },
    /// New instances of the serving release.
    #[n(4)]
    Restart,
    /// Instances stop, the edge answers 503.
    #[n(5)]
    Stop,
    /// Everything of the app goes; its volumes only on request.
    #[n(6)]
    Destroy {
        /// Remove the data too.
        #[n(0)]
        volumes: bool,
    },
    /// Domains of the app, all of them.
    #[n(7)]
    SetDomains(#[n(0)] Vec<HostName>),
}

/// The particulars of a deploy.
#[derive(Debug, Clone, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
pub struct DeployAction {
    /// Root of the uploaded tree.
    #[n(0)]
    pub source: SourceDigest,
    /// Make a release though nothing changed.
    #[n(1)]
    pub force: bool,
    /// Only make the release.
    #[n(2)]
    pub no_activate: bool,
    /// The source is build output.
    #[n(3)]
    pub prebuilt: bool,
    /// Where it came from, for people.
    #[n(4)]
    pub origin: Origin,
}

/// What a source came from, for people.
#[derive(Debug, Clone, PartialEq, Eq, Default, minicbor::Encode, minicbor::Decode)]
pub struct Origin {
    /// The client's host name.
    #[n(0)]
    pub host: String,
    /// Commit, 40 hexadecimal digits, or empty.
    #[n(1)]
    pub git_commit: String,
    /// First line of the commit's message.
    #[n(2)]
    pub git_subject: String,
    /// Whether the tree differed from the commit.
    #[n(3)]
    pub git_dirty: bool,
    /// Last component of the folder.
    #[n(4)]
    pub folder: String,
}

impl Action {
    /// One word for logs, API and history.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Deploy(_) => "deploy",
            Self::Rollback(_) => "rollback",
            Self::Activate(_) => "activate",
            Self::ChangeEnv { .. } => "env",
            Self::Restart => "restart",
            Self::Stop => "stop",
            Self::Destroy { .. } => "destroy",
            Self::SetDomains(_) => "domains",
        }
    }

    /// The release that it is about, when that is known before it begins.
    #[must_use]
    pub fn target(&self) -> Option<ReleaseNumber> {
        match self {
            Self::Rollback(n) | Self::Activate(n) => Some(*n),
            _ => None,
        }
    }
}

/// One attempt, as it is kept while it runs.
#[derive(Debug, Clone, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
pub struct Deployment {
    /// Its identity: the client's idempotency key.
    #[n(0)]
    pub id: DeploymentId,
    /// What it is to do.
    #[n(1)]
    pub action: Action,
    /// Who asked.
    #[n(2)]
    pub by: Principal,
    /// Why, in the asker's words.
    #[n(3)]
    pub reason: String,
    /// When it was accepted, Unix time in milliseconds.
    #[n(4)]
    pub accepted_at_ms: u64,
    /// What served when it was accepted.
    #[n(5)]
    pub serving_before: Option<ReleaseNumber>,
    /// The release that it made or is about.
    #[n(6)]
    pub release: Option<ReleaseNumber>,
    /// Whether its commit is in the ledger.
    #[n(7)]
    pub committed: bool,
    /// Handovers that have begun and not ended.
    #[n(8)]
    pub handovers: Vec<ProcessName>,
    /// How often an agent has picked it up again.
    #[n(9)]
    pub resumed: u32,
}

/// Where a deployment is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Waits for the one before it.
    Queued,
    /// Reads the source.
    Planning,
    /// Builds images and trees.
    Building,
    /// Creates, starts or wakes instances.
    Preparing,
    /// Waits until they are healthy.
    Gating,
    /// Replaces an exclusive process: requests are held.
    HandingOver,
    /// The edge validates the new table.
    Staging,
    /// The commit is durable.
    Committed,
    /// The edge swaps.
    Applying,
    /// What serves is compared with the release.
    Verifying,
    /// It has its outcome.
    Ended,
}

impl Phase {
    /// Every phase, in order.
    pub const ALL: [Self; 11] = [
        Self::Queued,
        Self::Planning,
        Self::Building,
        Self::Preparing,
        Self::Gating,
        Self::HandingOver,
        Self::Staging,
        Self::Committed,
        Self::Applying,
        Self::Verifying,
        Self::Ended,
    ];

    /// One word for logs, API and progress.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Planning => "planning",
            Self::Building => "building",
            Self::Preparing => "preparing",
            Self::Gating => "gating",
            Self::HandingOver => "handover",
            Self::Staging => "staging",
            Self::Committed => "committed",
            Self::Applying => "applying",
            Self::Verifying => "verifying",
            Self::Ended => "ended",
        }
    }

    /// Whether a failure here leaves the old release serving.
    #[must_use]
    pub fn is_before_commit(self) -> bool {
        self < Self::Committed
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// How a deployment ended. Final.
#[derive(Debug, Clone, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
pub enum Outcome {
    /// The release serves and what serves was seen to equal it.
    #[n(0)]
    Live,
    /// The release is committed and applied, but the truth check did not agree.
    #[n(1)]
    LiveUnverified(#[n(0)] String),
    /// The commit is durable; the edge has not taken it yet.
    #[n(2)]
    CommittedNotServed(#[n(0)] String),
    /// It failed before its commit: what served before still serves.
    #[n(3)]
    Failed(#[n(0)] Failure),
    /// Somebody cancelled it before its commit.
    #[n(4)]
    Cancelled {
        /// Who or what did.
        #[n(0)]
        by: String,
    },
    /// A newer deployment took its place in the queue.
    #[n(5)]
    Superseded {
        /// The newer one.
        #[n(0)]
        by: DeploymentId,
    },
    /// Nothing changed: the same release serves.
    #[n(6)]
    Unchanged,
    /// What was asked for is done and makes no release serve.
    #[n(7)]
    Done,
}

impl Outcome {
    /// One word for logs and records.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::LiveUnverified(_) => "live_unverified",
            Self::CommittedNotServed(_) => "committed_not_served",
            Self::Failed(_) => "failed",
            Self::Cancelled { .. } => "cancelled",
            Self::Superseded { .. } => "superseded",
            Self::Unchanged => "unchanged",
            Self::Done => "done",
        }
    }
}

/// Why a deployment failed before its commit.
#[derive(Debug, Clone, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
pub struct Failure {
    /// Stable, for programs: `UNHEALTHY`, `BUILD_FAILED`, …
    #[n(0)]
    pub reason: String,
    /// What happened, a sentence.
    #[n(1)]
    pub message: String,
    /// One command to type, or empty.
    #[n(2)]
    pub next_command: String,
    /// At most 20 lines of evidence.
    #[n(3)]
    pub lines: Vec<String>,
}
