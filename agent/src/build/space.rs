//! How much disk a build leaves: refused when there is little, stopped when there is almost none.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::error::BuildError;

const MIB: u64 = 1 << 20;
/// A running build is stopped when less than this is left: the ledger and the apps need room to go on.
pub const STOP_BELOW_BYTES: u64 = 512 * MIB;
/// No build begins with less than this, whatever the disk's size.
pub const BEGIN_FLOOR_BYTES: u64 = 1_024 * MIB;
/// And none has to leave more than this, however large the disk.
pub const BEGIN_CEILING_BYTES: u64 = 5 * 1_024 * MIB;
/// How often a running build's disks are looked at.
const EVERY: Duration = Duration::from_secs(1);

/// A file system's space in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// Left for programs without special rights.
    pub free: u64,
    /// In all.
    pub total: u64,
}

impl Space {
    /// Of the file system that holds `path`.
    ///
    /// # Errors
    /// When the path does not exist or cannot be asked.
    pub fn of(path: &Path) -> io::Result<Self> {
        let stat = rustix::fs::statvfs(path)?;
        Ok(Self {
            free: stat.f_bavail.saturating_mul(stat.f_frsize),
            total: stat.f_blocks.saturating_mul(stat.f_frsize),
        })
    }

    /// What must be free before a build begins: 5 % of the disk, within the floor and the ceiling.
    #[must_use]
    pub fn needed_to_begin(self) -> u64 {
        (self.total / 20).clamp(BEGIN_FLOOR_BYTES, BEGIN_CEILING_BYTES)
    }
}

/// Asks for the space at a path.
pub type Probe = Arc<dyn Fn(&Path) -> io::Result<Space> + Send + Sync>;

/// The disks that a build fills.
#[derive(Clone)]
pub struct Disks {
    paths: Vec<PathBuf>,
    probe: Probe,
}

impl fmt::Debug for Disks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Disks").field("paths", &self.paths).finish_non_exhaustive()
    }
}

impl Disks {
    /// Watches the file systems of these paths. One that does not exist is left out each time: the engine may keep its
    /// data elsewhere.
    #[must_use]
    pub fn new(paths: Vec<PathBuf>) -> Self {
        Self { paths, probe: Arc::new(Space::of) }
    }

    /// These and one more.
    #[must_use]
    pub fn and(&self, path: PathBuf) -> Self {
        let mut more = self.clone();
        more.paths.push(path);
        more
    }

    /// With another way to ask.
    #[must_use]
    pub fn with_probe(paths: Vec<PathBuf>, probe: Probe) -> Self {
        Self { paths, probe }
    }

    /// # Errors
    /// When a disk is too full to begin.
    pub fn check_before(&self) -> Result<(), BuildError> {
        self.check(Space::needed_to_begin, false)
    }

    /// Returns when a disk is too full to go on.
    pub async fn until_low(&self) -> BuildError {
        let mut clock = tokio::time::interval(EVERY);
        loop {
            clock.tick().await;
            if let Err(low) = self.check(|_| STOP_BELOW_BYTES, true) {
                return low;
            }
        }
    }

    fn check(&self, needed: impl Fn(Space) -> u64, running: bool) -> Result<(), BuildError> {
        for path in &self.paths {
            let Ok(space) = (self.probe)(path) else { continue };
            let needed_bytes = needed(space);
            if space.free < needed_bytes {
                let path = path.display().to_string();
                return Err(BuildError::DiskFull { path, free_bytes: space.free, needed_bytes, running });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_build_begins_only_with_a_twentieth_of_the_disk_within_bounds() {
        const GIB: u64 = 1 << 30;
        for (total_gib, needed) in [(8, GIB), (20, GIB), (40, 2 * GIB), (100, 5 * GIB), (4_000, 5 * GIB)] {
            assert_eq!(Space { free: 0, total: total_gib * GIB }.needed_to_begin(), needed, "{total_gib} GiB");
        }
    }

    #[test]
    fn a_path_that_is_not_there_is_left_out_and_a_full_disk_is_named() {
        let probe: Probe = Arc::new(|path| match path.to_str() {
            Some("/full") => Ok(Space { free: 10 * MIB, total: 10_000 * MIB }),
            Some("/fine") => Ok(Space { free: 9_000 * MIB, total: 10_000 * MIB }),
            _ => Err(io::ErrorKind::NotFound.into()),
        });
        let check = |paths: &[&str]| {
            Disks::with_probe(paths.iter().map(PathBuf::from).collect(), Arc::clone(&probe)).check_before()
        };
        assert!(check(&["/none", "/fine"]).is_ok());
        assert!(matches!(check(&["/fine", "/full"]), Err(BuildError::DiskFull { path, .. }) if path == "/full"));
    }

    #[test]
    fn the_real_disk_answers() {
        let space = Space::of(Path::new("/")).unwrap();
        assert!(space.total > 0 && space.free <= space.total);
    }
}
