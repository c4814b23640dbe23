//! What `refloat.toml` wants otherwise, laid over what was found.

use std::collections::BTreeSet;

use super::draft::{Draft, web};
use super::findings::listed;
use super::{Detection, dockerfile};
use crate::capability::all_of;
use crate::error::PlanError;
use crate::label::{MAX_PROCESS_NAME_BYTES, is_label};
use crate::plan::{BackendPlan, Build, Kind, ProcessPlan, is_own};
use crate::settings::ProcessSettings;

/// Most paths of one Dockerfile that are warned about.
const MAX_LOST: usize = 8;

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
            give_back(process, wanted, &draft.builds)?;
            if *process != before {
                detection.findings.decide(format!("{}: changed as wanted", process.name), "refloat.toml says so");
            }
        }
    }
    draft.processes.sort_by(|a, b| a.name.cmp(&b.name));
    name_capabilities(detection, &draft);
    mount(detection, &mut draft)?;
    warn_of_lost_volumes(detection, &draft);
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
    let backend = BackendPlan::Instance {
        build: image.name().to_owned(),
        command: Vec::new(),
        port,
        writable_root,
        capabilities: Vec::new(),
    };
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
                ("capabilities", wanted.capabilities.is_some()),
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

/// Only the container of an own Dockerfile has capabilities: a generated image needs none and runs unprivileged.
fn give_back(process: &mut ProcessPlan, wanted: &ProcessSettings, builds: &[Build]) -> Result<(), PlanError> {
    let Some(back) = &wanted.capabilities else { return Ok(()) };
    match &mut process.backend {
        BackendPlan::Instance { build, capabilities, .. } if is_own(builds, build) => {
            capabilities.clone_from(back);
            capabilities.sort();
            capabilities.dedup();
            Ok(())
        }
        _ => Err(PlanError::settings(
            format!(
                "refloat.toml: process.{}.capabilities has no use: refloat makes its image, which runs as an unprivileged user without any.",
                process.name
            ),
            format!(
                "Remove the key, or build it from a Dockerfile of your own: `dockerfile = \"Dockerfile\"` under [process.{}].",
                process.name
            ),
        )),
    }
}

fn name_capabilities(detection: &mut Detection<'_>, draft: &Draft) {
    for process in &draft.processes {
        if let BackendPlan::Instance { build, capabilities, .. } = &process.backend
            && is_own(&draft.builds, build)
        {
            let because = match capabilities.as_slice() {
                [] => format!(
                    "an own Dockerfile keeps these of Docker's usual ones; `capabilities = [\"NET_RAW\"]` under [process.{}] in refloat.toml gives others back",
                    process.name
                ),
                _ => "an own Dockerfile keeps seven of Docker's usual ones, and refloat.toml gives others back"
                    .to_owned(),
            };
            let all = all_of(capabilities).join(", ");
            detection.findings.decide(format!("{}: capabilities {all}", process.name), because);
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

/// Where an own Dockerfile says VOLUME, Docker makes a nameless one that goes with the container.
fn warn_of_lost_volumes(detection: &mut Detection<'_>, draft: &Draft) {
    let containers = draft.processes.iter().filter(|p| matches!(p.backend, BackendPlan::Instance { .. })).count();
    let mut taken: BTreeSet<String> = detection.settings.volumes.keys().cloned().collect();
    for process in &draft.processes {
        let lost = lost_volumes(draft, process);
        if lost.is_empty() {
            continue;
        }
        let line = |path: &String| {
            let name = volume_name(path, &taken);
            taken.insert(name.clone());
            match containers {
                1 => format!("`{name} = \"{path}\"`"),
                _ => format!("`{name} = {{ process = \"{}\", path = \"{path}\" }}`", process.name),
            }
        };
        let lines: Vec<String> = lost.iter().map(line).collect();
        detection.findings.warn(format!(
            "What {} writes to {} is gone with the next release, although the Dockerfile has VOLUME for it, unless refloat.toml has under [volumes]: {}.",
            process.name,
            listed(&lost, lost.len()),
            listed(&lines, lines.len())
        ));
    }
}

/// What the Dockerfile of a process declares and no volume is mounted at.
fn lost_volumes(draft: &Draft, process: &ProcessPlan) -> Vec<String> {
    let BackendPlan::Instance { build: wanted, .. } = &process.backend else { return Vec::new() };
    let text = draft.builds.iter().find_map(|build| match build {
        Build::Image { name, own: true, dockerfile, .. } if name == wanted => Some(dockerfile),
        _ => None,
    });
    let declared = text.map(|text| dockerfile::volumes(text)).unwrap_or_default();
    let is_mounted = |path: &String| process.volumes.iter().any(|(_, at)| at == path);
    declared.into_iter().filter(|path| !is_mounted(path)).take(MAX_LOST).collect()
}

/// The last part of the path when it can be a name, and nobody has it.
fn volume_name(path: &str, taken: &BTreeSet<String>) -> String {
    let last = path.rsplit('/').next().unwrap_or_default().to_ascii_lowercase();
    let name = if is_label(&last, MAX_PROCESS_NAME_BYTES - 4) { last } else { "data".to_owned() };
    let numbered = (2..=taken.len() + 2).map(|n| format!("{name}-{n}"));
    std::iter::once(name.clone()).chain(numbered).find(|it| !taken.contains(it)).unwrap_or(name)
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
