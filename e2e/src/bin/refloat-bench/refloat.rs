//! Refloat itself.

use std::time::{Duration, Instant};

use refloat_e2e::answer;
use refloat_e2e::figure::{Figures, median};
use refloat_e2e::scene::Scene;
use refloat_testkit::command::Finished;
use refloat_testkit::eventually;
use refloat_testkit::host::Host;
use refloat_testkit::laptop::Laptop;
use refloat_testkit::load::Report;
use refloat_testkit::meter::Meter;
use refloat_testkit::project::{Project, noise};

use crate::{high, step};

const WARM_ROUNDS: usize = 50;
const UNCHANGED_ROUNDS: usize = 20;
const STANDBY_DEADLINE: Duration = Duration::from_secs(120);
const LARGE_FILES: u64 = 700;
const LARGE_FILE_BYTES: usize = (50 << 20) / 700;
const V1: &str = "from v1";
const V2: &str = "from v2";

pub(crate) fn measure(figures: &mut Figures) {
    step("deploying node-hello twice");
    let scene = Scene::on_one_machine(Project::example("node-hello")).with_two_releases();
    warm_rollbacks(&scene, figures);
    unchanged_deploys(&scene, figures);
    status(&scene, figures);
    let edge = scene.host.edge_pid().expect("the edge runs");
    figures.note("agent_rss_kb", "memory of the agent", Host::rss_kib(scene.host.agent_pid()));
    figures.note("edge_rss_kb", "memory of the edge", Host::rss_kib(edge));
    drop(scene);
    one_line_in_fifty_megabytes(figures);
}

fn warm_rollbacks(scene: &Scene, figures: &mut Figures) {
    step("rolling back, warm, under 200 requests per second");
    let (mut command, mut server, mut switch, mut loads) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..WARM_ROUNDS {
        paused(scene);
        let (rolled_back, report) = scene.under_load("/", || scene.refloat(&["rollback", "--json"]).success());
        command.push(rolled_back.took);
        switch.push(report.switched_after(rolled_back.started, V1));
        server.extend(answer::server_ms(&answer::outcome(&rolled_back)).map(|ms| Duration::from_secs_f64(ms / 1000.0)));
        loads.push(report);
        paused(scene);
        scene.refloat(&["activate", "r2"]).success();
    }
    figures.note_ms("rollback_warm_ms", "warm rollback: the whole command, median", median(command.clone()));
    figures.note_ms("rollback_warm_p99_ms", "warm rollback: the whole command, p99", high(command));
    figures.note_ms("rollback_warm_server_ms", "warm rollback: on the server, median", median(server));
    figures.note_ms("rollback_warm_switch_ms", "warm rollback: to the last old answer, median", median(switch));
    figures.note("requests", "requests meanwhile", loads.iter().map(Report::requests).sum::<usize>());
    figures.note("failed", "of them failed", loads.iter().map(Report::failed).sum::<usize>());
    figures.note("mixed", "of them mixed", loads.iter().map(|report| report.mixed(V2, V1)).sum::<usize>());
}

fn unchanged_deploys(scene: &Scene, figures: &mut Figures) {
    step("deploying what is there already");
    let took = (0..UNCHANGED_ROUNDS).map(|_| scene.deploy().success().took).collect();
    figures.note_ms("redeploy_unchanged_ms", "deploy, nothing changed, median", median(took));
}

fn status(scene: &Scene, figures: &mut Figures) {
    step("asking for the status");
    let took = (0..UNCHANGED_ROUNDS).map(|_| scene.refloat(&["status"]).success().took).collect();
    figures.note_ms("status_ms", "status: the whole command, median", median(took));
}

fn one_line_in_fifty_megabytes(figures: &mut Figures) {
    step("changing one line in 50 MB");
    let host = Host::start();
    let meter = Meter::before(host.agent_address());
    let laptop = Laptop::new();
    laptop.pair_at(&host, meter.address());
    let project = large_site();
    let deploy = || -> Finished { laptop.refloat(project.folder(), &["deploy"]).success() };
    deploy();
    let before = meter.sent_bytes();
    figures.note("upload_first_bytes", "first upload of 50 MB", before);
    project.edit("index.html", ">v1<", ">v2<");
    let begin = Instant::now();
    deploy();
    figures.note_ms("redeploy_one_line_ms", "deploy, one line in 50 MB changed", begin.elapsed());
    figures.note("upload_one_line_bytes", "sent for it", meter.sent_bytes() - before);
}

/// A static site of 700 files that do not compress.
fn large_site() -> Project {
    let project = Project::example("static-site");
    for number in 0..LARGE_FILES {
        project.write(&format!("media/{}/{number}.bin", number % 20), noise(number, LARGE_FILE_BYTES));
    }
    project
}

fn paused(scene: &Scene) {
    let state = |name: &String| scene.host.state_of(name);
    eventually("a paused standby", STANDBY_DEADLINE, || {
        scene.host.containers().into_iter().find(|n| state(n) == "paused")
    });
}
