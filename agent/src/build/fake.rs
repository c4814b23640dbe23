//! A builder that does what it is told, in tokio's time. For tests; never shipped.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use refloat_model::{PlanDigest, Process, SourceDigest};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::builder::{BuildJob, BuildProgress, Builder, Built};
use super::error::BuildError;

/// What one source does when it is built.
#[derive(Debug, Clone)]
pub struct Script {
    /// How long it takes.
    pub takes: Duration,
    /// How it ends.
    pub ends: Ends,
}

/// How a scripted build ends.
#[derive(Debug, Clone)]
pub enum Ends {
    /// With these processes.
    Built(Vec<Process>),
    /// At this step, with these lines.
    Failed {
        /// The step's text.
        step: String,
        /// Its last lines.
        lines: Vec<String>,
    },
    /// Killed for its memory.
    OutOfMemory,
    /// Never, unless it is cancelled.
    Never,
}

impl Script {
    /// A build that takes no time and makes these processes.
    #[must_use]
    pub fn builds(processes: Vec<Process>) -> Self {
        Self { takes: Duration::ZERO, ends: Ends::Built(processes) }
    }

    /// A build that fails at once.
    #[must_use]
    pub fn fails(line: &str) -> Self {
        let ends = Ends::Failed { step: "[2/2] RUN npm run build".to_owned(), lines: vec![line.to_owned()] };
        Self { takes: Duration::ZERO, ends }
    }

    /// The same after a while.
    #[must_use]
    pub fn after(self, takes: Duration) -> Self {
        Self { takes, ..self }
    }
}

/// A builder whose results are scripted for each source. Cloning it is another handle on the same one.
#[derive(Debug, Clone, Default)]
pub struct FakeBuilder {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    scripts: BTreeMap<SourceDigest, Script>,
    built: Vec<SourceDigest>,
}

impl FakeBuilder {
    /// Says what a source does. A source without a script cannot be planned.
    pub fn script(&self, source: SourceDigest, script: Script) {
        self.lock().scripts.insert(source, script);
    }

    /// The sources whose builds have begun, oldest first.
    #[must_use]
    pub fn begun(&self) -> Vec<SourceDigest> {
        self.lock().built.clone()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(&self, source: SourceDigest) -> Option<Script> {
        let mut state = self.lock();
        state.built.push(source);
        state.scripts.get(&source).cloned()
    }
}

/// The plan that a scripted source has: its own for each source.
#[must_use]
pub fn plan_of(source: SourceDigest) -> PlanDigest {
    PlanDigest(*blake3::hash(&source.0).as_bytes())
}

#[async_trait]
impl Builder for FakeBuilder {
    async fn build(
        &self,
        job: BuildJob,
        progress: mpsc::Sender<BuildProgress>,
        cancel: CancellationToken,
    ) -> Result<Built, BuildError> {
        let Some(script) = self.begin(job.source) else {
            let message = "nothing in this folder was recognised".to_owned();
            return Err(BuildError::NotPlanned { message, lines: Vec::new() });
        };
        let shape = "scripted app".to_owned();
        let _ = progress.send(BuildProgress::Plan { shape: shape.clone(), processes: Vec::new() }).await;
        let text = "[1/1] RUN script".to_owned();
        let _ = progress.send(BuildProgress::Step { text, done: 0, total: 1, cached: false }).await;
        tokio::select! {
            biased;
            () = cancel.cancelled() => return Err(BuildError::Cancelled),
            () = tokio::time::sleep(script.takes) => {}
        }
        match script.ends {
            Ends::Built(processes) => Ok(Built {
                plan_digest: plan_of(job.source),
                processes,
                notes: Vec::new(),
                shape,
                build_env: Vec::new(),
                build_ms: u64::try_from(script.takes.as_millis()).unwrap_or(u64::MAX),
                unchanged: false,
                images: Vec::new(),
                trees: Vec::new(),
            }),
            Ends::Failed { step, lines } => Err(BuildError::Failed { step, lines }),
            Ends::OutOfMemory => {
                let (step, lines) = ("[2/2] RUN npm run build".to_owned(), Vec::new());
                Err(BuildError::OutOfMemory { step, lines, cap_bytes: Some(512 << 20) })
            }
            Ends::Never => {
                cancel.cancelled().await;
                Err(BuildError::Cancelled)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use refloat_model::AppName;

    use super::*;
    use crate::docker::Secrets;

    fn job(source: u8) -> BuildJob {
        BuildJob {
            app: AppName::new("app").unwrap(),
            source: SourceDigest([source; 32]),
            prebuilt: false,
            folder: "app".to_owned(),
            build_env: Secrets::default(),
            local_plan: None,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_script_is_followed_in_paused_time_and_a_cancel_ends_it() {
        let builder = FakeBuilder::default();
        builder.script(SourceDigest([1; 32]), Script::builds(Vec::new()).after(Duration::from_secs(60)));
        builder.script(SourceDigest([2; 32]), Script { takes: Duration::ZERO, ends: Ends::Never });
        let (sender, _receiver) = mpsc::channel(8);
        let begun = tokio::time::Instant::now();
        let built = builder.build(job(1), sender.clone(), CancellationToken::new()).await.unwrap();
        assert_eq!((built.build_ms, begun.elapsed().as_secs()), (60_000, 60));

        let cancel = CancellationToken::new();
        let never = builder.build(job(2), sender.clone(), cancel.clone());
        let (ended, ()) = tokio::join!(never, async { cancel.cancel() });
        assert!(matches!(ended, Err(BuildError::Cancelled)));
        let unknown = builder.build(job(3), sender, CancellationToken::new()).await;
        assert!(matches!(unknown, Err(BuildError::NotPlanned { .. })));
        assert_eq!(builder.begun().len(), 3);
    }
}
