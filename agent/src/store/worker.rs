//! The thread that a store lives on. Whoever asks waits at most until a deadline: a thread that hangs or panics in the
//! database is left behind and takes nothing with it.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::thread;
use std::time::Duration;

use super::StoreError;
use super::records::Store;

type Job = Box<dyn FnOnce(&mut Store) + Send>;

/// Jobs that may wait. The journal asks one after the other, so that more than one is a mistake.
const QUEUE: usize = 4;
/// How long a store that is closed may take to write back and give up its lock.
const CLOSE_WITHIN: Duration = Duration::from_secs(5);

/// A store on its own thread.
pub(super) struct Worker {
    jobs: Option<SyncSender<Job>>,
    /// Disconnected once the store is dropped.
    closed: Receiver<()>,
}

impl Worker {
    /// Opens a store on a new thread.
    pub(super) fn start(
        open: impl FnOnce() -> Result<Store, StoreError> + Send + 'static,
        within: Duration,
    ) -> Result<Self, StoreError> {
        let (jobs, queue) = sync_channel::<Job>(QUEUE);
        let (opened, answer) = channel();
        let (held_while_open, closed) = channel::<()>();
        thread::Builder::new()
            .name("refloat-store".to_owned())
            .spawn(move || serve(open, &opened, &queue, held_while_open))
            .map_err(|error| StoreError::Gone(format!("got no thread: {error}")))?;
        receive(&answer, within)??;
        Ok(Self { jobs: Some(jobs), closed })
    }

    /// Runs a job on the store.
    pub(super) fn ask<T: Send + 'static>(
        &self,
        within: Duration,
        job: impl FnOnce(&mut Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (reply, answer) = channel();
        let job: Job = Box::new(move |store| {
            // Whoever asked may have given up.
            let _ = reply.send(job(store));
        });
        let gone = || StoreError::Gone("has stopped".to_owned());
        self.jobs.as_ref().ok_or_else(gone)?.try_send(job).map_err(|_| gone())?;
        receive(&answer, within)?
    }

    /// Leaves the thread alone with what it hangs in.
    pub(super) fn abandon(mut self) {
        self.jobs = None;
        let (_never, closed) = channel();
        self.closed = closed;
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.jobs = None;
        // The next one to open this folder needs its lock; one that hangs is waited for no longer than this.
        let _ = self.closed.recv_timeout(CLOSE_WITHIN);
    }
}

fn serve(
    open: impl FnOnce() -> Result<Store, StoreError>,
    opened: &Sender<Result<(), StoreError>>,
    queue: &Receiver<Job>,
    held_while_open: Sender<()>,
) {
    let mut store = match open() {
        Ok(store) => store,
        Err(error) => {
            let _ = opened.send(Err(error));
            return;
        }
    };
    let _ = opened.send(Ok(()));
    while let Ok(job) = queue.recv() {
        job(&mut store);
    }
    drop(store);
    drop(held_while_open);
}

fn receive<T>(answer: &Receiver<T>, within: Duration) -> Result<T, StoreError> {
    answer.recv_timeout(within).map_err(|error| {
        StoreError::Gone(match error {
            RecvTimeoutError::Timeout => format!("did not answer within {} ms", within.as_millis()),
            RecvTimeoutError::Disconnected => "panicked".to_owned(),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::MemoryRecords;

    const SOON: Duration = Duration::from_millis(100);
    const LATE: Duration = Duration::from_secs(30);

    #[test]
    fn a_job_that_hangs_costs_its_deadline_and_nothing_else() {
        let worker = Worker::start(|| Ok(MemoryRecords::empty()), LATE).unwrap();
        let (release, hold) = channel::<()>();
        let hung = worker.ask(SOON, move |_| hold.recv().map_err(|_| StoreError::DoesNotFit("let go")));
        assert!(matches!(hung, Err(StoreError::Gone(_))));
        worker.abandon();
        drop(release);
    }

    #[test]
    fn a_job_that_panics_is_an_error_for_whoever_asked() {
        let worker = Worker::start(|| Ok(MemoryRecords::empty()), LATE).unwrap();
        let panicked = worker.ask(LATE, |_| -> Result<(), StoreError> { panic!("as sled does") });
        assert_eq!(panicked, Err(StoreError::Gone("panicked".to_owned())));
        assert!(matches!(worker.ask(LATE, |_| Ok(())), Err(StoreError::Gone(_))));
    }

    #[test]
    fn an_open_that_panics_is_an_error() {
        let opened = Worker::start(|| panic!("as sled does"), LATE);
        assert_eq!(opened.err(), Some(StoreError::Gone("panicked".to_owned())));
    }
}
