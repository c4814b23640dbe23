//! A plan as text, with its reasons: what `refloat plan` prints, the same in the CLI and in the agent.

use std::fmt::Write;

use crate::capability::all_of;
use crate::plan::{BackendPlan, Build, Kind, Plan, ProcessPlan, is_own};

/// Width of the column of labels.
const LABEL: usize = 11;

/// The plan as plain text without colour, ending with a newline.
#[must_use]
pub fn render(plan: &Plan) -> String {
    let mut out = String::new();
    line(&mut out, "app", &plan.app);
    let made_with = plan.builder.as_ref().map(|b| format!(", exported from {b}")).unwrap_or_default();
    line(&mut out, "shape", &format!("{}{made_with}", plan.shape));
    for build in &plan.builds {
        line(&mut out, "build", &of_build(build));
    }
    for process in &plan.processes {
        line(&mut out, "process", &of_process(process));
        for detail in details(plan, process) {
            line(&mut out, "", &format!("  {detail}"));
        }
    }
    variables(&mut out, plan);
    reasons(&mut out, plan);
    notes(&mut out, plan);
    out
}

fn line(out: &mut String, label: &str, text: &str) {
    let _ = writeln!(out, "{label:<LABEL$}{text}");
}

fn of_build(build: &Build) -> String {
    let place = |folder: &str| if folder.is_empty() { "the root folder".to_owned() } else { folder.to_owned() };
    match build {
        Build::Image { name, context, own: true, .. } => {
            format!("{name}: image from your Dockerfile in {}", place(context))
        }
        Build::Image { name, context, .. } => format!("{name}: image, from {}", place(context)),
        Build::Tree { name, context, .. } => format!("{name}: files, from {}", place(context)),
        Build::Folder { name, folder } => format!("{name}: the files of {} as they are", place(folder)),
    }
}

fn of_process(process: &ProcessPlan) -> String {
    let what = match (&process.backend, process.kind) {
        (BackendPlan::Files { .. }, _) => "files, served without a container",
        (BackendPlan::Instance { .. }, Kind::Web) => "container",
        (BackendPlan::Instance { .. }, Kind::Worker) => "container without routes",
        (BackendPlan::Instance { .. }, Kind::Cron) => "container that runs at times",
    };
    let routes = if process.routes.is_empty() { String::new() } else { format!(" at {}", process.routes.join(", ")) };
    format!("{}: {what}{routes}", process.name)
}

fn details(plan: &Plan, process: &ProcessPlan) -> Vec<String> {
    let mut details = match &process.backend {
        BackendPlan::Files { fallback, not_found, no_fallback, immutable, .. } => {
            of_files(fallback.as_deref(), not_found.as_deref(), no_fallback, immutable)
        }
        BackendPlan::Instance { command, port, writable_root, build, capabilities } => {
            let mut details = of_instance(process, command, *port, *writable_root);
            if is_own(&plan.builds, build) {
                details.push(format!("capabilities: {}", all_of(capabilities).join(", ")));
            }
            details
        }
    };
    details.extend(process.volumes.iter().map(|(name, path)| format!("volume {name} at {path}")));
    if process.exclusive {
        details.push("exclusive: the old one stops before the new one starts, which costs its start time".to_owned());
    }
    details
}

fn of_files(
    fallback: Option<&str>,
    not_found: Option<&str>,
    no_fallback: &[String],
    immutable: &[String],
) -> Vec<String> {
    let except =
        if no_fallback.is_empty() { String::new() } else { format!(", but not below {}", no_fallback.join(", ")) };
    let mut details = Vec::new();
    details.extend(fallback.map(|file| format!("unknown pages answer with {file}{except}")));
    details.extend(not_found.map(|file| format!("unknown addresses answer 404 with {file}")));
    if !immutable.is_empty() {
        details.push(format!("cached for ever: {}", immutable.join(", ")));
    }
    details
}

fn of_instance(process: &ProcessPlan, command: &[String], port: Option<u16>, writable_root: bool) -> Vec<String> {
    let mut details = Vec::new();
    if !command.is_empty() {
        details.push(format!("command: {}", command.join(" ")));
    }
    if process.kind == Kind::Web {
        let port = port.map_or_else(|| "what the image says, else 8080".to_owned(), |p| p.to_string());
        let health = process
            .health_path
            .as_ref()
            .map_or_else(|| "it accepts connections".to_owned(), |p| format!("{p} answers below 400"));
        details
            .push(format!("port {port}; healthy when {health} within {} s", process.start_timeout_ms.div_ceil(1000)));
    }
    let cpu = if process.cpu_millis == 0 {
        "all cores".to_owned()
    } else {
        format!("{} cores", f64::from(process.cpu_millis) / 1000.0)
    };
    let root = if writable_root { "writable" } else { "read-only but for /tmp" };
    details.push(format!(
        "at most {} MiB of memory, {cpu}, {} processes; file system {root}",
        process.memory_mib, process.pids
    ));
    details
}

fn variables(out: &mut String, plan: &Plan) {
    let given = |name: &String| plan.build_env_defaults.iter().any(|(n, _)| n == name);
    let (with, without): (Vec<&String>, Vec<&String>) = plan.build_env.iter().partition(|n| given(n));
    let join = |names: &[&String]| names.iter().map(|n| n.as_str()).collect::<Vec<_>>().join(", ");
    if !without.is_empty() {
        line(out, "variables", &format!("read by the build, without a value in the source: {}", join(&without)));
    }
    if !with.is_empty() {
        let label = if without.is_empty() { "variables" } else { "" };
        line(out, label, &format!("read by the build, with a value from the source: {}", join(&with)));
    }
    if !plan.required_env.is_empty() {
        let label = if plan.build_env.is_empty() { "variables" } else { "" };
        line(out, label, &format!("required by refloat.toml: {}", plan.required_env.join(", ")));
    }
}

fn reasons(out: &mut String, plan: &Plan) {
    if plan.reasons.is_empty() {
        return;
    }
    out.push_str("\nwhy\n");
    for reason in &plan.reasons {
        let _ = writeln!(out, "  {}: {}", reason.decision, reason.because);
    }
}

fn notes(out: &mut String, plan: &Plan) {
    if plan.notes.is_empty() {
        return;
    }
    out.push_str("\nto know\n");
    for note in &plan.notes {
        let _ = writeln!(out, "  {} {}", if note.warn { "!" } else { "-" }, note.text);
    }
}
