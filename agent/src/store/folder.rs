//! Folders of the store: one that is live, and at most two that were set aside.
//!
//! A store never comes back under a name that it had: a thread that hangs in an old one cannot write into the new.

use std::io;
use std::path::{Path, PathBuf};

const LIVE: &str = "live-";
const BROKEN: &str = "broken-";
/// How many broken stores are kept for whoever wants to know why.
const KEPT: usize = 2;

/// The folder of the store that is read from, if there is one.
#[must_use]
pub fn live_folder(root: &Path) -> Option<PathBuf> {
    numbered(root, LIVE).ok()?.last().map(|number| path(root, LIVE, *number))
}

/// A folder that no store has had, for a new one.
pub(super) fn next(root: &Path) -> io::Result<PathBuf> {
    let used = numbered(root, LIVE)?.into_iter().chain(numbered(root, BROKEN)?).max();
    Ok(path(root, LIVE, used.map_or(1, |number| number + 1)))
}

/// Takes every live store away; answers with where the newest one is now.
pub(super) fn set_aside(root: &Path) -> io::Result<Option<PathBuf>> {
    let mut newest = None;
    for number in numbered(root, LIVE)? {
        let broken = path(root, BROKEN, number);
        std::fs::rename(path(root, LIVE, number), &broken)?;
        newest = Some(broken);
    }
    let broken = numbered(root, BROKEN)?;
    for number in &broken[..broken.len().saturating_sub(KEPT)] {
        std::fs::remove_dir_all(path(root, BROKEN, *number))?;
    }
    Ok(newest)
}

fn path(root: &Path, kind: &str, number: u64) -> PathBuf {
    root.join(format!("{kind}{number}"))
}

/// Numbers of the folders of a kind, ascending.
fn numbered(root: &Path, kind: &str) -> io::Result<Vec<u64>> {
    let entries = match std::fs::read_dir(root) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut numbers = Vec::new();
    for entry in entries {
        let name = entry?.file_name();
        numbers.extend(name.to_str().and_then(|n| n.strip_prefix(kind)).and_then(|n| n.parse::<u64>().ok()));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_that_was_set_aside_never_comes_back_under_its_name_and_two_are_kept() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(live_folder(root.path()), None);
        for round in 1..=4_u64 {
            let folder = next(root.path()).unwrap();
            assert_eq!(folder, root.path().join(format!("live-{round}")));
            std::fs::create_dir(&folder).unwrap();
            assert_eq!(live_folder(root.path()), Some(folder));
            assert_eq!(set_aside(root.path()).unwrap(), Some(root.path().join(format!("broken-{round}"))));
            assert_eq!(live_folder(root.path()), None);
        }
        let mut left: Vec<_> = std::fs::read_dir(root.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["broken-3", "broken-4"]);
    }
}
