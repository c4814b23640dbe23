//! Steps from any observation, routes of any release.

use proptest::prelude::*;
use refloat_model::planning::{Ready, Seen, free_address, newest_instance, readiness, routes};
use refloat_model::{
    AppName, Author, Backend, EnvId, Hardening, Health, ImageDigest, InstanceName, InstanceRecord, PathPrefix,
    PlanDigest, Process, ProcessKind, ProcessName, Release, ReleaseId, ReleaseNumber, Resources, RouteTarget,
    SourceDigest, StaticRules, TreeDigest,
};

const APP_PORT: u16 = 3000;
/// A wake or start that fails leads to a new instance, whose failure is the deployment's.
const MAX_STEPS: usize = 3;

fn seen() -> impl Strategy<Value = Seen> {
    prop_oneof![Just(Seen::Missing), Just(Seen::Stopped), Just(Seen::Running), Just(Seen::Paused), Just(Seen::Broken)]
}

fn app() -> AppName {
    AppName::new("shop").unwrap()
}

fn instance(process: &ProcessName, spec: [u8; 32], attempt: u32) -> InstanceRecord {
    InstanceRecord {
        name: InstanceName::derive(&app(), process, &spec, attempt),
        process: process.clone(),
        spec,
        attempt,
        ip: [10, 201, 0, 2 + attempt as u8],
        port: APP_PORT,
        release: ReleaseNumber(1),
    }
}

/// A process with `routes` prefixes of its own; of files when `files`.
fn process(index: usize, files: bool, prefixes: usize) -> Process {
    let backend = if files {
        Backend::Files { tree: TreeDigest([index as u8; 32]), rules: StaticRules::default() }
    } else {
        Backend::Instance {
            image: ImageDigest::new(format!("sha256:{}", "0".repeat(64))).unwrap(),
            command: vec![],
            port: APP_PORT,
            hardening: Hardening::Generated,
            writable_root: false,
            capabilities: Vec::new(),
        }
    };
    Process {
        name: ProcessName::new(format!("p{index}")).unwrap(),
        kind: ProcessKind::Web,
        exclusive: false,
        backend,
        routes: (0..prefixes).map(|n| PathPrefix::new(&format!("/p{index}/{n}")).unwrap()).collect(),
        health: Health::default(),
        resources: Resources::default(),
        volumes: vec![],
        schedule: None,
    }
}

fn release(processes: Vec<Process>) -> Release {
    Release {
        app: app(),
        source: SourceDigest([1; 32]),
        plan: PlanDigest([2; 32]),
        processes,
        env: EnvId([3; 32]),
        parent: None,
        author: Author("ada".to_owned()),
    }
}

proptest! {
    /// Whatever a container is seen to do, and whichever of its first answers fail, it is running or given up within
    /// three steps, and no step is one that Docker cannot do with what was seen.
    #[test]
    fn every_observation_leads_to_a_running_instance(
        recorded in any::<bool>(),
        first in seen(),
        fresh in any::<bool>(),
        answers in proptest::collection::vec(any::<bool>(), MAX_STEPS),
    ) {
        let (mut recorded, mut now, mut replace) = (recorded, if recorded { first } else { Seen::Missing }, fresh);
        for answers in answers {
            let ready = readiness(recorded, now, replace);
            match ready {
                Ready::Probe => prop_assert_eq!(now, Seen::Running),
                Ready::Wake => prop_assert_eq!(now, Seen::Paused),
                Ready::Start => prop_assert_eq!(now, Seen::Stopped),
                Ready::Recreate => prop_assert!(recorded && now == Seen::Missing),
                Ready::New => recorded = true,
            }
            now = Seen::Running;
            if answers || matches!(ready, Ready::New | Ready::Recreate) {
                return Ok(());
            }
            replace = true;
        }
        prop_assert!(false, "a second failure is of a new instance, which ends it");
    }

    #[test]
    fn a_release_is_routed_whole_or_not_at_all(
        shapes in proptest::collection::vec((any::<bool>(), 0usize..3, any::<bool>()), 0..6),
    ) {
        let processes: Vec<_> =
            shapes.iter().enumerate().map(|(index, (files, prefixes, _))| process(index, *files, *prefixes)).collect();
        let instances: Vec<_> = processes
            .iter()
            .zip(&shapes)
            .filter(|(p, (_, _, has_instance))| *has_instance && matches!(p.backend, Backend::Instance { .. }))
            .map(|(p, _)| (p.name.clone(), instance(&p.name, [7; 32], 1)))
            .collect();
        let release = release(processes);
        let lacking = release.processes.iter().any(|p| {
            matches!(p.backend, Backend::Instance { .. })
                && !p.routes.is_empty()
                && !instances.iter().any(|(name, _)| *name == p.name)
        });
        let routed = routes(&release, ReleaseNumber(1), ReleaseId([0; 32]), &[], &instances);
        prop_assert_eq!(routed.is_none(), lacking, "a routed process without an instance");
        let Some(routed) = routed else { return Ok(()) };
        prop_assert!(routed.routes.is_sorted_by(|a, b| a.prefix <= b.prefix));
        prop_assert!(routed.catch_all, "an app without a domain answers every host");
        let wanted: usize = release.processes.iter().map(|p| p.routes.len()).sum();
        prop_assert_eq!(routed.routes.len(), wanted, "every prefix, once");
        for route in &routed.routes {
            let process = release.process(&route.process).unwrap();
            prop_assert!(process.routes.contains(&route.prefix));
            match (&route.target, &process.backend) {
                (RouteTarget::Files { tree, .. }, Backend::Files { tree: wanted, .. }) => prop_assert_eq!(tree, wanted),
                (RouteTarget::Instance { name, .. }, Backend::Instance { .. }) => {
                    let (of, instance) = instances.iter().find(|(_, i)| i.name == *name).unwrap();
                    prop_assert_eq!(of, &process.name);
                    prop_assert_eq!(instance.port, APP_PORT);
                }
                other => prop_assert!(false, "routed to another kind of backend: {other:?}"),
            }
        }
    }

    #[test]
    fn an_address_is_free_inside_the_network_and_never_the_gateways(taken in proptest::collection::vec(0u8..64, 0..80)) {
        let base = [10, 201, 0, 64];
        let taken: Vec<[u8; 4]> = taken.iter().map(|offset| [10, 201, 0, 64 + offset]).collect();
        match free_address(base, &taken) {
            Some(address) => {
                prop_assert!(!taken.contains(&address));
                prop_assert!(address[..3] == base[..3] && (66..96).contains(&address[3]), "{address:?}");
            }
            None => prop_assert!((66..96).all(|last| taken.contains(&[10, 201, 0, last]))),
        }
    }

    #[test]
    fn the_newest_attempt_of_the_same_specification_is_used(attempts in proptest::collection::vec((0u8..3, 1u32..9), 0..8)) {
        let name = ProcessName::new("web").unwrap();
        let instances: Vec<_> = attempts.iter().map(|(spec, attempt)| instance(&name, [*spec; 32], *attempt)).collect();
        let newest = newest_instance(&instances, &[0; 32]);
        let expected = attempts.iter().filter(|(spec, _)| *spec == 0).map(|(_, attempt)| *attempt).max();
        prop_assert_eq!(newest.map(|i| i.attempt), expected);
    }
}
