//! From the plan's processes and what was built to the release's processes. Pure.

use std::collections::BTreeMap;

use refloat_model::{
    Backend, Capability, Hardening, Health, ImageDigest, NameError, PathPrefix, Process, ProcessKind, ProcessName,
    Resources, StaticRules, TreeDigest, VolumeMount,
};
use refloat_plan::plan::{BackendPlan, Kind, Plan, ProcessPlan, is_own};

use super::error::BuildError;

/// Port of a container whose plan and image name none.
pub const DEFAULT_PORT: u16 = 8_080;
/// Least memory that a container can be started with, in MiB.
const MIN_MEMORY_MIB: u32 = 16;
/// How long a start may take at most, in milliseconds.
const MAX_START_TIMEOUT_MS: u32 = 3_600_000;
/// Longest path of a health check or a volume in bytes.
const MAX_PATH_BYTES: usize = 1_024;

/// What the builds of a plan made, by name.
#[derive(Debug, Default)]
pub struct Artifacts {
    /// Images, each with the first port that it exposes.
    pub images: BTreeMap<String, (ImageDigest, Option<u16>)>,
    /// Trees.
    pub trees: BTreeMap<String, TreeDigest>,
}

/// The release's processes, sorted by name.
///
/// # Errors
/// When a value of the plan cannot run: most come from `refloat.toml`.
pub fn processes(plan: &Plan, artifacts: &Artifacts) -> Result<Vec<Process>, BuildError> {
    let convert = |process: &ProcessPlan| {
        one(plan, process, artifacts)
            .map_err(|problem| BuildError::BadProcess { process: process.name.clone(), problem })
    };
    let mut processes = plan.processes.iter().map(convert).collect::<Result<Vec<_>, _>>()?;
    processes.sort_by(|a, b| a.name.cmp(&b.name));
    match processes.windows(2).find(|pair| pair[0].name == pair[1].name) {
        Some(pair) => Err(BuildError::BadProcess {
            process: pair[0].name.to_string(),
            problem: "there are two of that name".to_owned(),
        }),
        None => Ok(processes),
    }
}

fn one(plan: &Plan, process: &ProcessPlan, artifacts: &Artifacts) -> Result<Process, String> {
    let mut volumes = process.volumes.iter().map(volume).collect::<Result<Vec<_>, _>>()?;
    volumes.sort();
    Ok(Process {
        name: ProcessName::new(&*process.name).map_err(text)?,
        kind: match process.kind {
            Kind::Web => ProcessKind::Web,
            Kind::Worker => ProcessKind::Worker,
            Kind::Cron => ProcessKind::Cron,
        },
        exclusive: process.exclusive,
        backend: backend(plan, &process.backend, artifacts)?,
        routes: prefixes(&process.routes)?,
        health: health(process)?,
        resources: resources(process)?,
        volumes,
        schedule: None,
    })
}

fn backend(plan: &Plan, backend: &BackendPlan, artifacts: &Artifacts) -> Result<Backend, String> {
    match backend {
        BackendPlan::Instance { build, command, port, writable_root, capabilities } => {
            let (image, exposed) =
                artifacts.images.get(build).ok_or_else(|| format!("no image {build:?} was built"))?;
            Ok(Backend::Instance {
                image: image.clone(),
                command: command.clone(),
                port: port.or(*exposed).unwrap_or(DEFAULT_PORT),
                hardening: hardening(plan, build),
                writable_root: *writable_root,
                capabilities: given_back(capabilities)?,
            })
        }
        BackendPlan::Files { build, fallback, not_found, no_fallback, immutable } => {
            let tree = artifacts.trees.get(build).ok_or_else(|| format!("no files {build:?} were built"))?;
            Ok(Backend::Files {
                tree: *tree,
                rules: StaticRules {
                    fallback: fallback.clone(),
                    not_found: not_found.clone(),
                    no_fallback: prefixes(no_fallback)?,
                    immutable: prefixes(immutable)?,
                },
            })
        }
    }
}

fn hardening(plan: &Plan, build: &str) -> Hardening {
    if is_own(&plan.builds, build) { Hardening::Own } else { Hardening::Generated }
}

fn given_back(names: &[refloat_plan::capability::Capability]) -> Result<Vec<Capability>, String> {
    let one =
        |name: &str| Capability::of_name(name).ok_or_else(|| format!("{name:?} is no capability to be given back"));
    let mut capabilities = names.iter().map(|name| one(name.as_str())).collect::<Result<Vec<_>, _>>()?;
    capabilities.sort();
    capabilities.dedup();
    Ok(capabilities)
}

fn prefixes(texts: &[String]) -> Result<Vec<PathPrefix>, String> {
    let mut prefixes = texts.iter().map(|text| PathPrefix::new(text)).collect::<Result<Vec<_>, _>>().map_err(text)?;
    prefixes.sort();
    prefixes.dedup();
    Ok(prefixes)
}

fn health(process: &ProcessPlan) -> Result<Health, String> {
    if let Some(path) = &process.health_path
        && !(is_path(path) && path.bytes().all(|byte| byte.is_ascii_graphic()))
    {
        return Err(format!("{path:?} cannot be the path of a health check: it starts with / and has no spaces"));
    }
    let start_timeout_ms = process.start_timeout_ms;
    if !(1_000..=MAX_START_TIMEOUT_MS).contains(&start_timeout_ms) {
        return Err(format!("a start may take 1 second to 1 hour, not {start_timeout_ms} ms"));
    }
    Ok(Health { path: process.health_path.clone(), start_timeout_ms })
}

fn resources(process: &ProcessPlan) -> Result<Resources, String> {
    if process.memory_mib < MIN_MEMORY_MIB {
        return Err(format!("{} MiB of memory start nothing; give it at least {MIN_MEMORY_MIB}", process.memory_mib));
    }
    if process.pids == 0 {
        return Err("a limit of 0 processes starts nothing".to_owned());
    }
    let ProcessPlan { memory_mib, cpu_millis, pids, .. } = *process;
    Ok(Resources { memory_mib, cpu_millis, pids })
}

fn volume((name, path): &(String, String)) -> Result<VolumeMount, String> {
    let segments = || path.split('/').skip(1);
    let plain = segments().all(|s| !s.is_empty() && s != "." && s != "..") && !path.contains([':', '\0']);
    if !is_path(path) || !plain {
        return Err(format!("the volume {name:?} cannot be at {path:?}: use a path such as /data"));
    }
    Ok(VolumeMount { name: ProcessName::new(&**name).map_err(text)?, path: path.clone() })
}

fn is_path(text: &str) -> bool {
    text.starts_with('/') && text.len() <= MAX_PATH_BYTES
}

fn text(error: NameError) -> String {
    error.to_string()
}

/// One line about a process, for people.
#[must_use]
pub fn describe(process: &ProcessPlan) -> String {
    let what = match &process.backend {
        BackendPlan::Instance { port: Some(port), .. } if process.kind == Kind::Web => {
            format!("container on port {port}")
        }
        BackendPlan::Instance { .. } => "container".to_owned(),
        BackendPlan::Files { .. } => "static files, no container".to_owned(),
    };
    let routes = if process.routes.is_empty() { String::new() } else { format!(" for {}", process.routes.join(", ")) };
    let exclusive = if process.exclusive { ", never two at once" } else { "" };
    format!("{}: {what}{routes}{exclusive}", process.name)
}

#[cfg(test)]
mod tests {
    use refloat_plan::plan::Build;

    use super::*;

    fn web() -> ProcessPlan {
        ProcessPlan {
            name: "web".into(),
            kind: Kind::Web,
            exclusive: false,
            backend: BackendPlan::Instance {
                build: "app".into(),
                command: vec!["node".into(), "server.js".into()],
                port: None,
                writable_root: false,
                capabilities: Vec::new(),
            },
            routes: vec!["/b".into(), "/".into()],
            health_path: Some("/health".into()),
            start_timeout_ms: 60_000,
            memory_mib: 512,
            cpu_millis: 0,
            pids: 256,
            volumes: vec![("data".into(), "/var/data".into())],
        }
    }

    fn plan(process: ProcessPlan, own: bool) -> Plan {
        let image = Build::Image {
            name: "app".into(),
            dockerfile: "FROM scratch".into(),
            context: String::new(),
            own,
            ignore: Vec::new(),
        };
        Plan {
            app: "app".into(),
            builder: None,
            shape: "Node server".into(),
            builds: vec![image],
            processes: vec![process],
            reasons: Vec::new(),
            notes: Vec::new(),
            build_env: Vec::new(),
            build_env_defaults: Vec::new(),
            required_env: Vec::new(),
        }
    }

    fn artifacts(exposed: Option<u16>) -> Artifacts {
        let digest = ImageDigest::new(format!("sha256:{}", "b".repeat(64))).unwrap();
        Artifacts {
            images: BTreeMap::from([("app".to_owned(), (digest, exposed))]),
            trees: BTreeMap::from([("web".to_owned(), TreeDigest([5; 32]))]),
        }
    }

    fn port(planned: Option<u16>, exposed: Option<u16>) -> u16 {
        let mut process = web();
        if let BackendPlan::Instance { port, .. } = &mut process.backend {
            *port = planned;
        }
        match &processes(&plan(process, true), &artifacts(exposed)).unwrap()[0].backend {
            Backend::Instance { port, .. } => *port,
            Backend::Files { .. } => 0,
        }
    }

    #[test]
    fn the_port_comes_from_the_plan_then_from_the_image_then_it_is_8080() {
        assert_eq!(port(Some(3_000), Some(80)), 3_000);
        assert_eq!(port(None, Some(80)), 80);
        assert_eq!(port(None, None), 8_080);
    }

    #[test]
    fn a_process_is_taken_over_with_sorted_routes_and_the_hardening_of_its_image() {
        for (own, hardening) in [(true, Hardening::Own), (false, Hardening::Generated)] {
            let process = processes(&plan(web(), own), &artifacts(None)).unwrap().remove(0);
            assert_eq!(process.routes, [PathPrefix::root(), PathPrefix::new("/b").unwrap()]);
            assert!(matches!(process.backend, Backend::Instance { hardening: found, .. } if found == hardening));
            assert_eq!(process.volumes[0].path, "/var/data");
        }
    }

    #[test]
    fn files_keep_their_rules() {
        let mut process = web();
        process.backend = BackendPlan::Files {
            build: "web".into(),
            fallback: Some("index.html".into()),
            not_found: None,
            no_fallback: vec!["/api".into()],
            immutable: vec!["/assets".into()],
        };
        let process = processes(&plan(process, false), &artifacts(None)).unwrap().remove(0);
        let Backend::Files { tree, rules } = process.backend else { unreachable!("a files backend") };
        assert_eq!((tree, rules.fallback.as_deref()), (TreeDigest([5; 32]), Some("index.html")));
        assert_eq!(rules.immutable, [PathPrefix::new("/assets").unwrap()]);
    }

    #[test]
    fn values_that_cannot_run_are_refused_with_the_process_and_the_problem() {
        let refused = |change: fn(&mut ProcessPlan), words: &str| {
            let mut process = web();
            change(&mut process);
            let message = processes(&plan(process, false), &artifacts(None)).unwrap_err().message();
            assert!(message.contains(words), "{message}");
        };
        refused(|p| p.name = "Web".into(), "the process name \"Web\" is not usable");
        refused(|p| p.routes = vec!["api".into()], "\"api\" is not usable");
        refused(|p| p.health_path = Some("health".into()), "starts with /");
        refused(|p| p.health_path = Some("/a b".into()), "no spaces");
        refused(|p| p.memory_mib = 4, "4 MiB of memory start nothing");
        refused(|p| p.pids = 0, "0 processes");
        refused(|p| p.start_timeout_ms = 10, "1 second to 1 hour");
        refused(|p| p.volumes = vec![("data".into(), "data".into())], "use a path such as /data");
        refused(|p| p.volumes = vec![("data".into(), "/a/../etc".into())], "use a path such as /data");
        refused(|p| p.volumes = vec![("data".into(), "/a:ro".into())], "use a path such as /data");
        refused(|p| p.volumes = vec![("Da ta".into(), "/data".into())], "is not usable");
    }

    #[test]
    fn two_processes_of_one_name_and_one_without_its_build_are_refused() {
        let mut twice = plan(web(), false);
        twice.processes.push(web());
        assert!(processes(&twice, &artifacts(None)).unwrap_err().message().contains("two of that name"));
        let message = processes(&plan(web(), false), &Artifacts::default()).unwrap_err().message();
        assert!(message.contains("no image \"app\" was built"), "{message}");
    }

    #[test]
    fn a_process_is_described_in_one_line() {
        assert_eq!(describe(&web()), "web: container for /b, /");
    }
}
