//! The context of a build: a tar archive of a stored tree, the same bytes for the same tree.
//!
//! Times are 0, owners are 0, modes are 0644 or 0755, and the order is the tree's, so that nothing but content can
//! miss the engine's cache. Every file is hashed on its way: a damaged disk never reaches a build.

use std::ffi::OsStr;
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use refloat_plan::tree::Digest;
use tokio_util::sync::CancellationToken;

use super::ignore::Ignore;
use super::sources::{Cas, CasError, io_error};
use super::tree::{StoredEntry, StoredNode, StoredTree};

/// Name of the Dockerfile in the context. A file of the project by that name stays out.
pub const DOCKERFILE: &str = ".refloat.Dockerfile";

/// What goes into a context.
#[derive(Debug)]
pub struct ContextSpec<'a> {
    /// The project.
    pub tree: &'a StoredTree,
    /// Folder of the project, without slashes at its ends; empty for all of it.
    pub folder: &'a str,
    /// What stays out, in `.dockerignore` syntax, relative to the folder.
    pub ignore: &'a [String],
    /// Text of the Dockerfile.
    pub dockerfile: &'a str,
}

/// How much a context holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ContextSize {
    /// Files of the project.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Writes a context to `out`.
///
/// # Errors
/// When the folder does not exist, a file is lost or damaged, it was cancelled, or `out` cannot be written.
pub fn write_context(
    cas: &Cas,
    spec: &ContextSpec<'_>,
    out: &mut impl Write,
    cancel: &CancellationToken,
) -> Result<ContextSize, CasError> {
    let ignore = Ignore::new(spec.ignore);
    let mut archive = tar::Builder::new(out);
    let mut size = ContextSize::default();
    for entry in spec.tree.below(spec.folder)? {
        if cancel.is_cancelled() {
            return Err(CasError::Cancelled);
        }
        // A folder that is kept out may hold a file that is taken back: only what is written decides.
        if entry.path == DOCKERFILE.as_bytes() || ignore.excludes(&entry.path) {
            continue;
        }
        append(cas, &mut archive, &entry)?;
        if let StoredNode::File { size: bytes, .. } = entry.node {
            size.files += 1;
            size.bytes += bytes;
        }
    }
    let text = spec.dockerfile.as_bytes();
    let mut header = header(tar::EntryType::Regular, 0o644, text.len() as u64);
    archive.append_data(&mut header, DOCKERFILE, text).map_err(io_error("write the build context"))?;
    archive.into_inner().and_then(|out| out.flush()).map_err(io_error("write the build context"))?;
    Ok(size)
}

fn append<W: Write>(cas: &Cas, archive: &mut tar::Builder<W>, entry: &StoredEntry) -> Result<(), CasError> {
    let path = Path::new(OsStr::from_bytes(&entry.path));
    let written = match &entry.node {
        StoredNode::Directory => {
            let mut header = header(tar::EntryType::Directory, 0o755, 0);
            archive.append_data(&mut header, path, io::empty())
        }
        StoredNode::Symlink { target } => {
            let mut header = header(tar::EntryType::Symlink, 0o777, 0);
            archive.append_link(&mut header, path, Path::new(OsStr::from_bytes(target)))
        }
        StoredNode::File { digest, size, executable } => {
            let mut header = header(tar::EntryType::Regular, if *executable { 0o755 } else { 0o644 }, *size);
            let mut reader = Verified::new(cas.file(digest, &entry.path)?, *size);
            let written = archive.append_data(&mut header, path, &mut reader);
            if written.is_ok() && !reader.is(digest) {
                let path = String::from_utf8_lossy(&entry.path).into_owned();
                return Err(CasError::Lost { path, digest: *digest });
            }
            written
        }
    };
    written.map_err(io_error("write the build context"))
}

fn header(kind: tar::EntryType, mode: u32, size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(size);
    header
}

/// Reads exactly `size` bytes, as a tar entry needs them, and hashes them on the way. A file that became shorter reads as
/// zeros: its hash is wrong then, and that is what is reported.
pub(crate) struct Verified<R> {
    inner: R,
    left: u64,
    hasher: blake3::Hasher,
}

impl<R: Read> Verified<R> {
    pub(crate) fn new(inner: R, size: u64) -> Self {
        Self { inner, left: size, hasher: blake3::Hasher::new() }
    }

    /// Whether everything was read and hashes to `digest`.
    pub(crate) fn is(&self, digest: &Digest) -> bool {
        self.left == 0 && self.hasher.finalize().as_bytes() == digest
    }
}

impl<R: Read> Read for Verified<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let want = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let mut count = self.inner.read(&mut buffer[..want])?;
        if count == 0 && want > 0 {
            buffer[..want].fill(0);
            count = want;
        }
        self.hasher.update(&buffer[..count]);
        self.left -= count as u64;
        Ok(count)
    }
}
