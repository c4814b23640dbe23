//! Processes that are killed: visitors notice nothing, and what was acknowledged is still true.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use refloat_e2e::answer;
use refloat_e2e::scene::{RATE, Scene, slow_build, slow_start};
use refloat_testkit::eventually::{eventually, eventually_true};
use refloat_testkit::load::Load;
use refloat_testkit::project::{Project, noise};

const V1: &str = "from v1";
const V2: &str = "from v2";
const RECOVERED: Duration = Duration::from_secs(60);

#[test]
fn the_edge_serves_on_while_the_agent_is_dead_and_the_agent_finds_it_again() {
    let mut scene = Scene::hello_with_two_releases();
    let edge = scene.host.edge_pid().expect("the edge runs");
    let load = Load::start(scene.host.target("/"), RATE);
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

/// Kills the agent in a phase of r2's deploy, restarts it, and sees what must be true whatever the phase was: no request
/// failed, the deployment ended by itself, and another deploy goes live.
fn killed_in(phase: &str, slow: fn(&Project)) {
    let mut scene = Scene::with_example("node-hello");
    scene.deploy().success();
    scene.set_hello_version("v1", "v2");
    slow(&scene.project);
    let mut deploy = scene.begin_deploy();
    scene.wait_for_phase(phase);
    let load = Load::start(scene.host.target("/"), RATE);
    load.wait_for(20);
    scene.host.kill_agent();
    load.wait_for(20);
    scene.host.restart();
    eventually_true("the deployment has ended", RECOVERED, || {
        let status = answer::json(&scene.refloat(&["status", "--json"]).success());
        status["apps"][0]["deployment"].is_null()
    });
    load.wait_for(20);
    load.finish().without_failure();
    let _ = deploy.kill();
    deploy.wait().expect("a killed child ends");
    scene.set_hello_version("v2", "v3");
    scene.deploy().success();
    assert!(scene.host.body("/").is_some_and(|body| body.contains("from v3")));
}

#[test]
fn a_deploy_whose_agent_is_killed_in_the_build_ends_by_itself() {
    killed_in("building", slow_build);
}

#[test]
fn a_deploy_whose_agent_is_killed_in_the_gate_ends_by_itself() {
    killed_in("gating", slow_start);
}

/// The moments, after the command's start, at which the agent is killed: denser than the steps of a switch.
const MOMENTS: std::ops::Range<u32> = 0..25;
const MOMENT: Duration = Duration::from_millis(6);

#[test]
fn an_agent_killed_at_any_moment_of_a_switch_leaves_one_whole_release_serving() {
    let mut scene = Scene::hello_with_two_releases();
    let load = Load::start(scene.host.target("/"), RATE);
    for moment in MOMENTS {
        let to = if scene.serving() == 2 { "r1" } else { "r2" };
        let mut activate = scene.laptop.command(scene.project.folder(), &["activate", to]);
        let activate = activate.stdout(Stdio::null()).stderr(Stdio::null());
        let mut activate = activate.spawn().expect("refloat can be started");
        // Not to wait for anything: this is the moment that is tried.
        std::thread::sleep(MOMENT * moment);
        scene.host.kill_agent();
        scene.host.restart();
        let _ = activate.kill();
        activate.wait().expect("a killed child ends");
        eventually_true("no deployment runs and the serving release answers", RECOVERED, || {
            let status = answer::json(&scene.refloat(&["status", "--json"]).success());
            let body = format!("hello from v{}\n", status["apps"][0]["serving"]);
            status["apps"][0]["deployment"].is_null() && scene.host.body("/").as_ref() == Some(&body)
        });
    }
    load.wait_for(20);
    load.finish().without_failure();
}

#[test]
fn a_store_that_is_damaged_is_set_aside_and_rebuilt() {
    let mut scene = Scene::hello_with_two_releases();
    scene.host.stop_agent();
    let store = scene.host.state_dir().join("store");
    for file in files_below(&store) {
        let length = file.metadata().map(|m| m.len()).unwrap_or_default();
        std::fs::write(&file, noise(length, usize::try_from(length).unwrap_or_default()))
            .expect("a file can be damaged");
    }
    scene.host.restart();
    assert_eq!(scene.serving(), 2);
    scene.refloat(&["rollback"]).success();
    assert_eq!(scene.serving(), 1);
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let entries: Vec<PathBuf> = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|e| e.path()).collect();
    let (folders, files): (Vec<_>, Vec<_>) = entries.into_iter().partition(|path| path.is_dir());
    files.into_iter().chain(folders.iter().flat_map(|folder| files_below(folder))).collect()
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
