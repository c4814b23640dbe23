//! What every connection and the control service share.

use std::sync::atomic::AtomicU64;

use crate::access_log::AccessLog;
use crate::limits::Timeouts;
use crate::router::Router;
use crate::site::Trees;
use crate::upstream::Upstreams;

/// One edge.
#[derive(Debug)]
pub struct Shared {
    /// The active table.
    pub router: Router,
    /// Instances and their connections.
    pub upstreams: Upstreams,
    /// Opened trees.
    pub trees: Trees,
    /// The access log.
    pub log: AccessLog,
    /// How long things may take.
    pub timeouts: Timeouts,
    /// Requests since the start.
    pub requests_total: AtomicU64,
}
