//! What is sent, and what is not.

use refloat_plan::tree::{Directory, Node};
use refloat_proto::v1::OutcomeKind;
use refloat_proto::v1::deployment_event::Event;

use crate::fake::{FakeAgent, Script, accepted, events, outcome};
use crate::program::Program;

/// Deploys and returns how many objects were uploaded and how many digests were asked about.
fn deploy(agent: &FakeAgent, program: &Program) -> (Vec<usize>, Vec<usize>) {
    {
        let mut script = agent.script();
        (script.uploads, script.questions) = (Vec::new(), Vec::new());
        script.events = events(vec![accepted("deploy", 0, 0, &[]), Event::Outcome(outcome(OutcomeKind::Live, 1, 1))]);
    }
    let said = program.run(&["deploy"]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    let script = agent.script();
    (script.uploads.clone(), script.questions.clone())
}

fn project() -> (FakeAgent, Program) {
    let agent = FakeAgent::start(Script::default());
    let program = Program::at(&agent.socket());
    for (path, text) in [("index.html", "<!doctype html>"), ("a/one.js", "1"), ("a/b/two.js", "2"), ("c/three.js", "3")]
    {
        program.write(path, text);
    }
    (agent, program)
}

#[test]
fn a_source_that_is_there_already_costs_one_question_and_a_changed_file_its_own_way_up() {
    let (agent, program) = project();
    assert_eq!(deploy(&agent, &program).0, [4 + 4], "files and folders");
    assert_eq!(deploy(&agent, &program), (vec![], vec![1]), "unchanged: only the root is asked about");
    let old = std::fs::FileTimes::new().set_modified(std::time::UNIX_EPOCH);
    let file = std::fs::OpenOptions::new().write(true).open(program.folder.path().join("c/three.js")).expect("opened");
    file.set_times(old).expect("set");
    assert_eq!(deploy(&agent, &program), (vec![], vec![1]), "times do not matter");
    program.write("a/b/two.js", "changed");
    let (uploads, questions) = deploy(&agent, &program);
    assert_eq!(uploads, [1 + 3], "the file, and the folders from it to the root");
    assert_eq!(questions, [1, 3, 2, 1], "level by level; below c nothing is asked about");
}

#[test]
fn names_that_are_not_text_arrive_as_they_are() {
    use std::os::unix::ffi::OsStrExt as _;
    let (agent, program) = project();
    let name: &[u8] = b"caf\xe9=[x] \n";
    std::fs::write(program.folder.path().join(std::ffi::OsStr::from_bytes(name)), "x").expect("written");
    deploy(&agent, &program);
    let script = agent.script();
    let root = script.deploy.as_ref().map(|deploy| deploy.source.clone()).expect("a deploy");
    let root = Directory::decode(&script.objects[root.as_slice()], 0).expect("a directory");
    let entry = root.entries.iter().find(|entry| entry.name == name).expect("the file is there");
    assert!(matches!(entry.node, Node::File { size: 1, executable: false, .. }));
}

#[test]
fn a_large_file_arrives_in_pieces() {
    let (agent, program) = project();
    let noise: Vec<u8> =
        (0..1_500_000_u32).flat_map(|n| blake3::hash(&n.to_le_bytes()).as_bytes()[..2].to_vec()).collect();
    std::fs::write(program.folder.path().join("large.bin"), &noise).expect("written");
    deploy(&agent, &program);
    assert_eq!(agent.script().objects.get(blake3::hash(&noise).as_bytes()), Some(&noise));
}
