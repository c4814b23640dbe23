//! The port, what it answers, and which implementation fits an engine.

use std::fmt;
use std::path::{Path, PathBuf};

use super::limits::{Bytes, Cpus, Limits};
use super::{v1, v2};
use crate::docker::EngineInfo;

/// A cap on builds. Idempotent and quick: applied before every build, because nothing keeps a control group through a
/// reboot. Blocks on the kernel's own files only.
pub trait BuildCap: Send + Sync + fmt::Debug + 'static {
    /// Makes the group, sets its limits, and answers what the kernel says about them.
    fn apply(&self) -> CapStatus;
    /// How often the group was over its memory limit and something in it was killed, since it was made; `None` when the
    /// kernel does not count that.
    fn kills(&self) -> Option<u64>;
    /// Forgets that earlier builds ran below the group. Only while none runs: the group of their steps goes.
    fn forget_use(&self);
    /// Whether a build step has run below the group since then: the engine is told where to run a step, and an engine that
    /// does not listen says nothing.
    fn was_used(&self) -> bool;
}

/// What BuildKit calls the group that it makes for its steps below the one that it is given. It stays, empty.
const STEPS: &str = "buildkit";

/// Removes the mark of earlier builds.
pub(super) fn forget_steps(group: &Path) {
    let _ = std::fs::remove_dir(group.join(STEPS));
}

/// Whether BuildKit has made its group.
pub(super) fn has_steps(group: &Path) -> bool {
    group.join(STEPS).is_dir()
}

/// What holds, as read back from the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CapStatus {
    /// At least memory is limited.
    Capped {
        /// The group as the engine names it.
        parent: String,
        /// What the kernel says.
        held: Held,
        /// "cgroup v1", "cgroup v2", "systemd slice".
        by: &'static str,
    },
    /// Nothing holds.
    NotCapped {
        /// Why, a fragment.
        why: String,
    },
}

/// Limits as the kernel reports them. `None` where there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Held {
    /// Memory in bytes.
    pub memory_bytes: Option<u64>,
    /// Processor time in thousandths of a core.
    pub cpu_millis: Option<u32>,
    /// Processes and threads.
    pub pids: Option<u32>,
}

impl CapStatus {
    /// The answer for limits that were read back: without a memory limit nothing counts as capped.
    pub(super) fn from_held(parent: String, held: Held, by: &'static str, without_memory: &str) -> Self {
        match held.memory_bytes {
            Some(_) => Self::Capped { parent, held, by },
            None => Self::NotCapped { why: without_memory.to_owned() },
        }
    }

    /// The group as the engine names it.
    #[must_use]
    pub fn parent(&self) -> Option<&str> {
        match self {
            Self::Capped { parent, .. } => Some(parent),
            Self::NotCapped { .. } => None,
        }
    }

    /// The memory limit in bytes.
    #[must_use]
    pub fn memory_bytes(&self) -> Option<u64> {
        match self {
            Self::Capped { held, .. } => held.memory_bytes,
            Self::NotCapped { .. } => None,
        }
    }

    /// Whether something that should hold does not.
    #[must_use]
    pub fn is_incomplete(&self) -> bool {
        match self {
            Self::Capped { held, .. } => held.cpu_millis.is_none() || held.pids.is_none(),
            Self::NotCapped { .. } => true,
        }
    }
}

impl fmt::Display for CapStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotCapped { why } => write!(f, "builds are NOT capped: {why}"),
            Self::Capped { held, by, .. } => {
                let memory = held.memory_bytes.map(|bytes| format!("{} memory", Bytes(bytes)));
                let cpus = held.cpu_millis.map(|millis| Cpus(millis).to_string());
                let pids = held.pids.map(|pids| format!("{pids} processes"));
                let limits: Vec<String> = [memory, cpus, pids].into_iter().flatten().collect();
                write!(f, "builds are capped at {} ({by})", limits.join(", "))?;
                let open: Vec<&str> = [("processor time", held.cpu_millis), ("processes", held.pids)]
                    .into_iter()
                    .filter_map(|(what, limit)| limit.is_none().then_some(what))
                    .collect();
                if open.is_empty() { Ok(()) } else { write!(f, "; NOT capped: {}", open.join(" and ")) }
            }
        }
    }
}

/// Where the limits come from that are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// What the server can spare. The package's slice goes before it, where it is active.
    Spare(Limits),
    /// What its owner wrote into the agent's configuration: it counts, whatever the slice says.
    Configured(Limits),
}

/// The implementation for an engine. `root` is where control groups are mounted, `/sys/fs/cgroup`; `name` is the
/// group's, a label such as `refloat-build`, its own for each agent on a host.
#[must_use]
pub fn choose(info: &EngineInfo, root: &Path, name: &str, wanted: Wanted) -> Box<dyn BuildCap> {
    let (Wanted::Spare(limits) | Wanted::Configured(limits)) = wanted;
    let own: Box<dyn BuildCap> = match info.cgroup_version {
        1 => Box::new(v1::Groups::new(root, name, limits)),
        2 => Box::new(v2::Group::new(root, name, limits)),
        version => {
            let why = format!("Docker uses control groups of version {version}, which Refloat does not know");
            return Box::new(Unknown { why });
        }
    };
    match (info.cgroup_driver.as_str(), wanted) {
        ("cgroupfs", _) | ("systemd", Wanted::Configured(_)) => own,
        ("systemd", Wanted::Spare(_)) => {
            let (root, path) = (root.to_owned(), slice_path(name));
            Box::new(Slice { root, path, is_v1: info.cgroup_version == 1, own })
        }
        (driver, _) => {
            Box::new(Unknown { why: format!("Docker's cgroup driver is {driver:?}, which Refloat does not know") })
        }
    }
}

/// `refloat-build.slice` lies in `refloat.slice`: a dash in a slice's name is a level.
fn slice_path(name: &str) -> PathBuf {
    let dashes = name.match_indices('-').map(|(at, _)| at);
    dashes.chain([name.len()]).map(|end| format!("{}.slice", &name[..end])).collect()
}

/// A slice that systemd owns and whose unit file is part of the package. Writing into its files would be undone by
/// systemd, so this only looks. Where there is no such slice, a group of our own does, as BuildKit's own default does:
/// it never asks systemd for a group, whatever the engine's driver is.
#[derive(Debug)]
struct Slice {
    root: PathBuf,
    path: PathBuf,
    is_v1: bool,
    own: Box<dyn BuildCap>,
}

impl Slice {
    fn group(&self) -> PathBuf {
        if self.is_v1 { self.root.join("memory").join(&self.path) } else { self.root.join(&self.path) }
    }

    fn held(&self) -> Held {
        if self.is_v1 { v1::read(&self.root, &self.path) } else { v2::read(&self.group()) }
    }

    fn is_active(&self) -> bool {
        self.held().memory_bytes.is_some()
    }
}

impl BuildCap for Slice {
    fn apply(&self) -> CapStatus {
        if !self.is_active() {
            return self.own.apply();
        }
        CapStatus::Capped { parent: format!("/{}", self.path.display()), held: self.held(), by: "systemd slice" }
    }

    fn kills(&self) -> Option<u64> {
        match (self.is_active(), self.is_v1) {
            (false, _) => self.own.kills(),
            (true, true) => None,
            (true, false) => v2::kills(&self.group()),
        }
    }

    fn forget_use(&self) {
        if self.is_active() {
            forget_steps(&self.group());
        } else {
            self.own.forget_use();
        }
    }

    fn was_used(&self) -> bool {
        if self.is_active() { has_steps(&self.group()) } else { self.own.was_used() }
    }
}

#[derive(Debug)]
struct Unknown {
    why: String,
}

impl BuildCap for Unknown {
    fn apply(&self) -> CapStatus {
        CapStatus::NotCapped { why: self.why.clone() }
    }

    fn kills(&self) -> Option<u64> {
        None
    }

    fn forget_use(&self) {}

    fn was_used(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(driver: &str, version: u8) -> EngineInfo {
        EngineInfo {
            version: "28.5.2".to_owned(),
            live_restore: true,
            cgroup_driver: driver.to_owned(),
            cgroup_version: version,
            data_root: "/var/lib/docker".into(),
        }
    }

    const LIMITS: Limits = Limits { memory_bytes: 1_536 << 20, cpu_millis: 1_500, pids: 1_024 };
    const SPARE: Wanted = Wanted::Spare(LIMITS);

    #[test]
    fn an_engine_that_is_not_known_is_said_to_be_uncapped() {
        let root = tempfile::tempdir().unwrap();
        for (driver, version) in [("none", 2), ("cgroupfs", 3), ("", 0)] {
            let status = choose(&info(driver, version), root.path(), "refloat-build", SPARE).apply();
            assert!(status.to_string().starts_with("builds are NOT capped: "), "{status}");
            assert_eq!(status.parent(), None);
        }
    }

    #[test]
    fn without_the_packages_slice_a_group_of_our_own_does() {
        let root = tempfile::tempdir().unwrap();
        let cap = choose(&info("systemd", 2), root.path(), "refloat-build", SPARE);
        let status = cap.apply();
        assert_eq!(status.parent(), Some("/refloat-build"));
        assert_eq!(status.to_string(), "builds are capped at 1.5 GiB memory, 1.5 CPUs, 1024 processes (cgroup v2)");
        assert!(!cap.was_used());
        std::fs::create_dir(root.path().join("refloat-build/buildkit")).unwrap();
        assert!(cap.was_used());
        cap.apply();
        assert!(cap.was_used(), "asking for the status while a build runs changes nothing");
        cap.forget_use();
        assert!(!cap.was_used(), "an earlier build says nothing about the next");
    }

    #[test]
    fn a_slice_lies_within_the_slices_that_its_dashes_name() {
        assert_eq!(slice_path("refloat-build"), Path::new("refloat.slice/refloat-build.slice"));
        assert_eq!(slice_path("refloat"), Path::new("refloat.slice"));
    }

    #[test]
    fn a_slice_is_believed_for_what_the_kernel_says_of_it() {
        let root = tempfile::tempdir().unwrap();
        let group = root.path().join("refloat.slice/refloat-build.slice");
        std::fs::create_dir_all(&group).unwrap();
        std::fs::write(group.join("memory.max"), "1610612736\n").unwrap();
        std::fs::write(group.join("cpu.max"), "max 100000\n").unwrap();
        std::fs::write(group.join("pids.max"), "1024\n").unwrap();
        std::fs::write(group.join("memory.events"), "low 0\nhigh 0\nmax 9\noom 2\noom_kill 3\n").unwrap();
        let cap = choose(&info("systemd", 2), root.path(), "refloat-build", SPARE);
        let status = cap.apply();
        assert_eq!(status.parent(), Some("/refloat.slice/refloat-build.slice"));
        let sentence =
            "builds are capped at 1.5 GiB memory, 1024 processes (systemd slice); NOT capped: processor time";
        assert_eq!(status.to_string(), sentence);
        let configured = choose(&info("systemd", 2), root.path(), "refloat-build", Wanted::Configured(LIMITS));
        assert_eq!(configured.apply().parent(), Some("/refloat-build"), "what was configured goes before the slice");
        assert_eq!(cap.kills(), Some(3));
        assert!(!cap.was_used());
        std::fs::create_dir(group.join("buildkit")).unwrap();
        assert!(cap.was_used());
        std::fs::write(group.join("memory.max"), "max\n").unwrap();
        assert_eq!(cap.apply().parent(), Some("/refloat-build"), "a slice without a limit caps nothing");
    }
}
