//! What is different between two releases, in words: what a rollback undoes, what a deploy changed.

use std::collections::BTreeSet;

use crate::capability::Capability;
use crate::event::EnvVariable;
use crate::release::{Backend, Process, Release};

/// One difference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// `code`, `env`, `processes`, `resources`, `routes`, `volumes`.
    pub what: &'static str,
    /// "env: STRIPE_KEY changed".
    pub text: String,
}

/// A release and the variables of its environment.
#[derive(Debug, Clone, Copy)]
pub struct Side<'a> {
    /// The release.
    pub release: &'a Release,
    /// Its environment, sorted by name.
    pub env: &'a [EnvVariable],
}

/// What is different in `to`, seen from `from`. Empty when both run the same.
#[must_use]
pub fn changes(from: Side<'_>, to: Side<'_>) -> Vec<Change> {
    let mut out = Vec::new();
    if code_differs(from.release, to.release) {
        out.push(Change { what: "code", text: "the code".to_owned() });
    }
    out.extend(env_changes(from.env, to.env));
    out.extend(process_changes(&from.release.processes, &to.release.processes));
    out
}

/// Whether two releases were built from other code.
#[must_use]
pub fn code_differs(a: &Release, b: &Release) -> bool {
    a.source != b.source || a.plan != b.plan
}

fn env_changes(from: &[EnvVariable], to: &[EnvVariable]) -> Vec<Change> {
    let names: BTreeSet<&str> = from.iter().chain(to).map(|v| v.name.as_str()).collect();
    let find = |side: &[EnvVariable], name: &str| side.iter().find(|v| v.name == name).map(|v| v.fingerprint);
    names
        .into_iter()
        .filter_map(|name| {
            let verb = match (find(from, name), find(to, name)) {
                (None, Some(_)) => "added",
                (Some(_), None) => "removed",
                (Some(a), Some(b)) if a != b => "changed",
                _ => return None,
            };
            Some(Change { what: "env", text: format!("env: {name} {verb}") })
        })
        .collect()
}

fn process_changes(from: &[Process], to: &[Process]) -> Vec<Change> {
    let names: BTreeSet<_> = from.iter().chain(to).map(|p| &p.name).collect();
    let mut out = Vec::new();
    for name in names {
        let a = from.iter().find(|p| p.name == *name);
        let b = to.iter().find(|p| p.name == *name);
        match (a, b) {
            (None, Some(_)) => out.push(Change { what: "processes", text: format!("process {name} added") }),
            (Some(_), None) => out.push(Change { what: "processes", text: format!("process {name} removed") }),
            (Some(a), Some(b)) => out.extend(one_process_changes(a, b)),
            (None, None) => {}
        }
    }
    out
}

fn one_process_changes(a: &Process, b: &Process) -> Vec<Change> {
    let mut out = Vec::new();
    let name = &a.name;
    if a.routes != b.routes {
        out.push(Change { what: "routes", text: format!("{name}: routes") });
    }
    if a.resources != b.resources {
        let (from, to) = (a.resources.memory_mib, b.resources.memory_mib);
        out.push(Change { what: "resources", text: format!("{name}: limits (memory {from} MiB, then {to} MiB)") });
    }
    if a.volumes != b.volumes {
        out.push(Change { what: "volumes", text: format!("{name}: volumes") });
    }
    out.extend(capability_change(a, b));
    let same_settings = same_settings(&a.backend, &b.backend);
    if a.kind != b.kind
        || a.exclusive != b.exclusive
        || a.health != b.health
        || a.schedule != b.schedule
        || !same_settings
    {
        out.push(Change { what: "processes", text: format!("{name}: settings") });
    }
    out
}

/// Rights are named: whoever reads a difference wants to know which.
fn capability_change(a: &Process, b: &Process) -> Option<Change> {
    let (from, to) = (capabilities(&a.backend), capabilities(&b.backend));
    let list = |these: &[Capability]| match these {
        [] => "none".to_owned(),
        these => these.iter().map(|c| c.name()).collect::<Vec<_>>().join(", "),
    };
    let text = format!("{}: capabilities given back ({}, then {})", a.name, list(from), list(to));
    (from != to).then_some(Change { what: "processes", text })
}

fn capabilities(backend: &Backend) -> &[Capability] {
    match backend {
        Backend::Instance { capabilities, .. } => capabilities,
        Backend::Files { .. } => &[],
    }
}

/// Whether two backends have the same settings, whatever digests follow from the code.
fn same_settings(a: &Backend, b: &Backend) -> bool {
    match (a, b) {
        (
            Backend::Instance { command, port, writable_root, hardening, image: _, capabilities: _ },
            Backend::Instance { command: c, port: p, writable_root: w, hardening: h, image: _, capabilities: _ },
        ) => (command, port, writable_root, hardening) == (c, p, w, h),
        (Backend::Files { rules, tree: _ }, Backend::Files { rules: r, tree: _ }) => rules == r,
        _ => false,
    }
}
