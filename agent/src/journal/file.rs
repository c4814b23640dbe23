//! The journal on disk: one thread that owns the ledger and the store.
//!
//! ```text
//! append ─▶ draft ─▶ fold (does it fit?) ─▶ room? ─▶ write + fdatasync ─▶ keep what was folded ─▶ answer
//!           nothing is written before here ────────┘         │
//!                                              a failure here closes the journal
//! ```
//!
//! An event is folded before it is written, so that no record gets into the ledger which the store could not be built
//! from. Once the record is synced the answer is `Ok`, whatever becomes of the store: it is built again.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use async_trait::async_trait;
use refloat_model::{
    AppName, AppState, DeploymentId, DeploymentRecord, Entry, EnvId, EnvRecord, Epoch, Event, HostState, OneOffId,
    OneOffRecord, Principal, ReleaseNumber, ReleaseRecord,
};
use tokio::sync::{mpsc, oneshot};

use super::{Journal, JournalError};
use crate::clock::Clock;
use crate::ledger::{AppendError, Ledger, LedgerError, LedgerOptions, LedgerReport};
use crate::paths::Paths;
use crate::store::{Keeper, KeeperError, ProbeWith, Store, StoreError, StoreOptions, StoreReport};

/// Requests that may wait for the journal's thread.
const QUEUE: usize = 256;

/// Where and how a journal is kept.
pub struct JournalOptions {
    /// The ledger's folder.
    pub ledger_folder: PathBuf,
    /// How the ledger is kept.
    pub ledger: LedgerOptions,
    /// How the store is kept.
    pub store: StoreOptions,
    /// The clock for the entries' times.
    pub clock: Arc<dyn Clock>,
}

impl JournalOptions {
    /// The usual ones below these paths.
    #[must_use]
    pub fn new(paths: &Paths, probe: ProbeWith, clock: Arc<dyn Clock>) -> Self {
        Self {
            ledger_folder: paths.ledger(),
            ledger: LedgerOptions::default(),
            store: StoreOptions::new(paths.store(), probe),
            clock,
        }
    }
}

/// What opening found and what happened since, for `status`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct JournalReport {
    /// About the ledger.
    pub ledger: LedgerReport,
    /// About the store.
    pub store: StoreReport,
}

/// Why a journal cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The ledger.
    #[error("could not open the ledger")]
    Ledger(#[source] LedgerError),
    /// The store, or the ledger against it.
    #[error("could not open the store")]
    Store(#[source] KeeperError),
    /// The first record.
    #[error("could not begin the ledger")]
    Begin(#[source] JournalError),
    /// The operating system.
    #[error("could not {action}")]
    System {
        /// What was tried.
        action: &'static str,
        /// What it said.
        #[source]
        source: std::io::Error,
    },
}

type Job = Box<dyn FnOnce(&mut Writer) + Send>;

/// The journal on disk. Clones share it.
#[derive(Clone)]
pub struct FileJournal {
    jobs: mpsc::Sender<Job>,
    report: Arc<Mutex<JournalReport>>,
}

/// What the journal's thread owns.
struct Writer {
    ledger: Ledger,
    keeper: Keeper,
    clock: Arc<dyn Clock>,
    report: Arc<Mutex<JournalReport>>,
    /// Who is to be told once everything is closed.
    stop: Option<oneshot::Sender<()>>,
}

impl FileJournal {
    /// Opens the journal, or begins one; blocks until the store is there.
    ///
    /// # Errors
    /// When the ledger is in use, damaged or has lost records.
    pub fn open(options: JournalOptions) -> Result<Self, OpenError> {
        let JournalOptions { ledger_folder, ledger, store, clock } = options;
        let (mut ledger, found) = Ledger::open(&ledger_folder, ledger, clock.now_ms()).map_err(OpenError::Ledger)?;
        let keeper = Keeper::open(store, &ledger).map_err(OpenError::Store)?;
        // Only now: a ledger that lost more than a torn tail is left as it was found.
        ledger.settle().map_err(OpenError::Ledger)?;
        let report = JournalReport { ledger: found, store: keeper.report().clone() };
        let report = Arc::new(Mutex::new(report));
        let mut writer = Writer { ledger, keeper, clock, report: Arc::clone(&report), stop: None };
        writer.begin()?;
        let (jobs, queue) = mpsc::channel(QUEUE);
        thread::Builder::new()
            .name("refloat-journal".to_owned())
            .spawn(move || serve(writer, queue))
            .map_err(|source| OpenError::System { action: "start the journal's thread", source })?;
        Ok(Self { jobs, report })
    }

    /// What opening found and what happened since.
    #[must_use]
    pub fn report(&self) -> JournalReport {
        self.report.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Finishes what was asked before, writes the store back and gives up the locks. Other clones are closed with it.
    pub async fn close(self) {
        let (told, closed) = oneshot::channel();
        let job: Job = Box::new(move |writer| writer.stop = Some(told));
        if self.jobs.send(job).await.is_ok() {
            // The thread is gone either way.
            let _ = closed.await;
        }
    }

    /// Runs a job on the journal's thread. The job runs even if whoever asked has gone.
    async fn ask<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Writer) -> Result<T, JournalError> + Send + 'static,
    ) -> Result<T, JournalError> {
        let (reply, answer) = oneshot::channel();
        let job: Job = Box::new(move |writer| {
            let answer = job(writer);
            writer.publish();
            // Whoever asked may have gone.
            let _ = reply.send(answer);
        });
        let stopped = || JournalError::Closed("the journal's thread has stopped".to_owned());
        self.jobs.send(job).await.map_err(|_| stopped())?;
        answer.await.map_err(|_| stopped())?
    }

    async fn read<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Store) -> Result<T, StoreError> + Clone + Send + 'static,
    ) -> Result<T, JournalError> {
        self.ask(move |writer| writer.keeper.read(&writer.ledger, job).map_err(store_error)).await
    }
}

fn serve(mut writer: Writer, mut queue: mpsc::Receiver<Job>) {
    while let Some(job) = queue.blocking_recv() {
        job(&mut writer);
        if let Some(told) = writer.stop.take() {
            drop(writer);
            // Whoever closed it may have gone.
            let _ = told.send(());
            return;
        }
    }
}

impl Writer {
    /// Gives a new ledger its first fact.
    fn begin(&mut self) -> Result<(), OpenError> {
        let host = self.keeper.read(&self.ledger, |store| store.host()).map_err(store_error);
        if host.map_err(OpenError::Begin)?.epoch != Epoch::default() {
            return Ok(());
        }
        let mut host_id = [0; 16];
        getrandom::fill(&mut host_id)
            .map_err(|error| OpenError::System { action: "get random bytes", source: error.into() })?;
        self.append(Principal::agent(), Event::HostInitialised { host_id, epoch: Epoch(1) }).map_err(OpenError::Begin)
    }

    fn append(&mut self, by: Principal, event: Event) -> Result<(), JournalError> {
        let entry = Entry { at_ms: self.clock.now_ms(), by, event };
        let draft = self.ledger.draft(&entry).map_err(append_error)?;
        self.keeper.prepare(&self.ledger, &draft.entry).map_err(store_error)?;
        let position = self.ledger.append(draft).map_err(append_error)?;
        if let Err(error) = self.keeper.commit(&self.ledger, position) {
            tracing::error!(%error, "a durable record could not be folded into the store");
        }
        Ok(())
    }

    fn publish(&self) {
        let mut report = self.report.lock().unwrap_or_else(PoisonError::into_inner);
        if report.store != *self.keeper.report() {
            report.store = self.keeper.report().clone();
        }
    }
}

fn store_error(error: StoreError) -> JournalError {
    match error {
        StoreError::DoesNotFit(why) => JournalError::Refused(why.to_owned()),
        error => JournalError::Store(error.to_string()),
    }
}

fn append_error(error: AppendError) -> JournalError {
    match error {
        AppendError::Closed(why) => JournalError::Closed(why),
        AppendError::NotDurable(why) => JournalError::NotDurable(why),
        AppendError::NoRoom(why) => JournalError::NoRoom(why),
        AppendError::Malformed(why) => JournalError::Refused(why.to_string()),
        AppendError::TooLong(why) => JournalError::Refused(why.to_string()),
    }
}

#[async_trait]
impl Journal for FileJournal {
    async fn append(&self, by: &Principal, event: Event) -> Result<(), JournalError> {
        let by = by.clone();
        self.ask(move |writer| writer.append(by, event)).await
    }

    async fn host(&self) -> Result<HostState, JournalError> {
        self.read(|store| store.host()).await
    }

    async fn app(&self, app: &AppName) -> Result<Option<AppState>, JournalError> {
        let app = app.clone();
        self.read(move |store| store.app(&app)).await
    }

    async fn apps(&self) -> Result<Vec<AppState>, JournalError> {
        self.read(|store| store.apps()).await
    }

    async fn release(&self, app: &AppName, number: ReleaseNumber) -> Result<Option<ReleaseRecord>, JournalError> {
        let app = app.clone();
        self.read(move |store| store.release(&app, number)).await
    }

    async fn releases(&self, app: &AppName, limit: usize) -> Result<Vec<ReleaseRecord>, JournalError> {
        let app = app.clone();
        self.read(move |store| store.releases(&app, limit)).await
    }

    async fn deployment(&self, id: &DeploymentId) -> Result<Option<DeploymentRecord>, JournalError> {
        let id = *id;
        self.read(move |store| store.deployment(&id)).await
    }

    async fn env(&self, app: &AppName, env: &EnvId) -> Result<Option<EnvRecord>, JournalError> {
        let (app, env) = (app.clone(), *env);
        self.read(move |store| store.env(&app, &env)).await
    }

    async fn envs(&self, app: &AppName) -> Result<Vec<EnvRecord>, JournalError> {
        let app = app.clone();
        self.read(move |store| store.envs(&app)).await
    }

    async fn one_off(&self, app: &AppName, id: OneOffId) -> Result<Option<OneOffRecord>, JournalError> {
        let app = app.clone();
        self.read(move |store| store.one_off(&app, id)).await
    }
}
