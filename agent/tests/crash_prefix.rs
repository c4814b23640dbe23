//! Every prefix of a deploy, a rollback and a handover: at each effect the agent dies before it, dies after it, sees it
//! fail, or loses its answer. A new agent on the same disk must end every deployment, keep what was acknowledged, and
//! leave exactly what the journal says.

#![allow(clippy::unwrap_used, clippy::panic)]

mod world;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use refloat_agent::faults::{Faults, Mode};
use refloat_agent::journal::Fault;
use refloat_model::{AppRoutes, Event, Outcome, ReleaseNumber, SourceDigest};
use tokio::task::JoinHandle;
use world::{Agent, Shape, World, app, deploy, maybe_report, rollback};

/// How long a deployment may take with a fault in its way; tokio's time, which is paused.
const BOUND: Duration = Duration::from_secs(120);

/// In tenths of a second: a start and its probe, several times over.
const SLOW_START: u32 = 100;

#[derive(Clone, Copy, Debug)]
enum Scenario {
    Deploy,
    Rollback,
    Handover,
    HandoverBack,
    FilesDeploy,
}

impl Scenario {
    fn shape(self) -> Shape {
        if self.is_exclusive() { Shape::exclusive() } else { Shape::good() }
    }

    fn is_exclusive(self) -> bool {
        matches!(self, Self::Handover | Self::HandoverBack)
    }

    fn is_back(self) -> bool {
        matches!(self, Self::Rollback | Self::HandoverBack)
    }

    /// What served before the act, and what serves when it succeeds.
    fn before_and_after(self) -> (ReleaseNumber, ReleaseNumber) {
        if self.is_back() { (ReleaseNumber(2), ReleaseNumber(1)) } else { (ReleaseNumber(1), ReleaseNumber(2)) }
    }

    /// Everything before the act, by a healthy agent.
    async fn prepare(self, world: &World) -> SourceDigest {
        let (first, second) = match self {
            Self::FilesDeploy => (world.files(1), world.files(2)),
            _ => (world.source(1, self.shape()), world.source(2, self.shape())),
        };
        let agent = world.healthy_agent().await;
        assert_eq!(agent.deploy(&app("shop"), first).await.outcome, Outcome::Live);
        if self.is_back() {
            assert_eq!(agent.deploy(&app("shop"), second).await.outcome, Outcome::Live);
        }
        world.settled(&app("shop")).await;
        tokio::time::sleep(Duration::from_secs(60)).await;
        second
    }

    async fn act(self, agent: &Agent, second: SourceDigest) -> Told {
        let ask = if self.is_back() { rollback() } else { deploy(second) };
        match tokio::time::timeout(BOUND, agent.submit(&app("shop"), ask)).await {
            Ok(Ok(watch)) => Told { accepted: true, outcome: maybe_report(watch, BOUND).await.map(|r| r.outcome) },
            Ok(Err(_)) | Err(_) => Told { accepted: false, outcome: None },
        }
    }
}

/// What the caller was told.
#[derive(Debug)]
struct Told {
    accepted: bool,
    outcome: Option<Outcome>,
}

impl Told {
    /// Told that the ledger accepts nothing: the outcome is open.
    fn is_open(&self) -> bool {
        matches!(&self.outcome, Some(Outcome::Failed(failure)) if failure.reason == "LEDGER")
    }
}

/// What the ledger's disk says of one deployment.
#[derive(Debug, Default)]
struct Recorded {
    accepted: bool,
    commits: usize,
    outcomes: Vec<Outcome>,
}

impl Recorded {
    /// Of the deployment accepted after the first `before` records, if there is one.
    fn after(world: &World, before: usize) -> Self {
        let mut recorded = Self::default();
        for event in &world.disk.events()[before..] {
            match event {
                Event::DeploymentAccepted { .. } => {
                    assert!(!recorded.accepted, "accepted twice");
                    recorded.accepted = true;
                }
                Event::RoutesCommitted { .. } => recorded.commits += 1,
                Event::DeploymentEnded { outcome, .. } => recorded.outcomes.push(outcome.clone()),
                _ => {}
            }
        }
        recorded
    }
}

fn is_live(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Live | Outcome::LiveUnverified(_) | Outcome::CommittedNotServed(_))
}

async fn effects_of(scenario: Scenario) -> usize {
    let world = World::new().await;
    let second = scenario.prepare(&world).await;
    let faults = Faults::none();
    let agent = world.agent(&faults).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    faults.reset_count();
    let told = scenario.act(&agent, second).await;
    assert_eq!(told.outcome, Some(Outcome::Live), "{scenario:?} succeeds when nothing goes wrong");
    tokio::time::sleep(Duration::from_secs(60)).await;
    faults.effects().len()
}

fn routes_of(world: &World) -> Option<AppRoutes> {
    world.edge.active().app(&app("shop")).cloned()
}

async fn one(scenario: Scenario, n: usize, mode: Mode) {
    let world = World::new().await;
    let second = scenario.prepare(&world).await;
    let (routes, records) = (routes_of(&world), world.disk.events().len());
    let (from, to) = scenario.before_and_after();
    let faults = Faults::none();
    let agent = world.agent(&faults).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    faults.arm(n, mode);
    let lost = faults.clone();
    world.journal.on_append(move |_, _| lost.loses_record().then_some(Fault::AnswerLost));
    let visitors = Visitors::of(&world);
    let told = scenario.act(&agent, second).await;
    let (answered, then) = (world.answers(&app("shop")), Recorded::after(&world, records));
    tokio::time::sleep(Duration::from_secs(60)).await;
    let hit = faults.effects().get(n).copied().unwrap_or("none");
    let label = format!("{scenario:?}, effect {n}, {mode:?} ({hit})");
    told_is_durable(&label, &told, &then, faults.must_restart());
    if matches!(told.outcome, Some(Outcome::Failed(_))) {
        assert_eq!(answered, Some(from), "{label}: the old release answers when the failure is told");
    }
    let (world, _agent) = if faults.must_restart() { restart(world, agent).await } else { (world, agent) };
    world.settled(&app("shop")).await;
    check(&world, &label, &then, &Recorded::after(&world, records), routes, from, to).await;
    let unanswered = visitors.unanswered();
    assert!(unanswered == 0 || scenario.is_exclusive(), "{label}: {unanswered} visitors got no answer");
}

/// A next agent, which reads the ledger from its disk.
async fn restart(world: World, agent: Agent) -> (World, Agent) {
    drop(agent);
    let world = world.reloaded();
    let next = world.healthy_agent().await;
    (world, next)
}

/// One visitor after the other, from here to the end.
struct Visitors {
    unanswered: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Visitors {
    fn of(world: &World) -> Self {
        let (world, unanswered) = (world.clone(), Arc::<AtomicUsize>::default());
        let count = Arc::clone(&unanswered);
        let task = tokio::spawn(async move {
            loop {
                count.fetch_add(usize::from(world.answers(&app("shop")).is_none()), Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        Self { unanswered, task }
    }

    fn unanswered(&self) -> usize {
        self.unanswered.load(Ordering::Relaxed)
    }
}

impl Drop for Visitors {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Acknowledged means durable.
fn told_is_durable(label: &str, told: &Told, then: &Recorded, must_restart: bool) {
    assert!(then.accepted || !told.accepted, "{label}: what was accepted is recorded");
    match &told.outcome {
        None => {}
        Some(_) if told.is_open() => assert!(must_restart, "{label}: the outcome is open, the ledger too"),
        // All that can be promised of a commit when the ledger does not take its outcome.
        Some(Outcome::LiveUnverified(_)) if must_restart => assert_eq!(then.commits, 1, "{label}: live is committed"),
        Some(told) => assert_eq!(then.outcomes.as_slice(), std::slice::from_ref(told), "{label}: told is recorded"),
    }
}

/// What holds at rest, whatever was told: the ledger's word, what answers and what was found before agree.
async fn check(
    world: &World,
    label: &str,
    then: &Recorded,
    at_rest: &Recorded,
    before: Option<AppRoutes>,
    from: ReleaseNumber,
    to: ReleaseNumber,
) {
    let state = world.app(&app("shop")).await;
    let serves = state.serving.unwrap_or_else(|| panic!("{label}: nothing serves"));
    for _ in 0..SLOW_START {
        if world.answers(&app("shop")).is_some() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(world.answers(&app("shop")), Some(serves), "{label}: what is recorded answers");
    let generations = world.edge.history();
    assert!(generations.windows(2).all(|p| p[0] < p[1]), "{label}: generations rise: {generations:?}");
    assert!(at_rest.outcomes.starts_with(&then.outcomes), "{label}: an outcome is final: {then:?}, {at_rest:?}");
    assert_eq!(at_rest.outcomes.len(), usize::from(at_rest.accepted), "{label}: one outcome: {at_rest:?}");
    assert!(then.commits <= at_rest.commits && at_rest.commits <= 1, "{label}: one commit: {at_rest:?}");
    let live = at_rest.outcomes.iter().any(is_live);
    assert_eq!(live, at_rest.commits == 1, "{label}: live is what was committed: {at_rest:?}");
    if live {
        assert_eq!(serves, to, "{label}: what was committed serves");
    } else {
        assert_eq!(serves, from, "{label}: what ended before its commit left the old release: {at_rest:?}");
        assert_eq!(routes_of(world), before, "{label}: and exactly the routes it found");
    }
}

async fn every_prefix(scenario: Scenario) {
    let effects = effects_of(scenario).await;
    assert!(effects >= 5, "{scenario:?} has effects to cut at: {effects}");
    for n in 0..effects {
        for mode in Mode::ALL {
            one(scenario, n, mode).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn every_prefix_of_a_deploy_ends_well() {
    every_prefix(Scenario::Deploy).await;
}

#[tokio::test(start_paused = true)]
async fn every_prefix_of_a_rollback_ends_well() {
    every_prefix(Scenario::Rollback).await;
}

#[tokio::test(start_paused = true)]
async fn every_prefix_of_a_handover_ends_well() {
    every_prefix(Scenario::Handover).await;
}

#[tokio::test(start_paused = true)]
async fn every_prefix_of_a_rollback_by_handover_ends_well() {
    every_prefix(Scenario::HandoverBack).await;
}

#[tokio::test(start_paused = true)]
async fn every_prefix_of_a_deploy_of_static_files_ends_well() {
    every_prefix(Scenario::FilesDeploy).await;
}
