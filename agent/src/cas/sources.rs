//! The store of uploaded sources.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::sync::Arc;

use cap_std::fs::File;
use refloat_plan::tree::{Digest, Directory, MAX_DEPTH, Node, TreeError};

use super::batch::Batch;
use super::intake::Intake;
use super::objects::{Layout, Objects, open_folder, open_temporary};

/// Largest encoding of one directory in bytes: 50,000 entries with names of a usual length.
pub const MAX_DIRECTORY_BYTES: u64 = 16 << 20;

/// Only this process reads sources.
const PRIVATE: Layout = Layout { shards: false, mode: 0o600 };

/// Why a source cannot be stored or read.
#[derive(Debug, thiserror::Error)]
pub enum CasError {
    /// The disk.
    #[error("cannot {doing} in the source store")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Bytes that are not what they were called.
    #[error("the bytes received do not hash to {expected}")]
    WrongDigest {
        /// What they were called.
        expected: String,
    },
    /// A directory that no tree may have.
    #[error("a folder of the project cannot be taken")]
    Tree(#[source] TreeError),
    /// A directory came before something in it, or says a size that is not its file's.
    #[error("the folder record names {name:?}, which is not here with that size and content")]
    ChildMissing {
        /// Its name in the directory.
        name: String,
    },
    /// An object that a tree needs is not here, or no longer what it was.
    #[error("a part of the uploaded project is not on this server any more ({path})")]
    Lost {
        /// Where in the tree.
        path: String,
        /// What it is called.
        digest: Digest,
    },
    /// A whole tree over a limit.
    #[error("the project has {found} {what}; the limit is {limit}")]
    OverLimit {
        /// Of what.
        what: &'static str,
        /// How much there is.
        found: u64,
        /// How much may be.
        limit: u64,
    },
    /// There is no such folder in the tree.
    #[error("the project has no folder {0:?}")]
    NoFolder(String),
    /// It was cancelled.
    #[error("it was cancelled")]
    Cancelled,
}

pub(crate) fn io_error(doing: &'static str) -> impl FnOnce(io::Error) -> CasError {
    move |source| CasError::Io { doing, source }
}

/// What the store lacks.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Missing {
    /// Directories.
    pub directories: Vec<Digest>,
    /// Files.
    pub files: Vec<Digest>,
}

/// The store. Every call blocks on the disk: call it from a blocking thread.
#[derive(Debug)]
pub struct Cas {
    pub(super) directories: Arc<Objects>,
    pub(super) files: Arc<Objects>,
}

impl Cas {
    /// Opens the store, made when it is missing, and removes what an earlier process left unfinished. One process owns
    /// the folder.
    ///
    /// # Errors
    /// When the folder cannot be made or opened.
    pub fn open(path: &Path) -> Result<Self, CasError> {
        let open = || -> io::Result<Self> {
            let root = open_folder(path, 0o700)?;
            let temporary = open_temporary(&root)?;
            let directories = Objects::open(&root, "directory", Arc::clone(&temporary), PRIVATE)?;
            let files = Objects::open(&root, "file", temporary, PRIVATE)?;
            Ok(Self { directories: Arc::new(directories), files: Arc::new(files) })
        };
        open().map_err(io_error("open a folder"))
    }

    /// Which of these objects are not here, in the order asked. A directory that is here has everything below it.
    ///
    /// # Errors
    /// When the disk cannot answer.
    pub fn missing(&self, directories: &[Digest], files: &[Digest]) -> Result<Missing, CasError> {
        Ok(Missing { directories: lacking(&self.directories, directories)?, files: lacking(&self.files, files)? })
    }

    /// Begins to take in an upload.
    #[must_use]
    pub fn intake(self: &Arc<Self>) -> Intake {
        Intake { cas: Arc::clone(self), batch: Batch::default() }
    }

    /// Bytes that the store's disk has left for programs without special rights.
    ///
    /// # Errors
    /// When the disk cannot answer.
    pub fn free_bytes(&self) -> Result<u64, CasError> {
        self.files.free_bytes().map_err(io_error("ask for free space"))
    }

    /// Reads a directory that lies `depth` levels below its root at `path`.
    ///
    /// # Errors
    /// When it is lost or damaged, or breaks a rule at that depth.
    pub fn directory(&self, digest: &Digest, depth: usize, path: &[u8]) -> Result<Directory, CasError> {
        let lost = || CasError::Lost { path: String::from_utf8_lossy(path).into_owned(), digest: *digest };
        let encoded = match self.directories.read(digest, MAX_DIRECTORY_BYTES) {
            Ok(encoded) => encoded,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(lost()),
            Err(error) => return Err(io_error("read a folder record")(error)),
        };
        if Directory::digest_of(&encoded) != *digest {
            return Err(lost());
        }
        Directory::decode(&encoded, depth).map_err(CasError::Tree)
    }

    /// Opens a file for reading. Its bytes are not verified here: whoever streams them hashes them.
    ///
    /// # Errors
    /// When it is not here.
    pub fn file(&self, digest: &Digest, path: &[u8]) -> Result<File, CasError> {
        self.files.open_object(digest).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => {
                CasError::Lost { path: String::from_utf8_lossy(path).into_owned(), digest: *digest }
            }
            _ => io_error("read a file")(error),
        })
    }

    /// Removes an object that is lost or damaged and every directory that reaches it, so that the next upload sends them
    /// again. Answers how many objects went.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn forget_dependents(&self, digest: &Digest) -> Result<usize, CasError> {
        let mut gone = BTreeSet::from([*digest]);
        let records = self.readable_directories()?;
        loop {
            let before = gone.len();
            for (own, below) in &records {
                if below.iter().any(|digest| gone.contains(digest)) {
                    gone.insert(*own);
                }
            }
            if gone.len() == before {
                break;
            }
        }
        for own in &gone {
            self.directories.remove(own).map_err(io_error("remove a folder record"))?;
        }
        self.files.remove(digest).map_err(io_error("remove a file"))?;
        Ok(gone.len())
    }

    /// Each stored directory with what it names.
    fn readable_directories(&self) -> Result<Vec<(Digest, Vec<Digest>)>, CasError> {
        let all = self.directories.digests().map_err(io_error("list folder records"))?;
        let read = |digest: Digest| {
            let below = self.directory(&digest, MAX_DEPTH, b"").map_or(Vec::new(), |directory| {
                directory.entries.iter().filter_map(|entry| node_digest(&entry.node)).collect()
            });
            (digest, below)
        };
        Ok(all.into_iter().map(read).collect())
    }
}

fn node_digest(node: &Node) -> Option<Digest> {
    match node {
        Node::File { digest, .. } | Node::Directory { digest } => Some(*digest),
        Node::Symlink { .. } => None,
    }
}

fn lacking(objects: &Objects, asked: &[Digest]) -> Result<Vec<Digest>, CasError> {
    let mut lacking = Vec::new();
    for digest in asked {
        if objects.size(digest).map_err(io_error("look up an object"))?.is_none() {
            lacking.push(*digest);
        }
    }
    Ok(lacking)
}

#[cfg(test)]
#[path = "sources_tests.rs"]
mod tests;
