//! Sites whose files are not there.

use refloat_agent::edge::EdgeError;
use refloat_model::{PathPrefix, RouteTarget, StaticRules, TreeDigest};

use crate::world::{Answer, World, app, by, refused, site, table};

/// A site that was never there.
fn lost(w: &mut World, word: &str) -> TreeDigest {
    let tree = w.host.publish(word);
    w.host.unpublish(&tree);
    tree
}

pub(crate) async fn a_missing_site_refuses_a_table_where_it_is_new(mut w: World) {
    let one = w.instance("b-web-1").await;
    let there = w.host.publish("there");
    let lost = lost(&mut w, "lost");
    let first = table(1, vec![app("a", 1, site(there)), app("b", 1, one.clone())]);
    w.activate(&first).await;
    assert_eq!(w.visit("a.test").await, Answer::Tree(there));
    for apps in [
        vec![app("a", 2, site(lost)), app("b", 1, one.clone())],
        vec![app("a", 1, site(there)), app("b", 2, site(lost))],
        vec![app("a", 1, site(there)), app("b", 1, one.clone()), app("c", 1, site(lost))],
    ] {
        let second = table(2, apps);
        refused(w.edge.stage(&second).await);
        assert_eq!(w.apply(&second).await, Err(EdgeError::NotStaged));
    }
    w.serves(&first).await;
    assert_eq!(w.visit("a.test").await, Answer::Tree(there));
    assert_eq!(w.host.publish("lost"), lost);
    w.activate(&table(2, vec![app("a", 2, site(lost)), app("b", 1, one)])).await;
    assert_eq!(w.visit("a.test").await, Answer::Tree(lost));
}

pub(crate) async fn a_missing_site_that_was_there_does_not_hold_up_the_others(mut w: World) {
    let (one, two) = (w.instance("b-web-1").await, w.instance("b-web-2").await);
    let gone = w.host.publish("gone");
    w.activate(&table(1, vec![app("a", 1, site(gone)), app("b", 1, one)])).await;
    w.host.unpublish(&gone);
    w.restart().await;
    assert_eq!(w.visit("a.test").await, Answer::Edge(503));

    w.activate(&table(2, vec![app("a", 1, site(gone)), app("b", 2, two.clone())])).await;
    assert_eq!(w.visit("a.test").await, Answer::Edge(503));
    assert_eq!(w.visit("b.test").await, by("b-web-2"));

    let rules = StaticRules { immutable: vec![PathPrefix::new("/assets").unwrap()], ..StaticRules::default() };
    let other_rules = RouteTarget::Files { tree: gone, rules };
    for (release, target) in [(2, site(gone)), (1, other_rules)] {
        refused(w.edge.stage(&table(3, vec![app("a", release, target), app("b", 2, two.clone())])).await);
    }
    w.host.publish("gone");
    w.activate(&table(3, vec![app("a", 1, site(gone)), app("b", 2, two)])).await;
    assert_eq!(w.visit("a.test").await, Answer::Tree(gone), "back with the next table");
}

pub(crate) async fn a_first_table_serves_what_of_it_is_there(mut w: World) {
    let one = w.instance("b-web-1").await;
    let there = w.host.publish("there");
    let lost = lost(&mut w, "lost");
    w.activate(&table(7, vec![app("a", 1, site(lost)), app("b", 1, one), app("c", 1, site(there))])).await;
    assert_eq!(w.visit("a.test").await, Answer::Edge(503));
    assert_eq!(w.visit("b.test").await, by("b-web-1"));
    assert_eq!(w.visit("c.test").await, Answer::Tree(there));
}
