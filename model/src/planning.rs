//! From a wanted release and what is observed to the next steps.
//!
//! Owns: which instance a process of a release runs in, what must be done to make it ready, and the routes that follow.
//! The driver observes, asks here, does, and observes again; after a crash it does just the same.

use minicbor::Encode;

use crate::canonical::domain_digest;
use crate::event::InstanceRecord;
use crate::id::{AppName, EnvId, InstanceName, ReleaseId, ReleaseNumber};
use crate::release::{Backend, Process, Release};
use crate::route::{AppRoutes, AppServing, HostName, Route, RouteTarget};

/// What of a process its container depends on: two releases with the same share the container.
#[derive(Encode)]
struct RuntimeSpec<'a> {
    #[cbor(n(0), with = "minicbor::bytes")]
    host: [u8; 16],
    #[n(1)]
    app: &'a AppName,
    #[n(2)]
    process: &'a crate::id::ProcessName,
    #[n(3)]
    backend: &'a Backend,
    #[n(4)]
    env: &'a EnvId,
    #[n(5)]
    resources: &'a crate::release::Resources,
    #[n(6)]
    volumes: &'a [crate::release::VolumeMount],
}

/// Digest of the runtime specification of a process: image, command, port, environment, limits, volumes; not routes,
/// not health, not the release's number.
#[must_use]
pub fn runtime_spec(host: [u8; 16], release: &Release, process: &Process) -> [u8; 32] {
    let spec = RuntimeSpec {
        host,
        app: &release.app,
        process: &process.name,
        backend: &process.backend,
        env: &release.env,
        resources: &process.resources,
        volumes: &process.volumes,
    };
    let mut bytes = vec![1];
    match minicbor::encode(&spec, &mut bytes) {
        Ok(()) => domain_digest("refloat runtime spec 1", &bytes),
        Err(error) => unreachable!("encoding to memory failed: {error}"),
    }
}

/// What a container is seen to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// It is not there.
    Missing,
    /// It is there and has never run, or has ended.
    Stopped,
    /// It runs.
    Running,
    /// It is frozen.
    Paused,
    /// It crashes again and again, cannot be removed, or is being stopped: not to be relied on.
    Broken,
}

/// What makes a process's instance ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ready {
    /// It runs: probe it.
    Probe,
    /// Thaw it, then probe; when the probe fails a new one takes its place.
    Wake,
    /// Start it, then probe; when the probe fails a new one takes its place.
    Start,
    /// Create the recorded one again, with its address, then start.
    Recreate,
    /// Record a new one, create, start.
    New,
}

/// What to do with the newest recorded instance of a specification, or without one.
///
/// `fresh` asks for a new instance whatever is there (`restart`).
#[must_use]
pub fn readiness(recorded: bool, seen: Seen, fresh: bool) -> Ready {
    match (recorded && !fresh, seen) {
        (false, _) | (true, Seen::Broken) => Ready::New,
        (true, Seen::Missing) => Ready::Recreate,
        (true, Seen::Stopped) => Ready::Start,
        (true, Seen::Running) => Ready::Probe,
        (true, Seen::Paused) => Ready::Wake,
    }
}

/// The instance that a specification runs in: the recorded one with the highest attempt.
#[must_use]
pub fn newest_instance<'a>(instances: &'a [InstanceRecord], spec: &[u8; 32]) -> Option<&'a InstanceRecord> {
    instances.iter().filter(|i| i.spec == *spec).max_by_key(|i| i.attempt)
}

/// Addresses of an app's /26 for its instances, by their last six bits: the first address is the gateway's, and Docker gives
/// those of the upper half to one-off commands.
pub const INSTANCE_ADDRESSES: std::ops::Range<u32> = 2..32;

/// The first address for an instance that no other has and no table names.
#[must_use]
pub fn free_address(base: [u8; 4], taken: &[[u8; 4]]) -> Option<[u8; 4]> {
    let base = u32::from_be_bytes(base);
    INSTANCE_ADDRESSES.map(|offset| base.saturating_add(offset).to_be_bytes()).find(|ip| !taken.contains(ip))
}

/// Routes of a release over its instances.
///
/// Returns `None` when a web process has no instance in `instances`.
#[must_use]
pub fn routes(
    release: &Release,
    number: ReleaseNumber,
    id: ReleaseId,
    domains: &[HostName],
    instances: &[(crate::id::ProcessName, InstanceRecord)],
) -> Option<AppRoutes> {
    let mut routes = Vec::new();
    for process in &release.processes {
        for prefix in &process.routes {
            let target = match &process.backend {
                Backend::Files { tree, rules } => RouteTarget::Files { tree: *tree, rules: rules.clone() },
                Backend::Instance { .. } => {
                    let (_, instance) = instances.iter().find(|(name, _)| *name == process.name)?;
                    RouteTarget::Instance { name: instance.name.clone(), ip: instance.ip, port: instance.port }
                }
            };
            routes.push(Route { prefix: prefix.clone(), process: process.name.clone(), target });
        }
    }
    routes.sort_by(|a, b| a.prefix.cmp(&b.prefix));
    Some(AppRoutes {
        app: release.app.clone(),
        release: number,
        release_id: id,
        hosts: domains.to_vec(),
        catch_all: domains.is_empty(),
        serving: AppServing::Serving,
        routes,
    })
}

/// Instances that nothing needs: neither the routes, nor the kept ones. They may be removed.
#[must_use]
pub fn surplus<'a>(instances: &'a [InstanceRecord], keep: &[InstanceName]) -> Vec<&'a InstanceRecord> {
    instances.iter().filter(|i| !keep.contains(&i.name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_observation_has_a_decision() {
        use Ready::{New, Probe, Recreate, Start, Wake};
        for (seen, recorded, expected) in [
            (Seen::Missing, true, Recreate),
            (Seen::Stopped, true, Start),
            (Seen::Running, true, Probe),
            (Seen::Paused, true, Wake),
            (Seen::Broken, true, New),
            (Seen::Missing, false, New),
            (Seen::Running, false, New),
        ] {
            assert_eq!(readiness(recorded, seen, false), expected, "{seen:?} {recorded}");
            assert_eq!(readiness(recorded, seen, true), New, "a fresh one is new whatever is there");
        }
    }

    #[test]
    fn addresses_skip_the_gateway_and_what_is_taken_and_end() {
        let base = [10, 201, 0, 64];
        assert_eq!(free_address(base, &[]), Some([10, 201, 0, 66]));
        assert_eq!(free_address(base, &[[10, 201, 0, 66]]), Some([10, 201, 0, 67]));
        let all: Vec<_> = (0..64).map(|i| [10, 201, 0, 64 + i]).collect();
        assert_eq!(free_address(base, &all), None);
    }
}
