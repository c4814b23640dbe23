//! What Git says of a folder: where its source came from, and which files belong to it. Without Git, or outside a
//! repository, it says nothing.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use refloat_proto::v1::Origin;

use crate::planning::folder_name;
use crate::unix;

const MAX_SUBJECT_CHARACTERS: usize = 200;

/// Where a folder's source came from.
pub(crate) fn origin(folder: &Path) -> Origin {
    let last = git(folder, &["log", "-1", "--format=%H%x00%s", "--end-of-options", "HEAD"]).unwrap_or_default();
    let (commit, subject) = last.split_once('\0').unwrap_or_default();
    let dirty = || git(folder, &["status", "--porcelain", "--", "."]).is_some_and(|changes| !changes.is_empty());
    Origin {
        host: unix::host_name(),
        git_commit: commit.to_owned(),
        git_subject: subject.trim().chars().take(MAX_SUBJECT_CHARACTERS).collect(),
        git_dirty: !commit.is_empty() && dirty(),
        folder: folder_name(folder),
    }
}

/// Files below a folder, relative to it, that were committed or added although a rule ignores them. To Git they are
/// files like any other.
pub(crate) fn tracked_though_ignored(folder: &Path) -> BTreeSet<PathBuf> {
    let listed = output(folder, &["ls-files", "-z", "--cached", "--ignored", "--exclude-standard"]).unwrap_or_default();
    listed.split(|byte| *byte == 0).filter(|path| !path.is_empty()).map(unix::path_of).collect()
}

fn git(folder: &Path, arguments: &[&str]) -> Option<String> {
    output(folder, arguments).map(|output| String::from_utf8_lossy(&output).into_owned())
}

/// The output of one command; hooks and watchers of the repository are not run.
fn output(folder: &Path, arguments: &[&str]) -> Option<Vec<u8>> {
    let mut command = Command::new("git");
    command.args(["-c", "core.fsmonitor=false", "-c", "log.showSignature=false"]);
    command.args(["--no-optional-locks", "--no-pager"]).args(arguments).current_dir(folder);
    let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    output.status.success().then_some(output.stdout)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_outside_any_repository_has_a_name_and_no_commit() {
        let folder = tempfile::tempdir().expect("a folder");
        let project = folder.path().join("shop");
        std::fs::create_dir(&project).expect("made");
        let origin = origin(&project);
        assert_eq!((origin.folder.as_str(), origin.git_commit.as_str(), origin.git_dirty), ("shop", "", false));
    }

    #[test]
    fn a_repository_gives_commit_subject_and_whether_it_was_changed() {
        let folder = tempfile::tempdir().expect("a folder");
        let run = |arguments: &[&str]| {
            let base = ["-c", "user.name=a", "-c", "user.email=a@example.com", "-c", "commit.gpgsign=false"];
            let status = Command::new("git").args(base).args(arguments).current_dir(folder.path()).output();
            assert!(status.expect("git is there").status.success(), "{arguments:?}");
        };
        run(&["init", "-q"]);
        std::fs::write(folder.path().join("a"), "1").expect("written");
        run(&["add", "a"]);
        run(&["commit", "-q", "-m", "Add a: it was missing"]);
        let clean = origin(folder.path());
        assert_eq!((clean.git_subject.as_str(), clean.git_dirty), ("Add a: it was missing", false));
        assert_eq!(clean.git_commit.len(), 40);
        std::fs::write(folder.path().join("a"), "2").expect("written");
        assert!(origin(folder.path()).git_dirty);
    }
}
