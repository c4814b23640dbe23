//! The sequencer: the one owner of the route table. It runs stage → commit → apply for one app's change after another.
//!
//! ```text
//!  change ─▶ stage ──refused──▶ error, nothing changed
//!              │ staged, or the edge is away (validated here by the same rules)
//!              ▼
//!           commit in the ledger ──fails──▶ error; acceptance has stopped
//!              │ durable: from here only forward
//!              ▼
//!            apply ──edge away──▶ "committed, not served"; tried again until it is
//! ```
//!
//! At rest it compares the edge with the committed table, so that an edge which was restarted, or away, or restored from
//! an old disk gets what was committed.

use std::sync::Arc;
use std::time::Duration;

use refloat_model::{
    AppName, AppRoutes, DeploymentId, Event, Generation, Principal, ReleaseNumber, RouteTable, TableDigest,
};
use tokio::sync::{mpsc, oneshot};
use tracing::{info, warn};

use crate::edge::{Edge, EdgeError};
use crate::journal::{Journal, JournalError};

/// How often the edge is compared with the committed table while they agree.
const COMPARE_EVERY: Duration = Duration::from_secs(5);
/// How often an unapplied table is tried again.
const RETRY_EVERY: Duration = Duration::from_millis(250);
/// How long a change waits for the edge before it is answered with "not served yet".
const APPLY_WITHIN: Duration = Duration::from_secs(3);

/// Handle to the task.
#[derive(Debug, Clone)]
pub(super) struct Sequencer {
    changes: mpsc::Sender<(Change, oneshot::Sender<Result<Switched, SwitchError>>)>,
}

/// One app's change of the table.
#[derive(Debug, Clone)]
pub(super) struct Change {
    pub(super) app: AppName,
    pub(super) deployment: DeploymentId,
    pub(super) activates: Option<ReleaseNumber>,
    /// `None` removes the app from the table.
    pub(super) routes: Option<AppRoutes>,
    pub(super) by: Principal,
}

/// The commit is durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Switched {
    pub(super) generation: Generation,
    pub(super) table: TableDigest,
    /// Why the edge does not serve it yet.
    pub(super) not_served: Option<String>,
}

/// There is no commit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum SwitchError {
    #[error("the edge does not accept the new routes: {0}")]
    Refused(String),
    #[error("the commit could not be made durable")]
    Ledger(#[source] JournalError),
    #[error("the agent is shutting down")]
    Gone,
}

impl Sequencer {
    /// Starts the task. It ends with the last handle.
    pub(super) fn start(journal: Arc<dyn Journal>, edge: Arc<dyn Edge>) -> Self {
        let (changes, receiver) = mpsc::channel(16);
        tokio::spawn(Task { journal, edge, applied: false }.run(receiver));
        Self { changes }
    }

    /// Stages, commits and applies a change. Not to be dropped before it answers: the commit may have happened.
    pub(super) async fn switch(&self, change: Change) -> Result<Switched, SwitchError> {
        let (answer, answered) = oneshot::channel();
        self.changes.send((change, answer)).await.map_err(|_| SwitchError::Gone)?;
        answered.await.map_err(|_| SwitchError::Gone)?
    }
}

type Changes = mpsc::Receiver<(Change, oneshot::Sender<Result<Switched, SwitchError>>)>;

struct Task {
    journal: Arc<dyn Journal>,
    edge: Arc<dyn Edge>,
    /// Whether the edge was last seen to serve the committed table.
    applied: bool,
}

impl Task {
    async fn run(mut self, mut changes: Changes) {
        self.compare().await;
        loop {
            let pause = if self.applied { COMPARE_EVERY } else { RETRY_EVERY };
            tokio::select! {
                // Cancel-safe: a change that was not received stays in the channel.
                change = changes.recv() => match change {
                    Some((change, answer)) => {
                        let result = self.switch(change).await;
                        let _gone = answer.send(result);
                    }
                    None => return,
                },
                () = tokio::time::sleep(pause) => self.compare().await,
            }
        }
    }

    async fn switch(&mut self, change: Change) -> Result<Switched, SwitchError> {
        let host = self.journal.host().await.map_err(SwitchError::Ledger)?;
        let next = host.table.with(&change.app, change.routes.clone());
        next.validate().map_err(|e| SwitchError::Refused(e.to_string()))?;
        match self.edge.stage(&next).await {
            Ok(()) | Err(EdgeError::Unreachable(_) | EdgeError::NotStaged) => {}
            Err(EdgeError::Refused(why)) => return Err(SwitchError::Refused(why)),
        }
        let (generation, table) = (next.generation, next.table_digest());
        let event = Event::RoutesCommitted {
            app: change.app,
            deployment: change.deployment,
            activates: change.activates,
            routes: change.routes,
            generation,
            table,
        };
        self.journal.append(&change.by, event).await.map_err(SwitchError::Ledger)?;
        self.applied = false;
        let not_served = self.apply_within(&next, APPLY_WITHIN).await.err();
        Ok(Switched { generation, table, not_served })
    }

    /// Applies, staging again where the edge has lost it, until it succeeds or the time is over.
    async fn apply_within(&mut self, table: &RouteTable, limit: Duration) -> Result<(), String> {
        let deadline = tokio::time::Instant::now() + limit;
        loop {
            match self.apply(table).await {
                Ok(()) => return Ok(()),
                Err(error) if tokio::time::Instant::now() + RETRY_EVERY >= deadline => {
                    warn!(%error, generation = %table.generation, "the edge has not taken the committed table yet");
                    return Err(error.to_string());
                }
                Err(_) => tokio::time::sleep(RETRY_EVERY).await,
            }
        }
    }

    async fn apply(&mut self, table: &RouteTable) -> Result<(), EdgeError> {
        let (generation, digest) = (table.generation, table.table_digest());
        let result = match self.edge.apply(generation, digest).await {
            Err(EdgeError::NotStaged) => {
                self.edge.stage(table).await?;
                self.edge.apply(generation, digest).await
            }
            other => other,
        };
        self.applied = result.is_ok();
        result
    }

    /// Brings the edge to the committed table when it serves another one.
    async fn compare(&mut self) {
        let Ok(host) = self.journal.host().await else { return };
        let committed = host.table;
        let Ok(status) = self.edge.status().await else {
            self.applied = false;
            return;
        };
        self.applied = status.active == committed.generation && status.active_digest == committed.table_digest();
        // A host that has committed nothing has nothing to apply.
        self.applied |= committed.generation.number == 0;
        if self.applied {
            return;
        }
        info!(from = %status.active, to = %committed.generation, "bringing the edge to the committed table");
        if let Err(error) = self.apply(&committed).await {
            warn!(%error, "the edge does not take the committed table");
        }
    }
}
