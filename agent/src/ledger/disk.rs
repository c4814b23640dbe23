//! The few things that a ledger asks of a disk, as a port: a test can make any of them fail.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;

use rustix::fs::{FallocateFlags, fallocate};

/// A folder's worth of disk.
pub trait Disk: Send + 'static {
    /// Creates a file that must not exist, readable by its owner only.
    ///
    /// # Errors
    /// Whatever the operating system says.
    fn create(&self, path: &Path) -> io::Result<Box<dyn SegmentFile>>;
    /// Opens a file for writing.
    ///
    /// # Errors
    /// Whatever the operating system says.
    fn open(&self, path: &Path) -> io::Result<Box<dyn SegmentFile>>;
    /// Gives a file another name, in one step.
    ///
    /// # Errors
    /// Whatever the operating system says.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file that nobody was ever told about.
    ///
    /// # Errors
    /// Whatever the operating system says.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Makes the names in a folder durable.
    ///
    /// # Errors
    /// Whatever the operating system says.
    fn sync_directory(&self, path: &Path) -> io::Result<()>;
}

/// One open segment.
pub trait SegmentFile: Send {
    /// Writes all the bytes at an offset.
    ///
    /// # Errors
    /// Whatever the operating system says; some of the bytes may be there.
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// Returns when content and length are durable.
    ///
    /// # Errors
    /// Whatever the operating system says; nothing is known then about what is durable.
    fn sync(&mut self) -> io::Result<()>;
    /// Takes disk space behind the end without changing the length.
    ///
    /// # Errors
    /// `StorageFull` without room, `Unsupported` where the file system cannot do it.
    fn reserve(&mut self, offset: u64, bytes: u64) -> io::Result<()>;
    /// Sets the length, and gives back space that was reserved behind it.
    ///
    /// # Errors
    /// Whatever the operating system says.
    fn truncate(&mut self, length: u64) -> io::Result<()>;
}

/// The disk of this host.
#[derive(Debug, Clone, Copy, Default)]
pub struct HostDisk;

struct HostFile(File);

impl Disk for HostDisk {
    fn create(&self, path: &Path) -> io::Result<Box<dyn SegmentFile>> {
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        Ok(Box::new(HostFile(file)))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn SegmentFile>> {
        Ok(Box::new(HostFile(OpenOptions::new().write(true).open(path)?)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }
}

impl SegmentFile for HostFile {
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn reserve(&mut self, offset: u64, bytes: u64) -> io::Result<()> {
        Ok(fallocate(&self.0, FallocateFlags::KEEP_SIZE, offset, bytes)?)
    }

    fn truncate(&mut self, length: u64) -> io::Result<()> {
        self.0.set_len(length)
    }
}
