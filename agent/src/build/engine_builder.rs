//! The builder over the engine and the publication.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use refloat_model::PlanDigest;
use refloat_plan::plan::{Build, Note, Plan};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::builder::{BuildJob, BuildProgress, Builder, Built, BuiltImage, BuiltTree, MakeRoom};
use super::error::BuildError;
use super::memo::{Artifact, Made, Memo, Memos};
use super::planner::Planner;
use super::processes::{Artifacts, describe, processes};
use super::run::Run;
use super::space::Disks;
use super::turn::Turn;
use crate::cas::{Cas, CasError, StoredTree};
use crate::cgroup::BuildCap;
use crate::docker::{Engine, EngineError, Secrets};
use crate::public::Publisher;

/// Most names of variables without a value that are listed.
const MAX_UNSET: usize = 4;

/// What a builder needs.
pub struct Parts {
    /// The container engine.
    pub engine: Arc<dyn Engine>,
    /// Where trees go.
    pub publisher: Arc<dyn Publisher>,
    /// Where sources are.
    pub cas: Arc<Cas>,
    /// How a source is planned.
    pub planner: Arc<dyn Planner>,
    /// The cap on builds.
    pub cap: Arc<dyn BuildCap>,
    /// What frees memory first.
    pub room: Arc<dyn MakeRoom>,
    /// The disks that a build fills, besides the one of the engine's own folder.
    pub disks: Disks,
}

/// A builder's own folder, key and limits.
#[derive(Clone)]
pub struct Settings {
    /// Folder for memos and contexts, this builder's alone.
    pub folder: PathBuf,
    /// Secret of this server that memo keys are made with.
    pub memo_key: [u8; 32],
    /// How long a build may take, its turn not counted.
    pub timeout: Duration,
}

/// Builds one at a time.
pub struct EngineBuilder {
    pub(super) parts: Parts,
    pub(super) timeout: Duration,
    pub(super) contexts: PathBuf,
    pub(super) turn: Turn,
    memos: Memos,
}

impl std::fmt::Debug for EngineBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EngineBuilder").field("timeout", &self.timeout).finish_non_exhaustive()
    }
}

impl EngineBuilder {
    /// Opens the builder's folder and removes contexts that an earlier process left.
    ///
    /// # Errors
    /// When the folder cannot be made or emptied.
    pub fn open(parts: Parts, settings: Settings) -> io::Result<Self> {
        let contexts = settings.folder.join("contexts");
        match std::fs::remove_dir_all(&contexts) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        crate::durable::make_dir(&contexts, 0o700)?;
        let memos = Memos::open(&settings.folder.join("memos"), settings.memo_key)?;
        Ok(Self { parts, timeout: settings.timeout, contexts, memos, turn: Turn::default() })
    }
}

#[async_trait]
impl Builder for EngineBuilder {
    async fn build(
        &self,
        job: BuildJob,
        progress: mpsc::Sender<BuildProgress>,
        cancel: CancellationToken,
    ) -> Result<Built, BuildError> {
        let begun = Instant::now();
        let (tree, plan) = self.plan(&job).await?;
        let digest = PlanDigest(plan.digest());
        let arguments = arguments(&plan, &job.build_env);
        let unset = without_value(&plan, &arguments);
        announce(&plan, unset.as_ref(), &job, &progress).await;
        require(&plan, &job.build_env)?;

        let key = self.memos.key(&job.app, job.source, digest, &arguments);
        let known = self.still_there(self.memos.load(key), &plan).await?;
        let unchanged = known.is_some();
        let memo = match known {
            Some(memo) => memo,
            None => {
                let run = Run { builder: self, job: &job, tree: &tree, plan: &plan, arguments, progress: &progress };
                let memo = run.make(&cancel).await?;
                if let Err(error) = self.memos.save(key, &memo) {
                    tracing::warn!(%error, app = %job.app, "what was built cannot be remembered; it is built again next time");
                }
                memo
            }
        };
        let mut built = self.finish(&plan, digest, &memo).await?;
        built.notes.extend(unset);
        built.unchanged = unchanged;
        built.build_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        Ok(built)
    }
}

impl EngineBuilder {
    async fn plan(&self, job: &BuildJob) -> Result<(Arc<StoredTree>, Plan), BuildError> {
        let (cas, planner) = (Arc::clone(&self.parts.cas), Arc::clone(&self.parts.planner));
        let (source, folder, prebuilt) = (job.source, job.folder.clone(), job.prebuilt);
        let planned = blocking("plan the project", move || {
            let tree = cas.walk(&source.0).map_err(|error| lost(&cas, error))?;
            let plan = planner.plan(&cas, &tree, &folder, prebuilt)?;
            Ok((Arc::new(tree), plan))
        });
        planned.await
    }

    /// The memo, when it fits the plan and everything that it names is where it was.
    async fn still_there(&self, memo: Option<Memo>, plan: &Plan) -> Result<Option<Memo>, BuildError> {
        let Some(memo) = memo else { return Ok(None) };
        if !memo.made.iter().map(|made| made.name.as_str()).eq(plan.builds.iter().map(Build::name)) {
            return Ok(None);
        }
        for made in &memo.made {
            let there = match &made.artifact {
                Artifact::Image { digest } => {
                    self.parts.engine.image(digest).await.map_err(BuildError::Engine)?.is_some()
                }
                Artifact::Tree { digest, .. } => {
                    self.parts.publisher.contains(*digest).await.map_err(BuildError::Publish)?
                }
            };
            if !there {
                return Ok(None);
            }
        }
        Ok(Some(memo))
    }

    async fn finish(&self, plan: &Plan, plan_digest: PlanDigest, memo: &Memo) -> Result<Built, BuildError> {
        let (mut images, mut trees, mut artifacts) = (Vec::new(), Vec::new(), Artifacts::default());
        for Made { name, artifact } in &memo.made {
            match artifact {
                Artifact::Image { digest } => {
                    let info = self.parts.engine.image(digest).await.map_err(BuildError::Engine)?;
                    let info =
                        info.ok_or_else(|| BuildError::Engine(EngineError::NotFound(format!("the image {name}"))))?;
                    artifacts.images.insert(name.clone(), (digest.clone(), info.exposed_ports.first().copied()));
                    let (name, digest, size_bytes) = (name.clone(), digest.clone(), info.size_bytes);
                    images.push(BuiltImage { name, digest, size_bytes });
                }
                Artifact::Tree { digest, files, bytes } => {
                    artifacts.trees.insert(name.clone(), *digest);
                    trees.push(BuiltTree { name: name.clone(), digest: *digest, files: *files, bytes: *bytes });
                }
            }
        }
        let published = memo.notes.iter().map(|text| Note { warn: false, text: text.clone() });
        Ok(Built {
            plan_digest,
            processes: processes(plan, &artifacts)?,
            notes: plan.notes.iter().cloned().chain(published).collect(),
            shape: plan.shape.clone(),
            build_env: plan.build_env.clone(),
            build_ms: 0,
            unchanged: false,
            images,
            trees,
        })
    }
}

/// An object that is lost must be asked for again: what reaches it is forgotten, so that the next deploy sends it.
pub(super) fn lost(cas: &Cas, error: CasError) -> BuildError {
    if let CasError::Lost { path, digest } = &error {
        match cas.forget_dependents(digest) {
            Ok(forgotten) => tracing::warn!(%path, forgotten, "a part of an uploaded source is lost or damaged"),
            Err(error) => {
                tracing::error!(%path, %error, "a part of an uploaded source is damaged and cannot be removed")
            }
        }
    }
    BuildError::Source(error)
}

/// The build's arguments: the names that the plan lists, from the app's environment, else from the source.
fn arguments(plan: &Plan, env: &Secrets) -> Secrets {
    let listed = |name: &str| plan.build_env.iter().any(|listed| listed == name);
    let defaults = plan.build_env_defaults.iter().filter(|(name, _)| listed(name)).cloned();
    let set = env.0.iter().filter(|(name, _)| listed(name)).map(|(name, value)| (name.clone(), value.clone()));
    Secrets(defaults.chain(set).collect())
}

/// What must be set is asked for before a build is waited for.
fn require(plan: &Plan, env: &Secrets) -> Result<(), BuildError> {
    let names: Vec<String> = plan.required_env.iter().filter(|name| !env.0.contains_key(*name)).cloned().collect();
    if names.is_empty() { Ok(()) } else { Err(BuildError::EnvMissing { names }) }
}

/// What the build would publish and nobody has set. Many a page can do without; one that cannot is built without an error
/// and stays white.
fn without_value(plan: &Plan, arguments: &Secrets) -> Option<Note> {
    let names: Vec<&str> =
        plan.build_env.iter().map(String::as_str).filter(|name| !arguments.0.contains_key(*name)).collect();
    let first = names.first()?;
    let left = names.len().saturating_sub(MAX_UNSET);
    let shown = names[..names.len() - left].join(", ");
    let more = if left == 0 { String::new() } else { format!(" and {left} more") };
    let text = format!(
        "The build reads {shown}{more} and gets no value for {}. If the page stays white or misses its data, set what \
         it needs: `refloat env set {first}=VALUE`, or all at once: `refloat env import .env`.",
        if names.len() == 1 { "it" } else { "them" },
    );
    Some(Note { warn: false, text })
}

async fn announce(plan: &Plan, unset: Option<&Note>, job: &BuildJob, progress: &mpsc::Sender<BuildProgress>) {
    let processes = plan.processes.iter().map(describe).collect();
    let mut said = vec![BuildProgress::Plan { shape: plan.shape.clone(), processes }];
    let notes = plan.notes.iter().chain(unset);
    said.extend(notes.map(|note| BuildProgress::Note { warn: note.warn, text: note.text.clone() }));
    if job.local_plan.is_some_and(|local| local != plan.digest()) {
        let text = "the server plans this project differently from your refloat, and the server's plan counts: \
                    one of the two is newer (compare `refloat version`)";
        said.push(BuildProgress::Note { warn: false, text: text.to_owned() });
    }
    for piece in said {
        // Nobody has to listen.
        let _ = progress.send(piece).await;
    }
}

pub(super) async fn blocking<T: Send + 'static>(
    doing: &'static str,
    work: impl FnOnce() -> Result<T, BuildError> + Send + 'static,
) -> Result<T, BuildError> {
    let gone = |error: tokio::task::JoinError| BuildError::Server { doing, source: io::Error::other(error) };
    tokio::task::spawn_blocking(work).await.map_err(gone)?
}

#[cfg(test)]
#[path = "engine_builder_tests.rs"]
mod tests;
