//! The agent, or the edge, is killed right after each of the agent's effects, over the real engine, edge and ledger: the points of
//! `agent/tests/crash_prefix.rs`, as kill -9. Between two effects there is nothing but memory, so "before" is "after" the one
//! before.

use std::process::{Child, Stdio};
use std::time::Duration;

use refloat_e2e::answer;
use refloat_e2e::scene::{RATE, Scene};
use refloat_testkit::eventually::{eventually, eventually_true};
use refloat_testkit::load::Load;

const RECOVERED: Duration = Duration::from_secs(90);
/// More effects than any deployment has: a guard against never reaching the end.
const MOST_EFFECTS: usize = 60;
/// Whoever dies after the last effect is dead by then.
const LAST_BREATH: Duration = Duration::from_millis(500);

/// How an app that rests keeps the release that was displaced.
const PAUSED: &str = "paused";
const STOPPED: &str = "exited";

struct Victim {
    scene: Scene,
    standby: &'static str,
}

impl Victim {
    /// Does it again and again, killed one effect later each time, until nothing is left to be killed after. Returns how
    /// many effects there were.
    fn killed_after_every_effect(&mut self, mut act: impl FnMut(&Scene) -> Child) -> usize {
        for after in 0..MOST_EFFECTS {
            self.at_rest();
            let before = (self.scene.serving(), self.body());
            self.scene.host.stop_agent();
            self.scene.host.restart_mortal(after);
            let mut act = act(&self.scene);
            let died = self.dies_or_rests(&mut act);
            if died {
                self.scene.host.restart();
            }
            self.at_rest();
            // What waits for the dead agent waits for nothing.
            let _ = act.kill();
            let acknowledged = act.wait().expect("a child ends").success();
            let now = (self.scene.serving(), self.body());
            let label = format!("killed after effect {after}: {before:?}, then {now:?}");
            assert!(now.1.is_some(), "{label}: what serves answers");
            assert_eq!(before.0 == now.0, before.1 == now.1, "{label}: a release and its answer belong together");
            assert!(!acknowledged || before.0 != now.0, "{label}: what was acknowledged is kept");
            if !died {
                return after;
            }
        }
        MOST_EFFECTS
    }

    /// Does a switch whose edge is killed after an effect. Whether there was one.
    fn loses_its_edge(&mut self, after: usize) -> bool {
        self.at_rest();
        let to = other_release(&self.scene);
        self.scene.host.stop_agent();
        self.scene.host.restart_stopping(after);
        let mut act = begin(&self.scene, &["activate", to]);
        let stopped = eventually("the agent's stop or rest", RECOVERED, || {
            let done = act.try_wait().is_ok_and(|ended| ended.is_some()) && self.containers_rest();
            if done {
                std::thread::sleep(LAST_BREATH);
            }
            let stopped = self.scene.host.is_stopped();
            (stopped || done).then_some(stopped)
        });
        if stopped {
            self.scene.host.kill_edge();
            self.scene.host.resume_agent();
        }
        let acknowledged = act.wait().expect("a child ends").success();
        self.at_rest();
        let label = format!("the edge was killed after effect {after} of the way to {to}");
        let serving = format!("r{}", self.scene.serving());
        assert!(!acknowledged || serving == to, "{label}: what was acknowledged is kept, and {serving} serves");
        assert_eq!(self.body(), Some(format!("hello from v{}\n", &serving[1..])), "{label}");
        stopped
    }

    /// Waits until the agent is dead, or the command and all that follows from it is done. Whether it died.
    fn dies_or_rests(&mut self, act: &mut Child) -> bool {
        eventually("the agent's death or rest", RECOVERED, || {
            let done = act.try_wait().is_ok_and(|ended| ended.is_some()) && self.containers_rest();
            if done {
                std::thread::sleep(LAST_BREATH);
            }
            let died = self.scene.host.has_died();
            (died || done).then_some(died)
        })
    }

    /// Waits until nothing runs that is not to run, and one whole release serves.
    fn at_rest(&self) {
        eventually_true("no deployment runs and the containers are those of two releases", RECOVERED, || {
            let status = self.scene.refloat(&["status", "--json"]);
            status.code == 0 && answer::json(&status)["apps"][0]["deployment"].is_null() && self.containers_rest()
        });
        eventually_true("the app answers", RECOVERED, || self.body().is_some());
    }

    fn containers_rest(&self) -> bool {
        let host = &self.scene.host;
        let mut states: Vec<String> = Vec::new();
        for name in host.containers() {
            states.push(host.state_of(&name));
        }
        states.sort();
        let mut expected = ["running", self.standby];
        expected.sort_unstable();
        states == expected
    }

    fn body(&self) -> Option<String> {
        self.scene.host.body("/")
    }
}

fn begin(scene: &Scene, arguments: &[&str]) -> Child {
    let mut command = scene.laptop.command(scene.project.folder(), arguments);
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("refloat can be started")
}

fn other_release(scene: &Scene) -> &'static str {
    // Asked over the wire: the agent under test has had no effect yet.
    if scene.serving() == 2 { "r1" } else { "r2" }
}

#[test]
fn an_agent_killed_after_any_effect_of_a_switch_leaves_one_whole_release_serving() {
    let mut victim = Victim { scene: Scene::hello_with_two_releases(), standby: PAUSED };
    let load = Load::start(victim.scene.host.target("/"), RATE);
    let effects = victim.killed_after_every_effect(|scene| begin(scene, &["activate", other_release(scene)]));
    load.finish().without_failure();
    assert!((8..MOST_EFFECTS).contains(&effects), "{effects} effects: accept, wake, stage, commit, apply, end, keep");
}

/// The agent lives: it is stopped after an effect, the edge is killed, and the agent goes on with another edge, which knows
/// nothing of what the one before it had staged.
#[test]
fn an_edge_killed_after_any_effect_of_a_switch_serves_one_whole_release_again() {
    let mut victim = Victim { scene: Scene::hello_with_two_releases(), standby: PAUSED };
    let effects = (0..MOST_EFFECTS).find(|after| !victim.loses_its_edge(*after)).unwrap_or(MOST_EFFECTS);
    assert!((8..MOST_EFFECTS).contains(&effects), "{effects} effects: accept, wake, stage, commit, apply, end, keep");
}

#[test]
fn an_agent_killed_after_any_effect_of_a_deploy_leaves_one_whole_release_serving() {
    let mut victim = Victim { scene: Scene::hello_with_two_releases(), standby: PAUSED };
    let load = Load::start(victim.scene.host.target("/"), RATE);
    let mut version = 2;
    let effects = victim.killed_after_every_effect(|scene| {
        scene.set_hello_version(&format!("v{version}"), &format!("v{}", version + 1));
        version += 1;
        begin(scene, &["deploy"])
    });
    load.finish().without_failure();
    assert!((12..MOST_EFFECTS).contains(&effects), "{effects} effects: accept, build, create, start, stage, commit, …");
}

#[test]
fn an_agent_killed_after_any_effect_of_a_handover_leaves_one_process_with_its_volume() {
    let scene = Scene::with_volume();
    scene.deploy().success();
    scene.set_hello_version("v1", "v2");
    scene.deploy().success();
    let mut victim = Victim { scene, standby: STOPPED };
    let effects = victim.killed_after_every_effect(|scene| begin(scene, &["activate", other_release(scene)]));
    assert!((10..MOST_EFFECTS).contains(&effects), "{effects} effects: accept, hold, stop, start, stage, commit, …");
    let starts = victim.scene.host.body("/starts").unwrap_or_default();
    let (first, last) = (starts.lines().next(), starts.lines().last());
    assert_eq!(first, Some("v1"), "the volume holds what the first release wrote: {starts}");
    assert!(victim.body().is_some_and(|body| last.is_some_and(|last| body.contains(last))), "{starts}");
}
