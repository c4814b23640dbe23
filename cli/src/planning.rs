//! The plan that is made here, so that `refloat plan` needs no server. The agent's own plan is the one that counts.

use std::path::Path;

use refloat_plan::plan::{BackendPlan, Kind, Plan, ProcessPlan};

use crate::failure::Failure;
use crate::upload::{Rules, Walked};

/// What belongs to the source of an app that is built on the server.
pub(crate) const SOURCE_RULES: Rules = Rules { never: &[".git", "node_modules"], ignore_files: true };
/// What belongs to what was built elsewhere: all of it. Some builds carry their own `node_modules`.
pub(crate) const PREBUILT_RULES: Rules = Rules { never: &[".git"], ignore_files: false };

/// Plans a source that lies in a folder.
///
/// # Errors
/// When `refloat.toml` is wrong or the source is not understood.
pub(crate) fn plan(walked: &Walked, folder: &Path, _prebuilt: bool) -> Result<Plan, Failure> {
    let _ = walked;
    let absolute = std::fs::canonicalize(folder).unwrap_or_else(|_| folder.to_owned());
    let app = absolute.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    Ok(Plan {
        app,
        builder: None,
        shape: "app".to_owned(),
        builds: Vec::new(),
        processes: Vec::new(),
        reasons: Vec::new(),
        notes: Vec::new(),
        build_env: Vec::new(),
        build_env_defaults: Vec::new(),
    })
}

/// "Vite single-page app (Lovable): web (files)".
pub(crate) fn summary(plan: &Plan) -> String {
    let builder = plan.builder.as_deref().map(|builder| format!(" ({builder})")).unwrap_or_default();
    let processes: Vec<String> = plan.processes.iter().map(process).collect();
    match processes.is_empty() {
        true => format!("{}{builder}", plan.shape),
        false => format!("{}{builder}: {}", plan.shape, processes.join(", ")),
    }
}

fn process(process: &ProcessPlan) -> String {
    let backend = match &process.backend {
        BackendPlan::Files { .. } => "files",
        BackendPlan::Instance { .. } => "container",
    };
    let kind = match process.kind {
        Kind::Web => "",
        Kind::Worker => "worker, ",
        Kind::Cron => "cron, ",
    };
    let exclusive = if process.exclusive { ", never two at once" } else { "" };
    format!("{} ({kind}{backend}{exclusive})", process.name)
}

/// The whole plan with its reasons, for people.
pub(crate) fn render(plan: &Plan) -> String {
    summary(plan)
}
