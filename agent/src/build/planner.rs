//! The port to planning: from a stored tree to a plan.

use refloat_plan::plan::Plan;

use super::error::BuildError;
use crate::cas::{Cas, StoredTree};

/// Makes a plan of a stored tree. Blocks on the disk; deterministic.
pub trait Planner: Send + Sync + 'static {
    /// Plans.
    ///
    /// # Errors
    /// When there is no plan, in words for the user.
    fn plan(&self, cas: &Cas, tree: &StoredTree, folder: &str, prebuilt: bool) -> Result<Plan, BuildError>;
}
