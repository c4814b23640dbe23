//! The port to planning, and the planner of sources behind it.

use refloat_plan::plan::Plan;
use refloat_plan::{PlanError, Request, plan};

use super::error::BuildError;
use crate::cas::{Cas, StoredTree, TreeSource};

/// Makes a plan of a stored tree. Blocks on the disk; deterministic.
pub trait Planner: Send + Sync + 'static {
    /// Plans.
    ///
    /// # Errors
    /// When there is no plan, in words for the user.
    fn plan(&self, cas: &Cas, tree: &StoredTree, folder: &str, prebuilt: bool) -> Result<Plan, BuildError>;
}

/// The planner that the client has too.
#[derive(Debug, Clone, Copy, Default)]
pub struct SourcePlanner;

impl Planner for SourcePlanner {
    fn plan(&self, cas: &Cas, tree: &StoredTree, folder: &str, prebuilt: bool) -> Result<Plan, BuildError> {
        let request = Request { folder_name: folder.to_owned(), prebuilt };
        plan(&TreeSource::new(cas, tree), &request).map_err(told)
    }
}

fn told(error: PlanError) -> BuildError {
    let PlanError { message, next, looked_for, .. } = error;
    BuildError::NotPlanned { message: format!("{message} {next}").trim_end().to_owned(), lines: looked_for }
}
