//! The contract with the agent.

use std::os::unix::fs::PermissionsExt as _;

use refloat_model::{Canonical as _, TreeDigest};
use refloat_proto::edge::v1::{HoldRequest, StageRequest};
use tonic::Code;

use crate::app::App;
use crate::rig::{Rig, app_routes, instance, site};
use crate::wire::get;

#[tokio::test]
async fn the_status_says_what_is_active_and_staged_and_where_it_listens() {
    let app = App::named("fine").await;
    let mut rig = Rig::start().await;
    let status = rig.status().await;
    assert_eq!(status.active.unwrap().number, 0);
    assert_eq!(status.listen, [rig.address().to_string()]);
    assert!(status.rss_bytes > 0 && !status.version.is_empty() && status.started_at_unix_ms > 0);
    let table = rig.table(vec![app_routes("a", 1, vec![("/", instance("a-web-1", app.address))])]);
    let version = rig.stage(&table).await.unwrap();
    assert_eq!(version.digest, table.table_digest().0);
    let status = rig.status().await;
    assert_eq!((status.active.unwrap().number, status.staged), (0, Some(version.clone())));
    assert_eq!(get(rig.address(), "/").await.status, 404, "what is staged does not serve");
    let applied = rig.apply(version.clone()).await.unwrap();
    assert_eq!((applied.active, applied.displaced), (Some(version.clone()), Vec::new()));
    let status = rig.status().await;
    assert_eq!((status.active, status.staged), (Some(version), None));
}

#[tokio::test]
async fn applying_and_staging_what_is_active_succeeds_again() {
    let app = App::named("fine").await;
    let mut rig = Rig::start().await;
    let table = rig.table(vec![app_routes("a", 1, vec![("/", instance("a-web-1", app.address))])]);
    let version = rig.stage(&table).await.unwrap();
    for _ in 0..3 {
        assert_eq!(rig.apply(version.clone()).await.unwrap().displaced, Vec::<String>::new());
    }
    assert_eq!(rig.stage(&table).await.unwrap(), version);
    rig.restart(|_| {}).await;
    rig.apply(version).await.expect("also after a restart, when nothing is staged");
}

#[tokio::test]
async fn a_table_that_is_not_newer_or_not_staged_is_a_failed_precondition() {
    let app = App::named("fine").await;
    let mut rig = Rig::start().await;
    let routes = |release| vec![app_routes("a", release, vec![("/", instance("a-web-1", app.address))])];
    let older = rig.table(routes(1));
    let newer = rig.table(routes(2));
    let (first, second) = (rig.stage(&older).await.unwrap(), rig.stage(&newer).await.unwrap());
    assert_eq!(
        rig.apply(first.clone()).await.unwrap_err().code(),
        Code::FailedPrecondition,
        "replaced by a newer stage"
    );
    rig.apply(second.clone()).await.unwrap();
    assert_eq!(rig.stage(&older).await.unwrap_err().code(), Code::FailedPrecondition);
    let mut same_generation = newer.clone();
    same_generation.apps[0].release = refloat_model::ReleaseNumber(9);
    assert_eq!(rig.stage(&same_generation).await.unwrap_err().code(), Code::FailedPrecondition);
    let mut other_digest = second;
    other_digest.digest = vec![9; 32];
    assert_eq!(rig.apply(other_digest).await.unwrap_err().code(), Code::FailedPrecondition);
    let mut new_epoch = older;
    new_epoch.generation.epoch.0 += 1;
    rig.stage(&new_epoch).await.expect("a later epoch outranks any number of an earlier one");
}

#[tokio::test]
async fn a_table_that_breaks_a_rule_is_an_invalid_argument_and_changes_nothing() {
    let app = App::named("fine").await;
    let mut rig = Rig::serving(app.address).await;
    let mut no_port = rig.table(vec![app_routes("a", 1, vec![("/", instance("a-web-1", app.address))])]);
    if let refloat_model::RouteTarget::Instance { port, .. } = &mut no_port.apps[0].routes[0].target {
        *port = 0;
    }
    let no_tree = rig.table(vec![app_routes("a", 1, vec![("/", site(TreeDigest([7; 32])))])]);
    let damaged = rig.publish(&[("index.html", b"x")]);
    std::fs::write(rig.folder.path().join("public/tree").join(damaged.to_hex()), b"\x01damaged").unwrap();
    let damaged = rig.table(vec![app_routes("a", 1, vec![("/", site(damaged))])]);
    let lacking = rig.publish(&[("index.html", b"y")]);
    std::fs::remove_dir_all(rig.folder.path().join("public/blob")).unwrap();
    let lacking = rig.table(vec![app_routes("a", 1, vec![("/", site(lacking))])]);
    for table in [no_port, no_tree, damaged, lacking] {
        assert_eq!(rig.stage(&table).await.unwrap_err().code(), Code::InvalidArgument, "{table:?}");
    }
    let mut trailing = rig.table(Vec::new()).to_canonical();
    trailing.push(0);
    for bytes in [Vec::new(), b"\x02abc".to_vec(), trailing] {
        let refused = rig.control.stage(StageRequest { table: bytes }).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
    }
    assert_eq!(rig.status().await.staged, None);
    assert_eq!(get(rig.address(), "/").await.text(), "fine");
}

#[tokio::test]
async fn a_table_that_cannot_be_saved_does_not_serve() {
    let (old, new) = (App::named("old").await, App::named("new").await);
    let mut rig = Rig::serving(old.address).await;
    let table = rig.table(vec![app_routes("a", 2, vec![("/", instance("a-web-2", new.address))])]);
    let version = rig.stage(&table).await.unwrap();
    let state = rig.folder.path().join("state");
    let moved = rig.folder.path().join("moved");
    std::fs::rename(&state, &moved).unwrap();
    assert_eq!(rig.apply(version.clone()).await.unwrap_err().code(), Code::Unavailable);
    assert_eq!(get(rig.address(), "/").await.text(), "old");
    std::fs::rename(&moved, &state).unwrap();
    rig.apply(version).await.expect("what is staged stays staged");
    assert_eq!(get(rig.address(), "/").await.text(), "new");
}

#[tokio::test]
async fn a_hold_without_a_sensible_deadline_or_name_is_refused() {
    let mut rig = Rig::start().await;
    for (app, deadline_ms) in [("a", 0), ("a", 600_001), ("Not A Name", 1_000)] {
        let refused = rig.control.hold(HoldRequest { app: app.to_owned(), deadline_ms }).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{app} {deadline_ms}");
    }
}

#[tokio::test]
async fn the_control_socket_is_closed_to_others_and_a_stale_one_is_replaced() {
    let mut rig = Rig::start().await;
    let socket = rig.folder.path().join("edge.sock");
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&socket), 0o600);
    rig.restart(|folder| drop(std::os::unix::net::UnixListener::bind(folder.join("edge.sock")).unwrap())).await;
    assert_eq!(mode(&socket), 0o600);
    rig.status().await;
}

#[tokio::test]
async fn health_is_served_beside_control() {
    let rig = Rig::start().await;
    let socket = rig.folder.path().join("edge.sock");
    let connector = tower::service_fn(move |_: tonic::transport::Uri| {
        let socket = socket.clone();
        async move {
            let stream = tokio::net::UnixStream::connect(socket).await?;
            Ok::<_, std::io::Error>(hyper_util::rt::TokioIo::new(stream))
        }
    });
    let endpoint = tonic::transport::Endpoint::from_static("http://edge");
    let channel = endpoint.connect_with_connector(connector).await.unwrap();
    let mut health = tonic_health::pb::health_client::HealthClient::new(channel);
    let request = tonic_health::pb::HealthCheckRequest { service: "refloat.edge.v1.Control".to_owned() };
    assert_eq!(health.check(request).await.unwrap().into_inner().status, 1);
}
