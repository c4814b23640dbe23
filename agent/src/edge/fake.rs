//! An edge in memory, for the driver's tests: a disk that survives its restart, and a switch to be away.
//!
//! `tests/edge_contract` holds it to the real edge, case by case.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use refloat_model::{
    AppName, AppRoutes, Generation, InstanceName, Route, RouteTable, RouteTarget, TableDigest, TreeDigest,
};
use tokio::time::Instant;

use super::{Edge, EdgeError, EdgeStatus, MAX_HOLD};

/// The edge. Clones are the same edge.
#[derive(Debug, Clone, Default)]
pub struct FakeEdge {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    /// On its disk; `None` before the first table.
    active: Option<RouteTable>,
    staged: Option<RouteTable>,
    away: bool,
    refuses: bool,
    /// Until when each app is held.
    held: HashMap<AppName, Instant>,
    in_flight: HashMap<InstanceName, u32>,
    lost_trees: HashSet<TreeDigest>,
    history: Vec<Generation>,
}

impl State {
    fn is_active(&self, generation: Generation, digest: TableDigest) -> bool {
        self.active.as_ref().is_some_and(|a| a.generation == generation && a.table_digest() == digest)
    }

    /// A tree that is not there refuses a table only over another one, and only where it is new.
    fn refuses_tree_of(&self, table: &RouteTable) -> Option<TreeDigest> {
        let active = self.active.as_ref()?;
        let routes = table.apps.iter().flat_map(|app| app.routes.iter().map(move |route| (app, route)));
        routes.filter(|(app, route)| !has(active, app, route)).find_map(|(_, route)| match &route.target {
            RouteTarget::Files { tree, .. } => self.lost_trees.contains(tree).then_some(*tree),
            RouteTarget::Instance { .. } => None,
        })
    }
}

/// Whether the same release of the app has the same route in this table.
fn has(table: &RouteTable, app: &AppRoutes, route: &Route) -> bool {
    table.app(&app.app).is_some_and(|known| known.release == app.release && known.routes.contains(route))
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

    /// Whether the files of a tree are there, as they are without being told.
    pub fn set_published(&self, tree: &TreeDigest, published: bool) {
        let mut state = self.state();
        if published {
            state.lost_trees.remove(tree)
        } else {
            state.lost_trees.insert(*tree)
        };
    }

    /// Whether the files of a tree are there.
    #[must_use]
    pub fn is_published(&self, tree: &TreeDigest) -> bool {
        !self.state().lost_trees.contains(tree)
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
        self.state().active.clone().unwrap_or_default()
    }

    /// Whether an app's requests are held.
    #[must_use]
    pub fn is_held(&self, app: &AppName) -> bool {
        self.state().held.get(app).is_some_and(|until| Instant::now() < *until)
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
        let active = state.active.as_ref();
        Ok(EdgeStatus {
            active: active.map(|table| table.generation).unwrap_or_default(),
            active_digest: active.map_or(TableDigest([0; 32]), RouteTable::table_digest),
            rss_bytes: 1 << 20,
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
        if state.is_active(table.generation, table.table_digest()) {
            return Ok(());
        }
        if state.active.as_ref().is_some_and(|active| table.generation <= active.generation) {
            return Err(EdgeError::Refused("not newer than the active table".to_owned()));
        }
        if let Some(tree) = state.refuses_tree_of(table) {
            return Err(EdgeError::Refused(format!("the tree {tree} is not there")));
        }
        state.staged = Some(table.clone());
        Ok(())
    }

    async fn apply(&self, generation: Generation, table: TableDigest) -> Result<(), EdgeError> {
        let mut state = self.reachable()?;
        if state.is_active(generation, table) {
            return Ok(());
        }
        match state.staged.take() {
            Some(staged) if staged.generation == generation && staged.table_digest() == table => {
                state.active = Some(staged);
                state.history.push(generation);
                Ok(())
            }
            other => {
                state.staged = other;
                Err(EdgeError::NotStaged)
            }
        }
    }

    async fn hold(&self, app: &AppName, deadline_ms: u32) -> Result<(), EdgeError> {
        let mut state = self.reachable()?;
        let deadline = Duration::from_millis(deadline_ms.into());
        if deadline.is_zero() || deadline > MAX_HOLD {
            return Err(EdgeError::Refused("no sensible deadline".to_owned()));
        }
        state.held.insert(app.clone(), Instant::now() + deadline);
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
