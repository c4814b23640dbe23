//! What is refused before anything is asked of a server, and what nobody is asked without a terminal.

use crate::fake::{FakeAgent, Script};
use crate::program::Program;

#[test]
fn without_a_terminal_nothing_is_removed_unless_the_name_is_typed() {
    let agent = FakeAgent::start(Script::default());
    let program = Program::at(&agent.socket());
    insta::assert_snapshot!(program.run_with(&["destroy", "shop"], "shop\n").story());
    assert_eq!(program.run(&["destroy", "shop", "--yes", "blog"]).code, 2);
    assert!(agent.script().asked.is_empty());
}

#[test]
fn without_a_terminal_a_variable_needs_a_value() {
    let agent = FakeAgent::start(Script::default());
    insta::assert_snapshot!(Program::at(&agent.socket()).run(&["env", "set", "SECRET"]).story());
    assert!(agent.script().asked.is_empty());
}

#[test]
fn a_value_that_is_written_in_the_wrong_place_is_not_repeated() {
    let agent = FakeAgent::start(Script::default());
    let program = Program::at(&agent.socket());
    program.write(".env", "hunter2\n");
    for words in [&["env", "set", "MY-KEY=hunter2"][..], &["env", "import", ".env"], &["env", "unset", "A=hunter2"]] {
        let said = program.run(words);
        assert_eq!(said.code, 2, "{}", said.stderr);
        assert!(!said.story().contains("hunter2"), "{}", said.story());
    }
}

#[test]
fn without_a_server_it_says_how_to_pair() {
    let program = Program::alone();
    insta::assert_snapshot!(program.run(&["status"]).story());
    let objects = program.run(&["status", "--json"]).objects();
    assert_eq!((&objects[0]["error"]["reason"], &objects[0]["exit"]), (&"NOT_PAIRED".into(), &14.into()));
}

#[test]
fn an_agent_that_does_not_listen_cannot_be_reached() {
    let program = Program::alone();
    let said = program.run(&["status", "--socket", "nothing.sock"]);
    assert_eq!(said.code, 14, "{}", said.stderr);
}

#[test]
fn an_unknown_key_in_the_configuration_is_refused_with_the_nearest_one() {
    let agent = FakeAgent::start(Script::default());
    let program = Program::at(&agent.socket());
    program.write("refloat.toml", "schema = 1\nap = \"shop\"\n");
    program.write("index.html", "<!doctype html>");
    let said = program.run(&["deploy"]);
    assert_eq!(said.code, 64);
    assert!(said.stderr.contains("\"app\"") || said.stderr.contains("`app`"), "{}", said.stderr);
    assert!(agent.script().questions.is_empty());
}

#[test]
fn a_link_that_leaves_the_project_is_refused_before_anything_is_sent() {
    let agent = FakeAgent::start(Script::default());
    let program = Program::at(&agent.socket());
    program.write("index.html", "<!doctype html>");
    std::os::unix::fs::symlink("/etc/passwd", program.folder.path().join("passwd")).expect("linked");
    let said = program.run(&["deploy"]);
    insta::assert_snapshot!(said.story());
    assert!(agent.script().questions.is_empty());
}

#[test]
fn the_command_line_is_checked() {
    let program = Program::alone();
    for words in [
        &["activate"][..],
        &["activate", "shop", "x1"],
        &["diff", "r1"],
        &["rollback", "--to", "x"],
        &["run", "shop"],
        &["destroy"],
        &["env", "set"],
        &["nonsense"],
        &["status", "--via", "ssh://x", "--server", "y"],
        &["status", "--via", "ssh://-oProxyCommand=true"],
        &["pair", "vps"],
        &["pair", "vps", "--code", "wrong"],
        &["servers", "use", "../x"],
    ] {
        let said = program.run(words);
        assert_eq!(said.code, 2, "{words:?}: {}", said.stderr);
        assert_eq!(said.stdout, "", "{words:?}");
    }
}

#[test]
fn exit_codes_and_completions_are_printed() {
    let program = Program::alone();
    assert!(program.run(&["help", "exit-codes"]).stdout.contains("  14  the server cannot be reached"));
    assert!(program.run(&["--help"]).stdout.contains("  14  the server cannot be reached"));
    for shell in ["bash", "zsh", "fish", "powershell"] {
        let said = program.run(&["completions", shell]);
        assert!(said.code == 0 && said.stdout.contains("rollback"), "{shell}");
    }
}
