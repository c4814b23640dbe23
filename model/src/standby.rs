//! What becomes of a displaced instance, by evidence.
//!
//! | process | standby |
//! |---|---|
//! | web without data bindings | paused, up to `paused_ms` |
//! | web with data bindings | left running for `running_ms`, then stopped: frozen it would hold locks, pool slots and timers |
//! | worker, cron, exclusive | stopped at the switch |
//!
//! A stopped standby is kept as a container: starting it needs no image to be unpacked. Over the host's memory budget a
//! paused or running standby is stopped instead.

use crate::release::{Process, ProcessKind};

/// Limits of standby, from the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StandbyPolicy {
    /// How long an instance without data bindings stays paused, in milliseconds.
    pub paused_ms: u64,
    /// How long an instance with data bindings stays running, in milliseconds.
    pub running_ms: u64,
    /// Memory that all standby of the host may hold, in bytes.
    pub memory_budget_bytes: u64,
}

impl Default for StandbyPolicy {
    /// A day for what costs only memory; ten minutes for what holds database connections: long enough to notice a bad
    /// release, short enough not to starve the pool.
    fn default() -> Self {
        Self { paused_ms: 24 * 3_600_000, running_ms: 600_000, memory_budget_bytes: 512 << 20 }
    }
}

/// How a displaced instance is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standby {
    /// Frozen.
    Paused,
    /// Left running.
    Running,
    /// Stopped.
    Stopped,
}

/// What is known about a displaced instance.
#[derive(Debug, Clone, Copy)]
pub struct Displaced<'a> {
    /// Its process.
    pub process: &'a Process,
    /// Names of its variables.
    pub env_names: &'a [String],
    /// How long ago it was displaced, in milliseconds.
    pub age_ms: u64,
    /// Its memory in bytes.
    pub memory_bytes: u64,
    /// Memory that the host's other standby holds, in bytes.
    pub others_bytes: u64,
}

/// How it is kept now, and after how many milliseconds that changes by age alone.
#[must_use]
pub fn decide(displaced: Displaced<'_>, policy: StandbyPolicy) -> (Standby, Option<u64>) {
    let process = displaced.process;
    if process.exclusive || process.kind != ProcessKind::Web {
        return (Standby::Stopped, None);
    }
    let bound = has_data_bindings(process, displaced.env_names);
    let limit_ms = if bound { policy.running_ms } else { policy.paused_ms };
    let fits = displaced.others_bytes.saturating_add(displaced.memory_bytes) <= policy.memory_budget_bytes;
    if !fits || displaced.age_ms >= limit_ms {
        return (Standby::Stopped, None);
    }
    let kind = if bound { Standby::Running } else { Standby::Paused };
    (kind, Some(limit_ms - displaced.age_ms))
}

/// Whether a process holds data connections by the evidence we have: a volume, or a variable that names a database.
#[must_use]
pub fn has_data_bindings(process: &Process, env_names: &[String]) -> bool {
    !process.volumes.is_empty() || env_names.iter().any(|name| names_a_database(name))
}

fn names_a_database(name: &str) -> bool {
    const PARTS: [&str; 12] = [
        "DATABASE", "POSTGRES", "MYSQL", "MARIADB", "MONGO", "REDIS", "VALKEY", "AMQP", "RABBITMQ", "KAFKA", "SQLITE",
        "TURSO",
    ];
    const PREFIXES: [&str; 3] = ["PG", "DB_", "NEON_"];
    const EXACT: [&str; 2] = ["DB", "DSN"];
    let upper = name.to_ascii_uppercase();
    PARTS.iter().any(|p| upper.contains(p))
        || PREFIXES.iter().any(|p| upper.starts_with(p))
        || EXACT.contains(&upper.as_str())
        || upper.ends_with("_DSN")
        || upper.ends_with("_DB")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{ImageDigest, ProcessName};
    use crate::release::{Backend, Hardening, Health, Resources, VolumeMount};
    use crate::route::PathPrefix;

    fn web() -> Process {
        Process {
            name: ProcessName::new("web").unwrap(),
            kind: ProcessKind::Web,
            exclusive: false,
            backend: Backend::Instance {
                image: ImageDigest::new(format!("sha256:{}", "0".repeat(64))).unwrap(),
                command: vec![],
                port: 80,
                hardening: Hardening::Generated,
                writable_root: false,
                capabilities: Vec::new(),
            },
            routes: vec![PathPrefix::root()],
            health: Health::default(),
            resources: Resources::default(),
            volumes: vec![],
            schedule: None,
        }
    }

    fn kept(process: &Process, env: &[&str], age_ms: u64, memory: u64, others: u64) -> Standby {
        let env_names: Vec<String> = env.iter().map(|s| (*s).to_owned()).collect();
        let displaced =
            Displaced { process, env_names: &env_names, age_ms, memory_bytes: memory, others_bytes: others };
        decide(displaced, StandbyPolicy::default()).0
    }

    #[test]
    fn the_table_of_the_module_docs_holds() {
        let volume = Process {
            volumes: vec![VolumeMount { name: ProcessName::new("data").unwrap(), path: "/data".into() }],
            ..web()
        };
        let worker = Process { kind: ProcessKind::Worker, ..web() };
        let exclusive = Process { exclusive: true, ..web() };
        let day = 24 * 3_600_000;
        let mib = 1 << 20;
        for (process, env, age, memory, others, expected) in [
            (&web(), &["API_KEY"][..], 0, mib, 0, Standby::Paused),
            (&web(), &[], day - 1, mib, 0, Standby::Paused),
            (&web(), &[], day, mib, 0, Standby::Stopped),
            (&web(), &["DATABASE_URL"], 0, mib, 0, Standby::Running),
            (&web(), &["DATABASE_URL"], 600_000, mib, 0, Standby::Stopped),
            (&volume, &[], 0, mib, 0, Standby::Running),
            (&worker, &[], 0, mib, 0, Standby::Stopped),
            (&exclusive, &[], 0, mib, 0, Standby::Stopped),
            (&web(), &[], 0, 100 * mib, 420 * mib, Standby::Stopped),
            (&web(), &[], 0, 92 * mib, 420 * mib, Standby::Paused),
        ] {
            assert_eq!(
                kept(process, env, age, memory, others),
                expected,
                "{process:?} {env:?} {age} {memory} {others}"
            );
        }
    }

    #[test]
    fn names_that_mean_a_database_are_evidence() {
        for name in ["DATABASE_URL", "POSTGRES_URL", "PGHOST", "MONGODB_URI", "REDIS_URL", "DB_HOST", "MAIN_DB", "dsn"]
        {
            assert!(has_data_bindings(&web(), &[name.to_owned()]), "{name}");
        }
        for name in ["PORT", "STRIPE_KEY", "VITE_API", "DEBUG", "PUBLIC_URL"] {
            assert!(!has_data_bindings(&web(), &[name.to_owned()]), "{name}");
        }
    }
}
