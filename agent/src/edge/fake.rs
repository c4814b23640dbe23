//! An edge in memory, for the driver's tests: the same rules, a disk that survives its restart, and a switch to be away.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use refloat_model::{AppName, Generation, InstanceName, RouteTable, TableDigest};

use super::{Edge, EdgeError, EdgeStatus};

/// The edge. Clones are the same edge.
#[derive(Debug, Clone, Default)]
pub struct FakeEdge {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    active: RouteTable,
    staged: Option<RouteTable>,
    away: bool,
    refuses: bool,
    held: HashSet<AppName>,
    in_flight: HashMap<InstanceName, u32>,
    history: Vec<Generation>,
}

impl FakeEdge {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it answers.
    pub fn set_away(&self, away: bool) {
        self.state().away = away;
    }

    /// Whether it refuses every table.
    pub fn set_refuses(&self, refuses: bool) {
        self.state().refuses = refuses;
    }

    /// It forgets what is only in memory.
    pub fn restart(&self) {
        let mut state = self.state();
        state.staged = None;
        state.held.clear();
        state.in_flight.clear();
    }

    /// Requests that are in flight to an instance.
    pub fn set_in_flight(&self, instance: &InstanceName, requests: u32) {
        self.state().in_flight.insert(instance.clone(), requests);
    }

    /// What it serves.
    #[must_use]
    pub fn active(&self) -> RouteTable {
        self.state().active.clone()
    }

    /// Whether an app's requests are held.
    #[must_use]
    pub fn is_held(&self, app: &AppName) -> bool {
        self.state().held.contains(app)
    }

    /// Every generation that was ever active, in order.
    #[must_use]
    pub fn history(&self) -> Vec<Generation> {
        self.state().history.clone()
    }

    fn reachable(&self) -> Result<MutexGuard<'_, State>, EdgeError> {
        let state = self.state();
        if state.away { Err(EdgeError::Unreachable("it is away".to_owned())) } else { Ok(state) }
    }
}

#[async_trait]
impl Edge for FakeEdge {
    async fn status(&self) -> Result<EdgeStatus, EdgeError> {
        let state = self.reachable()?;
        Ok(EdgeStatus {
            active: state.active.generation,
            active_digest: state.active.table_digest(),
            rss_bytes: 0,
            version: "fake".to_owned(),
            listen: vec!["127.0.0.1:80".to_owned()],
        })
    }

    async fn stage(&self, table: &RouteTable) -> Result<(), EdgeError> {
        let mut state = self.reachable()?;
        if state.refuses {
            return Err(EdgeError::Refused("told to".to_owned()));
        }
        table.validate().map_err(|e| EdgeError::Refused(e.to_string()))?;
        if table.generation <= state.active.generation && *table != state.active {
            return Err(EdgeError::Refused("not newer than the active table".to_owned()));
        }
        state.staged = Some(table.clone());
        Ok(())
    }

    async fn apply(&self, generation: Generation, table: TableDigest) -> Result<(), EdgeError> {
        let mut state = self.reachable()?;
        if state.active.generation == generation && state.active.table_digest() == table {
            return Ok(());
        }
        match state.staged.take() {
            Some(staged) if staged.generation == generation && staged.table_digest() == table => {
                state.active = staged;
                state.history.push(generation);
                Ok(())
            }
            other => {
                state.staged = other;
                Err(EdgeError::NotStaged)
            }
        }
    }

    async fn hold(&self, app: &AppName, _deadline_ms: u32) -> Result<(), EdgeError> {
        self.reachable()?.held.insert(app.clone());
        Ok(())
    }

    async fn release(&self, app: &AppName) -> Result<(), EdgeError> {
        self.reachable()?.held.remove(app);
        Ok(())
    }

    async fn in_flight(&self, instances: &[InstanceName]) -> Result<Vec<u32>, EdgeError> {
        let state = self.reachable()?;
        Ok(instances.iter().map(|i| state.in_flight.get(i).copied().unwrap_or(0)).collect())
    }
}
