//! A shelf in sled: the one file that names it.
//!
//! Nothing here is trusted to be durable or right; see the module above.

use std::path::Path;

use super::StoreError;
use super::shelf::{Change, Order, Pair, Shelf, Visit};

/// sled's page cache. It does not keep to it exactly; the whole agent is to stay small while idle.
const CACHE_BYTES: u64 = 8 * 1024 * 1024;
/// How often sled writes back by itself. Nothing waits for it: a crash costs a few records to fold in again.
const FLUSH_EVERY_MS: u64 = 1_000;

/// A shelf in sled.
pub(super) struct SledShelf(sled::Db);

impl SledShelf {
    /// Opens or creates the database in a folder. May loop for ever or panic when its files are damaged.
    ///
    /// Snapshots are removed first: they only shorten recovery by milliseconds, and a half-written one, or one beside
    /// a shorter log, is what keeps sled from opening at all.
    pub(super) fn open(folder: &Path) -> Result<Self, StoreError> {
        remove_snapshots(folder).map_err(|error| StoreError::Database(error.to_string()))?;
        Self::open_as_it_is(folder)
    }

    /// Opens the database as sled does by itself.
    pub(super) fn open_as_it_is(folder: &Path) -> Result<Self, StoreError> {
        let config = sled::Config::new().path(folder).cache_capacity(CACHE_BYTES).flush_every_ms(Some(FLUSH_EVERY_MS));
        config.open().map(Self).map_err(failed)
    }

    /// How many records sled counts; it does not stop at what it cannot read.
    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.0.len()
    }
}

fn remove_snapshots(folder: &Path) -> std::io::Result<()> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_name().as_encoded_bytes().starts_with(b"snap.") {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

fn failed(error: sled::Error) -> StoreError {
    StoreError::Database(error.to_string())
}

fn pair(found: sled::Result<(sled::IVec, sled::IVec)>) -> Result<Pair, StoreError> {
    found.map(|(key, value)| (key.to_vec(), value.to_vec())).map_err(failed)
}

impl Shelf for SledShelf {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.0.get(key).map(|found| found.map(|value| value.to_vec())).map_err(failed)
    }

    fn range(&self, prefix: &[u8], order: Order, limit: usize) -> Result<Vec<Pair>, StoreError> {
        let found = self.0.scan_prefix(prefix);
        match order {
            Order::Ascending => found.take(limit).map(pair).collect(),
            Order::Descending => found.rev().take(limit).map(pair).collect(),
        }
    }

    fn each(&self, visit: &mut Visit<'_>) -> Result<(), StoreError> {
        for found in self.0.iter() {
            let (key, value) = found.map_err(failed)?;
            visit(&key, &value)?;
        }
        Ok(())
    }

    fn write(&mut self, changes: Vec<Change>) -> Result<(), StoreError> {
        let mut batch = sled::Batch::default();
        for (key, value) in changes {
            match value {
                Some(value) => batch.insert(key, value),
                None => batch.remove(key),
            }
        }
        self.0.apply_batch(batch).map_err(failed)
    }
}
