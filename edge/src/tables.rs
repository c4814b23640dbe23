//! The staged and the active table: what may follow what.
//!
//! Stage: decode → rules → newer than the active one → open everything → keep in memory.
//! Apply: on disk → swap → acknowledge. A crash between the two serves the new table after the restart, which is right:
//! the agent committed it before it asked. All of it blocks on the disk; `control` calls it off the reactor.

use std::sync::{Arc, Mutex, PoisonError};

use refloat_model::{Canonical as _, CanonicalError, Generation, RouteTable, TableDigest, TableError};

use crate::router::{MissingTree, Prepared};
use crate::shared::Shared;
use crate::site::SiteError;
use crate::table_store::{StoreError, TableStore};

/// Why a table was not staged.
#[derive(Debug, thiserror::Error)]
pub enum StageError {
    /// Not a table.
    #[error("this is not a route table")]
    Decode(#[source] CanonicalError),
    /// It breaks a rule.
    #[error("the route table breaks a rule")]
    Rule(#[source] TableError),
    /// A tree that a route newly leads to is not there.
    #[error("a published site cannot be opened")]
    Site(#[source] SiteError),
    /// It does not come after the active one.
    #[error("generation {given} is not newer than {active}, which is active")]
    NotNewer {
        /// Its generation.
        given: Generation,
        /// The active one.
        active: Generation,
    },
}

/// Why a table was not applied.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// Another table, or none, is staged.
    #[error("generation {asked} with that digest is not staged")]
    NotStaged {
        /// Which was asked for.
        asked: Generation,
    },
    /// It cannot be kept.
    #[error("the route table could not be saved; the one before it still serves")]
    Store(#[source] StoreError),
}

/// The version of a table.
pub type Version = (Generation, TableDigest);

#[derive(Debug, Clone)]
struct Staged {
    table: Arc<RouteTable>,
    prepared: Arc<Prepared>,
    version: Version,
}

/// Both tables.
#[derive(Debug)]
pub struct Tables {
    shared: Arc<Shared>,
    store: TableStore,
    staged: Mutex<Option<Staged>>,
    applying: Mutex<()>,
}

impl Tables {
    /// Starts with what the router serves.
    #[must_use]
    pub fn new(shared: Arc<Shared>, store: TableStore) -> Self {
        Self { shared, store, staged: Mutex::default(), applying: Mutex::default() }
    }

    /// The active version; `None` before the first table.
    #[must_use]
    pub fn active(&self) -> Option<Version> {
        let active = self.shared.router.active();
        active.digest.map(|digest| (active.generation, digest))
    }

    /// The staged version.
    #[must_use]
    pub fn staged(&self) -> Option<Version> {
        self.staged.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(|staged| staged.version)
    }

    /// Checks a table, opens what it names and keeps it. A site that cannot be opened refuses the table only where it is
    /// new to its app. Staging the active table again succeeds and changes nothing.
    ///
    /// # Errors
    /// Why it cannot become the active one.
    pub fn stage(&self, bytes: &[u8]) -> Result<Version, StageError> {
        let table = RouteTable::from_canonical(bytes).map_err(StageError::Decode)?;
        table.validate().map_err(StageError::Rule)?;
        let version = (table.generation, table.table_digest());
        if let Some(active) = self.active() {
            if active == version {
                return Ok(version);
            }
            if version.0 <= active.0 {
                return Err(StageError::NotNewer { given: version.0, active: active.0 });
            }
        }
        let shared = &self.shared;
        let active = shared.router.active();
        // Where nothing serves, refusing one site would keep all the others away too.
        let missing = if active.digest.is_some() { MissingTree::RefuseNew(&active) } else { MissingTree::Serve503 };
        let prepared = Prepared::new(&table, &shared.upstreams, &shared.trees, missing);
        let prepared = Arc::new(prepared.map_err(StageError::Site)?);
        let staged = Staged { table: Arc::new(table), prepared, version };
        self.staged.lock().unwrap_or_else(PoisonError::into_inner).replace(staged);
        Ok(version)
    }

    /// Makes the staged table the active one; gives the instances that nothing is routed to any more.
    ///
    /// # Errors
    /// When it is not staged, or not certain to be on disk.
    pub fn apply(&self, version: Version) -> Result<Vec<String>, ApplyError> {
        let _one_at_a_time = self.applying.lock().unwrap_or_else(PoisonError::into_inner);
        if self.active() == Some(version) {
            return Ok(Vec::new());
        }
        let staged = self.staged.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let staged = staged.filter(|s| s.version == version && self.active().is_none_or(|a| a.0 < version.0));
        let staged = staged.ok_or(ApplyError::NotStaged { asked: version.0 })?;
        self.store.save(&staged.table).map_err(ApplyError::Store)?;
        let before = self.shared.router.swap(staged.prepared.clone());
        let mut kept = self.staged.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.as_ref().is_some_and(|s| s.version == version) {
            *kept = None;
        }
        tracing::info!(generation = %version.0, "the table is active");
        Ok(before.displaced_by(&staged.prepared))
    }
}
