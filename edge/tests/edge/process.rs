//! The binary itself: its exit codes and its signals.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

fn edge(folder: &std::path::Path, listen: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_refloat-edge"));
    command.arg("--state-dir").arg(folder.join("state")).arg("--public-dir").arg(folder.join("public"));
    command.arg("--control").arg(folder.join("edge.sock"));
    for address in listen {
        command.args(["--listen", address]);
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Waits for the line that says that it serves.
fn serving(command: &mut Command) -> (Child, BufReader<std::process::ChildStderr>) {
    let mut child = command.spawn().unwrap();
    let mut errors = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("the edge serves") {
        line.clear();
        assert_ne!(errors.read_line(&mut line).unwrap(), 0, "it ended");
    }
    (child, errors)
}

fn signal(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).unwrap();
}

#[test]
fn bad_configuration_exits_64_before_anything_is_made() {
    let folder = tempfile::tempdir().unwrap();
    for listen in [&[][..], &["nonsense"], &["127.0.0.1:1", "127.0.0.1:1"]] {
        let output = edge(folder.path(), listen).output().unwrap();
        assert_eq!(output.status.code(), Some(64), "{listen:?}");
        assert!(!output.stderr.is_empty());
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn it_survives_a_hang_up_and_a_closed_standard_error_and_ends_in_order_when_told() {
    let folder = tempfile::tempdir().unwrap();
    let (mut child, errors) = serving(&mut edge(folder.path(), &["127.0.0.1:0", "[::1]:0"]));
    drop(errors);
    drop(child.stdout.take());
    signal(&child, Signal::HUP);
    signal(&child, Signal::HUP);
    assert!(std::os::unix::net::UnixStream::connect(folder.path().join("edge.sock")).is_ok());
    signal(&child, Signal::TERM);
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(!folder.path().join("edge.sock").exists());
}

#[test]
fn a_second_edge_on_the_same_folder_is_refused_and_the_first_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let (mut first, _errors) = serving(&mut edge(folder.path(), &["127.0.0.1:0"]));
    let mut second = edge(folder.path(), &["127.0.0.1:0"]).spawn().unwrap();
    assert_eq!(second.wait().unwrap().code(), Some(1));
    let mut text = String::new();
    second.stderr.take().unwrap().read_to_string(&mut text).unwrap();
    assert!(text.contains("used by another refloat-edge"), "{text}");
    assert!(std::os::unix::net::UnixStream::connect(folder.path().join("edge.sock")).is_ok());
    signal(&first, Signal::TERM);
    first.wait().unwrap();
}
