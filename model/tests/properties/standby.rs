//! What is kept of a displaced instance, under any policy.

use proptest::prelude::*;
use refloat_model::standby::{Displaced, Standby, StandbyPolicy, decide, has_data_bindings};
use refloat_model::{
    Backend, Health, Process, ProcessKind, ProcessName, Resources, StaticRules, TreeDigest, VolumeMount,
};

fn process(kind: ProcessKind, exclusive: bool, volume: bool) -> Process {
    let name = ProcessName::new("web").unwrap();
    Process {
        kind,
        exclusive,
        backend: Backend::Files { tree: TreeDigest([0; 32]), rules: StaticRules::default() },
        routes: vec![],
        health: Health::default(),
        resources: Resources::default(),
        volumes: volume.then(|| VolumeMount { name: name.clone(), path: "/data".into() }).into_iter().collect(),
        schedule: None,
        name,
    }
}

fn kind() -> impl Strategy<Value = ProcessKind> {
    prop_oneof![3 => Just(ProcessKind::Web), 1 => Just(ProcessKind::Worker), 1 => Just(ProcessKind::Cron)]
}

proptest! {
    #[test]
    fn standby_fits_its_budget_ends_in_time_and_never_freezes_what_holds_data(
        kind in kind(),
        exclusive in any::<bool>(),
        volume in any::<bool>(),
        database in any::<bool>(),
        ages in proptest::collection::vec(0u64..2_000, 2),
        memory_bytes in 0u64..1_000,
        others_bytes in 0u64..1_000,
        (paused_ms, running_ms, memory_budget_bytes) in (0u64..1_500, 0u64..1_500, 0u64..1_500),
    ) {
        let process = process(kind, exclusive, volume);
        let env_names = if database { vec!["DATABASE_URL".to_owned()] } else { vec!["API_KEY".to_owned()] };
        let policy = StandbyPolicy { paused_ms, running_ms, memory_budget_bytes };
        let at = |age_ms| decide(Displaced { process: &process, env_names: &env_names, age_ms, memory_bytes, others_bytes }, policy);
        let (now, changes_in) = at(ages[0]);
        if now != Standby::Stopped {
            prop_assert!(kind == ProcessKind::Web && !exclusive, "only what may run twice is kept warm");
            prop_assert!(memory_bytes + others_bytes <= memory_budget_bytes);
        }
        prop_assert!(now != Standby::Paused || !has_data_bindings(&process, &env_names), "frozen with connections open");
        match changes_in {
            Some(ms) => {
                prop_assert!(ms > 0, "what is kept is kept for some time, or it would be decided again and again");
                prop_assert_eq!(at(ages[0] + ms), (Standby::Stopped, None), "and no longer than it says");
                prop_assert_eq!(at(ages[0] + ms - 1).0, now);
            }
            None => prop_assert_eq!(now, Standby::Stopped, "what is warm has an end"),
        }
        let (young, old) = (ages[0].min(ages[1]), ages[0].max(ages[1]));
        prop_assert!(at(young).0 != Standby::Stopped || at(old).0 == Standby::Stopped, "nothing comes back by age");
    }
}
