//! Every prefix of a deploy, a rollback and a handover: at each effect the agent dies before it, dies after it, sees it
//! fail, or loses its answer. A new agent on the same disk must end every deployment, keep what was acknowledged, and
//! leave exactly what the journal says.

#![allow(clippy::unwrap_used, clippy::panic)]

mod world;

use std::time::Duration;

use refloat_agent::deploy::update::Report;
use refloat_agent::faults::{Faults, Mode};
use refloat_model::{AppRoutes, Outcome, ReleaseNumber, SourceDigest};
use world::{Agent, Shape, World, app, deploy, maybe_report, rollback};

/// How long a deployment may take with a fault in its way; tokio's time, which is paused.
const BOUND: Duration = Duration::from_secs(120);

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
        match self {
            Self::Handover | Self::HandoverBack => Shape::exclusive(),
            _ => Shape::good(),
        }
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

    async fn act(self, agent: &Agent, second: SourceDigest) -> Option<Report> {
        let ask = if self.is_back() { rollback() } else { deploy(second) };
        match tokio::time::timeout(BOUND, agent.submit(&app("shop"), ask)).await {
            Ok(Ok(watch)) => maybe_report(watch, BOUND).await,
            Ok(Err(_)) | Err(_) => None,
        }
    }
}

async fn effects_of(scenario: Scenario) -> usize {
    let world = World::new().await;
    let second = scenario.prepare(&world).await;
    let faults = Faults::none();
    let agent = world.agent(&faults).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    faults.reset_count();
    let report = scenario.act(&agent, second).await.expect("it ends");
    assert_eq!(report.outcome, Outcome::Live, "{scenario:?} succeeds when nothing goes wrong");
    tokio::time::sleep(Duration::from_secs(60)).await;
    faults.effects().len()
}

fn routes_of(world: &World) -> Option<AppRoutes> {
    world.edge.active().app(&app("shop")).cloned()
}

async fn one(scenario: Scenario, n: usize, mode: Mode) {
    let label = format!("{scenario:?}, effect {n}, {mode:?}");
    let world = World::new().await;
    let second = scenario.prepare(&world).await;
    let before = routes_of(&world);
    let (from, to) = scenario.before_and_after();
    let faults = Faults::none();
    let agent = world.agent(&faults).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    faults.arm(n, mode);
    let report = scenario.act(&agent, second).await;
    let answers_then = world.answers(&app("shop"));
    tokio::time::sleep(Duration::from_secs(60)).await;
    let hit = faults.effects().get(n).copied().unwrap_or("none");
    let label = format!("{label} ({hit})");
    if let Some(Outcome::Failed(failure)) = report.as_ref().map(|r| &r.outcome)
        && failure.reason != "LEDGER"
    {
        assert_eq!(answers_then, Some(from), "{label}: the old release answers when the failure is told");
    }
    if faults.must_restart() {
        drop(agent);
        let next = world.healthy_agent().await;
        world.settled(&app("shop")).await;
        check(&world, &label, report, before, from, to).await;
        drop(next);
    } else {
        world.settled(&app("shop")).await;
        check(&world, &label, report, before, from, to).await;
    }
}

async fn check(
    world: &World,
    label: &str,
    report: Option<Report>,
    before: Option<AppRoutes>,
    from: ReleaseNumber,
    to: ReleaseNumber,
) {
    let state = world.app(&app("shop")).await;
    let serves = state.serving.unwrap_or_else(|| panic!("{label}: nothing serves"));
    assert!(serves == from || serves == to, "{label}: {serves} serves");
    assert_eq!(world.answers(&app("shop")), Some(serves), "{label}: what is recorded answers");
    let generations = world.edge.history();
    assert!(generations.windows(2).all(|p| p[0] < p[1]), "{label}: generations rise: {generations:?}");
    match report.map(|r| r.outcome) {
        Some(Outcome::Live | Outcome::LiveUnverified(_) | Outcome::CommittedNotServed(_)) => {
            assert_eq!(serves, to, "{label}: what was acknowledged is kept");
        }
        Some(Outcome::Failed(failure)) if failure.reason != "LEDGER" => {
            assert_eq!(serves, from, "{label}: what failed before its commit left the old release: {failure:?}");
            assert_eq!(routes_of(world), before, "{label}: and exactly the routes it found");
        }
        _ => {}
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
