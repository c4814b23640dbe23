//! The verbs beside deploy and rollback, against the real agent.

use std::process::Stdio;
use std::time::Duration;

use refloat_e2e::scene::Scene;
use refloat_testkit::eventually::eventually_true;
use refloat_testkit::fetch;
use refloat_testkit::project::Project;

const SOON: Duration = Duration::from_secs(30);
const DOCKERFILE: &str =
    "FROM node:24-slim\nWORKDIR /app\nCOPY . .\nENV PORT=3000\nEXPOSE 3000\nCMD [\"node\", \"server.js\"]\n";

fn status_of(scene: &Scene) -> u16 {
    let target = scene.host.target("/");
    fetch::get(target.address, &target.host, "/").expect("the edge answers").status
}

#[test]
fn an_app_with_its_own_dockerfile_shows_its_output_and_runs_commands() {
    let scene = Scene::with_example("node-hello");
    scene.project.write("Dockerfile", DOCKERFILE);
    scene.deploy().success();
    assert_eq!(scene.host.body("/").as_deref(), Some("hello from v1\n"));
    eventually_true("its output is kept", SOON, || {
        scene.refloat(&["logs", "--release", "r1"]).stdout.contains("node-hello v1 on port 3000")
    });
    scene.refloat(&["run", "--", "node", "-e", "console.log(6 * 7)"]).success().says("42");
    assert_eq!(scene.refloat(&["run", "--", "node", "-e", "process.exit(9)"]).code, 9);
}

#[test]
fn a_command_whose_caller_is_gone_ends_though_it_says_nothing() {
    let scene = Scene::with_example("node-hello");
    scene.deploy().success();
    let mut command = scene.laptop.command(scene.project.folder(), &["run", "--", "sleep", "600"]);
    let silent = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut silent = silent.spawn().expect("refloat can be started");
    eventually_true("the command runs", SOON, || scene.host.one_offs().len() == 1);
    silent.kill().expect("a child can be killed");
    silent.wait().expect("a killed child ends");
    eventually_true("nothing of it is left", SOON, || scene.host.one_offs().is_empty());
    assert_eq!(scene.host.body("/").as_deref(), Some("hello from v1\n"));
}

#[test]
fn a_stopped_app_answers_503_and_a_destroyed_one_is_gone() {
    let scene = Scene::with_example("node-hello");
    scene.deploy().success();
    scene.refloat(&["stop"]).success();
    assert_eq!(status_of(&scene), 503);
    scene.refloat(&["restart"]).success();
    assert_eq!(scene.host.body("/").as_deref(), Some("hello from v1\n"));
    scene.refloat(&["destroy", "node-hello", "--yes", "node-hello"]).success();
    assert_eq!(status_of(&scene), 404);
    assert_eq!(scene.host.containers(), [""; 0]);
    scene.deploy().success();
    assert_eq!(scene.serving(), 1, "the name is free again");
}

#[test]
fn what_was_built_elsewhere_is_deployed_as_it_is() {
    let project = Project::empty("page");
    project.write("package.json", "{\"name\":\"page\",\"scripts\":{\"build\":\"false\"}}");
    std::fs::create_dir(project.folder().join("dist")).expect("a folder can be made");
    project.write("dist/index.html", "<h1>built elsewhere</h1>");
    let scene = Scene::with(project);
    scene.refloat(&["deploy", "--prebuilt", "dist"]).success();
    assert_eq!(scene.host.body("/").as_deref(), Some("<h1>built elsewhere</h1>"));
}

#[test]
fn a_second_app_without_a_domain_is_refused_before_anything_is_sent() {
    let scene = Scene::with_example("node-hello");
    scene.deploy().success();
    let other = Project::example("node-hello");
    other.edit("package.json", "node-hello", "node-other");
    let refused = scene.laptop.refloat(other.folder(), &["deploy"]);
    assert_ne!(refused.code, 0, "{refused}");
    assert!(!refused.all_output().contains("Sent"), "{refused}");
    refused.says("refloat domains add node-other");
    assert_eq!(scene.host.body("/").as_deref(), Some("hello from v1\n"));
}
