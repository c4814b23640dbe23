//! Switching, holding, restarting.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use refloat_model::AppServing;

use crate::app::{App, Peer, ok};
use crate::rig::{Rig, app_routes, eventually, instance, site};
use crate::wire::{Wire, get};

/// One keep-alive client at a steady rate; half of them upload.
async fn steady_client(address: std::net::SocketAddr, over: Arc<AtomicBool>, post: bool) -> u64 {
    let mut wire = Wire::open(address).await;
    let mut requests = 0;
    let mut pace = tokio::time::interval(Duration::from_millis(2));
    while !over.load(Ordering::SeqCst) {
        pace.tick().await;
        wire.send(match post {
            true => "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 5\r\n\r\nhello",
            false => "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n",
        })
        .await;
        let answer = wire.answer().await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        requests += 1;
    }
    requests
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_switches_under_load_fail_no_request() {
    let (blue, green) = (App::named("blue").await, App::named("green").await);
    let mut rig = Rig::serving(blue.address).await;
    let over = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> =
        (0..8).map(|i| tokio::spawn(steady_client(rig.address(), over.clone(), i % 2 == 0))).collect();
    for switch in 1..=50u64 {
        let (name, app) = if switch % 2 == 0 { ("a-web-1", &blue) } else { ("a-web-2", &green) };
        let applied = rig.activate(vec![app_routes("a", 1, vec![("/", instance(name, app.address))])]).await;
        assert_eq!(applied.displaced.len(), 1);
        let colour = if switch % 2 == 0 { "blue" } else { "green" };
        assert_eq!(get(rig.address(), "/").await.text(), colour);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    over.store(true, Ordering::SeqCst);
    let mut requests = 0;
    for client in clients {
        requests += client.await.unwrap();
    }
    assert!(requests > 100, "the load was real: {requests}");
}

/// Each release answers its own number, so that an answer from any older release is seen, however many switches later.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_that_starts_after_a_switch_is_answered_by_an_older_release() {
    let names: Vec<&'static str> = (0..50).map(|i| &*Box::leak(i.to_string().into_boxed_str())).collect();
    let mut apps = Vec::new();
    for name in &names {
        apps.push(App::named(name).await);
    }
    let mut rig = Rig::serving(apps[0].address).await;
    let (acknowledged, over) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let client = |_| {
        let (address, acknowledged, over) = (rig.address(), acknowledged.clone(), over.clone());
        tokio::spawn(async move {
            let mut wire = Wire::open(address).await;
            let mut requests = 0;
            while !over.load(Ordering::SeqCst) {
                let floor = acknowledged.load(Ordering::SeqCst);
                let answer = wire.get("/").await;
                let release: u64 = answer.text().parse().expect("an answer of an app");
                assert!(release >= floor, "release {release} answered after {floor} was acknowledged");
                assert!(release <= acknowledged.load(Ordering::SeqCst) + 1);
                requests += 1;
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            requests
        })
    };
    let clients: Vec<_> = (0..6).map(client).collect();
    for (i, app) in apps.iter().enumerate().skip(1) {
        let old = format!("a-web-{i}");
        let target = instance(&format!("a-web-{}", i + 1), app.address);
        rig.activate(vec![app_routes("a", 1, vec![("/", target)])]).await;
        acknowledged.store(i as u64, Ordering::SeqCst);
        // Once the count of the displaced one is 0 it stays 0: draining is refused at the door.
        let mut control = rig.control.clone();
        let mut count = async || {
            let request = refloat_proto::edge::v1::InFlightRequest { instances: vec![format!("refloat-{old}")] };
            control.in_flight(request).await.unwrap().into_inner().counts[0].requests
        };
        while count().await > 0 {}
        let seen = apps[i - 1].count();
        for _ in 0..3 {
            assert_eq!(count().await, 0);
        }
        assert_eq!(apps[i - 1].count(), seen, "a drained release gets nothing more");
    }
    over.store(true, Ordering::SeqCst);
    let mut requests = 0u64;
    for client in clients {
        requests += client.await.unwrap();
    }
    assert!(requests > 100, "the load was real: {requests}");
}

#[tokio::test]
async fn a_request_in_flight_is_finished_by_the_release_that_it_was_bound_to() {
    let go = Arc::new(tokio::sync::Notify::new());
    let gate = go.clone();
    let old = App::script(move |stream| {
        let gate = gate.clone();
        async move {
            let mut peer = Peer::new(stream);
            peer.request().await;
            gate.notified().await;
            let _ = tokio::io::AsyncWriteExt::write_all(&mut peer.stream, &ok("old")).await;
        }
    })
    .await;
    let new = App::named("new").await;
    let mut rig = Rig::serving(old.address).await;
    let mut slow = Wire::open(rig.address()).await;
    slow.send("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
    while rig.in_flight("a-web-1").await == 0 {
        tokio::task::yield_now().await;
    }
    rig.activate(vec![app_routes("a", 2, vec![("/", instance("a-web-2", new.address))])]).await;
    assert_eq!(get(rig.address(), "/").await.text(), "new");
    assert_eq!(rig.in_flight("a-web-1").await, 1, "the count survives the switch");
    go.notify_one();
    assert_eq!(slow.answer().await.text(), "old");
    assert_eq!(slow.get("/").await.text(), "new", "the same connection sees the new table");
    assert_eq!(rig.in_flight("a-web-1").await, 0);
}

#[tokio::test]
async fn held_requests_wait_and_go_to_the_table_that_is_active_when_they_are_released() {
    let (old, new) = (App::named("old").await, App::named("new").await);
    let mut rig = Rig::serving(old.address).await;
    rig.hold("a", 60_000).await;
    let address = rig.address();
    let held: Vec<_> = (0..5).map(|_| tokio::spawn(async move { get(address, "/").await })).collect();
    let before = rig.status().await.requests_total;
    assert!(before <= 5);
    let control = rig.control.clone();
    eventually("all five have arrived", || {
        let mut control = control.clone();
        async move {
            let status = control.get_status(refloat_proto::edge::v1::GetStatusRequest {}).await.unwrap();
            status.into_inner().requests_total == 5
        }
    })
    .await;
    assert_eq!(rig.in_flight("a-web-1").await, 0, "who waits is bound to nobody");
    rig.activate(vec![app_routes("a", 2, vec![("/", instance("a-web-2", new.address))])]).await;
    assert!(held.iter().all(|task| !task.is_finished()), "a switch does not release");
    assert_eq!(rig.release("a").await, 5);
    for task in held {
        assert_eq!(task.await.unwrap().text(), "new");
    }
    assert_eq!(old.count(), 0);
    assert_eq!(rig.release("a").await, 0);
}

#[tokio::test]
async fn a_hold_that_nobody_releases_ends_with_503_and_concerns_one_app_only() {
    let (a, b) = (App::named("a").await, App::named("b").await);
    let mut rig = Rig::start().await;
    let apps = vec![
        app_routes("a", 1, vec![("/", instance("a-web-1", a.address))]),
        app_routes("b", 1, vec![("/", instance("b-web-1", b.address))]),
    ];
    rig.activate(apps).await;
    rig.hold("a", 1_500).await;
    let mut other = Wire::open(rig.address()).await;
    other.send("GET / HTTP/1.1\r\nHost: b.test\r\n\r\n").await;
    assert_eq!(other.answer().await.text(), "b");
    let mut wire = Wire::open(rig.address()).await;
    let answer = wire.get("/").await;
    assert_eq!((answer.status, answer.field("retry-after")), (503, Some("5")));
    assert_eq!(wire.get("/").await.text(), "a", "after its deadline a hold is over");
}

#[tokio::test]
async fn hosts_and_prefixes_lead_to_their_app_and_process() {
    let (web, api, b) = (App::named("web").await, App::named("api").await, App::named("b").await);
    let mut rig = Rig::start().await;
    let a = vec![("/", instance("a-web-1", web.address)), ("/api", instance("a-api-1", api.address))];
    let mut stopped = app_routes("c", 1, vec![("/", instance("c-web-1", b.address))]);
    stopped.serving = AppServing::Stopped;
    rig.activate(vec![
        app_routes("a", 1, a),
        app_routes("b", 1, vec![("/only", instance("b-web-1", b.address))]),
        stopped,
    ])
    .await;
    for (host, path, status, body) in [
        ("a.test", "/", 200, "web"),
        ("A.TEST.:80", "/", 200, "web"),
        ("unknown.test", "/apix", 200, "web"),
        ("203.0.113.7", "/api", 200, "api"),
        ("a.test", "/api/x?y", 200, "api"),
        ("a.test", "/api?x", 200, "api"),
        ("b.test", "/only/x", 200, "b"),
        ("b.test", "/", 404, "There is nothing at this address.\n"),
        ("c.test", "/", 503, "This app is stopped.\n"),
    ] {
        let mut wire = Wire::open(rig.address()).await;
        wire.send(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
        let answer = wire.answer().await;
        assert_eq!((answer.status, answer.text().as_str()), (status, body), "{host} {path}");
    }
}

#[tokio::test]
async fn an_edge_without_a_table_answers_404() {
    let rig = Rig::start().await;
    let answer = get(rig.address(), "/").await;
    assert_eq!((answer.status, answer.text().as_str()), (404, "No app answers this address.\n"));
}

#[tokio::test]
async fn a_restarted_edge_serves_its_last_table_without_the_agent() {
    let app = App::named("fine").await;
    let mut rig = Rig::start().await;
    let tree = rig.publish(&[("index.html", b"<p>site")]);
    let apps = vec![
        app_routes("a", 7, vec![("/", instance("a-web-1", app.address))]),
        app_routes("b", 1, vec![("/", site(tree))]),
    ];
    rig.activate(apps).await;
    let active = rig.status().await.active;
    rig.restart(|_| {}).await;
    assert_eq!(get(rig.address(), "/").await.text(), "fine");
    let mut wire = Wire::open(rig.address()).await;
    wire.send("GET / HTTP/1.1\r\nHost: b.test\r\n\r\n").await;
    assert_eq!(wire.answer().await.text(), "<p>site");
    assert_eq!(rig.status().await.active, active);
}

#[tokio::test]
async fn a_damaged_table_falls_back_to_the_one_before_it() {
    let (old, new) = (App::named("old").await, App::named("new").await);
    let mut rig = Rig::serving(old.address).await;
    rig.activate(vec![app_routes("a", 2, vec![("/", instance("a-web-2", new.address))])]).await;
    rig.restart(|folder| {
        let path = folder.join("state/table");
        let length = std::fs::metadata(&path).unwrap().len();
        std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(length / 2).unwrap();
    })
    .await;
    assert_eq!(get(rig.address(), "/").await.text(), "old");
    assert_eq!(rig.status().await.active.unwrap().number, 1, "the agent sees that it is behind");
    rig.activate(vec![app_routes("a", 3, vec![("/", instance("a-web-2", new.address))])]).await;
    assert_eq!(get(rig.address(), "/").await.text(), "new");
}

#[tokio::test]
async fn an_edge_that_lost_every_table_says_503_and_never_404() {
    let app = App::named("fine").await;
    let mut rig = Rig::serving(app.address).await;
    let damage = |folder: &std::path::Path| std::fs::write(folder.join("state/table"), "torn").unwrap();
    rig.restart(damage).await;
    assert_eq!(get(rig.address(), "/").await.status, 503);
    rig.activate(vec![app_routes("a", 2, vec![("/", instance("a-web-1", app.address))])]).await;
    assert_eq!(get(rig.address(), "/").await.text(), "fine");
}

#[tokio::test]
async fn a_site_whose_tree_is_gone_does_not_take_the_others_with_it() {
    let app = App::named("fine").await;
    let mut rig = Rig::start().await;
    let tree = rig.publish(&[("index.html", b"<p>site")]);
    let apps = vec![
        app_routes("a", 1, vec![("/", instance("a-web-1", app.address))]),
        app_routes("b", 1, vec![("/", site(tree))]),
    ];
    rig.activate(apps).await;
    rig.restart(|folder| std::fs::remove_dir_all(folder.join("public")).unwrap()).await;
    assert_eq!(get(rig.address(), "/").await.text(), "fine");
    let mut wire = Wire::open(rig.address()).await;
    wire.send("GET / HTTP/1.1\r\nHost: b.test\r\n\r\n").await;
    assert_eq!(wire.answer().await.status, 503);
}

#[tokio::test]
async fn a_site_whose_tree_is_gone_keeps_no_other_app_from_being_switched() {
    let (old, new) = (App::named("old").await, App::named("new").await);
    let mut rig = Rig::start().await;
    let tree = rig.publish(&[("index.html", b"<p>site")]);
    let apps = |release, app: &App, site_release| {
        vec![
            app_routes("a", release, vec![("/", instance("a-web-1", app.address))]),
            app_routes("b", site_release, vec![("/", site(tree))]),
        ]
    };
    rig.activate(apps(1, &old, 1)).await;
    rig.restart(|folder| std::fs::remove_dir_all(folder.join("public")).unwrap()).await;
    rig.activate(apps(2, &new, 1)).await;
    assert_eq!(get(rig.address(), "/").await.text(), "new");
    let deploys_it = rig.table(apps(2, &new, 2));
    assert_eq!(rig.stage(&deploys_it).await.unwrap_err().code(), tonic::Code::InvalidArgument, "it never served");
    rig.publish(&[("index.html", b"<p>site")]);
    rig.activate(apps(2, &new, 2)).await;
}

#[tokio::test]
async fn an_edge_without_a_table_takes_one_whose_site_is_gone() {
    let app = App::named("fine").await;
    let mut rig = Rig::start().await;
    let gone = refloat_model::TreeDigest([7; 32]);
    let apps = vec![
        app_routes("a", 1, vec![("/", instance("a-web-1", app.address))]),
        app_routes("b", 1, vec![("/", site(gone))]),
    ];
    rig.activate(apps).await;
    assert_eq!(get(rig.address(), "/").await.text(), "fine");
    let mut wire = Wire::open(rig.address()).await;
    wire.send("GET / HTTP/1.1\r\nHost: b.test\r\n\r\n").await;
    assert_eq!(wire.answer().await.status, 503);
}
