//! The one place where a container's limits and rights are made, for creating and updating alike.
//!
//! Deliberately absent, and held absent by a test: privilege, devices, host namespaces, bind mounts, published ports,
//! added capabilities beyond the list here and the closed one of what can be given back.

use std::collections::HashMap;

use bollard::models::{
    ContainerUpdateBody, HostConfig, HostConfigLogConfig, Mount, MountType, MountVolumeOptions, RestartPolicy,
    RestartPolicyNameEnum,
};
use refloat_model::{Hardening, Resources};

use super::engine::{InstanceSpec, Restart};
use super::labels::HostLabel;

/// What an own Dockerfile or image keeps of the engine's usual set.
pub const OWN_CAPABILITIES: [&str; 7] =
    ["CHOWN", "DAC_OVERRIDE", "FOWNER", "SETUID", "SETGID", "KILL", "NET_BIND_SERVICE"];
/// `/tmp` of a container whose root is read-only; it counts towards the memory limit.
const TMP_MIB: u32 = 64;
/// The engine's own copy of the output, per file; ours is kept elsewhere.
const LOG_FILE_SIZE: &str = "10m";
/// How many such files.
const LOG_FILES: &str = "3";

/// Everything about an instance that is not its image, command or environment.
pub(super) fn host_config(spec: &InstanceSpec, host: &HostLabel) -> HostConfig {
    let limits = Limits::of(&spec.resources);
    HostConfig {
        memory: Some(limits.memory),
        memory_swap: Some(limits.memory),
        nano_cpus: limits.nano_cpus,
        pids_limit: Some(limits.pids),
        cap_drop: Some(vec!["ALL".to_owned()]),
        cap_add: capabilities(spec),
        security_opt: Some(vec!["no-new-privileges:true".to_owned()]),
        readonly_rootfs: Some(!spec.writable_root),
        tmpfs: (!spec.writable_root).then(tmp),
        mounts: Some(spec.volumes.iter().map(|(name, path)| mount(spec, host, name, path)).collect()),
        network_mode: Some(host.network(&spec.app)),
        ipc_mode: Some("private".to_owned()),
        log_config: Some(log_config()),
        // Process 1 ignores SIGTERM unless it handles it, and reaps nothing: Node does neither.
        init: Some(true),
        restart_policy: Some(restart_policy(Restart::No)),
        ..HostConfig::default()
    }
}

/// Changes the restart policy and says the limits again, as some engines take a limit that is not said for none.
pub(super) fn restart_update(current: &HostConfig, restart: Restart) -> ContainerUpdateBody {
    ContainerUpdateBody {
        memory: current.memory,
        memory_swap: current.memory_swap,
        nano_cpus: current.nano_cpus.filter(|cpus| *cpus > 0),
        pids_limit: current.pids_limit,
        restart_policy: Some(restart_policy(restart)),
        ..ContainerUpdateBody::default()
    }
}

/// What the engine's policy means to us.
pub(super) fn restart_of(policy: Option<&RestartPolicy>) -> Restart {
    match policy.and_then(|p| p.name) {
        Some(RestartPolicyNameEnum::UNLESS_STOPPED | RestartPolicyNameEnum::ALWAYS) => Restart::UnlessStopped,
        Some(RestartPolicyNameEnum::ON_FAILURE) => Restart::UnlessStopped,
        _ => Restart::No,
    }
}

struct Limits {
    memory: i64,
    nano_cpus: Option<i64>,
    pids: i64,
}

impl Limits {
    fn of(resources: &Resources) -> Self {
        Self {
            memory: i64::from(resources.memory_mib) * 1024 * 1024,
            nano_cpus: (resources.cpu_millis > 0).then(|| i64::from(resources.cpu_millis) * 1_000_000),
            pids: i64::from(resources.pids),
        }
    }
}

/// A generated image gets none, whatever else is said.
fn capabilities(spec: &InstanceSpec) -> Option<Vec<String>> {
    let given_back = spec.capabilities.iter().map(|capability| capability.name());
    match spec.hardening {
        Hardening::Generated => None,
        Hardening::Own => Some(OWN_CAPABILITIES.into_iter().chain(given_back).map(str::to_owned).collect()),
    }
}

fn tmp() -> HashMap<String, String> {
    HashMap::from([("/tmp".to_owned(), format!("rw,nosuid,nodev,mode=1777,size={TMP_MIB}m"))])
}

/// With labels: the engine makes a volume that is not there, and it must be the app's then too.
fn mount(spec: &InstanceSpec, host: &HostLabel, volume: &str, path: &str) -> Mount {
    let labels = Some(host.of_volume(&spec.app, volume));
    Mount {
        typ: Some(MountType::VOLUME),
        source: Some(host.volume(&spec.app, volume)),
        target: Some(path.to_owned()),
        read_only: Some(false),
        volume_options: Some(MountVolumeOptions { labels, ..MountVolumeOptions::default() }),
        ..Mount::default()
    }
}

fn log_config() -> HostConfigLogConfig {
    let options = [("max-size", LOG_FILE_SIZE), ("max-file", LOG_FILES)];
    HostConfigLogConfig {
        typ: Some("json-file".to_owned()),
        config: Some(options.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()),
    }
}

fn restart_policy(restart: Restart) -> RestartPolicy {
    let name = match restart {
        Restart::No => RestartPolicyNameEnum::NO,
        Restart::UnlessStopped => RestartPolicyNameEnum::UNLESS_STOPPED,
    };
    RestartPolicy { name: Some(name), maximum_retry_count: None }
}

#[cfg(test)]
mod tests {
    use refloat_model::{AppName, Capability, ImageDigest, InstanceName, ProcessName, ReleaseNumber};

    use super::*;
    use crate::docker::Secrets;

    fn spec(hardening: Hardening, writable_root: bool) -> InstanceSpec {
        let (app, process) = (AppName::new("shop").unwrap(), ProcessName::new("web").unwrap());
        InstanceSpec {
            name: InstanceName::derive(&app, &process, &[1; 32], 0),
            app,
            process,
            release: ReleaseNumber(1),
            image: ImageDigest::new(format!("sha256:{}", "0".repeat(64))).unwrap(),
            command: vec![],
            env: Secrets::default(),
            ip: "10.201.0.2".parse().unwrap(),
            aliases: vec![],
            resources: Resources { memory_mib: 128, cpu_millis: 500, pids: 64 },
            hardening,
            writable_root,
            capabilities: vec![Capability::NetRaw, Capability::SysChroot],
            volumes: vec![("data".to_owned(), "/data".to_owned())],
            spec_digest: [1; 32],
        }
    }

    fn every_config() -> Vec<HostConfig> {
        let host = HostLabel::new([7; 16]);
        [Hardening::Generated, Hardening::Own]
            .into_iter()
            .flat_map(|hardening| [true, false].map(|writable| host_config(&spec(hardening, writable), &host)))
            .collect()
    }

    type Forbidden = (&'static str, fn(&HostConfig) -> bool);

    const FORBIDDEN: [Forbidden; 24] = [
        ("privileged", |c| c.privileged.is_some()),
        ("binds", |c| c.binds.is_some()),
        ("volumes_from", |c| c.volumes_from.is_some()),
        ("a mount that is no named volume", |c| {
            c.mounts
                .iter()
                .flatten()
                .any(|m| m.typ != Some(MountType::VOLUME) || m.source.as_deref().unwrap_or("").is_empty())
        }),
        ("a mount of a host path", |c| {
            c.mounts.iter().flatten().any(|m| m.source.as_deref().unwrap_or("/").contains('/'))
        }),
        ("devices", |c| c.devices.is_some()),
        ("device_cgroup_rules", |c| c.device_cgroup_rules.is_some()),
        ("device_requests", |c| c.device_requests.is_some()),
        ("published ports", |c| c.port_bindings.is_some() || c.publish_all_ports.is_some()),
        ("the host's network", |c| !c.network_mode.as_deref().unwrap_or("").starts_with("refloat-")),
        ("the host's processes", |c| c.pid_mode.is_some()),
        ("the host's ipc", |c| c.ipc_mode.as_deref() != Some("private")),
        ("the host's uts", |c| c.uts_mode.is_some()),
        ("the host's users", |c| c.userns_mode.is_some()),
        ("the host's cgroups", |c| c.cgroupns_mode.is_some() || c.cgroup_parent.is_some()),
        ("unmasked paths", |c| c.masked_paths.is_some() || c.readonly_paths.is_some()),
        ("sysctls", |c| c.sysctls.is_some()),
        ("another runtime", |c| c.runtime.is_some()),
        ("more groups", |c| c.group_add.is_some()),
        ("no OOM killer", |c| c.oom_kill_disable.is_some() || c.oom_score_adj.is_some()),
        ("links", |c| c.links.is_some()),
        ("no memory limit", |c| c.memory != Some(128 * 1024 * 1024) || c.memory_swap != c.memory),
        ("no process limit", |c| c.pids_limit != Some(64)),
        ("new privileges or an open seccomp", |c| {
            c.security_opt.as_deref() != Some(&["no-new-privileges:true".to_owned()])
        }),
    ];

    #[test]
    fn no_host_configuration_ever_has_what_would_open_the_host() {
        for config in every_config() {
            for (what, is_there) in FORBIDDEN {
                assert!(!is_there(&config), "{what}: {config:?}");
            }
        }
    }

    #[test]
    fn every_capability_is_dropped_and_only_an_own_image_gets_its_list_and_what_it_asked_for_back() {
        let host = HostLabel::new([7; 16]);
        let generated = host_config(&spec(Hardening::Generated, false), &host);
        let own = host_config(&spec(Hardening::Own, true), &host);
        assert_eq!(generated.cap_drop.as_deref(), Some(&["ALL".to_owned()][..]));
        assert_eq!(generated.cap_add, None);
        assert_eq!(own.cap_drop.as_deref(), Some(&["ALL".to_owned()][..]));
        let wanted = "CHOWN DAC_OVERRIDE FOWNER SETUID SETGID KILL NET_BIND_SERVICE NET_RAW SYS_CHROOT";
        assert_eq!(own.cap_add.unwrap().join(" "), wanted);
        let bare = InstanceSpec { capabilities: Vec::new(), ..spec(Hardening::Own, true) };
        assert_eq!(host_config(&bare, &host).cap_add.unwrap(), OWN_CAPABILITIES);
    }

    #[test]
    fn what_the_plan_shows_is_what_the_container_gets() {
        assert_eq!(refloat_plan::capability::KEPT, OWN_CAPABILITIES);
        let names = Capability::ALL.map(Capability::name);
        assert_eq!(refloat_plan::capability::DROPPED, names);
    }

    #[test]
    fn a_read_only_root_has_a_bounded_tmp_and_a_writable_one_has_none() {
        let host = HostLabel::new([7; 16]);
        let closed = host_config(&spec(Hardening::Generated, false), &host);
        assert_eq!(closed.readonly_rootfs, Some(true));
        assert!(closed.tmpfs.unwrap()["/tmp"].contains("size=64m"));
        let open = host_config(&spec(Hardening::Own, true), &host);
        assert_eq!((open.readonly_rootfs, open.tmpfs), (Some(false), None));
    }

    #[test]
    fn an_update_of_the_restart_policy_repeats_every_limit() {
        let made = host_config(&spec(Hardening::Generated, false), &HostLabel::new([7; 16]));
        let update = restart_update(&made, Restart::UnlessStopped);
        assert_eq!((update.memory, update.memory_swap), (made.memory, made.memory_swap));
        assert_eq!((update.nano_cpus, update.pids_limit), (made.nano_cpus, made.pids_limit));
        assert_eq!(restart_of(update.restart_policy.as_ref()), Restart::UnlessStopped);
        assert_eq!(restart_of(made.restart_policy.as_ref()), Restart::No);
    }
}
