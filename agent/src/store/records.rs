//! Typed records on a shelf: read one by one, changed by folding entries, written together with the ledger position
//! that they belong to.

use refloat_model::{
    AppName, AppState, DeploymentId, DeploymentRecord, Entry, EnvId, EnvRecord, FoldError, HostState, OneOffId,
    OneOffRecord, ReleaseNumber, ReleaseRecord, state,
};

use super::StoreError;
use super::changes::{Changes, Overlay};
use super::shelf::{MemoryShelf, Order, Shelf};
use super::{key, value};
use crate::ledger::Position;

/// Version of what is kept here. Another one is not read: the store is built again from the ledger.
const SCHEMA: u32 = 3;
/// Most apps, releases or deployments that one call answers with.
const MAX_ANSWER: usize = 100_000;

/// The store's own record.
#[derive(Debug, Clone, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
struct Meta {
    #[n(0)]
    schema: u32,
    /// Up to where the ledger is folded in.
    #[n(1)]
    position: Position,
    /// How many records there are, this one not counted: sled may lose one and not say so.
    #[n(2)]
    count: u64,
    /// Sum over all records, this one not counted.
    #[n(3)]
    sum: u64,
}

impl Meta {
    const EMPTY: Self = Self { schema: SCHEMA, position: Position::GENESIS, count: 0, sum: 0 };
}

/// What the ledger adds up to.
pub struct Store {
    shelf: Box<dyn Shelf>,
    /// Folded and not yet written: waits for its record to be durable.
    prepared: Option<Changes>,
}

/// A store in memory, for tests and for a disk on which none can be kept.
pub struct MemoryRecords;

impl MemoryRecords {
    /// An empty one.
    #[must_use]
    pub fn empty() -> Store {
        Store::on(Box::new(MemoryShelf::default()))
    }
}

impl Store {
    /// The records on a shelf.
    pub(super) fn on(shelf: Box<dyn Shelf>) -> Self {
        Self { shelf, prepared: None }
    }

    /// What is under the records.
    #[cfg(test)]
    pub(super) fn shelf(&self) -> &dyn Shelf {
        self.shelf.as_ref()
    }

    /// What is under the records, to be damaged.
    #[cfg(test)]
    pub(super) fn shelf_mut(&mut self) -> &mut dyn Shelf {
        self.shelf.as_mut()
    }

    /// Up to where the ledger is folded in.
    ///
    /// # Errors
    /// When the shelf fails or holds another schema.
    pub fn position(&self) -> Result<Position, StoreError> {
        Ok(self.meta()?.position)
    }

    /// The host's record.
    ///
    /// # Errors
    /// When the shelf fails or the record is damaged.
    pub fn host(&self) -> Result<HostState, StoreError> {
        Ok(self.read(key::HOST)?.unwrap_or_default())
    }

    /// One app's record.
    ///
    /// # Errors
    /// When the shelf fails or the record is damaged.
    pub fn app(&self, app: &AppName) -> Result<Option<AppState>, StoreError> {
        self.read(&key::app(app))
    }

    /// Every app's record, by name.
    ///
    /// # Errors
    /// When the shelf fails or a record is damaged.
    pub fn apps(&self) -> Result<Vec<AppState>, StoreError> {
        self.read_range(key::APPS, Order::Ascending, MAX_ANSWER)
    }

    /// One release's record.
    ///
    /// # Errors
    /// When the shelf fails or the record is damaged.
    pub fn release(&self, app: &AppName, number: ReleaseNumber) -> Result<Option<ReleaseRecord>, StoreError> {
        self.read(&key::release(app, number))
    }

    /// An app's releases, newest first.
    ///
    /// # Errors
    /// When the shelf fails or a record is damaged.
    pub fn releases(&self, app: &AppName, limit: usize) -> Result<Vec<ReleaseRecord>, StoreError> {
        self.read_range(&key::releases(app), Order::Descending, limit.min(MAX_ANSWER))
    }

    /// One deployment's record.
    ///
    /// # Errors
    /// When the shelf fails or the record is damaged.
    pub fn deployment(&self, id: &DeploymentId) -> Result<Option<DeploymentRecord>, StoreError> {
        self.read(&key::deployment(id))
    }

    /// One environment's record.
    ///
    /// # Errors
    /// When the shelf fails or the record is damaged.
    pub fn env(&self, app: &AppName, env: &EnvId) -> Result<Option<EnvRecord>, StoreError> {
        self.read(&key::env(app, env))
    }

    /// Every environment of an app.
    ///
    /// # Errors
    /// When the shelf fails or a record is damaged.
    pub fn envs(&self, app: &AppName) -> Result<Vec<EnvRecord>, StoreError> {
        self.read_range(&key::envs(app), Order::Ascending, MAX_ANSWER)
    }

    /// One command's record.
    ///
    /// # Errors
    /// When the shelf fails or the record is damaged.
    pub fn one_off(&self, app: &AppName, id: OneOffId) -> Result<Option<OneOffRecord>, StoreError> {
        self.read(&key::one_off(app, id))
    }

    /// Folds entries without writing anything; what was prepared before is dropped.
    ///
    /// # Errors
    /// When an entry does not fit or a record cannot be read.
    pub fn prepare(&mut self, entries: &[Entry]) -> Result<(), StoreError> {
        self.prepared = None;
        let mut changes = Changes::default();
        for entry in entries {
            let mut overlay = Overlay { under: self, changes: &mut changes };
            state::apply(&mut overlay, entry).map_err(|error| match error {
                FoldError::Read(error) => error,
                FoldError::DoesNotFit(why) => StoreError::DoesNotFit(why),
            })?;
        }
        self.prepared = Some(changes);
        Ok(())
    }

    /// Writes what was prepared, and the position that it brings the store to, all at once.
    ///
    /// # Errors
    /// When the shelf fails.
    pub fn commit(&mut self, position: Position) -> Result<(), StoreError> {
        let mut changes = self.prepared.take().unwrap_or_default().encode();
        let mut meta = Meta { position, ..self.meta()? };
        for (key, new) in &changes {
            if let Some(old) = self.shelf.get(key)? {
                meta.count = meta.count.wrapping_sub(1);
                meta.sum = meta.sum.wrapping_sub(value::weight(key, &old));
            }
            if let Some(new) = new {
                meta.count = meta.count.wrapping_add(1);
                meta.sum = meta.sum.wrapping_add(value::weight(key, new));
            }
        }
        changes.push((key::META.to_vec(), Some(value::encode(key::META, &meta))));
        self.shelf.write(changes)
    }

    /// Reads and checks every record.
    ///
    /// # Errors
    /// When one is damaged, missing or too many.
    pub fn examine(&self) -> Result<Position, StoreError> {
        let meta = self.meta()?;
        let (mut count, mut sum) = (0_u64, 0_u64);
        self.shelf.each(&mut |key, bytes| {
            if key == key::META {
                return Ok(());
            }
            count += 1;
            sum = sum.wrapping_add(value::weight(key, bytes));
            decodes(key, bytes)
        })?;
        if (count, sum) == (meta.count, meta.sum) {
            Ok(meta.position)
        } else {
            Err(StoreError::Damaged(format!("it holds {count} records instead of {} or other ones", meta.count)))
        }
    }

    pub(super) fn release_numbers(&self, app: &AppName) -> Result<Vec<ReleaseNumber>, StoreError> {
        let numbers = self.suffixes::<4>(&key::releases(app))?;
        Ok(numbers.into_iter().map(|bytes| ReleaseNumber(u32::from_be_bytes(bytes))).collect())
    }

    pub(super) fn deployment_ids(&self, app: &AppName) -> Result<Vec<DeploymentId>, StoreError> {
        Ok(self.suffixes(&key::deployments_of(app))?.into_iter().map(DeploymentId).collect())
    }

    pub(super) fn env_ids(&self, app: &AppName) -> Result<Vec<EnvId>, StoreError> {
        Ok(self.suffixes(&key::envs(app))?.into_iter().map(EnvId).collect())
    }

    pub(super) fn one_off_ids(&self, app: &AppName) -> Result<Vec<OneOffId>, StoreError> {
        Ok(self.suffixes(&key::one_offs(app))?.into_iter().map(OneOffId).collect())
    }

    fn meta(&self) -> Result<Meta, StoreError> {
        let Some(meta) = self.read::<Meta>(key::META)? else { return Ok(Meta::EMPTY) };
        if meta.schema == SCHEMA {
            Ok(meta)
        } else {
            Err(StoreError::Damaged(format!("it has schema {}, this program has {SCHEMA}", meta.schema)))
        }
    }

    fn read<T: for<'b> minicbor::Decode<'b, ()>>(&self, key: &[u8]) -> Result<Option<T>, StoreError> {
        self.shelf.get(key)?.map(|bytes| value::decode(key, &bytes)).transpose()
    }

    fn read_range<T: for<'b> minicbor::Decode<'b, ()>>(
        &self,
        prefix: &[u8],
        order: Order,
        limit: usize,
    ) -> Result<Vec<T>, StoreError> {
        self.shelf.range(prefix, order, limit)?.iter().map(|(key, bytes)| value::decode(key, bytes)).collect()
    }

    /// What follows `prefix` in every key that begins with it.
    fn suffixes<const N: usize>(&self, prefix: &[u8]) -> Result<Vec<[u8; N]>, StoreError> {
        let suffix = |key: &[u8]| {
            let wrong = || StoreError::Damaged(format!("{}: no such key is written", key.escape_ascii()));
            key[prefix.len()..].try_into().map_err(|_| wrong())
        };
        self.shelf.range(prefix, Order::Ascending, usize::MAX)?.iter().map(|(key, _)| suffix(key)).collect()
    }
}

/// Whether a value is what its key says.
fn decodes(key: &[u8], bytes: &[u8]) -> Result<(), StoreError> {
    match key.first() {
        Some(b'h') => value::decode::<HostState>(key, bytes).map(drop),
        Some(b'a') => value::decode::<AppState>(key, bytes).map(drop),
        Some(b'r') => value::decode::<ReleaseRecord>(key, bytes).map(drop),
        Some(b'd') => value::decode::<DeploymentRecord>(key, bytes).map(drop),
        Some(b'e') => value::decode::<EnvRecord>(key, bytes).map(drop),
        Some(b'o') => value::decode::<OneOffRecord>(key, bytes).map(drop),
        Some(b'x') => value::decode::<()>(key, bytes),
        _ => Err(StoreError::Damaged(format!("{}: no such key is written", key.escape_ascii()))),
    }
}
