//! The journal: the one writer of the ledger and the one door to what the ledger adds up to.
//!
//! `append` is the durability point of the whole agent: when it answers, the record is synced in the ledger and folded
//! into the store. Reads come from the store. Only this module holds both; everything else holds a [`Journal`].

mod file;
#[cfg(any(test, feature = "testing"))]
mod memory;
#[cfg(any(test, feature = "testing"))]
pub mod sample;
#[cfg(test)]
mod tests;

use async_trait::async_trait;
use refloat_model::{
    AppName, AppState, DeploymentId, DeploymentRecord, EnvId, EnvRecord, Event, HostState, OneOffId, OneOffRecord,
    Principal, ReleaseNumber, ReleaseRecord,
};

pub use file::{FileJournal, JournalOptions, JournalReport, OpenError};
#[cfg(any(test, feature = "testing"))]
pub use memory::{Fault, MemoryDisk, MemoryJournal};

/// Appends facts, reads what they add up to.
#[async_trait]
pub trait Journal: Send + Sync + 'static {
    /// Makes a fact durable: in the ledger and synced when this answers.
    async fn append(&self, by: &Principal, event: Event) -> Result<(), JournalError>;

    /// The host's record.
    async fn host(&self) -> Result<HostState, JournalError>;
    /// One app's record.
    async fn app(&self, app: &AppName) -> Result<Option<AppState>, JournalError>;
    /// Every app's record, by name.
    async fn apps(&self) -> Result<Vec<AppState>, JournalError>;
    /// One release's record.
    async fn release(&self, app: &AppName, number: ReleaseNumber) -> Result<Option<ReleaseRecord>, JournalError>;
    /// An app's releases, newest first, at most `limit`.
    async fn releases(&self, app: &AppName, limit: usize) -> Result<Vec<ReleaseRecord>, JournalError>;
    /// One deployment's record.
    async fn deployment(&self, id: &DeploymentId) -> Result<Option<DeploymentRecord>, JournalError>;
    /// An environment's record.
    async fn env(&self, app: &AppName, env: &EnvId) -> Result<Option<EnvRecord>, JournalError>;
    /// Every environment that the app has had, those of no release too.
    async fn envs(&self, app: &AppName) -> Result<Vec<EnvRecord>, JournalError>;
    /// One command's record.
    async fn one_off(&self, app: &AppName, id: OneOffId) -> Result<Option<OneOffRecord>, JournalError>;
}

/// Why the journal did not do it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JournalError {
    /// A write or sync failed earlier. Nothing is accepted any more until the agent is restarted: what a failed sync
    /// left behind is unknown.
    #[error("the ledger no longer accepts records: {0}")]
    Closed(String),
    /// This write or sync failed. The record may be there or not; it was not acknowledged.
    #[error("the record could not be made durable: {0}")]
    NotDurable(String),
    /// There is no room for the record. Nothing was written, and the ledger stays open: what finishes a running
    /// deployment still fits.
    #[error("there is no room for the record: {0}")]
    NoRoom(String),
    /// The event cannot be recorded, or does not fit what is there. Nothing was written. A mistake in this program.
    #[error("the record was refused: {0}")]
    Refused(String),
    /// The store did not answer, and could not be rebuilt.
    #[error("the store cannot be read: {0}")]
    Store(String),
}
