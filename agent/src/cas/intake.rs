//! One upload being taken in: verified object by object, made visible in batches, acknowledged at its end.

use std::io::Write;
use std::sync::Arc;

use refloat_plan::tree::{Digest, Directory, MAX_DEPTH, MAX_FILE_BYTES, Node};

use super::batch::Batch;
use super::objects::{Objects, Writer, hex};
use super::sources::{Cas, CasError, io_error};

/// Takes in objects. Dropped before [`Intake::finish`] or [`Intake::keep`], it leaves out what came last.
#[derive(Debug)]
pub struct Intake {
    pub(super) cas: Arc<Cas>,
    pub(super) batch: Batch,
}

impl Intake {
    /// The store.
    #[must_use]
    pub fn cas(&self) -> &Arc<Cas> {
        &self.cas
    }

    /// Takes a directory's encoding. Everything in it must have come before, with the sizes that it says.
    ///
    /// # Errors
    /// When it is not what it is called, breaks a rule of trees, or names what is not here.
    pub fn directory(&mut self, digest: &Digest, encoded: &[u8]) -> Result<(), CasError> {
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
        let mut writer = self.cas.directories.writer().map_err(io_error("begin a folder record"))?;
        writer.write_all(encoded).map_err(io_error("write a folder record"))?;
        self.batch.add(writer, *digest).map_err(io_error("store a folder record"))
    }

    /// Begins a file of `size` bytes.
    ///
    /// # Errors
    /// When it is larger than a file may be, or no temporary file can be made.
    pub fn file_writer(&self, digest: &Digest, size: u64) -> Result<FileWriter, CasError> {
        if size > MAX_FILE_BYTES {
            return Err(CasError::OverLimit { what: "bytes in one file", found: size, limit: MAX_FILE_BYTES });
        }
        let writer = self.cas.files.writer().map_err(io_error("begin a file"))?;
        Ok(FileWriter { writer, hasher: blake3::Hasher::new(), digest: *digest, size })
    }

    /// Takes a file that is complete.
    ///
    /// # Errors
    /// When the bytes are not what they were called, or cannot be synced.
    pub fn file(&mut self, file: FileWriter) -> Result<(), CasError> {
        if *file.hasher.finalize().as_bytes() != file.digest || file.writer.written() != file.size {
            return Err(CasError::WrongDigest { expected: hex(&file.digest) });
        }
        self.batch.add(file.writer, file.digest).map_err(io_error("store a file"))
    }

    /// Makes what has come so far visible, without a promise that its names outlive a power cut.
    ///
    /// # Errors
    /// When a sync fails.
    pub fn keep(&mut self) -> Result<(), CasError> {
        self.batch.flush().map_err(io_error("store an object"))
    }

    /// Makes everything durable: before it answers, an upload must not be acknowledged.
    ///
    /// # Errors
    /// When a sync fails.
    pub fn finish(mut self) -> Result<(), CasError> {
        self.keep()?;
        // Files first: a directory is durable only after what it names.
        let Cas { files, directories } = &*self.cas;
        files.sync().and_then(|()| directories.sync()).map_err(io_error("sync a folder"))
    }

    fn holds(&self, node: &Node) -> Result<bool, CasError> {
        match node {
            Node::File { digest, size, .. } => Ok(self.size(&self.cas.files, digest)? == Some(*size)),
            Node::Directory { digest } => Ok(self.size(&self.cas.directories, digest)?.is_some()),
            Node::Symlink { .. } => Ok(true),
        }
    }

    /// Files and directories are hashed in different domains, so a digest stands for one of them only.
    fn size(&self, objects: &Objects, digest: &Digest) -> Result<Option<u64>, CasError> {
        match self.batch.size(digest) {
            Some(size) => Ok(Some(size)),
            None => objects.size(digest).map_err(io_error("look up an object")),
        }
    }
}

/// A file that is being received. Dropped before it is handed to [`Intake::file`], it leaves nothing.
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
}
