//! Releases that must not go live: the one that serves goes on, and nobody sees the other.

use refloat_e2e::scene::{Scene, code};

const V1: &str = "from v1";

fn refused_under_load(scene: &Scene, says: &str) {
    let (deployed, report) = scene.under_load("/", || scene.deploy());
    deployed.expect_code(code::FAILED).says("r1 still serves").says(says);
    let report = report.without_failure();
    assert_eq!(report.answered_by(V1), report.requests());
    assert_eq!(scene.serving(), 1);
}

fn serving_v1() -> Scene {
    let scene = Scene::with_example("node-hello");
    scene.deploy().success();
    scene.set_hello_version("v1", "v2");
    scene
}

#[test]
fn one_that_crashes_at_its_start_shows_its_last_words() {
    let scene = serving_v1();
    scene.project.edit("server.js", "const greeting", "throw new Error(\"the moon is not in place\");\nconst greeting");
    refused_under_load(&scene, "the moon is not in place");
}

#[test]
fn one_that_never_listens_is_given_up() {
    let scene = serving_v1();
    scene.project.edit(
        "server.js",
        "server.listen(",
        "setInterval(() => {}, 1000);\nif (process.env.NEVER) server.listen(",
    );
    scene.project.write("refloat.toml", "schema = 1\n\n[process.web]\nstart_timeout = \"10s\"\n");
    refused_under_load(&scene, "did not get healthy within 10 s");
}

#[test]
fn one_that_does_not_build_shows_why() {
    let scene = serving_v1();
    scene.project.edit(
        "package.json",
        "\"start\":",
        "\"build\": \"node -e \\\"console.error('no such planet'); process.exit(3)\\\"\",\n    \"start\":",
    );
    refused_under_load(&scene, "no such planet");
}
