//! What `refloat.toml` wants otherwise, laid over what was found.

use super::Detection;
use super::draft::{Draft, web};
use crate::error::PlanError;
use crate::plan::{BackendPlan, Build, Kind, ProcessPlan};
use crate::settings::ProcessSettings;

/// Applies the settings and checks that the result can run.
pub(crate) fn apply(detection: &mut Detection<'_>, mut draft: Draft) -> Result<Draft, PlanError> {
    for (name, wanted) in &detection.settings.process {
        if !draft.processes.iter().any(|p| p.name == *name) {
            let process = added(&draft, name, wanted)?;
            detection.findings.decide(format!("process {name}"), "refloat.toml has it");
            draft.processes.push(process);
        }
    }
    for process in &mut draft.processes {
        if let Some(wanted) = detection.settings.process.get(&process.name) {
            let before = process.clone();
            change(process, wanted)?;
            if *process != before {
                detection.findings.decide(format!("{}: changed as wanted", process.name), "refloat.toml says so");
            }
        }
    }
    draft.processes.sort_by(|a, b| a.name.cmp(&b.name));
    mount(detection, &mut draft)?;
    check(&draft)?;
    Ok(draft)
}

/// A process that only `refloat.toml` knows: another command in the image of the app.
fn added(draft: &Draft, name: &str, wanted: &ProcessSettings) -> Result<ProcessPlan, PlanError> {
    let images: Vec<&Build> = draft.builds.iter().filter(|b| matches!(b, Build::Image { .. })).collect();
    let same = draft.processes.iter().find_map(|p| match &p.backend {
        BackendPlan::Instance { port, writable_root, build, .. } => Some((build, *port, *writable_root)),
        BackendPlan::Files { .. } => None,
    });
    let [image] = images.as_slice() else {
        return Err(PlanError::settings(
            format!(
                "refloat.toml: process.{name}: it is not known what it runs in: the app has {} images.",
                images.len()
            ),
            format!("Add dockerfile = \"Dockerfile\" or files = \"FOLDER\" to [process.{name}], or correct its name."),
        ));
    };
    if wanted.command.is_none() {
        return Err(PlanError::settings(
            format!("refloat.toml: process.{name} says neither what it runs nor what it is built from."),
            format!(
                "Add command = [\"node\", \"worker.js\"], dockerfile or files to [process.{name}]; found in the source: {}.",
                names(draft)
            ),
        ));
    }
    let (port, writable_root) = same.map_or((None, false), |(_, port, writable)| (port, writable));
    let backend = BackendPlan::Instance { build: image.name().to_owned(), command: Vec::new(), port, writable_root };
    let mut process = web(name, backend, &[]);
    process.kind = Kind::Worker;
    Ok(process)
}

fn names(draft: &Draft) -> String {
    draft.processes.iter().map(|p| p.name.as_str()).collect::<Vec<_>>().join(", ")
}

fn change(process: &mut ProcessPlan, wanted: &ProcessSettings) -> Result<(), PlanError> {
    match wanted.kind.as_deref() {
        Some("worker") => process.kind = Kind::Worker,
        Some(_) => process.kind = Kind::Web,
        None => {}
    }
    if let Some(routes) = &wanted.routes {
        process.routes = routes.iter().map(|r| trimmed(r)).collect();
        process.routes.sort();
        process.routes.dedup();
        if wanted.kind.is_none() && !routes.is_empty() {
            process.kind = Kind::Web;
        }
    }
    if process.kind == Kind::Worker {
        process.routes.clear();
    }
    process.health_path = wanted.health.clone().or(process.health_path.take());
    process.start_timeout_ms = wanted.start_timeout.map_or(process.start_timeout_ms, |t| t.0);
    process.memory_mib = wanted.memory.map_or(process.memory_mib, |m| m.0);
    process.cpu_millis = wanted.cpu.map_or(process.cpu_millis, |c| c.0);
    process.pids = wanted.pids.unwrap_or(process.pids);
    process.exclusive = wanted.exclusive.unwrap_or(process.exclusive);
    change_backend(process, wanted)
}

fn trimmed(route: &str) -> String {
    if route == "/" { route.to_owned() } else { route.trim_end_matches('/').to_owned() }
}

fn change_backend(process: &mut ProcessPlan, wanted: &ProcessSettings) -> Result<(), PlanError> {
    match &mut process.backend {
        BackendPlan::Instance { command, port, writable_root, .. } => {
            if let Some(own) = &wanted.command {
                command.clone_from(&own.0);
            }
            *port = wanted.port.or(*port);
            *writable_root = wanted.writable_root.unwrap_or(*writable_root);
            Ok(())
        }
        BackendPlan::Files { fallback, .. } => {
            let unused = [
                ("command", wanted.command.is_some()),
                ("port", wanted.port.is_some()),
                ("health", wanted.health.is_some()),
                ("writable_root", wanted.writable_root.is_some()),
            ];
            if let Some((key, _)) = unused.iter().find(|(_, set)| *set) {
                return Err(PlanError::settings(
                    format!(
                        "refloat.toml: process.{}.{key} has no use: it is a folder of files, and no program serves it.",
                        process.name
                    ),
                    "Remove the key.",
                ));
            }
            *fallback = wanted.fallback.clone().or(fallback.take());
            Ok(())
        }
    }
}

/// Gives each volume to its process. A process with one is exclusive unless it says otherwise: two releases must not write
/// to the same files at once.
fn mount(detection: &mut Detection<'_>, draft: &mut Draft) -> Result<(), PlanError> {
    let settings = detection.settings;
    for (name, volume) in &settings.volumes {
        let owners = owners(detection, draft, name, volume.process())?;
        for process in draft.processes.iter_mut().filter(|p| owners.contains(&p.name)) {
            process.volumes.push((name.clone(), volume.path().to_owned()));
            process.volumes.sort();
        }
    }
    for process in draft.processes.iter_mut().filter(|p| !p.volumes.is_empty()) {
        if settings.process.get(&process.name).and_then(|p| p.exclusive).is_none() {
            process.exclusive = true;
            detection.findings.decide(
                format!("{} is exclusive: the old one stops before the new one starts", process.name),
                "it has a volume, and two releases must not write to it at once",
            );
        }
    }
    Ok(())
}

fn owners(
    detection: &Detection<'_>,
    draft: &Draft,
    volume: &str,
    named: Option<&str>,
) -> Result<Vec<String>, PlanError> {
    let containers: Vec<String> = draft
        .processes
        .iter()
        .filter(|p| matches!(p.backend, BackendPlan::Instance { .. }))
        .map(|p| p.name.clone())
        .collect();
    let asks = |name: &String| {
        let wanted = detection.settings.process.get(name).and_then(|p| p.volumes.as_ref());
        named == Some(name.as_str()) || wanted.is_some_and(|v| v.iter().any(|v| v == volume))
    };
    let asking: Vec<String> = containers.iter().filter(|name| asks(name)).cloned().collect();
    match (asking.as_slice(), containers.as_slice(), named) {
        ([_, ..], _, _) => Ok(asking),
        ([], [_], None) => Ok(containers),
        (_, _, Some(process)) => Err(PlanError::settings(
            format!(
                "refloat.toml: volumes.{volume} names the process \"{process}\", which is no container of this app."
            ),
            format!("Containers: {}.", if containers.is_empty() { "none".to_owned() } else { containers.join(", ") }),
        )),
        (_, [], None) => Err(PlanError::settings(
            format!("refloat.toml: volumes.{volume}: nothing of this app runs in a container that could use it."),
            "Remove it.",
        )),
        (_, _, None) => Err(PlanError::settings(
            format!("refloat.toml: volumes.{volume}: it is not said which process uses it."),
            format!("Write `{volume} = {{ process = \"{}\", path = \"/data\" }}`.", containers[0]),
        )),
    }
}

/// What a release could not hold, or what would leave the app unreachable.
fn check(draft: &Draft) -> Result<(), PlanError> {
    let mut routes: Vec<(&String, &String)> =
        draft.processes.iter().flat_map(|p| p.routes.iter().map(move |r| (r, &p.name))).collect();
    routes.sort();
    if let Some(pair) = routes.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        return Err(PlanError::settings(
            format!("The processes {} and {} both want the path {}.", pair[0].1, pair[1].1, pair[0].0),
            format!(
                "Give one of them other routes: `routes = [\"/api\"]` under [process.{}] in refloat.toml.",
                pair[1].1
            ),
        ));
    }
    let silent = draft.processes.iter().find(|p| p.kind == Kind::Web && p.routes.is_empty());
    match silent {
        Some(process) => Err(PlanError::settings(
            format!(
                "refloat.toml: process.{} is a web process without routes, so that no request would reach it.",
                process.name
            ),
            "Add routes = [\"/\"], or kind = \"worker\" when it answers no requests.",
        )),
        None => Ok(()),
    }
}
