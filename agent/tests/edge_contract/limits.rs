//! Rules and sizes of a table.

use refloat_agent::edge::EdgeError;
use refloat_model::route::{MAX_APPS, MAX_ROUTES_PER_APP, MAX_TABLE_BYTES};
use refloat_model::{AppRoutes, Canonical as _, RouteTable, RouteTarget, StaticRules, TreeDigest};

use crate::world::{World, app, by, instance_name, refused, route, table};

pub(crate) async fn a_table_that_breaks_a_rule_is_refused(mut w: World) {
    let one = w.instance("a-web-1").await;
    let first = table(1, vec![app("a", 1, one.clone())]);
    w.activate(&first).await;
    let staged = table(2, vec![app("a", 2, one.clone())]);
    w.edge.stage(&staged).await.unwrap();
    let nowhere = RouteTarget::Instance { name: instance_name("a-web-1"), ip: [127, 0, 0, 1], port: 0 };
    let everybody = |name| AppRoutes { catch_all: true, ..app(name, 1, one.clone()) };
    let double =
        AppRoutes { routes: vec![route("/", one.clone()), route("/", one.clone())], ..app("a", 1, one.clone()) };
    let thief = AppRoutes { hosts: app("a", 1, one.clone()).hosts, ..app("b", 1, one.clone()) };
    let many = (0..=MAX_APPS).map(|n| app(&format!("a{n:05}"), 1, one.clone())).collect();
    for apps in [
        vec![app("a", 1, nowhere)],
        vec![app("b", 1, one.clone()), app("a", 1, one.clone())],
        vec![everybody("a"), everybody("b")],
        vec![double],
        vec![app("a", 1, one.clone()), thief],
        many,
    ] {
        let table = table(3, apps);
        refused(w.edge.stage(&table).await);
        assert_eq!(w.apply(&table).await, Err(EdgeError::NotStaged));
    }
    w.serves(&first).await;
    w.apply(&staged).await.expect("what is refused replaces nothing");
}

pub(crate) async fn the_largest_number_of_apps_and_routes_serves(mut w: World) {
    let one = w.instance("a-web-1").await;
    let routes = |app: usize| {
        let name = instance_name(&format!("a{app:03}-web-1"));
        let target = RouteTarget::Instance { name, ip: [127, 0, 0, 1], port: 1 };
        (1..MAX_ROUTES_PER_APP).map(move |n| route(&format!("/path{n:03}"), target.clone()))
    };
    let routed = |n: usize| AppRoutes {
        routes: std::iter::once(route("/", one.clone())).chain(routes(n)).collect(),
        ..app(&format!("a{n:03}"), 1, one.clone())
    };
    let largest = table(1, (0..MAX_APPS).map(routed).collect());
    w.activate(&largest).await;
    w.serves(&largest).await;
    assert_eq!(w.visit(&format!("a{:03}.test", MAX_APPS - 1)).await, by("a-web-1"));
    let next = RouteTable { generation: largest.generation.next(), ..largest };
    w.activate(&next).await;
    w.serves(&next).await;
}

/// Not "unreachable": that would be tried again for ever.
pub(crate) async fn a_table_of_too_many_bytes_is_refused(w: World) {
    let prefixes: Vec<_> = (0..MAX_TABLE_BYTES / 200)
        .map(|n| refloat_model::PathPrefix::new(&format!("/{}{n:07}", "x".repeat(200))).unwrap())
        .collect();
    let rules = StaticRules { no_fallback: prefixes, ..StaticRules::default() };
    let large = table(1, vec![app("a", 1, RouteTarget::Files { tree: TreeDigest([1; 32]), rules })]);
    assert!(large.to_canonical().len() > MAX_TABLE_BYTES);
    refused(w.edge.stage(&large).await);
    assert_eq!(w.apply(&large).await, Err(EdgeError::NotStaged));
}
