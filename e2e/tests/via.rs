//! Over ssh: nothing is paired, and root on the server may do everything.

use refloat_e2e::answer;
use refloat_testkit::command::Finished;
use refloat_testkit::host::{Host, Options};
use refloat_testkit::laptop::Laptop;
use refloat_testkit::project::Project;
use refloat_testkit::ssh_server::SshServer;

#[test]
fn everything_works_over_ssh_without_pairing() {
    let laptop = Laptop::elsewhere();
    let host = Host::start_with(Options { address: laptop.host_address(), ..Options::default() });
    let server = SshServer::before(&host);
    let project = Project::example("node-hello");
    let url = server.url(laptop.host_address());
    let path = std::env::join_paths(
        std::iter::once(server.client_folder())
            .chain(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())),
    )
    .expect("a path can be made longer");
    let refloat = |arguments: &[&str]| {
        let arguments = [&["--via", &url], arguments].concat();
        Finished::of(laptop.command(project.folder(), &arguments).env("PATH", &path))
    };

    let unpaired = laptop.refloat(project.folder(), &["whoami"]);
    assert_ne!(unpaired.code, 0, "without ssh nobody knows this laptop\n{unpaired}");
    refloat(&["whoami"]).success().says("root");
    refloat(&["deploy"]).success().says("r1 is live");
    project.edit("version.js", "\"v1\"", "\"v2\"");
    refloat(&["deploy"]).success();
    refloat(&["rollback"]).success();
    assert_eq!(host.body("/").as_deref(), Some("hello from v1\n"));
    let status = answer::json(&refloat(&["status", "--json"]).success());
    assert_eq!(status["apps"][0]["serving"], 1);
    assert_eq!(refloat(&["run", "--", "node", "-e", "process.exit(7)"]).code, 7);
}

#[test]
fn an_agent_that_does_not_run_is_said_over_ssh_too() {
    let mut host = Host::start();
    let server = SshServer::before(&host);
    let laptop = Laptop::elsewhere();
    host.kill_agent();
    let url = server.url(laptop.host_address());
    let client = server.client_folder();
    let path = format!("{}:/usr/bin:/bin:/usr/sbin:/sbin", client.display());
    let project = Project::example("node-hello");
    let mut command = laptop.command(project.folder(), &["--via", &url, "status"]);
    let said = Finished::of(command.env("PATH", path));
    assert_eq!(said.code, refloat_e2e::scene::code::UNREACHABLE, "{said}");
    said.says("the agent does not answer");
}
