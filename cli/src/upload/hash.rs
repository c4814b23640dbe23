//! Digests of many files at once. A file that changes while it is read is an error, never a wrong digest.

use std::io::Read as _;
use std::num::NonZero;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use refloat_plan::tree::Digest;

use super::walk::{FoundFile, Walked};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::unix;

const BUFFER_BYTES: usize = 256 << 10;
/// More threads than this wait for the disk, not for each other.
const MAX_THREADS: usize = 8;

/// Digest of every file of a source, in their order.
pub(super) fn hash_all(walked: &Walked) -> Result<Vec<Digest>, Failure> {
    let next = AtomicUsize::new(0);
    let results = Mutex::new(vec![[0; 32]; walked.files.len()]);
    let work = || -> Result<(), Failure> {
        let mut buffer = vec![0; BUFFER_BYTES];
        while let Some((index, file)) = take(&next, &walked.files) {
            let digest = hash_file(&walked.root, file, &mut buffer)?;
            if let Ok(mut results) = results.lock() {
                results[index] = digest;
            }
        }
        Ok(())
    };
    let outcomes: Vec<Result<(), Failure>> = thread::scope(|scope| {
        let threads: Vec<_> = (0..threads(walked.files.len())).map(|_| scope.spawn(work)).collect();
        threads.into_iter().map(|t| t.join().unwrap_or_else(|_| Err(broken()))).collect()
    });
    outcomes.into_iter().collect::<Result<(), _>>()?;
    results.into_inner().map_err(|_| broken())
}

fn take<'a>(next: &AtomicUsize, files: &'a [FoundFile]) -> Option<(usize, &'a FoundFile)> {
    let index = next.fetch_add(1, Ordering::Relaxed);
    Some((index, files.get(index)?))
}

fn threads(files: usize) -> usize {
    let cores = thread::available_parallelism().map_or(1, NonZero::get);
    cores.min(MAX_THREADS).min(files)
}

fn broken() -> Failure {
    Failure::new(Exit::Failed, "Hashing the source ended unexpectedly.")
}

fn hash_file(root: &Path, file: &FoundFile, buffer: &mut [u8]) -> Result<Digest, Failure> {
    let mut hasher = blake3::Hasher::new();
    read_file(root, file, buffer, |bytes| {
        hasher.update(bytes);
        Ok(())
    })?;
    Ok(*hasher.finalize().as_bytes())
}

/// Reads a file in pieces, and makes sure that it is as long as it was when it was found.
pub(super) fn read_file(
    root: &Path,
    file: &FoundFile,
    buffer: &mut [u8],
    mut take: impl FnMut(&[u8]) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let failed = |e: &std::io::Error| {
        Failure::new(Exit::Configuration, format!("{} cannot be read: {e}", file.path.display())).reason("SOURCE")
    };
    let mut opened = unix::open_file(&root.join(&file.path)).map_err(|e| failed(&e))?;
    let before = opened.metadata().and_then(|m| Ok((m.len(), m.modified()?))).map_err(|e| failed(&e))?;
    let mut read = 0;
    loop {
        let count = opened.read(buffer).map_err(|e| failed(&e))?;
        read += count as u64;
        if count == 0 || read > file.size {
            break;
        }
        take(&buffer[..count])?;
    }
    let after = opened.metadata().and_then(|m| Ok((m.len(), m.modified()?))).map_err(|e| failed(&e))?;
    if read != file.size || before != after || before.0 != file.size { Err(changed(file)) } else { Ok(()) }
}

/// A file changed under our hands.
pub(super) fn changed(file: &FoundFile) -> Failure {
    let what = format!("{} changed while it was read. Deploy again when nothing writes to it.", file.path.display());
    Failure::new(Exit::Failed, what).reason("SOURCE_CHANGED").still_fine("Nothing was changed on the server.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_another_size_than_the_one_found_has_changed() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("a"), "four").expect("written");
        let file = |size| FoundFile { path: "a".into(), size, executable: false };
        let mut buffer = [0; 3];
        let hash = |size, buffer: &mut [u8]| hash_file(folder.path(), &file(size), buffer);
        assert_eq!(hash(4, &mut buffer), Ok(*blake3::hash(b"four").as_bytes()));
        for size in [0, 3, 5] {
            assert_eq!(hash(size, &mut buffer).expect_err("it changed").reason.as_ref(), "SOURCE_CHANGED");
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_link_that_took_a_files_place_is_not_followed() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("secret"), "four").expect("written");
        std::os::unix::fs::symlink("secret", folder.path().join("a")).expect("linked");
        let file = FoundFile { path: "a".into(), size: 4, executable: false };
        assert!(hash_file(folder.path(), &file, &mut [0; 8]).is_err());
    }
}
