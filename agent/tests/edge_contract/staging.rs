//! Staging and applying: what may follow what.

use refloat_agent::edge::EdgeError;
use refloat_model::{AppServing, Epoch, Generation, RouteTable, TableDigest};

use crate::world::{Answer, World, app, by, refused, table};

pub(crate) async fn a_fresh_edge_serves_nothing_and_says_so(w: World) {
    let status = w.status().await;
    assert_eq!((status.active, status.active_digest), (Generation::default(), TableDigest([0; 32])));
    assert!(!status.version.is_empty() && status.rss_bytes > 0, "{status:?}");
    assert!(!status.listen.is_empty());
    for address in &status.listen {
        address.parse::<std::net::SocketAddr>().unwrap();
    }
    assert_eq!(w.visit("a.test").await, Answer::Edge(404));
}

pub(crate) async fn what_is_staged_does_not_serve(mut w: World) {
    let fresh = w.status().await;
    let first = table(1, vec![app("a", 1, w.instance("a-web-1").await)]);
    w.edge.stage(&first).await.unwrap();
    let status = w.status().await;
    assert_eq!((status.active, status.active_digest), (fresh.active, fresh.active_digest));
    assert_eq!(w.visit("a.test").await, Answer::Edge(404));
}

pub(crate) async fn what_is_applied_serves(mut w: World) {
    let (one, two, b) = (w.instance("a-web-1").await, w.instance("a-web-2").await, w.instance("b-web-1").await);
    let first = table(1, vec![app("a", 1, one), app("b", 1, b.clone())]);
    w.activate(&first).await;
    w.serves(&first).await;
    assert_eq!(w.visit("a.test").await, by("a-web-1"));
    assert_eq!(w.visit("b.test").await, by("b-web-1"));
    assert_eq!(w.visit("c.test").await, Answer::Edge(404));

    let stopped = refloat_model::AppRoutes { serving: AppServing::Stopped, ..app("b", 1, b) };
    let second = table(2, vec![app("a", 2, two), stopped]);
    w.activate(&second).await;
    w.serves(&second).await;
    assert_eq!(w.visit("a.test").await, by("a-web-2"));
    assert_eq!(w.visit("b.test").await, Answer::Edge(503));

    let empty = table(3, vec![]);
    w.activate(&empty).await;
    w.serves(&empty).await;
    assert_eq!(w.visit("a.test").await, Answer::Edge(404));
}

pub(crate) async fn nothing_is_applied_that_is_not_staged(mut w: World) {
    let not_staged = Err(EdgeError::NotStaged);
    assert_eq!(w.apply(&RouteTable::default()).await, not_staged, "also not the table that no edge needs to be told");
    let first = table(1, vec![app("a", 1, w.instance("a-web-1").await)]);
    assert_eq!(w.apply(&first).await, not_staged);
    w.edge.stage(&first).await.unwrap();
    let other_digest = w.edge.apply(first.generation, TableDigest([9; 32])).await;
    assert_eq!(other_digest, not_staged);
    let other_number = w.edge.apply(first.generation.next(), first.table_digest()).await;
    assert_eq!(other_number, not_staged);
    assert_eq!(w.status().await.active, Generation::default());
    w.apply(&first).await.expect("what is staged stays staged");
    let other_digest = w.edge.apply(first.generation, TableDigest([9; 32])).await;
    assert_eq!(other_digest, not_staged, "another table under the active generation");
    w.serves(&first).await;
}

pub(crate) async fn applying_what_is_active_succeeds(mut w: World) {
    let first = table(1, vec![app("a", 1, w.instance("a-web-1").await)]);
    w.activate(&first).await;
    let second = table(2, vec![app("a", 2, w.instance("a-web-2").await)]);
    w.edge.stage(&second).await.unwrap();
    for _ in 0..2 {
        w.apply(&first).await.unwrap();
    }
    w.serves(&first).await;
    w.apply(&second).await.expect("and what is staged stays staged");
    w.restart().await;
    w.apply(&second).await.expect("also after a restart, when nothing is staged");
    assert_eq!(w.apply(&first).await, Err(EdgeError::NotStaged), "there is no way back without staging");
    w.serves(&second).await;
}

pub(crate) async fn staging_what_is_active_changes_nothing(mut w: World) {
    let first = table(1, vec![app("a", 1, w.instance("a-web-1").await)]);
    w.activate(&first).await;
    let second = table(2, vec![app("a", 2, w.instance("a-web-2").await)]);
    w.edge.stage(&second).await.unwrap();
    w.edge.stage(&first).await.unwrap();
    w.serves(&first).await;
    w.apply(&second).await.expect("what was staged before is still staged");
    w.serves(&second).await;
}

pub(crate) async fn staging_twice_is_staging_once(mut w: World) {
    let first = table(1, vec![app("a", 1, w.instance("a-web-1").await)]);
    for _ in 0..2 {
        w.edge.stage(&first).await.unwrap();
    }
    w.apply(&first).await.unwrap();
    w.serves(&first).await;
    assert_eq!(w.visit("a.test").await, by("a-web-1"));
}

pub(crate) async fn what_is_staged_replaces_what_was_staged(mut w: World) {
    let (one, two) = (w.instance("a-web-1").await, w.instance("a-web-2").await);
    let ours = table(2, vec![app("a", 1, one.clone())]);
    let same_number = table(2, vec![app("a", 2, two.clone())]);
    let later = table(3, vec![app("a", 1, one)]);
    let earlier = table(1, vec![app("a", 2, two)]);
    for pair in [[&ours, &same_number], [&same_number, &later], [&later, &earlier]] {
        w.edge.stage(pair[0]).await.unwrap();
        w.edge.stage(pair[1]).await.unwrap();
        assert_eq!(w.apply(pair[0]).await, Err(EdgeError::NotStaged));
    }
    w.apply(&earlier).await.unwrap();
    w.serves(&earlier).await;
    assert_eq!(w.visit("a.test").await, by("a-web-2"));
}

pub(crate) async fn what_is_not_newer_is_refused(mut w: World) {
    let (one, two) = (w.instance("a-web-1").await, w.instance("a-web-2").await);
    let active = RouteTable { generation: Generation { epoch: Epoch(2), number: 5 }, apps: vec![app("a", 1, one)] };
    w.activate(&active).await;
    let staged = RouteTable { generation: active.generation.next(), ..active.clone() };
    w.edge.stage(&staged).await.unwrap();
    let other = |epoch, number| RouteTable {
        generation: Generation { epoch: Epoch(epoch), number },
        apps: vec![app("a", 2, two.clone())],
    };
    for older in [other(2, 4), other(2, 5), other(1, 6), other(1, u64::MAX), other(0, 0)] {
        refused(w.edge.stage(&older).await);
        assert_eq!(w.apply(&older).await, Err(EdgeError::NotStaged), "{}", older.generation);
    }
    w.serves(&active).await;
    assert_eq!(w.visit("a.test").await, by("a-web-1"));
    w.apply(&staged).await.expect("what is refused replaces nothing");
}

pub(crate) async fn a_later_epoch_outranks_every_number(mut w: World) {
    let one = w.instance("a-web-1").await;
    w.activate(&table(u64::MAX, vec![app("a", 1, one.clone())])).await;
    let restored = RouteTable { generation: Generation { epoch: Epoch(2), number: 1 }, apps: vec![app("a", 1, one)] };
    w.activate(&restored).await;
    w.serves(&restored).await;
}

pub(crate) async fn numbers_may_be_skipped_and_do_not_come_back(mut w: World) {
    let one = w.instance("a-web-1").await;
    w.activate(&table(1, vec![app("a", 1, one.clone())])).await;
    w.activate(&table(9, vec![app("a", 1, one.clone())])).await;
    refused(w.edge.stage(&table(2, vec![app("a", 1, one)])).await);
}
