//! Keeps a store that answers: opens it with care, follows the ledger, and replaces it when it breaks.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use refloat_model::Entry;

use super::StoreError;
use super::folder;
use super::probe::ProbeWith;
use super::records::{MemoryRecords, Store};
use super::sled_shelf::SledShelf;
use super::worker::Worker;
use crate::ledger::record::Content;
use crate::ledger::{Ledger, Position, ReplayError};

/// Entries that are folded and written at a time when a store is built.
const CHUNK: usize = 256;
/// How often a run replaces its store by another sled; after that it stays in memory.
const MOST_REPLACEMENTS: u32 = 3;

/// How a store is kept.
#[derive(Debug, Clone)]
pub struct StoreOptions {
    /// Its folder.
    pub folder: PathBuf,
    /// How it is tried before it is opened.
    pub probe: ProbeWith,
    /// How long opening may take.
    pub open_within: Duration,
    /// How long one request may take.
    pub answer_within: Duration,
}

impl StoreOptions {
    /// The usual deadlines: 10 s to open, 5 s to answer.
    #[must_use]
    pub fn new(folder: PathBuf, probe: ProbeWith) -> Self {
        Self { folder, probe, open_within: Duration::from_secs(10), answer_within: Duration::from_secs(5) }
    }
}

/// What happened to the store, for `status`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StoreReport {
    /// Why it was built again from the ledger; the newest reason.
    pub rebuilt: Option<String>,
    /// Why it is only in memory.
    pub in_memory: Option<String>,
    /// Records that it lacked on opening and that were folded in: normal after a crash.
    pub caught_up: u64,
    /// Where the broken one is.
    pub set_aside: Option<PathBuf>,
}

/// Why there is no store.
#[derive(Debug, thiserror::Error)]
pub enum KeeperError {
    /// The ledger could not be read.
    #[error("the store cannot be built from the ledger")]
    Replay(#[source] Box<ReplayError<StoreError>>),
    /// Even one in memory failed.
    #[error("no store can be kept")]
    NoStore(#[source] StoreError),
    /// The ledger lacks what was acknowledged.
    #[error(
        "the ledger ends at record {ledger}, but record {store} was acknowledged and is in the store: the ledger lost records. Nothing was changed; the apps keep running. Restore the ledger from a backup, or remove {folder} to go on with the ledger as it is"
    )]
    LedgerLostRecords {
        /// Last record of the ledger.
        ledger: u64,
        /// Last record in the store.
        store: u64,
        /// The store's folder.
        folder: PathBuf,
    },
}

/// A store that answers.
pub struct Keeper {
    options: StoreOptions,
    worker: Worker,
    report: StoreReport,
    replacements: u32,
}

impl Keeper {
    /// Opens the store, or builds it from the ledger.
    ///
    /// # Errors
    /// When the ledger lost records that the store has, or cannot be read.
    pub fn open(options: StoreOptions, ledger: &Ledger) -> Result<Self, KeeperError> {
        let mut report = StoreReport::default();
        let worker = match open_live(&options, ledger)? {
            Ok((worker, caught_up)) => {
                report.caught_up = caught_up;
                worker
            }
            Err(reason) => {
                // Without history there is nothing that could have been lost.
                let rebuilt = (ledger.position().sequence > 1).then_some(reason);
                build(&options, ledger, rebuilt, &mut report)?
            }
        };
        Ok(Self { options, worker, report, replacements: 0 })
    }

    /// What happened to the store.
    #[must_use]
    pub fn report(&self) -> &StoreReport {
        &self.report
    }

    /// Reads. A store that breaks over it is replaced, and asked once more.
    ///
    /// # Errors
    /// When the store cannot be replaced, or the new one cannot answer either.
    pub fn read<T: Send + 'static>(
        &mut self,
        ledger: &Ledger,
        job: impl FnOnce(&mut Store) -> Result<T, StoreError> + Clone + Send + 'static,
    ) -> Result<T, StoreError> {
        match self.worker.ask(self.options.answer_within, job.clone()) {
            Err(error) if !matches!(error, StoreError::DoesNotFit(_)) => {
                self.replace(ledger, &error)?;
                self.worker.ask(self.options.answer_within, job)
            }
            answer => answer,
        }
    }

    /// Folds an entry without writing it.
    ///
    /// # Errors
    /// When it does not fit what is there, or there is no store.
    pub fn prepare(&mut self, ledger: &Ledger, entry: &Entry) -> Result<(), StoreError> {
        let entry = entry.clone();
        self.read(ledger, move |store| store.prepare(std::slice::from_ref(&entry)))
    }

    /// Writes what was prepared. The record is durable by now: a store that fails is built again, record included.
    ///
    /// # Errors
    /// When no store can be built.
    pub fn commit(&mut self, ledger: &Ledger, position: Position) -> Result<(), StoreError> {
        match self.worker.ask(self.options.answer_within, move |store| store.commit(position)) {
            Ok(()) => Ok(()),
            Err(error) => self.replace(ledger, &error),
        }
    }

    fn replace(&mut self, ledger: &Ledger, why: &StoreError) -> Result<(), StoreError> {
        self.replacements += 1;
        let reason = why.to_string();
        let built = if self.replacements > MOST_REPLACEMENTS {
            let reason =
                format!("it broke {} times since the agent started; the last time, {reason}", self.replacements);
            build_in_memory(&self.options, ledger, reason, &mut self.report)
        } else {
            build(&self.options, ledger, Some(reason), &mut self.report)
        };
        match built {
            Ok(worker) => {
                std::mem::replace(&mut self.worker, worker).abandon();
                Ok(())
            }
            Err(error) => Err(StoreError::Gone(format!("broke ({why}) and could not be replaced: {error}"))),
        }
    }
}

/// Opens the store that is there and folds in what it lacks; answers with how much that was, or why it is no good.
fn open_live(options: &StoreOptions, ledger: &Ledger) -> Result<Result<(Worker, u64), String>, KeeperError> {
    let Some(folder) = folder::live_folder(&options.folder) else { return Ok(Err("it was missing".to_owned())) };
    let opened = options.probe.probe(&folder, options.open_within).and_then(|()| {
        let worker = start_sled(folder, options.open_within)?;
        let position = worker.ask(options.open_within, |store| store.position())?;
        Ok((worker, position))
    });
    let (worker, position) = match opened {
        Ok(opened) => opened,
        Err(error) => return Ok(Err(error.to_string())),
    };
    let end = ledger.position().sequence;
    if position.sequence > end {
        let folder = options.folder.clone();
        return Err(KeeperError::LedgerLostRecords { ledger: end, store: position.sequence, folder });
    }
    match follow(&worker, options, ledger, &position) {
        Ok(folded) => Ok(Ok((worker, folded))),
        Err(ReplayError::Ledger(error)) => Err(KeeperError::Replay(Box::new(ReplayError::Ledger(error)))),
        Err(ReplayError::OtherHistory { .. }) => Ok(Err("it belonged to another ledger".to_owned())),
        Err(ReplayError::Stopped(error)) => {
            worker.abandon();
            Ok(Err(error.to_string()))
        }
    }
}

/// Sets the store aside and builds a new one; in memory when sled does not even manage that.
fn build(
    options: &StoreOptions,
    ledger: &Ledger,
    reason: Option<String>,
    report: &mut StoreReport,
) -> Result<Worker, KeeperError> {
    if let Some(reason) = &reason {
        tracing::warn!(reason, "the store is built again from the ledger");
    }
    report.rebuilt = reason.or_else(|| report.rebuilt.take());
    match build_on_disk(options, ledger, report) {
        Ok(worker) => {
            report.in_memory = None;
            Ok(worker)
        }
        Err(Unbuilt::Ledger(error)) => Err(error),
        Err(Unbuilt::Disk(why)) => build_in_memory(options, ledger, why, report),
    }
}

enum Unbuilt {
    Ledger(KeeperError),
    Disk(String),
}

fn build_on_disk(options: &StoreOptions, ledger: &Ledger, report: &mut StoreReport) -> Result<Worker, Unbuilt> {
    let disk = |error: io::Error| Unbuilt::Disk(format!("its folder {}: {error}", options.folder.display()));
    report.set_aside = folder::set_aside(&options.folder).map_err(disk)?.or_else(|| report.set_aside.take());
    let folder = folder::next(&options.folder).map_err(disk)?;
    create(&folder).map_err(disk)?;
    let worker = start_sled(folder, options.open_within).map_err(|error| Unbuilt::Disk(error.to_string()))?;
    match follow(&worker, options, ledger, &Position::GENESIS) {
        Ok(_) => Ok(worker),
        Err(ReplayError::Stopped(error)) if !matches!(error, StoreError::DoesNotFit(_)) => {
            worker.abandon();
            Err(Unbuilt::Disk(error.to_string()))
        }
        Err(error) => Err(Unbuilt::Ledger(KeeperError::Replay(Box::new(error)))),
    }
}

fn build_in_memory(
    options: &StoreOptions,
    ledger: &Ledger,
    why: String,
    report: &mut StoreReport,
) -> Result<Worker, KeeperError> {
    tracing::warn!(reason = why, "the store is kept in memory until the agent starts again");
    report.in_memory = Some(why);
    let worker = Worker::start(|| Ok(MemoryRecords::empty()), options.open_within).map_err(KeeperError::NoStore)?;
    follow(&worker, options, ledger, &Position::GENESIS).map_err(|error| KeeperError::Replay(Box::new(error)))?;
    Ok(worker)
}

fn start_sled(folder: PathBuf, within: Duration) -> Result<Worker, StoreError> {
    Worker::start(move || Ok(Store::on(Box::new(SledShelf::open(&folder)?))), within)
}

fn create(folder: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

/// Folds in every entry after a position; answers with how many there were.
fn follow(
    worker: &Worker,
    options: &StoreOptions,
    ledger: &Ledger,
    after: &Position,
) -> Result<u64, ReplayError<StoreError>> {
    let mut chunk = Vec::new();
    let (mut folded, mut reached) = (0, *after);
    let fold = |entries: Vec<Entry>, to: Position| {
        worker.ask(options.open_within, move |store| {
            store.prepare(&entries)?;
            store.commit(to)
        })
    };
    ledger.replay(after, |position, content| {
        reached = position;
        let Content::Entry(entry) = content else { return Ok(()) };
        folded += 1;
        chunk.push(*entry);
        if chunk.len() < CHUNK { Ok(()) } else { fold(std::mem::take(&mut chunk), position) }
    })?;
    if reached != *after {
        fold(chunk, reached).map_err(ReplayError::Stopped)?;
    }
    Ok(folded)
}
