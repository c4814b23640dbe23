//! One-off commands and the ledger, over a host in memory.

#![allow(clippy::unwrap_used, clippy::panic)]

mod world;

use refloat_agent::deploy::one_off::Command;
use refloat_agent::docker::RunIo;
use refloat_agent::faults::{Faults, Mode};
use refloat_agent::journal::Journal as _;
use refloat_model::{Event, OneOffEnd, OneOffId, Principal, ReleaseNumber, Via};
use tokio::sync::mpsc;

use world::{Agent, Shape, World, app};

const ID: OneOffId = OneOffId([9; 16]);

fn command(script: &str) -> Command {
    Command {
        id: ID,
        by: Principal { name: "anna".into(), via: Via::Socket(0), from: "test".into() },
        reason: "seed the shop".into(),
        app: Some(app("shop")),
        process: None,
        argv: vec!["sh".into(), "-c".into(), script.into()],
        tty: false,
    }
}

async fn serving() -> (World, Agent) {
    let world = World::new().await;
    let agent = world.healthy_agent().await;
    agent.deploy(&app("shop"), world.source(1, Shape::good())).await;
    (world, agent)
}

type Input = mpsc::Sender<Vec<u8>>;
type Read = mpsc::Receiver<(bool, Vec<u8>)>;

/// Both ends of a command's input and output: ours, and what it gets.
fn pipes() -> (Input, Read, RunIo) {
    let (input, stdin) = mpsc::channel(4);
    let (output, read) = mpsc::channel(4);
    (input, read, RunIo { stdin, output })
}

fn of_commands(world: &World) -> Vec<Event> {
    let events = world.disk.events();
    events.into_iter().filter(|e| matches!(e, Event::OneOffBegan { .. } | Event::OneOffEnded { .. })).collect()
}

#[tokio::test(start_paused = true)]
async fn a_command_is_recorded_with_who_why_and_how_it_ended_but_not_with_its_arguments() {
    let (world, agent) = serving().await;
    let (_input, _read, io) = pipes();
    let code = agent.deployments.run(command("echo hunter2; exit 3"), io).await.unwrap();
    assert_eq!(code, 3);
    let record = world.journal.one_off(&app("shop"), ID).await.unwrap().unwrap();
    assert_eq!((record.by.name.as_str(), record.one_off.reason.as_str()), ("anna", "seed the shop"));
    assert_eq!((record.one_off.release, record.one_off.arguments), (ReleaseNumber(1), 2));
    assert_eq!(record.end, Some(OneOffEnd::Exited(3)));
    assert!(!format!("{:?}", of_commands(&world)).contains("hunter2"));
    assert_eq!(world.app(&app("shop")).await.one_offs, []);
}

#[tokio::test(start_paused = true)]
async fn the_same_request_again_does_not_run_again() {
    let (world, agent) = serving().await;
    let (_input, _read, io) = pipes();
    agent.deployments.run(command("exit 3"), io).await.unwrap();
    let (_input, _read, io) = pipes();
    let denied = agent.deployments.run(command("exit 3"), io).await.unwrap_err();
    assert_eq!(denied.reason, "COMMAND_RUN_BEFORE");
    assert!(denied.message.contains("ended with exit code 3"), "{}", denied.message);
    assert_eq!(of_commands(&world).len(), 2, "one beginning, one end");
}

#[tokio::test(start_paused = true)]
async fn a_command_that_nobody_reads_is_ended_and_that_is_recorded() {
    let (world, agent) = serving().await;
    let (_input, read, io) = pipes();
    drop(read);
    agent.deployments.run(command("sleep 1000"), io).await.unwrap_err();
    let record = world.journal.one_off(&app("shop"), ID).await.unwrap().unwrap();
    assert!(matches!(record.end, Some(OneOffEnd::Cut(_))), "{record:?}");
}

#[tokio::test(start_paused = true)]
async fn a_command_that_cannot_be_recorded_does_not_run() {
    let (world, _agent) = serving().await;
    let faults = Faults::none();
    let agent = world.agent(&faults).await;
    faults.arm(0, Mode::Fail);
    let (_input, mut read, io) = pipes();
    let denied = agent.deployments.run(command("echo ran"), io).await.unwrap_err();
    assert_eq!(denied.reason, "LEDGER");
    assert_eq!(read.recv().await, None);
}

#[tokio::test(start_paused = true)]
async fn what_a_killed_agent_had_begun_is_ended_by_the_next() {
    let (world, agent) = serving().await;
    let (_input, _read, io) = pipes();
    let deployments = agent.deployments.clone();
    let running = tokio::spawn(async move { deployments.run(command("sleep 1000"), io).await });
    while world.app(&app("shop")).await.one_offs.is_empty() {
        tokio::task::yield_now().await;
    }
    running.abort();
    let _next = world.healthy_agent().await;
    let record = world.journal.one_off(&app("shop"), ID).await.unwrap().unwrap();
    assert!(matches!(record.end, Some(OneOffEnd::Cut(_))), "{record:?}");
    assert_eq!(world.app(&app("shop")).await.one_offs, []);
}
