//! The edge as the agent sees it: decisions go down, facts come up.
//!
//! Owns the port [`Edge`] and its client over the Unix socket. Deliberately absent: any byte of app traffic.

#[cfg(any(test, feature = "testing"))]
pub mod fake;

pub mod client;
pub mod spawn;

use std::time::Duration;

use async_trait::async_trait;
use refloat_model::{AppName, Generation, InstanceName, RouteTable, TableDigest};

/// The longest hold that the edge accepts.
pub const MAX_HOLD: Duration = Duration::from_secs(600);

/// The edge. Every call is idempotent.
#[async_trait]
pub trait Edge: Send + Sync + 'static {
    /// What is active and staged.
    async fn status(&self) -> Result<EdgeStatus, EdgeError>;
    /// Validates a table and keeps it beside the active one, instead of one staged before. Staging what is active
    /// changes nothing.
    async fn stage(&self, table: &RouteTable) -> Result<(), EdgeError>;
    /// Swaps to the staged table. Applying what is active succeeds.
    async fn apply(&self, generation: Generation, table: TableDigest) -> Result<(), EdgeError>;
    /// Holds new requests of an app, at most for `deadline_ms`: from 1 to [`MAX_HOLD`]. Again, it moves the deadline.
    async fn hold(&self, app: &AppName, deadline_ms: u32) -> Result<(), EdgeError>;
    /// Lets held requests go on.
    async fn release(&self, app: &AppName) -> Result<(), EdgeError>;
    /// Requests in flight to each instance, in the order asked.
    async fn in_flight(&self, instances: &[InstanceName]) -> Result<Vec<u32>, EdgeError>;
}

/// What the edge says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EdgeStatus {
    /// The active table; the default before the first one.
    pub active: Generation,
    /// Its digest; zeros before the first one.
    pub active_digest: TableDigest,
    /// Its memory in bytes.
    pub rss_bytes: u64,
    /// Its version.
    pub version: String,
    /// Addresses that carry public traffic.
    pub listen: Vec<String>,
}

/// Why the edge did not do it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EdgeError {
    /// It does not answer; it may have done it.
    #[error("the edge cannot be reached: {0}")]
    Unreachable(String),
    /// It refused what it was given, and would again.
    #[error("the edge refused it: {0}")]
    Refused(String),
    /// The table is not staged (the edge was restarted in between).
    #[error("the edge does not have that table")]
    NotStaged,
}
