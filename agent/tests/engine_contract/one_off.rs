//! One-off containers.

use refloat_agent::docker::{EngineError, InstanceSpec, RunIo, RunRequest};
use refloat_model::{AppName, ImageDigest};
use std::net::Ipv4Addr;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::world::{World, not_found, refused};

/// The command, its input and its output.
struct Running {
    ended: JoinHandle<Result<i64, EngineError>>,
    stdin: mpsc::Sender<Vec<u8>>,
    output: mpsc::Receiver<(bool, Vec<u8>)>,
}

fn run(w: &World, spec: InstanceSpec) -> Running {
    let spec = InstanceSpec { ip: Ipv4Addr::UNSPECIFIED, ..spec };
    let (stdin, from) = mpsc::channel(4);
    let (to, output) = mpsc::channel(4);
    let engine = Arc::clone(&w.engine);
    let io = RunIo { stdin: from, output: to };
    let ended = tokio::spawn(async move { engine.run(RunRequest { spec, tty: false }, io).await });
    Running { ended, stdin, output }
}

async fn read(output: &mut mpsc::Receiver<(bool, Vec<u8>)>) -> (String, String) {
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    while let Some((is_stderr, bytes)) = output.recv().await {
        if is_stderr { stderr.extend(bytes) } else { stdout.extend(bytes) }
    }
    (String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

pub(crate) async fn a_command_answers_output_and_exit_code(w: World) {
    let spec = w.shell("echo one; echo two >&2; exit 7");
    let name = spec.name.clone();
    let mut running = run(&w, spec.clone());
    assert_eq!(read(&mut running.output).await, ("one\n".to_owned(), "two\n".to_owned()));
    assert_eq!(running.ended.await.unwrap(), Ok(7));
    assert_eq!(w.engine.inspect(&name).await.unwrap(), None);
    let mut again = run(&w, InstanceSpec { command: w.shell("exit 0").command, ..spec });
    assert_eq!(read(&mut again.output).await, (String::new(), String::new()));
    assert_eq!(again.ended.await.unwrap(), Ok(0));
    let absent = ImageDigest::new(format!("sha256:{}", "ef".repeat(32))).unwrap();
    not_found(run(&w, InstanceSpec { image: absent, ..w.shell("exit 0") }).ended.await.unwrap());
}

pub(crate) async fn a_command_reads_its_input(w: World) {
    let mut running = run(&w, w.shell("cat; exit 0"));
    running.stdin.send(b"through ".to_vec()).await.unwrap();
    running.stdin.send(b"and back".to_vec()).await.unwrap();
    drop(running.stdin);
    assert_eq!(read(&mut running.output).await.0, "through and back");
    assert_eq!(running.ended.await.unwrap(), Ok(0));
}

pub(crate) async fn a_command_ends_when_nobody_reads_it(w: World) {
    let mut running = run(&w, w.shell("echo up; sleep 3600; exit 0"));
    assert_eq!(running.output.recv().await, Some((false, b"up\n".to_vec())));
    let ours = async || w.engine.list().await.unwrap().into_iter().filter(|c| c.app == w.app).count();
    assert_eq!(ours().await, 0, "a one-off container is no instance");
    drop(running.output);
    assert!(refused(running.ended.await.unwrap()).contains("nobody reads"));
    w.engine.remove_network(&AppName::new(w.app.as_str()).unwrap()).await.unwrap();
}
