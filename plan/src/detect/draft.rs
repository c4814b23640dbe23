//! A plan in the making: what a shape contributes, before `refloat.toml` has its say.

use std::collections::BTreeSet;

use super::build_env::BuildEnv;
use crate::never_sent::NEVER_SENT;
use crate::plan::{BackendPlan, Build, Kind, ProcessPlan};

/// How long a start may take unless something else is said, in milliseconds: one slow core with a cold cache.
const START_TIMEOUT_MS: u32 = 60_000;
/// Memory limit of a process in MiB.
const MEMORY_MIB: u32 = 512;
/// Most processes and threads of a process.
const PIDS: u32 = 512;

/// What a shape contributes.
#[derive(Debug, Default)]
pub(crate) struct Draft {
    /// What was recognised, in a few words.
    pub(crate) shape: String,
    /// What is built.
    pub(crate) builds: Vec<Build>,
    /// What runs.
    pub(crate) processes: Vec<ProcessPlan>,
    /// Variables of the build and their values.
    pub(crate) env: BuildEnv,
}

impl Draft {
    /// A draft of one build and one process.
    pub(crate) fn of(shape: &str, build: Build, process: ProcessPlan) -> Self {
        Self { shape: shape.to_owned(), builds: vec![build], processes: vec![process], env: BuildEnv::default() }
    }

    /// Takes over what another draft contributes.
    pub(crate) fn join(&mut self, other: Self) {
        self.builds.extend(other.builds);
        self.processes.extend(other.processes);
        let names: BTreeSet<String> = self.env.names.drain(..).chain(other.env.names).collect();
        self.env.names = names.into_iter().collect();
        self.env.defaults.extend(other.env.defaults);
        self.env.defaults.sort();
        self.env.defaults.dedup_by(|a, b| a.0 == b.0);
    }
}

/// A web process with the usual limits.
pub(crate) fn web(name: &str, backend: BackendPlan, routes: &[&str]) -> ProcessPlan {
    let mut routes: Vec<String> = routes.iter().map(|r| (*r).to_owned()).collect();
    routes.sort();
    routes.dedup();
    ProcessPlan {
        name: name.to_owned(),
        kind: Kind::Web,
        exclusive: false,
        backend,
        routes,
        health_path: None,
        start_timeout_ms: START_TIMEOUT_MS,
        memory_mib: MEMORY_MIB,
        cpu_millis: 0,
        pids: PIDS,
        volumes: Vec::new(),
    }
}

/// What stays out of a generated build's context: what is never sent, every `.env` (values reach a build by name), our
/// own settings, and the folder that the build makes.
pub(crate) fn ignored(package: &str, output: Option<&str>) -> Vec<String> {
    let mut ignored: Vec<String> = NEVER_SENT.iter().map(|name| format!("**/{name}")).collect();
    ignored.extend(["**/.env", "**/.env.*", "refloat.toml"].map(str::to_owned));
    if let Some(output) = output.filter(|o| !o.is_empty()) {
        let path = if package.is_empty() { output.to_owned() } else { format!("{package}/{output}") };
        if super::install_scripts::is_plain(&path) {
            ignored.push(path);
        }
    }
    ignored
}
