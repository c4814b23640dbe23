//! `./demo`: the line from the first deploy to every kind of rollback, with figures. See there for its arguments.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "it is a demonstration")]

use std::process::ExitCode;
use std::sync::mpsc;
use std::time::Duration;

use refloat_e2e::answer;
use refloat_e2e::figure::{Figures, median};
use refloat_e2e::scene::Scene;
use refloat_testkit::command::Finished;
use refloat_testkit::host::{Host, Traces};
use refloat_testkit::load::Report;
use refloat_testkit::project::Project;
use refloat_testkit::{eventually, fetch};

const API: &str = "/api/version";
const V1: &str = r#""v1""#;
const V2: &str = r#""v2""#;
const STATIC_DOMAIN: &str = "static.localhost";
/// Warm rollbacks of which the median is shown.
const WARM_ROUNDS: usize = 5;
const STANDBY_DEADLINE: Duration = Duration::from_secs(120);
/// Given to a process group's end by Ctrl-C, as a shell would.
const INTERRUPTED: u8 = 130;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let has = |name: &str| arguments.iter().any(|argument| argument == name);
    let (json, keep) = (has("--json"), has("--keep"));
    let interrupts = interrupts();
    let (to, traces) = mpsc::channel();
    let show = std::thread::spawn(move || demonstrate(&to));
    let traces = traces.recv();
    while !show.is_finished() {
        if interrupts.recv_timeout(Duration::from_millis(50)).is_ok() {
            traces.iter().for_each(Traces::remove);
            return ExitCode::from(INTERRUPTED);
        }
    }
    let Ok((scene, figures, base)) = show.join() else { return ExitCode::FAILURE };
    println!("\n{}", figures.table());
    end(scene, &base, json, keep, &interrupts);
    if json {
        println!("{}", figures.json());
    }
    ExitCode::SUCCESS
}

/// Leaves it running, serves until Ctrl-C, or ends it.
fn end(scene: Scene, base: &str, json: bool, keep: bool, interrupts: &mpsc::Receiver<()>) {
    if keep {
        let traces = scene.host.keep();
        let pids = [traces.processes("refloatd"), traces.processes("refloat-edge")].concat();
        let pids = pids.iter().map(u32::to_string).collect::<Vec<_>>().join(" ");
        eprintln!(
            "It goes on serving at {base}\nIts state: {}\nTo end it:\n  kill {pids}\n  \
             docker rm --force $(docker ps --all --quiet --filter {})",
            traces.folder().display(),
            traces.containers_filter()
        );
    } else if !json {
        println!("The guestbook is at {base} until Ctrl-C.");
        // Without a handler there is nothing to wait for, and it ends.
        let _ = interrupts.recv();
    }
}

/// One message for each Ctrl-C.
fn interrupts() -> mpsc::Receiver<()> {
    let (to, interrupts) = mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async { while tokio::signal::ctrl_c().await.is_ok() && to.send(()).is_ok() {} });
        std::io::Result::Ok(())
    });
    interrupts
}

fn demonstrate(to: &mpsc::Sender<Traces>) -> (Scene, Figures, String) {
    step("starting a private agent and edge on loopback, and pairing");
    let scene = Scene::on_one_machine(Project::example("guestbook"));
    // The receiver waits for exactly this.
    let _ = to.send(scene.host.traces());
    let mut show = Show { scene, figures: Figures::default(), loads: Vec::new() };
    show.deploy_and_redeploy();
    show.roll_back_warm();
    show.roll_back_cold();
    show.roll_back_a_static_site();
    let base = show.close();
    (show.scene, show.figures, base)
}

struct Show {
    scene: Scene,
    figures: Figures,
    /// Every load with the markers of what served before and after.
    loads: Vec<(Report, &'static str, &'static str)>,
}

impl Show {
    fn deploy_and_redeploy(&mut self) {
        step("deploying examples/guestbook");
        let deployed = self.scene.deploy().success();
        self.figures.note_ms("deploy_ms", "first deploy, dependencies installed", deployed.took);
        let same = self.scene.deploy().success();
        self.figures.note_ms("redeploy_unchanged_ms", "deploy again, nothing changed", same.took);
        step("deploying a second version under 200 requests per second");
        self.scene.project.edit("server/version.js", V1, V2);
        let deployed = self.changed(V1, V2, |scene| scene.deploy());
        self.figures.note_ms("redeploy_ms", "deploy of a second version", deployed.took);
    }

    fn roll_back_warm(&mut self) {
        step("rolling back, warm");
        let (mut whole, mut server) = (Vec::new(), Vec::new());
        for round in 0..WARM_ROUNDS {
            self.standby("paused");
            let rolled_back = self.changed(V2, V1, |scene| scene.refloat(&["rollback", "--json"]));
            whole.push(rolled_back.took);
            let ms = answer::server_ms(&answer::outcome(&rolled_back)).unwrap_or_default();
            server.push(Duration::from_secs_f64(ms / 1000.0));
            // The last round leaves r1: the cold one begins with going forward again.
            if round + 1 < WARM_ROUNDS {
                self.forward();
            }
        }
        self.figures.note_ms("rollback_warm_ms", "rollback, warm: the whole command", median(whole));
        self.figures.note_ms("rollback_warm_server_ms", "rollback, warm: on the server", median(server));
    }

    fn roll_back_cold(&mut self) {
        step("rolling back, cold: the old container is gone");
        self.forward();
        let standby = self.standby("paused");
        self.scene.host.docker(&["rm", "--force", &standby]);
        let rolled_back = self.changed(V2, V1, |scene| scene.refloat(&["rollback"]));
        self.figures.note_ms("rollback_cold_ms", "rollback, cold: the whole command", rolled_back.took);
    }

    fn roll_back_a_static_site(&mut self) {
        step("deploying a static site twice and rolling it back");
        let site = Project::example("static-site");
        let refloat = |arguments: &[&str]| self.scene.laptop.refloat(site.folder(), arguments).success();
        // The second app of a server needs a name of its own before it can be told apart.
        refloat(&["domains", "add", "static-site", STATIC_DOMAIN]);
        refloat(&["deploy"]);
        site.edit("index.html", ">v1<", ">v2<");
        refloat(&["deploy"]);
        let rolled_back = refloat(&["rollback"]);
        let page = fetch::get(self.scene.host.edge_address(), STATIC_DOMAIN, "/").expect("the edge answers");
        assert!(page.body.contains(">v1<"), "the first version serves again: {page:?}");
        self.figures.note_ms("rollback_files_ms", "rollback of a static site", rolled_back.took);
    }

    /// Totals, memory and the address.
    fn close(&mut self) -> String {
        let sum = |count: &dyn Fn(&Report, &str, &str) -> usize| -> usize {
            self.loads.iter().map(|(report, old, new)| count(report, old, new)).sum()
        };
        let requests = sum(&|report, _, _| report.requests());
        let failed = sum(&|report, _, _| report.failed());
        let mixed = sum(&Report::mixed);
        self.figures.note("requests", "requests meanwhile", requests);
        self.figures.note("failed", "of them failed", failed);
        self.figures.note("mixed", "answered by the old release after the new one", mixed);
        let rss = |pid| Host::rss_kib(pid);
        self.figures.note("agent_rss_kb", "memory of the agent", rss(self.scene.host.agent_pid()));
        let edge = self.scene.host.edge_pid().expect("the edge runs");
        self.figures.note("edge_rss_kb", "memory of the edge", rss(edge));
        let base = format!("http://{}", self.scene.host.edge_address());
        self.figures.note("base", "address", base.clone());
        base
    }

    /// Does something under load that must succeed, and keeps the load's report.
    fn changed(&mut self, old: &'static str, new: &'static str, act: impl FnOnce(&Scene) -> Finished) -> Finished {
        let (finished, report) = self.scene.under_load(API, || act(&self.scene));
        self.loads.push((report, old, new));
        finished.success()
    }

    fn forward(&mut self) {
        self.standby("paused");
        self.changed(V1, V2, |scene| scene.refloat(&["activate", "r2"]));
    }

    /// Waits until a container is in that state, and returns its name.
    fn standby(&self, state: &str) -> String {
        let host = &self.scene.host;
        let is = |name: &String| host.state_of(name) == state;
        eventually("the standby is ready", STANDBY_DEADLINE, || host.containers().into_iter().find(is))
    }
}

fn step(what: &str) {
    eprintln!("· {what}");
}
