//! What every edge does, held against the fake and against a real `refloat-edge` by the same checks.
//!
//! The real one is a process of its own, asked through the agent's client. Without its program the second half fails; it
//! is never skipped.

// The lint knows tests by their attribute; here they are called from two.
#![allow(clippy::unwrap_used, clippy::panic)]

mod app;
mod fake;
mod holding;
mod limits;
mod outage;
mod real;
mod staging;
mod traffic;
mod trees;
mod world;

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;

use futures_util::FutureExt;
use world::{Host, World};

type Check = (&'static str, fn(World) -> Pin<Box<dyn Future<Output = ()>>>);

const CHECKS: [Check; 26] = [
    ("a fresh edge serves nothing and says so", |w| Box::pin(staging::a_fresh_edge_serves_nothing_and_says_so(w))),
    ("what is staged does not serve", |w| Box::pin(staging::what_is_staged_does_not_serve(w))),
    ("what is applied serves", |w| Box::pin(staging::what_is_applied_serves(w))),
    ("nothing is applied that is not staged", |w| Box::pin(staging::nothing_is_applied_that_is_not_staged(w))),
    ("applying what is active succeeds", |w| Box::pin(staging::applying_what_is_active_succeeds(w))),
    ("staging what is active changes nothing", |w| Box::pin(staging::staging_what_is_active_changes_nothing(w))),
    ("staging twice is staging once", |w| Box::pin(staging::staging_twice_is_staging_once(w))),
    ("what is staged replaces what was staged", |w| Box::pin(staging::what_is_staged_replaces_what_was_staged(w))),
    ("what is not newer is refused", |w| Box::pin(staging::what_is_not_newer_is_refused(w))),
    ("a later epoch outranks every number", |w| Box::pin(staging::a_later_epoch_outranks_every_number(w))),
    ("numbers may be skipped and do not come back", |w| {
        Box::pin(staging::numbers_may_be_skipped_and_do_not_come_back(w))
    }),
    ("a table that breaks a rule is refused", |w| Box::pin(limits::a_table_that_breaks_a_rule_is_refused(w))),
    ("the largest number of apps and routes serves", |w| {
        Box::pin(limits::the_largest_number_of_apps_and_routes_serves(w))
    }),
    ("a table of too many bytes is refused", |w| Box::pin(limits::a_table_of_too_many_bytes_is_refused(w))),
    ("a missing site refuses a table where it is new", |w| {
        Box::pin(trees::a_missing_site_refuses_a_table_where_it_is_new(w))
    }),
    ("a missing site that was there does not hold up the others", |w| {
        Box::pin(trees::a_missing_site_that_was_there_does_not_hold_up_the_others(w))
    }),
    ("a first table serves what of it is there", |w| Box::pin(trees::a_first_table_serves_what_of_it_is_there(w))),
    ("the active table survives a restart, the staged one does not", |w| {
        Box::pin(outage::the_active_table_survives_a_restart_the_staged_one_does_not(w))
    }),
    ("an edge that is away is unreachable until it is back", |w| {
        Box::pin(outage::an_edge_that_is_away_is_unreachable_until_it_is_back(w))
    }),
    ("holds and counts end with the edge", |w| Box::pin(outage::holds_and_counts_end_with_the_edge(w))),
    ("held requests wait for the release", |w| Box::pin(holding::held_requests_wait_for_the_release(w))),
    ("a held request goes to the table that is active when it is released", |w| {
        Box::pin(holding::a_held_request_goes_to_the_table_active_at_its_release(w))
    }),
    ("holding and releasing may be done twice, and to any app", |w| {
        Box::pin(holding::holding_and_releasing_may_be_done_twice_and_to_any_app(w))
    }),
    ("a hold ends at its deadline", |w| Box::pin(holding::a_hold_ends_at_its_deadline(w))),
    ("what is in flight stays with its instance", |w| Box::pin(traffic::what_is_in_flight_stays_with_its_instance(w))),
    ("a displaced instance takes requests again", |w| Box::pin(traffic::a_displaced_instance_takes_requests_again(w))),
];

#[tokio::test(start_paused = true)]
async fn the_fake_edge_keeps_the_contract() {
    keeps_the_contract(async || Box::new(fake::Fake::default()) as Box<dyn Host>).await;
}

#[tokio::test]
async fn the_real_edge_keeps_the_contract() {
    keeps_the_contract(async || Box::new(real::Real::start().await) as Box<dyn Host>).await;
}

async fn keeps_the_contract(edge: impl AsyncFn() -> Box<dyn Host>) {
    let mut broken = Vec::new();
    for (name, check) in CHECKS {
        let world = World::new(edge().await);
        // Caught, so that one broken promise does not hide the others; the panic has told its place by itself.
        if AssertUnwindSafe(check(world)).catch_unwind().await.is_err() {
            broken.push(name);
        }
    }
    assert!(broken.is_empty(), "{} of {} checks:\n{}", broken.len(), CHECKS.len(), broken.join("\n"));
}
