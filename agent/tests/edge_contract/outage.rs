//! The edge ends, is away and comes back.

use refloat_agent::edge::EdgeError;
use refloat_model::AppName;

use crate::world::{HOLD_MS, World, app, app_name, by, instance_name, table};

pub(crate) async fn the_active_table_survives_a_restart_the_staged_one_does_not(mut w: World) {
    let (one, two) = (w.instance("a-web-1").await, w.instance("a-web-2").await);
    let (first, second) = (table(1, vec![app("a", 1, one)]), table(2, vec![app("a", 2, two)]));
    w.activate(&first).await;
    w.edge.stage(&second).await.unwrap();
    w.restart().await;
    w.serves(&first).await;
    assert_eq!(w.visit("a.test").await, by("a-web-1"));
    assert_eq!(w.apply(&second).await, Err(EdgeError::NotStaged));
    w.activate(&second).await;
    w.restart().await;
    w.serves(&second).await;
    assert_eq!(w.visit("a.test").await, by("a-web-2"));
}

pub(crate) async fn an_edge_that_is_away_is_unreachable_until_it_is_back(mut w: World) {
    let one = w.instance("a-web-1").await;
    let (first, second) = (table(1, vec![app("a", 1, one.clone())]), table(2, vec![app("a", 2, one)]));
    w.activate(&first).await;
    w.host.end().await;
    let away = |answer: Result<(), EdgeError>| matches!(answer, Err(EdgeError::Unreachable(_)));
    let a: AppName = app_name("a");
    assert!(away(w.edge.status().await.map(drop)));
    assert!(away(w.edge.stage(&second).await));
    assert!(away(w.apply(&first).await), "also of what is active: nobody knows");
    assert!(away(w.edge.hold(&a, HOLD_MS).await));
    assert!(away(w.edge.release(&a).await));
    assert!(away(w.edge.in_flight(&[instance_name("a-web-1")]).await.map(drop)));
    w.host.come_back().await;
    w.serves(&first).await;
    assert_eq!(w.visit("a.test").await, by("a-web-1"), "nobody is held");
    w.activate(&second).await;
}

pub(crate) async fn holds_and_counts_end_with_the_edge(mut w: World) {
    let one = w.instance("a-web-1").await;
    w.activate(&table(1, vec![app("a", 1, one)])).await;
    w.host.begin("a.test").await;
    assert_eq!(w.in_flight("a-web-1").await, 1);
    w.edge.hold(&app_name("a"), HOLD_MS).await.unwrap();
    w.restart().await;
    assert_eq!(w.in_flight("a-web-1").await, 0);
    assert_eq!(w.visit("a.test").await, by("a-web-1"));
}
