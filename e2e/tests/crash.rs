//! Processes that are killed: visitors notice nothing, and what was acknowledged is still true.

use std::time::Duration;

use refloat_e2e::scene::Scene;
use refloat_testkit::eventually::{eventually, eventually_true};

const V1: &str = "from v1";
const V2: &str = "from v2";
const RECOVERED: Duration = Duration::from_secs(60);

#[test]
fn the_edge_serves_on_while_the_agent_is_dead_and_the_agent_finds_it_again() {
    let mut scene = Scene::hello_with_two_releases();
    let edge = scene.host.edge_pid().expect("the edge runs");
    let load = refloat_testkit::load::Load::start(scene.host.target("/"), 200);
    load.wait_for(20);
    scene.host.kill_agent();
    load.wait_for(100);
    scene.host.restart();
    load.wait_for(20);
    let report = load.finish().without_failure();
    assert_eq!(report.answered_by(V2), report.requests());
    assert_eq!(scene.host.edge_pid(), Some(edge), "the edge was not replaced");
    scene.refloat(&["rollback"]).success();
    assert_eq!(scene.serving(), 1);
}

#[test]
fn a_killed_edge_comes_back_with_the_table_that_it_had() {
    let scene = Scene::hello_with_two_releases();
    let before = scene.host.edge_pid().expect("the edge runs");
    scene.host.kill_edge();
    let after = eventually("another edge", RECOVERED, || scene.host.edge_pid().filter(|pid| *pid != before));
    assert_ne!(after, before);
    eventually_true("r2 serves again", RECOVERED, || scene.host.body("/").is_some_and(|body| body.contains(V2)));
    scene.refloat(&["rollback"]).success();
    assert!(scene.host.body("/").is_some_and(|body| body.contains(V1)));
}

#[test]
fn a_deploy_whose_agent_is_killed_ends_by_itself_after_the_restart() {
    let mut scene = Scene::with_example("node-hello");
    scene.deploy().success();
    scene.set_hello_version("v1", "v2");
    // Long enough in the gate to be killed there.
    scene.project.edit("server.js", "server.listen(", "await new Promise((r) => setTimeout(r, 4000));\nserver.listen(");
    let mut deploy = scene.laptop.command(scene.project.folder(), &["deploy"]);
    let mut deploy =
        deploy.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn().expect("it starts");
    eventually_true("a second container", RECOVERED, || scene.host.containers().len() == 2);
    scene.host.kill_agent();
    scene.host.restart();
    eventually_true("r2 serves", RECOVERED, || scene.host.body("/").is_some_and(|body| body.contains(V2)));
    assert_eq!(scene.serving(), 2);
    let _ = deploy.kill();
    deploy.wait().expect("a killed child ends");
}

#[test]
fn a_store_that_is_gone_is_rebuilt_from_the_ledger() {
    let mut scene = Scene::hello_with_two_releases();
    scene.host.stop_agent();
    std::fs::remove_dir_all(scene.host.state_dir().join("store")).expect("the store was there");
    scene.host.restart();
    assert_eq!(scene.serving(), 2);
    scene.refloat(&["rollback"]).success();
    assert_eq!(scene.serving(), 1);
}
