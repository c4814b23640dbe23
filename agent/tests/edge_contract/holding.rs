//! Holding an app's requests, and letting them go on.

use crate::world::{HOLD_MS, World, app, app_name, by, eventually, refused, table};

pub(crate) async fn held_requests_wait_for_the_release(mut w: World) {
    let (a, b) = (w.instance("a-web-1").await, w.instance("b-web-1").await);
    w.activate(&table(1, vec![app("a", 1, a), app("b", 1, b)])).await;
    w.host.begin("a.test").await;
    w.edge.hold(&app_name("a"), HOLD_MS).await.unwrap();
    let held = w.visit_meanwhile("a.test");
    for _ in 0..10 {
        assert_eq!(w.visit("b.test").await, by("b-web-1"), "another app is not held");
    }
    assert!(!held.is_finished());
    assert_eq!(w.in_flight("a-web-1").await, 1, "what was in flight goes on, what is held is not");
    w.edge.release(&app_name("a")).await.unwrap();
    assert_eq!(held.await.unwrap(), by("a-web-1"));
    assert_eq!(w.visit("a.test").await, by("a-web-1"));
}

pub(crate) async fn a_held_request_goes_to_the_table_active_at_its_release(mut w: World) {
    let (one, two) = (w.instance("a-web-1").await, w.instance("a-web-2").await);
    w.activate(&table(1, vec![app("a", 1, one)])).await;
    w.edge.hold(&app_name("a"), HOLD_MS).await.unwrap();
    let held = w.visit_meanwhile("a.test");
    w.activate(&table(2, vec![app("a", 2, two)])).await;
    assert!(!held.is_finished(), "a switch does not end a hold");
    w.edge.release(&app_name("a")).await.unwrap();
    assert_eq!(held.await.unwrap(), by("a-web-2"));
}

pub(crate) async fn holding_and_releasing_may_be_done_twice_and_to_any_app(mut w: World) {
    let one = w.instance("a-web-1").await;
    w.edge.release(&app_name("a")).await.expect("of an app that is not held");
    // Before its first table.
    w.edge.hold(&app_name("a"), HOLD_MS).await.expect("of an app that no table names");
    w.activate(&table(1, vec![app("a", 1, one)])).await;
    w.edge.hold(&app_name("a"), HOLD_MS).await.unwrap();
    let held = w.visit_meanwhile("a.test");
    w.edge.release(&app_name("a")).await.unwrap();
    assert_eq!(held.await.unwrap(), by("a-web-1"), "one release ends both holds");
    w.edge.release(&app_name("a")).await.unwrap();
    assert_eq!(w.visit("a.test").await, by("a-web-1"));
}

pub(crate) async fn a_hold_ends_at_its_deadline(mut w: World) {
    let one = w.instance("a-web-1").await;
    w.activate(&table(1, vec![app("a", 1, one)])).await;
    for senseless in [0, 600_001, u32::MAX] {
        refused(w.edge.hold(&app_name("a"), senseless).await);
    }
    assert_eq!(w.visit("a.test").await, by("a-web-1"), "what is refused holds nobody");
    w.edge.hold(&app_name("a"), 1).await.unwrap();
    eventually("the hold is over", async || w.visit("a.test").await == by("a-web-1")).await;

    w.edge.hold(&app_name("a"), HOLD_MS).await.unwrap();
    w.edge.hold(&app_name("a"), 1).await.unwrap();
    eventually("the earlier deadline counts", async || w.visit("a.test").await == by("a-web-1")).await;
}
