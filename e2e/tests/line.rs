//! The line, end to end: pair, deploy, redeploy and roll back over mutual TLS and real Docker, under load.

use std::net::{Ipv4Addr, TcpStream};

use refloat_e2e::answer;
use refloat_e2e::scene::{Scene, code};
use refloat_testkit::host::{Host, Options};
use refloat_testkit::laptop::Laptop;
use refloat_testkit::project::Project;

const V1: &str = "from v1";
const V2: &str = "from v2";

#[test]
fn pair_deploy_redeploy_and_roll_back_without_a_failed_request() {
    let scene = Scene::with_example("node-hello");
    scene.deploy().success();
    assert_eq!(scene.host.body("/").as_deref(), Some("hello from v1\n"));

    scene.set_hello_version("v1", "v2");
    let (deployed, report) = scene.under_load("/", || scene.deploy());
    deployed.success();
    report.clean_switch(V1, V2);
    assert_eq!(scene.serving(), 2);

    let (rolled_back, report) = scene.under_load("/", || scene.refloat(&["rollback"]));
    rolled_back.success().says("r1");
    report.clean_switch(V2, V1);
    assert_eq!(scene.serving(), 1);

    scene.refloat(&["rollback"]).expect_code(code::FAILED).says("nothing before r1");
    assert_eq!(scene.host.body("/").as_deref(), Some("hello from v1\n"));
}

#[test]
fn a_laptop_on_another_network_deploys_by_mutual_tls() {
    let scene = Scene::with_example("node-hello");
    scene.deploy().success();
    let who = answer::json(&scene.refloat(&["whoami", "--json"]).success());
    assert_eq!(who["via"], "certificate");
    let paired_from = format!("from={} ", scene.laptop.own_address());
    assert!(scene.host.log().contains(&paired_from), "the agent sees the laptop's own address");
    let loopback = (Ipv4Addr::LOCALHOST, scene.host.agent_address().port());
    assert!(TcpStream::connect(loopback).is_err(), "the agent is reached over the link only");
}

#[test]
fn a_laptop_without_a_certificate_is_told_to_pair() {
    let scene = Scene::with_example("node-hello");
    let stranger = Laptop::elsewhere();
    let said = stranger.refloat(scene.project.folder(), &["deploy"]);
    assert_ne!(said.code, 0, "{said}");
    said.says("refloat pair");
}

#[test]
fn a_code_pairs_once() {
    let (first, second) = (Laptop::elsewhere(), Laptop::elsewhere());
    let host = Host::start_with(Options { address: first.host_address(), ..Options::default() });
    let code = host.pairing_code();
    let server = host.agent_address().to_string();
    let folder = std::env::temp_dir();
    first.refloat(&folder, &["pair", &server, "--code", &code]).success();
    let refused = second.refloat(&folder, &["pair", &server, "--code", &code]);
    assert_ne!(refused.code, 0, "{refused}");
}

#[test]
fn a_deploy_of_the_same_source_makes_no_release() {
    let scene = Scene::with_example("node-hello");
    scene.deploy().success();
    scene.deploy().success().says("r1");
    assert_eq!(scene.releases().len(), 1);
    scene.refloat(&["deploy", "--force"]).success();
    assert_eq!(scene.serving(), 2);
}

#[test]
fn root_on_the_server_rolls_back_without_pairing() {
    let scene = Scene::on_one_machine(Project::example("node-hello")).with_two_releases();
    scene.host.refloat(&["rollback", "node-hello"]).success();
    assert_eq!(scene.host.body("/").as_deref(), Some("hello from v1\n"));
}

#[test]
fn a_second_app_without_a_domain_is_refused_with_the_line_to_type() {
    let scene = Scene::with_example("node-hello");
    scene.deploy().success();
    let other = Project::example("static-site");
    let refused = scene.laptop.refloat(other.folder(), &["deploy"]);
    refused.expect_code(code::FAILED).says("domain");
    assert_eq!(scene.host.body("/").as_deref(), Some("hello from v1\n"));
}

#[test]
fn a_static_site_deploys_and_rolls_back_without_a_container() {
    let scene = Scene::with_example("static-site");
    scene.deploy().success();
    scene.project.edit("index.html", ">v1<", ">v2<");
    scene.deploy().success();
    let (rolled_back, report) = scene.under_load("/", || scene.refloat(&["rollback"]));
    rolled_back.success();
    report.clean_switch(">v2<", ">v1<");
    assert_eq!(scene.host.containers(), [""; 0]);
    let missing =
        refloat_testkit::fetch::get(scene.host.edge_address(), "x.test", "/nowhere").expect("the edge answers");
    assert_eq!((missing.status, missing.body.contains("Not here")), (404, true), "{missing:?}");
}

#[test]
fn a_vite_page_and_its_api_are_one_release() {
    let scene = Scene::with_example("guestbook");
    scene.deploy().success();
    assert_eq!(scene.host.body("/api/version").as_deref(), Some(r#"{"version":"v1"}"#));
    assert!(scene.host.body("/").is_some_and(|page| page.contains("/assets/index-")));
    scene.project.edit("server/version.js", "v1", "v2");
    let (deployed, report) = scene.under_load("/api/version", || scene.deploy());
    deployed.success();
    report.clean_switch(r#""v1""#, r#""v2""#);
    let (rolled_back, report) = scene.under_load("/api/version", || scene.refloat(&["rollback"]));
    rolled_back.success();
    report.clean_switch(r#""v2""#, r#""v1""#);
}
