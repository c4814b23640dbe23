//! How much reserved space each kind of record must leave behind, so that a full disk strands nothing.
//!
//! The ledger keeps at least [`RESERVE_BYTES`] of its current segment allocated on disk ahead of its end. While that
//! can be topped up, everything is accepted. When the disk is full,
//!
//! - what begins something new (a deploy, another environment, a new app) is refused before anything is written;
//! - what goes back or makes room (rollback, activate, restart, stop, destroy, a one-off command) may use half of the reserve: this is the
//!   way out of a bad release that filled the disk;
//! - what finishes or undoes something that was accepted may use all of it.
//!
//! The largest records of a rollback (a commit with 100 routes) have about 20 KiB, the usual ones less than 1 KiB: half
//! the reserve holds dozens of rollbacks, the other half all that is open.

use refloat_model::{Action, Event};

/// Kept allocated ahead of the end.
pub const RESERVE_BYTES: u64 = 256 * 1024;
/// Allocated at a time while the disk has room.
pub const CHUNK_BYTES: u64 = 1024 * 1024;

/// Bytes that must stay reserved after this event's record.
#[must_use]
pub fn left_after(event: &Event) -> u64 {
    match event {
        Event::HostInitialised { .. }
        | Event::ClientPaired { .. }
        | Event::AppCreated { .. }
        | Event::ReleaseCreated { .. }
        | Event::EnvSealed { .. } => RESERVE_BYTES,
        Event::DeploymentAccepted { deployment, .. } => left_after_accepting(&deployment.action),
        // A command may be what makes room: the app's own clean-up.
        Event::OneOffBegan { .. } => RESERVE_BYTES / 2,
        Event::DeploymentResumed { .. }
        | Event::InstancePlanned { .. }
        | Event::InstanceRemoved { .. }
        | Event::HandoverBegan { .. }
        | Event::HandoverEnded { .. }
        | Event::RoutesCommitted { .. }
        | Event::DomainsSet { .. }
        | Event::DeploymentEnded { .. }
        | Event::AppDestroyed { .. }
        | Event::OneOffEnded { .. } => 0,
    }
}

fn left_after_accepting(action: &Action) -> u64 {
    match action {
        Action::Deploy(_) | Action::ChangeEnv { .. } | Action::SetDomains(_) => RESERVE_BYTES,
        Action::Rollback(_) | Action::Activate(_) | Action::Restart | Action::Stop | Action::Destroy { .. } => {
            RESERVE_BYTES / 2
        }
    }
}
