//! Questions that change nothing.

use refloat_proto::v1 as wire;

use crate::fake::{FakeAgent, Script, changes, seconds_ago};
use crate::program::Program;

fn releases() -> wire::ListReleasesResponse {
    let origin = |subject: &str, commit: &str| wire::Origin {
        host: "laptop".to_owned(),
        folder: "shop".to_owned(),
        git_commit: commit.to_owned(),
        git_subject: subject.to_owned(),
        git_dirty: !commit.is_empty(),
    };
    let release = |number: u32, age: u64| wire::ReleaseSummary {
        number,
        created_at_unix_ms: seconds_ago(age),
        author: "anna@laptop".to_owned(),
        parent: number - 1,
        build_ms: 12_400,
        first_took_ms: 14_800,
        kind: "deploy".to_owned(),
        ..Default::default()
    };
    let third = wire::ReleaseSummary {
        origin: Some(origin("Take the cart apart", "1a2b3c4d5e6f708192a3b4c5d6e7f80912345678")),
        changes: changes(&[("code", "code: src/cart.ts")]),
        serves: true,
        ..release(3, 200)
    };
    let second = wire::ReleaseSummary {
        changes: changes(&[("env", "env: STRIPE_KEY changed")]),
        standby: "paused".to_owned(),
        build_ms: 0,
        first_took_ms: 640,
        kind: "env".to_owned(),
        ..release(2, 7300)
    };
    let first = wire::ReleaseSummary { origin: Some(origin("", "")), ..release(1, 260_000) };
    wire::ListReleasesResponse { app: "shop".to_owned(), releases: vec![third, second, first] }
}

fn status() -> wire::GetStatusResponse {
    let instance = wire::InstanceStatus {
        process: "web".to_owned(),
        release: 3,
        state: "running".to_owned(),
        role: "serving".to_owned(),
        memory_bytes: 40 << 20,
        restarts: 2,
        ..Default::default()
    };
    let mut standby = instance.clone();
    (standby.release, standby.role, standby.state) = (2, "standby".to_owned(), "paused".to_owned());
    let app = wire::AppStatus {
        app: "shop".to_owned(),
        serving: 3,
        addresses: vec!["http://shop.example.com/".to_owned()],
        domains: vec!["shop.example.com".to_owned()],
        instances: vec![instance, standby],
        deployment: Some(wire::RunningDeployment {
            kind: "deploy".to_owned(),
            phase: "building".to_owned(),
            started_at_unix_ms: seconds_ago(20),
            by: "ci".to_owned(),
            ..Default::default()
        }),
        release: Some(wire::ReleaseSummary {
            number: 3,
            activated_at_unix_ms: seconds_ago(200),
            changes: changes(&[("code", "code: src/cart.ts")]),
            parent: 2,
            ..Default::default()
        }),
        rollback_to: 2,
        rollback_estimate: "warm, about 50 ms".to_owned(),
        ..Default::default()
    };
    let host = wire::HostStatus {
        host: "vps".to_owned(),
        version: "0.1.0".to_owned(),
        engine: "Docker 28.5.2".to_owned(),
        engine_reachable: true,
        edge_reachable: false,
        live_restore: true,
        build_cap: "builds are NOT capped: no control group can be made".to_owned(),
        store: "ok".to_owned(),
        disk_free_bytes: 9 << 30,
        problems: vec![wire::Problem {
            message: "The clock is 3 minutes off.".to_owned(),
            next_command: "timedatectl".to_owned(),
            ..Default::default()
        }],
        ..Default::default()
    };
    wire::GetStatusResponse { apps: vec![app], host: Some(host) }
}

#[test]
fn releases_are_a_table_that_a_pipe_gets_whole() {
    let agent = FakeAgent::start(Script { releases: releases(), ..Script::default() });
    let program = Program::at(&agent.socket());
    insta::assert_snapshot!(program.run(&["releases"]).story());
    let objects = program.run(&["releases", "--json"]).objects();
    assert_eq!(objects.len(), 1);
    assert_eq!(objects[0]["releases"][0]["number"], 3);
    assert_eq!(objects[0]["releases"][1]["changes"][0]["text"], "env: STRIPE_KEY changed");
}

#[test]
fn the_status_says_problems_loudly() {
    let agent = FakeAgent::start(Script { status: status(), ..Script::default() });
    let program = Program::at(&agent.socket());
    let said = program.run(&["status"]).story();
    insta::assert_snapshot!(said.replace(&agent.socket().display().to_string(), "[SOCKET]"));
    assert_eq!(program.run(&["status", "--json"]).objects()[0]["host"]["edge_reachable"], false);
}

#[test]
fn a_release_shows_what_runs_and_when_it_served() {
    let summary = releases().releases.remove(0);
    let release = wire::GetReleaseResponse {
        summary: Some(wire::ReleaseSummary { created_at_unix_ms: 1_763_820_192_000, ..summary }),
        source: vec![0xab; 4],
        processes: vec![wire::ProcessView {
            name: "web".to_owned(),
            kind: "web".to_owned(),
            exclusive: true,
            backend: "instance".to_owned(),
            port: 3000,
            routes: vec!["/".to_owned()],
            volumes: vec!["data:/data".to_owned()],
            memory_mib: 512,
            health: "GET /".to_owned(),
            ..Default::default()
        }],
        env_names: vec!["STRIPE_KEY".to_owned()],
        activations: vec![wire::ActivationView {
            at_unix_ms: 1_763_820_199_000,
            by: "anna@laptop".to_owned(),
            from: "192.0.2.9".to_owned(),
            kind: "deploy".to_owned(),
            took_ms: 14_800,
            ..Default::default()
        }],
        rollback_to: 2,
        ..Default::default()
    };
    let agent = FakeAgent::start(Script { release, ..Script::default() });
    let program = Program::at(&agent.socket());
    insta::assert_snapshot!(program.run(&["show", "shop", "r3"]).story());
    program.run(&["show"]);
    assert_eq!(agent.script().asked, ["show \"shop\" 3", "show \"\" 0"]);
}

#[test]
fn a_difference_names_changes_and_files() {
    let file = |path: &str, kind: &str| wire::FileChange { path: path.to_owned(), kind: kind.to_owned() };
    let diff = wire::DiffReleasesResponse {
        changes: changes(&[("code", "code: 2 files"), ("env", "env: KEY added")]),
        files: vec![file("src/a.ts", "changed"), file("src/b.ts", "added")],
        truncated: false,
    };
    let agent = FakeAgent::start(Script { diff, ..Script::default() });
    let program = Program::at(&agent.socket());
    let said = program.run(&["diff", "r1", "r2"]);
    assert_eq!(said.stdout, "code: 2 files\nenv: KEY added\n  changed  src/a.ts\n  added    src/b.ts\n");
    assert_eq!(agent.script().asked, ["diff \"\" 1 2"]);
}

#[test]
fn logs_are_data_on_standard_output_without_what_could_move_a_cursor() {
    let line = |stream: &str, text: &str| wire::LogLine {
        at_unix_ms: 1_763_820_192_000,
        process: "web".to_owned(),
        release: 1,
        stream: stream.to_owned(),
        line: text.to_owned(),
        ..Default::default()
    };
    let logs = vec![line("stdout", "listening"), line("stderr", "\u{1b}[2Joops")];
    let agent = FakeAgent::start(Script { logs, ..Script::default() });
    let program = Program::at(&agent.socket());
    let said = program.run(&["logs", "shop", "--release", "r1", "-n", "5"]);
    assert_eq!(said.stdout, "2025-11-22 14:03:12 UTC web r1 | listening\n2025-11-22 14:03:12 UTC web r1 | oops\n");
    assert_eq!(agent.script().asked, ["logs shop r1  5 false"]);
}

#[test]
fn a_command_gets_our_input_and_gives_its_output_and_code() {
    let agent = FakeAgent::start(Script::default());
    let said = Program::at(&agent.socket()).run_with(&["run", "shop", "--", "cat", "-n"], "from here\n");
    assert_eq!((said.code, said.stdout.as_str(), said.stderr.as_str()), (7, "from here\n", "to stderr\n"));
    assert_eq!(agent.script().ran, (vec!["cat".to_owned(), "-n".to_owned()], b"from here\n".to_vec()));
}

#[test]
fn small_questions_have_small_answers() {
    let cancelled = wire::CancelResponse { deployment: "x".to_owned(), kind: "deploy".to_owned() };
    let names = vec![wire::EnvName {
        name: "STRIPE_KEY".to_owned(),
        changed_at_unix_ms: seconds_ago(200),
        changed_by: "anna@laptop".to_owned(),
    }];
    let env = wire::ListEnvResponse { names };
    let agent = FakeAgent::start(Script { status: status(), cancelled, env, ..Script::default() });
    let program = Program::at(&agent.socket());
    for (words, stdout) in [
        (&["whoami"][..], "root, admin on vps, by socket\n"),
        (&["version"], "refloat 0.1.0\nrefloatd 0.1.0 on vps\n"),
        (&["cancel"], "Cancelled the deploy.\n"),
        (&["open"], "http://shop.example.com/\n"),
        (&["domains", "list"], "shop.example.com\n"),
        (&["env", "list"], "NAME        CHANGED    BY\nSTRIPE_KEY  3 min ago  anna@laptop\n"),
    ] {
        let said = program.run(words);
        assert_eq!((said.code, said.stdout.as_str()), (0, stdout), "{words:?}: {}", said.stderr);
    }
}

#[test]
fn a_plan_needs_no_server() {
    let program = Program::alone();
    program.write("refloat.toml", "schema = 1\napp = \"shop\"\n");
    program.write("index.html", "<!doctype html>");
    let said = program.run(&["plan"]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert!(said.stdout.contains("shop"), "{}", said.stdout);
    let objects = program.run(&["plan", "--json"]).objects();
    assert_eq!((objects.len(), &objects[0]["app"]), (1, &"shop".into()));
}
