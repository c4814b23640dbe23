//! Processes that are killed: visitors notice nothing, and what was acknowledged is still true.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use refloat_e2e::answer;
use refloat_e2e::held_upload::HeldUpload;
use refloat_e2e::scene::{RATE, Scene, code, slow_build, slow_start};
use refloat_testkit::command::Finished;
use refloat_testkit::eventually::{eventually, eventually_true};
use refloat_testkit::load::{Load, Report};
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
fn a_killed_edge_comes_back_with_its_table_and_only_its_absence_costs_requests() {
    let scene = Scene::hello_with_two_releases();
    let before = scene.host.edge_pid().expect("the edge runs");
    let load = Load::start(scene.host.target("/"), RATE);
    load.wait_for(40);
    let gone = Instant::now();
    scene.host.kill_edge();
    eventually("another edge", RECOVERED, || scene.host.edge_pid().filter(|pid| *pid != before));
    eventually_true("r2 serves again", RECOVERED, || scene.host.body("/").is_some_and(|body| body.contains(V2)));
    let absence = gone..Instant::now();
    load.wait_for(200);
    only_absence_fails(&load.finish(), &absence);
    scene.refloat(&["rollback"]).success();
    assert!(scene.host.body("/").is_some_and(|body| body.contains(V1)));
}

/// Every other request was answered, and by r2.
fn only_absence_fails(report: &Report, absence: &Range<Instant>) {
    assert_eq!(report.failed_outside(absence), 0, "{:#?}", report.failures());
    assert_eq!(report.answered_by(V2) + report.failed(), report.requests());
    assert!(report.answered_by(V2) > 200, "it serves again");
}

#[test]
fn an_edge_has_its_table_from_its_own_disk_without_any_agent() {
    let mut scene = Scene::hello_with_two_releases();
    scene.host.kill_agent();
    let load = Load::start(scene.host.target("/"), RATE);
    load.wait_for(40);
    let gone = Instant::now();
    scene.host.replace_edge();
    eventually_true("r2 serves again", RECOVERED, || scene.host.body("/").is_some_and(|body| body.contains(V2)));
    let absence = gone..Instant::now();
    let edge = scene.host.edge_pid();
    load.wait_for(200);
    scene.host.restart();
    load.wait_for(20);
    let report = load.finish();
    only_absence_fails(&report, &absence);
    assert!(report.failed() > 0, "nobody kept the port meanwhile");
    assert_eq!(scene.host.edge_pid(), edge, "the agent finds it");
    scene.refloat(&["rollback"]).success();
    assert!(scene.host.body("/").is_some_and(|body| body.contains(V1)));
}

/// Kills the agent in a phase of r2's deploy, restarts it, and sees what must be true whatever the phase was: no request
/// failed, the deployment ended by itself, whoever waited and asked again with the same key was told the truth, and another
/// deploy goes live.
fn killed_in(phase: &str, slow: fn(&Project)) {
    let mut scene = Scene::with_example("node-hello");
    scene.deploy().success();
    scene.set_hello_version("v1", "v2");
    slow(&scene.project);
    let deploy = scene.begin_deploy();
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
    let told = Finished::end_of(deploy);
    assert_eq!(told.code == 0, scene.serving() == 2, "{told}");
    assert!(scene.releases().len() <= 2, "one deploy makes one release, however often it is asked for\n{told}");
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

#[test]
fn an_agent_killed_during_an_upload_has_lost_nothing_but_the_upload() {
    let mut scene = Scene::with_example("node-hello");
    scene.deploy().success();
    scene.set_hello_version("v1", "v2");
    let mut upload = HeldUpload::begin(&scene);
    upload.assert_under_way();
    let load = Load::start(scene.host.target("/"), RATE);
    load.wait_for(20);
    scene.host.kill_agent();
    let told = upload.finish();
    assert_eq!(told.code, code::UNREACHABLE, "{told}");
    scene.host.restart();
    assert_eq!((scene.serving(), scene.releases().len()), (1, 1));
    scene.deploy().success();
    load.wait_for(20);
    load.finish().clean_switch(V1, V2);
}

/// `/endless` answers a little every moment, until there is a file `/tmp/end`.
const ENDLESS: &str = r#"if (request.url === "/endless") {
    const more = setInterval(() => {
      if (!existsSync("/tmp/end")) return response.write(".");
      clearInterval(more);
      response.end(`the end of ${VERSION}
`);
    }, 50);
    return;
  }
  response.end("#;

#[test]
fn an_agent_killed_during_a_drain_cuts_nobody_off_and_ends_the_drain_later() {
    let mut scene = Scene::with_example("node-hello");
    scene.project.edit(
        "server.js",
        "import { VERSION }",
        "import { existsSync } from \"node:fs\";\nimport { VERSION }",
    );
    scene.project.edit("server.js", "response.end(", ENDLESS);
    scene.deploy().success();
    let displaced = scene.host.containers().pop().expect("r1 has a container");
    let mut endless = TcpStream::connect(scene.host.edge_address()).expect("the edge accepts");
    endless.set_read_timeout(Some(RECOVERED)).expect("a socket has a time limit");
    endless.write_all(b"GET /endless HTTP/1.0\r\nHost: app.test\r\n\r\n").expect("the edge reads");
    endless.read_exact(&mut [0]).expect("r1 begins to answer");
    scene.set_hello_version("v1", "v2");
    scene.deploy().success();

    let load = Load::start(scene.host.target("/"), RATE);
    load.wait_for(20);
    assert_eq!(scene.host.state_of(&displaced), "running", "r1 drains");
    scene.host.kill_agent();
    load.wait_for(20);
    scene.host.restart();
    assert_eq!(scene.host.state_of(&displaced), "running", "r1 still drains");
    scene.host.docker(&["exec", &displaced, "touch", "/tmp/end"]);
    let mut answer = String::new();
    endless.read_to_string(&mut answer).expect("the answer ends");
    assert!(answer.ends_with("the end of v1\n"), "{answer}");
    eventually_true("r1 is kept paused", RECOVERED, || scene.host.state_of(&displaced) == "paused");
    let report = load.finish().without_failure();
    assert_eq!(report.answered_by(V2), report.requests());
    scene.set_hello_version("v2", "v3");
    scene.deploy().success();
    assert!(scene.host.body("/").is_some_and(|body| body.contains("from v3")));
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
