//! Where a rollback goes and what it brings back.

use std::time::Duration;

use refloat_e2e::scene::{Scene, code, under_load};
use refloat_testkit::eventually::eventually_true;
use refloat_testkit::fetch;
use refloat_testkit::load::Target;

const V1: &str = "from v1";
const V2: &str = "from v2";
const DRAINED: Duration = Duration::from_secs(60);

/// Waits until the displaced release is kept paused, and returns its container.
fn paused_standby(scene: &Scene) -> String {
    let paused = || scene.host.containers().into_iter().find(|name| scene.host.state_of(name) == "paused");
    refloat_testkit::eventually("a paused standby", DRAINED, paused)
}

#[test]
fn a_warm_rollback_wakes_the_very_container_that_served_before() {
    let scene = Scene::hello_with_two_releases();
    let standby = paused_standby(&scene);
    let (rolled_back, report) = scene.under_load("/", || scene.refloat(&["rollback"]));
    rolled_back.success();
    report.clean_switch(V2, V1);
    assert_eq!(scene.host.state_of(&standby), "running");
}

#[test]
fn a_cold_rollback_starts_a_new_container_from_the_kept_image() {
    let scene = Scene::hello_with_two_releases();
    let standby = paused_standby(&scene);
    scene.host.docker(&["rm", "--force", &standby]);
    let (rolled_back, report) = scene.under_load("/", || scene.refloat(&["rollback"]));
    rolled_back.success();
    report.clean_switch(V2, V1);
}

#[test]
fn rolling_back_twice_never_returns_to_what_was_rolled_back_from() {
    let scene = Scene::hello_with_two_releases();
    scene.set_hello_version("v2", "v3");
    scene.deploy().success();
    scene.refloat(&["rollback"]).success();
    assert_eq!(scene.serving(), 2);
    scene.refloat(&["rollback"]).success();
    assert_eq!(scene.serving(), 1);
    scene.refloat(&["rollback"]).expect_code(code::FAILED).says("nothing before r1");
    assert_eq!(scene.serving(), 1);
}

#[test]
fn a_rollback_by_number_and_an_activation_go_where_they_are_told() {
    let scene = Scene::hello_with_two_releases();
    scene.set_hello_version("v2", "v3");
    scene.deploy().success();
    scene.refloat(&["rollback", "--to", "r1"]).success();
    assert_eq!(scene.host.body("/").as_deref(), Some("hello from v1\n"));
    scene.refloat(&["activate", "r3"]).success();
    assert_eq!(scene.host.body("/").as_deref(), Some("hello from v3\n"));
}

#[test]
fn a_rollback_past_an_env_change_brings_the_old_value_back() {
    let scene = Scene::with_example("node-hello");
    scene.deploy().success();
    let (set, report) = scene.under_load("/", || scene.refloat(&["env", "set", "GREETING=welcome"]));
    set.success();
    report.clean_switch("hello", "welcome");
    let listed = scene.refloat(&["env", "list"]).success().says("GREETING");
    assert!(!listed.all_output().contains("welcome"), "a value came back over the API\n{listed}");
    let (rolled_back, report) = scene.under_load("/", || scene.refloat(&["rollback"]));
    rolled_back.success().says("GREETING");
    report.clean_switch("welcome from v1", "hello from v1");
}

#[test]
fn a_domain_that_was_added_later_answers_after_a_rollback() {
    let scene = Scene::hello_with_two_releases();
    scene.refloat(&["domains", "add", "hello.test"]).success();
    let by_name = || Target { host: "hello.test".to_owned(), ..scene.host.target("/") };
    let (rolled_back, report) = under_load(by_name(), || scene.refloat(&["rollback"]));
    rolled_back.success();
    report.clean_switch(V2, V1);
    scene.refloat(&["activate", "r2"]).success();
    let answer = fetch::get(scene.host.edge_address(), "hello.test", "/").expect("the edge answers");
    assert_eq!((answer.status, answer.body.as_str()), (200, "hello from v2\n"));
    let foreign = fetch::get(scene.host.edge_address(), "other.test", "/").expect("the edge answers");
    assert_eq!(foreign.status, 404, "the app is reached by its domain only");
}

#[test]
fn a_rollback_during_the_drain_of_its_target_takes_it_back() {
    let scene = Scene::with_example("node-hello");
    scene.project.edit("server.js", "response.end(", "if (request.url === \"/slow\") return setTimeout(() => response.end(`slow ${VERSION}\\n`), 6000);\n  response.end(");
    scene.deploy().success();
    let address = scene.host.edge_address();
    let slow = std::thread::spawn(move || fetch::get(address, "app.test", "/slow"));
    scene.set_hello_version("v1", "v2");
    scene.deploy().success();
    let (rolled_back, report) = scene.under_load("/", || scene.refloat(&["rollback"]));
    rolled_back.success();
    report.clean_switch(V2, V1);
    let slow = slow.join().expect("the request ends").expect("the slow request is answered");
    assert_eq!((slow.status, slow.body.as_str()), (200, "slow v1\n"));
}

#[test]
fn the_standby_is_not_started_by_the_engine_by_itself() {
    let scene = Scene::hello_with_two_releases();
    let standby = paused_standby(&scene);
    let policy = scene.host.docker(&["inspect", "--format", "{{.HostConfig.RestartPolicy.Name}}", &standby]);
    assert_eq!(policy, "no");
    let serving = scene.host.containers().into_iter().find(|name| *name != standby).expect("r2 has a container");
    eventually_true("the serving container restarts by itself", DRAINED, || {
        scene.host.docker(&["inspect", "--format", "{{.HostConfig.RestartPolicy.Name}}", &serving]) == "unless-stopped"
    });
}
