//! Histories folded, and what they add up to.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;

use proptest::prelude::*;

use super::*;
use crate::deployment::{Action, Failure};
use crate::id::{EnvId, PlanDigest, ProcessName, ReleaseId, SourceDigest};
use crate::lineage::{self, NoTarget};
use crate::one_off::{OneOff, OneOffEnd};
use crate::release::Author;
use crate::route::{AppRoutes, AppServing};

#[derive(Default, Clone, PartialEq, Debug)]
struct Plain {
    host: HostState,
    apps: BTreeMap<AppName, AppState>,
    releases: BTreeMap<(AppName, ReleaseNumber), ReleaseRecord>,
    deployments: BTreeMap<DeploymentId, DeploymentRecord>,
    envs: BTreeMap<(AppName, EnvId), EnvRecord>,
    one_offs: BTreeMap<(AppName, OneOffId), OneOffRecord>,
}

impl Records for Plain {
    type Error = Infallible;
    fn host(&self) -> Result<HostState, Infallible> {
        Ok(self.host.clone())
    }
    fn app(&self, app: &AppName) -> Result<Option<AppState>, Infallible> {
        Ok(self.apps.get(app).cloned())
    }
    fn release(&self, app: &AppName, number: ReleaseNumber) -> Result<Option<ReleaseRecord>, Infallible> {
        Ok(self.releases.get(&(app.clone(), number)).cloned())
    }
    fn deployment(&self, id: &DeploymentId) -> Result<Option<DeploymentRecord>, Infallible> {
        Ok(self.deployments.get(id).cloned())
    }
    fn one_off(&self, app: &AppName, id: OneOffId) -> Result<Option<OneOffRecord>, Infallible> {
        Ok(self.one_offs.get(&(app.clone(), id)).cloned())
    }
    fn put_host(&mut self, host: HostState) {
        self.host = host;
    }
    fn put_app(&mut self, app: AppState) {
        self.apps.insert(app.app.clone(), app);
    }
    fn forget_app(&mut self, app: &AppName) -> Result<(), Infallible> {
        self.apps.remove(app);
        self.releases.retain(|(of, _), _| of != app);
        self.deployments.retain(|_, record| record.app != *app);
        self.envs.retain(|(of, _), _| of != app);
        self.one_offs.retain(|(of, _), _| of != app);
        Ok(())
    }
    fn put_release(&mut self, app: &AppName, release: ReleaseRecord) {
        self.releases.insert((app.clone(), release.number), release);
    }
    fn put_deployment(&mut self, id: DeploymentId, deployment: DeploymentRecord) {
        self.deployments.insert(id, deployment);
    }
    fn put_env(&mut self, app: &AppName, env: EnvId, record: EnvRecord) {
        self.envs.insert((app.clone(), env), record);
    }
    fn put_one_off(&mut self, app: &AppName, record: OneOffRecord) {
        self.one_offs.insert((app.clone(), record.one_off.id), record);
    }
}

/// Records with what is needed to write the next event.
#[derive(Clone)]
struct Host {
    records: Plain,
    now_ms: u64,
    deployments: u8,
}

fn shop() -> AppName {
    AppName::new("shop").unwrap()
}

fn routes(number: u32, serving: AppServing) -> AppRoutes {
    AppRoutes {
        app: shop(),
        release: ReleaseNumber(number),
        release_id: ReleaseId([0; 32]),
        hosts: Vec::new(),
        catch_all: true,
        serving,
        routes: Vec::new(),
    }
}

impl Host {
    fn with_app() -> Self {
        let mut host = Self { records: Plain::default(), now_ms: 100, deployments: 0 };
        host.apply(Event::HostInitialised { host_id: [1; 16], epoch: Epoch(1) }).unwrap();
        host.apply(Event::AppCreated { app: shop(), subnet: 0 }).unwrap();
        host
    }

    fn apply(&mut self, event: Event) -> Result<(), FoldError<Infallible>> {
        self.now_ms += 1;
        apply(&mut self.records, &Entry { at_ms: self.now_ms, by: Principal::agent(), event })
    }

    fn accept(&mut self, action: Action) -> DeploymentId {
        self.deployments += 1;
        let id = DeploymentId([self.deployments; 16]);
        let deployment = Deployment {
            id,
            action,
            by: Principal::agent(),
            reason: "why".to_owned(),
            accepted_at_ms: self.now_ms,
            serving_before: None,
            release: None,
            committed: false,
            handovers: Vec::new(),
            resumed: 0,
        };
        self.apply(Event::DeploymentAccepted { app: shop(), deployment }).unwrap();
        id
    }

    fn create_release(&mut self, deployment: DeploymentId, number: u32) {
        let release = Release {
            app: shop(),
            source: SourceDigest([1; 32]),
            plan: PlanDigest([2; 32]),
            processes: Vec::new(),
            env: EnvId([3; 32]),
            parent: None,
            author: Author("ada".to_owned()),
        };
        let meta = ReleaseMeta {
            created_at_ms: 1,
            origin: Default::default(),
            build_ms: 1,
            build_env: Vec::new(),
            changes: Vec::new(),
            kind: "deploy".to_owned(),
        };
        self.apply(Event::ReleaseCreated { deployment, number: ReleaseNumber(number), release, meta }).unwrap();
    }

    /// The commit that follows from what is there.
    fn commit(&self, deployment: DeploymentId, activates: Option<u32>, routes: Option<AppRoutes>) -> Event {
        let table = self.records.host.table.with(&shop(), routes.clone());
        Event::RoutesCommitted {
            app: shop(),
            deployment,
            activates: activates.map(ReleaseNumber),
            routes,
            generation: table.generation,
            table: table.table_digest(),
        }
    }

    fn activate(&mut self, deployment: DeploymentId, number: u32) {
        let commit = self.commit(deployment, Some(number), Some(routes(number, AppServing::Serving)));
        self.apply(commit).unwrap();
        self.end(deployment, Outcome::Live);
    }

    fn end(&mut self, deployment: DeploymentId, outcome: Outcome) {
        self.apply(Event::DeploymentEnded { app: shop(), deployment, outcome }).unwrap();
    }

    fn deploy(&mut self, number: u32) {
        let id = self.accept(Action::Restart);
        self.create_release(id, number);
        self.activate(id, number);
    }

    fn rollback(&mut self, to: u32) {
        let id = self.accept(Action::Rollback(ReleaseNumber(to)));
        self.activate(id, to);
    }

    fn state(&self) -> &AppState {
        &self.records.apps[&shop()]
    }

    fn release(&self, number: u32) -> &ReleaseRecord {
        &self.records.releases[&(shop(), ReleaseNumber(number))]
    }

    /// Where a rollback from that release goes.
    fn target(&self, from: ReleaseNumber) -> Result<ReleaseNumber, NoTarget> {
        lineage::rollback_target(from, false, |number| self.records.releases.get(&(shop(), number)))
    }

    fn predecessor(&self, number: u32) -> Option<u32> {
        self.release(number).predecessor.map(|n| n.0)
    }
}

#[test]
fn a_release_descends_from_what_served_when_it_was_first_activated_and_keeps_that() {
    let mut host = Host::with_app();
    host.deploy(1);
    host.deploy(2);
    host.rollback(1);
    host.deploy(3);
    assert_eq!([1, 2, 3].map(|n| host.predecessor(n)), [None, Some(1), Some(1)]);
    host.rollback(2);
    assert_eq!([1, 2, 3].map(|n| host.predecessor(n)), [None, Some(1), Some(1)]);
    assert_eq!(host.state().displaced, Some(ReleaseNumber(3)));
}

#[test]
fn activating_what_serves_displaces_nothing_and_is_still_kept() {
    let mut host = Host::with_app();
    host.deploy(1);
    host.deploy(2);
    let since = host.state().serving_since_ms;
    host.rollback(2);
    let state = host.state();
    assert_eq!((state.serving, state.displaced), (Some(ReleaseNumber(2)), Some(ReleaseNumber(1))));
    assert_eq!(state.serving_since_ms, since);
    assert_eq!((host.release(2).activations.len(), host.predecessor(2)), (2, Some(1)));
}

#[test]
fn an_activation_says_when_who_why_and_how() {
    let mut host = Host::with_app();
    host.deploy(1);
    host.deploy(2);
    host.rollback(1);
    let last = host.release(1).activations.last().unwrap();
    assert_eq!((last.reason.as_str(), last.kind.as_str(), last.generation.number), ("why", "rollback", 3));
    assert_eq!((last.at_ms, &last.by), (host.state().serving_since_ms, &Principal::agent()));
}

#[test]
fn how_long_it_took_is_from_the_acceptance_to_the_commit_each_time() {
    let mut host = Host::with_app();
    host.deploy(1);
    let first = host.release(1).first_took_ms;
    assert_eq!((first, host.release(1).activations[0].took_ms), (3, 3), "accepted, made, committed");
    host.deploy(2);
    host.rollback(1);
    let again = host.release(1);
    assert_eq!((again.first_took_ms, again.activations[1].took_ms), (first, 2), "accepted, committed");
}

#[test]
fn a_release_keeps_its_newest_activations_only() {
    let mut host = Host::with_app();
    host.deploy(1);
    host.deploy(2);
    for _ in 0..MAX_ACTIVATIONS_KEPT {
        host.rollback(1);
        host.rollback(2);
    }
    let kept = &host.release(2).activations;
    assert_eq!(kept.len(), MAX_ACTIVATIONS_KEPT);
    assert_eq!(kept.last().unwrap().generation, host.records.host.table.generation);
    assert_eq!(host.predecessor(2), Some(1), "the first activation is gone, what it displaced is not");
}

#[test]
fn a_commit_with_another_generation_or_table_does_not_fit_and_changes_nothing() {
    let mut host = Host::with_app();
    let id = host.accept(Action::Restart);
    host.create_release(id, 1);
    let right = host.commit(id, Some(1), Some(routes(1, AppServing::Serving)));
    let Event::RoutesCommitted { generation, table, .. } = right.clone() else { unreachable!() };
    let wrong = |change: &dyn Fn(&mut Generation, &mut crate::id::TableDigest)| {
        let mut event = right.clone();
        if let Event::RoutesCommitted { generation, table, .. } = &mut event {
            change(generation, table);
        }
        event
    };
    let wrongs = [
        wrong(&|generation, _| *generation = generation.next()),
        wrong(&|generation, _| generation.number -= 1),
        wrong(&|generation, _| generation.epoch = Epoch(2)),
        wrong(&|_, table| table.0[31] ^= 1),
    ];
    for event in wrongs {
        let before = host.records.clone();
        assert!(matches!(host.apply(event), Err(FoldError::DoesNotFit(_))));
        assert_eq!(host.records, before);
    }
    host.apply(right).unwrap();
    assert_eq!((host.records.host.table.generation, host.records.host.table.table_digest()), (generation, table));
    assert!(host.state().deployment.as_ref().is_some_and(|d| d.committed));
}

#[test]
fn stop_and_what_ends_it_are_told_by_the_committed_routes() {
    let mut host = Host::with_app();
    host.deploy(1);
    for (serving, stopped) in [(AppServing::Stopped, true), (AppServing::Serving, false)] {
        let id = host.accept(Action::Stop);
        let commit = host.commit(id, None, Some(routes(1, serving)));
        host.apply(commit).unwrap();
        host.end(id, Outcome::Done);
        assert_eq!((host.state().stopped, host.state().serving), (stopped, Some(ReleaseNumber(1))));
    }
    assert_eq!(host.release(1).activations.len(), 1);
}

#[test]
fn handovers_and_resumptions_are_kept_in_both_places_until_they_end() {
    let mut host = Host::with_app();
    let id = host.accept(Action::Restart);
    let process = crate::id::ProcessName::new("worker").unwrap();
    let began = Event::HandoverBegan { app: shop(), deployment: id, process: process.clone() };
    host.apply(began.clone()).unwrap();
    host.apply(began).unwrap();
    host.apply(Event::DeploymentResumed { app: shop(), deployment: id }).unwrap();
    let running = host.state().deployment.clone().unwrap();
    assert_eq!((running.handovers.len(), running.resumed), (1, 1), "beginning twice is one handover");
    assert_eq!(host.records.deployments[&id].deployment, running);
    host.apply(Event::HandoverEnded { app: shop(), deployment: id, process, completed: false }).unwrap();
    assert_eq!(host.records.deployments[&id].deployment.handovers, []);
}

#[test]
fn a_deployment_that_ended_leaves_the_app_free_and_its_outcome_behind() {
    let mut host = Host::with_app();
    let id = host.accept(Action::Restart);
    let failure = Failure {
        reason: "UNHEALTHY".to_owned(),
        message: "no answer".to_owned(),
        next_command: String::new(),
        lines: Vec::new(),
    };
    let outcome = Outcome::Failed(failure);
    host.end(id, outcome.clone());
    assert_eq!(host.state().deployment, None);
    let record = &host.records.deployments[&id];
    assert_eq!((record.outcome.as_ref(), record.ended_at_ms), (Some(&outcome), host.now_ms));
}

#[test]
fn a_deployment_that_never_got_its_turn_leaves_the_running_one_alone() {
    let mut host = Host::with_app();
    let running = host.accept(Action::Restart);
    let waiting = host.accept(Action::Restart);
    assert_eq!(host.state().deployment.as_ref().map(|d| d.id), Some(running));
    host.end(waiting, Outcome::Superseded { by: DeploymentId([9; 16]) });
    assert_eq!(host.state().deployment.as_ref().map(|d| d.id), Some(running));
    assert!(host.records.deployments[&waiting].outcome.is_some());
}

#[test]
fn a_destroyed_app_leaves_nothing_and_frees_its_network() {
    let mut host = Host::with_app();
    let untouched = Host::with_app().records.host.subnets;
    host.deploy(1);
    host.apply(Event::EnvSealed { app: shop(), env: EnvId([3; 32]), variables: Vec::new() }).unwrap();
    host.apply(command(1)).unwrap();
    let id = host.accept(Action::Destroy { volumes: false });
    let commit = host.commit(id, None, None);
    host.apply(commit).unwrap();
    host.apply(Event::AppDestroyed { app: shop() }).unwrap();
    let Plain { host: record, apps, releases, deployments, envs, one_offs } = host.records.clone();
    assert!(apps.is_empty() && releases.is_empty() && deployments.is_empty() && envs.is_empty() && one_offs.is_empty());
    assert_eq!((record.subnets.len(), record.table.apps.len()), (0, 0));
    assert_eq!(record.table.generation.number, 2, "the table never goes back");
    host.apply(Event::AppCreated { app: shop(), subnet: 0 }).unwrap();
    assert_eq!(host.records.host.subnets, untouched);
}

fn command(number: u8) -> Event {
    let web = ProcessName::new("web").unwrap();
    let one_off = OneOff::of(OneOffId([number; 16]), ReleaseNumber(1), web, &["ls".to_owned()], String::new());
    Event::OneOffBegan { app: shop(), one_off }
}

#[test]
fn a_command_runs_until_it_ends_and_is_begun_once() {
    let mut host = Host::with_app();
    host.deploy(1);
    host.apply(command(1)).unwrap();
    host.apply(command(2)).unwrap();
    let id = OneOffId([1; 16]);
    host.apply(Event::OneOffEnded { app: shop(), id, end: OneOffEnd::Exited(3) }).unwrap();
    assert_eq!(host.records.apps[&shop()].one_offs, [OneOffId([2; 16])]);
    assert_eq!(host.records.one_offs[&(shop(), id)].end, Some(OneOffEnd::Exited(3)));
    assert!(host.apply(command(1)).is_err(), "one that has ended");
    assert!(host.apply(command(2)).is_err(), "one that runs");
}

#[test]
fn an_event_about_what_is_not_there_does_not_fit() {
    let mut host = Host::with_app();
    let id = host.accept(Action::Restart);
    let (nobody, nothing) = (AppName::new("nobody").unwrap(), DeploymentId([99; 16]));
    let events = [
        Event::AppCreated { app: shop(), subnet: 9 },
        Event::AppCreated { app: nobody.clone(), subnet: 0 },
        Event::DomainsSet { app: nobody.clone(), domains: Vec::new() },
        Event::OneOffEnded { app: shop(), id: OneOffId([99; 16]), end: OneOffEnd::Exited(0) },
        Event::DeploymentEnded { app: shop(), deployment: nothing, outcome: Outcome::Done },
        Event::DeploymentResumed { app: shop(), deployment: nothing },
        host.commit(id, Some(7), Some(routes(7, AppServing::Serving))),
    ];
    for event in events {
        let answer = host.clone().apply(event.clone());
        assert!(matches!(answer, Err(FoldError::DoesNotFit(_))), "{event:?}");
    }
}

#[test]
fn an_instance_that_is_planned_again_is_one_and_the_highest_attempt_is_kept() {
    let mut host = Host::with_app();
    let process = crate::id::ProcessName::new("web").unwrap();
    let instance = |attempt| InstanceRecord {
        name: crate::id::InstanceName::derive(&shop(), &process, &[1; 32], attempt),
        process: process.clone(),
        release: ReleaseNumber(1),
        spec: [1; 32],
        attempt,
        ip: [10, 201, 0, 2],
        port: 80,
    };
    for attempt in [3, 3, 1] {
        host.apply(Event::InstancePlanned { app: shop(), instance: instance(attempt) }).unwrap();
    }
    assert_eq!((host.state().instances.len(), host.state().attempt), (2, 3));
    host.apply(Event::InstanceRemoved { app: shop(), instance: instance(3).name }).unwrap();
    assert_eq!((host.state().instances.len(), host.state().attempt), (1, 3));
}

#[derive(Debug, Clone, Copy)]
enum Change {
    Deploy,
    /// Makes a release and leaves it.
    Make,
    /// Activates one of the releases, by its place among them.
    Activate(usize),
    Rollback,
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        3 => Just(Change::Deploy),
        1 => Just(Change::Make),
        2 => (0usize..64).prop_map(Change::Activate),
        4 => Just(Change::Rollback),
    ]
}

proptest! {
    /// Rolling back on and on visits every release once at most and ends; it never lands on a release that was rolled
    /// back from and not asked for since.
    #[test]
    fn a_rollback_ends_and_never_returns_to_what_it_came_from(changes in proptest::collection::vec(change(), 0..40)) {
        let mut host = Host::with_app();
        let (mut newest, mut given_up) = (0, BTreeSet::new());
        for change in changes {
            match change {
                Change::Deploy => {
                    newest += 1;
                    host.deploy(newest);
                }
                Change::Make => {
                    newest += 1;
                    let id = host.accept(Action::Restart);
                    host.create_release(id, newest);
                    host.end(id, Outcome::Done);
                }
                Change::Activate(_) if newest == 0 => {}
                Change::Activate(place) => {
                    let number = 1 + u32::try_from(place).unwrap() % newest;
                    given_up.remove(&number);
                    host.rollback(number);
                }
                Change::Rollback => {
                    if let Some(from) = host.state().serving
                        && let Ok(to) = host.target(from)
                    {
                        prop_assert!(!given_up.contains(&to.0), "{from} back to {to}, which was rolled back from");
                        given_up.insert(from.0);
                        host.rollback(to.0);
                    }
                }
            }
        }
        let (mut at, mut seen) = (host.state().serving, BTreeSet::new());
        while let Some(number) = at {
            prop_assert!(seen.insert(number), "{number} twice");
            at = host.target(number).ok();
        }
    }
}
