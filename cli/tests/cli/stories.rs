//! Deployments from beginning to end.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;

use refloat_proto::v1::deployment_event::Event;
use refloat_proto::v1::{Downtime, Fetched, Note, OutcomeKind, Problem, Timing};
use tonic::{Code, Status};

use crate::fake::{FakeAgent, Script, accepted, denied, events, outcome, output, phase};
use crate::program::Program;

fn site(program: &Program) {
    program.write("refloat.toml", "schema = 1\napp = \"shop\"\n");
    program.write("index.html", "<!doctype html><title>Shop</title>");
}

fn started(list: Vec<Event>) -> FakeAgent {
    FakeAgent::start(Script { events: events(list), ..Script::default() })
}

/// Answers every visitor with 200.
fn web() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = format!("http://{}/", listener.local_addr().expect("an address"));
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a visitor");
            let _ = stream.read(&mut [0; 4096]).expect("a request");
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").expect("an answer");
        }
    });
    address
}

#[test]
fn a_failed_deploy_says_what_serves_then_cause_evidence_and_one_command() {
    let mut failed = outcome(OutcomeKind::Failed, 7, 6);
    failed.problem = Some(Problem {
        reason: "EXITED".to_owned(),
        message: "web ended with exit code 1 before it answered at port 3000.".to_owned(),
        next_command: "refloat env set DATABASE_URL=VALUE".to_owned(),
        lines: vec!["Error: DATABASE_URL is \u{1b}[31mnot set".to_owned(), "    at main (server.js:3:9)".to_owned()],
        still_fine: "r6 still serves".to_owned(),
    });
    failed.downtimes = vec![Downtime { process: "web".to_owned(), duration_ms: 3200 }];
    let agent = started(vec![
        accepted("deploy", 6, 0, &[]),
        phase("building"),
        output("build", "", "npm ci"),
        phase("gating"),
        output("app", "web", "Error: DATABASE_URL is not set"),
        Event::Outcome(failed),
    ]);
    let program = Program::at(&agent.socket());
    site(&program);
    let said = program.run(&["deploy"]);
    insta::assert_snapshot!(said.story());
    assert_eq!(agent.script().deploy.as_ref().map(|d| d.app.clone()), Some("shop".to_owned()));
}

#[test]
fn a_live_deploy_ends_with_its_address_as_fetched_from_both_ends_and_the_emergency_line() {
    let address = web();
    let mut live = outcome(OutcomeKind::Live, 2, 2);
    live.fetched = vec![Fetched { address: address.clone(), status: 200, duration_us: 3000, error: String::new() }];
    live.addresses = vec![address];
    live.emergency = "ssh root@203.0.113.7 refloat rollback shop".to_owned();
    let note = Note { level: "warn".to_owned(), text: "There is no lockfile.".to_owned() };
    let agent = started(vec![
        accepted("deploy", 1, 0, &[]),
        Event::Note(note),
        phase("building"),
        phase("staging"),
        phase("ended"),
        Event::Outcome(live),
    ]);
    let program = Program::at(&agent.socket());
    site(&program);
    insta::assert_snapshot!(program.run(&["deploy"]).story());
}

#[test]
fn what_does_not_answer_from_here_is_live_but_unverified() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = format!("http://{}/", listener.local_addr().expect("an address"));
    drop(listener);
    let mut live = outcome(OutcomeKind::Live, 2, 2);
    live.addresses = vec![address];
    let agent = started(vec![accepted("deploy", 1, 0, &[]), Event::Outcome(live)]);
    let program = Program::at(&agent.socket());
    site(&program);
    let said = program.run(&["deploy", "-q"]);
    assert_eq!(said.code, 10);
    assert!(said.stdout.starts_with("r2 is live, but not as seen from here: "), "{}", said.stdout);
    assert!(said.stderr.contains("firewall"), "{}", said.stderr);
}

#[test]
fn a_rollback_says_first_what_it_undoes_and_then_how_long_it_took() {
    let mut live = outcome(OutcomeKind::Live, 1, 1);
    live.timings = vec![Timing { what: "server".to_owned(), duration_us: 12_000 }];
    let undoes = [("env", "env: STRIPE_KEY changed"), ("code", "the code stays r1's")];
    let agent = started(vec![accepted("rollback", 2, 1, &undoes), phase("committed"), Event::Outcome(live)]);
    let said = Program::at(&agent.socket()).run(&["rollback", "shop"]);
    insta::assert_snapshot!(said.story());
    assert_eq!(agent.script().asked, ["rollback \"shop\" to 0 code false dry_run false"]);
}

#[test]
fn a_dry_run_of_a_rollback_puts_what_it_would_undo_on_standard_output() {
    let undoes = [("env", "env: STRIPE_KEY changed")];
    let agent = started(vec![accepted("rollback", 2, 1, &undoes), Event::Outcome(outcome(OutcomeKind::Done, 1, 2))]);
    let said = Program::at(&agent.socket()).run(&["rollback", "--to", "r1", "--dry-run"]);
    insta::assert_snapshot!(said.story());
    assert_eq!(agent.script().asked, ["rollback \"\" to 1 code false dry_run true"]);
}

#[test]
fn in_json_every_event_is_one_object_and_the_outcome_is_the_last() {
    let agent = started(vec![
        accepted("deploy", 6, 0, &[]),
        phase("building"),
        Event::Outcome(outcome(OutcomeKind::Failed, 7, 6)),
    ]);
    let program = Program::at(&agent.socket());
    site(&program);
    let said = program.run(&["deploy", "--json"]);
    let objects = said.objects();
    let keys: Vec<&str> = ["planned", "uploaded", "accepted", "phase", "outcome"].into();
    assert_eq!(objects.len(), keys.len(), "{}", said.stdout);
    for (object, key) in objects.iter().zip(keys) {
        assert!(object.get(key).is_some(), "{key} in {object}");
    }
    let last = objects.last().expect("an outcome");
    assert_eq!(
        (&last["outcome"]["kind"], &last["outcome"]["serving"], &last["exit"]),
        (&"failed".into(), &6.into(), &1.into())
    );
    assert_eq!((said.code, said.stderr.as_str()), (1, ""));
}

#[test]
fn every_outcome_has_its_exit_code() {
    for (kind, code) in [
        (OutcomeKind::Live, 0),
        (OutcomeKind::Unchanged, 0),
        (OutcomeKind::Done, 0),
        (OutcomeKind::Failed, 1),
        (OutcomeKind::LiveUnverified, 10),
        (OutcomeKind::CommittedNotServed, 11),
        (OutcomeKind::Cancelled, 12),
        (OutcomeKind::Superseded, 12),
    ] {
        let agent = started(vec![accepted("restart", 1, 1, &[]), Event::Outcome(outcome(kind, 1, 1))]);
        assert_eq!(Program::at(&agent.socket()).run(&["restart"]).code, code, "{kind:?}");
    }
}

#[test]
fn a_denial_says_what_is_fine_and_what_to_type() {
    let denial =
        denied(Code::FailedPrecondition, "There is nothing before r1.", "r1 still serves.", "refloat activate shop r1");
    let agent = FakeAgent::start(Script { denial: Some(denial), ..Script::default() });
    insta::assert_snapshot!(Program::at(&agent.socket()).run(&["rollback"]).story());
}

#[test]
fn a_role_that_is_not_enough_has_an_exit_code_of_its_own() {
    let denial = Status::permission_denied("A viewer cannot restart.");
    let agent = FakeAgent::start(Script { denial: Some(denial), ..Script::default() });
    assert_eq!(Program::at(&agent.socket()).run(&["restart"]).code, 13);
}

#[test]
fn a_lost_connection_is_found_again_and_nothing_is_told_twice() {
    let mut list = events(vec![
        accepted("deploy", 1, 0, &[]),
        output("build", "", "one"),
        output("build", "", "two"),
        Event::Outcome(outcome(OutcomeKind::Live, 2, 2)),
    ]);
    let mut again = vec![list[0].clone(), list[1].clone()];
    again.extend(list.drain(2..));
    list.push(Err(Status::unavailable("")));
    list.extend(again);
    let agent = FakeAgent::start(Script { events: list, ..Script::default() });
    let program = Program::at(&agent.socket());
    site(&program);
    let said = program.run(&["deploy"]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert_eq!(said.stderr.matches("build | one").count(), 1, "{}", said.stderr);
    assert_eq!(said.stderr.matches("build | two").count(), 1, "{}", said.stderr);
    let script = agent.script();
    assert_eq!(script.asked, ["deploy shop", "watch"]);
    assert_eq!(script.keys[0], script.keys[1]);
}

#[test]
fn a_detached_deploy_returns_when_it_is_accepted() {
    let agent = started(vec![accepted("deploy", 1, 0, &[]), Event::Outcome(outcome(OutcomeKind::Failed, 2, 1))]);
    let program = Program::at(&agent.socket());
    site(&program);
    let said = program.run(&["deploy", "--detach"]);
    assert_eq!(said.code, 0);
    let text = "The deployment goes on. Watch: refloat status shop; stop it: refloat cancel shop";
    assert!(said.stderr.contains(text), "{}", said.stderr);
}

#[test]
fn the_folder_remembers_the_app_that_was_deployed_from_it() {
    let agent = started(vec![accepted("deploy", 0, 0, &[]), Event::Outcome(outcome(OutcomeKind::Live, 1, 1))]);
    let program = Program::at(&agent.socket());
    program.write("index.html", "<!doctype html>");
    assert_eq!(program.run(&["deploy", "shop"]).code, 0);
    program.run(&["status"]);
    assert_eq!(agent.script().asked.last().map(String::as_str), Some("status \"shop\""));
}

#[test]
fn destroying_with_the_apps_name_asks_nothing() {
    let agent = started(vec![accepted("destroy", 2, 0, &[]), Event::Outcome(outcome(OutcomeKind::Done, 0, 0))]);
    let said = Program::at(&agent.socket()).run(&["destroy", "shop", "--yes", "shop"]);
    assert_eq!((said.code, said.stdout.as_str()), (0, "shop is gone; its volumes stay.\n"));
    assert_eq!(agent.script().asked, ["destroy shop volumes false dry_run false"]);
}

#[test]
fn values_of_the_environment_come_from_words_input_and_files_and_are_never_printed() {
    let program_said = |words: &[&str], input: &str| {
        let mut live = outcome(OutcomeKind::Live, 3, 3);
        live.addresses = Vec::new();
        let agent = started(vec![accepted("env", 2, 0, &[]), Event::Outcome(live)]);
        let program = Program::at(&agent.socket());
        program.write(".env.production", "A=hunter2 # comment\nB='x y'\n");
        let said = program.run_with(words, input);
        assert_eq!(said.code, 0, "{}", said.stderr);
        assert!(!said.story().contains("hunter2"));
        let asked = agent.script().asked.clone();
        asked.join("\n")
    };
    let set = |words: &[&str], input: &str| program_said(words, input);
    assert_eq!(set(&["env", "set", "shop", "A=hunter2"], ""), "env shop set [\"A=hunter2\"] unset [] false");
    assert_eq!(set(&["env", "set", "A=-"], "hunter2\n"), "env  set [\"A=hunter2\"] unset [] false");
    assert_eq!(
        set(&["env", "import", "shop", ".env.production", "--no-deploy"], ""),
        "env shop set [\"A=hunter2\", \"B=x y\"] unset [] true"
    );
    assert_eq!(set(&["env", "unset", "shop", "A", "B"], ""), "env shop set [] unset [\"A\", \"B\"] false");
}

#[test]
fn domains_are_told_from_the_app_by_their_dot() {
    let mut done = outcome(OutcomeKind::Done, 0, 2);
    done.addresses = vec!["http://shop.example.com/".to_owned()];
    let agent = started(vec![accepted("domains", 2, 0, &[]), Event::Outcome(done)]);
    let said = Program::at(&agent.socket()).run(&["domains", "add", "shop", "shop.example.com"]);
    assert_eq!((said.code, said.stdout.as_str()), (0, "shop answers at: http://shop.example.com/\n"));
    assert_eq!(agent.script().asked, ["domains shop add [\"shop.example.com\"] remove []"]);
}
