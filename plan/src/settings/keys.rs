//! Which keys `refloat.toml` may have, at every level, and the nearest one to a key that it may not have.

use toml::{Table, Value};

use crate::error::PlanError;

const ROOT: &[&str] = &["schema", "app", "process", "volumes", "env", "build", "checks"];
const PROCESS: &[&str] = &[
    "kind",
    "folder",
    "dockerfile",
    "files",
    "fallback",
    "command",
    "port",
    "routes",
    "health",
    "start_timeout",
    "memory",
    "cpu",
    "pids",
    "exclusive",
    "writable_root",
    "capabilities",
    "volumes",
];
const VOLUME: &[&str] = &["process", "path"];
const ENV: &[&str] = &["required", "public"];
const BUILD: &[&str] = &["folder", "command", "output", "node", "package_manager", "dockerfile"];

/// How near a key must be to be offered: Jaro-Winkler, where 1 is equal.
const NEAR: f64 = 0.65;

/// Refuses the first key that nobody would read.
///
/// # Errors
/// With the key's path and the nearest known key.
pub(super) fn check(table: &Table) -> Result<(), PlanError> {
    known("", table, ROOT)?;
    each(table, "process", PROCESS)?;
    each(table, "volumes", VOLUME)?;
    one(table, "env", ENV)?;
    one(table, "build", BUILD)
}

/// The tables within a table of free names.
fn each(root: &Table, name: &str, allowed: &[&str]) -> Result<(), PlanError> {
    let Some(Value::Table(named)) = root.get(name) else { return Ok(()) };
    for (key, value) in named {
        if let Value::Table(inner) = value {
            known(&format!("{name}.{key}."), inner, allowed)?;
        }
    }
    Ok(())
}

fn one(root: &Table, name: &str, allowed: &[&str]) -> Result<(), PlanError> {
    match root.get(name) {
        Some(Value::Table(inner)) => known(&format!("{name}."), inner, allowed),
        _ => Ok(()),
    }
}

fn known(path: &str, table: &Table, allowed: &[&str]) -> Result<(), PlanError> {
    match table.keys().find(|key| !allowed.contains(&key.as_str())) {
        Some(key) => Err(PlanError::settings(
            format!("refloat.toml: there is no setting \"{path}{key}\"."),
            match nearest(key, allowed) {
                Some(near) => format!("Did you mean \"{path}{near}\"?"),
                None => format!("Known here: {}.", allowed.join(", ")),
            },
        )),
        None => Ok(()),
    }
}

fn nearest<'a>(key: &str, allowed: &[&'a str]) -> Option<&'a str> {
    let score = |known: &&'a str| (strsim::jaro_winkler(key, known), *known);
    let best = allowed.iter().map(score).max_by(|a, b| a.0.total_cmp(&b.0))?;
    (best.0 >= NEAR).then_some(best.1)
}
