//! Anchor: `docker compose up -d` with another image, forward and back, under the same load.

use std::process::Command;
use std::time::Duration;

use refloat_e2e::figure::{Figures, median};
use refloat_e2e::scene::RATE;
use refloat_testkit::command::{Finished, system};
use refloat_testkit::eventually::eventually_true;
use refloat_testkit::fetch;
use refloat_testkit::load::{Load, Target};
use refloat_testkit::project::Project;
use refloat_testkit::reservation::Reservation;

use crate::step;

const ROUNDS: usize = 5;
const READY: Duration = Duration::from_secs(60);
const MARGIN_REQUESTS: usize = 40;
const DOCKERFILE: &str = "FROM node:24-slim\nWORKDIR /app\nCOPY . .\nCMD [\"node\", \"server.js\"]\n";

/// `node-hello` as two images, removed when dropped.
pub(crate) struct Images {
    names: [String; 2],
}

impl Images {
    pub(crate) fn build() -> Self {
        let names = ["v1", "v2"].map(|version| format!("refloat-bench-{}:{version}", std::process::id()));
        for (name, version) in names.iter().zip(["v1", "v2"]) {
            let project = Project::example("node-hello");
            project.write("Dockerfile", DOCKERFILE);
            project.edit("version.js", "v1", version);
            system("docker", &["build", "--quiet", "--tag", name, &project.folder().to_string_lossy()]);
        }
        Self { names }
    }

    pub(crate) fn v1(&self) -> &str {
        &self.names[0]
    }
}

impl Drop for Images {
    fn drop(&mut self) {
        system("docker", &["rmi", "--force", &self.names[0], &self.names[1]]);
    }
}

pub(crate) fn measure(figures: &mut Figures) {
    step("anchor: docker compose");
    let stack = Stack::new();
    stack.up("v1");
    let target = stack.target();
    let body = || fetch::get(target.address, &target.host, "/").ok().map(|answer| answer.body);
    eventually_true("compose's container answers", READY, || body().is_some_and(|body| body.contains("from v1")));
    let (mut command, mut switch, mut requests, mut failed) = (Vec::new(), Vec::new(), 0, 0);
    for _ in 0..ROUNDS {
        stack.up("v2");
        eventually_true("v2 answers", READY, || body().is_some_and(|body| body.contains("from v2")));
        let load = Load::start(target.clone(), RATE);
        load.wait_for(MARGIN_REQUESTS);
        let back = stack.up("v1");
        eventually_true("v1 answers", READY, || body().is_some_and(|body| body.contains("from v1")));
        load.wait_for(MARGIN_REQUESTS);
        let report = load.finish();
        command.push(back.took);
        switch.push(report.switched_after(back.started, "from v1"));
        requests += report.requests();
        failed += report.failed();
    }
    figures.note_ms("compose_ms", "anchor: compose back to v1: the whole command, median", median(command));
    figures.note_ms("compose_switch_ms", "anchor: compose back to v1: to the last other answer", median(switch));
    figures.note("compose_requests", "anchor: compose: requests meanwhile", requests);
    figures.note("compose_failed", "anchor: compose: of them failed", failed);
}

struct Stack {
    images: Images,
    folder: Project,
    port: Reservation,
}

impl Stack {
    fn new() -> Self {
        Self { images: Images::build(), folder: Project::empty("refloat-bench"), port: Reservation::port() }
    }

    fn up(&self, version: &str) -> Finished {
        let image = self.images.v1().replace("v1", version);
        let port = self.port.number();
        let file = format!("services:\n  app:\n    image: {image}\n    ports: [\"127.0.0.1:{port}:3000\"]\n");
        self.folder.write("compose.yaml", file);
        self.compose(&["up", "--detach", "--quiet-pull"]).success()
    }

    fn target(&self) -> Target {
        let address = ([127, 0, 0, 1], self.port.number()).into();
        Target { address, host: "app.test".to_owned(), path: "/".to_owned() }
    }

    fn compose(&self, arguments: &[&str]) -> Finished {
        Finished::of(Command::new("docker").arg("compose").args(arguments).current_dir(self.folder.folder()))
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        self.compose(&["down", "--timeout", "0"]).success();
    }
}
