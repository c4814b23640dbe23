//! One build that is really done: turn, room, cap, disk, then each of the plan's builds in order.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use refloat_model::ImageDigest;
use refloat_plan::plan::{Build, Plan};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::builder::{BuildJob, BuildProgress};
use super::engine_builder::{EngineBuilder, blocking, lost};
use super::error::{BuildError, short};
use super::install::Heard;
use super::memo::{Artifact, Made, Memo};
use super::space::Disks;
use crate::cas::context::{DOCKERFILE, write_context};
use crate::cas::{ContextSpec, StoredTree};
use crate::cgroup::CapStatus;
use crate::docker::{BuildOutput, BuildRequest, Secrets};
use crate::public::{PublishError, Published};

/// Pieces of progress that may wait to be taken.
const PROGRESS_BACKLOG: usize = 64;
/// Chunks of an exported image that may wait to be published.
const EXPORT_BACKLOG: usize = 16;

/// One build that is really done.
pub(super) struct Run<'a> {
    pub(super) builder: &'a EngineBuilder,
    pub(super) job: &'a BuildJob,
    pub(super) tree: &'a Arc<StoredTree>,
    pub(super) plan: &'a Plan,
    pub(super) arguments: Secrets,
    pub(super) progress: &'a mpsc::Sender<BuildProgress>,
}

impl Run<'_> {
    pub(super) async fn make(&self, cancel: &CancellationToken) -> Result<Memo, BuildError> {
        if self.plan.builds.iter().all(|build| matches!(build, Build::Folder { .. })) {
            // Nothing is run: no turn, no room, no cap.
            return self.within_limits(None, &self.builder.parts.disks, cancel).await;
        }
        let parts = &self.builder.parts;
        let _turn = self.builder.turn.take(&self.job.app, self.progress, cancel).await?;
        let engine = parts.engine.info().await.map_err(BuildError::Engine)?;
        let disks = parts.disks.and(engine.data_root);
        disks.check_before()?;
        tokio::select! {
            () = parts.room.make_room() => {}
            () = cancel.cancelled() => return Err(BuildError::Cancelled),
        }
        let cap = Arc::clone(&parts.cap);
        let applied = blocking("cap the build", move || {
            cap.forget_use();
            Ok(cap.apply())
        });
        let status = applied.await?;
        if status.is_incomplete() {
            self.say(BuildProgress::Note { warn: true, text: status.to_string() }).await;
        }
        self.within_limits(Some(status), &disks, cancel).await
    }

    /// Runs the builds until they end, or the first of: cancelled, out of time, out of disk.
    async fn within_limits(
        &self,
        cap: Option<CapStatus>,
        disks: &Disks,
        cancel: &CancellationToken,
    ) -> Result<Memo, BuildError> {
        let stop = cancel.child_token();
        // Whatever ends first: what runs on other threads for this build ends too.
        let _stops = stop.clone().drop_guard();
        let step = Step::default();
        let builder = self.builder;
        tokio::select! {
            biased;
            // Each other branch only waits; dropping the builds stops the engine's, whose request ends with it.
            () = cancel.cancelled() => Err(BuildError::Cancelled),
            made = self.all(cap.as_ref(), &stop, &step) => made,
            () = tokio::time::sleep(builder.timeout) => {
                Err(BuildError::TimedOut { limit_s: builder.timeout.as_secs(), step: step.last() })
            }
            low = disks.until_low() => Err(low),
        }
    }

    async fn all(&self, cap: Option<&CapStatus>, stop: &CancellationToken, step: &Step) -> Result<Memo, BuildError> {
        let mut memo = Memo { made: Vec::new(), notes: Vec::new() };
        for build in &self.plan.builds {
            let artifact = match build {
                Build::Image { dockerfile, context, ignore, .. } => {
                    let recipe = Recipe { dockerfile, context, ignore };
                    Artifact::Image { digest: self.image(&recipe, cap, stop, step).await? }
                }
                Build::Tree { dockerfile, context, ignore, .. } => {
                    let recipe = Recipe { dockerfile, context, ignore };
                    let image = self.image(&recipe, cap, stop, step).await?;
                    tree(self.export(&image).await?, &mut memo.notes)
                }
                Build::Folder { folder, .. } => {
                    let publisher = &self.builder.parts.publisher;
                    let published = publisher.publish_folder(self.job.source, folder).await;
                    tree(published.map_err(|error| self.publish_error(error))?, &mut memo.notes)
                }
            };
            memo.made.push(Made { name: build.name().to_owned(), artifact });
        }
        for text in &memo.notes {
            self.say(BuildProgress::Note { warn: false, text: text.clone() }).await;
        }
        Ok(memo)
    }

    async fn image(
        &self,
        recipe: &Recipe<'_>,
        cap: Option<&CapStatus>,
        stop: &CancellationToken,
        step: &Step,
    ) -> Result<ImageDigest, BuildError> {
        let parts = &self.builder.parts;
        let context = self.context(recipe, stop).await?;
        let kills_before = parts.cap.kills();
        let request = BuildRequest {
            app: self.job.app.clone(),
            context: context.to_path_buf(),
            dockerfile: DOCKERFILE.to_owned(),
            args: self.arguments.clone(),
            cgroup_parent: cap.and_then(CapStatus::parent).map(str::to_owned),
        };
        let (sender, receiver) = mpsc::channel(PROGRESS_BACKLOG);
        let (built, (ran, heard)) =
            tokio::join!(parts.engine.build(request, sender, stop.clone()), self.forward(receiver, step));
        if ran && cap.is_some_and(|status| status.parent().is_some()) && !parts.cap.was_used() {
            let text = "this build was NOT capped: Docker ran it outside of the group that it was told".to_owned();
            self.say(BuildProgress::Note { warn: true, text }).await;
        }
        built.map_err(|error| {
            let killed = parts.cap.kills().zip(kills_before).is_some_and(|(after, before)| after > before);
            BuildError::from_engine(error, cap.and_then(CapStatus::memory_bytes), killed, &heard)
        })
    }

    /// The context on disk; gone when the answer is dropped.
    async fn context(&self, recipe: &Recipe<'_>, stop: &CancellationToken) -> Result<tempfile::TempPath, BuildError> {
        let file =
            tempfile::NamedTempFile::new_in(&self.builder.contexts).map_err(BuildError::server("begin a context"))?;
        let (file, path) = file.into_parts();
        let (cas, tree, stop) = (Arc::clone(&self.builder.parts.cas), Arc::clone(self.tree), stop.clone());
        let (folder, ignore) = (recipe.context.to_owned(), recipe.ignore.to_vec());
        let dockerfile = recipe.dockerfile.to_owned();
        let write = move || {
            let spec = ContextSpec { tree: &tree, folder: &folder, ignore: &ignore, dockerfile: &dockerfile };
            let mut out = io::BufWriter::with_capacity(256 << 10, file);
            write_context(&cas, &spec, &mut out, &stop).map(|_| ()).map_err(|error| lost(&cas, error))
        };
        blocking("write the build's context", write).await.map(|()| path)
    }

    async fn export(&self, image: &ImageDigest) -> Result<Published, BuildError> {
        let parts = &self.builder.parts;
        let (sender, receiver) = mpsc::channel(EXPORT_BACKLOG);
        let (exported, published) =
            tokio::join!(parts.engine.export(image, sender), parts.publisher.publish_archive(receiver));
        // An archive that was cut short is the engine's failure, whatever could be read of it.
        match (exported, published) {
            (Ok(()), Ok(published)) => Ok(published),
            (Ok(()), Err(error)) => Err(BuildError::Publish(error)),
            (Err(error), _) => Err(BuildError::Engine(error)),
        }
    }

    /// Hands on what the engine says. Answers whether a command was run, and not taken from the cache, and what was
    /// heard of installs.
    async fn forward(&self, mut receiver: mpsc::Receiver<BuildOutput>, step: &Step) -> (bool, Heard) {
        let (mut ran, mut heard) = (false, Heard::default());
        while let Some(output) = receiver.recv().await {
            let progress = match output {
                BuildOutput::Step { text, done, total, cached } => {
                    ran |= !cached && text.contains("] RUN ");
                    let text = short(&text);
                    step.set(&text);
                    BuildProgress::Step { text, done, total, cached }
                }
                BuildOutput::Line(line) => {
                    heard.take(&line);
                    BuildProgress::Line(line)
                }
            };
            self.say(progress).await;
        }
        (ran, heard)
    }

    fn publish_error(&self, error: PublishError) -> BuildError {
        match error {
            PublishError::Source(source) => lost(&self.builder.parts.cas, source),
            other => BuildError::Publish(other),
        }
    }

    async fn say(&self, progress: BuildProgress) {
        // Nobody has to listen.
        let _ = self.progress.send(progress).await;
    }
}

/// How an image is made.
struct Recipe<'a> {
    dockerfile: &'a str,
    context: &'a str,
    ignore: &'a [String],
}

/// The step that runs, for the sentence about a build that took too long.
#[derive(Default)]
struct Step(Mutex<String>);

impl Step {
    fn set(&self, text: &str) {
        text.clone_into(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn last(&self) -> String {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn tree(published: Published, notes: &mut Vec<String>) -> Artifact {
    notes.extend(published.notes);
    Artifact::Tree { digest: published.tree, files: published.files, bytes: published.bytes }
}
