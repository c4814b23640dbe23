//! The store of uploaded sources.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

use cap_std::fs::File;
use refloat_plan::tree::{Digest, Directory, MAX_DEPTH, MAX_FILE_BYTES, Node, TreeError};

use super::objects::{Layout, Objects, Writer, hex, open_folder, open_temporary};

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
    directories: Arc<Objects>,
    files: Arc<Objects>,
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

    /// Stores a directory's encoding. Everything in it must be here already, with the sizes that it says.
    ///
    /// # Errors
    /// When it is not what it is called, breaks a rule of trees, or names what is not here.
    pub fn put_directory(&self, digest: &Digest, encoded: &[u8]) -> Result<(), CasError> {
        if Directory::digest_of(encoded) != *digest {
            return Err(CasError::WrongDigest { expected: hex(digest) });
        }
        // How deep it will lie is not known yet: links are checked against their real depth when a root is walked.
        let directory = Directory::decode(encoded, MAX_DEPTH).map_err(CasError::Tree)?;
        for entry in &directory.entries {
            if !self.holds(&entry.node)? {
                return Err(CasError::ChildMissing { name: String::from_utf8_lossy(&entry.name).into_owned() });
            }
        }
        self.directories.put(digest, encoded).map_err(io_error("write a folder record"))
    }

    /// Begins a file of `size` bytes.
    ///
    /// # Errors
    /// When it is larger than a file may be, or no temporary file can be made.
    pub fn file_writer(&self, digest: &Digest, size: u64) -> Result<FileWriter, CasError> {
        if size > MAX_FILE_BYTES {
            return Err(CasError::OverLimit { what: "bytes in one file", found: size, limit: MAX_FILE_BYTES });
        }
        let writer = self.files.writer().map_err(io_error("begin a file"))?;
        Ok(FileWriter { writer, hasher: blake3::Hasher::new(), digest: *digest, size })
    }

    /// Whether the file is here with that size.
    ///
    /// # Errors
    /// When the disk cannot answer.
    pub fn holds_file(&self, digest: &Digest, size: u64) -> Result<bool, CasError> {
        Ok(self.files.size(digest).map_err(io_error("look up a file"))? == Some(size))
    }

    /// Bytes that the store's disk has left for programs without special rights.
    ///
    /// # Errors
    /// When the disk cannot answer.
    pub fn free_bytes(&self) -> Result<u64, CasError> {
        self.files.free_bytes().map_err(io_error("ask for free space"))
    }

    /// Makes everything stored so far durable: before it answers, an upload must not be acknowledged.
    ///
    /// # Errors
    /// When a sync fails.
    pub fn sync(&self) -> Result<(), CasError> {
        // Files first: a directory is durable only after what it names.
        self.files.sync().and_then(|()| self.directories.sync()).map_err(io_error("sync a folder"))
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

    fn holds(&self, node: &Node) -> Result<bool, CasError> {
        match node {
            Node::File { digest, size, .. } => self.holds_file(digest, *size),
            Node::Directory { digest } => {
                Ok(self.directories.size(digest).map_err(io_error("look up a folder record"))?.is_some())
            }
            Node::Symlink { .. } => Ok(true),
        }
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

/// A file that is being received. Dropped before it is committed, it leaves nothing.
#[derive(Debug)]
pub struct FileWriter {
    writer: Writer,
    hasher: blake3::Hasher,
    digest: Digest,
    size: u64,
}

impl FileWriter {
    /// Takes more of its bytes.
    ///
    /// # Errors
    /// When they are more than it was said to have, or cannot be written.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), CasError> {
        let found = self.writer.written() + bytes.len() as u64;
        if found > self.size {
            return Err(CasError::OverLimit { what: "bytes in a file", found, limit: self.size });
        }
        self.hasher.update(bytes);
        self.writer.write_all(bytes).map_err(io_error("write a file"))
    }

    /// Verifies and stores it.
    ///
    /// # Errors
    /// When the bytes are not what they were called, or cannot be synced.
    pub fn commit(self) -> Result<(), CasError> {
        if *self.hasher.finalize().as_bytes() != self.digest || self.writer.written() != self.size {
            return Err(CasError::WrongDigest { expected: hex(&self.digest) });
        }
        self.writer.commit(&self.digest).map_err(io_error("store a file"))
    }
}

#[cfg(test)]
#[path = "sources_tests.rs"]
mod tests;
