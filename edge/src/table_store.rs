//! The last route table on disk, so that the edge serves after a restart without the agent.
//!
//! ```text
//! STATE/table            the active table
//! STATE/table.previous   the one before it
//! STATE/table.new        being written; a leftover of it is never read
//! STATE/lock             held by the running edge
//! ```
//!
//! A record is `"RFLT" [schema byte] [32 bytes digest of the table] [canonical table]`. A program that does not know the
//! schema byte refuses the record, keeps the file and falls back like for a damaged one; an old program that writes again
//! replaces `table` by a record of its own schema and leaves the newer one as `table.previous`.
//!
//! A table is on disk before it is active: write `table.new`, sync, link `table` to `table.previous`, rename over
//! `table`, sync the folder. At every moment `table` is a whole record.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use refloat_model::route::MAX_TABLE_BYTES;
use refloat_model::{Canonical as _, CanonicalError, RouteTable, TableDigest, TableError};

const MAGIC: &[u8; 4] = b"RFLT";
const SCHEMA: u8 = 1;
const HEADER_BYTES: usize = 4 + 1 + 32;

/// Why a table could not be kept or read.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The operating system said no.
    #[error("{path} cannot be {verb}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// What was tried.
        verb: &'static str,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Another edge uses the folder.
    #[error("{path} is used by another refloat-edge that is running")]
    InUse {
        /// Which folder.
        path: PathBuf,
    },
    /// Not a record, or one of another schema.
    #[error("{path} is not a route table that this version can read")]
    Format {
        /// Which file.
        path: PathBuf,
    },
    /// A record whose digest does not fit.
    #[error("{path} is damaged")]
    Damaged {
        /// Which file.
        path: PathBuf,
    },
    /// A record that holds no table.
    #[error("{path} holds no route table")]
    Decode {
        /// Which file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: CanonicalError,
    },
    /// A table that breaks a rule.
    #[error("{path} holds a route table that breaks a rule")]
    Rule {
        /// Which file.
        path: PathBuf,
        /// Which rule.
        #[source]
        source: TableError,
    },
}

/// What was found at the start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Restored {
    /// Nothing: a new edge.
    Fresh,
    /// The last table.
    Last(RouteTable),
    /// The one before it, because the last is unreadable.
    Previous(RouteTable),
    /// There was one, but none can be read.
    Lost,
}

/// The folder.
#[derive(Debug)]
pub struct TableStore {
    folder: PathBuf,
    _lock: File,
}

impl TableStore {
    /// Opens the folder, makes it when it is not there, and keeps every other edge out of it.
    ///
    /// # Errors
    /// When it cannot be used.
    pub fn open(folder: &Path) -> Result<Self, StoreError> {
        fs::create_dir_all(folder).map_err(io_error(folder, "created"))?;
        let path = folder.join("lock");
        let mut options = OpenOptions::new();
        let lock = options.create(true).truncate(false).write(true).mode(0o600).open(&path);
        let lock = lock.map_err(io_error(&path, "opened"))?;
        rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive)
            .map_err(|_| StoreError::InUse { path: folder.to_owned() })?;
        Ok(Self { folder: folder.to_owned(), _lock: lock })
    }

    /// Reads the last table, or the one before it. What cannot be read is logged and kept for a look.
    #[must_use]
    pub fn restore(&self) -> Restored {
        let (last, previous) = (self.read("table"), self.read("table.previous"));
        match (last, previous) {
            (Ok(Some(table)), _) => Restored::Last(table),
            (Ok(None), Ok(None)) if !self.has_unreadable() => Restored::Fresh,
            (last, previous) => {
                self.report("table", &last);
                self.report("table.previous", &previous);
                match previous {
                    Ok(Some(table)) => {
                        tracing::error!(generation = %table.generation, "serving the table before the last one");
                        Restored::Previous(table)
                    }
                    _ => {
                        tracing::error!(
                            "no route table can be read: every request is answered 503 until the agent sends one"
                        );
                        Restored::Lost
                    }
                }
            }
        }
    }

    fn has_unreadable(&self) -> bool {
        ["table.unreadable", "table.previous.unreadable"].iter().any(|name| self.folder.join(name).exists())
    }

    /// Sets a damaged record aside, so that it is neither lost nor taken for the one before the next.
    fn report(&self, name: &str, read: &Result<Option<RouteTable>, StoreError>) {
        match read {
            Ok(Some(_)) => {}
            Ok(None) => tracing::error!(name, "a route table is missing"),
            Err(error) => {
                tracing::error!(name, error = error as &dyn std::error::Error, "a route table cannot be read");
                let _ = fs::rename(self.folder.join(name), self.folder.join(format!("{name}.unreadable")));
            }
        }
    }

    fn read(&self, name: &str) -> Result<Option<RouteTable>, StoreError> {
        let path = self.folder.join(name);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(io_error(&path, "opened")(error)),
        };
        let mut bytes = Vec::new();
        file.take(MAX_TABLE_BYTES as u64 + HEADER_BYTES as u64)
            .read_to_end(&mut bytes)
            .map_err(io_error(&path, "read"))?;
        decode(&bytes, &path).map(Some)
    }

    /// Keeps a table. When this returns it survives a power cut. Blocking.
    ///
    /// # Errors
    /// When it is not certain to be on disk; the table before it is then still there.
    pub fn save(&self, table: &RouteTable) -> Result<(), StoreError> {
        let (new, current) = (self.folder.join("table.new"), self.folder.join("table"));
        self.write(&new, &encode(table))?;
        self.keep_previous(&current)?;
        fs::rename(&new, &current).map_err(io_error(&current, "replaced"))?;
        let folder = File::open(&self.folder).map_err(io_error(&self.folder, "opened"))?;
        folder.sync_all().map_err(io_error(&self.folder, "synced"))
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
        let mut options = OpenOptions::new();
        let file = options.create(true).truncate(true).write(true).mode(0o600).open(path);
        let mut file = file.map_err(io_error(path, "opened"))?;
        file.write_all(bytes).map_err(io_error(path, "written"))?;
        file.sync_all().map_err(io_error(path, "synced"))
    }

    /// Links and renames, so that `table` is there at every moment.
    fn keep_previous(&self, current: &Path) -> Result<(), StoreError> {
        let (link, previous) = (self.folder.join("table.link"), self.folder.join("table.previous"));
        let _ = fs::remove_file(&link);
        match fs::hard_link(current, &link) {
            Ok(()) => fs::rename(&link, &previous).map_err(io_error(&previous, "replaced")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(io_error(&link, "created")(error)),
        }
    }
}

fn io_error(path: &Path, verb: &'static str) -> impl FnOnce(io::Error) -> StoreError {
    move |source| StoreError::Io { path: path.to_owned(), verb, source }
}

fn encode(table: &RouteTable) -> Vec<u8> {
    let mut bytes = Vec::from(MAGIC);
    bytes.push(SCHEMA);
    bytes.extend_from_slice(&table.table_digest().0);
    bytes.extend_from_slice(&table.to_canonical());
    bytes
}

fn decode(bytes: &[u8], path: &Path) -> Result<RouteTable, StoreError> {
    let path = || path.to_owned();
    let body = bytes.strip_prefix(MAGIC).and_then(|rest| rest.strip_prefix(&[SCHEMA]));
    let (digest, body) =
        body.and_then(|rest| rest.split_at_checked(32)).ok_or_else(|| StoreError::Format { path: path() })?;
    let kept = refloat_model::canonical::domain_digest(RouteTable::DOMAIN, body);
    if TableDigest::from_slice(digest) != Some(TableDigest(kept)) {
        return Err(StoreError::Damaged { path: path() });
    }
    let table = RouteTable::from_canonical(body).map_err(|source| StoreError::Decode { path: path(), source })?;
    table.validate().map_err(|source| StoreError::Rule { path: path(), source })?;
    Ok(table)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(number: u64) -> RouteTable {
        let mut table = RouteTable::default();
        table.generation.number = number;
        table
    }

    #[test]
    fn a_saved_table_is_restored() {
        let folder = tempfile::tempdir().unwrap();
        let store = TableStore::open(folder.path()).unwrap();
        assert_eq!(store.restore(), Restored::Fresh);
        store.save(&table(1)).unwrap();
        store.save(&table(2)).unwrap();
        assert_eq!(store.restore(), Restored::Last(table(2)));
    }

    #[test]
    fn every_damage_of_the_last_table_falls_back_to_the_one_before() {
        let folder = tempfile::tempdir().unwrap();
        let store = TableStore::open(folder.path()).unwrap();
        store.save(&table(1)).unwrap();
        store.save(&table(2)).unwrap();
        let path = folder.path().join("table");
        let whole = fs::read(&path).unwrap();
        let cut = (0..whole.len()).map(|n| whole[..n].to_vec());
        let flipped = (0..whole.len()).map(|i| {
            let mut bytes = whole.clone();
            bytes[i] ^= 1;
            bytes
        });
        for bytes in cut.chain(flipped) {
            fs::write(&path, &bytes).unwrap();
            assert_eq!(store.restore(), Restored::Previous(table(1)));
            assert_eq!(fs::read(folder.path().join("table.unreadable")).unwrap(), bytes);
        }
    }

    #[test]
    fn no_readable_table_is_not_the_same_as_no_table() {
        let folder = tempfile::tempdir().unwrap();
        let store = TableStore::open(folder.path()).unwrap();
        store.save(&table(1)).unwrap();
        fs::write(folder.path().join("table"), b"").unwrap();
        assert_eq!(store.restore(), Restored::Lost);
        assert_eq!(store.restore(), Restored::Lost, "also at the start after that");
        store.save(&table(2)).unwrap();
        assert_eq!(store.restore(), Restored::Last(table(2)));
    }

    #[test]
    fn two_edges_never_share_a_folder() {
        let folder = tempfile::tempdir().unwrap();
        let first = TableStore::open(folder.path()).unwrap();
        assert!(matches!(TableStore::open(folder.path()), Err(StoreError::InUse { .. })));
        drop(first);
        assert!(TableStore::open(folder.path()).is_ok());
    }
}
