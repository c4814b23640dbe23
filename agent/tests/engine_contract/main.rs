//! What every engine does, held against the fake and against Docker by the same checks.
//!
//! Without Docker the second half fails; it is never skipped.

// The lint knows tests by their attribute; here they are called from two.
#![allow(clippy::unwrap_used, clippy::panic)]

mod containers;
mod hardening;
mod images;
mod networks;
mod one_off;
mod world;

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;

use futures_util::FutureExt;
use refloat_agent::docker::fake::FakeDocker;
use refloat_agent::docker::{DockerEngine, Engine};

use world::{Engines, Leftovers, World};

type Check = (&'static str, fn(World) -> Pin<Box<dyn Future<Output = ()>>>);

const CHECKS: [Check; 27] = [
    ("creating twice is one container", |w| Box::pin(containers::creating_twice_is_one_container(w))),
    ("another container under the name is refused", |w| Box::pin(containers::another_under_the_name_is_refused(w))),
    ("an image that is not there is named", |w| Box::pin(containers::an_image_that_is_not_there_is_named(w))),
    ("every step of a life may be done twice", |w| Box::pin(containers::every_step_of_a_life_may_be_done_twice(w))),
    ("what is not there is not found", |w| Box::pin(containers::what_is_not_there_is_not_found(w))),
    ("an instance is what its specification says", |w| {
        Box::pin(containers::an_instance_is_what_its_specification_says(w))
    }),
    ("an address is never given twice", |w| Box::pin(containers::an_address_is_never_given_twice(w))),
    ("a restart policy changes in every state", |w| Box::pin(containers::a_restart_policy_changes_in_every_state(w))),
    ("a crash loop counts and ends", |w| Box::pin(containers::a_crash_loop_counts_and_ends(w))),
    ("an exit code is observed", |w| Box::pin(containers::an_exit_code_is_observed(w))),
    ("only the agent's own containers are listed", |w| Box::pin(containers::only_our_own_are_listed(w))),
    ("output has times, streams and an end", |w| Box::pin(containers::output_has_times_streams_and_an_end(w))),
    ("following ends with its reader", |w| Box::pin(containers::following_ends_with_its_reader(w))),
    ("memory is counted while it runs", |w| Box::pin(containers::memory_is_counted_while_it_runs(w))),
    ("a network is found again", |w| Box::pin(networks::a_network_is_found_again(w))),
    ("a subnet belongs to one app", |w| Box::pin(networks::a_subnet_belongs_to_one_app(w))),
    ("a network is removed when nothing is attached", |w| {
        Box::pin(networks::it_is_removed_when_nothing_is_attached(w))
    }),
    ("a volume outlives its containers", |w| Box::pin(networks::a_volume_outlives_its_containers(w))),
    ("a build tells its steps and its output", |w| Box::pin(images::a_build_tells_its_steps_and_its_output(w))),
    ("a failed build names its step", |w| Box::pin(images::a_failed_build_names_its_step(w))),
    ("a cancelled build ends at once", |w| Box::pin(images::a_cancelled_build_ends_at_once(w))),
    ("two builds at once keep to their own files", |w| Box::pin(images::two_builds_at_once_keep_to_their_files(w))),
    ("an image goes with its last release", |w| Box::pin(images::an_image_goes_with_its_last_release(w))),
    ("an image from nothing can be read out", |w| Box::pin(images::an_image_from_nothing_can_be_read_out(w))),
    ("a command answers its output and exit code", |w| Box::pin(one_off::a_command_answers_output_and_exit_code(w))),
    ("a command reads its input", |w| Box::pin(one_off::a_command_reads_its_input(w))),
    ("a command ends when nobody reads it", |w| Box::pin(one_off::a_command_ends_when_nobody_reads_it(w))),
];

#[tokio::test(start_paused = true)]
async fn the_fake_engine_keeps_the_contract() {
    let docker = FakeDocker::new();
    let engines = Engines { ours: Arc::new(docker.agent([1; 16])), others: Arc::new(docker.agent([2; 16])) };
    keeps_the_contract(engines).await;
}

#[tokio::test]
async fn docker_keeps_the_contract() {
    let (engines, _leftovers) = docker().await;
    keeps_the_contract(engines).await;
}

/// Two agents on this machine's Docker, and what removes everything that they make.
async fn docker() -> (Engines, Leftovers) {
    let (leftovers, ours, others) = Leftovers::of_this_run();
    (Engines { ours: connect(ours).await, others: connect(others).await }, leftovers)
}

async fn connect(host_id: [u8; 16]) -> Arc<dyn Engine> {
    Arc::new(DockerEngine::connect(None, host_id).await.unwrap())
}

async fn keeps_the_contract(engines: Engines) {
    let image = images::busybox(&engines).await;
    let mut broken = Vec::new();
    for (number, (name, check)) in (1..).zip(CHECKS) {
        let world = World::new(engines.clone(), image.clone(), number).await;
        // Caught, so that one broken promise does not hide the others; the panic has told its place by itself.
        if AssertUnwindSafe(check(world)).catch_unwind().await.is_err() {
            broken.push(name);
        }
    }
    assert!(broken.is_empty(), "{} of {} checks:\n{}", broken.len(), CHECKS.len(), broken.join("\n"));
}
