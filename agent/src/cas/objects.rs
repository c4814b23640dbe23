//! A folder of objects that are named by their content: written beside, synced, then renamed into place.

use std::collections::BTreeSet;
use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use cap_std::ambient_authority;
use cap_std::fs::{Dir, DirBuilder, DirBuilderExt, File, OpenOptions, OpenOptionsExt, Permissions, PermissionsExt};
use refloat_plan::tree::Digest;

/// Makes the names of temporary files differ within this process.
static SERIAL: AtomicU64 = AtomicU64::new(0);

/// Who may read the objects, and how they are spread.
#[derive(Debug, Clone, Copy)]
pub struct Layout {
    /// Whether objects lie in 256 folders by their first two digits.
    pub shards: bool,
    /// Mode of the objects: 0600 for this process alone, 0644 for everybody. Folders get the matching search bits.
    pub mode: u32,
}

impl Layout {
    fn folder_mode(self) -> u32 {
        // Who may read an object may search the folder.
        self.mode | ((self.mode & 0o444) >> 2)
    }
}

/// Opens a folder by path, made when it is missing, and sets its mode.
pub(crate) fn open_folder(path: &Path, mode: u32) -> io::Result<Dir> {
    std::fs::create_dir_all(path)?;
    let dir = Dir::open_ambient_dir(path, ambient_authority())?;
    dir.set_permissions(".", Permissions::from_mode(mode))?;
    Ok(dir)
}

/// Opens a folder for temporary files and removes what an earlier process left in it.
pub(crate) fn open_temporary(parent: &Dir) -> io::Result<Arc<Dir>> {
    let dir = subfolder(parent, "temporary", 0o700)?;
    for entry in dir.entries()? {
        dir.remove_file(entry?.file_name())?;
    }
    Ok(Arc::new(dir))
}

fn subfolder(parent: &Dir, name: &str, mode: u32) -> io::Result<Dir> {
    match parent.create_dir_with(name, DirBuilder::new().mode(mode)) {
        Ok(()) => sync_folder(parent)?,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error),
    }
    let dir = parent.open_dir(name)?;
    // The process's umask may have taken bits away.
    dir.set_permissions(".", Permissions::from_mode(mode))?;
    Ok(dir)
}

/// Makes the names in a folder durable.
pub(crate) fn sync_folder(dir: &Dir) -> io::Result<()> {
    dir.open(".")?.sync_all()
}

/// The 64 digits of a digest.
pub(crate) fn hex(digest: &Digest) -> String {
    blake3::Hash::from_bytes(*digest).to_hex().to_string()
}

/// A folder of objects.
#[derive(Debug)]
pub struct Objects {
    folder: Dir,
    temporary: Arc<Dir>,
    layout: Layout,
    /// Shards with names that are not durable yet; the empty name stands for the folder itself.
    unsynced: Mutex<BTreeSet<String>>,
}

impl Objects {
    /// Opens the folder `name`, made when it is missing. Its temporary files go to `temporary`, on the same disk.
    ///
    /// # Errors
    /// When the folder cannot be made or opened.
    pub fn open(parent: &Dir, name: &str, temporary: Arc<Dir>, layout: Layout) -> io::Result<Self> {
        let folder = subfolder(parent, name, layout.folder_mode())?;
        Ok(Self { folder, temporary, layout, unsynced: Mutex::new(BTreeSet::new()) })
    }

    /// Size of an object in bytes, or `None` when it is not here.
    ///
    /// # Errors
    /// When the disk cannot answer.
    pub fn size(&self, digest: &Digest) -> io::Result<Option<u64>> {
        match self.folder.symlink_metadata(self.path(digest)) {
            Ok(meta) if meta.is_file() => Ok(Some(meta.len())),
            Ok(_) => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Opens an object for reading.
    ///
    /// # Errors
    /// When it is not here or cannot be read.
    pub fn open_object(&self, digest: &Digest) -> io::Result<File> {
        self.folder.open(self.path(digest))
    }

    /// Reads a whole object, at most `limit` bytes.
    ///
    /// # Errors
    /// When it is not here, is larger, or cannot be read.
    pub fn read(&self, digest: &Digest, limit: u64) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.open_object(digest)?.take(limit + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > limit {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("larger than {limit} bytes")));
        }
        Ok(bytes)
    }

    /// Begins an object. Nothing of it is visible before [`Writer::commit`].
    ///
    /// # Errors
    /// When no temporary file can be made.
    pub fn writer(self: &Arc<Self>) -> io::Result<Writer> {
        let name = format!("{}-{}", std::process::id(), SERIAL.fetch_add(1, Ordering::Relaxed));
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(0o600);
        let file = self.temporary.open_with(&name, &options)?;
        Ok(Writer { objects: Arc::clone(self), file, name, written: 0, committed: false })
    }

    /// Stores bytes under a digest that the caller has computed from them. Does nothing when they are here.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn put(self: &Arc<Self>, digest: &Digest, bytes: &[u8]) -> io::Result<()> {
        if self.size(digest)? == Some(bytes.len() as u64) { Ok(()) } else { self.replace(digest, bytes) }
    }

    /// Stores bytes under a digest, whatever is there now.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn replace(self: &Arc<Self>, digest: &Digest, bytes: &[u8]) -> io::Result<()> {
        let mut writer = self.writer()?;
        writer.write_all(bytes)?;
        writer.commit(digest)
    }

    /// Every digest here, in no order. Names that are not digests are left out.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn digests(&self) -> io::Result<Vec<Digest>> {
        let mut found = Vec::new();
        for entry in self.folder.entries()? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                for inner in entry.open_dir()?.entries()? {
                    found.extend(parse(&inner?.file_name()));
                }
            } else {
                found.extend(parse(&entry.file_name()));
            }
        }
        Ok(found)
    }

    /// Removes an object; one that is not here is removed already.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn remove(&self, digest: &Digest) -> io::Result<()> {
        self.folder.remove_file(self.path(digest)).or_else(|error| match error.kind() {
            io::ErrorKind::NotFound => Ok(()),
            _ => Err(error),
        })
    }

    /// Makes the names of everything that was committed so far durable.
    ///
    /// # Errors
    /// When a sync fails: then nothing may be acknowledged.
    pub fn sync(&self) -> io::Result<()> {
        let shards = std::mem::take(&mut *self.unsynced.lock().unwrap_or_else(PoisonError::into_inner));
        let synced = shards.iter().try_for_each(|shard| match shard.as_str() {
            "" => sync_folder(&self.folder),
            name => sync_folder(&self.folder.open_dir(name)?),
        });
        if synced.is_err() {
            self.unsynced.lock().unwrap_or_else(PoisonError::into_inner).extend(shards);
        }
        synced
    }

    /// Bytes that the disk has left for programs without special rights.
    ///
    /// # Errors
    /// When the disk cannot answer.
    pub fn free_bytes(&self) -> io::Result<u64> {
        let stat = rustix::fs::fstatvfs(self.folder.open(".")?)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    fn path(&self, digest: &Digest) -> String {
        let name = hex(digest);
        if self.layout.shards { format!("{}/{name}", &name[..2]) } else { name }
    }

    fn install(&self, temporary: &str, digest: &Digest) -> io::Result<()> {
        let path = self.path(digest);
        let shard = path.split_once('/').map_or(String::new(), |(shard, _)| shard.to_owned());
        if !shard.is_empty() && !self.folder.try_exists(&shard)? {
            subfolder(&self.folder, &shard, self.layout.folder_mode())?;
        }
        self.temporary.rename(temporary, &self.folder, &path)?;
        self.unsynced.lock().unwrap_or_else(PoisonError::into_inner).insert(shard);
        Ok(())
    }
}

fn parse(name: &std::ffi::OsStr) -> Option<Digest> {
    let text = name.to_str().filter(|text| text.len() == 64)?;
    blake3::Hash::from_hex(text).ok().map(|hash| *hash.as_bytes())
}

/// An object that is being written. Dropped before it is committed, it leaves nothing.
#[derive(Debug)]
pub struct Writer {
    objects: Arc<Objects>,
    file: File,
    name: String,
    written: u64,
    committed: bool,
}

impl Writer {
    /// Bytes written so far.
    #[must_use]
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Syncs the bytes and makes them visible under a digest that the caller has computed from them. The name itself is
    /// durable after [`Objects::sync`].
    ///
    /// # Errors
    /// When they cannot be synced or renamed.
    pub fn commit(self, digest: &Digest) -> io::Result<()> {
        self.sync()?;
        self.install(digest)
    }

    /// Syncs the bytes.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.set_permissions(Permissions::from_mode(self.objects.layout.mode))?;
        self.file.sync_all()
    }

    /// Makes bytes that were synced visible.
    pub(super) fn install(mut self, digest: &Digest) -> io::Result<()> {
        self.objects.install(&self.name, digest)?;
        self.committed = true;
        Ok(())
    }
}

impl Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.file.write(bytes)?;
        self.written += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if !self.committed {
            // What stays behind after a failure here is removed at the next start.
            let _ = self.objects.temporary.remove_file(&self.name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn objects(root: &Path, layout: Layout) -> (Dir, Arc<Objects>) {
        let parent = open_folder(root, 0o755).unwrap();
        let temporary = open_temporary(&parent).unwrap();
        let objects = Arc::new(Objects::open(&parent, "blob", temporary, layout).unwrap());
        (parent, objects)
    }

    fn digest(bytes: &[u8]) -> Digest {
        *blake3::hash(bytes).as_bytes()
    }

    #[test]
    fn an_object_is_visible_only_after_its_commit_and_leaves_nothing_when_dropped() {
        let root = tempfile::tempdir().unwrap();
        let (parent, objects) = objects(root.path(), Layout { shards: false, mode: 0o600 });
        let mut writer = objects.writer().unwrap();
        writer.write_all(b"half").unwrap();
        assert_eq!(objects.size(&digest(b"half")).unwrap(), None);
        drop(writer);
        assert_eq!(parent.open_dir("temporary").unwrap().entries().unwrap().count(), 0);

        objects.put(&digest(b"whole"), b"whole").unwrap();
        objects.sync().unwrap();
        assert_eq!(objects.size(&digest(b"whole")).unwrap(), Some(5));
        assert_eq!(objects.digests().unwrap(), [digest(b"whole")]);
    }

    #[test]
    fn public_objects_lie_in_shards_and_everybody_may_read_them() {
        let root = tempfile::tempdir().unwrap();
        let (parent, objects) = objects(root.path(), Layout { shards: true, mode: 0o644 });
        objects.put(&digest(b"x"), b"x").unwrap();
        objects.sync().unwrap();
        let name = hex(&digest(b"x"));
        let path = format!("blob/{}/{name}", &name[..2]);
        assert_eq!(parent.metadata(&path).unwrap().permissions().mode() & 0o777, 0o644);
        assert_eq!(parent.metadata("blob").unwrap().permissions().mode() & 0o777, 0o755);
        assert_eq!(parent.metadata(format!("blob/{}", &name[..2])).unwrap().permissions().mode() & 0o777, 0o755);
        assert_eq!(objects.digests().unwrap(), [digest(b"x")]);
    }

    #[test]
    fn what_an_earlier_process_left_unfinished_is_removed_at_start() {
        let root = tempfile::tempdir().unwrap();
        let (parent, _objects) = objects(root.path(), Layout { shards: false, mode: 0o600 });
        parent.write("temporary/1-1", b"torn").unwrap();
        open_temporary(&parent).unwrap();
        assert_eq!(parent.open_dir("temporary").unwrap().entries().unwrap().count(), 0);
    }
}
