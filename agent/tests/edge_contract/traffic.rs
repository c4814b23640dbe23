//! What is in flight, through switches there and back.

use crate::world::{World, app, by, eventually, instance_name, table};

pub(crate) async fn what_is_in_flight_stays_with_its_instance(mut w: World) {
    let (one, two) = (w.instance("a-web-1").await, w.instance("a-web-2").await);
    let names = ["a-web-2", "nobody-web-1", "a-web-1", "a-web-1"].map(instance_name);
    assert_eq!(w.edge.in_flight(&names).await.unwrap(), [0, 0, 0, 0], "known or not");
    assert_eq!(w.edge.in_flight(&[]).await.unwrap(), [0_u32; 0]);
    w.activate(&table(1, vec![app("a", 1, one)])).await;
    w.host.begin("a.test").await;
    w.host.begin("a.test").await;
    assert_eq!(w.edge.in_flight(&names).await.unwrap(), [0, 0, 2, 2], "in the order asked");
    w.activate(&table(2, vec![app("a", 2, two)])).await;
    w.host.begin("a.test").await;
    assert_eq!(w.edge.in_flight(&names).await.unwrap(), [1, 0, 2, 2], "nothing new enters what was displaced");
    w.activate(&table(3, vec![])).await;
    assert_eq!(w.edge.in_flight(&names).await.unwrap(), [1, 0, 2, 2], "also when no table names it any more");
    w.host.finish(&instance_name("a-web-1")).await;
    eventually("it has drained", async || w.edge.in_flight(&names).await.unwrap() == [1, 0, 0, 0]).await;
}

pub(crate) async fn a_displaced_instance_takes_requests_again(mut w: World) {
    let (one, two) = (w.instance("a-web-1").await, w.instance("a-web-2").await);
    w.activate(&table(1, vec![app("a", 1, one.clone())])).await;
    w.host.begin("a.test").await;
    w.activate(&table(2, vec![app("a", 2, two)])).await;
    assert_eq!(w.visit("a.test").await, by("a-web-2"));
    assert_eq!(w.in_flight("a-web-1").await, 1, "it drains");
    w.activate(&table(3, vec![app("a", 1, one)])).await;
    assert_eq!(w.visit("a.test").await, by("a-web-1"));
    w.host.begin("a.test").await;
    assert_eq!(w.in_flight("a-web-1").await, 2, "what it had and what came back");
    w.host.finish(&instance_name("a-web-1")).await;
    eventually("it has drained", async || w.in_flight("a-web-1").await == 0).await;
}
