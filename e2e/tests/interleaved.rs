//! Several deployments at once.

use std::process::Child;
use std::time::Duration;

use refloat_e2e::held_upload::HeldUpload;
use refloat_e2e::scene::{SLOW_MS, Scene, code, slow_build, slow_start};
use refloat_testkit::command::Finished;
use refloat_testkit::fetch;
use refloat_testkit::load::{Load, Target};
use refloat_testkit::project::Project;

const V1: &str = "from v1";
const V2: &str = "from v2";
const V3: &str = "from v3";
/// Two releases, and a third whose deploy has begun.
fn deploying(edit: impl FnOnce(&Project)) -> (Scene, Child) {
    let scene = Scene::hello_with_two_releases();
    scene.set_hello_version("v2", "v3");
    edit(&scene.project);
    let child = scene.begin_deploy();
    (scene, child)
}

fn rollback_wins(scene: &Scene, deploy: Child) {
    let (rolled_back, report) = scene.under_load("/", || scene.refloat(&["rollback"]));
    assert!(rolled_back.took < Duration::from_millis(SLOW_MS.into()), "it waited for the deployment\n{rolled_back}");
    rolled_back.success().says("Cancelled the deployment that was running.");
    let report = report.clean_switch(V2, V1);
    assert_eq!(report.answered_by(V3), 0);
    let _ = Finished::end_of(deploy).expect_code(code::CANCELLED);
    assert_eq!(scene.serving(), 1);
}

#[test]
fn a_rollback_during_a_build_cancels_it() {
    let (scene, deploy) = deploying(slow_build);
    scene.wait_for_phase("building");
    rollback_wins(&scene, deploy);
}

#[test]
fn a_rollback_during_the_gate_cancels_it() {
    let (scene, deploy) = deploying(slow_start);
    scene.wait_for_phase("gating");
    rollback_wins(&scene, deploy);
}

#[test]
fn a_rollback_during_an_upload_does_not_wait_for_it() {
    let scene = Scene::hello_with_two_releases();
    scene.set_hello_version("v2", "v3");
    let mut upload = HeldUpload::begin(&scene);
    let (rolled_back, report) = scene.under_load("/", || scene.refloat(&["rollback"]));
    rolled_back.success();
    report.clean_switch(V2, V1);
    upload.assert_under_way();
    assert_eq!((scene.serving(), scene.releases().len()), (1, 2), "what is only sent is no deployment yet");
    let (deployed, report) = scene.under_load("/", || upload.finish());
    deployed.success();
    report.clean_switch(V1, V3);
}

#[test]
fn cancel_ends_a_deployment_and_changes_nothing() {
    let (scene, deploy) = deploying(slow_start);
    scene.wait_for_phase("gating");
    scene.refloat(&["cancel"]).success();
    let _ = Finished::end_of(deploy).expect_code(code::CANCELLED);
    assert_eq!(scene.serving(), 2);
}

#[test]
fn two_apps_switch_at_once_and_each_only_to_its_own() {
    let scene = Scene::hello_with_two_releases();
    scene.refloat(&["domains", "add", "one.test"]).success();
    let other = Project::example("node-hello");
    other.edit("package.json", "node-hello", "node-other");
    other.edit("version.js", "v1", "w1");
    let refloat = |arguments: &[&str]| scene.laptop.refloat(other.folder(), arguments);
    refloat(&["domains", "add", "node-other", "two.test"]).success();
    refloat(&["deploy"]).success();
    other.edit("version.js", "w1", "w2");
    refloat(&["deploy"]).success();

    let address = scene.host.edge_address();
    let load = |host: &str| Load::start(Target { address, host: host.to_owned(), path: "/".to_owned() }, 100);
    let (one, two) = (load("one.test"), load("two.test"));
    one.wait_for(20);
    two.wait_for(20);
    std::thread::scope(|scope| {
        scope.spawn(|| scene.refloat(&["rollback"]).success());
        scope.spawn(|| refloat(&["rollback"]).success());
    });
    one.wait_for(20);
    two.wait_for(20);
    one.finish().clean_switch(V2, V1);
    two.finish().clean_switch("from w2", "from w1");
    let foreign = fetch::get(address, "three.test", "/").expect("the edge answers");
    assert_eq!(foreign.status, 404, "a name that belongs to nobody");
}
