//! The driver over a host in memory, with paused time.

#![allow(clippy::unwrap_used, clippy::panic)]

mod world;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use refloat_agent::deploy::request::Ask;
use refloat_agent::deploy::update::Update;
use refloat_agent::docker::fake::{Behaviour, Call, Fault};
use refloat_agent::docker::{Engine, EngineError, RunState, Secrets};
use refloat_agent::journal::{Fault as JournalFault, Journal};
use refloat_agent::network::HostRoute;
use refloat_model::{AppName, Event, Hardening, HostName, InstanceName, Outcome, ReleaseNumber};
use world::{Agent, HOST, Shape, World, app, deploy, report, rollback, values_kept};

const HOUR: Duration = Duration::from_secs(3_600);

fn r(n: u32) -> ReleaseNumber {
    ReleaseNumber(n)
}

fn failure(outcome: &Outcome) -> &refloat_model::Failure {
    match outcome {
        Outcome::Failed(failure) => failure,
        other => panic!("it failed, not {other:?}"),
    }
}

/// A host where r1 and r2 of "shop" were deployed and r2 serves; its standby has settled.
async fn two_releases() -> (World, Agent, AppName) {
    let world = World::new().await;
    let agent = world.healthy_agent().await;
    let shop = app("shop");
    for n in [1, 2] {
        let source = world.source(n, Shape::good());
        assert_eq!(agent.deploy(&shop, source).await.outcome, Outcome::Live);
    }
    world.settled(&shop).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    (world, agent, shop)
}

async fn instance_of(world: &World, shop: &AppName, number: ReleaseNumber) -> InstanceName {
    let state = world.app(shop).await;
    state.instances.iter().find(|i| i.release == number).expect("it has an instance").name.clone()
}

async fn state_of(world: &World, name: &InstanceName) -> Option<RunState> {
    world.docker.agent(HOST).inspect(name).await.unwrap().map(|o| o.state)
}

#[tokio::test(start_paused = true)]
async fn deploy_with_a_failing_probe_keeps_the_old_release_serving() {
    let (world, agent, shop) = two_releases().await;
    let before = world.edge.active();
    let bad = world.source(3, Shape::behaving(Behaviour::silent().printing(&["cannot find module"])));
    let report = agent.deploy(&shop, bad).await;
    let failure = failure(&report.outcome);
    assert_eq!(failure.reason, "UNHEALTHY");
    assert_eq!(failure.lines, ["cannot find module"]);
    assert_eq!((report.serving, report.release), (Some(r(2)), Some(r(3))));
    assert_eq!(world.edge.active(), before);
    world.settled(&shop).await;
    assert_eq!(world.answers(&shop), Some(r(2)));
}

#[tokio::test(start_paused = true)]
async fn an_app_that_ends_at_its_start_fails_at_once_and_shows_its_last_lines() {
    let (world, agent, shop) = two_releases().await;
    let bad = world.source(3, Shape::behaving(Behaviour::crashing(100, 1).printing(&["boom"])));
    let began = tokio::time::Instant::now();
    let report = agent.deploy(&shop, bad).await;
    assert_eq!(failure(&report.outcome).reason, "EXITED");
    assert_eq!(failure(&report.outcome).lines, ["boom"]);
    assert!(began.elapsed() < Duration::from_secs(3), "it does not wait for the start timeout");
}

#[tokio::test(start_paused = true)]
async fn an_own_image_that_was_refused_a_right_fails_with_the_switch_that_gives_it() {
    let (world, agent, shop) = two_releases().await;
    let refused = Behaviour::crashing(100, 1).printing(&["ping: socket: Operation not permitted"]);
    let own = Shape { hardening: Hardening::Own, ..Shape::behaving(refused.clone()) };
    for (n, shape, switch) in [(3, own, true), (4, Shape::behaving(refused), false)] {
        let report = agent.deploy(&shop, world.source(n, shape)).await;
        let message = &failure(&report.outcome).message;
        assert!(message.starts_with("web ended with exit code 1"), "{message}");
        assert_eq!(message.contains("capabilities = [\"NET_RAW\"] under [process.web]"), switch, "{message}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_rollback_wakes_the_paused_standby_and_makes_nothing() {
    let (world, agent, shop) = two_releases().await;
    let standby = instance_of(&world, &shop, r(1)).await;
    assert_eq!(state_of(&world, &standby).await, Some(RunState::Paused));
    let created = world.docker.count(Call::Create);
    let report = agent.rollback(&shop).await;
    assert_eq!((report.outcome, report.serving), (Outcome::Live, Some(r(1))));
    assert_eq!(world.docker.count(Call::Create), created);
    assert_eq!(world.answers(&shop), Some(r(1)));
    assert_eq!(report.undone.iter().map(|c| c.what).collect::<Vec<_>>(), ["code"]);
}

#[tokio::test(start_paused = true)]
async fn a_second_rollback_says_that_nothing_is_before_the_first_release() {
    let (_, agent, shop) = two_releases().await;
    agent.rollback(&shop).await;
    let denied = agent.submit(&shop, rollback()).await.unwrap_err();
    assert_eq!((denied.reason, denied.message.as_str()), ("NOTHING_BEFORE", "there is nothing before r1"));
    assert_eq!(denied.still_fine, "r1 still serves; nothing was changed");
}

#[tokio::test(start_paused = true)]
async fn a_rollback_never_lands_on_what_was_rolled_back_from() {
    let (world, agent, shop) = two_releases().await;
    agent.rollback(&shop).await;
    let third = world.source(3, Shape::good());
    agent.deploy(&shop, third).await;
    assert_eq!(agent.rollback(&shop).await.serving, Some(r(1)));
}

#[tokio::test(start_paused = true)]
async fn a_rollback_passes_over_what_was_rolled_back_from_though_it_came_first() {
    let (world, agent, shop) = two_releases().await;
    let third = world.source(3, Shape::good());
    agent.deploy(&shop, third).await;
    agent.rollback(&shop).await;
    agent.rollback(&shop).await;
    let forward = report(agent.submit(&shop, Ask::Activate(r(3))).await.unwrap()).await;
    assert_eq!(forward.serving, Some(r(3)));
    assert_eq!(agent.rollback(&shop).await.serving, Some(r(1)), "r2 was rolled back from");
}

#[tokio::test(start_paused = true)]
async fn a_standby_that_docker_cannot_wake_is_replaced_by_a_new_instance() {
    let (world, agent, shop) = two_releases().await;
    let refused = EngineError::Refused { what: "to wake it", message: "address already in use".to_owned() };
    world.docker.fail_next(Call::Unpause, Fault::Before(refused));
    let report = agent.rollback(&shop).await;
    assert_eq!((report.outcome, report.serving), (Outcome::Live, Some(r(1))));
    world.settled(&shop).await;
}

#[tokio::test(start_paused = true)]
async fn what_the_edge_still_serves_is_not_touched_however_long_that_takes() {
    let (world, agent, shop) = two_releases().await;
    let serving = instance_of(&world, &shop, r(2)).await;
    world.edge.set_away(true);
    let report = agent.rollback(&shop).await;
    assert!(matches!(report.outcome, Outcome::CommittedNotServed(_)), "{:?}", report.outcome);
    tokio::time::sleep(HOUR).await;
    assert_eq!(state_of(&world, &serving).await, Some(RunState::Running));
    world.edge.set_away(false);
    world.settled(&shop).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(state_of(&world, &serving).await, Some(RunState::Paused));
}

#[tokio::test(start_paused = true)]
async fn a_restart_lets_the_requests_of_the_old_instance_end() {
    let (world, agent, shop) = two_releases().await;
    tokio::time::sleep(HOUR).await;
    let old = instance_of(&world, &shop, r(2)).await;
    world.edge.set_in_flight(&old, 1);
    assert_eq!(report(agent.submit(&shop, Ask::Restart).await.unwrap()).await.outcome, Outcome::Live);
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(state_of(&world, &old).await, Some(RunState::Running));
    world.edge.set_in_flight(&old, 0);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(state_of(&world, &old).await, None);
}

#[tokio::test(start_paused = true)]
async fn a_deploy_that_finds_no_room_fails_and_is_not_gone_on_with_later() {
    let (world, agent, shop) = two_releases().await;
    let third = world.source(3, Shape::good());
    let full = |event: &Event| matches!(event, Event::ReleaseCreated { .. });
    world.journal.on_append(move |_, event| full(event).then_some(JournalFault::NoRoom));
    let failed = agent.deploy(&shop, third).await;
    assert_eq!(failure(&failed.outcome).reason, "DISK_FULL");
    world.journal.on_append(|_, _| None);
    assert_eq!(world.app(&shop).await.deployment, None);
    assert_eq!(agent.deploy(&shop, third).await.serving, Some(r(3)));
}

#[tokio::test(start_paused = true)]
async fn what_still_serves_is_said_of_what_visitors_get() {
    let (world, agent, shop) = two_releases().await;
    let slow = world.source(3, Shape { build_ms: 60_000, ..Shape::good() });
    let running = agent.submit(&shop, deploy(slow)).await.unwrap();
    let waiting = agent.submit(&shop, deploy(slow)).await.unwrap();
    let rolled_back = agent.submit(&shop, rollback()).await.unwrap();
    let gone = report(waiting).await;
    assert!(matches!(gone.outcome, Outcome::Cancelled { .. }), "{:?}", gone.outcome);
    assert_eq!(gone.serving, Some(r(2)));
    drop(running);
    assert_eq!(report(rolled_back).await.serving, Some(r(1)));
    report(agent.submit(&shop, Ask::Stop).await.unwrap()).await;
    let bad = world.source(4, Shape::behaving(Behaviour::silent()));
    let failed = agent.deploy(&shop, bad).await;
    assert!(matches!(failed.outcome, Outcome::Failed(_)), "{:?}", failed.outcome);
    assert_eq!((failed.serving, failed.still_fine.as_str()), (None, "the app is stopped, as before"));
}

#[tokio::test(start_paused = true)]
async fn a_mistake_of_ours_ends_the_deployment_with_an_outcome() {
    let (world, agent, shop) = two_releases().await;
    let unknown = refloat_model::SourceDigest([99; 32]);
    let broken = agent.deploy(&shop, unknown).await;
    assert_eq!(failure(&broken.outcome).reason, "INTERNAL");
    assert_eq!(world.app(&shop).await.deployment, None);
    assert_eq!(agent.rollback(&shop).await.serving, Some(r(1)), "and everything else goes on");
}

#[tokio::test(start_paused = true)]
async fn the_only_domain_stays_while_another_app_answers_every_address() {
    let (world, agent, shop) = two_releases().await;
    let blog = app("blog");
    report(agent.submit(&blog, domains(&["blog.test"])).await.unwrap()).await;
    let source = world.source(4, Shape::good());
    agent.deploy(&blog, source).await;
    let remove = Ask::Domains { add: vec![], remove: vec![HostName::new("blog.test").unwrap()] };
    let denied = agent.submit(&blog, remove).await.unwrap_err();
    assert_eq!(denied.reason, "NEEDS_DOMAIN");
    assert_eq!(report(agent.submit(&blog, Ask::Restart).await.unwrap()).await.outcome, Outcome::Live);
    assert_eq!(world.answers(&shop), Some(r(2)));
}

#[tokio::test(start_paused = true)]
async fn a_standby_that_does_not_answer_again_is_replaced_by_a_new_instance() {
    let (world, agent, shop) = two_releases().await;
    let standby = instance_of(&world, &shop, r(1)).await;
    world.docker.end(&standby, RunState::Dead);
    let report = agent.rollback(&shop).await;
    assert_eq!((report.outcome, report.serving), (Outcome::Live, Some(r(1))));
    world.settled(&shop).await;
}

#[tokio::test(start_paused = true)]
async fn a_rollback_after_the_container_was_removed_makes_it_again() {
    let (world, agent, shop) = two_releases().await;
    let standby = instance_of(&world, &shop, r(1)).await;
    world.docker.agent(HOST).remove(&standby).await.unwrap();
    assert_eq!(agent.rollback(&shop).await.outcome, Outcome::Live);
    assert_eq!(world.answers(&shop), Some(r(1)));
}

#[tokio::test(start_paused = true)]
async fn a_paused_standby_is_stopped_after_a_day() {
    let (world, _agent, shop) = two_releases().await;
    let standby = instance_of(&world, &shop, r(1)).await;
    tokio::time::sleep(HOUR * 23).await;
    assert_eq!(state_of(&world, &standby).await, Some(RunState::Paused));
    tokio::time::sleep(HOUR * 2).await;
    assert!(matches!(state_of(&world, &standby).await, Some(RunState::Exited(_))));
}

#[tokio::test(start_paused = true)]
async fn the_memory_of_standby_is_the_hosts_and_the_latest_displaced_has_the_first_claim() {
    let world = World::new().await;
    let agent = world.healthy_agent().await;
    let (shop, blog) = (app("shop"), app("blog"));
    let large = || Shape::behaving(Behaviour { memory_bytes: 300 << 20, ..Behaviour::serving(8080) });
    report(agent.submit(&blog, domains(&["blog.test"])).await.unwrap()).await;
    let sources: Vec<_> = (1..=4).map(|n| world.source(n, large())).collect();
    agent.deploy(&shop, sources[0]).await;
    agent.deploy(&blog, sources[1]).await;
    agent.deploy(&shop, sources[2]).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    let (older, newer) = (instance_of(&world, &shop, r(1)).await, instance_of(&world, &blog, r(1)).await);
    assert_eq!(state_of(&world, &older).await, Some(RunState::Paused), "alone it fits into 512 MiB");
    agent.deploy(&blog, sources[3]).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(state_of(&world, &newer).await, Some(RunState::Paused));
    assert!(matches!(state_of(&world, &older).await, Some(RunState::Exited(_))), "both are 600 MiB");
}

#[tokio::test(start_paused = true)]
async fn a_displaced_instance_is_paused_only_when_its_requests_have_ended() {
    let world = World::new().await;
    let agent = world.healthy_agent().await;
    let shop = app("shop");
    let (first, second) = (world.source(1, Shape::good()), world.source(2, Shape::good()));
    agent.deploy(&shop, first).await;
    let old = instance_of(&world, &shop, r(1)).await;
    world.edge.set_in_flight(&old, 1);
    agent.deploy(&shop, second).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(state_of(&world, &old).await, Some(RunState::Running));
    world.edge.set_in_flight(&old, 0);
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(state_of(&world, &old).await, Some(RunState::Paused));
}

#[tokio::test(start_paused = true)]
async fn a_rollback_during_the_drain_takes_the_draining_instance_back() {
    let world = World::new().await;
    let agent = world.healthy_agent().await;
    let shop = app("shop");
    let (first, second) = (world.source(1, Shape::good()), world.source(2, Shape::good()));
    agent.deploy(&shop, first).await;
    let old = instance_of(&world, &shop, r(1)).await;
    world.edge.set_in_flight(&old, 3);
    agent.deploy(&shop, second).await;
    let report = agent.rollback(&shop).await;
    assert_eq!((report.outcome, report.serving), (Outcome::Live, Some(r(1))));
    assert_eq!(instance_of(&world, &shop, r(1)).await, old);
}

#[tokio::test(start_paused = true)]
async fn a_rollback_does_not_wait_for_a_build() {
    let (world, agent, shop) = two_releases().await;
    let slow = world.source(3, Shape { build_ms: 600_000, ..Shape::good() });
    let building = agent.submit(&shop, deploy(slow)).await.unwrap();
    tokio::time::sleep(Duration::from_secs(10)).await;
    let began = tokio::time::Instant::now();
    let mut rolling = agent.submit(&shop, rollback()).await.unwrap();
    let Some(Update::Accepted(accepted)) = rolling.next().await.map(|n| n.update) else { panic!("it begins") };
    assert!(accepted.cancelled.is_some(), "it says what it cancelled");
    assert_eq!(report(rolling).await.serving, Some(r(1)));
    assert!(began.elapsed() < Duration::from_secs(1));
    assert!(matches!(report(building).await.outcome, Outcome::Cancelled { .. }));
}

#[tokio::test(start_paused = true)]
async fn a_rollback_does_not_wait_for_a_gate() {
    let (world, agent, shop) = two_releases().await;
    let slow = world.source(3, Shape::behaving(Behaviour::slow(8080, 4_900)));
    let gating = agent.submit(&shop, deploy(slow)).await.unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let began = tokio::time::Instant::now();
    assert_eq!(agent.rollback(&shop).await.serving, Some(r(1)));
    assert!(began.elapsed() < Duration::from_secs(1));
    assert!(matches!(report(gating).await.outcome, Outcome::Cancelled { .. }));
    world.settled(&shop).await;
}

#[tokio::test(start_paused = true)]
async fn a_waiting_deploy_is_superseded_by_a_newer_one_and_told() {
    let (world, agent, shop) = two_releases().await;
    let slow = world.source(3, Shape { build_ms: 5_000, ..Shape::good() });
    let (fourth, fifth) = (world.source(4, Shape::good()), world.source(5, Shape::good()));
    let first = agent.submit(&shop, deploy(slow)).await.unwrap();
    let second = agent.submit(&shop, deploy(fourth)).await.unwrap();
    let third = agent.submit(&shop, deploy(fifth)).await.unwrap();
    assert_eq!(report(first).await.outcome, Outcome::Live);
    assert!(matches!(report(second).await.outcome, Outcome::Superseded { .. }));
    let last = report(third).await;
    assert_eq!((last.outcome, last.serving), (Outcome::Live, Some(r(4))));
}

#[tokio::test(start_paused = true)]
async fn the_same_source_makes_no_release_unless_forced() {
    let (world, agent, shop) = two_releases().await;
    let same = world.source(2, Shape::good());
    assert_eq!(agent.deploy(&shop, same).await.outcome, Outcome::Unchanged);
    assert_eq!(world.app(&shop).await.newest, Some(r(2)));
    let Ask::Deploy { source, no_activate, prebuilt, origin, local_plan, .. } = deploy(same) else { return };
    let forced = Ask::Deploy { source, force: true, no_activate, prebuilt, origin, local_plan };
    let report = report(agent.submit(&shop, forced).await.unwrap()).await;
    assert_eq!(report.serving, Some(r(3)));
}

#[tokio::test(start_paused = true)]
async fn the_same_request_twice_is_one_deployment() {
    let (world, agent, shop) = two_releases().await;
    let source = world.source(3, Shape::good());
    let by = refloat_model::Principal::agent();
    let submit = refloat_agent::deploy::request::Submit {
        app: Some(shop.clone()),
        id: world.id(),
        ask: deploy(source),
        by,
        reason: String::new(),
    };
    let first = report(agent.deployments.submit(submit.clone()).await.unwrap()).await;
    let second = report(agent.deployments.submit(submit.clone()).await.unwrap()).await;
    assert_eq!((first.release, second.release), (Some(r(3)), Some(r(3))));
    // Also when the agent that ran it is gone.
    let next = world.healthy_agent().await;
    let third = report(next.deployments.submit(submit).await.unwrap()).await;
    assert_eq!((third.outcome, third.release), (Outcome::Live, Some(r(3))));
    assert_eq!(world.app(&shop).await.newest, Some(r(3)));
}

fn set(name: &str, value: &str) -> Ask {
    let set = Secrets([(name.to_owned(), value.to_owned())].into());
    Ask::Env { set, unset: vec![], no_deploy: false }
}

#[tokio::test(start_paused = true)]
async fn a_changed_variable_is_a_release_and_a_rollback_takes_it_back() {
    let (world, agent, shop) = two_releases().await;
    let changed = report(agent.submit(&shop, set("STRIPE_KEY", "one")).await.unwrap()).await;
    assert_eq!((changed.outcome, changed.serving), (Outcome::Live, Some(r(3))));
    let spec = world.docker.spec(&instance_of(&world, &shop, r(3)).await).unwrap();
    assert_eq!(spec.env.0.get("STRIPE_KEY").map(String::as_str), Some("one"));
    let back = agent.rollback(&shop).await;
    assert_eq!(back.serving, Some(r(2)));
    assert_eq!(back.undone.iter().map(|c| c.text.as_str()).collect::<Vec<_>>(), ["env: STRIPE_KEY removed"]);
    let again = report(agent.submit(&shop, set("OTHER", "x")).await.unwrap()).await;
    let spec = world.docker.spec(&instance_of(&world, &shop, again.serving.unwrap()).await).unwrap();
    assert!(!spec.env.0.contains_key("STRIPE_KEY"), "what was rolled back does not come back with the next change");
}

#[tokio::test(start_paused = true)]
async fn a_value_that_is_not_to_serve_yet_is_a_release_that_can_be_activated_also_after_a_rollback() {
    let (world, agent, shop) = two_releases().await;
    let Ask::Env { set, unset, .. } = set("KEY", "new") else { panic!() };
    let made = report(agent.submit(&shop, Ask::Env { set, unset, no_deploy: true }).await.unwrap()).await;
    assert_eq!((&made.outcome, made.release, made.serving), (&Outcome::Done, Some(r(3)), Some(r(2))));
    assert_eq!(world.answers(&shop), Some(r(2)));
    agent.rollback(&shop).await;
    let live = report(agent.submit(&shop, Ask::Activate(r(3))).await.unwrap()).await;
    assert_eq!(live.outcome, Outcome::Live);
    let record = world.journal.release(&shop, r(3)).await.unwrap().unwrap();
    let env = world.journal.env(&shop, &record.release.env).await.unwrap().unwrap();
    assert_eq!(env.variables.iter().map(|v| v.name.as_str()).collect::<Vec<_>>(), ["KEY"]);
}

#[tokio::test(start_paused = true)]
async fn a_variable_that_the_build_reads_is_another_build_and_any_other_is_none() {
    let world = World::new().await;
    let agent = world.healthy_agent().await;
    let shop = app("shop");
    let source = world.source(1, Shape::good());
    world.build_reads(source, "VITE_API_URL");
    agent.deploy(&shop, source).await;
    for (name, builds) in [("SECRET_KEY", 1), ("VITE_API_URL", 2), ("SECRET_KEY", 2)] {
        let value = format!("{name} {builds}");
        let live = report(agent.submit(&shop, set(name, &value)).await.unwrap()).await;
        assert_eq!(live.outcome, Outcome::Live, "{name}");
        let got = world.builder.got.lock().unwrap().clone();
        assert_eq!(got.len(), builds, "{name}");
    }
    let got = world.builder.got.lock().unwrap().last().cloned().unwrap();
    assert_eq!(got.0.get("VITE_API_URL").map(String::as_str), Some("VITE_API_URL 2"));
    assert!(got.0.contains_key("SECRET_KEY"), "the whole environment is at hand; the plan picks");
}

#[tokio::test(start_paused = true)]
async fn the_same_value_again_changes_nothing() {
    let (world, agent, shop) = two_releases().await;
    report(agent.submit(&shop, set("KEY", "one")).await.unwrap()).await;
    let again = report(agent.submit(&shop, set("KEY", "one")).await.unwrap()).await;
    assert_eq!(again.outcome, Outcome::Unchanged);
    assert_eq!(world.app(&shop).await.newest, Some(r(3)));
}

fn domains(add: &[&str]) -> Ask {
    Ask::Domains { add: add.iter().map(|d| HostName::new(d).unwrap()).collect(), remove: vec![] }
}

#[tokio::test(start_paused = true)]
async fn a_domain_survives_a_rollback_past_its_addition() {
    let (world, agent, shop) = two_releases().await;
    assert_eq!(report(agent.submit(&shop, domains(&["shop.test"])).await.unwrap()).await.outcome, Outcome::Done);
    agent.rollback(&shop).await;
    let table = world.edge.active();
    let routes = table.app_for_host("shop.test").unwrap();
    assert_eq!((routes.app.as_str(), routes.release), ("shop", r(1)));
}

#[tokio::test(start_paused = true)]
async fn whether_an_app_may_be_deployed_is_answered_before_its_source_is_there() {
    let (_world, agent, shop) = two_releases().await;
    let blog = app("blog");
    assert_eq!(agent.deployments.may_deploy(&shop).await.map_err(|d| d.reason), Ok(()));
    let denied = agent.deployments.may_deploy(&blog).await.unwrap_err();
    assert_eq!(
        (denied.reason, denied.next_command.as_str()),
        ("NEEDS_DOMAIN", "refloat domains add blog blog.example.com")
    );
    report(agent.submit(&blog, domains(&["blog.test"])).await.unwrap()).await;
    assert_eq!(agent.deployments.may_deploy(&blog).await.map_err(|d| d.reason), Ok(()));
}

#[tokio::test(start_paused = true)]
async fn a_second_app_needs_a_domain_and_is_told_what_to_type() {
    let (world, agent, _) = two_releases().await;
    let blog = app("blog");
    let source = world.source(9, Shape::good());
    let denied = agent.submit(&blog, deploy(source)).await.unwrap_err();
    assert_eq!(denied.reason, "NEEDS_DOMAIN");
    assert_eq!(denied.next_command, "refloat domains add blog blog.example.com");
    report(agent.submit(&blog, domains(&["blog.test"])).await.unwrap()).await;
    assert_eq!(agent.deploy(&blog, source).await.outcome, Outcome::Live);
    assert_eq!(world.edge.active().app_for_host("blog.test").unwrap().app, blog);
}

#[tokio::test(start_paused = true)]
async fn two_apps_switch_at_once_and_neither_loses_the_others_change() {
    let (world, agent, shop) = two_releases().await;
    let blog = app("blog");
    report(agent.submit(&blog, domains(&["blog.test"])).await.unwrap()).await;
    let (ours, theirs) = (world.source(3, Shape::good()), world.source(4, Shape::good()));
    let a = agent.submit(&shop, deploy(ours)).await.unwrap();
    let b = agent.submit(&blog, deploy(theirs)).await.unwrap();
    let (a, b) = tokio::join!(report(a), report(b));
    assert_eq!((a.outcome, b.outcome), (Outcome::Live, Outcome::Live));
    assert_eq!((world.answers(&shop), world.answers(&blog)), (Some(r(3)), Some(r(1))));
    let generations = world.edge.history();
    assert!(generations.windows(2).all(|p| p[1] == p[0].next()), "{generations:?}");
}

#[tokio::test(start_paused = true)]
async fn with_the_edge_away_a_commit_is_made_and_served_when_it_comes_back() {
    let (world, agent, shop) = two_releases().await;
    world.edge.set_away(true);
    let report = agent.rollback(&shop).await;
    assert!(matches!(report.outcome, Outcome::CommittedNotServed(_)), "{:?}", report.outcome);
    world.edge.restart();
    world.edge.set_away(false);
    world.settled(&shop).await;
    assert_eq!(world.answers(&shop), Some(r(1)));
}

#[tokio::test(start_paused = true)]
async fn a_table_that_the_edge_refuses_is_not_committed() {
    let (world, agent, shop) = two_releases().await;
    let generation = world.journal.host().await.unwrap().table.generation;
    world.edge.set_refuses(true);
    assert_eq!(failure(&agent.rollback(&shop).await.outcome).reason, "ROUTES_REFUSED");
    world.edge.set_refuses(false);
    assert_eq!(world.journal.host().await.unwrap().table.generation, generation);
    world.settled(&shop).await;
}

#[tokio::test(start_paused = true)]
async fn an_exclusive_process_is_never_there_twice_and_its_downtime_is_told() {
    let world = World::new().await;
    let agent = world.healthy_agent().await;
    let shop = app("shop");
    let (first, second) = (world.source(1, Shape::exclusive()), world.source(2, Shape::exclusive()));
    agent.deploy(&shop, first).await;
    let old = instance_of(&world, &shop, r(1)).await;
    let report = agent.deploy(&shop, second).await;
    assert_eq!(report.outcome, Outcome::Live);
    assert!(report.downtimes[0].1 >= Duration::from_millis(300), "{:?}", report.downtimes);
    assert!(matches!(state_of(&world, &old).await, Some(RunState::Exited(_))));
    assert!(!world.edge.is_held(&shop));
}

#[tokio::test(start_paused = true)]
async fn an_exclusive_release_that_never_gets_healthy_brings_the_old_one_back() {
    let world = World::new().await;
    let agent = world.healthy_agent().await;
    let shop = app("shop");
    let first = world.source(1, Shape::exclusive());
    let bad = world.source(2, Shape { exclusive: true, ..Shape::behaving(Behaviour::silent()) });
    agent.deploy(&shop, first).await;
    let report = agent.deploy(&shop, bad).await;
    assert_eq!(failure(&report.outcome).reason, "UNHEALTHY");
    assert!(!report.downtimes.is_empty(), "the report says what the attempt cost");
    assert_eq!(world.answers(&shop), Some(r(1)));
    world.settled(&shop).await;
}

#[tokio::test(start_paused = true)]
async fn restart_makes_new_instances_and_no_release() {
    let (world, agent, shop) = two_releases().await;
    let before = instance_of(&world, &shop, r(2)).await;
    let report = report(agent.submit(&shop, Ask::Restart).await.unwrap()).await;
    assert_eq!((report.outcome, report.serving), (Outcome::Live, Some(r(2))));
    world.settled(&shop).await;
    let table = world.edge.active();
    assert!(table.app(&shop).unwrap().instances().all(|name| *name != before));
    assert_eq!(world.app(&shop).await.newest, Some(r(2)));
}

#[tokio::test(start_paused = true)]
async fn a_stopped_app_answers_nothing_until_it_is_restarted() {
    let (world, agent, shop) = two_releases().await;
    assert_eq!(report(agent.submit(&shop, Ask::Stop).await.unwrap()).await.outcome, Outcome::Done);
    tokio::time::sleep(HOUR).await;
    assert_eq!(world.answers(&shop), None);
    assert_eq!(report(agent.submit(&shop, Ask::Restart).await.unwrap()).await.outcome, Outcome::Live);
    assert_eq!(world.answers(&shop), Some(r(2)));
}

#[tokio::test(start_paused = true)]
async fn destroy_leaves_nothing_and_the_name_can_be_used_again() {
    let (world, agent, shop) = two_releases().await;
    for (value, no_deploy) in [("served", false), ("never served", true)] {
        let Ask::Env { set, unset, .. } = set("KEY", value) else { panic!() };
        report(agent.submit(&shop, Ask::Env { set, unset, no_deploy }).await.unwrap()).await;
    }
    assert_eq!(values_kept(), 2);
    let destroy = Ask::Destroy { volumes: false, dry_run: false };
    assert_eq!(report(agent.submit(&shop, destroy).await.unwrap()).await.outcome, Outcome::Done);
    assert_eq!(values_kept(), 0, "values of no release go too");
    assert!(world.journal.app(&shop).await.unwrap().is_none());
    assert!(world.docker.agent(HOST).list().await.unwrap().is_empty());
    assert!(world.edge.active().apps.is_empty());
    let again = world.source(3, Shape::good());
    assert_eq!(agent.deploy(&shop, again).await.serving, Some(r(1)));
}

#[tokio::test(start_paused = true)]
async fn a_serving_instance_that_is_gone_comes_back_at_its_address() {
    let (world, _agent, shop) = two_releases().await;
    let serving = instance_of(&world, &shop, r(2)).await;
    world.docker.agent(HOST).remove(&serving).await.unwrap();
    assert_eq!(world.answers(&shop), None);
    world.settled(&shop).await;
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(world.answers(&shop), Some(r(2)));
}

#[tokio::test(start_paused = true)]
async fn after_a_reboot_the_serving_release_runs() {
    let (world, agent, shop) = two_releases().await;
    drop(agent);
    world.docker.reboot();
    world.edge.restart();
    let _agent = world.healthy_agent().await;
    world.settled(&shop).await;
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(world.answers(&shop), Some(r(2)));
}

#[tokio::test(start_paused = true)]
async fn a_dry_rollback_says_what_it_would_undo_and_changes_nothing() {
    let (world, agent, shop) = two_releases().await;
    let mut watch = agent.submit(&shop, Ask::Rollback { to: None, code: false, dry_run: true }).await.unwrap();
    let Some(Update::Accepted(accepted)) = watch.next().await.map(|n| n.update) else { panic!("it begins") };
    assert_eq!(accepted.target, Some(r(1)));
    assert_eq!(accepted.undoes.iter().map(|c| c.what).collect::<Vec<_>>(), ["code"]);
    assert_eq!(world.answers(&shop), Some(r(2)));
}

#[tokio::test(start_paused = true)]
async fn room_for_a_build_is_made_by_stopping_the_standby() {
    let (world, agent, shop) = two_releases().await;
    let standby = instance_of(&world, &shop, r(1)).await;
    refloat_agent::build::MakeRoom::make_room(&agent.deployments).await;
    assert!(matches!(state_of(&world, &standby).await, Some(RunState::Exited(_))));
    assert_eq!(agent.rollback(&shop).await.serving, Some(r(1)), "and a rollback still works, cold");
}

#[tokio::test(start_paused = true)]
async fn cancel_ends_a_deploy_before_its_commit() {
    let (world, agent, shop) = two_releases().await;
    let slow = world.source(3, Shape { build_ms: 60_000, ..Shape::good() });
    let building = agent.submit(&shop, deploy(slow)).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let by = refloat_model::Principal::agent();
    assert!(agent.deployments.cancel(Some(&shop), &by).await.unwrap().is_some());
    assert!(matches!(report(building).await.outcome, Outcome::Cancelled { .. }));
    assert_eq!(agent.deployments.cancel(Some(&shop), &by).await.unwrap(), None);
}

#[tokio::test(start_paused = true)]
async fn an_app_gets_a_network_that_the_host_does_not_reach_already_or_is_refused() {
    let world = World::new().await;
    let agent = world.healthy_agent().await;
    let reaches = |net: &str| HostRoute { net: net.parse().unwrap(), link: "wg0".to_owned() };
    *world.routes.lock().unwrap() = vec![reaches("10.0.0.0/8")];
    let denied = agent.submit(&app("shop"), deploy(world.source(1, Shape::good()))).await.unwrap_err();
    assert_eq!(denied.reason, "SUBNET_IN_USE");
    assert!(denied.message.contains("172.29.0.0/16"), "{}", denied.message);
    assert_eq!(world.journal.apps().await.unwrap(), []);
    *world.routes.lock().unwrap() = vec![reaches("10.201.0.0/24")];
    let report = agent.deploy(&app("shop"), world.source(1, Shape::good())).await;
    assert_eq!(report.outcome, Outcome::Live);
    let address = world.app(&app("shop")).await.instances[0].address();
    assert_eq!(address.octets()[..3], [10, 201, 1]);
}

/// What was logged, as text.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn a_deployment_logs_app_release_step_and_generation() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
    let _logs = tracing::subscriber::set_default(subscriber);
    let world = World::new().await;
    let agent = world.healthy_agent().await;
    agent.deploy(&app("shop"), world.source(1, Shape::good())).await;
    let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    let line = |words: &[&str]| {
        let found = text.lines().any(|line| words.iter().all(|word| line.contains(word)));
        assert!(found, "no line has {words:?}:\n{text}");
    };
    line(&["app=shop", "release=r1", "step=\"gating\"", "step began"]);
    line(&["app=shop", "release=r1", "generation=1.1", "committed"]);
    line(&["app=shop", "generation=1.1", "step=\"verifying\"", "step began"]);
    line(&["app=shop", "release=r1", "outcome=\"live\"", "deployment ended"]);
}
