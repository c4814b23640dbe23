//! How much a build may use, from how much the host has. Pure.

use std::fmt;

const MIB: u64 = 1 << 20;

/// What all steps of a build together may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Memory in bytes. Swap is not limited: on a small server it is what lets a build end at all.
    pub memory_bytes: u64,
    /// Processor time in thousandths of a core.
    pub cpu_millis: u32,
    /// Processes and threads.
    pub pids: u32,
}

impl Limits {
    /// Limits that leave the apps something: 60 % of the memory but at least 512 MiB, of which 384 MiB (half of it on a
    /// tiny server) always stay for everything else; all cores but half of one; 1024 processes, and 64 for each core on
    /// large servers.
    #[must_use]
    pub fn for_host(total_memory_bytes: u64, cores: u32) -> Self {
        let wanted = (total_memory_bytes / 5 * 3).max(512 * MIB);
        let spare = total_memory_bytes.saturating_sub(384 * MIB).max(total_memory_bytes / 2);
        let cores = cores.max(1);
        Self {
            memory_bytes: wanted.min(spare) / MIB * MIB,
            cpu_millis: cores.saturating_mul(1_000).saturating_sub(500).max(750),
            pids: cores.saturating_mul(64).max(1_024),
        }
    }
}

impl fmt::Display for Limits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (memory, cpus) = (Bytes(self.memory_bytes), Cpus(self.cpu_millis));
        write!(f, "{memory} memory, {cpus}, {} processes", self.pids)
    }
}

/// Bytes for people: "1.5 GiB", "600 MiB".
#[derive(Debug, Clone, Copy)]
pub struct Bytes(pub u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = self.0 / MIB;
        let tenths = mib * 10 / 1_024;
        match (mib, tenths % 10) {
            (..1_024, _) => write!(f, "{mib} MiB"),
            (_, 0) => write!(f, "{} GiB", tenths / 10),
            (_, rest) => write!(f, "{}.{rest} GiB", tenths / 10),
        }
    }
}

/// Thousandths of a core for people: "1.5 CPUs", "0.75 CPUs", "1 CPU".
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cpus(pub(crate) u32);

impl fmt::Display for Cpus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let noun = if self.0 == 1_000 { "CPU" } else { "CPUs" };
        let fraction = format!("{:03}", self.0 % 1_000);
        match fraction.trim_end_matches('0') {
            "" => write!(f, "{} {noun}", self.0 / 1_000),
            digits => write!(f, "{}.{digits} {noun}", self.0 / 1_000),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_leave_the_apps_something_on_every_size_of_server() {
        for (total_mib, cores, memory_mib, cpu_millis, pids) in [
            (512, 1, 256, 750, 1_024),
            (960, 1, 576, 750, 1_024),
            (1_024, 1, 614, 750, 1_024),
            (1_970, 1, 1_182, 750, 1_024),
            (3_900, 2, 2_340, 1_500, 1_024),
            (7_900, 4, 4_740, 3_500, 1_024),
            (63_000, 16, 37_800, 15_500, 1_024),
            (250_000, 64, 150_000, 63_500, 4_096),
        ] {
            let limits = Limits::for_host(total_mib * MIB, cores);
            let found = (limits.memory_bytes / MIB, limits.cpu_millis, limits.pids);
            assert_eq!(found, (memory_mib, cpu_millis, pids), "{total_mib} MiB, {cores} cores");
            assert!(limits.memory_bytes < total_mib * MIB);
        }
    }

    #[test]
    fn no_host_makes_the_arithmetic_fail() {
        for (memory, cores) in [(0, 0), (1, 1), (u64::MAX, u32::MAX)] {
            assert!(Limits::for_host(memory, cores).memory_bytes <= memory);
        }
    }

    #[test]
    fn limits_read_as_people_say_them() {
        let text =
            |memory_mib: u64, cpu_millis, pids| Limits { memory_bytes: memory_mib * MIB, cpu_millis, pids }.to_string();
        assert_eq!(text(1_536, 1_500, 1_024), "1.5 GiB memory, 1.5 CPUs, 1024 processes");
        assert_eq!(text(614, 750, 10), "614 MiB memory, 0.75 CPUs, 10 processes");
        assert_eq!(text(2_048, 1_000, 1), "2 GiB memory, 1 CPU, 1 processes");
    }
}
