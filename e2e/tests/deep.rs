//! The long suites: `./test --deep`.

use std::time::Duration;

use refloat_e2e::scene::{RATE, Scene};
use refloat_testkit::eventually::eventually_true;
use refloat_testkit::host::Host;
use refloat_testkit::load::Load;

const SWITCHES: usize = 500;
const KILLS: usize = 200;
const RECOVERED: Duration = Duration::from_secs(60);
/// What agent and edge together may have grown by over all switches, in KiB.
const GROWTH_KIB: u64 = 8 * 1024;

#[test]
fn five_hundred_switches_back_and_forth_fail_no_request_and_leak_nothing() {
    let scene = Scene::hello_with_two_releases();
    let edge = scene.host.edge_pid().expect("the edge runs");
    let memory = || Host::rss_kib(scene.host.agent_pid()) + Host::rss_kib(edge);
    let there_and_back = || {
        scene.refloat(&["rollback"]).success();
        scene.refloat(&["activate", "r2"]).success();
    };
    // The first ones fill caches and pools.
    (0..SWITCHES / 10).for_each(|_| there_and_back());
    let before = memory();
    let load = Load::start(scene.host.target("/"), RATE);
    (0..SWITCHES / 2).for_each(|_| there_and_back());
    load.finish().without_failure();
    let after = memory();
    assert!(after < before + GROWTH_KIB, "{before} KiB before, {after} KiB after");
    assert!(scene.host.containers().len() <= 2, "{:?}", scene.host.containers());
}

#[test]
fn two_hundred_kills_of_the_agent_fail_no_request() {
    let mut scene = Scene::hello_with_two_releases();
    let load = Load::start(scene.host.target("/"), RATE);
    for _ in 0..KILLS {
        scene.host.kill_agent();
        scene.host.restart();
    }
    load.wait_for(20);
    load.finish().without_failure();
    eventually_true("a rollback works", RECOVERED, || scene.refloat(&["rollback"]).code == 0);
}
