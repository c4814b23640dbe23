//! Releases that are made before they serve, and rollbacks that look at the code only.

use refloat_e2e::scene::{Scene, code};

#[test]
fn a_release_can_be_made_first_and_serve_later() {
    let scene = Scene::with_example("node-hello");
    scene.deploy().success();
    scene.set_hello_version("v1", "v2");
    scene.refloat(&["deploy", "--no-activate"]).success().says("r2 is made and does not serve");
    assert_eq!((scene.serving(), scene.releases().len()), (1, 2));
    assert_eq!(scene.host.body("/").as_deref(), Some("hello from v1\n"));
    let (activated, report) = scene.under_load("/", || scene.refloat(&["activate", "r2"]));
    activated.success();
    report.clean_switch("from v1", "from v2");
    scene.refloat(&["rollback"]).success();
    assert_eq!(scene.serving(), 1);
}

#[test]
fn a_value_can_be_kept_in_a_release_that_serves_later_though_somebody_rolls_back_meanwhile() {
    let scene = Scene::hello_with_two_releases();
    scene.refloat(&["env", "set", "GREETING=welcome", "--no-deploy"]).success().says("r3 is made");
    assert_eq!(scene.serving(), 2);
    scene.refloat(&["rollback"]).success();
    let (activated, report) = scene.under_load("/", || scene.refloat(&["activate", "r3"]));
    activated.success();
    report.clean_switch("hello from v1", "welcome from v2");
}

#[test]
fn a_rollback_of_the_code_passes_over_changes_of_the_environment() {
    let scene = Scene::hello_with_two_releases();
    scene.refloat(&["env", "set", "GREETING=welcome"]).success();
    assert_eq!(scene.serving(), 3);
    let (rolled_back, report) = scene.under_load("/", || scene.refloat(&["rollback", "--code"]));
    rolled_back.success().says("r3 → r1");
    report.clean_switch("welcome from v2", "hello from v1");
    scene.refloat(&["rollback", "--code"]).expect_code(code::FAILED).says("nothing before r1");
}

#[test]
fn a_variable_that_the_build_reads_is_in_the_page_after_it_was_set() {
    let scene = Scene::with_example("guestbook");
    let import = "import \"./style.css\";";
    scene.project.edit("src/main.ts", import, &format!("{import}\ndocument.title = import.meta.env.VITE_TITLE;"));
    scene.deploy().success();
    let (set, report) = scene.under_load("/", || scene.refloat(&["env", "set", "VITE_TITLE=of-all-guests"]));
    set.success().says("r2 is live");
    report.without_failure();
    let page = scene.host.body("/").expect("the page is served");
    let script = page.split('"').find(|part| part.starts_with("/assets/") && part.ends_with(".js"));
    let script = scene.host.body(script.expect("the page names its script")).expect("the script is served");
    assert!(script.contains("of-all-guests"));
}
