//! Control groups, version 2, where the engine manages them itself.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::cap::{BuildCap, CapStatus, Held, forget_steps, has_steps};
use super::limits::Limits;

/// Period of the processor limit in microseconds: the kernel's own default.
const PERIOD_US: u64 = 100_000;
/// What the group's children need.
const CONTROLLERS: [&str; 3] = ["memory", "cpu", "pids"];

/// One group below the root.
#[derive(Debug)]
pub struct Group {
    root: PathBuf,
    name: String,
    limits: Limits,
}

impl Group {
    /// Below `root`.
    #[must_use]
    pub fn new(root: &Path, name: &str, limits: Limits) -> Self {
        Self { root: root.to_owned(), name: name.to_owned(), limits }
    }

    fn path(&self) -> PathBuf {
        self.root.join(&self.name)
    }

    fn write(&self) -> io::Result<()> {
        hand_down(&self.root);
        match fs::create_dir(self.path()) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        hand_down(&self.path());
        fs::write(self.path().join("memory.max"), self.limits.memory_bytes.to_string())?;
        // The others are worth less than memory: one that is missing is reported by what is read back.
        let quota_us = u64::from(self.limits.cpu_millis) * PERIOD_US / 1_000;
        let _ = fs::write(self.path().join("cpu.max"), format!("{quota_us} {PERIOD_US}"));
        let _ = fs::write(self.path().join("pids.max"), self.limits.pids.to_string());
        Ok(())
    }
}

/// Lets a group's children have the controllers. One at a time: a controller that is missing takes no other with it.
fn hand_down(group: &Path) {
    for controller in CONTROLLERS {
        let _ = fs::write(group.join("cgroup.subtree_control"), format!("+{controller}"));
    }
}

impl BuildCap for Group {
    fn apply(&self) -> CapStatus {
        let without = match self.write() {
            Ok(()) => "the kernel did not keep the memory limit".to_owned(),
            Err(error) => format!("the control group {} cannot be made or written: {error}", self.name),
        };
        CapStatus::from_held(format!("/{}", self.name), read(&self.path()), "cgroup v2", &without)
    }

    fn kills(&self) -> Option<u64> {
        kills(&self.path())
    }

    fn forget_use(&self) {
        forget_steps(&self.path());
    }

    fn was_used(&self) -> bool {
        has_steps(&self.path())
    }
}

/// What the kernel says about the limits of a group.
pub(super) fn read(group: &Path) -> Held {
    let text = |file: &str| fs::read_to_string(group.join(file)).ok();
    let number = |file: &str| text(file)?.trim().parse::<u64>().ok();
    let cpu = text("cpu.max").and_then(|line| {
        let (quota, period) = line.trim().split_once(' ')?;
        let (quota, period): (u64, u64) = (quota.parse().ok()?, period.parse().ok()?);
        u32::try_from(quota.saturating_mul(1_000).checked_div(period)?).ok()
    });
    Held {
        memory_bytes: number("memory.max"),
        cpu_millis: cpu,
        pids: number("pids.max").and_then(|pids| u32::try_from(pids).ok()),
    }
}

/// Kills for going over the memory limit, in the group and all below it.
pub(super) fn kills(group: &Path) -> Option<u64> {
    let events = fs::read_to_string(group.join("memory.events")).ok()?;
    events.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { memory_bytes: 200 << 20, cpu_millis: 750, pids: 64 };

    #[test]
    fn what_the_files_say_is_what_is_answered() {
        let root = tempfile::tempdir().unwrap();
        let group = Group::new(root.path(), "refloat-build", LIMITS);
        let sentence = "builds are capped at 200 MiB memory, 0.75 CPUs, 64 processes (cgroup v2)";
        assert_eq!(group.apply().to_string(), sentence);
        assert_eq!(group.kills(), None);
        for (file, value) in [("memory.max", "max"), ("cpu.max", "max 100000"), ("pids.max", "max")] {
            fs::write(group.path().join(file), value).unwrap();
        }
        assert_eq!(read(&group.path()), Held::default());
    }

    #[test]
    fn a_root_that_cannot_be_written_is_said_to_be_uncapped() {
        let status = Group::new(Path::new("/nonexistent"), "refloat-build", LIMITS).apply();
        assert!(status.to_string().starts_with("builds are NOT capped: "), "{status}");
    }
}
