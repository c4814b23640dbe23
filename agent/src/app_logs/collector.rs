//! Collects the output of every container of ours: one task each, from the last kept line on, until it ends.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use refloat_model::InstanceName;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{AppLogs, Resume, Stream};
use crate::docker::{Engine, LogLine, Observed, RunState};

/// How often new containers are looked for. What a container wrote before is not lost: the engine has it.
const LOOK_EVERY: Duration = Duration::from_secs(3);
/// Containers that are followed at the same time.
const MAX_FOLLOWED: usize = 512;
/// Lines between the engine and the disk.
const LINES_AHEAD: usize = 1_024;
/// Lines that are written at once.
const BATCH_LINES: usize = 512;

/// What tells one life of a container from its next: a restarted one is followed again.
type Life = (u64, u32, bool);

/// Collects until the token is cancelled.
pub async fn run(logs: Arc<AppLogs>, engine: Arc<dyn Engine>, end: CancellationToken) {
    let mut tasks: JoinSet<InstanceName> = JoinSet::new();
    let mut followed: HashMap<InstanceName, Followed> = HashMap::new();
    loop {
        // An engine that does not answer is asked again; that it does not is for others to report.
        if let Ok(observed) = engine.list().await {
            followed.retain(|name, state| state.active || observed.iter().any(|it| it.name == *name));
            for it in observed {
                begin(&mut tasks, &mut followed, &logs, &engine, &it);
            }
        }
        let pause = tokio::time::sleep(LOOK_EVERY);
        tokio::pin!(pause);
        loop {
            tokio::select! {
                () = end.cancelled() => return,
                () = &mut pause => break,
                Some(ended) = tasks.join_next() => {
                    if let Some(state) = ended.ok().and_then(|name| followed.get_mut(&name)) {
                        state.active = false;
                    }
                }
            }
        }
    }
}

struct Followed {
    active: bool,
    life: Life,
}

fn begin(
    tasks: &mut JoinSet<InstanceName>,
    followed: &mut HashMap<InstanceName, Followed>,
    logs: &Arc<AppLogs>,
    engine: &Arc<dyn Engine>,
    observed: &Observed,
) {
    let running = matches!(observed.state, RunState::Running | RunState::Paused);
    let life = (observed.started_at_ms, observed.restart_count, running);
    let known = followed.get(&observed.name);
    let due = known.is_none_or(|state| !state.active && (state.life != life || running));
    if !due || observed.state == RunState::Created || tasks.len() >= MAX_FOLLOWED {
        return;
    }
    followed.insert(observed.name.clone(), Followed { active: true, life });
    let stream = Stream { app: observed.app.clone(), release: observed.release, process: observed.process.clone() };
    tasks.spawn(follow(Arc::clone(logs), Arc::clone(engine), stream, observed.name.clone()));
}

/// Follows one container until it ends or the engine lets go.
async fn follow(logs: Arc<AppLogs>, engine: Arc<dyn Engine>, stream: Stream, name: InstanceName) -> InstanceName {
    let resume = {
        let (logs, stream, name) = (Arc::clone(&logs), stream.clone(), name.clone());
        tokio::task::spawn_blocking(move || logs.resume(&stream, &name)).await.unwrap_or_default()
    };
    let (to, lines) = mpsc::channel(LINES_AHEAD);
    let followed = engine.follow(&name, resume.last_ms, to);
    let (followed, ()) = tokio::join!(followed, keep(logs, stream, name.clone(), lines, resume));
    if let Err(error) = followed {
        tracing::debug!(instance = %name, "output is not followed any more: {error}");
    }
    name
}

async fn keep(
    logs: Arc<AppLogs>,
    stream: Stream,
    name: InstanceName,
    mut lines: mpsc::Receiver<LogLine>,
    resume: Resume,
) {
    let mut known = Known::new(resume);
    let mut batch = Vec::with_capacity(BATCH_LINES);
    while lines.recv_many(&mut batch, BATCH_LINES).await > 0 {
        let fresh: Vec<LogLine> = batch.drain(..).filter(|line| known.is_new(line)).collect();
        if fresh.is_empty() {
            continue;
        }
        let (logs, stream, name) = (Arc::clone(&logs), stream.clone(), name.clone());
        let kept = tokio::task::spawn_blocking(move || logs.keep(&stream, &name, &fresh)).await;
        if kept.is_err() {
            return;
        }
    }
}

/// Tells lines that are kept already: the engine begins again at the whole millisecond.
struct Known {
    resume: Resume,
    skipped: usize,
}

impl Known {
    fn new(resume: Resume) -> Self {
        Self { resume, skipped: 0 }
    }

    fn is_new(&mut self, line: &LogLine) -> bool {
        if line.at_ms < self.resume.last_ms {
            return false;
        }
        if line.at_ms == self.resume.last_ms && self.skipped < self.resume.at_last {
            self.skipped += 1;
            return false;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_last_kept_millisecond_are_told_apart_by_their_number() {
        let mut known = Known::new(Resume { last_ms: 20, at_last: 2 });
        let line = |at_ms| LogLine { at_ms, stderr: false, text: String::new() };
        let new: Vec<bool> = [10, 20, 20, 20, 21].map(|at_ms| known.is_new(&line(at_ms))).to_vec();
        assert_eq!(new, [false, false, false, true, true]);
        assert!(Known::new(Resume::default()).is_new(&line(0)));
    }
}
