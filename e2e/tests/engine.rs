//! The engine is stopped, killed and restarted under a serving app. It is always an engine of the test's own.

use std::time::Duration;

use refloat_e2e::scene::{RATE, Scene};
use refloat_testkit::engine::Engine;
use refloat_testkit::eventually::eventually_true;
use refloat_testkit::host::Options;
use refloat_testkit::load::Load;
use refloat_testkit::project::Project;

const V1: &str = "from v1";
const V2: &str = "from v2";
const RECOVERED: Duration = Duration::from_secs(90);

/// Two releases of `node-hello` on an engine of their own. The engine is to be dropped last.
fn scene_on(engine: &Engine) -> Scene {
    engine.take_image("node:24-slim");
    let options = Options { engine: engine.socket(), ..Options::default() };
    Scene::with_options(Project::example("node-hello"), options).with_two_releases()
}

fn costs_no_request(away: fn(&mut Engine)) {
    let mut engine = Engine::start(true);
    let scene = scene_on(&engine);
    let load = Load::start(scene.host.target("/"), RATE);
    load.wait_for(40);
    away(&mut engine);
    load.wait_for(200);
    engine.restart();
    load.wait_for(200);
    let report = load.finish().without_failure();
    assert_eq!(report.answered_by(V2), report.requests());
    eventually_true("a rollback works again", RECOVERED, || scene.refloat(&["rollback"]).code == 0);
    assert!(scene.host.body("/").is_some_and(|body| body.contains(V1)));
    drop(scene);
}

#[test]
fn with_live_restore_a_killed_engine_costs_no_request_and_rollback_works_after_it() {
    costs_no_request(Engine::kill);
}

#[test]
fn with_live_restore_a_stopped_engine_costs_no_request_and_rollback_works_after_it() {
    costs_no_request(Engine::stop);
}

#[test]
fn without_live_restore_a_killed_engine_ends_the_app_only_when_it_starts_again_and_brings_it_back() {
    let mut engine = Engine::start(false);
    let scene = scene_on(&engine);
    let load = Load::start(scene.host.target("/"), RATE);
    load.wait_for(40);
    engine.kill();
    load.wait_for(200);
    let report = load.finish().without_failure();
    assert_eq!(
        report.answered_by(V2),
        report.requests(),
        "its containers outlive a killed engine until the next start"
    );
    engine.restart();
    eventually_true("a rollback works again", RECOVERED, || scene.refloat(&["rollback"]).code == 0);
    eventually_true("r1 serves", RECOVERED, || scene.host.body("/").is_some_and(|body| body.contains(V1)));
    assert_eq!(scene.serving(), 1);
    drop(scene);
}

#[test]
fn without_live_restore_the_app_comes_back_with_the_engine() {
    let mut engine = Engine::start(false);
    let scene = scene_on(&engine);
    engine.stop();
    eventually_true("the app is down", RECOVERED, || scene.host.body("/").is_none());
    engine.restart();
    eventually_true("r2 serves again", RECOVERED, || scene.host.body("/").is_some_and(|body| body.contains(V2)));
    eventually_true("a rollback works again", RECOVERED, || scene.refloat(&["rollback"]).code == 0);
    assert_eq!(scene.serving(), 1);
    drop(scene);
}

#[test]
fn a_deploy_without_an_engine_fails_and_says_what_is_missing() {
    let mut engine = Engine::start(true);
    let scene = scene_on(&engine);
    engine.stop();
    scene.set_hello_version("v2", "v3");
    let refused = scene.deploy();
    assert_ne!(refused.code, 0, "{refused}");
    refused.says("Docker").says("r2 still serves");
    assert!(scene.host.body("/").is_some_and(|body| body.contains(V2)));
    // What the host leaves behind is the engine's to remove.
    engine.restart();
    drop(scene);
}
