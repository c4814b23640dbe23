//! Networks and volumes.

use std::net::Ipv4Addr;

use refloat_agent::docker::{InstanceSpec, NetworkSpec, RunState};
use refloat_model::AppName;

use crate::world::{SERVE, World, refused};

pub(crate) async fn a_network_is_found_again(w: World) {
    w.engine.ensure_network(&w.network).await.unwrap();
    w.engine.ensure_network(&NetworkSpec { mtu: 1_300, ..w.network.clone() }).await.unwrap();
    let moved = Ipv4Addr::from(u32::from(w.network.base) ^ 64);
    assert!(refused(w.engine.ensure_network(&NetworkSpec { base: moved, ..w.network.clone() }).await).contains("has"));
}

pub(crate) async fn a_subnet_belongs_to_one_app(w: World) {
    let app = AppName::new("contract-second").unwrap();
    let taken = NetworkSpec { app, ..w.network.clone() };
    assert!(refused(w.engine.ensure_network(&taken).await).contains("is in use"));
    assert!(refused(w.other.ensure_network(&w.network).await).contains("is in use"));
}

pub(crate) async fn it_is_removed_when_nothing_is_attached(w: World) {
    let name = w.serving().await;
    refused(w.engine.remove_network(&w.app).await);
    w.engine.remove(&name).await.unwrap();
    w.engine.remove_network(&w.app).await.unwrap();
    w.engine.remove_network(&w.app).await.unwrap();
    let spec = w.spec(&SERVE);
    let started = match w.engine.create(&spec).await {
        Ok(()) => w.engine.start(&spec.name).await,
        refused => refused,
    };
    assert!(started.is_err(), "it runs without a network");
    w.engine.ensure_network(&w.network).await.unwrap();
}

pub(crate) async fn a_volume_outlives_its_containers(w: World) {
    for _ in 0..2 {
        w.engine.ensure_volume(&w.app, "uploads").await.unwrap();
    }
    let spec =
        InstanceSpec { volumes: vec![("data".to_owned(), "/data".to_owned())], ..w.shell("echo kept > /data/it") };
    let name = w.start(&spec).await;
    w.becomes(&name, RunState::Exited(0)).await;
    // A volume that nobody made before its container is the app's all the same.
    w.engine.ensure_volume(&w.app, "data").await.unwrap();
    refused(w.engine.remove_volume(&w.app, "data").await);
    w.engine.remove(&name).await.unwrap();
    assert_eq!(w.engine.volumes(&w.app).await.unwrap(), ["data", "uploads"]);
    assert_eq!(w.other.volumes(&w.app).await.unwrap(), Vec::<String>::new());
    assert_eq!(w.engine.volumes(&AppName::new("contract-other").unwrap()).await.unwrap(), Vec::<String>::new());
    for _ in 0..2 {
        w.engine.remove_volume(&w.app, "data").await.unwrap();
        assert_eq!(w.engine.volumes(&w.app).await.unwrap(), ["uploads"]);
    }
}
