//! The port, and the publication on disk behind it.

use std::io;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use refloat_model::{Canonical, FileTree, SourceDigest, TreeDigest};
use refloat_plan::tree::Digest;
use tokio::sync::mpsc;

use super::assembly::Assembly;
use super::{archive, folder};
use crate::cas::objects::{Layout, open_folder, open_temporary};
use crate::cas::{Batch, Cas, CasError, Objects, Writer};

/// Everybody may read what is public.
const PUBLIC: Layout = Layout { shards: true, mode: 0o644 };
/// Largest index in bytes: 100,000 files with long paths.
const MAX_INDEX_BYTES: u64 = 64 << 20;

/// Where the content of one tree goes: written in batches.
#[derive(Debug)]
pub(super) struct Blobs {
    objects: Arc<Objects>,
    batch: Batch,
}

impl Blobs {
    /// Whether content is here, or about to be.
    pub(super) fn holds(&self, digest: &Digest, size: u64) -> Result<bool, PublishError> {
        if self.batch.size(digest) == Some(size) {
            return Ok(true);
        }
        Ok(self.objects.size(digest).map_err(PublishError::store("look up a file"))? == Some(size))
    }

    pub(super) fn writer(&self) -> Result<Writer, PublishError> {
        self.objects.writer().map_err(PublishError::store("begin a file"))
    }

    pub(super) fn add(&mut self, writer: Writer, digest: Digest) -> Result<(), PublishError> {
        self.batch.add(writer, digest).map_err(PublishError::store("store a file"))
    }

    fn finish(mut self) -> Result<(), PublishError> {
        self.batch.flush().and_then(|()| self.objects.sync()).map_err(PublishError::store("sync a folder"))
    }
}

/// Publishes trees of static files. Every call is idempotent.
#[async_trait]
pub trait Publisher: Send + Sync + 'static {
    /// Publishes a folder of an uploaded source as it is. Empty is the root.
    async fn publish_folder(&self, source: SourceDigest, folder: &str) -> Result<Published, PublishError>;
    /// Publishes a tar archive that arrives in chunks. The end of the channel is the end of the archive: whoever sends
    /// knows whether it was all, and forgets the result when it was not.
    async fn publish_archive(&self, chunks: mpsc::Receiver<Vec<u8>>) -> Result<Published, PublishError>;
    /// Whether the tree is there with everything that it names.
    async fn contains(&self, tree: TreeDigest) -> Result<bool, PublishError>;
}

/// A tree that was published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// Its identity.
    pub tree: TreeDigest,
    /// How many files it has.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Sentences about what is not in it.
    pub notes: Vec<String>,
}

/// Why a tree cannot be published.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// There is nothing in it.
    #[error("there is no file to publish: the build put nothing into its output folder")]
    Empty,
    /// A link leaves the tree.
    #[error("{link:?} points outside the folder that is published; replace it by a copy of the file")]
    LinkLeaves {
        /// Its path.
        link: String,
    },
    /// A limit.
    #[error("the site has {found} {what}; the limit is {limit}")]
    OverLimit {
        /// Of what.
        what: &'static str,
        /// How much there is.
        found: u64,
        /// How much may be.
        limit: u64,
    },
    /// The archive that the engine sent.
    #[error("the files that the build made cannot be read")]
    Archive(#[source] io::Error),
    /// The uploaded source.
    #[error("the uploaded project cannot be read")]
    Source(#[source] CasError),
    /// The disk.
    #[error("cannot {doing} in the public folder")]
    Store {
        /// What was tried.
        doing: &'static str,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The thread that did it is gone.
    #[error("publishing was interrupted")]
    Interrupted,
}

impl PublishError {
    pub(super) fn store(doing: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Store { doing, source }
    }
}

/// The publication on disk.
#[derive(Debug, Clone)]
pub struct Publication {
    cas: Arc<Cas>,
    blobs: Arc<Objects>,
    trees: Arc<Objects>,
}

impl Publication {
    /// Opens the public folder, made when it is missing, and removes what an earlier process left unfinished. One
    /// process writes to it; anybody may read.
    ///
    /// # Errors
    /// When the folder cannot be made or opened.
    pub fn open(path: &Path, cas: Arc<Cas>) -> Result<Self, PublishError> {
        let open = || -> io::Result<Self> {
            let root = open_folder(path, 0o755)?;
            let temporary = open_temporary(&root)?;
            let blobs = Objects::open(&root, "blob", Arc::clone(&temporary), PUBLIC)?;
            let trees = Objects::open(&root, "tree", temporary, Layout { shards: false, ..PUBLIC })?;
            Ok(Self { cas, blobs: Arc::new(blobs), trees: Arc::new(trees) })
        };
        open().map_err(PublishError::store("open a folder"))
    }

    /// Blocking: as [`Publisher::publish_folder`].
    ///
    /// # Errors
    /// As there.
    pub fn publish_folder_blocking(&self, source: SourceDigest, name: &str) -> Result<Published, PublishError> {
        let mut blobs = self.blobs();
        let assembly = folder::read(&self.cas, &source.0, name, &mut blobs)?;
        self.complete(assembly, blobs)
    }

    /// Blocking: as [`Publisher::publish_archive`], from any reader.
    ///
    /// # Errors
    /// As there.
    pub fn publish_archive_blocking(&self, archive: impl io::Read) -> Result<Published, PublishError> {
        let mut blobs = self.blobs();
        let assembly = archive::read(archive, &mut blobs)?;
        self.complete(assembly, blobs)
    }

    /// Blocking: as [`Publisher::contains`].
    ///
    /// # Errors
    /// When the disk cannot answer.
    pub fn contains_blocking(&self, tree: TreeDigest) -> Result<bool, PublishError> {
        let Some(index) = self.index(tree)? else { return Ok(false) };
        for file in &index.files {
            if self.blobs.size(&file.blob).map_err(PublishError::store("look up a file"))? != Some(file.size) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// A tree's index, or `None` when it is not there or damaged.
    ///
    /// # Errors
    /// When the disk cannot answer.
    pub fn index(&self, tree: TreeDigest) -> Result<Option<FileTree>, PublishError> {
        let bytes = match self.trees.read(&tree.0, MAX_INDEX_BYTES) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(PublishError::store("read an index")(error)),
        };
        Ok(FileTree::from_canonical(&bytes).ok().filter(|index| index.tree_digest() == tree))
    }

    fn blobs(&self) -> Blobs {
        Blobs { objects: Arc::clone(&self.blobs), batch: Batch::default() }
    }

    /// Makes the content durable, then the index visible, then the index durable.
    fn complete(&self, assembly: Assembly, blobs: Blobs) -> Result<Published, PublishError> {
        let (index, notes) = assembly.finish()?;
        let tree = index.tree_digest();
        blobs.finish()?;
        if self.index(tree)?.is_none() {
            // An index that is there and damaged is replaced, too.
            self.trees.replace(&tree.0, &index.to_canonical()).map_err(PublishError::store("write an index"))?;
        }
        self.trees.sync().map_err(PublishError::store("sync a folder"))?;
        let bytes = index.files.iter().map(|file| file.size).sum();
        Ok(Published { tree, files: index.files.len() as u64, bytes, notes })
    }
}

#[async_trait]
impl Publisher for Publication {
    async fn publish_folder(&self, source: SourceDigest, folder: &str) -> Result<Published, PublishError> {
        let (own, folder) = (self.clone(), folder.to_owned());
        blocking(move || own.publish_folder_blocking(source, &folder)).await
    }

    async fn publish_archive(&self, chunks: mpsc::Receiver<Vec<u8>>) -> Result<Published, PublishError> {
        let own = self.clone();
        blocking(move || own.publish_archive_blocking(archive::Chunks::new(chunks))).await
    }

    async fn contains(&self, tree: TreeDigest) -> Result<bool, PublishError> {
        let own = self.clone();
        blocking(move || own.contains_blocking(tree)).await
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, PublishError> + Send + 'static,
) -> Result<T, PublishError> {
    tokio::task::spawn_blocking(work).await.unwrap_or(Err(PublishError::Interrupted))
}

#[cfg(test)]
#[path = "publisher_tests.rs"]
mod tests;
