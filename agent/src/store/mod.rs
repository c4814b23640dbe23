//! The store: what the ledger adds up to, kept so that it can be read without reading the ledger.
//!
//! It is derived and never trusted. Missing, damaged, hanging, panicking or of another history, it is set aside and
//! built again from the ledger, and [`StoreReport`] says so. Being behind is normal after a crash (nothing here is
//! synced before a record is acknowledged): the missing records are folded in.
//!
//! ```text
//! store/live-7/      the sled database that is read from
//! store/broken-6/    one that was set aside, at most two are kept
//!
//! keeper ──jobs with a deadline──▶ worker thread ──▶ Store (typed records) ──▶ Shelf (keys and bytes): sled | memory
//! ```
//!
//! sled is opened first in a child process that can be killed: some truncated files make it loop for ever, and a
//! looping thread cannot be stopped. The child also checks every value, because sled does not notice flipped bytes.
//! At run time every call has a deadline; a thread that does not answer is left behind with its folder, and a new one
//! takes over in a new folder. When no sled can be had at all (a full disk), the records are kept in memory.
//!
//! Only [`sled_shelf`] names sled. There is no secret in the store.

mod changes;
mod folder;
#[cfg(test)]
mod hang_tests;
mod keeper;
mod key;
mod probe;
mod records;
mod shelf;
mod sled_shelf;
#[cfg(test)]
mod tests;
mod value;
mod worker;

pub use folder::live_folder;
pub use keeper::{Keeper, KeeperError, StoreOptions, StoreReport};
pub use probe::{ProbeWith, SUBCOMMAND, run as run_probe};
pub use records::{MemoryRecords, Store};

/// Why the store did not do it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// What is kept is not what was written.
    #[error("a record of the store is damaged: {0}")]
    Damaged(String),
    /// The database under it failed.
    #[error("the store's database failed: {0}")]
    Database(String),
    /// It did not answer in time, or its thread is gone.
    #[error("the store {0}")]
    Gone(String),
    /// The event does not fit the records. The store is sound.
    #[error("the event does not fit the records: {0}")]
    DoesNotFit(&'static str),
}
