//! Control groups, version 1: one hierarchy for each controller.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::cap::{BuildCap, CapStatus, Held, forget_steps, has_steps};
use super::limits::Limits;

/// Period of the processor limit in microseconds: the kernel's own default.
const PERIOD_US: u64 = 100_000;
/// What the kernel answers for "no limit" is near the largest number; no host has a pebibyte.
const NO_LIMIT_BYTES: u64 = 1 << 50;

/// One group of the same name below each controller.
#[derive(Debug)]
pub struct Groups {
    root: PathBuf,
    name: String,
    limits: Limits,
}

impl Groups {
    /// For the controllers below `root`.
    #[must_use]
    pub fn new(root: &Path, name: &str, limits: Limits) -> Self {
        Self { root: root.to_owned(), name: name.to_owned(), limits }
    }

    fn write(&self) -> io::Result<()> {
        let group = |controller: &str| self.root.join(controller).join(&self.name);
        make(&group("memory"))?;
        // Without it the groups of the steps would not count towards this one; newer kernels know no other way.
        let hierarchy = group("memory").join("memory.use_hierarchy");
        if fs::read_to_string(&hierarchy).is_ok_and(|value| value.trim() == "0") {
            fs::write(hierarchy, "1")?;
        }
        fs::write(group("memory").join("memory.limit_in_bytes"), self.limits.memory_bytes.to_string())?;
        // The others are worth less than memory: one that is missing is reported by what is read back.
        let quota_us = u64::from(self.limits.cpu_millis) * PERIOD_US / 1_000;
        for (controller, file, value) in [
            ("cpu", "cpu.cfs_period_us", PERIOD_US),
            ("cpu", "cpu.cfs_quota_us", quota_us),
            ("pids", "pids.max", u64::from(self.limits.pids)),
        ] {
            let _ = make(&group(controller)).and_then(|()| fs::write(group(controller).join(file), value.to_string()));
        }
        Ok(())
    }
}

fn make(group: &Path) -> io::Result<()> {
    match fs::create_dir(group) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

impl BuildCap for Groups {
    fn apply(&self) -> CapStatus {
        let without = match self.write() {
            Ok(()) => "the kernel did not keep the memory limit".to_owned(),
            Err(error) => format!("the control group {} cannot be made or written: {error}", self.name),
        };
        let held = read(&self.root, Path::new(&self.name));
        CapStatus::from_held(format!("/{}", self.name), held, "cgroup v1", &without)
    }

    /// Version 1 counts kills for each group alone, and those of the steps are gone with them.
    fn kills(&self) -> Option<u64> {
        None
    }

    fn forget_use(&self) {
        for controller in ["memory", "cpu", "pids"] {
            forget_steps(&self.root.join(controller).join(&self.name));
        }
    }

    fn was_used(&self) -> bool {
        has_steps(&self.root.join("memory").join(&self.name))
    }
}

/// What the kernel says about the limits of a group.
pub(super) fn read(root: &Path, group: &Path) -> Held {
    let number = |controller: &str, file: &str| -> Option<u64> {
        fs::read_to_string(root.join(controller).join(group).join(file)).ok()?.trim().parse().ok()
    };
    let quota = number("cpu", "cpu.cfs_quota_us");
    let period = number("cpu", "cpu.cfs_period_us").filter(|period| *period > 0);
    Held {
        memory_bytes: number("memory", "memory.limit_in_bytes").filter(|bytes| *bytes < NO_LIMIT_BYTES),
        cpu_millis: quota
            .zip(period)
            .and_then(|(quota, period)| u32::try_from(quota.saturating_mul(1_000) / period).ok()),
        pids: number("pids", "pids.max").and_then(|pids| u32::try_from(pids).ok()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { memory_bytes: 200 << 20, cpu_millis: 750, pids: 64 };

    #[test]
    fn what_the_files_say_is_what_is_answered() {
        let root = tempfile::tempdir().unwrap();
        for controller in ["memory", "cpu", "pids"] {
            fs::create_dir(root.path().join(controller)).unwrap();
        }
        let groups = Groups::new(root.path(), "refloat-build", LIMITS);
        let sentence = "builds are capped at 200 MiB memory, 0.75 CPUs, 64 processes (cgroup v1)";
        assert_eq!(groups.apply().to_string(), sentence);
        assert_eq!(groups.apply().parent(), Some("/refloat-build"), "applying twice is applying once");

        let quota = root.path().join("cpu/refloat-build/cpu.cfs_quota_us");
        fs::write(&quota, "-1\n").unwrap();
        assert_eq!(read(root.path(), Path::new("refloat-build")).cpu_millis, None);
        fs::write(root.path().join("memory/refloat-build/memory.limit_in_bytes"), "9223372036854771712").unwrap();
        assert_eq!(read(root.path(), Path::new("refloat-build")).memory_bytes, None);
    }

    #[test]
    fn without_the_memory_controller_nothing_is_said_to_be_capped() {
        let root = tempfile::tempdir().unwrap();
        let status = Groups::new(root.path(), "refloat-build", LIMITS).apply();
        assert!(status.to_string().starts_with("builds are NOT capped: the control group refloat-build"), "{status}");
    }

    #[test]
    fn without_the_other_controllers_the_sentence_says_what_is_not_capped() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("memory")).unwrap();
        let status = Groups::new(root.path(), "refloat-build", LIMITS).apply();
        let sentence = "builds are capped at 200 MiB memory (cgroup v1); NOT capped: processor time and processes";
        assert_eq!(status.to_string(), sentence);
        assert!(status.is_incomplete());
    }
}
