//! What a caller asks for, and why it may be denied.

use refloat_model::{AppName, DeploymentId, HostName, Origin, Principal, ReleaseNumber, SourceDigest};

use crate::docker::Secrets;

/// One mutation of one app.
#[derive(Debug, Clone)]
pub struct Submit {
    /// The app; `None` stands for the only app there is.
    pub app: Option<AppName>,
    /// The client's idempotency key: the same again is answered with the first one's updates.
    pub id: DeploymentId,
    /// What to do.
    pub ask: Ask,
    /// Who asks.
    pub by: Principal,
    /// Why, in the asker's words, at most 500 characters.
    pub reason: String,
}

/// What to do.
#[derive(Debug, Clone)]
pub enum Ask {
    /// Make a release of an uploaded source and activate it. Makes the app when it is new.
    Deploy {
        /// Root of the uploaded tree.
        source: SourceDigest,
        /// Make a release though nothing changed.
        force: bool,
        /// Only make the release.
        no_activate: bool,
        /// The source is build output.
        prebuilt: bool,
        /// Where it came from, for people.
        origin: Origin,
        /// Digest of the client's own plan, to report a difference.
        local_plan: Option<[u8; 32]>,
    },
    /// Go back.
    Rollback {
        /// Where to; `None`: the predecessor of what serves.
        to: Option<ReleaseNumber>,
        /// To the last release with other code.
        code: bool,
        /// Only say what it would undo.
        dry_run: bool,
    },
    /// Activate any release.
    Activate(ReleaseNumber),
    /// New instances of what serves.
    Restart,
    /// Instances stop; the edge answers 503.
    Stop,
    /// Everything goes.
    Destroy {
        /// The data too.
        volumes: bool,
        /// Only list what would go.
        dry_run: bool,
    },
    /// Add and remove domains.
    Domains {
        /// To add.
        add: Vec<HostName>,
        /// To remove.
        remove: Vec<HostName>,
    },
    /// Set and unset variables.
    Env {
        /// To set.
        set: Secrets,
        /// To unset.
        unset: Vec<String>,
        /// Keep them for the next deploy.
        no_deploy: bool,
    },
}

impl Ask {
    /// One word for logs, API and history.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Deploy { .. } => "deploy",
            Self::Rollback { .. } => "rollback",
            Self::Activate(_) => "activate",
            Self::Restart => "restart",
            Self::Stop => "stop",
            Self::Destroy { .. } => "destroy",
            Self::Domains { .. } => "domains",
            Self::Env { .. } => "env",
        }
    }
}

/// A request that was not accepted: nothing changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Denied {
    /// Stable, for programs: `NO_SUCH_APP`, `NOTHING_BEFORE`, …
    pub reason: &'static str,
    /// A full sentence.
    pub message: String,
    /// What is not affected.
    pub still_fine: String,
    /// One command to type, or empty.
    pub next_command: String,
}
