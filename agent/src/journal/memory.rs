//! A journal in memory, for tests of everything that appends: the records go through the same encoding and the same
//! fold as on disk, they outlive the journal in a [`MemoryDisk`], and any append can be made to fail.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use prost::Message as _;
use refloat_model::{
    AppName, AppState, DeploymentId, DeploymentRecord, Entry, EnvId, EnvRecord, Epoch, Event, HostState, OneOffId,
    OneOffRecord, Principal, ReleaseNumber, ReleaseRecord,
};
use refloat_proto::ledger::v1 as wire;

use super::{Journal, JournalError};
use crate::clock::Clock;
use crate::ledger::Position;
use crate::ledger::record::{self, Content};
use crate::store::{MemoryRecords, Store, StoreError};

/// What goes wrong with one append.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The write fails: the record is not there. The journal is closed from then on.
    FailBefore,
    /// The record is there, the sync fails: nobody is told. The journal is closed from then on.
    AnswerLost,
    /// There is no room. Nothing is written and the journal stays open.
    NoRoom,
    /// The journal was closed before.
    Closed,
}

type Hook = Box<dyn Fn(u64, &Event) -> Option<Fault> + Send>;

/// What survives a restart of the agent. Clones share it.
#[derive(Clone, Default)]
pub struct MemoryDisk(Arc<Mutex<Vec<Vec<u8>>>>);

impl MemoryDisk {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Every event that is durable, in order.
    ///
    /// # Panics
    /// When a record does not read back: what is on this disk was written by the same code.
    #[must_use]
    pub fn events(&self) -> Vec<Event> {
        self.entries().into_iter().map(|entry| entry.event).collect()
    }

    /// Every entry that is durable, in order.
    ///
    /// # Panics
    /// When a record does not read back: what is on this disk was written by the same code.
    #[must_use]
    pub fn entries(&self) -> Vec<Entry> {
        self.lock().iter().map(|bytes| decode(bytes)).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Vec<u8>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[allow(clippy::panic)] // Only in tests, and only for what this very program wrote.
fn decode(bytes: &[u8]) -> Entry {
    let content = wire::Record::decode(bytes).map(|record| record::to_content(&record));
    match content {
        Ok(Ok(Content::Entry(entry))) => *entry,
        other => panic!("a record did not read back: {other:?}"),
    }
}

/// A journal in memory.
pub struct MemoryJournal {
    disk: MemoryDisk,
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
}

struct State {
    store: Store,
    appends: u64,
    hook: Option<Hook>,
    closed: Option<String>,
}

impl MemoryJournal {
    /// Opens the journal on a disk, or begins one there.
    ///
    /// # Errors
    /// When a record that is there does not fold.
    pub fn open(disk: &MemoryDisk, clock: Arc<dyn Clock>) -> Result<Self, JournalError> {
        let mut store = MemoryRecords::empty();
        let entries = disk.entries();
        fold(&mut store, &entries, entries.len() as u64)?;
        let state = Mutex::new(State { store, appends: 0, hook: None, closed: None });
        let journal = Self { disk: disk.clone(), clock, state };
        if entries.is_empty() {
            let event = Event::HostInitialised { host_id: [7; 16], epoch: Epoch(1) };
            journal.write(&Principal::agent(), event, true)?;
        }
        Ok(journal)
    }

    /// Asks before every append, with how many there were before it: the first is 0.
    pub fn on_append(&self, hook: impl Fn(u64, &Event) -> Option<Fault> + Send + 'static) {
        self.lock().hook = Some(Box::new(hook));
    }

    /// How many appends were tried since it was opened.
    #[must_use]
    pub fn appends(&self) -> u64 {
        self.lock().appends
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, by: &Principal, event: Event, first: bool) -> Result<(), JournalError> {
        let mut state = self.lock();
        let fault = if first { None } else { state.next_fault(&event) };
        if let Some(why) = &state.closed {
            return Err(JournalError::Closed(why.clone()));
        }
        let mut records = self.disk.lock();
        let sequence = records.len() as u64 + 1;
        let entry = Entry { at_ms: self.clock.now_ms(), by: by.clone(), event };
        let refused = |error: record::RecordError| JournalError::Refused(error.to_string());
        let bytes = record::from_entry(sequence, &entry).map_err(refused)?.encode_to_vec();
        let entry = decode(&bytes);
        state.store.prepare(std::slice::from_ref(&entry)).map_err(store_error)?;
        match fault {
            None => {
                records.push(bytes);
                state.store.commit(position(sequence)).map_err(store_error)
            }
            Some(Fault::NoRoom) => Err(JournalError::NoRoom("the disk is full".to_owned())),
            Some(Fault::Closed) => Err(state.close("an earlier sync failed", JournalError::Closed)),
            Some(Fault::FailBefore) => Err(state.close("the write failed", JournalError::NotDurable)),
            Some(Fault::AnswerLost) => {
                records.push(bytes);
                Err(state.close("the sync failed", JournalError::NotDurable))
            }
        }
    }

    fn read<T>(&self, job: impl FnOnce(&Store) -> Result<T, StoreError>) -> Result<T, JournalError> {
        job(&self.lock().store).map_err(store_error)
    }
}

impl State {
    fn next_fault(&mut self, event: &Event) -> Option<Fault> {
        let before = self.appends;
        self.appends += 1;
        self.hook.as_ref().and_then(|hook| hook(before, event))
    }

    fn close(&mut self, why: &str, error: impl FnOnce(String) -> JournalError) -> JournalError {
        self.closed = Some(why.to_owned());
        error(why.to_owned())
    }
}

fn fold(store: &mut Store, entries: &[Entry], sequence: u64) -> Result<(), JournalError> {
    store.prepare(entries).and_then(|()| store.commit(position(sequence))).map_err(store_error)
}

/// There is no chain here: the number alone is the position.
fn position(sequence: u64) -> Position {
    Position { sequence, ..Position::GENESIS }
}

fn store_error(error: StoreError) -> JournalError {
    match error {
        StoreError::DoesNotFit(why) => JournalError::Refused(why.to_owned()),
        error => JournalError::Store(error.to_string()),
    }
}

#[async_trait]
impl Journal for MemoryJournal {
    async fn append(&self, by: &Principal, event: Event) -> Result<(), JournalError> {
        self.write(by, event, false)
    }

    async fn host(&self) -> Result<HostState, JournalError> {
        self.read(Store::host)
    }

    async fn app(&self, app: &AppName) -> Result<Option<AppState>, JournalError> {
        self.read(|store| store.app(app))
    }

    async fn apps(&self) -> Result<Vec<AppState>, JournalError> {
        self.read(Store::apps)
    }

    async fn release(&self, app: &AppName, number: ReleaseNumber) -> Result<Option<ReleaseRecord>, JournalError> {
        self.read(|store| store.release(app, number))
    }

    async fn releases(&self, app: &AppName, limit: usize) -> Result<Vec<ReleaseRecord>, JournalError> {
        self.read(|store| store.releases(app, limit))
    }

    async fn deployment(&self, id: &DeploymentId) -> Result<Option<DeploymentRecord>, JournalError> {
        self.read(|store| store.deployment(id))
    }

    async fn env(&self, app: &AppName, env: &EnvId) -> Result<Option<EnvRecord>, JournalError> {
        self.read(|store| store.env(app, env))
    }

    async fn envs(&self, app: &AppName) -> Result<Vec<EnvRecord>, JournalError> {
        self.read(|store| store.envs(app))
    }

    async fn one_off(&self, app: &AppName, id: OneOffId) -> Result<Option<OneOffRecord>, JournalError> {
        self.read(|store| store.one_off(app, id))
    }
}
